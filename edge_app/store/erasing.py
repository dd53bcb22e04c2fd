"""Deeds of which nothing old may stay on the disk, not even sealed."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable

from edge_app.i18n.language import N_
from edge_app.store import audit, database
from edge_app.store.audit import DONE, FAILED
from edge_app.store.database import plain
from edge_app.store.file import StoreFile
from edge_app.store.records import NotWiped, StoreError
from edge_app.store.trail import NO_END, Trail

# Deed: tables of which it removes records, or replaces them. The bytes of pictures and parcels are
# too many to be written again.
_REFERRAL = ("referral", "parcel", "attempt", "answer")
_CAPTURE = ("capture", "summary", *_REFERRAL, "store")
TABLES = {
    "delete person": ("person", "lesion", *_CAPTURE),
    "delete lesion": ("lesion", *_CAPTURE),
    "delete capture": _CAPTURE,
    "delete referral": _REFERRAL,
    "delete destination": ("destination",),
    "change key": ("store",),
}


class Erasing:
    """Empties the log of what was replaced or deleted. Each method may be called from any thread.

    What was overwritten stays in the write-ahead log until nobody reads an older state. In the
    file, `secure_delete` overwrites a record where it lies, but not copies of it in pages that
    SQLite had moved it from: its table is written again, on pages that are overwritten as a whole.
    """

    def __init__(self, file: StoreFile, trail: Trail):
        self._file, self._trail = file, trail
        self._unwiped: set[int] = set()  # entries that began what is done

    def erase(self, deed: str, which: str, action: Callable[[], None]) -> None:
        """Do what promises that nothing of the old stays; it begins only where nobody reads.

        Raises StoreError where nothing was changed, NotWiped where it is done but for the log.
        """
        with self._file.lock:
            number = self._trail.begin(deed, which)
            try:
                # Overwriting, too, goes through the log. With an empty one the file need not grow.
                if self._file.checkpoint(database.BUSY_SECONDS):
                    raise StoreError(
                        "another program reads the store, nothing was changed: try again when it "
                        "has ended",
                        code="busy",
                    )
                action()
            except BaseException:
                with contextlib.suppress(StoreError):
                    self._trail.end(number, FAILED + deed, which)
                raise
            self._unwiped.add(number)
            self._wipe(deed)
            self._trail.end(number, DONE + deed, which, NO_END)

    def _wipe(self, deed: str) -> None:
        """Leave nothing of what was deleted in the file or its log; raises NotWiped."""
        state = N_("it is done, but sealed traces stay in the store's log for now")
        try:
            with plain(self._file.path, state):
                busy = self._file.checkpoint(database.BUSY_SECONDS)
                if not busy:
                    self._write_again([deed], database.BUSY_SECONDS)
                    busy = self._file.checkpoint(database.BUSY_SECONDS)
        except StoreError as error:
            raise NotWiped(error.message, code=error.code, **error.values) from error
        if busy:
            words = N_(
                "it is done, but another program reads the store: sealed traces stay in its log "
                "until that has ended"
            )
            raise NotWiped(words, code="not-wiped")

    def _write_again(self, deeds: Iterable[str], seconds: float = 0.0) -> None:
        """The tables of these deeds, each row in its place; waits so long for another process."""
        writer = self._file.writer
        tables = dict.fromkeys(table for deed in deeds for table in TABLES[deed])
        writer.execute("PRAGMA foreign_keys=OFF")  # nothing goes with a row that comes back
        try:
            with database.transaction(writer, seconds) as connection:
                for table in tables:
                    for statement in (
                        f"CREATE TEMP TABLE kept AS SELECT rowid AS place, * FROM {table}",
                        f"DELETE FROM {table}",
                        f"INSERT INTO {table} (rowid, {_columns(connection, table)}) "
                        "SELECT * FROM kept ORDER BY place",
                        "DROP TABLE kept",
                    ):
                        connection.execute(statement)
        finally:
            writer.execute("PRAGMA foreign_keys=ON")

    def tidy(self) -> None:
        """After a change that promises no erasing: empty the log if nobody is in the way."""
        with contextlib.suppress(StoreError):
            self.settle()

    def settle(self) -> None:
        """Bring to its end what was deleted, but not yet wiped; waits for nobody."""
        with self._file.lock, plain(self._file.path):
            if self._file.checkpoint(0):
                return
            writer, keys = self._file.writer, self._file.keys
            left = [
                (number, deed, which)
                for number, deed, which in audit.head(writer, keys).begun
                if number in self._unwiped
                or (deed.startswith("delete ") and _is_gone(writer, deed, which))
            ]
            if left:
                self._write_again(deed for _number, deed, _which in left)
                if self._file.checkpoint(0):
                    return
                with database.transaction(writer) as connection:
                    for number, deed, which in left:
                        self._trail.log(connection, DONE + deed, which, ends=number)

    def make_room(self, needed: int) -> None:
        """Raises DiskFull where the disk has not so many bytes to spare, the log emptied."""
        if needed and self._file.lacks(needed):
            self.tidy()
            if self._file.lacks(needed):
                with plain(self._file.path):
                    raise OSError(errno.ENOSPC, "disk full")


def _columns(connection, table: str) -> str:
    return ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))


def _is_gone(connection, deed: str, which: str) -> bool:
    table = deed.partition(" ")[2]
    return not connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (which,)).fetchone()
