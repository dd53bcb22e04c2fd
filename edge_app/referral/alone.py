"""One sender for a store, however many processes have it open."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_app.i18n.language import N_
from edge_app.store.records import StoreError

NOT_OURS = N_(
    "{path} cannot be opened, nothing was sent: delete it while no dermedge runs here, another "
    "user may have made it"
)


@contextlib.contextmanager
def alone(store: Path) -> Iterator[bool]:
    """Whether nobody else sends what that store holds; nobody begins to as long as it lasts.

    A lock of SQLite on a file beside the store: every system has it, and it ends with a process
    that is killed. Raises StoreError where that file cannot be opened. Any thread.
    """
    path = store.with_name(f"{store.name}-sender")
    try:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise StoreError(NOT_OURS, code="sender-file", path=path) from error
    try:
        with contextlib.suppress(OSError):
            path.chmod(0o600)
            # As who looks after it: the app's user needs it, too.
            if sys.platform != "win32" and os.geteuid() == 0:
                os.chown(path, store.stat().st_uid, store.stat().st_gid)
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise StoreError(NOT_OURS, code="sender-file", path=path) from error
            yield False
        else:
            yield True
    finally:
        connection.close()
