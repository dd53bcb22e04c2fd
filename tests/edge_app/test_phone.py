"""The app on a phone, against fakes of Android: pause, edges, file picker, back button, folders."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("babel")
from dermedge import UserError
from edge_app.android import start, system
from edge_app.android.system import CAMERA, FILE_ASKED, OK, SECURE, System
from edge_app.capture import sources
from edge_app.settings import Settings


class Activity:
    """Records what it is asked for; answers as a phone would."""

    def __init__(self, folder: Path):
        self.folder, self.calls = folder, []
        self.granted, self.insets = -1, None
        self.content = b""

    def _path(self, name: str):
        (self.folder / name).mkdir(exist_ok=True)
        return SimpleNamespace(getAbsolutePath=lambda: str(self.folder / name))

    def getFilesDir(self):
        return self._path("files")

    def getCacheDir(self):
        return self._path("cache")

    def getExternalFilesDir(self, kind):
        return self._path(kind)

    def checkSelfPermission(self, name):
        assert name == CAMERA
        return self.granted

    def requestPermissions(self, names, number):
        self.calls.append(("ask", names))

    def startActivityForResult(self, intent, number):
        self.calls.append(("pick", intent.kind, number))

    def getWindow(self):
        view = SimpleNamespace(getRootWindowInsets=lambda: self.insets)
        flags = lambda flag: self.calls.append(("flag", flag))  # noqa: E731
        return SimpleNamespace(addFlags=flags, getDecorView=lambda: view)

    def getContentResolver(self):
        def opened(uri, mode):
            if uri == "gone":
                raise RuntimeError("java.io.FileNotFoundException:\n no such file")
            reader, writer = os.pipe()
            os.write(writer, self.content)
            os.close(writer)
            return SimpleNamespace(detachFd=lambda: reader)

        return SimpleNamespace(openFileDescriptor=opened)


class Intent:
    def __init__(self, action):
        assert action == "android.intent.action.OPEN_DOCUMENT"

    def addCategory(self, name):
        assert name == "android.intent.category.OPENABLE"

    def setType(self, kind):
        self.kind = kind


@pytest.fixture
def phone(tmp_path):
    activity, bound = Activity(tmp_path), {}
    version = SimpleNamespace(SDK_INT=35)
    kinds = SimpleNamespace(systemBars=lambda: 7, displayCutout=lambda: 128)
    classes = {
        "org.kivy.android.PythonActivity": SimpleNamespace(mActivity=activity),
        "org.dermedge.Camera": lambda *words: words,
        "org.dermedge.Picture": None,
        "android.content.Intent": Intent,
        "android.os.Build$VERSION": version,
        "android.view.WindowInsets$Type": kinds,
        "android.os.LocaleList": SimpleNamespace(
            getDefault=lambda: SimpleNamespace(toLanguageTags=lambda: "fr-CH,de-CH")
        ),
    }
    made = System(classes.__getitem__, lambda **events: bound.update(events), lambda action: action)
    return SimpleNamespace(
        system=made, activity=activity, version=version, answer=bound["on_activity_result"]
    )


# --- the system


def test_what_is_kept_lies_where_no_other_app_reaches_it(phone, tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR"):
        monkeypatch.setenv(name, "/sdcard")
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "LANGUAGE"):
        monkeypatch.setenv(name, "")
    words = start.arguments(phone.system)
    assert words == ["--source", "camera2:back", "--home", str(tmp_path / "files" / "dermedge")]
    assert os.environ["TMPDIR"] == str(tmp_path / "cache")
    assert os.environ["HOME"] == str(tmp_path / "files")
    assert Settings().spoken() == "de"  # the second that the phone speaks
    import argparse

    from edge_app.commands import APP

    parser = argparse.ArgumentParser()
    APP.arguments(parser)
    assert parser.parse_args(words).home == words[3]


def test_the_camera_is_a_source_that_asks_for_permission(phone, monkeypatch):
    monkeypatch.setattr(sources, "_OPENERS", {})
    start.cameras(phone.system)
    assert sources.is_camera("camera2:back")  # may come later: no fault at the start
    with pytest.raises(sources.SourceError, match="allow it for dermedge"):
        sources.open_source("camera2:back")
    assert phone.activity.calls == [("ask", [CAMERA])]
    phone.activity.granted = 0
    opened = sources.open_source("camera2:back")
    assert opened._camera == (phone.activity, *sources.CAMERA_SIZE)


def test_the_screen_is_hidden_from_screenshots_and_the_list_of_apps(phone):
    phone.system.hide_from_others()
    assert phone.activity.calls == [("flag", SECURE)]


def test_the_edges_are_those_of_bars_and_cut_outs(phone):
    assert phone.system.margins() == (0, 0, 0, 0)
    edges = SimpleNamespace(left=0, top=90, right=0, bottom=48)
    asked = []
    phone.activity.insets = SimpleNamespace(
        getInsets=lambda kinds: asked.append(kinds) or edges,
        getSystemWindowInsetLeft=lambda: 1,
        getSystemWindowInsetTop=lambda: 2,
        getSystemWindowInsetRight=lambda: 3,
        getSystemWindowInsetBottom=lambda: 4,
    )
    assert phone.system.margins() == (0, 90, 0, 48)
    assert asked == [135]
    phone.version.SDK_INT = 29
    assert phone.system.margins() == (1, 2, 3, 4)


def test_a_chosen_file_is_copied_and_a_wrong_one_told(phone, tmp_path):
    answers = []
    phone.activity.content = b"a picture"

    def choose(result: int, uri: str | None, number: int = FILE_ASKED) -> None:
        phone.system.pick("image/*", tmp_path / "chosen", answers.append)
        phone.answer(number, result, uri and SimpleNamespace(getData=lambda: uri))

    choose(OK, "content://pictures/1")
    assert answers[0].read_bytes() == b"a picture"
    choose(0, None)
    choose(OK, "gone")
    choose(OK, "content://pictures/1", number=5)  # somebody else's answer
    assert answers[1] is None
    assert isinstance(answers[2], UserError)
    assert "cannot be read" in str(answers[2])
    assert "\n" not in str(answers[2])
    assert len(answers) == 3
    phone.answer(FILE_ASKED, OK, SimpleNamespace(getData=lambda: "content://pictures/1"))
    phone.answer(FILE_ASKED, OK, None)  # once is enough
    assert len(answers) == 4


def test_the_clock_counts_the_time_that_the_device_slept():
    assert system.seconds() >= 0


# --- the app, under a real window

APP = """
import sys, time
for name in sys.argv[4].split():
    sys.modules[name] = None
