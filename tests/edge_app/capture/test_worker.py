"""The worker: one frozen shot in, one frozen result out; visits that end; lasting faults."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data import synthetic as procedural
from dermedge.explain import overlay
from dermedge.image.read import read_image, write_png
from edge_app.capture import processing, shots, stability, worker
from edge_app.capture.shots import Result, Shot
from edge_app.capture.sources import (
    FROZEN_AFTER,
    STALE_AFTER,
    Frame,
    SourceError,
    StreamMonitor,
)
from edge_app.capture.stability import HOLD_SECONDS, StabilityTracker, overlap
from edge_app.capture.worker import HANGS, Worker
from edge_app.kiosk import EVENTS
from edge_app.presentation import messages as present

LONG = 60  # s; no test waits for so long unless it fails


class Pictures:
    name, live, interval = "pictures", False, 0.001

    def __init__(self, pixels):
        self.pixels, self.number = pixels, 0

    def read(self):
        self.number += 1
        return Frame(self.pixels.copy(), self.number)

    def close(self):
        pass


class Nothing(Pictures):
    """A source that has no picture just now."""

    def read(self):
        return None


class Held(Analyzer):
    """An analyzer that waits before each capture until it is let go; notes what it was given."""

    def __init__(self, bundle):
        super().__init__(bundle)
        self.begun, self.go_on, self.given = threading.Event(), threading.Event(), []

    def analyze(self, source, name=None, **values):
        if name != "live":
            self.given.append(values)
            self.begun.set()
            assert self.go_on.wait(LONG)
        return super().analyze(source, name, **values)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return procedural.draw(3, "phone", (480, 640), label="mel", artefacts=()).image


@pytest.fixture
def start(tiny_bundle):
    """Starts a worker; stops it afterwards."""
    started = []

    def _start(opener, analyzer=None, captures=None, log=lambda event, **values: None) -> Worker:
        running = Worker(opener, analyzer or Analyzer(Bundle.open(tiny_bundle)), captures, log)
        started.append(running)
        running.start()
        return running

    yield _start
    for running in started:
        assert running.stop() == []


@pytest.fixture
def held(tiny_bundle):
    analyzer = Held(Bundle.open(tiny_bundle))
    yield analyzer
    analyzer.go_on.set()


def _until(running, condition):
    assert running.wait_for(condition, LONG)
    return running.snapshot()


def _result(running, shot) -> Result:
    assert running.capture(shot)
    return _until(running, lambda s: s.result is not None).result


# ---------------------------------------------------------------------------- shots and results


def test_a_shot_of_a_lesion_comes_back_whole_and_touches_no_disk(start, picture, tmp_path):
    events = []
    running = start(
        lambda: Pictures(picture),
        captures=tmp_path / "captures",
        log=lambda event, **values: events.append(event),
    )
    frame = _until(running, lambda s: s.frame is not None).frame
    result = _result(running, Shot(frame, id=7, visit=0, lesion_id="a lesion"))
    assert (result.error, result.shot_id, result.lesion_id) == ("", 7, "a lesion")
    assert not result.saved  # that is for whoever has the store
    assert np.array_equal(read_image(result.png).pixels, picture)
    assert result.analysis["size"] == [640, 480]
    assert not (tmp_path / "captures").exists()
    assert events == ["capture"]


def test_shots_and_results_cannot_be_changed(picture):
    told = {"age": 80}
    shot = Shot(Frame(picture, 1), metadata=told)
    told["age"] = 20
    assert shot.metadata["age"] == 80
    with pytest.raises(TypeError):
        shot.metadata["age"] = 20
    for value in (shot, Result()):
        for one in fields(value):
            with pytest.raises(FrozenInstanceError):
                setattr(value, one.name, None)


def test_a_shot_is_analysed_with_what_was_known_when_it_was_pressed(start, picture, held):
    running = start(lambda: Nothing(picture), held)
    ada = Shot(Frame(picture, 1), id=1, metadata={"age": 80}, reference="card")
    bea = Shot(Frame(picture, 1), id=2, metadata={"age": 20})
    assert running.capture(ada)
    assert held.begun.wait(LONG)
    assert not running.capture(bea)  # refused while the first is at work, and without a trace
    held.go_on.set()
    assert _until(running, lambda s: s.result is not None).result.shot_id == 1
    (given_,) = held.given
    assert dict(given_["metadata"]) == {"age": 80}
    assert given_["reference"] == "card"


def test_a_shot_that_was_refused_while_another_waited_changes_nothing(start, picture, held):
    """Both before the analysis began: the second must not slip into the place of the first."""
    running = start(lambda: Nothing(picture), held)
    with running._changed:  # the analysis cannot begin meanwhile
        assert running.capture(Shot(Frame(picture, 1), id=1, lesion_id="hers"))
        assert not running.capture(Shot(Frame(picture, 1), id=2, lesion_id="his"))
    held.go_on.set()
    assert _until(running, lambda s: s.result is not None).result.lesion_id == "hers"


def test_the_worker_has_no_place_for_a_person_or_a_store(tiny_bundle):
    ready = Worker(lambda: None, Analyzer(Bundle.open(tiny_bundle)), None)
    assert not {"metadata", "reference", "store", "person", "lesion"} & set(dir(ready))
    for module in (worker, processing, shots):
        assert "edge_app.store" not in Path(module.__file__).read_text(encoding="utf-8")


def test_an_imported_file_is_a_capture(start, picture, tmp_path):
    running = start(lambda: Nothing(picture), captures=tmp_path / "captures")
    write_png(tmp_path / "old.png", picture)
    result = _result(running, Shot(tmp_path / "old.png"))
    assert np.array_equal(read_image(result.path).pixels, picture)
    (tmp_path / "old.png").write_bytes(b"no picture")
    failed = _result(running, Shot(tmp_path / "old.png"))
    assert failed.error.startswith("The picture could not be read: ")


# ---------------------------------------------------------------------------- visits


def test_an_analysis_of_a_visit_that_ended_publishes_and_keeps_nothing(start, picture, held):
    events = []
    running = start(
        lambda: Nothing(picture), held, log=lambda event, **values: events.append(event)
    )
    frame = Frame(picture.copy(), 1)
    kept = weakref.ref(frame)
    assert running.capture(Shot(frame, id=1, visit=0))
    del frame
    assert held.begun.wait(LONG)
    running.begin_visit(1)
    assert not running.snapshot().busy  # the next person need not wait
    held.begun.clear()
    assert running.capture(Shot(Frame(picture, 2), id=2, visit=1))
    held.go_on.set()
    assert _until(running, lambda s: s.result is not None).result.shot_id == 2
    assert events == ["capture"]
    gc.collect()
    assert kept() is None


def test_a_shot_that_waits_is_dropped_with_its_visit(start, picture, held):
    running = start(lambda: Nothing(picture), held)
    with running._changed:
        assert running.capture(Shot(Frame(picture, 1), id=1, visit=0))
        running.begin_visit(1)
    held.go_on.set()
    assert _result(running, Shot(Frame(picture, 2), id=2, visit=1)).shot_id == 2
    assert len(held.given) == 1


def test_a_shot_of_another_visit_is_refused(start, picture):
    running = start(lambda: Nothing(picture))
    running.begin_visit(3)
    assert not running.capture(Shot(Frame(picture, 1), visit=2))
    assert running.snapshot().result is None


def test_with_its_end_a_visit_leaves_nothing_in_the_snapshot(start, picture):
    running = start(lambda: Pictures(picture))
    frame = _until(running, lambda s: s.analysed_frame is not None).frame
    _result(running, Shot(frame))
    with running._changed:
        running.begin_visit(1)
        left = running.snapshot()
    held = (left.frame, left.preview, left.analysis, left.analysed_frame, left.result)
    assert held == (None,) * len(held)
    assert (left.failure, left.busy, left.steady) == ("", False, 0)


def test_a_frame_of_before_is_not_shown_to_who_comes_next(start, picture):
    reached, let_go = threading.Event(), threading.Event()

    class Slow(Pictures):
        def read(self):
            reached.set()
            assert let_go.wait(LONG)
            return super().read() if self.number == 0 else None

    running = start(lambda: Slow(picture))
    assert reached.wait(LONG)  # it is read already, and comes after the visit has ended
    running.begin_visit(1)
    let_go.set()
    assert _result(running, Shot(Frame(picture, 9), visit=1)).error == ""
    assert running.snapshot().frame is None


def test_a_live_analysis_that_a_visit_outlives_is_not_published(start, picture, tiny_bundle):
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Analyzer):
        def analyze(self, *args, **values):
            begun.set()
            assert go_on.wait(LONG)
            return super().analyze(*args, **values)

    class Once(Pictures):
        def read(self):
            return super().read() if self.number == 0 else None

    running = start(lambda: Once(picture), Slow(Bundle.open(tiny_bundle)))
    assert begun.wait(LONG)
    running.begin_visit(1)
    go_on.set()
    assert _result(running, Shot(Frame(picture, 9), visit=1)).error == ""  # it came after
    assert running.snapshot().analysed == 0
    assert running.snapshot().analysed_frame is None


# ---------------------------------------------------------------------------- what led to it


def test_the_risk_map_is_that_of_the_analysis_that_is_shown(make_bundle, start, picture):
    analyzer = Analyzer(Bundle.open(make_bundle(metadata=("age", "sex", "site"))))
    seen, analyze = [], analyzer.analyze

    def noted(*args, **values):
        seen.append(analyze(*args, **values))
        return seen[-1]

    analyzer.analyze = noted
    running = start(lambda: Nothing(picture), analyzer)
    result = _result(running, Shot(Frame(picture, 1), metadata={"age": 80}))
    drawn = result.explained.risk_map()
    assert len(seen) == 1  # no second analysis of other pixels or another person
    assert np.array_equal(drawn, overlay(result.pixels, seen[0]))
    assert seen[0].to_json() == result.analysis


def test_the_risk_map_of_a_reduced_picture_lies_where_the_whole_one_does(make_bundle, start):
    large = procedural.draw(3, "phone", (1500, 2000), label="mel", artefacts=()).image
    running = start(lambda: Nothing(large), Analyzer(Bundle.open(make_bundle(crop=1.5))))
    result = _result(running, Shot(Frame(large, 1)))
    assert result.explained.shape == (1500, 2000)
    assert max(result.pixels.shape) == processing.PREVIEW_SIDE
    drawn = result.explained.risk_map().astype(int)
    whole = overlay(large, result.explained.analysis)
    reduced = processing.reduced(whole, processing.PREVIEW_SIDE).astype(int)
    assert np.abs(drawn - reduced).mean() < 2


# ---------------------------------------------------------------------------- faults


SECRET = "Rosalind_Example.jpg"


def test_a_fault_that_lasts_is_printed_once_and_without_the_name_of_a_file(
    start, picture, monkeypatch, capsys
):
    monkeypatch.setattr(worker, "RETRY_SECONDS", 0.001)
    opened = []

    def fail():
        opened.append(1)
        raise OSError(5, "Input/output error", f"/media/{SECRET}")

    failing = start(fail)
    _until(failing, lambda _: len(opened) > 5)
    failing.stop()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("dermedge: unforeseen OSError at ")
    assert SECRET not in error


def test_a_camera_that_stays_frozen_is_logged_once_and_that_it_is_well_again(tiny_bundle):
    events = []
    analyzer = Analyzer(Bundle.open(tiny_bundle))
    running = Worker(lambda: None, analyzer, None, lambda event, **_values: events.append(event))
    still = np.full((16, 16, 3), 99, np.uint8)
    for _opened in range(3):
        monitor = StreamMonitor(live=True)
        for _ in range(FROZEN_AFTER + 2):
            running._pass_on(Frame(still, 1), monitor, running._visit)
    assert events == ["source fault"]
    running._pass_on(Frame(still + 1, 2), monitor, running._visit)
    assert events == ["source fault", "source well"]
    assert set(events) <= set(EVENTS)


@pytest.mark.parametrize("live", [False, True])
def test_no_name_of_a_file_reaches_standard_error(
    start, picture, tiny_bundle, tmp_path, capsys, live
):
    class Breaks(Analyzer):
        def analyze(self, *args, **values):
            raise RuntimeError(f"cannot read {tmp_path / SECRET}") from ValueError(SECRET)

    write_png(tmp_path / SECRET, picture)
    source = Pictures(picture) if live else Nothing(picture)
    running = start(lambda: source, Breaks(Bundle.open(tiny_bundle)))
    if live:
        said = _until(running, lambda s: s.failure).failure
    else:
        said = _result(running, Shot(tmp_path / SECRET)).error
    assert said.endswith("RuntimeError")
    running.stop()
    streams = capsys.readouterr()
    assert SECRET not in streams.err + streams.out
    assert "RuntimeError at " in streams.err
    assert "from ValueError" in streams.err
    assert "Traceback" not in streams.err


def test_a_fault_with_a_code_of_the_core_ends_no_thread(start, picture, monkeypatch):
    """A log takes known words alone; the code of an error from elsewhere is none of them."""
    from dermedge import UserError
    from edge_app.capture.sources import FAULTS

    monkeypatch.setattr(worker, "RETRY_SECONDS", 0.001)
    attempts = []

    def fail():
        attempts.append(1)
        raise UserError("no {thing}", code="image.cut", thing="picture")

    def log(event, code="", **_values):
        assert code in (*FAULTS, "other")

    failing = start(fail, log=log)
    _until(failing, lambda _: len(attempts) > 3)
    assert failing.snapshot().fault == "the source failed: no picture"


def test_a_fault_keeps_its_question_mark_and_its_code(start):
    def fail():
        raise SourceError("camera 0 cannot be opened: is it plugged in?", "no_camera")

    told = _until(start(fail), lambda s: s.fault_code == "no_camera")
    assert present.live(told).guidance == "Camera 0 cannot be opened: is it plugged in?"


def test_stop_says_what_hangs_and_does_not_wait_for_it(tiny_bundle):
    reached, let_go = threading.Event(), threading.Event()

    class Hangs(Pictures):
        def read(self):
            reached.set()
            let_go.wait(LONG)

    running = Worker(lambda: Hangs(None), Analyzer(Bundle.open(tiny_bundle)), None)
    running.start()
    assert reached.wait(LONG)
    assert running.stop(seconds=0.05) == [HANGS["dermedge-frames"]]
    let_go.set()
    assert running.stop() == []


# ---------------------------------------------------------------------------- taking by itself


def _analysis(ok=True, box=(10, 10, 20, 20), triage="low"):
    lesion = {"box": list(box) if box else None}
    return {"quality": {"ok": ok}, "lesion": lesion, "triage": triage}


def test_good_and_still_for_a_moment_takes_the_picture(picture):
    tracker = StabilityTracker()
    seen = [tracker.update(_analysis(), picture, t * HOLD_SECONDS / 4) for t in range(6)]
    assert seen == [0, 0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    "change",
    ["quality", "refused", "box", "no lesion", "motion"],
)
def test_what_ends_the_wait(picture, change):
    tracker = StabilityTracker()
    for t in (0, 0.3, 0.6, 0.9):
        tracker.update(_analysis(), picture, t)
    analysis, pixels = {
        "quality": (_analysis(ok=False), picture),
        "refused": (_analysis(triage="retake"), picture),  # unlike what was learnt from
        "box": (_analysis(box=(25, 10, 20, 20)), picture),
        "no lesion": (_analysis(box=None), picture),
        "motion": (_analysis(), np.hstack([0 * picture[:, :320], picture[:, 320:]])),
    }[change]
    assert tracker.update(analysis, pixels, 1.2) == 0


@pytest.mark.parametrize("hangs", [False, True])
def test_the_picture_of_a_camera_that_hangs_is_never_steady(start, picture, monkeypatch, hangs):
    """It would be taken by itself, for whatever spot is under the camera by then."""
    monkeypatch.setattr(stability, "HOLD_SECONDS", 1e-6)

    class Camera(Pictures):
        live = True

        def read(self):
            frame = super().read()
            if not hangs:
                frame.pixels[0, 0] = self.number % 256
            return frame

    running = start(lambda: Camera(picture))
    running.processor.live = lambda frame: (_analysis(), frame.pixels)
    seen = _until(running, lambda s: s.frame is not None and s.frame.number > STALE_AFTER).analysed
    assert _until(running, lambda s: s.analysed >= seen + 5).steady == (0 if hangs else 1)


@pytest.mark.parametrize("live", [True, False])
def test_what_a_silent_camera_showed_last_is_not_taken(start, picture, monkeypatch, live):
    """GStreamer waits for half a minute: the button took the picture of what lay there before."""
    monkeypatch.setattr(worker, "SILENT_SECONDS", -1.0)
    let_go = threading.Event()

    class Silent(Pictures):
        def read(self):
            if self.number:
                let_go.wait(LONG)
            return super().read()

    source = Silent(picture)
    source.live = live
    running = start(lambda: source)
    seen = _until(running, lambda s: s.frame is not None)
    assert (seen.offered is None, seen.fault_code) == ((True, "lost") if live else (False, ""))
    let_go.set()


def test_what_was_still_before_the_live_picture_rested_is_waited_for_again(
    start, picture, monkeypatch
):
    """Else the first frame is taken by itself, of whatever spot the camera was left at."""
    monkeypatch.setattr(stability, "HOLD_SECONDS", 1e-6)

    class Single(Pictures):
        left = 0

        def read(self):
            self.left, due = 0, self.left
            return super().read() if due else None

    source = Single(picture)
    running = start(lambda: source)
    running.processor.live = lambda frame: (_analysis(), frame.pixels)

    def steady():
        seen, source.left = running.snapshot().analysed, 1
        return _until(running, lambda s: s.analysed > seen).steady

    assert [steady() for _frame in range(3)] == [0, 0, 1]
    running.live(False)
    running.live(True)
    assert [steady() for _frame in range(3)] == [0, 0, 1]


def test_light_that_changes_is_no_motion(picture):
    tracker = StabilityTracker()
    for t, light in ((0, 0), (0.2, 0), (0.4, 3)):
        last = tracker.update(
            _analysis(), np.clip(picture.astype(int) + light, 0, 255).astype("u1"), t
        )
    assert last > 0


boxes = st.tuples(*[st.floats(0, 100)] * 2, *[st.floats(1, 100)] * 2).map(list)


@given(boxes, boxes)
def test_overlap_is_symmetric_and_one_for_itself(first, second):
    assert overlap(first, second) == pytest.approx(overlap(second, first))
    assert 0 <= overlap(first, second) <= 1 + 1e-9
    assert overlap(first, first) == pytest.approx(1)
