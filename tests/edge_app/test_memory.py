"""What is left in the process's memory of a person who has left: names, pictures, keys.

Looked for from outside, in a process of its own. There glibc overwrites what is freed at once, so
that what is found is what something still refers to, or a library holds on to: that there is none
of it is all that these tests show. Elsewhere freed pages are given back to the system, but short
strings (a name, a passphrase) may stay in freed memory until it is used again: Python cannot
overwrite them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import secrets
import string
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="the store needs it")
pytest.importorskip("babel", reason="the words need it")

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc",
    reason="reads /proc and needs glibc's malloc",
)

COLOUR = (203, 79, 37)  # of a plane that no other picture has
RUN = 16  # px of it in a row

COMMON = """
import json, sys, time
from datetime import date
from functools import partial
from pathlib import Path

bundle_path, home, source, hidden = sys.argv[1:]

def secrets():
    '''Name and passphrase; nothing else here refers to them.'''
    return [bytes(255 - b for b in bytes.fromhex(h)).decode() for h in hidden.split(",")]

from edge_app.store import keys as keyring
from edge_app.store import derivation
from edge_app.store.store import Lesion, Person
derivation.ARGON2 = {"iterations": 1, "lanes": 1, "memory_cost": 64}
whole, keys = keyring.AESGCM, set()

def noting(key):  # each key, turned about: it must not be found for this
    keys.add(bytes(255 - b for b in key).hex())
    return whole(key)

keyring.AESGCM = derivation.AESGCM = noting
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from edge_app.capture.sources import open_source
from edge_app.capture.worker import Worker
from edge_app import cases
from edge_app.memory import forget, prepare
prepare()
from edge_app.session import Session

def pause(state):
    print(json.dumps({"state": state, "keys": sorted(keys)}), flush=True)
    sys.stdin.readline()

analyzer = Analyzer(Bundle.open(bundle_path))
session = Session(Path(home), analyzer.bundle.manifest)
worker = Worker(partial(open_source, source), analyzer, None)
"""

SESSION = (
    COMMON
    + """
def visit():
    name, passphrase = secrets()
    session.agree()
    session.create(passphrase)
    session.save_person(Person("", name, notes=f"notes of {name}"))
    session.begin(session.save_lesion(Lesion("", session.person.id, f"spot of {name}")))
    worker.live(True)
    assert worker.wait_for(lambda s: s.analysed_frame is not None, 60)
    for _ in range(2):
        shot = session.shot(worker.snapshot().frame, date.today())
        assert worker.capture(shot)
        assert worker.wait_for(lambda s: s.result and s.result.shot_id == shot.id, 60)
        session.take(session.save(worker.snapshot().result))
    (capture, _later) = session.opened().captures(session.lesion.id)
    assert cases.explained(session.opened(), capture, worker.processor).analysis is not None
    assert session.opened().people(name)

def leave():
    worker.live(False)
    session.leave()
    worker.begin_visit(session.visit)
    session.wait_until_locked()

worker._opener = lambda: Once()

class Once:
    '''The picture until the visit ends, then nothing: nobody stands in front of the camera.'''
    name, live, interval = "once", False, 0.01
    def __init__(self):
        self.source = open_source(source)
    def read(self):
        return self.source.read() if session.visit == 0 else None
    def close(self):
        pass

pause("before")
worker.start()
visit()
pause("visited")
leave()
forget()
pause("left")
worker.stop()
"""
)

SCREENS = (
    """
import sys
from edge_app.commands import _configure_kivy
_configure_kivy(sys.argv[2], 640, 480, False)
"""
    + COMMON
    + """
from kivy.clock import Clock
from edge_app import app as module
from edge_app.ui import widgets

wiped = []
module.forget = lambda: wiped.append(forget())
app = module.DermedgeApp(worker, session)

def type_passphrase():
    app.screen.ids.first.text = app.screen.ids.second.text = secrets()[1]
    app.screen.enter()

def fill():
    name, _passphrase = secrets()
    session.save_person(Person("", name, 1961, notes=f"notes of {name}"))
    session.begin(session.save_lesion(Lesion("", session.person.id, f"spot of {name}")))

def type_name():
    app.screen.ids.search.text = secrets()[0]

def steps():
    session.agree()
    app.go("people")
    type_passphrase()
    yield lambda: app.screen.name == "people"
    fill()
    app.replace("people")
    type_name()
    yield lambda: app.screen.ids.rows.children
    app.screen.ids.rows.children[0].dispatch("on_release")
    yield lambda: app.here == "person" and app.screen.marks
    app.screen.choose(app.screen.marks[0].key)
    app.screen.new_picture()
    yield lambda: app.snapshot.analysed_frame
    app.take_picture()
    yield lambda: app.here == "result"
    app.screen._choose("measures")
    app.screen._choose("heat")
    app.back()
    yield lambda: app.here == "lesion" and app.screen.developed
    session.begin()  # a second picture, of nobody, and a question about it
    app.go("live")
    yield lambda: app.snapshot.analysed_frame
    app.take_picture()
    yield lambda: app.here == "result"
    app.go("people", task="keep")
    yield lambda: app.screen.ids.rows.children
    app.ask(secrets()[0], "words", "action", lambda: None)
    pause("visited")
    app.reset()
    assert session.store is None and not any(isinstance(w, widgets.Sheet) for w in Window.children)
    yield lambda: wiped
    pause("left")

