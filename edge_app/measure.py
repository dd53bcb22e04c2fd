"""How smoothly the running app works: frames shown, stalls of the UI thread, shutter to result."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
from kivy.clock import Clock
from kivy.core.window import Window

from dermedge import UserError
from dermedge.image import read_image
from edge_app.app import DermedgeApp

WARM_UP = 3.0  # s after the first analysis that are not measured
STALL_MS = 50.0  # the UI thread may not be away for longer


class Meter:
    """Drives a running app: `seconds` of live picture, then as many captures as `captures` says.

    The UI thread's round is cut in four: `work` (our callbacks, touches, layout), `draw` (Kivy's
    OpenGL calls), `flip` (the swap of buffers: where Mesa draws in software without a GPU, its
    drawing) and rest. A stall is a round without its rest: so long nothing answers a touch.
    """

    def __init__(self, app: DermedgeApp, seconds: float, captures: int = 0):
        self.fault = "the app ended too early"
        self._app, self._seconds, self._captures = app, seconds, captures
        self._marks: list[tuple[float, ...]] = []
        self._numbers: list[tuple[float, int]] = []  # when which frame was shown
        self._waits: list[float] = []
        self._live: tuple[float, float, int] | None = None
        self._script = None
        app.bind(on_start=self._begin)

    def _begin(self, _) -> None:
        idle, flip, worker = Clock.idle, Window.flip, self._app.worker
        shown = [0]
        round_ = {"woke": 0.0, "draw": 0.0, "flip": 0.0, "done": 0.0}

        def timed_idle():
            start = time.perf_counter()
            if round_["woke"]:
                drew = round_["draw"] or start
                flipped, done = round_["flip"] or drew, round_["done"] or drew
                self._marks.append((round_["woke"], drew, flipped, done, start))
            result = idle()
            round_.update(woke=time.perf_counter(), draw=0.0, flip=0.0, done=0.0)
            return result

        def timed_flip():
            round_["flip"] = time.perf_counter()
            flip()
            round_["done"] = time.perf_counter()
            frame = worker.snapshot().frame
            if frame is not None and frame.number != shown[0]:
                shown[0] = frame.number
                self._numbers.append((round_["done"], frame.number))

        def drawing(_window):
            round_["draw"] = time.perf_counter()

        Clock.idle, Window.flip = timed_idle, timed_flip
        Window.bind(on_draw=drawing)
        self._script = self._walk()
        self._until = next(self._script)
        Clock.schedule_interval(self._step, 0)

    def _step(self, _) -> None:
        if self._until():
            try:
                self._until = next(self._script)
            except StopIteration:
                self._app.stop()

    def _walk(self):
        worker = self._app.worker
        self.fault = "no live picture was analysed"
        yield lambda: worker.snapshot().analysis is not None
        ready = time.perf_counter() + WARM_UP
        yield lambda: time.perf_counter() >= ready
        self.fault = "the live picture was not measured to its end"
        start, analysed = time.perf_counter(), worker.snapshot().analysed
        yield lambda: time.perf_counter() >= start + self._seconds
        self._live = (start, time.perf_counter(), worker.snapshot().analysed - analysed)
        for _ in range(self._captures):
            self.fault = "a picture was not captured"
            self._app.new_picture()
            yield lambda: worker.snapshot().analysis is not None
            pressed = time.perf_counter()
            self._app.take_picture()
            yield lambda: self._app.root.current == "result"
            if worker.snapshot().capture.error:
                self.fault = worker.snapshot().capture.error
                return
            self._waits.append((time.perf_counter() - pressed) * 1000)
        self.fault = ""

    def report(self) -> dict:
        """The figures; ms where a name says so."""
        start, end, analyses = self._live
        rounds = np.array([mark for mark in self._marks if start <= mark[0] <= end])
        parts = np.diff(rounds, axis=1) * 1000
        work, draw, flip, rest = parts.T
        busy = (rounds[:, 4] - rounds[:, 0]) * 1000
        shown = np.array([when for when, _ in self._numbers if start <= when <= end])
        report = {
            "seconds": round(end - start, 1),
            "window": list(Window.system_size),
            "frames_shown_per_second": round(len(shown) / (end - start), 1),
            "longest_gap_between_frames_ms": round(float(np.diff(shown).max()) * 1000, 1),
            "stall_ms": _spread(busy),
            "stalls_over_50_ms": int((busy > STALL_MS).sum()),
            "work_ms": _spread(work + rest),
            "draw_ms": _spread(draw),
            "flip_ms": _spread(flip),
            "analyses_per_second": round(analyses / (end - start), 1),
        }
        if self._waits:
            report["shutter_to_result_ms"] = _spread(np.array(self._waits))
        return report


def film(photo: Path, path: Path, seconds: float = 4.0, size: tuple[int, int] = (1280, 720)):
    """Write a video, 30 fps, of what a camera held by hand sees of a photograph.

    Raises ImageError, and UserError where no video can be written.
    """
    pixels = read_image(photo).pixels
    width, height = size
    scale = 1.06 * max(width / pixels.shape[1], height / pixels.shape[0])
    large = cv2.resize(pixels[..., ::-1], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, size)
    if not writer.isOpened():
        raise UserError(f"no video can be written to {path}")
    middle = np.array([large.shape[1] - width, large.shape[0] - height]) / 2
    for number in range(round(seconds * 30)):
        turn = 2 * np.pi * number / (seconds * 30)
        sway = np.array([np.cos(turn), np.sin(2 * turn)]) * np.minimum(middle, 12)
        corner = tuple(float(v) for v in middle + sway + np.array(size) / 2 - 0.5)
        writer.write(cv2.getRectSubPix(large, size, corner))
    writer.release()


def _spread(values: np.ndarray) -> dict[str, float]:
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    figures = {"p50": p50, "p90": p90, "p99": p99, "max": values.max()}
    return {name: round(float(value), 1) for name, value in figures.items()}
