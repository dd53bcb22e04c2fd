"""The app's life on a phone: pause, the screen's edges, files from the system's own picker."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kivy.clock import Clock

from edge_app.android.system import Answer, System, seconds
from edge_app.capture.camera2 import Cameras

if TYPE_CHECKING:
    from edge_app.app import DermedgeApp

KINDS = {"picture": "image/*", "import": "*/*", "pem": "*/*"}  # of what the app opens
MARGINS_EACH = 1.0  # s; no event tells that a bar came or went


class Phone:
    """Between the system and the app. The main thread, but where said."""

    def __init__(self, system: System, cameras: Cameras):
        self._system, self._cameras = system, cameras
        self._chosen = system.cache_folder() / "chosen"
        self._app: DermedgeApp  # since `attach`
        self._left: tuple[float, float] | None = None
        self.forget()

    def attach(self, app: DermedgeApp, window: Any) -> None:
        """Before the app runs; `window` is Kivy's."""
        self._app, self._window = app, window
        app.phone = self
        app.bind(on_pause=self._pause, on_resume=self._resume)
        app.bind(on_stop=lambda _app: self.forget())
        # The keyboard must not cover what is typed into.
        window.softinput_mode = "below_target"
        self._system.hide_from_others()
        Clock.schedule_once(self._begin)  # with the first frame, when the app is built

    # ------------------------------------------------------------------------ pause

    def _pause(self, _app: DermedgeApp) -> bool:
        """The app is not on the screen any more, and may never be again."""
        self._cameras.pause()
        self._app.keep()
        self._left = time.monotonic(), seconds()
        return True  # it stays alive: the system's file picker is a pause, too

    def _resume(self, _app: DermedgeApp) -> None:
        self._cameras.resume()
        if self._left is not None:
            awake, all_ = time.monotonic() - self._left[0], seconds() - self._left[1]
            self._left = None
            self._app.slept(all_ - awake)

    # ------------------------------------------------------------------------ edges

    def _begin(self, _dt: float) -> None:
        self._window.bind(on_resize=self._keep_clear)
        Clock.schedule_interval(self._keep_clear, MARGINS_EACH)
        self._keep_clear()

    def _keep_clear(self, *_args: object) -> None:
        """Nothing of the app lies under the system's bars, or in a cut-out of the screen."""
        left, top, right, bottom = self._system.margins()
        frame, (width, height) = self._app.frame, self._window.size
        frame.size_hint = None, None
        frame.pos = left, bottom
        frame.size = max(1, width - left - right), max(1, height - top - bottom)

    # ------------------------------------------------------------------------ files

    def documents(self) -> Path:
        """Where reports and exports are written."""
        return self._system.documents()

    def pick(self, task: str, done: Callable[[Answer], None]) -> None:
        """Have a file of one of KINDS chosen; `done` is given what `System.pick` gives."""

        def picked(answer: Answer) -> None:  # in the system's thread
            Clock.schedule_once(lambda _dt: done(answer))

        self.forget()
        self._system.pick(KINDS[task], self._chosen, picked)

    def forget(self) -> None:
        """Delete the copy of what was chosen last."""
        shutil.rmtree(self._chosen, ignore_errors=True)
