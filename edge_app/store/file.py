"""The open file of a store: its connections and locks, transactions, and that it can be closed."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_app.store import database
from edge_app.store import keys as keyring
from edge_app.store.database import UNCHANGED, connect, plain
from edge_app.store.keys import Keys
from edge_app.store.memory import overwrite_freed
from edge_app.store.records import StoreError

RESERVE = 8 * 2**20  # bytes of the disk left free by adding: deleting needs some, too


class StoreFile:
    """An open file. Each method may be called from any thread.

    Reading does not wait for a write. `lock` is held by whoever writes, `read_lock` by whoever
    uses `reader`; one who needs both takes `lock` first.
    """

    def __init__(self, path: Path, keys: Keys):
        self.path, self.keys = path, keys
        self.lock, self.read_lock = threading.RLock(), threading.RLock()
        self.closing = threading.Event()
        self.writer, self.reader = (connect(path, self.closing.is_set) for _ in range(2))

    def must_be_open(self) -> None:
        if self.closing.is_set():
            raise StoreError(keyring.CLOSED, code="closed")

    def select(self, query: str, values: tuple = ()) -> list[tuple]:
        self.must_be_open()
        with self.read_lock, plain(self.path):
            return self.reader.execute(query, values).fetchall()

    def setting(self, name: str, writing: sqlite3.Connection | None = None):
        """What the table `store` keeps sealed under a name, of JSON; None where nothing is.

        `writing` : the transaction that changes it; else what another writes meanwhile is lost.
        """
        query, values = "SELECT value FROM store WHERE name = ?", (name,)
        rows = writing.execute(query, values).fetchall() if writing else self.select(query, values)
        return self.keys.record(rows[0][0], name) if rows else None

    def keep_setting(self, connection: sqlite3.Connection, name: str, value: object) -> None:
        """Within `writing`."""
        sealed = self.keys.seal(json.dumps(value).encode(), name)
        connection.execute("INSERT OR REPLACE INTO store VALUES (?, ?)", (name, sealed))

    @contextlib.contextmanager
    def writing(self, state: str = UNCHANGED) -> Iterator[sqlite3.Connection]:
        """One transaction. `state` : what is said to have been done where it fails."""
        self.must_be_open()
        write = database.transaction(self.writer, database.BUSY_SECONDS, self.must_be_open)
        with self.lock, plain(self.path, state), write as connection:
            yield connection

    @contextlib.contextmanager
    def whole(self) -> Iterator[sqlite3.Connection]:
        """A view of the whole store at one moment, for long readings."""
        self.must_be_open()
        with plain(self.path):
            connection = connect(self.path, self.closing.is_set)
            with contextlib.closing(connection):
                connection.execute("BEGIN")
                yield connection

    def checkpoint(self, seconds: float) -> bool:
        """Write the log back and empty it; whether somebody was in the way for so long."""
        end = time.monotonic() + seconds
        with self.lock, self.read_lock, plain(self.path):
            while True:
                busy, *_ = self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not busy or time.monotonic() >= end or self.closing.is_set():
                    return bool(busy)

    def lacks(self, needed: int) -> bool:
        """Whether the disk has not so many bytes to spare: half of them in the log."""
        log = Path(f"{self.path}-wal")
        ((pages,),) = self.select("PRAGMA freelist_count")  # of what was deleted: the other half
        ((size,),) = self.select("PRAGMA page_size")
        needed -= min(pages * size, needed // 2)
        with plain(self.path):
            # The log's pages are still to find a place in the file.
            waiting = log.stat().st_size if log.exists() else 0
            free = shutil.disk_usage(self.path.parent).free
            return free < needed + waiting + RESERVE

    def close(self, settle: Callable[[], None] = lambda: None) -> None:
        """Close the connections and overwrite the keys. A second call does nothing.

        What another thread is doing is broken off. `settle` : what is to be done before, if it can.
        """
        already = self.closing.is_set()
        self.closing.set()
        with self.lock, self.read_lock:
            try:
                if not already:
                    with contextlib.suppress(StoreError, sqlite3.Error):
                        settle()
                for connection in (self.reader, self.writer):
                    with contextlib.suppress(sqlite3.Error):
                        connection.close()
            finally:
                self.keys.wipe()
        if not already:
            overwrite_freed()
