"""The app: what it says, how it looks, and one pass through the real thing under Xvfb."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermedge import DISCLAIMER
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.combine import Combined
from dermedge.data import synthetic as procedural
from dermedge.image.read import read_image
from dermedge.lesion.quality import TITLES
from dermedge.triage import TRIAGE
from edge_app.browser import make_private
from edge_app.capture import processing, worker
from edge_app.capture.shots import Result, Shot, Snapshot
from edge_app.capture.sources import FAULTS, Frame, SourceError, film
from edge_app.capture.worker import Worker
from edge_app.presentation import messages as present
from edge_app.store.store import Lesion
from edge_app.ui import fonts, theme

DERMEDGE = [sys.executable, "-m", "dermedge.cli"]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return procedural.draw(3, "phone", (480, 640), label="mel", artefacts=()).image


def _environment(**values: str) -> dict[str, str]:
    unset = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    kept = {key: value for key, value in os.environ.items() if key not in unset}
    return {**kept, "OMP_NUM_THREADS": "1", **values}


def _analysis(**changes) -> dict:
    content = {
        "image": "a.png",
        "size": [640, 480],
        "quality": {"ok": True, "reasons": [], "scores": {}},
        "lesion": {
            "found": True,
            "box": [10, 10, 20, 20],
            "polygons": [[[10, 10], [30, 10], [30, 30]]],
            "area_px": 200,
        },
        "abcd": {"asymmetry": 1, "border": 3, "color": 2, "diameter_mm": None},
        "probabilities": {"nv": 0.9, "mel": 0.1},
        "malignancy": 0.1,
        "triage": "low",
        "rule": "malignancy 0.100 < see a doctor threshold 0.400",
        "versions": {
            "bundle": "tiny",
            "bundle_sha256": "a" * 64,
            "dermedge": "0",
            "runtime": "onnxruntime",
            "procedural": False,
        },
    }
    return {**content, **changes}


class Pictures:
    """A source of one picture; `fails` makes it fail after so many reads, with `error`."""

    name, live = "pictures", False
    interval = 0.001

    def __init__(
        self, pixels: np.ndarray, fails: int | None = None, error: Exception | None = None
    ):
        self.pixels, self.fails, self.error = pixels, fails, error
        self.reads, self.closed = 0, False

    def read(self):
        self.reads += 1
        if self.fails is not None and self.reads > self.fails:
            raise self.error
        return Frame(self.pixels, self.reads)

    def close(self):
        self.closed = True


def _until(running: Worker, condition) -> Snapshot:
    assert running.wait_for(condition, 60)
    return running.snapshot()


def _taken(running: Worker, frame: Frame) -> Result:
    assert running.capture(Shot(frame))
    return _until(running, lambda s: s.result is not None).result


@pytest.fixture
def start(tiny_bundle, tmp_path):
    """Starts a worker on an opener; stops it afterwards and checks that no thread is left."""
    started = []

    def _start(opener) -> Worker:
        running = Worker(opener, Analyzer(Bundle.open(tiny_bundle)), tmp_path / "captures")
        running.start()
        started.append(running)
        return running

    yield _start
    for running in started:
        running.stop()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("dermedge-")]


def _same(first: dict, second: dict) -> bool:
    """Equal in all but the time they took."""
    return {**first, "timing_ms": 0} == {**second, "timing_ms": 0}


def test_capture_lies_on_disk_and_its_analysis_is_that_of_analyze(
    start, picture, tiny_bundle, tmp_path, capsys
):
    from dermedge.cli import main

    source = Pictures(picture)
    running = start(lambda: source)
    frame = _until(running, lambda s: s.analysis is not None).frame
    capture = _taken(running, frame)
    assert capture.error == ""
    assert np.array_equal(read_image(capture.path).pixels, picture)
    assert _same(json.loads(capture.path.with_suffix(".json").read_text()), capture.analysis)
    assert main(["analyze", str(capture.path), "--bundle", str(tiny_bundle), "--json"]) == 0
    assert _same(json.loads(capsys.readouterr().out), capture.analysis)
    assert sorted(p.suffix for p in (tmp_path / "captures").iterdir()) == [".json", ".png"]


def test_the_picture_is_kept_where_its_analysis_fails(start, picture, tmp_path, monkeypatch):
    running = start(lambda: Pictures(picture))
    frame = _until(running, lambda s: s.frame is not None).frame

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(processing, "write_atomic", refuse)
    capture = _taken(running, frame)
    assert "No space left on device" in capture.error
    assert len(list((tmp_path / "captures").glob("*.png"))) == 1


def test_captures_are_for_their_owner_alone(start, picture, tmp_path):
    (tmp_path / "captures").mkdir(mode=0o755)
    running = start(lambda: Pictures(picture))
    assert _taken(running, _until(running, lambda s: s.frame is not None).frame).path
    files = list((tmp_path / "captures").iterdir())
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]


def test_every_folder_made_for_captures_is_private(tmp_path):
    make_private(tmp_path / "a" / "b")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    make_private(tmp_path / "a" / "b")


def _break_down(*_, **__):
    raise MemoryError


def test_live_analysis_that_breaks_down_is_told_and_goes_on(start, picture, monkeypatch, capsys):
    with monkeypatch.context() as broken:
        broken.setattr(Analyzer, "analyze", _break_down)
        running = start(lambda: Pictures(picture))
        told = present.live(_until(running, lambda s: s.failure and not s.fault))
        assert told.guidance == "The analysis failed: MemoryError."
        assert told.style == "guide_bad"
    assert _until(running, lambda s: s.analysis is not None).failure == ""
    assert "MemoryError at " in capsys.readouterr().err


def test_capture_whose_analysis_breaks_down_is_told_and_the_next_works(
    start, picture, monkeypatch, capsys
):
    running = start(lambda: Pictures(picture))
    frame = _until(running, lambda s: s.frame is not None).frame
    with monkeypatch.context() as broken:
        broken.setattr(Analyzer, "analyze", _break_down)
        failed = _taken(running, frame)
        assert failed.error == "The picture was saved, but not analysed: MemoryError"
        assert not running.snapshot().busy
    assert "MemoryError at " in capsys.readouterr().err
    assert _taken(running, frame).path


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            SourceError("camera 0 stopped delivering pictures: check its cable"),
            "camera 0 stopped delivering pictures: check its cable",
        ),
        (OSError(5, "Input/output error"), "the source failed: Input/output error"),
        (cv2.error("assertion"), "the source failed: cv2.error"),
    ],
)
def test_lost_source_is_told_in_words_and_opened_again(start, picture, monkeypatch, error, words):
    monkeypatch.setattr(worker, "RETRY_SECONDS", 0.001)
    lost, back = Pictures(picture, 2, error), Pictures(picture)
    opened = iter([lost, back])
    faults = []
    publish = Worker._publish

    def record(self, **changes):
        faults.append(changes.get("fault", ""))
        publish(self, **changes)

    monkeypatch.setattr(Worker, "_publish", record)
    running = start(lambda: next(opened))
    _until(running, lambda s: s.frame is not None and back.reads > 0 and not s.fault)
    assert words in faults
    assert lost.closed


def test_every_triage_has_a_band_told_by_words_and_shape():
    assert set(present.BANDS) == set(TRIAGE)
    for key in ("title", "shape", "style"):
        assert len({getattr(band, key) for band in present.BANDS.values()}) == len(TRIAGE)


def test_a_low_risk_bears_no_sign_of_an_all_clear():
    low = present.BANDS["low"]
    red, green, blue, _opaque = theme.STYLES["light"][low.style].ground
    assert low.mark == "i"
    assert green < max(red, blue)


def test_long_names_of_spots_differ_beside_the_camera_where_their_ends_do():
    back = "Dedos de la mano izquierda, por detrás"
    titles = (back, f"{back} (2)", back.replace("detrás", "delante"))
    shown = {present.whose(None, Lesion("", "", title)) for title in titles}
    assert len(shown) == 3
    assert max(map(len, shown)) <= present.NAME


@pytest.mark.parametrize("triage", TRIAGE)
def test_result_never_speaks_of_a_diagnosis(triage):
    view = present.result(_analysis(triage=triage))
    words = json.dumps([view.band.title, view.band.advice, view.estimate, view.limits])
    assert "diagnos" not in words.lower()
    assert "diagnos" in DISCLAIMER


def test_retake_gives_reasons_and_no_numbers():
    quality = {"ok": False, "reasons": ["too_dark"], "scores": {}}
    view = present.result(_analysis(triage="retake", quality=quality))
    assert view.remarks == (TITLES["too_dark"],)
    assert (view.estimate, view.measures, view.classes, view.limits) == ("", (), (), ())


def test_a_refused_picture_gives_no_measures_beside_what_others_of_the_lesion_say():
    together = Combined(2, 1, {"nv": 0.9, "mel": 0.1}, "nv", 0.1, 0.1, 0.1, True, "low", "", None)
    view = present.result(_analysis(triage="retake"), together)
    assert view.estimate.endswith("10%")
    assert view.measures == ()
    assert present.result(_analysis(), together).measures


@pytest.mark.parametrize(
    ("used", "highest", "words"),
    [
        (2, 0.004, "alone they say the same."),
        (2, 0.2, "say below 1% to 20%."),
        (1, 0.001, "Only one of 2 pictures counts for this estimate."),
    ],
)
def test_a_span_of_risks_has_two_ends(used, highest, words):
    chances = {"nv": 0.9, "mel": 0.1}
    together = Combined(2, used, chances, "nv", 0.1, 0.001, highest, True, "low", "", None)
    assert present.result(_analysis(), together).several.endswith(words)


def test_what_is_outlined_on_a_picture_without_a_lesion_is_not_shown():
    outlier = {"score": 2.5, "limit": 1.5, "refused": True}
    quality = {"ok": False, "reasons": ["no_lesion"], "scores": {}}
    analysis = _analysis(triage="retake", quality=quality, outlier=outlier)
    view = present.result(analysis)
    assert view.remarks == (TITLES["no_lesion"],)
    assert view.outline == []
    frame = Frame(np.zeros((4, 4, 3), np.uint8), 1)
    assert present.live(Snapshot(frame, fault="", analysis=analysis)).outline == []
    accepted = analysis | {"outlier": outlier | {"refused": False}}
    assert present.result(accepted).outline == _analysis()["lesion"]["polygons"]


def test_a_picture_unlike_those_that_were_learnt_from_is_told_why_it_is_refused():
    far = _analysis(triage="retake", familiarity={"unfamiliar": True})
    view = present.result(far)
    assert view.remarks == ("The model learnt from no pictures like this one.",)
    frame = Frame(np.zeros((4, 4, 3), np.uint8), 1)
    assert present.live(Snapshot(frame, fault="", analysis=far)).guidance == view.remarks[0]
    # One that was judged all the same says so among its limits.
    judged = present.result(_analysis(familiarity={"unfamiliar": True}))
    assert (judged.remarks, judged.limits[1]) == ((), view.remarks[0])


def test_result_orders_classes_and_says_that_the_size_is_unknown():
    view = present.result(_analysis())
    assert view.classes[0] == ("melanocytic nevus", "90%")
    assert dict(view.measures)["D  Diameter"] == "size unknown"
    assert view.demonstration == ""
    drawn = {**_analysis()["versions"], "procedural": True}
    assert "Demonstration model" in present.result(_analysis(versions=drawn)).demonstration


@pytest.mark.parametrize("text", ["word " * 4000, "x" * 20_000, "\n" * 9_999 + "a", "a\n\nb", ""])
def test_a_long_text_is_drawn_in_parts_that_lose_no_word(text):
    parts = present.blocks(text)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(len(part) <= 600 and part.count("\n") < 20 for part in parts)


def test_live_guidance_goes_from_fault_to_quality_to_good():
    frame = Frame(np.zeros((4, 4, 3), np.uint8), 1)
    poor = _analysis(quality={"ok": False, "reasons": ["cut_off", "too_dark"], "scores": {}})
    assert present.live(Snapshot(fault="Camera 0 is gone.")).guidance == "Camera 0 is gone."
    assert not present.live(Snapshot()).can_capture
    guidance = present.live(Snapshot(frame, fault="", analysis=poor)).guidance
    assert guidance == TITLES["cut_off"]
    good = present.live(Snapshot(frame, fault="", analysis=_analysis()))
    assert good.can_capture
    frozen = replace(frame, stale=True)  # opened again, the camera shows nothing new at first
    for code in ("frozen", "waiting", ""):
        seen = Snapshot(frozen, fault=FAULTS.get(code, ""), fault_code=code, analysis=_analysis())
        assert not present.live(seen).can_capture
    assert good.style == "guide_good"
    assert good.outline == _analysis()["lesion"]["polygons"]
    assert present.live(Snapshot(frame, fault=""), "Disk full.").guidance == "Disk full."


@pytest.mark.parametrize(
    ("theme_name", "name"),
    [(theme_name, name) for theme_name, styles in theme.STYLES.items() for name in styles],
)
def test_every_text_has_the_contrast_of_wcag_aa(theme_name, name):
    style = theme.STYLES[theme_name][name]
    assert theme.contrast(style.text, style.ground) >= 4.5


def test_both_looks_have_the_same_styles():
    assert set(theme.STYLES) == set(theme.THEMES)
    assert len({frozenset(styles) for styles in theme.STYLES.values()}) == 1


def test_contrast_is_that_of_wcag():
    black, white = theme.rgb("#000000"), theme.rgb("#FFFFFF")
    assert theme.contrast(black, white) == pytest.approx(21)
    assert theme.contrast(theme.rgb("#777777"), white) == pytest.approx(4.48, abs=0.01)


def test_touch_targets_are_large_enough():
    assert theme.TOUCH * theme.unit(360, 640) >= 48


@pytest.fixture(scope="module")
def video(real_images, picture, tmp_path_factory) -> Path:
    """What a camera sees of a photograph: of a real one, where there are any."""
    folder = tmp_path_factory.mktemp("video")
    photo = folder / "photo.png"
    cv2.imwrite(str(photo), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if real_images is not None:
        photo = next(iter(sorted((real_images / "phone_photos").glob("*.jpg"))), photo)
    film(photo, folder / "lesion.avi")
    return folder / "lesion.avi"


@pytest.mark.parametrize(
    ("size", "looks"),
    [
        ("360x640", ["--language", "de", "--text", "very large"]),
        pytest.param(
            "320x480", ["--language", "de", "--text", "very large"], marks=pytest.mark.slow
        ),
        pytest.param("1280x800", ["--language", "ar", "--theme", "dark"], marks=pytest.mark.slow),
        # And without a source: a drawn picture stands for it, at once.
        pytest.param("1920x1080", None, marks=pytest.mark.slow),
    ],
)
def test_the_whole_way_through_the_app(display, video, tiny_bundle, tmp_path, size, looks):
    """Consent, capture, result, person, spot, history, comparison, export, deletion, audited."""
    shots, home = tmp_path / "shots", tmp_path / "home"
    home.mkdir()
    command = [*DERMEDGE, "app", "--bundle", str(tiny_bundle)]
    command += ["--screenshot", str(shots), "--size", size]
    command += [] if looks is None else ["--source", str(video), *looks]
    environment = _environment(DISPLAY=display, HOME=str(home))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("0 faults\n")
    assert ("a drawn picture stands for the camera" in done.stderr) == (looks is None)
    assert not {".kivy", ".local"} & {path.name for path in home.iterdir()}
    width, height = map(int, size.split("x"))
    taken = sorted(shots.glob("*.png"))
    assert {"live", "result", "people", "lesion", "compare", "settings"} <= {p.stem for p in taken}
    for path in taken:
        shot = read_image(path).pixels
        assert shot.shape == (height, width, 3)
        colours = shot.astype(np.int32) @ (65536, 256, 1)
        assert len(np.unique(colours)) > 50, path  # more than a plain ground


SETUP = """
import sys, threading, time
from pathlib import Path
from functools import partial
from edge_app.commands import _configure_kivy
_configure_kivy(sys.argv[1], 640, 480, False, kiosk=True)
from kivy.clock import Clock
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from edge_app.app import DermedgeApp
from edge_app.capture.sources import open_source
from edge_app.capture.worker import Worker
from edge_app.store.store import Lesion, Person
from edge_app.kiosk import Idle
from edge_app.session import Session

