"""One pass through the app without hands: live picture, capture, result, a screenshot of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from kivy.clock import Clock
from kivy.core.window import Window
from kivy.graphics.opengl import GL_RGBA, GL_UNSIGNED_BYTE, glReadPixels

from dermedge.image import write_png
from edge_app.app import DermedgeApp

DEADLINE = 120.0  # s, for the whole way; a slow device analyses a picture in seconds
SETTLE = 4  # frames from a change of screen to its last layout


class Tour:
    """Drives a running app; `fault` is empty when it came through."""

    def __init__(self, app: DermedgeApp, folder: Path):
        self.fault = "the app ended too early"
        self.saved: Path | None = None
        self._app = app
        self._folder = folder
        self._steps = self._walk()
        self._until: Callable[[], bool] = lambda: True
        self._grab: str | None = None
        app.bind(on_start=self._begin)

    def _begin(self, _) -> None:
        Window.bind(on_flip=self._flip)
        Clock.schedule_interval(self._step, 0)
        Clock.schedule_once(self._give_up, DEADLINE)

    def _step(self, _) -> None:
        if not self._until():
            return
        try:
            self._until = next(self._steps)
        except StopIteration:
            self._app.stop()

    def _walk(self) -> Iterator[Callable[[], bool]]:
        worker = self._app.worker
        self.fault = "no live picture was analysed"
        yield lambda: worker.snapshot().analysis is not None
        yield from self._picture("live.png")
        self.fault = "the picture was not captured"
        self._app.take_picture()
        yield lambda: worker.snapshot().capture is not None
        capture = worker.snapshot().capture
        if capture.error:
            self.fault = capture.error
            return
        self.saved = capture.path
        self.fault = "the result was not shown"
        yield lambda: self._app.root.current == "result"
        yield from self._picture("result.png")
        self.fault = ""

    def _picture(self, name: str) -> Iterator[Callable[[], bool]]:
        for _ in range(SETTLE):
            yield lambda: True
        self._grab = name
        yield lambda: self._grab is None

    def _flip(self, _window) -> None:
        # Only between drawing and flipping is the whole picture in the buffer that is read.
        if self._grab is None:
            return
        width, height = Window.system_size
        data = glReadPixels(0, 0, width, height, GL_RGBA, GL_UNSIGNED_BYTE)
        pixels = np.frombuffer(data, np.uint8).reshape(height, width, 4)
        shot = np.ascontiguousarray(pixels[::-1, :, :3])
        write_png(self._folder / self._grab, shot, private=True)  # as the captures
        self._grab = None

    def _give_up(self, _) -> None:
        source = self._app.worker.snapshot().fault
        self.fault = f"{self.fault} within {DEADLINE:.0f} s. {source}".strip()
        self._app.stop()
