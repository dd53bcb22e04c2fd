"""One sender for a store, however many processes have it open."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(store: Path) -> Iterator[bool]:
    """Whether nobody else sends what that store holds; nobody begins to as long as it lasts.

    A lock of SQLite on a file beside the store: every system has it, and it ends with a process
    that is killed. Any thread.
    """
    path = store.with_name(f"{store.name}-sender")
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        with contextlib.suppress(OSError):
            path.chmod(0o600)
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            yield False
        else:
            yield True
    finally:
        connection.close()
