"""The worker: captures into the store, imported files, lasting faults; taking by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermedge import procedural
from dermedge.analyzer import Analyzer
from dermedge.bundle import Bundle
from dermedge.image import read_image, write_png
from edge_app.capture import worker
from edge_app.capture.sources import Frame, SourceError
from edge_app.capture.steady import HOLD_SECONDS, Steady, overlap
from edge_app.capture.worker import Worker
from edge_app.cases import store as stores
from edge_app.cases.store import Lesion, Person, Store
from edge_app.words import present


class Pictures:
    name, live, interval = "pictures", False, 0.001

    def __init__(self, pixels):
        self.pixels, self.number = pixels, 0

    def read(self):
        self.number += 1
        return Frame(self.pixels, self.number)

    def close(self):
        pass


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return procedural.draw(3, "phone", (480, 640), label="mel", artefacts=()).image


@pytest.fixture
def running(tiny_bundle, tmp_path, picture):
    events = []
    started = Worker(
        lambda: Pictures(picture),
        Analyzer(Bundle.open(tiny_bundle)),
        tmp_path / "captures",
        lambda event, **values: events.append((event, values)),
    )
    started.events = events
    started.start()
    yield started
    started.stop()


@pytest.fixture
def cases(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "ARGON2", {"iterations": 1, "lanes": 1, "memory_cost": 64})
    opened = Store.create(tmp_path / "cases.db", "a passphrase")
    person = opened.add_person(Person("", "Ada"))
    yield opened, opened.add_lesion(Lesion("", person.id, "left arm")).id
    opened.close()


def _until(running, condition):
    with running._changed:
        assert running._changed.wait_for(lambda: condition(running.snapshot()), timeout=60)
        return running.snapshot()


def _captured(running):
    return _until(running, lambda s: s.capture is not None).capture


def test_a_capture_of_a_lesion_is_told_when_it_is_in_the_store(running, cases, picture, tmp_path):
    running.store, lesion = cases
    running.capture(_until(running, lambda s: s.frame is not None).frame, lesion)
    capture = _captured(running)
    assert capture.error == ""
    (saved,) = running.store.captures(lesion)
    assert (saved.id, saved.analysis, saved.size) == (
        capture.record.id,
        capture.analysis,
        (640, 480),
    )
    assert np.array_equal(read_image(running.store.picture(saved.id)).pixels, picture)
    assert not (tmp_path / "captures").exists()
    assert running.events[-1][0] == "capture"


def test_without_a_store_a_lesion_takes_no_capture(running):
    running.capture(_until(running, lambda s: s.frame is not None).frame, "a lesion")
    capture = _captured(running)
    assert capture.error == (
        "The picture could not be saved: the store is locked: unlock it and take the picture again"
    )
    assert capture.analysis is None


def test_a_full_store_is_told_and_no_result_is_shown(running, cases, monkeypatch):
    running.store, lesion = cases

    def full(*_):
        raise stores.StoreError("the disk is full")

    monkeypatch.setattr(running.store, "add_capture", full)
    running.capture(_until(running, lambda s: s.frame is not None).frame, lesion)
    capture = _captured(running)
    assert capture.error == "The picture could not be saved: the disk is full"
    assert capture.analysis is None
    assert running.events[-1][0] == "capture failed"


def test_an_imported_file_is_a_capture(running, cases, picture, tmp_path):
    write_png(tmp_path / "old.png", picture)
    running.import_file(tmp_path / "old.png")
    capture = _captured(running)
    assert np.array_equal(read_image(capture.path).pixels, picture)
    (tmp_path / "old.png").write_bytes(b"no picture")
    running.import_file(tmp_path / "old.png")
    with running._changed:
        running._changed.wait_for(lambda: not running.snapshot().busy, timeout=60)
    assert running.snapshot().capture.error.startswith("The picture could not be read: ")


def test_a_fault_that_lasts_is_printed_once(tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(worker, "RETRY_SECONDS", 0.001)
    opened = []

    def fail():
        opened.append(1)
        raise OSError(5, "Input/output error")

    failing = Worker(fail, Analyzer(Bundle.open(tiny_bundle)), tmp_path)
    failing.start()
    _until(failing, lambda _: len(opened) > 5)
    failing.stop()
    assert capsys.readouterr().err.count("Traceback") == 1


def test_a_fault_keeps_its_question_mark_and_its_code(tiny_bundle, tmp_path):
    def fail():
        raise SourceError("camera 0 cannot be opened: is it plugged in?", "no_camera")

    failing = Worker(fail, Analyzer(Bundle.open(tiny_bundle)), tmp_path)
    failing.start()
    told = _until(failing, lambda s: s.fault_code == "no_camera")
    failing.stop()
    assert present.live(told).guidance == "Camera 0 cannot be opened: is it plugged in?"


def _analysis(ok=True, box=(10, 10, 20, 20)):
    return {"quality": {"ok": ok}, "lesion": {"box": list(box) if box else None}}


def test_good_and_still_for_a_moment_takes_the_picture(picture):
    steady = Steady()
    seen = [steady.look(_analysis(), picture, t * HOLD_SECONDS / 4) for t in range(6)]
    assert seen == [0, 0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    "change",
    ["quality", "box", "no lesion", "motion"],
)
def test_what_ends_the_wait(picture, change):
    steady = Steady()
    for t in (0, 0.3, 0.6, 0.9):
        steady.look(_analysis(), picture, t)
    analysis, pixels = {
        "quality": (_analysis(ok=False), picture),
        "box": (_analysis(box=(25, 10, 20, 20)), picture),
        "no lesion": (_analysis(box=None), picture),
        "motion": (_analysis(), np.hstack([0 * picture[:, :320], picture[:, 320:]])),
    }[change]
    assert steady.look(analysis, pixels, 1.2) == 0


def test_light_that_changes_is_no_motion(picture):
    steady = Steady()
    for t, light in ((0, 0), (0.2, 0), (0.4, 3)):
        last = steady.look(
            _analysis(), np.clip(picture.astype(int) + light, 0, 255).astype("u1"), t
        )
    assert last > 0


boxes = st.tuples(*[st.floats(0, 100)] * 2, *[st.floats(1, 100)] * 2).map(list)


@given(boxes, boxes)
def test_overlap_is_symmetric_and_one_for_itself(first, second):
    assert overlap(first, second) == pytest.approx(overlap(second, first))
    assert 0 <= overlap(first, second) <= 1 + 1e-9
    assert overlap(first, first) == pytest.approx(1)