analyzer = Analyzer(Bundle.open(sys.argv[2]))
session = Session(Path(sys.argv[1], "app"), analyzer.bundle.manifest, kiosk=True)
worker = Worker(partial(open_source, sys.argv[3]), analyzer, None)
app = DermedgeApp(worker, session)
"""

RESET = (
    SETUP
    + """
from kivy.core.window import Window
from edge_app import app as module

def steps():
    session.agree()
    session.pin.set("2468")
    session.enter("2468")
    session.create("a passphrase")
    session.save_person(Person("", "Rosalind Example"))
    session.begin(session.save_lesion(Lesion("", session.person.id, "left arm")))
    app.go("people")
    app.go("live")
    app.restyle(language="de")
    assert app.demonstration.startswith("Vorf\u00fchrmodell"), app.demonstration
    app.restyle(language="en")
    yield lambda: worker.snapshot().analysis
    app.take_picture()
    yield lambda: app.here == "result"
    Window.dispatch("on_keyboard", 282, 58, None, [])  # F1, which opens Kivy's own settings
    assert Window.children == [app.frame], Window.children
    area = app.screen.ids.scroll
    yield lambda: area.children[0].height > area.height
    for key in [274] * 30:
        Window.dispatch("on_keyboard", key, 0, None, [])
    assert area.scroll_y == 0
    app._idle = Idle(time.monotonic() - 1000)
    yield lambda: app.here == "welcome"
    yield lambda: True
    assert (session.person, session.lesion, session.results) == (None, None, ())
    assert not session.operator and not session.agreed
    # A kiosk is ended by nobody who walks by, however large its window is; nothing else is kept
    # open: a full screen has no other way to be left.
    for kiosk in (False, True):
        session.kiosk = kiosk
        assert app._key(Window, 27) is bool(Window.dispatch("on_request_close")) is kiosk
    assert worker.snapshot().result is None
    words = [getattr(w, "text", "") for w in app.frame.walk()]
    assert any(words) and not any("Rosalind" in text for text in words)
    app.go("people")
    assert app.navigator.manager.current == "operator"
    whole = app.frame.height
    pin = app.screen.ids.pin
    pin.ids.entry.focus = True
    yield lambda: app.frame.height < whole  # above a keyboard on the screen
    pin.ids.entry.insert_text("2\u0664-6\u0668")  # some of an Arabic keyboard
    assert pin.text == "2468", pin.text
    pin.ids.entry.focus = False
    yield lambda: app.frame.height == whole

    # Somebody is searched for, and left: no search goes on, which locked cases would end in; and
    # nobody else types into that field.
    session.enter("2468")
    app.passed()
    people, entry = app.screen, app.screen.ids.search
    yield lambda: people.ids.rows.children
    entry.focus = True
    yield lambda: app.frame.height < whole
    entry.insert_text("Rosa")
    app.reset()
    assert entry.text == "" and not people._later.is_triggered
    assert not entry.focus
    yield lambda: app.frame.height == whole

    # A page that holds nothing to press but the way back is read to its end by the keys.
    session.agree()
    session.enter("2468")
    app.go("settings", part="about")
    area = app.screen.ids.page.ids.scroll
    yield lambda: area.children[0].height > area.height
    for key in [281] * 20:
        Window.dispatch("on_keyboard", key, 0, None, [])
    assert area.scroll_y == 0
    Window.dispatch("on_keyboard", 273, 0, None, [])
    assert 0 < area.scroll_y < 1
    app.reset()

    # What a visitor chose does not meet the next one.
    app.restyle(language="de")
    session.change(rotation=90)
    worker.rotation = 90
    app.reset()
    assert (app.demonstration[:4], worker.rotation) == ("Demo", 0)

    # Notes that are typed are kept where the visit ends, or the app; that they are not is said.
    def note(text):
        session.enter("2468")
        session.person = session.store.people()[0]
        session.lesion = session.store.lesions(session.person.id)[0]
        app.go("lesion")
        app.screen.ids.notes.text = text

    note("lost")
    session.change_lesion = lambda *_, **__: session.store.lesion("0")
    module.asleep = lambda: 1e9  # the lid was closed for long, while the app's clock stood still
    app._watch_idle(0)
    assert app.here == "welcome"
    del session.change_lesion
    assert app.notice.endswith("could not be finished."), app.notice
    note("it bleeds")
    print("cleared")
