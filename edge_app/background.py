"""Actions beside the screen, each for the visit that it was begun in."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from kivy.clock import Clock

from dermedge import UserError
from edge_app import unforeseen
from edge_app.i18n.language import N_, _
from edge_app.presentation import messages as present
from edge_app.session import Session, VisitOver
from edge_app.store.damage import LeftOut
from edge_app.ui import widgets

UNFINISHED = N_("Something that was begun before the screen was cleared could not be finished.")


class Task:
    """One action. It runs in a thread of `Background`; all else is the screen's thread's."""

    def __init__(
        self,
        session: Session,
        screen: object,
        action: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[str], None],
        writes: bool,
        cover: widgets.Wait | None,
    ) -> None:
        self.session, self.visit, self.screen = session, session.visit, screen
        self.action: Callable[[], Any] | None = action
        self.done: Callable[[Any], None] | None = done
        self.failed: Callable[[str], None] | None = failed
        self.writes, self.cover = writes, cover
        self.left = LeftOut()

    def __call__(self) -> Any:
        action, self.action = self.action, None
        if action is None:
            raise VisitOver("the screen was cleared meanwhile", code="visit_over")
        with self.session.on_behalf_of(self.visit) as self.left:
            return action()

    def uncover(self) -> None:
        if self.cover is not None:
            self.cover.dismiss(animation=False)
            self.cover = None

    def drop(self) -> None:
        """The visit is over. What was begun, and was to change what is kept, goes on."""
        self.uncover()
        self.screen = self.done = self.failed = None
        if not self.writes:
            self.action = None


class Background:
    """Runs actions in two threads of its own: one for what reads, one for what writes.

    Apart, so that nobody's screen waits for a long import of somebody who has left. All methods
    are for the screen's thread, which also gets what came of an action.
    """

    def __init__(
        self, session: Session, screen: Callable[[], object], tell: Callable[[str], None]
    ) -> None:
        """`screen` : what is shown, another object each time. `tell` : shows a line for some
        seconds.
        """
        self._session, self._screen, self._tell = session, screen, tell
        self._readers = ThreadPoolExecutor(1, "dermedge-reading")
        self._writers = ThreadPoolExecutor(1, "dermedge-writing")
        self._tasks: set[Task] = set()

    def run(
        self,
        action: Callable[[], Any],
        done: Callable[[Any], None],
        message: str,
        failed: Callable[[str], None] | None,
        writes: bool,
    ) -> None:
        """As `DermedgeApp.work` says it."""
        cover = widgets.Wait(message=message) if message else None
        if cover is not None:
            cover.open(animation=False)
        task = Task(
            self._session, self._screen(), action, done, failed or self._tell, writes, cover
        )
        self._tasks.add(task)
        pool = self._writers if writes else self._readers
        _then(pool.submit(task), partial(self._finish, task))

    def write(self, action: Callable[[], Any], done: Callable[[Future[Any]], None]) -> None:
        """Run an action that changes what is kept, whatever the visit is by then; then `done`."""
        _then(self._writers.submit(action), done)

    @property
    def covers(self) -> bool:
        """Whether somebody waits for something, on a screen that is covered."""
        return any(task.cover for task in self._tasks)

    def drop(self) -> None:
        """The visit is over."""
        for task in self._tasks:
            task.drop()

    def stop(self) -> None:
        """Wait for what was begun; what only reads and was not begun is left out."""
        self._readers.shutdown(cancel_futures=True)
        self._writers.shutdown()

    def _finish(self, task: Task, future: Future[Any]) -> None:
        task.uncover()
        self._tasks.discard(task)
        error = future.exception()
        result = future.result() if error is None else None
        partly = getattr(result, "error", None)
        failure = error or partly
        if isinstance(error, VisitOver):
            return
        if error is not None and not isinstance(error, (UserError, OSError)):
            unforeseen.report(error)
        if task.visit != self._session.visit:
            if task.writes and failure:
                self._tell(_(UNFINISHED))
        elif task.screen is self._screen():
            if error is None and task.done is not None:
                task.done(result)
                if task.left.what:
                    self._tell(present.left_out(task.left.what))
            elif error is not None and task.failed is not None:
                task.failed(present.error_line(error))
        elif task.writes and failure:
            self._tell(present.error_line(failure))


def _then(future: Future[Any], done: Callable[[Future[Any]], None]) -> None:
    """Call `done` with a future that has ended, in the screen's thread."""
    future.add_done_callback(lambda ended: Clock.schedule_once(lambda _dt: done(ended)))
