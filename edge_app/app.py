"""The app: its two screens, the keyboard, and the clock that carries the worker's news to them."""

from __future__ import annotations

import os
from pathlib import Path

from kivy.app import App
from kivy.clock import Clock
from kivy.core.window import Window
from kivy.metrics import Metrics
from kivy.properties import BooleanProperty, NumericProperty, StringProperty
from kivy.uix.screenmanager import NoTransition, ScreenManager

from edge_app import present, theme
from edge_app.screens.live import LiveScreen
from edge_app.screens.result import ResultScreen
from edge_app.worker import PREVIEW_SIDE, Worker

ESCAPE, SPACE, DETAILS, UP, DOWN = 27, 32, ord("d"), 273, 274


class DermedgeApp(App):
    """Shows what `worker` takes and finds. The worker must be started, and stopped afterwards."""

    title = "dermedge"
    unit = NumericProperty(1.0)
    portrait = BooleanProperty(True)
    demonstration = StringProperty()

    def __init__(self, worker: Worker, procedural: bool):
        super().__init__(demonstration=present.DEMO if procedural else "")
        self.worker = worker
        self._snapshot = None
        self._notice = ""

    def build(self) -> ScreenManager:
        self._arrange()
        Window.clearcolor = theme.STAGE.ground
        Window.bind(on_resize=self._arrange, on_keyboard=self._key, on_drop_file=self._drop)
        Window.bind(on_request_close=lambda *_, **__: bool(Window.fullscreen))
        self.live = LiveScreen(name="live")
        self.result = ResultScreen(name="result")
        screens = ScreenManager(transition=NoTransition())
        screens.add_widget(self.live)
        screens.add_widget(self.result)
        Clock.schedule_interval(self._update, 0)
        return screens

    def take_picture(self) -> None:
        """Capture the frame that is on the screen."""
        if self.root.current == "live" and self._snapshot and self._snapshot.frame:
            self._notice = ""
            self.worker.capture(self._snapshot.frame)

    def import_file(self, path: str | Path) -> None:
        """Take a picture file as a capture."""
        if self.root.current == "live":
            self._notice = ""
            self.worker.import_file(path)

    def _drop(self, _window, path: bytes, *_) -> None:
        self.import_file(os.fsdecode(path))

    def new_picture(self) -> None:
        """Back to the live picture."""
        self.worker.live(True)
        self.root.current = "live"

    def _update(self, _) -> None:
        snapshot, before = self.worker.snapshot(), self._snapshot
        if snapshot is before:
            return
        self._snapshot = snapshot
        capture = snapshot.capture
        if capture and (before is None or capture is not before.capture):
            self._notice = capture.error
            if not capture.error:
                self.worker.live(False)
                self.result.show(present.result(capture.analysis), capture.pixels)
                self.root.current = "result"
        if self.root.current == "live":
            picture = self.live.ids.picture
            self.worker.preview_side = min(PREVIEW_SIDE, max(64, round(max(picture.size))))
            if before is None or snapshot.preview is not before.preview:
                picture.show(snapshot.preview)
            self.live.steady = snapshot.steady if self.live.auto else 0
            # Not again by itself where it failed: a full disk would make it try for ever.
            if self.live.auto and snapshot.steady >= 1 and not snapshot.busy and not self._notice:
                self._notice = ""
                self.worker.capture(snapshot.judged)
            self.live.view = present.live(snapshot, self._notice)

    def _arrange(self, *_) -> None:
        width, height = (side / Metrics.density for side in Window.size)
        self.unit = theme.unit(width, height)
        self.portrait = height > width

    def _key(self, _window, key: int, *_) -> bool:
        shown = self.root.current
        if key == SPACE and shown == "live":
            self.take_picture()
        elif key == ESCAPE and shown == "result":
            self.new_picture()
        elif key in (UP, DOWN) and shown == "result":
            self.result.scroll(1 if key == DOWN else -1)
        elif key == DETAILS and shown == "result":
            self.result.details = not self.result.details
        elif key == ESCAPE and not Window.fullscreen:
            return False  # Kivy then ends the app; a kiosk must not end by one key
        return key in (ESCAPE, SPACE, DETAILS, UP, DOWN)