"""
)

DRIVE = """
def drive(_):
    global until
    if until():
        try:
            until = next(way)
        except StopIteration:
            app.stop()

way, until = steps(), lambda: True
app.bind(on_start=lambda _: Clock.schedule_interval(drive, 0))
worker.start()
try:
    app.run()
finally:
    worker.stop()
"""


def test_a_kiosk_left_alone_is_cleared_for_the_next(display, video, tiny_bundle, tmp_path):
    from edge_app.store.store import Store

    arguments = [str(tmp_path), str(tiny_bundle), str(video)]
    environment = _environment(DISPLAY=display, SDL_VIDEODRIVER="x11")
    command = [sys.executable, "-c", RESET + DRIVE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "cleared\n"
    cases = Store.open(tmp_path / "app" / "cases.db", "a passphrase")
    (lesion,) = cases.lesions(cases.people()[0].id)
    assert lesion.notes == "it bleeds"
    cases.close()


PLACES = (
    SETUP.replace("640, 480", "320, 480").replace("kiosk=True", "kiosk=False")
    + """
from dataclasses import replace
from kivy.core.window import Window
from edge_app.ui import theme
from edge_app.ui.body_view import Figure
from edge_app.ui.widgets import Option, Wrap

def steps():
    app.restyle(language="de", text="very large")
    session.agree()
    session.create("a passphrase")
    ada = session.save_person(Person("", "Rosalind Example"))
    # A choice that is longer than a line is broken: it reached out of the window.
    wrap, long = Wrap(size_hint_x=None, width=280), Option(text="01.06.2026 (Datum berichtigt)")
    wrap.add_widget(long)
    app.frame.add_widget(wrap)
    yield lambda: 0 < long.right <= 280 and long.height > theme.TOUCH
    wrap.width = 100  # as before its first layout; of that nothing is left
    yield lambda: long.shrink < 1
    wrap.width = 900
    yield lambda: 280 < long.right and long.height == theme.TOUCH and long.shrink == 1
    app.frame.remove_widget(wrap)
    app.go("place")
    yield lambda: app.screen.ids.all.height > app.screen.ids.scroll.height > 100
    yield lambda: True
    shown = [w for w in app.screen.walk() if isinstance(w, Figure) and not w.disabled]
    assert len(shown) == 2 and all(min(w.size) > 100 for w in shown), [w.size for w in shown]
    # A second spot there gets another name, which is all that tells them apart in lists.
    title, spot = app.screen.ids.title, ("front", 0.79, 0.42)
    arm = Lesion("", ada.id, "Linker Unterarm, vorne", *spot)
    for name in (arm.title, f"{arm.title} (2)", f"{arm.title} (3)"):
        app.replace("place", place=spot)
        yield lambda: title.text == name
        session.save_lesion(replace(arm, title=name))
    app.go("place", change=True)
    yield lambda: app.screen._others
    assert title.text == f"{arm.title} (3)"
    # While it is changed, such a name follows it to another part of the body.
    app.screen.put("front", 0.21, 0.42)
    assert title.text == "Rechter Unterarm, vorne"
    app.go("people")
    yield lambda: app.screen.ids.search.width > 250
    yield lambda: True
    assert not app.screen.ids.search.cut
    session.person = ada
    session.begin(session.save_lesion(Lesion("", ada.id, "Linker Unterarm, vorne, " * 3)))
    app.go("live")
    assert app.demonstration  # which takes room, too
    yield lambda: app.snapshot.analysed_frame
    yield lambda: True
    yield lambda: True
    picture = app.screen.ids.picture
    assert picture.height > 60, picture.height
    # Whose picture it is: the begin of a long name stood above the window.
    whose = app.screen.ids.whose
    assert whose.text.startswith("Rosalind Example: Linker") and whose.top <= Window.height
    # What the result says begins above the buttons: a picture alone was to be seen there.
    app.take_picture()
    yield lambda: app.here == app.screen.name == "result"
    yield lambda: app.screen.ids.stage.height < app.screen.ids.scroll.height - 80
    app.replace("live")
    yield lambda: app.snapshot.analysed_frame
    # A phone that lies on its side: what to do stood above the window, and over the keys there.
    Window.size = 640, 360
    yield lambda: not app.portrait
    yield lambda: True
    yield lambda: True
    advice = app.screen.ids.guidance
    assert advice.text and advice.top <= 360 - theme.TOUCH, advice.top
    session.refused = "This picture cannot be read: " + "/a folder of the stick" * 7 + "/1.jpg"
    yield lambda: "stick" in advice.text
    yield lambda: True
    yield lambda: True
    assert advice.top <= 360 - theme.TOUCH, advice.top
    print("there")