if sys.modules.get("onnxruntime", 0) is None:
    sys.getandroidapilevel = lambda: 34
from pathlib import Path
from functools import partial
from types import SimpleNamespace
from edge_app.commands import _configure_kivy
_configure_kivy(sys.argv[1], 400, 640, False)
from kivy.clock import Clock
from kivy.core.window import Window
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.image.read import write_png
from edge_app.android import phone as module
from edge_app import app as app_module
from edge_app.app import DermedgeApp, LOCK_SECONDS
from edge_app.browser import read_pem
from edge_app.capture.sources import open_source
from edge_app.capture.worker import Worker
from edge_app.session import Session
from edge_app.store.store import Lesion, Person
import numpy as np

home = Path(sys.argv[1])
analyzer = Analyzer(Bundle.open(sys.argv[2]))
session = Session(home / "app", analyzer.bundle.manifest, False)
worker = Worker(partial(open_source, sys.argv[3]), analyzer, None)
app = DermedgeApp(worker, session)
events, picks = [], []
class System:
    def cache_folder(self): return home / "cache"
    def documents(self): return home / "documents"
    def hide_from_others(self): events.append("hidden")
    def margins(self): return 10, 40, 20, 30
    def pick(self, kind, to, done): picks.append((kind, to, done))
cameras = SimpleNamespace(pause=lambda: events.append("pause"),
                          resume=lambda: events.append("resume"))
(home / "documents").mkdir()
left = home / "cache" / "chosen" / "chosen"  # of a run that was killed
left.parent.mkdir(parents=True)
left.write_bytes(b"a picture")
phone = module.Phone(System(), cameras)
assert not left.exists()
phone.attach(app, Window)

app_module.WIPE_SECONDS = ()

