"""What is entered into the audit trail of an open store, and when."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edge_app.i18n.language import N_
from edge_app.store import audit, clock, pending
from edge_app.store.audit import BEGIN, DONE, FAILED
from edge_app.store.database import UNCHANGED, plain
from edge_app.store.file import StoreFile
from edge_app.store.records import Entry, StoreError

NO_END = N_("it was done, but the audit trail does not say so")


class Trail:
    """The audit trail of an open store. Each method may be called from any thread; those that
    take a connection only within `StoreFile.writing`.
    """

    def __init__(self, file: StoreFile):
        self._file = file

    def head(self) -> audit.Head:
        self._file.must_be_open()
        with self._file.read_lock, plain(self._file.path):
            return audit.head(self._file.reader, self._file.keys)

    def entries(self) -> list[Entry]:
        """All of them, the oldest first."""
        rows = self._file.select("SELECT number, entry FROM audit ORDER BY number")
        return [audit.entry(self._file.keys, number, sealed)[0] for number, sealed in rows]

    def log(self, connection, what: str, which: str = "", digest: str = "", **values) -> int:
        """Append an entry, as `audit.log`."""
        return audit.log(connection, self._file.keys, clock.now(), what, which, digest, **values)

    def begin(self, deed: str, which: str) -> int:
        with self._file.writing() as connection:
            return self.log(connection, BEGIN + deed, which)

    def end(self, number: int, what: str, which: str, state: str = UNCHANGED) -> None:
        with self._file.writing(state) as connection:
            begun = {one[0] for one in audit.head(connection, self._file.keys).begun}
            if number in begun:
                self.log(connection, what, which, ends=number)

    @contextlib.contextmanager
    def act(self, deed: str, which: str = "") -> Iterator[None]:
        """As `Store.act`."""
        number = self.begin(deed, which)
        try:
            yield
        except BaseException:
            with contextlib.suppress(StoreError):
                self.end(number, FAILED + deed, which)
            raise
        self.end(number, DONE + deed, which, NO_END)

    def enter_pending(self) -> None:
        """Enter what happened while the store was closed."""
        folder = self._file.path.parent
        if not pending.read(folder):
            return
        with self._file.writing() as connection:
            events = pending.read(folder)
            entered = self._entered(connection, min((when for when, *_ in events), default=""))
            begun: dict[str, int] = {}
            for when, event, count in events:
                before, number = entered.get((when, event), (0, 0))
                verb, _, deed = event.partition(" ")
                ends = begun.pop(deed, 0) if f"{verb} " in (DONE, FAILED) else 0
                if (count := count - before) > 0:
                    which = f"{count}x" if count > 1 else ""
                    number = self.log(connection, event, which, when=when, ends=ends)
                if f"{verb} " == BEGIN:
                    begun[deed] = number
        pending.clear(folder)

    def _entered(self, connection, since: str) -> dict[tuple[str, str], tuple[int, int]]:
        """How often each of those events from `since` on stands in the trail, and its number.

        An app that was killed there, or another program that has just entered them, left the file.
        """
        found: dict[tuple[str, str], tuple[int, int]] = {}
        rows = "SELECT number, entry FROM audit ORDER BY number DESC"
        for number, sealed in connection.execute(rows):
            one, _digest = audit.entry(self._file.keys, number, sealed)
            if one.what in pending.EVENTS:
                count, _ = found.get((one.when, one.what), (0, 0))
                found[one.when, one.what] = count + int(one.which.removesuffix("x") or 1), number
            elif one.when < since:
                break
        return found