def drive(_):
    global until_
    if until_():
        try:
            until_ = next(way)
        except StopIteration:
            app.stop()

from kivy.core.window import Window
class Once:
    name, live, interval = "once", False, 0.01
    def __init__(self):
        self.source = open_source(source)
    def read(self):
        return self.source.read() if session.visit == 0 else None
    def close(self):
        pass

worker._opener = Once
session.settings.auto = False
way, until_ = steps(), lambda: True
app.bind(on_start=lambda _: Clock.schedule_interval(drive, 0))
worker.start()
app.run()
"""
)


def _hidden(text: str) -> str:
    return bytes(255 - b for b in text.encode()).hex()


def _needles(name: str, passphrase: str, keys: list[str]) -> dict[str, list[bytes]]:
    raw = bytes(COLOUR)
    return {
        "name": [name.encode(), name.encode("utf-16-le"), name.encode("utf-32-le")],
        "passphrase": [passphrase.encode(), passphrase.encode("utf-32-le")],
        "picture": [
            raw * RUN,
            raw[::-1] * RUN,
            (raw + b"\xff") * RUN,
            *(struct.pack("<f", value) * RUN for value in COLOUR),
        ],
        "keys": [bytes(255 - b for b in bytes.fromhex(key)) for key in keys],
    }


def _found(pid: int, needles: dict[str, list[bytes]]) -> dict[str, list[str]]:
    """Which of the needles are in the memory of a process, and in what kind of mapping."""
    found: dict[str, list[str]] = {}
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            low, high, mode, rest = re.match(r"(\w+)-(\w+) (\S+) \S+ \S+ \S+ *(.*)", line).groups()
            if not mode.startswith("rw"):  # libraries: nothing is written there
                continue
            start, end = int(low, 16), int(high, 16)
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except (OSError, ValueError, OverflowError):
                continue
            for what, forms in needles.items():
                if any(form in data for form in forms):
                    found.setdefault(what, []).append(rest or "heap")
    return found


class Watched:
    """A process whose memory is searched at each of its pauses."""

    def __init__(self, script: str, arguments: list[str], **environment: str):
        self.name = "".join(secrets.choice(string.ascii_letters) for _ in range(24))
        self.passphrase = "".join(secrets.choice(string.ascii_letters) for _ in range(24))
        hidden = f"{_hidden(self.name)},{_hidden(self.passphrase)}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments, hidden],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONMALLOC": "malloc",
                "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0",
                **environment,
            },
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def at(self, state: str, patience: float = 0) -> dict[str, list[str]]:
        """What is found once the process has come so far; it goes on afterwards.

        `patience`: seconds for its other threads to drop what they still hold.
        """
        line = self.process.stdout.readline()
        assert line, "the process ended"
        said = json.loads(line)
        assert said["state"] == state
        self.keys = said["keys"]
        needles = _needles(self.name, self.passphrase, self.keys)
        until = time.monotonic() + patience
        try:
            found = _found(self.process.pid, needles)
            while found and time.monotonic() < until:
                found = _found(self.process.pid, needles)
        except PermissionError:
            pytest.skip("the memory of a process that was started here may not be read")
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return found


@pytest.fixture(scope="module")
def plane(tmp_path_factory) -> Path:
    """A folder with a picture of a dark spot on a plane of COLOUR."""
    import cv2
    import numpy as np

    from dermedge.image.read import write_png

    pixels = np.full((240, 320, 3), COLOUR, np.uint8)
    cv2.circle(pixels, (160, 120), 40, (60, 30, 20), -1)
    folder = tmp_path_factory.mktemp("plane")
    write_png(folder / "plane.png", pixels)
    return folder


def test_nothing_of_a_visit_is_left_in_memory_after_it(tiny_bundle, tmp_path, plane):
    arguments = [str(tiny_bundle), str(tmp_path / "home"), str(plane)]
    with Watched(SESSION, arguments) as watched:
        assert watched.at("before") == {}
        seen = watched.at("visited")
        assert set(seen) >= {"name", "picture", "keys"}  # the search does find them
        assert len(watched.keys) >= 2
        assert watched.at("left", patience=20) == {}


@pytest.mark.slow
def test_nothing_of_a_visit_is_left_in_the_memory_of_the_screens(
    display, tiny_bundle, tmp_path, plane
):
    if importlib.util.find_spec("kivy") is None:
        pytest.skip("Kivy is not installed")
    arguments = [str(tiny_bundle), str(tmp_path / "home"), str(plane)]
    with Watched(SCREENS, arguments, DISPLAY=display, SDL_VIDEODRIVER="x11") as watched:
        seen = watched.at("visited")
        assert set(seen) >= {"name", "picture", "keys"}
        assert watched.at("left", patience=20) == {}