"""
)


@pytest.mark.slow
def test_on_the_smallest_screen_with_the_largest_text_a_place_can_be_chosen(
    display, video, tiny_bundle, tmp_path
):
    arguments = [str(tmp_path), str(tiny_bundle), str(video)]
    environment = _environment(DISPLAY=display, SDL_VIDEODRIVER="x11")
    command = [sys.executable, "-c", PLACES + DRIVE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "there\n"


@pytest.mark.parametrize(
    ("text", "found"), [("\u00dcber\nuns", "Roboto"), ("\u0633\u0644\u0627\u0645", "DejaVu")]
)
def test_words_are_drawn_in_one_font_whatever_their_lines(text, found):
    assert fonts.family(text) == found


TUNES = (
    SETUP.replace("app = DermedgeApp(worker, session)", "")
    + """
from dermedge import tune
from dermedge.runtime import ExecutionConfig
from edge_app.first_tune import FirstTune
from edge_app.tune_process import Found

go, seen = threading.Event(), []
def measure(bundle, gate):
    gate.wait(41.5)
    assert go.wait(60)
    roles = dict.fromkeys(("segmenter", "classifier"), ExecutionConfig("fp32", "cpu", 1))
    return Found(roles, 2, 0)

bundle = Bundle.open(sys.argv[2])
def use():
    worker.use(Analyzer(bundle, executions=tune.load_tuned(bundle)))