def steps():
    session.agree()
    app.start()
    yield lambda: app.frame.pos == [10, 30]
    width, height = Window.size
    assert app.frame.size == [width - 30, height - 70]
    assert Window.softinput_mode == "below_target"

    # A picture of the system's picker is judged; its copy is gone afterwards.
    app.go("live")
    app.go("files", task="picture")
    kind, folder, done = picks.pop()
    assert kind == "image/*"
    folder.mkdir(parents=True, exist_ok=True)
    write_png(folder / "chosen", np.full((200, 200, 3), 150, np.uint8))
    done(folder / "chosen")
    yield lambda: app.here == "result" or session.refused
    runtime = worker.snapshot().result.analysis["versions"]["runtime"]
    yield lambda: not folder.exists()

    # Nothing chosen: back to where one was.
    app.start()
    app.go("live")
    app.go("files", task="picture")
    picks.pop()[2](None)
    yield lambda: app.here == "live"

    # Nor is a copy left where the visit ends meanwhile, before it is there or after.
    for late in (False, True):
        app.go("files", task="picture")
        _kind, folder, done = picks.pop()
        if late:
            app.reset()
        folder.mkdir(parents=True)
        done(folder / "chosen") if late else app.reset()
        yield lambda: not folder.exists()
        app.go("live")

    # The back button of the system is the key Escape; on the first screen it ends the app.
    Window.dispatch("on_keyboard", 27, 0, None, [])
    assert app.here == "home"
    assert app._key(Window, 27) is False

    # What is written goes where a cable reaches it, without a list of folders.
    app.go("settings")
    shown = " ".join(str(getattr(each, "text", "")) for each in app.frame.walk())
    assert "Arabic needs what this device does not have: python-bidi, uharfbuzz" in shown
    app.back()
    session.create("a passphrase")
    app.go("files", task="card")
    assert app.screen.form and app.screen._at == home / "documents"
    app.back()

    # A receiver's folder is that one, too; its certificate is picked, and its copy deleted.
    taken = []
    app.go("files", task="stick", take=taken.append)
    yield lambda: app.here == "home"
    app.go("files", task="pem", take=lambda path: taken.append(path.read_bytes()))
    _kind, folder, done = picks.pop()
    folder.mkdir(parents=True)
    (folder / "chosen").write_bytes(b"a key")
    done(folder / "chosen")
    yield lambda: app.here == "home"
    assert taken == [home / "documents", b"a key"] and not folder.exists()
    app.go("files", task="pem", take=read_pem)
    _kind, folder, done = picks.pop()
    folder.mkdir(parents=True)
    (folder / "chosen").write_bytes(b"a key of another kind")
    done(folder / "chosen")
    yield lambda: app.here == "home"
    assert app.notice.endswith("is no certificate or key as PEM."), app.notice
    assert not folder.exists()

    # A pause gives the camera back, and keeps what was typed; time that the device slept counts.
    session.save_person(Person("", "a code"))
    lesion = session.save_lesion(Lesion("", session.person.id, "left arm"))
    app.go("lesion")
    app.screen.ids.notes.text = "it bleeds"
    assert app.dispatch("on_pause")
    assert session.store.lesion(lesion.id).notes == "it bleeds"
    app.dispatch("on_resume")
    assert events == ["hidden", "pause", "resume"]
    assert session.store is not None
    now = [0.0]
    module.seconds = lambda: now[0]
    app.dispatch("on_pause")
    now[0] = LOCK_SECONDS + 60
    wiped, woke = [], Clock.time()
    app_module.WIPE_SECONDS = (0.5,)
    app_module.forget = lambda: wiped.append(Clock.time() - woke)
    Clock._last_tick -= now[0]  # no frame began while it slept
    app.dispatch("on_resume")
    assert session.store is None
    yield lambda: wiped  # not before the screens of the visit are gone
    assert wiped[0] >= 0.5
    print("done", "(Java)" in runtime)
"""
# What is not there on Android, unless somebody builds it; and what the app has no permission for.
ABSENT = "simplejpeg bidi uharfbuzz pillow_heif openvino requests pydicom highdicom pynetdicom"


@pytest.mark.parametrize("java", [False, True], ids=["python", "java"])
def test_the_app_lives_on_a_phone(display, tiny_bundle, tmp_path, java, request):
    """Without all that Android lacks; once with ONNX Runtime's Java library, as it is there."""
    if find_spec("kivy") is None:
        pytest.skip("kivy is not installed")
    from test_app import DRIVE, _environment

    from dermedge.data.synthetic import draw
    from dermedge.image.read import write_png

    live = tmp_path / "live"
    live.mkdir()
    write_png(live / "a.png", draw(3, "phone", (240, 320), label="mel", artefacts=()).image)
    absent, variables = ABSENT, {}
    if java:
        absent += " onnxruntime"
        jar, temporary = request.getfixturevalue("onnxruntime_jar"), tmp_path / "temporary"
        temporary.mkdir()
        variables = {"CLASSPATH": jar, "JAVA_TOOL_OPTIONS": f"-Xrs -Djava.io.tmpdir={temporary}"}
    arguments = [str(tmp_path), str(tiny_bundle), str(live), absent]
    environment = _environment(DISPLAY=display, SDL_VIDEODRIVER="x11", **variables)
    command = [sys.executable, "-c", APP + DRIVE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"done {java}\n"
