"""The SQLite file of a store: how it is opened, what its schema is, and what goes wrong with it.

A file may come from another device, or from somebody who means harm: it is only read when its
schema is word for word one of ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from edge_app.i18n.language import N_, Message
from edge_app.store.records import Capture, Lesion, Person, StoreError
from edge_app.store.referrals import Destination, StoredAnswer, StoredParcel, StoredReferral

fcntl: Any = import_module("fcntl") if os.name == "posix" else None  # none on Windows

APPLICATION = 0x6465726D  # 'derm', SQLite's application_id
VERSION = 4  # of the schema, SQLite's user_version
STALE_SECONDS = 24 * 3600.0  # after which no import or export is still at work
GRACE_SECONDS = 60.0  # from making a folder until it is surely locked
MADE = (".importing-", ".writing-", ".labels-")  # how what is being made is called
BUSY_SECONDS = 10.0  # that a write waits for another process
TRY_SECONDS = 0.2  # that SQLite itself waits for another process
STEPS = 10_000  # of SQLite's machine between two looks at whether one closes
# What a file of another device may hold.
MAX_RECORD, MAX_PICTURE = 8 * 2**20, 2**29  # bytes

SCHEMA = """
CREATE TABLE store (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE person (id TEXT PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE lesion (
    id TEXT PRIMARY KEY,
    person TEXT NOT NULL REFERENCES person (id) ON DELETE CASCADE,
    record BLOB NOT NULL
);
CREATE INDEX lesion_person ON lesion (person);
CREATE TABLE summary (
    lesion TEXT PRIMARY KEY REFERENCES lesion (id) ON DELETE CASCADE,
    data BLOB NOT NULL
);
CREATE TABLE capture (
    id TEXT PRIMARY KEY,
    lesion TEXT NOT NULL REFERENCES lesion (id) ON DELETE CASCADE,
    record BLOB NOT NULL
);
CREATE INDEX capture_lesion ON capture (lesion);
CREATE TABLE picture (
    capture TEXT PRIMARY KEY REFERENCES capture (id) ON DELETE CASCADE,
    data BLOB NOT NULL
);
CREATE TABLE referral (
    id TEXT PRIMARY KEY,
    lesion TEXT NOT NULL REFERENCES lesion (id) ON DELETE CASCADE,
    record BLOB NOT NULL
);
CREATE INDEX referral_lesion ON referral (lesion);
CREATE TABLE parcel (
    id TEXT PRIMARY KEY,
    referral TEXT NOT NULL REFERENCES referral (id) ON DELETE CASCADE,
    record BLOB NOT NULL
);
CREATE INDEX parcel_referral ON parcel (referral);
CREATE TABLE payload (
    parcel TEXT PRIMARY KEY REFERENCES parcel (id) ON DELETE CASCADE,
    data BLOB NOT NULL
);
CREATE TABLE attempt (
    referral TEXT PRIMARY KEY REFERENCES referral (id) ON DELETE CASCADE,
    data BLOB NOT NULL
);
CREATE TABLE answer (
    id TEXT PRIMARY KEY,
    referral TEXT NOT NULL REFERENCES referral (id) ON DELETE CASCADE,
    record BLOB NOT NULL
);
CREATE INDEX answer_referral ON answer (referral);
CREATE TABLE destination (id TEXT PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE audit (number INTEGER PRIMARY KEY, entry BLOB NOT NULL, mac BLOB NOT NULL);
CREATE TRIGGER audit_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
"""
# Table: what its rows hold, and the table that they belong to.
KINDS = {
    "person": (Person, None),
    "lesion": (Lesion, "person"),
    "capture": (Capture, "lesion"),
    "referral": (StoredReferral, "lesion"),
    "parcel": (StoredParcel, "referral"),
    "answer": (StoredAnswer, "referral"),
    "destination": (Destination, None),
}
# Table: where the bytes of a row lie, and the column that names the row.
BLOBS = {"capture": ("picture", "capture"), "parcel": ("payload", "parcel")}
_SINCE_4 = ("referral", "parcel", "payload", "attempt", "answer", "destination")

UNCHANGED = N_("nothing was changed")
DAMAGED = N_("{path} is damaged or cut short: restore it from an export")
LOOSE = N_("{path} is damaged: a row belongs to none")
NO_STORE = N_("{path} is not a store of dermedge")
NOT_THERE = N_("{path} is not there, {state}: put the stick in again, or choose another place")
READ_ONLY = N_("{path} cannot be written, {state}: the disk or the folder is read-only")


class DiskFull(StoreError):
    pass


# ---------------------------------------------------------------------------- connections


def connect(path: Path, closing: Callable[[], bool] = lambda: False) -> sqlite3.Connection:
    """`closing` : when it says so, what the connection is doing is broken off."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=TRY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    for setting in (
        "trusted_schema=OFF",  # what a schema says is run as little as possible
        "cell_size_check=ON",
        "mmap_size=0",
        "synchronous=FULL",
        "secure_delete=ON",
        "foreign_keys=ON",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {setting}")
    if hasattr(connection, "setconfig"):  # Python 3.12
        connection.setconfig(getattr(sqlite3, "SQLITE_DBCONFIG_DEFENSIVE"))  # noqa: B009  # types of 3.11
    if hasattr(connection, "setlimit"):  # Python 3.11
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_PICTURE + 2**20)
    connection.set_progress_handler(closing, STEPS)
    return connection


def begin(connection: sqlite3.Connection, seconds: float, may_go_on: Callable[[], None]) -> None:
    """Begin to write; waits so long for another process, and asks in between."""
    end = time.monotonic() + seconds
    while True:
        may_go_on()
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= end:
                raise


@contextlib.contextmanager
def transaction(
    connection: sqlite3.Connection,
    seconds: float = 0.0,
    may_go_on: Callable[[], None] = lambda: None,
) -> Iterator[sqlite3.Connection]:
    begin(connection, seconds, may_go_on)
    try:
        yield connection
        may_go_on()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


# ---------------------------------------------------------------------------- the schema


def statements(script: str) -> list[str]:
    found, part = [], ""
    for line in script.strip().splitlines():
        part += line + "\n"
        if sqlite3.complete_statement(part):
            found.append(part)
            part = ""
    return found


def statement(table: str) -> str:
    """The one that makes a table."""
    return next(s for s in statements(SCHEMA) if s.startswith(f"CREATE TABLE {table} "))


_OUTBOX = tuple(f"CREATE {kind} {table}{end}" for table in _SINCE_4
                for kind, end in (("TABLE", " "), ("INDEX", "_")))  # fmt: skip


def outbox() -> list[str]:
    """The statements that make what version 4 brought."""
    return [one for one in statements(SCHEMA) if one.startswith(_OUTBOX)]


def schema(version: int) -> list[str]:
    """The statements that made a store of that version."""
    found = statements(SCHEMA)
    if version < 4:
        found = [one for one in found if not one.startswith(_OUTBOX)]
    if version < 3:
        found.remove(statement("summary"))
    if version < 2:
        found.remove(statement("picture"))
        at = found.index(statement("capture"))
        last = "record BLOB NOT NULL"
        found[at] = found[at].replace(last, f"{last},\n    picture BLOB NOT NULL")
    return found


def check_kind(connection: sqlite3.Connection, path: Path) -> int:
    """The version of a file that is a store, and nothing besides."""
    # Of one moment: another process may migrate the file meanwhile.
    connection.execute("BEGIN")
    try:
        return _kind(connection, path)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _kind(connection: sqlite3.Connection, path: Path) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION or version < 1:
        raise StoreError(NO_STORE, code="no-store", path=path)
    if version > VERSION:
        words = N_("{path} was written by a newer dermedge: update dermedge to open it")
        raise StoreError(words, code="newer", path=path)
    # SQLite itself does not mind a last page that is cut. A log that was not yet written back may
    # hold what the file lacks.
    wal = Path(f"{path}-wal")
    if not (wal.exists() and wal.stat().st_size):
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        if path.stat().st_size < pages * size:
            raise StoreError(DAMAGED, code="damaged", path=path)
    check_schema(connection, path, version)
    return version


def check_schema(connection: sqlite3.Connection, path: Path, version: int = VERSION) -> None:
    """Refuse a file whose tables, indexes and triggers are not word for word those of ours."""
    found = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    wanted = {_bare(sql) for sql in schema(version)}
    made = [sql for _kind, _name, sql in found if sql is not None]
    others = [(kind, str(name)) for kind, name, sql in found if sql is None]
    sound = all(kind == "index" and name.startswith("sqlite_autoindex_") for kind, name in others)
    if not sound or len(made) != len(wanted) or {_bare(str(sql)) for sql in made} != wanted:
        words = N_("{path} is damaged or was tampered with: its tables are not those of a store")
        raise StoreError(words, code="schema", path=path)


def _bare(sql: str) -> str:
    # A table that was renamed has its name in quotes.
    return re.sub(r'[\s";]', "", sql).lower()


def check_rows(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Of a foreign file, before anything of it is read: no row is too large, or of another kind."""
    columns = [("store", "value", MAX_RECORD), ("audit", "entry", MAX_RECORD), ("audit", "mac", 64)]
    tables = [table for table in KINDS if version > 3 or table not in _SINCE_4]
    columns += [(table, "record", MAX_RECORD) for table in tables]
    picture = ("picture", "data") if version > 1 else ("capture", "picture")
    columns.append((*picture, MAX_PICTURE))
    if version > 2:
        columns.append(("summary", "data", MAX_RECORD))
    if version > 3:
        columns += [("payload", "data", MAX_PICTURE), ("attempt", "data", 2**16)]
    tests = [
        f"SELECT 1 FROM {table} WHERE typeof({name}) != 'blob' OR length({name}) > {most}"
        for table, name, most in columns
    ]
    tests += [
        f"SELECT 1 FROM {table} WHERE typeof(id) != 'text' OR length(id) != 32 "
        "OR id GLOB '*[^0-9a-f]*'"
        for table in tables
    ]
    faults = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    if faults != ["ok"] or any(connection.execute(f"{one} LIMIT 1").fetchone() for one in tests):
        raise StoreError(DAMAGED, code="damaged", path=path)


# ---------------------------------------------------------------------------- files beside it


@contextlib.contextmanager
def workshop(folder: Path, prefix: str) -> Iterator[Path]:
    """A folder for what is being made, for its owner alone; it goes with all that is in it."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    hold = _hold(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if hold is not None:
            os.close(hold)


def _hold(path: Path) -> int | None:
    """A lock that ends with this process. None where somebody has it, or there are no such."""
    if fcntl is None:
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def sweep(folder: Path) -> None:
    """Remove what imports and exports that were killed left behind in a folder."""
    with contextlib.suppress(OSError):
        for left in (it for prefix in MADE for it in folder.glob(f"{prefix}*")):
            age = time.time() - left.stat().st_mtime
            hold = _hold(left) if left.is_dir() and age > GRACE_SECONDS else None
            if hold is None and age < STALE_SECONDS:
                continue  # somebody is at work in it, or that cannot be known
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
            if hold is not None:
                os.close(hold)


@contextlib.contextmanager
def new_file(path: Path, place: Callable[[Path, Path], None]) -> Iterator[Path]:
    """A file to fill, which `place` then renames to `path`; on an error neither is there."""
    if path.exists():
        raise _is_there(path)
    with plain(path):
        sweep(path.parent)
        with workshop(path.parent, ".writing-") as folder:
            made = folder / "store"
            os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            yield made
            if path.exists():
                raise _is_there(path)
            place(made, path)


def _is_there(path: Path) -> StoreError:
    words = N_("{path} is there already: choose another name")
    return StoreError(words, code="exists", path=path)


def rename(made: Path, path: Path) -> None:
    os.rename(made, path)
    if os.name == "posix":
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# ---------------------------------------------------------------------------- errors


@contextlib.contextmanager
def plain(path: Path, state: str = UNCHANGED) -> Iterator[None]:
    """Turn what SQLite and the system say into words for the screen."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeDecodeError, OverflowError) as error:
        # By its words, for Python 3.10 does not give SQLite's code.
        said = (getattr(error, "strerror", None) or str(error)).lower()
        if "full" in said or "no space" in said or ("i/o" in said and _is_full(path.parent)):
            words = N_("the disk is full, {state}: free some space in {folder}")
            raise DiskFull(words, code="full", state=Message(state), folder=path.parent) from error
        if isinstance(error, FileNotFoundError):  # as where a stick was pulled out
            values = {"path": path, "state": Message(state)}
            raise StoreError(NOT_THERE, code="missing", **values) from error
        raise _words(said, path, state) from error


def _words(said: str, path: Path, state: str) -> StoreError:
    state, folder = Message(state), path.parent
    readonly = "readonly" in said or "read-only" in said or "permission" in said
    if readonly or ("unable to open" in said and not os.access(folder, os.W_OK)):
        return StoreError(READ_ONLY, code="read-only", path=path, state=state)
    if "locked" in said:
        words = N_("another program is writing to {path}, {state}: try again in a moment")
        return StoreError(words, code="busy", path=path, state=state)
    if "interrupted" in said:
        return StoreError("the store was closed meanwhile, {state}", code="closed", state=state)
    if "closed database" in said:
        return StoreError("the store is closed", code="closed")
    if "not a database" in said:
        words = N_("{path} is not a store of dermedge, or its start is damaged")
        return StoreError(words, code="no-store", path=path)
    if "malformed" in said or "no such" in said or "decode" in said:
        return StoreError(DAMAGED, code="damaged", path=path)
    fault = " ".join(said.split())
    return StoreError("{path}: {fault}, {state}", path=path, fault=fault, state=state)


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < 2**20
    except OSError:
        return False