first_tune = FirstTune(bundle, lambda: worker.resting, use, measure=measure)
app = DermedgeApp(worker, session, first_tune=first_tune)

def words():
    return [getattr(w, "text", "") for w in app.frame.walk()]

def steps():
    before = worker.processor.analyzer
    yield lambda: any("42 seconds at most" in text for text in words())
    assert app.here == "welcome"
    session.agree()
    app.start()
    assert app.here == "home" and any("42 seconds at most" in text for text in words())
    go.set()
    yield lambda: app.tuning == ""
    assert not any("at most" in text for text in words())
    assert worker.processor.analyzer is not before
    app.go("live")  # and goes on
    yield lambda: worker.snapshot().analysis
    print("tuned")
"""
)


def test_the_start_screens_show_that_it_tunes_and_the_app_goes_on(
    display, video, tiny_bundle, tmp_path
):
    arguments = [str(tmp_path), str(tiny_bundle), str(video)]
    environment = _environment(
        DISPLAY=display, SDL_VIDEODRIVER="x11", XDG_CACHE_HOME=str(tmp_path / "cache")
    )
    command = [sys.executable, "-c", TUNES + DRIVE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "tuned\n"
    assert len(list(tmp_path.glob("cache/dermedge/tuned/*.json"))) == 1


WORK = (
    SETUP
    + """
