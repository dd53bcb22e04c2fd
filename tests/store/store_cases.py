"""People, lesions and captures for the store's tests, and what is left of them on the disk."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from analyses import analysis

from edge_app.store import records
from edge_app.store.rows import Rows
from edge_app.store.store import Capture, Lesion, Person, Store

PASSPHRASE = "correct horse"
QUICK = {"iterations": 1, "lanes": 1, "memory_cost": 64}


def fill(cases: Store, name: str = "Zoë Brandstätter", picture: bytes = b"picture" * 99):
    """One person, one lesion, one capture."""
    person = cases.add_person(
        Person("", name, 1961, "female", 2, ("sunbeds",), notes="from the north ward")
    )
    lesion = cases.add_lesion(Lesion("", person.id, "left forearm", "back", 0.25, 0.75))
    capture = Capture("", lesion.id, "", analysis((640, 480)), (640, 480), 12.5)
    capture = cases.add_capture(capture, picture)
    return person, lesion, capture


def raw(path: Path) -> bytes:
    """All that lies on disk of a store."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


def pieces(data: bytes) -> list[bytes]:
    """Short pieces from all over, at most some 200."""
    step = max(16, len(data) // 200)
    return [data[at : at + 16] for at in range(0, len(data) - 15, step)]


FOREIGN = "twelve characters"


def foreign(cases: Store, path: Path, table: str = "", **changes) -> Path:
    """An export of one person of which each record of a table was changed by who made it."""
    packed = records.packed

    def forged(item):
        record = packed(item)
        return record | changes if type(item).__name__.lower() == table else record

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "packed", forged)
        patch.setattr(Rows, "summarise", lambda *_args: None)
        cases.export(path, FOREIGN)
    return path


def sealed_rows(cases: Store) -> list[bytes]:
    """Every record and picture of a store, as it is sealed."""
    query = "SELECT record FROM {} UNION ALL SELECT record FROM {}"
    rows = cases._file.select(query.format("person", "lesion"))
    rows += cases._file.select(query.format("capture", "capture"))
    rows += cases._file.select("SELECT data FROM picture UNION ALL SELECT data FROM summary")
    return [row[0] for row in rows]


def traces(cases: Store, gone: list[bytes]) -> int:
    """How many of these are left in part, in whatever file of the folder."""
    on_disk = b"".join(file.read_bytes() for file in cases.path.parent.rglob("*") if file.is_file())
    return sum(any(piece in on_disk for piece in pieces(blob)) for blob in gone)


def reader(cases: Store) -> sqlite3.Connection:
    """Another program that reads the store as it is now."""
    connection = sqlite3.connect(cases.path, isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM person").fetchone()
    return connection


NOV, JAN, DEC = "2026-11-20T10:00:00.000Z", "2018-01-28T15:58:13.000Z", "2026-12-24T09:00:00.000Z"


def spot(cases: Store) -> Lesion:
    return cases.add_lesion(Lesion("", cases.add_person(Person("", "Ada")).id, "left arm"))


def take(cases: Store, lesion: Lesion, triage: str = "low", taken: str = "") -> Capture:
    found = analysis((4, 3), triage=triage)
    return cases.add_capture(Capture("", lesion.id, taken, found, (4, 3)), b"picture")
