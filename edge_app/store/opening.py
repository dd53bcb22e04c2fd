"""Making and opening the file of a store."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edge_app.store import audit, clock, database, derivation
from edge_app.store.database import VERSION, connect, plain
from edge_app.store.file import StoreFile
from edge_app.store.keys import KEY, Keys
from edge_app.store.migrations import migrate
from edge_app.store.records import StoreError


def build(path: Path, passphrase: str) -> Keys:
    """Make the empty file `path` a store."""
    secret = bytearray(os.urandom(KEY))
    header = derivation.wrap(secret, passphrase)
    keys = Keys(secret)
    with contextlib.closing(connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        with database.transaction(connection):
            for statement in database.statements(database.SCHEMA):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={database.APPLICATION}")
            connection.execute(f"PRAGMA user_version={VERSION}")
            derivation.write(connection, header)
            audit.write_head(connection, keys, audit.Head())
            audit.log(connection, keys, clock.now(), "create")
    return keys


def open_file(path: Path, passphrase: str, foreign: bool = False) -> StoreFile:
    """`foreign` : whoever made it may mean harm. Raises WrongKey, StoreError."""
    if not path.exists():
        raise StoreError("there is no store at {path}", code="missing", path=path)
    with plain(path), contextlib.closing(connect(path)) as connection:
        version = database.check_kind(connection, path)
        if foreign:
            database.check_rows(connection, path, version)
        keys = Keys(derivation.unwrap(derivation.read(connection), passphrase))
        with contextlib.suppress(OSError):
            path.chmod(0o600)
        migrate(connection, path, keys, clock.now, database.BUSY_SECONDS)
    with plain(path):
        return StoreFile(path, keys)


def open_copy(copy: Path, path: Path, passphrase: str) -> StoreFile:
    """Open `copy`, which is one of the foreign file `path`; what goes wrong is said of that."""
    try:
        return open_file(copy, passphrase, foreign=True)
    except StoreError as error:  # the copy means nothing to a reader
        values = {name: path if value == copy else value for name, value in error.values.items()}
        raise type(error)(error.message, code=error.code, **values) from None