from kivy.core.window import Window
from kivy.tests.common import UnitTestTouch
from dermedge import UserError
from dataclasses import replace
from edge_app.follow_up.people import Draft, Spot
from edge_app.session import VisitOver
from edge_app.store import derivation
from edge_app.store import store as stores
from edge_app.store.referrals import Destination, Endpoint
from edge_app.ui import widgets
from edge_app.ui.widgets import Press
derivation.ARGON2 = {"iterations": 1, "lanes": 1, "memory_cost": 64}
NAME = "Rosalind Example"
# Also what the errors of a library say must reach nobody.
names = ("first", "second", "keep", "shot", "lock", "read", "before")
gates = {name: threading.Event() for name in names}

def at(gate, then=lambda: None):
    def action():
        assert gates[gate].wait(60)
        return then()
    return action

def fail(error):
    def action():
        raise error
    return action

def waits():
    return [w.message for w in Window.children if isinstance(w, widgets.Wait)]

def steps():
    session.agree()
    session.pin.set("2468")
    session.enter("2468")
    session.create("a passphrase")

    # Whoever presses twice adds nobody twice: the screen is covered meanwhile.
    app.go("person_form", draft=Draft(name=NAME))
    session.save_person = lambda _person: at("lock", fail(VisitOver("")))()
    app.screen.save()
    assert waits() == ["Saving."], waits()
    del session.save_person
    gates["lock"].set()
    yield lambda: waits() == []

    # Nor does whoever presses with two fingers.
    saved = []
    def save(_person):
        saved.append(1)
        raise VisitOver("")
    session.save_person = save
    (press,) = [w for w in app.screen.walk() if getattr(w, "text", "") == "Save"]
    yield lambda: press.width > 100
    yield lambda: True
    fingers = [UnitTestTouch(*press.to_window(*press.center)) for _hand in range(2)]
    for finger in fingers:
        finger.touch_down()
    for finger in fingers:
        finger.touch_up()
    assert press.state == "normal"
    yield lambda: waits() == []
    assert saved == [1], saved
    del session.save_person

    # Two waits at once: each goes when its own work is done.
    app.go("people")
    app.work(at("first"), message="first")
    app.work(at("second"), message="second", writes=True)
    assert sorted(waits()) == ["first", "second"]
    gates["second"].set()
    yield lambda: waits() == ["first"]
    gates["first"].set()
    yield lambda: waits() == []

    # What was asked for one spot is not shown under another one, though the screen is the same.
    shown = []
    app.go("settings", part="about")
    app.work(at("before", lambda: "about"), shown.append)
    app.replace("settings", part="device")
    app.work(lambda: "device", shown.append)
    gates["before"].set()
    yield lambda: "device" in shown
    assert shown == ["device"], shown

    # Two presses for more people add nobody twice.
    app.go("people")
    people = app.screen
    yield lambda: people.message
    people._at, more = 0, Press(text="Show more people")
    people._rest = [Person(str(number), NAME) for number in range(3)]
    more.bind(on_release=lambda _press: people._more())
    people.ids.more.add_widget(more)
    gates["before"].clear()
    app.work(at("before"))
    for _press in range(2):
        if more.parent is not None:
            more.dispatch("on_release")
    app.work(lambda: "more", shown.append)
    gates["before"].set()
    yield lambda: "more" in shown
    assert len(people.ids.rows.children) == 3

    # What is due is listed in parts: hundreds of rows at once would hold the screen up.
    app.go("home")
    due = (Lesion("", "", "left arm", remind="2026-01-01"), Person("", NAME))
    app.screen._remind([due] * 45)
    rows = app.screen.ids.due
    for listed in (20, 40, 45):
        more = rows.children[0]
        assert len(rows.children) == 1 + listed + (listed < 45), len(rows.children)
        for _press in range(2):
            if listed < 45:
                more.dispatch("on_release")

    # The spots of a person come between frames, too, and those of somebody else do not follow.
    session.person = Person("", NAME)
    app.go("person")
    yield lambda: app.screen.message
    spots, person = app.screen.ids.spots, session.person
    app.screen._fill(person, [Spot(due[0], 1, "low", "2026-01-01T00:00:00Z")] * 8)
    assert len(app.screen.marks) == 8 and 0 < len(spots.children) < 8
    yield lambda: len(spots.children) == 8
    app.screen._fill(person, [Spot(due[0], 1, "low", "2026-01-01T00:00:00Z")] * 8)
    app.go("home")
    yield lambda: True
    yield lambda: True
    assert not spots.children

    # A store that cannot be read, as on a stick that was pulled out, gives a line and ends nothing.
    clock, lost = stores.Store.clock_fault, stores.StoreError("disk i/o error")
    stores.Store.clock_fault = lambda *_: fail(lost)()
    app.go("settings", part="cases")
    assert app.notice == "Disk i/o error.", app.notice
    app.go("unlock")
    app.screen._opened(None)
    assert app.notice == "Disk i/o error." and app.here == "unlock"
    stores.Store.clock_fault, app.notice = clock, ""

    # An error of what was to be kept is told on another screen, one of a reading is not.
    app.work(fail(UserError("of a reading")))
    app.work(at("keep", fail(UserError("the disk is full"))), writes=True)
    app.go("settings")
    gates["keep"].set()
    yield lambda: app.notice
    assert app.notice == "The disk is full.", app.notice

    # A person or receiver whose record cannot be read is deleted by its row.
    folder = Endpoint("folder", "/media/stick", password="twelve letters")
    lost = session.save_person(Person("", NAME)), session.store.mail.add_destination(
        Destination("", "Clinic", folder))
    for one, table, list in zip(lost, ("person", "destination"), ("damaged", "list")):
        with session.store._file.writing() as connection:
            connection.execute(f"UPDATE {table} SET record = X'07' WHERE id = ?", (one.id,))
        app.go("people" if table == "person" else "receivers")
        rows = app.screen.ids[list]
        yield lambda: rows.children
        assert [row.message for row in rows.children] == [one.id]
        assert getattr(app.screen, "message", "") != "Nobody is kept here yet."
        rows.children[0].dispatch("on_release")
        (sheet,) = [w for w in Window.children if isinstance(w, widgets.Sheet)]
        sheet.dismiss(animation=False)
        sheet.confirm()
        found = f"SELECT 1 FROM {table}"
        yield lambda: not session.store._file.select(found) and not waits()
        yield lambda: all(not isinstance(row, widgets.Item) for row in rows.children)
    app.notice = ""

    # A visit that ends: what was begun goes on, and nothing of it comes back.
    session.save_person(Person("", NAME))
    session.begin(session.save_lesion(Lesion("", session.person.id, "left arm")))
    app.go("live")
    yield lambda: app.snapshot.frame
    gates["keep"].clear()
    done, opened = [], session.store
    app.work(at("read", lambda: NAME), done.append, "Reading.")
    app.work(lambda: done.append("read"), done.append)  # waits behind it
    hers = UserError("no {name}", name=NAME)
    app.work(at("keep", fail(hers)), done.append, "Saving.", writes=True)
    app.work(at("shot", fail(KeyError(NAME))), done.append, writes=True)
    analyze = worker.processor.analyzer.analyze
    held = threading.Event()
    def slow(*args, **values):
        if args[1:] == ("capture",):
            held.set()
            assert gates["shot"].wait(60)
        return analyze(*args, **values)
    worker.processor.analyzer.analyze = slow
    app.take_picture()
    yield held.is_set
    with opened._file.writing():  # as a long import does
        app.reset()
        assert (app.here, session.person, session.results) == ("welcome", None, ())
        assert waits() == [] and app.notice == ""
    for gate in gates.values():
        gate.set()
    yield lambda: app.notice
    assert app.notice == (
        "Something that was begun before the screen was cleared could not be finished."
    ), app.notice
    session.agree()
    app.go("home")
    app.go("live")
    yield lambda: app.snapshot.analysed_frame
    # Of several files that are dropped at once none is taken by chance, and that is said.
    app.notice = ""
    for name in (b"/a.png", b"/b.png"):
        Window.dispatch("on_drop_file", name, 0, 0)
    yield lambda: app.notice
    assert app.notice.startswith("These are several files") and not app.snapshot.busy
    # One that is dropped elsewhere, or while another is judged, is not taken without a word.
    app.go("home")
    Window.dispatch("on_drop_file", b"/a.png", 0, 0)
    yield lambda: "press “Check a spot” or “New picture”" in app.notice
    app.back()
    Window.dispatch("on_drop_file", b"/a.png", 0, 0)
    app.flow._out = True
    yield lambda: "another picture is being judged" in app.notice
    app.flow._out = False
    Window.dispatch("on_drop_file", b"/a.png", 0, 0)
    yield lambda: session.refused
    assert session.refused.endswith("/a.png: No such file or directory"), session.refused
    app.take_picture()
    yield lambda: app.here == "result"
    assert done == [], done
    assert len(session.results) == 1 and session.results[0].lesion_id == ""
    assert opened.captures(opened.lesions(opened.people()[0].id)[0].id) == []

    # A new series was begun since its result: the way back goes past that.
    app.go("live")
    session.begin()
    app.back()
    assert app.here == "home"

    # The store is full: no result is shown, and the live picture says why.
    session.enter("2468")
    ada = session.person = opened.people()[0]
    arm = opened.lesions(ada.id)[0]
    session.begin(arm)
    app.go("live")
    yield lambda: app.snapshot.analysed_frame
    kept = stores.Store.add_capture
    stores.Store.add_capture = lambda *_: fail(stores.StoreError("the disk is full"))()
    app.take_picture()
    yield lambda: session.refused
    assert app.here == "live" and not app.snapshot.busy
    said = app.screen.view.guidance
    assert said == "The picture could not be saved: the disk is full.", said
    # One that is left is saved all the same, and shown to nobody. Another press, before the
    # screen has its result, does not put it out.
    stores.Store.add_capture = kept
    app.take_picture()
    assert worker.wait_for(lambda now: now.result is not None, 60)
    found = worker.snapshot().result
    app.take_picture()
    assert worker.snapshot().result is found
    app.back()
    yield lambda: opened.captures(arm.id)
    assert app.here == "home"
    # Of one that is not kept, whoever left reads why.
    session.person, app.notice = ada, ""
    session.begin(arm)
    app.go("live")
    yield lambda: app.snapshot.analysed_frame and not app.snapshot.busy
    worker.processor.analyzer.analyze = lambda *_, **__: fail(UserError("out of memory"))()
    app.take_picture()
    app.back()
    yield lambda: app.notice
    assert app.notice == "The picture was not kept, for its analysis failed: out of memory."
    worker.processor.analyzer.analyze, app.notice = analyze, ""
    # A result says as the list of pictures does when it was, and whether that holds.
    (taken,) = opened.captures(arm.id)
    for dating, words in (("clock wrong", "the clock was wrong"), ("corrected", "date corrected")):
        app.go("result", stored=replace(taken, taken="2026-01-31T12:00:00Z", dating=dating))
        assert app.screen.title.endswith(f" ({words})"), app.screen.title
        app.back()
    # The app ends while one is taken; what a frozen camera repeats is not.
    session.person = ada
    session.begin(arm)
    app.go("live")
    yield lambda: app.snapshot.analysed_frame and not app.snapshot.busy
    now = app.snapshot
    app.flow.snapshot = frozen = replace(now, frame=replace(now.frame, stale=True))
    app.take_picture()
    assert not worker.snapshot().busy
    app.flow.snapshot = now
    app.go("scan", draft=None)
    app.screen._reading = False
    app.screen.update(frozen, now)
    assert not app.screen._reading
    app.back()
    yield lambda: app.snapshot.analysed_frame and not app.snapshot.busy
    app.take_picture()
    print("worked")
