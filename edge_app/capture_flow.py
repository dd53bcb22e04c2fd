"""From the shutter to the result on the screen; that of a lesion goes to the disk in between."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from dermedge import UserError
from edge_app import unforeseen
from edge_app.background import UNFINISHED, Background
from edge_app.capture.shots import Result, Shot, Snapshot
from edge_app.capture.sources import Frame
from edge_app.capture.worker import Worker
from edge_app.i18n import language
from edge_app.i18n.language import N_, Message, _
from edge_app.session import Session

NOT_SAVED = N_("The picture could not be saved: {reason}")


@dataclass(frozen=True)
class Screens:
    """What the flow calls, in the screen's thread."""

    update: Callable[[Snapshot, Snapshot], None]  # the live screen, with the news and those before
    show_result: Callable[[], None]
    tell: Callable[[str], None]  # one line for some seconds


class CaptureFlow:
    """Hands shots to the worker and takes their results. All is the screen's thread's; results of a
    lesion are saved in the background's.
    """

    def __init__(
        self,
        worker: Worker,
        session: Session,
        background: Background,
        screens: Screens,
        log: Callable[..., None],
    ) -> None:
        self._worker, self._session, self._background = worker, session, background
        self._screens, self._log = screens, log
        self.snapshot = Snapshot()  # what is shown
        self._latest = self.snapshot  # the worker's own, of which `snapshot` was made
        self._awaited: Shot | None = None  # whose result this screen waits for
        self._out = False  # a shot is with the worker, and its result was not taken from there
        self._saving = False  # that result is on its way to the disk

    def take(self, source: Frame | Path) -> bool:
        """Capture a frame or file; False where another one is not done yet."""
        if self._saving or self._out:  # the worker may be done: another would replace its result
            return False
        shot = self._session.shot(source, date.today())
        if not self._worker.capture(shot):
            return False
        self._out = True
        self._session.refused = ""
        self._session.give_way(True)
        self._awaited = replace(shot, source=Path())  # its frame is not held for this
        return True

    def forget(self) -> None:
        """Another screen is shown: a result is for the live screen that its shot was taken on."""
        self._awaited = None

    def reset(self) -> None:
        """The visit is over."""
        self._awaited, self._out, self._saving = None, False, False
        self._latest = self.snapshot = self._worker.snapshot()
        self._session.give_way(self.snapshot.busy)

    def update(self) -> None:
        """Take the worker's news, if there are any."""
        latest, before = self._worker.snapshot(), self._latest
        if latest is before:
            return
        self._latest = latest
        if latest.result is not None and latest.result is not before.result:
            self._out = False
            self._receive(latest.result)
        self._update_screen()

    def finish(self) -> None:
        """Save what a worker that was stopped finished last, where it is a lesion's."""
        before, self._latest = self._latest, self._worker.snapshot()
        result = self._latest.result
        if result is None or result is before.result or not result.lesion_id:
            return
        if result.visit != self._session.visit:
            return
        if result.error or self._save(result)[1] is not None:
            print("dermedge: the last picture could not be saved", file=sys.stderr)

    def _update_screen(self) -> None:
        """A picture that is being saved keeps the shutter busy."""
        before, now = self.snapshot, self._latest
        self.snapshot = replace(now, busy=True) if self._saving and not now.busy else now
        if self.snapshot.busy != before.busy:
            self._session.give_way(self.snapshot.busy)
        self._screens.update(self.snapshot, before)

    def _awaits(self, shot_id: int) -> bool:
        return self._awaited is not None and self._awaited.id == shot_id

    def _receive(self, result: Result) -> None:
        """A shot was analysed. That of a lesion is shown when it is in the store."""
        if result.visit != self._session.visit:
            return
        awaited = self._awaits(result.shot_id)
        if result.error:
            if awaited:
                self._awaited = None
                self._session.refused = result.error
            elif result.lesion_id:  # whoever left counts on it
                self._screens.tell(language.sentence(_(result.error)))
        elif not result.lesion_id:
            if awaited:
                self._show(result)
        else:
            self._saving = True
            self._background.write(partial(self._save, result), partial(self._saved, result))

    def _save(self, result: Result) -> tuple[Result, Exception | None]:
        """The result as it is in the store, or as it was and why it is not there. Any thread."""
        try:
            return self._session.save(result), None
        except Exception as error:
            if not isinstance(error, (UserError, OSError)):
                unforeseen.report(error)
            return result, error

    def _saved(self, unsaved: Result, future: Future[Any]) -> None:
        result, error = future.result()
        if error is not None:
            self._log("capture failed")
        if unsaved.visit != self._session.visit:
            if error is not None:
                self._screens.tell(_(UNFINISHED))
            return
        self._saving = False
        awaited = self._awaits(unsaved.shot_id)
        if awaited:
            self._awaited = None
        if error is None:
            if awaited:
                self._show(result)
        else:
            message = Message(NOT_SAVED, reason=language.error_message(error))
            if awaited:
                self._session.refused = message
            else:
                self._screens.tell(language.sentence(_(message)))
        self._update_screen()

    def _show(self, result: Result) -> None:
        self._session.refused = ""
        self._session.take(result)
        self._screens.show_result()
