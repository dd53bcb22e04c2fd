"""The two threads behind the screens: one takes frames, one analyses the newest of them.

What the shutter takes is a frozen `Shot`; what becomes of it is a frozen `Result`, for the visit
of the shot alone. The worker knows nothing of a person between two shots, and no store.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from edge_app import unforeseen
from edge_app.capture.processing import PREVIEW_SIDE, Processor, reduced
from edge_app.capture.shots import Result, Shot, Snapshot
from edge_app.capture.sources import FAULTS, Frame, Source, SourceError, StreamMonitor, rotated
from edge_app.capture.stability import StabilityTracker
from edge_app.i18n.language import Message, error_message

# From one live analysis to the next, at least: drawing needs the processor, too.
LIVE_SECONDS = 0.08
# That a camera gives nothing before what it showed last counts as gone: reading it may wait longer.
SILENT_SECONDS = 2.0
RETRY_SECONDS = 1.0  # between attempts to open a source that is gone
STOP_SECONDS = 20.0  # that `stop` waits: longer than an analysis, and than a camera's own limit
# What it means that one of the worker's threads does not end.
HANGS = {
    "dermedge-frames": "the source does not answer",
    "dermedge-analysis": "the analysis does not come to an end",
}


class Worker:
    """Runs a source and an analyzer in the background.

    Each method may be called from any thread, and none of them waits, but `stop`, `wait_for`, `use`
    and `process`. Methods that begin with an underscore are for its own two threads. The snapshot
    changes under `_changed`; whoever reads it has all of one moment.

    No error ends its threads: an unforeseen one goes to standard error, by its type and place
    alone, and in plain words into the snapshot.
    """

    preview_side = PREVIEW_SIDE  # px; what the screen shows is enough
    rotation = 0  # of edge_app.capture.sources.ROTATIONS: degrees clockwise, of live frames

    def __init__(
        self,
        opener: Callable[[], Source],
        analyzer: Analyzer,
        captures: Path | None,
        log: Callable[..., None] = lambda event, **values: None,
    ) -> None:
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
        self.processor = Processor(analyzer, captures)
        self._log = log
        self._reported = ""
        self._noted = ""  # code of the fault that the log holds, and not its end
        self._seen = math.inf  # when a camera gave its last frame, s of time.monotonic
        self._stability = StabilityTracker()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._snapshot = Snapshot()
        self._visit = 0
        self._shutter: Shot | None = None
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
        with self._changed:
            frame = self._snapshot.frame
            silent = time.monotonic() - self._seen > SILENT_SECONDS
            if silent and frame is not None and not frame.stale:
                fault = Message(FAULTS["lost"], name=self._snapshot.source)
                self._publish(frame=replace(frame, stale=True), fault=fault, fault_code="lost")
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
            self._stability = StabilityTracker()
            self._analysed = lambda: None
            self._snapshot = _empty(self._snapshot)
            self._changed.notify_all()

    @property
    def bundle(self) -> Bundle:
        """The one that analyses."""
        return self.processor.analyzer.bundle

    @property
    def resting(self) -> bool:
        """Whether nothing is analysed, and nothing waits for it."""
        return not (self._live or self._snapshot.busy or self.processor.busy)

    def use(self, analyzer: Analyzer) -> None:
        """Analyse with another one from the next picture on, of the same bundle. Waits for one."""
        self.processor.use(analyzer)

    def process(self, shot: Shot) -> Result:
        """What comes of a shot, as `Processor.process` says it; it publishes nothing."""
        return self.processor.process(shot, self._over)

    def _over(self, shot: Shot) -> bool:
        return shot.visit != self._visit

    def live(self, on: bool) -> None:
        """Analyse frames as they come, or rest while no live picture is shown."""
        with self._changed:
            self._live = on
            self._stability = StabilityTracker()  # what was still before may lie there no more
            frame, preview = self._snapshot.frame, None
            if on and frame is not None:  # the next one of a folder is seconds away
                preview = reduced(frame.pixels, self.preview_side, cv2.INTER_LINEAR)
            self._snapshot = replace(
                self._snapshot, preview=preview, analysis=None, analysed_frame=None, steady=0.0
            )
            self._changed.notify_all()

    def _publish(self, **changes: Any) -> None:
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
        strange = not isinstance(error, SourceError)
        fault, code = error_message(error), error.code if isinstance(error, SourceError) else ""
        if strange:
            fault = Message("the source failed: {reason}", reason=fault)
        # A fault that lasts is reported once, not with every attempt.
        if fault != self._reported:
            self._reported = fault
            self._noted = code if code in FAULTS else "other"
            self._log("source fault", code=self._noted)
            if strange:
                unforeseen.report(error)
        self._publish(
            frame=None,
            preview=None,
            analysis=None,
            analysed_frame=None,
            steady=0.0,
            source="",
            fault=fault,
            fault_code=code,
        )

    def _run(self, source: Source) -> None:
        monitor, visit = StreamMonitor(source.live), self._visit
        self._publish(source=source.name, fault=FAULTS["waiting"], fault_code="waiting")
        due = time.monotonic()
        while not self._stopping.is_set() and not monitor.stuck:
            if visit != self._visit:  # the monitor, too, holds a part of the last picture
                monitor, visit = StreamMonitor(source.live), self._visit
            frame = source.read()
            if frame is not None:
                self._seen = time.monotonic() if source.live else math.inf
                self._pass_on(rotated(frame, self.rotation), monitor, visit)
                # Else the last frame of somebody who has left would wait here for the next one.
                frame = None
            due = max(due + source.interval, time.monotonic())
            self._stopping.wait(due - time.monotonic())

    def _pass_on(self, frame: Frame, monitor: StreamMonitor, visit: int) -> None:
        code = monitor.inspect(frame)
        if monitor.stale:
            frame = replace(frame, stale=True)
        if code and code != self._noted:
            self._log("source fault", code=code)
            self._noted = code
        # A frozen camera is opened again and again, and each time it takes a while to show it.
        elif not code and self._noted and (monitor.moved or self._noted != "frozen"):
            self._log("source well")
            self._noted = ""
        self._reported = ""
        preview = None
        if self._live:
            preview = reduced(frame.pixels, self.preview_side, cv2.INTER_LINEAR)
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
            frame, visit, stability = self._snapshot.frame, self._visit, self._stability
            if shot is None and frame is not None:
                self._analysed = weakref.ref(frame)
        if shot is not None:
            stability.reset()
            start = time.monotonic()
            result = self.process(shot)
            spent = round((time.monotonic() - start) * 1000)
            with self._changed:
                if shot.visit == self._visit:
                    self._log("capture failed" if result.error else "capture", ms=spent)
                    self._publish(busy=False, result=result)
            return True
        if self._stopping.is_set() or frame is None:
            return not self._stopping.is_set()
        start = time.monotonic()
        self._inspect(frame, visit, stability)
        del frame
        with self._changed:  # the shutter does not wait
            self._changed.wait_for(
                lambda: self._shutter is not None or self._stopping.is_set(),
                max(0.0, start + LIVE_SECONDS - time.monotonic()),
            )
        return True

    def _inspect(self, frame: Frame, visit: int, stability: StabilityTracker) -> None:
        """Analyse a live frame."""
        try:
            analysis, small = self.processor.live(frame)
        except Exception as error:
            failure = Message("The analysis failed: {reason}", reason=error_message(error))
            if failure != self._snapshot.failure:  # reported once, not with every frame
                unforeseen.report(error)
            with self._changed:
                if visit == self._visit:
                    self._publish(analysis=None, analysed_frame=None, steady=0.0, failure=failure)
            return
        steady = stability.update(analysis, small, time.monotonic())
        if frame.stale:  # a camera that hangs is still, too, and shows what was there before
            stability.reset()
            steady = 0.0
        with self._changed:
            wanted = self._live and self._shutter is None and stability is self._stability
            if wanted and self._snapshot.frame is not None:
                self._publish(
                    analysis=analysis,
                    analysed_frame=frame,
                    steady=steady,
                    analysed=self._snapshot.analysed + 1,
                    failure="",
                )


def _empty(snapshot: Snapshot) -> Snapshot:
    """What is left of it for the next visit: the state of the source."""
    return Snapshot(
        source=snapshot.source,
        fault=snapshot.fault,
        fault_code=snapshot.fault_code,
        analysed=snapshot.analysed,
    )


def _give_way() -> None:
    """Let the screen and the camera go before this thread; on Linux a priority is a thread's."""
    if sys.platform.startswith("linux"):
        thread = threading.get_native_id()
        # A little only: a capture is analysed here, too, and somebody waits for it.
        nice = min(19, os.getpriority(os.PRIO_PROCESS, thread) + 2)
        os.setpriority(os.PRIO_PROCESS, thread, nice)
