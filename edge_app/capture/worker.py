"""The two threads behind the screens: one takes frames, one analyses the newest of them.

A press of the shutter is a frozen `Shot`; what becomes of it is a frozen `Result`, for the visit
of the shot alone. The worker knows nothing of a person between two shots, and no store.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np

from dermedge import UserError
from dermedge.analysis import Analysis
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.explain import overlay
from dermedge.files import write_atomic
from dermedge.image.read import Picture, read_image, write_png
from edge_app import unforeseen
from edge_app.capture.sources import FAULTS, Frame, Source, SourceError, Watch, turned
from edge_app.capture.stability import Steady
from edge_app.i18n.language import N_, Said, words

PREVIEW_SIDE = 1280  # px, at most; the live screen asks for what it shows
LOOK_SIDE = 640  # px, of what is analysed live; the networks and the gate see less
LOOK_SECONDS = (
    0.08  # from one live analysis to the next, at least: drawing needs the processor, too
)
FORESEEN = (OSError, UserError)  # their words are for the screen
RETRY_SECONDS = 1.0  # between attempts to open a source that is gone
STOP_SECONDS = 20.0  # that `stop` waits: longer than an analysis, and than a camera's own limit
# What it means that one of the worker's threads does not end.
HANGS = {
    "dermedge-frames": "the source does not answer",
    "dermedge-analysis": "the analysis does not come to an end",
}


@dataclass(frozen=True, eq=False)
class Shot:
    """One press of the shutter: all that its result rests upon, as it was at that moment."""

    source: Frame | Path  # a picture file: of it the pixels alone are kept, without its metadata
    id: int = 0  # tells it from other shots
    visit: int = 0  # that it belongs to, see `Worker.begin_visit`
    lesion_id: str = ""  # of the store; empty: it belongs to no lesion yet
    metadata: Mapping[str, object] = field(default_factory=dict)  # as `Analyzer.analyze` takes it
    reference: str | None = None  # what lies beside the lesion, of dermedge.lesion.scale.REFERENCES

    def __post_init__(self):
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))


@dataclass(frozen=True, eq=False)
class Result:
    """What became of a shot: its picture and analysis, or one line that says why there is none."""

    analysis: dict | None = None  # as `analysis.schema.json` describes it
    pixels: np.ndarray | None = None  # uint8 (h, w, 3) RGB to show
    error: str = ""  # one line in plain words
    png: bytes = b""  # the whole picture, until it lies on disk
    path: Path | None = None  # of its file, where there is one
    record_id: str = ""  # in the store, once it is there
    similar: tuple[tuple[str, np.ndarray], ...] = ()  # class and picture of cases of the bundle
    explained: Explained | None = None  # what a risk map of it is drawn from
    shot_id: int = 0
    visit: int = 0
    lesion_id: str = ""

    @property
    def saved(self) -> bool:
        """Whether it is on disk."""
        return self.path is not None or bool(self.record_id)


@dataclass(frozen=True, eq=False)
class Explained:
    """An analysis with all that it looked at, to draw what led to it."""

    pixels: np.ndarray  # uint8 (h, w, 3) RGB to draw upon
    analysis: Analysis  # of the picture of `shape`
    shape: tuple[int, int]  # (height, width) px that were analysed

    def risk_map(self) -> np.ndarray | None:
        """What speaks for a malignant class, drawn on the pixels: uint8 (h, w, 3) RGB.

        None where the bundle's classifier does not tell. Any thread.
        """
        return overlay(self.pixels, self.analysis, self.shape)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All that the screens show, taken at one moment."""

    frame: Frame | None = None  # the newest
    preview: np.ndarray | None = None  # it, while live: uint8 (h, w, 3) RGB, of `preview_side`
    source: str = ""  # name of the open source
    fault: str = FAULTS["opening"]  # what is wrong with it, in plain words; empty if nothing
    fault_code: str = "opening"  # key of FAULTS, empty where the fault has none
    failure: str = ""  # why the newest frame could not be analysed, likewise
    analysis: dict | None = None  # of the newest frame that was analysed
    judged: Frame | None = None  # the frame that `analysis` is of
    analysed: int = 0  # how many frames were
    steady: float = 0.0  # 0..1; at 1 the picture was good and still for long enough to take it
    busy: bool = False  # a shot is being analysed
    result: Result | None = None  # of the last shot, until the next one or the end of the visit


