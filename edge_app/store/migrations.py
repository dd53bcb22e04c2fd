"""Bringing a store of an older version to this one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from edge_app.store import audit as trail
from edge_app.store import clock, database, records
from edge_app.store.database import VERSION
from edge_app.store.keys import Keys
from edge_app.store.records import (
    BY_CLOCK,
    CLOCK_WRONG,
    GIVEN,
    Brief,
    StoreError,
    Summary,
)

AT_ONCE = 60.0  # s from taking a picture to its entry in the audit trail; an import has more


def migrate(connection, path: Path, keys: Keys, now: Callable[[], str], seconds: float) -> None:
    """Bring the schema to VERSION. A copy lies beside the file until that is done.

    `seconds` : that it waits for another process.
    """
    copy = path.with_name(f"{path.name}.before-migration")
    if _version(connection) < VERSION:
        # Tables that others refer to can only be made again without their watch.
        connection.execute("PRAGMA foreign_keys=OFF")
        with database.transaction(connection, seconds):
            version = _version(connection)  # another process may have done it meanwhile
            if version < VERSION:
                _copy(path, copy)
            for step in STEPS[version - 1 :]:
                step(connection, keys, now)
            if connection.execute("PRAGMA foreign_key_check").fetchone():
                raise StoreError(database.LOOSE, code="damaged", path=path)
            connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with contextlib.suppress(FileNotFoundError):
        copy.unlink()


def _version(connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _copy(path: Path, copy: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        copy.unlink()  # of a migration that was cut off: the file is as it was
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    closing = contextlib.closing
    with closing(database.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def pictures_apart(connection, keys: Keys, _now: Callable[[], str]) -> None:
    """1 -> 2: pictures leave the captures' rows, where each change of a note wrote them again."""
    connection.execute(database.statement("picture"))
    for (id,) in connection.execute("SELECT id FROM capture").fetchall():
        (data,) = connection.execute("SELECT picture FROM capture WHERE id = ?", (id,)).fetchone()
        sealed = keys.seal(keys.open(data, "capture", id, "picture"), "picture", id)
        connection.execute("INSERT INTO picture VALUES (?, ?)", (id, sealed))
    for statement in (
        "CREATE TABLE moved (id TEXT PRIMARY KEY, lesion TEXT NOT NULL REFERENCES lesion (id) "
        "ON DELETE CASCADE, record BLOB NOT NULL)",
        "INSERT INTO moved SELECT id, lesion, record FROM capture ORDER BY rowid",
        "DROP TABLE capture",
        "ALTER TABLE moved RENAME TO capture",
        "CREATE INDEX capture_lesion ON capture (lesion)",
    ):
        connection.execute(statement)


def numbered(connection, keys: Keys, now: Callable[[], str]) -> None:
    """2 -> 3: captures get their number and how far their date holds; lesions a summary."""
    connection.execute(database.statement("summary"))
    row = connection.execute("SELECT value FROM store WHERE name = 'head'").fetchone()
    try:
        number, mac = keys.record((row or [b""])[0], "head")
        head = trail.Head(int(number), bytes.fromhex(mac))
    except (TypeError, ValueError):
        raise StoreError(trail.BROKEN_HEAD, code="damaged") from None
    # When each picture was entered, and what was wrong with the clock then.
    entered, seen = {}, ""
    for number, sealed in connection.execute("SELECT number, entry FROM audit ORDER BY number"):
        entry, _digest = trail.entry(keys, number, sealed)
        wrong = bool(clock.fault(entry.when, seen))
        if not wrong:
            seen = max(seen, entry.when)
        if entry.what == "add capture":
            entered[entry.which] = (number, entry.when, wrong)
    trail.write_head(connection, keys, trail.Head(head.number, head.mac, seen))
    captures: dict[str, list] = {}
    query = "SELECT id, lesion, record FROM capture ORDER BY rowid"
    for place, (id, lesion, sealed) in enumerate(connection.execute(query).fetchall()):
        record = keys.record(sealed, "capture", id, lesion)
        if not isinstance(record, dict) or not isinstance(record.get("taken"), str):
            raise StoreError(records.RECORD, code="record")
        number, when, wrong = entered.get(id, (place, "", False))
        record |= {"origin": keys.origin, "sequence": number}
        record["dating"] = _dating(record["taken"], when, wrong)
        text = json.dumps(record).encode()
        fresh = keys.seal(text, "capture", id, lesion)
        connection.execute("UPDATE capture SET record = ? WHERE id = ?", (fresh, id))
        digest = hashlib.sha256(fresh).hexdigest()
        trail.log(connection, keys, now(), "migrate capture", id, digest)
        capture = records.unpacked(records.Capture, id, lesion, record)
        captures.setdefault(lesion, []).append(Brief.of(capture))
    for (lesion,) in connection.execute("SELECT id FROM lesion").fetchall():
        write_summary(connection, keys, lesion, captures.get(lesion, []))


def outbox(connection, _keys: Keys, _now: Callable[[], str]) -> None:
    """3 -> 4: tables for referrals, their parcels, answers and destinations."""
    for statement in database.outbox():
        connection.execute(statement)


def _dating(taken: str, when: str, wrong: bool) -> str:
    """How a picture of version 2 was dated: its entry tells whether it was taken or imported."""
    if not abs(records.seconds(when) - records.seconds(taken)) <= AT_ONCE:
        return GIVEN  # and where a time is none
    return CLOCK_WRONG if wrong else BY_CLOCK


def write_summary(connection, keys: Keys, lesion: str, briefs: list[Brief]) -> None:
    """Keep what a lesion's captures, in whatever order, say for lists."""
    sealed = keys.seal(json.dumps(Summary.packed(briefs)).encode(), "summary", lesion)
    connection.execute("INSERT OR REPLACE INTO summary VALUES (?, ?)", (lesion, sealed))


def read_summary(keys: Keys, lesion: str, sealed: bytes | None) -> tuple[Summary, list[Brief]]:
    try:
        said, briefs = keys.record(sealed or b"", "summary", lesion)
        return Summary(*said), [Brief(*one) for one in briefs]
    except (TypeError, ValueError):
        raise StoreError(records.RECORD, code="record") from None


STEPS = (pictures_apart, numbered, outbox)  # the n-th leads from version n to n + 1