"""
)


def test_work_beside_the_screen_ends_with_its_visit(display, video, tiny_bundle, tmp_path):
    """And an app that ends while a lesion's picture is taken still saves it."""
    from edge_app.store.store import Store

    arguments = [str(tmp_path), str(tiny_bundle), str(video)]
    environment = _environment(DISPLAY=display, SDL_VIDEODRIVER="x11")
    command = [sys.executable, "-c", WORK + DRIVE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "worked\n"
    # What nobody foresaw is named by its kind and place, never by what it holds.
    assert done.stderr.startswith("dermedge: unforeseen KeyError at edge_app.background:")
    assert "Rosalind" not in done.stderr
    cases = Store.open(tmp_path / "app" / "cases.db", "a passphrase")
    (lesion,) = cases.lesions(cases.people()[0].id)
    assert len(cases.captures(lesion.id)) == 2
    cases.close()


BREAKS = """
import logging, sys, threading, warnings
from edge_app import unforeseen
unforeseen.keep_quiet()
NAME = "Rosalind Example.jpg"
def fail():
    raise KeyError(NAME)
class Careless:
    def __del__(self):
        fail()
thread = threading.Thread(target=fail)
thread.start()
thread.join()
del thread
Careless()
warnings.warn(f"cannot read {NAME}")
logging.getLogger("PIL").error("cannot read %s", NAME)
import cv2
assert cv2.imread(f"/nowhere/{NAME}") is None
cv2.VideoCapture(f"/nowhere/{NAME}")
class FullDisk:
    def write(self, _line):
        raise OSError(28, "No space left on device")
logging.StreamHandler(FullDisk()).handle(logging.makeLogRecord({"msg": NAME}))
fail()
"""


def test_whatever_breaks_in_the_app_says_its_kind_and_place_alone():
    done = subprocess.run(
        [sys.executable, "-c", BREAKS], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "Rosalind" not in done.stderr + done.stdout
    assert done.stderr.splitlines() == ["dermedge: unforeseen KeyError at __main__:7"] * 3


@pytest.mark.parametrize(
    ("variables", "words"),
    [({}, "there is no display"), ({"DISPLAY": ":32123"}, "no window can be opened")],
)
def test_without_a_display_one_line_and_status_2(tiny_bundle, picture, tmp_path, variables, words):
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    command = [*DERMEDGE, "app", "--bundle", str(tiny_bundle), "--source", str(tmp_path)]
    environment = _environment(**variables)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


TRIALS = (["--soak", "1"], ["--measure", "1"], ["--screenshot", "shots"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "nowhere.mp4"], "there is no source 'nowhere.mp4'"),
        (["--size", "wide"], "--size is width x height"),
        *(([*trial, "--home", "own"], "no --home") for trial in TRIALS),
        *((["--measure", value], "--measure must be a number") for value in ("0", "-3", "nan")),
        *((["--soak", value], "--soak must be 1 or more") for value in ("0", "-1")),
        (["--language", "de"], "--language is for --screenshot alone"),
        (["--text", "large", "--measure", "1"], "--text is for --screenshot alone"),
    ],
)
def test_wrong_use_is_one_line(tiny_bundle, capsys, monkeypatch, arguments, words):
    from dermedge.cli import main

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert main(["app", "--bundle", str(tiny_bundle), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