class Worker:
    """Runs a source and an analyzer in the background.

    Each method may be called from any thread, and none of them waits, but `stop`, `process` and
    `explain`. No error ends its threads: an unforeseen one goes to standard error, by its type and
    place alone, and in plain words into the snapshot.
    """

    preview_side = PREVIEW_SIDE  # px; what the screen shows is enough
    turn = 0  # of edge_app.capture.sources.TURNS: degrees by which frames are turned clockwise

    def __init__(
        self,
        opener: Callable[[], Source],
        analyzer: Analyzer,
        captures: Path | None,
        log: Callable[..., None] = lambda event, **values: None,
    ):
        """Prepare; nothing runs before `start`.

        Parameters
        ----------
        opener : opens the source; called again after the source was lost.
        analyzer : used by the worker alone.
        captures : folder for pictures that belong to no lesion of the store, made where missing;
            None: those are kept in memory alone, as `Result.png`.
        log : takes an event and its values, as `edge_app.kiosk.Journal.write` does.
        """
        self._opener = opener
        self._analyzer = analyzer
        self._captures = captures
        self._log = log
        self._reported = ""
        self._steady = Steady()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._snapshot = Snapshot()
        self._visit = 0
        self._shutter: Shot | None = None
        self._analyzing = threading.Lock()
        self._live = True
        # Weakly: the last frame of somebody who has left must not stay for this.
        self._analysed: Callable[[], Frame | None] = lambda: None
        self._threads = [
            threading.Thread(target=self._take, name="dermedge-frames", daemon=True),
            threading.Thread(target=self._analyze, name="dermedge-analysis", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = STOP_SECONDS) -> list[str]:
        """End both threads and close the source; a shot that was begun is finished first.

        Waits for at most so many seconds. Returns what did not end within them, in plain words:
        a device or a runtime that hangs. Those threads do not keep the process from ending.
        """
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))
        return [HANGS[thread.name] for thread in self._threads if thread.is_alive()]

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def wait_for(self, condition: Callable[[Snapshot], bool], seconds: float) -> bool:
        """Wait until the snapshot is so; whether it came to that in time."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._snapshot), seconds)

    def capture(self, shot: Shot) -> bool:
        """Analyse a shot; `snapshot().result` says when it is done.

        Whether it was taken: not while another is at work, nor for a visit that has ended.
        """
        with self._changed:
            if self._snapshot.busy or shot.visit != self._visit:
                return False
            self._shutter = shot
            self._snapshot = replace(self._snapshot, busy=True, result=None, steady=0.0)
            self._changed.notify_all()
            return True

    def begin_visit(self, visit: int) -> None:
        """Somebody else is there from now on, whose shots have this number.

        What was taken and found for the visit before is dropped, also what is still at work.
        """
        with self._changed:
            self._visit, self._shutter = visit, None
            self._steady = Steady()
            self._analysed = lambda: None
            self._snapshot = replace(
                self._snapshot,
                frame=None,
                preview=None,
                analysis=None,
                judged=None,
                steady=0.0,
                failure="",
                busy=False,
                result=None,
            )
            self._changed.notify_all()

    @property
    def bundle(self) -> Bundle:
        """The one that analyses."""
        return self._analyzer.bundle

    def explain(
        self, source: bytes, metadata: Mapping[str, object], reference: str | None
    ) -> Explained:
        """Analyse an encoded picture once more, as it was, to explain what came of it.

        It waits for an analysis that is at work.
        """
        picture = read_image(source)
        with self._analyzing:
            analysis = self._analyzer.analyze(
                picture, name="capture", metadata=metadata, reference=reference
            )
        pixels = _reduced(picture.pixels, PREVIEW_SIDE)
        return Explained(pixels, analysis, picture.pixels.shape[:2])

    def live(self, on: bool) -> None:
        """Analyse frames as they come, or rest while no live picture is shown."""
        with self._changed:
            self._live = on
            frame, preview = self._snapshot.frame, None
            if on and frame is not None:  # the next one of a folder is seconds away
                preview = _reduced(frame.pixels, self.preview_side, cv2.INTER_LINEAR)
            fresh = {"analysis": None, "judged": None, "steady": 0.0, "preview": preview}
            self._snapshot = replace(self._snapshot, **fresh)
            self._changed.notify_all()

    def _publish(self, **changes) -> None:
        with self._changed:
            self._snapshot = replace(self._snapshot, **changes)
            self._changed.notify_all()

    def _take(self) -> None:
        while not self._stopping.is_set():
            try:
                with closing(self._opener()) as source:
                    self._run(source)
            except Exception as error:
                self._lose(error)
                self._stopping.wait(RETRY_SECONDS)

    def _lose(self, error: Exception) -> None:
        fault, strange = words(error), not isinstance(error, SourceError)
        code = "" if strange else error.code
        if strange:
            fault = Said("the source failed: {reason}", reason=fault)
        # A fault that lasts is reported once, not with every attempt.
        if fault != self._reported:
            self._reported = fault
            self._log("source fault", code=code if code in FAULTS else "other")
            if strange:
                unforeseen.report(error)
        self._publish(
            frame=None,
            preview=None,
            analysis=None,
            judged=None,
            steady=0.0,
            source="",
            fault=fault,
            fault_code=code,
        )

    def _run(self, source: Source) -> None:
        watch, visit = Watch(source.live), self._visit
        self._publish(source=source.name, fault=FAULTS["waiting"], fault_code="waiting")
        due = time.monotonic()
        while not self._stopping.is_set() and not watch.stuck:
            if visit != self._visit:  # the watch, too, holds a part of the last picture
                watch, visit = Watch(source.live), self._visit
            frame = source.read()
            if frame is not None:
                self._pass_on(turned(frame, self.turn), watch, visit)
                # Else the last frame of somebody who has left would wait here for the next one.
                frame = None
            due = max(due + source.interval, time.monotonic())
            self._stopping.wait(due - time.monotonic())

    def _pass_on(self, frame: Frame, watch: Watch, visit: int) -> None:
        code = watch.look(frame)
        if code and code != self._snapshot.fault_code:
            self._log("source fault", code=code)
        self._reported = ""
        preview = None
        if self._live:
            preview = _reduced(frame.pixels, self.preview_side, cv2.INTER_LINEAR)
        with self._changed:
            if visit == self._visit:  # it is not of whoever stood there before
                fault = FAULTS[code] if code else ""
                self._publish(frame=frame, preview=preview, fault=fault, fault_code=code)

    def _analyze(self) -> None:
        _give_way()
        while self._do_next():
            pass

    def _due(self) -> bool:
        fresh = self._live and self._snapshot.frame not in (None, self._analysed())
        return self._shutter is not None or self._stopping.is_set() or fresh

    def _do_next(self) -> bool:
        """Wait for a shot or a frame and analyse it; False when all is done and this must end."""
        with self._changed:
            self._changed.wait_for(self._due)
            shot, self._shutter = self._shutter, None
            frame, visit, steady = self._snapshot.frame, self._visit, self._steady
            if shot is None and frame is not None:
                self._analysed = weakref.ref(frame)
        if shot is not None:
            steady.reset()
            start = time.monotonic()
            result = self.process(shot)
            spent = round((time.monotonic() - start) * 1000)
            with self._changed:
                if shot.visit == self._visit:
                    self._log("capture failed" if result.error else "capture", ms=spent)
                    self._publish(busy=False, result=result)
            return True
        if self._stopping.is_set():
            return False
        start = time.monotonic()
        self._look(frame, visit, steady)
        del frame
        with self._changed:  # the shutter does not wait
            self._changed.wait_for(
                lambda: self._shutter is not None or self._stopping.is_set(),
                max(0.0, start + LOOK_SECONDS - time.monotonic()),
            )
        return True

    def _look(self, frame: Frame, visit: int, steady: Steady) -> None:
        try:
            small = _reduced(frame.pixels, LOOK_SIDE)
            picture = Picture(small, *frame.pixels.shape[:2])
            with self._analyzing:
                analysis = self._analyzer.analyze(picture, name="live").to_json()
        except Exception as error:
            failure = Said("The analysis failed: {reason}", reason=words(error))
            if failure != self._snapshot.failure:  # reported once, not with every frame
                unforeseen.report(error)
            with self._changed:
                if visit == self._visit:
                    self._publish(analysis=None, judged=None, steady=0.0, failure=failure)
            return
        held = steady.look(analysis, small, time.monotonic())
        with self._changed:
            wanted = self._live and self._shutter is None and visit == self._visit
            if wanted and self._snapshot.frame is not None:
                self._publish(
                    analysis=analysis,
                    judged=frame,
                    steady=held,
                    analysed=self._snapshot.analysed + 1,
                    failure="",
                )

    def _over(self, shot: Shot) -> bool:
        return shot.visit != self._visit

    def process(self, shot: Shot) -> Result:
        """What comes of a shot. It waits for an analysis that is at work, and publishes nothing.

        A shot of no lesion goes to the folder of captures first, where there is one: the file is
        there even if its analysis fails. Nothing is kept of a visit that has ended meanwhile.
        """
        whose = {"shot_id": shot.id, "visit": shot.visit, "lesion_id": shot.lesion_id}
        failed = N_("The picture could not be read: {reason}")
        try:
            source = shot.source
            pixels = (
                source.pixels
                if isinstance(source, Frame)
                else read_image(source, working_side=None).pixels
            )
            if self._over(shot):
                raise UserError("the screen was cleared meanwhile", code="visit_over")
            if shot.lesion_id or self._captures is None:
                failed = N_("The picture was not kept, for its analysis failed: {reason}")
                done, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
                if not done:
                    raise UserError("the picture could not be encoded", code="encoding")
                png = encoded.tobytes()
                return Result(png=png, **whose, **self._judge(png, "capture", shot))
            failed = N_("The picture could not be saved: {reason}")
            # For the owner of the device alone: these are pictures of people.
            make_private(self._captures)
            stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
            path = self._captures / f"{stamp}.png"
            write_png(path, pixels, private=True)
            failed = N_("The picture was saved, but not analysed: {reason}")
            # The file is what counts from here on, so the file is what is analysed and shown.
            found = self._judge(path, str(path), shot)
            failed = N_("The picture was saved, but not its analysis: {reason}")
            text = json.dumps(found["analysis"], indent=1) + "\n"
            write_atomic(path.with_suffix(".json"), text, private=True)
            return Result(path=path, **whose, **found)
        except Exception as error:
            if not isinstance(error, FORESEEN):
                unforeseen.report(error)
            return Result(error=Said(failed, reason=words(error)), **whose)

    def _judge(self, source: Path | bytes, name: str, shot: Shot) -> dict:
        """Values of a `Result`: the analysis, and what the screen shows beside it."""
        picture = read_image(source)
        with self._analyzing:
            found = self._analyzer.analyze(
                picture, name, metadata=shot.metadata, reference=shot.reference
            )
        pixels, similar = _reduced(picture.pixels, PREVIEW_SIDE), ()
        cases = self._analyzer.cases
        if found.triage != "retake" and cases is not None and cases.thumbnails:
            similar = tuple((case.label, cases.picture(case.id)) for case in found.similar)
        return {
            "analysis": found.to_json(),
            "pixels": pixels,
            "similar": similar,
            "explained": Explained(pixels, found, picture.pixels.shape[:2]),
        }


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner alone (0700)."""
    for level in (*reversed(folder.parents), folder):
        level.mkdir(mode=0o700, exist_ok=True)


def _give_way() -> None:
    """Let the screen and the camera go before this thread; on Linux a priority is a thread's."""
    if sys.platform.startswith("linux"):
        thread = threading.get_native_id()
        # A little only: a capture is analysed here, too, and somebody waits for it.
        nice = min(19, os.getpriority(os.PRIO_PROCESS, thread) + 2)
        os.setpriority(os.PRIO_PROCESS, thread, nice)


def _reduced(pixels: np.ndarray, side: int, how: int = cv2.INTER_AREA) -> np.ndarray:
    """Contiguous pixels whose long side is at most `side`."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(pixels)
    if scale < 0.5:
        how = cv2.INTER_AREA  # else it flickers
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=how)
