"""Import of cases from a foreign file: what its bytes, header, records and schema may hold.

The first byte says what the rest is: a whole file; the header of a file that is whole besides; a
record or an entry of the audit trail, sealed under a key that whoever made the file knows; SQL
that was run on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import tempfile
from pathlib import Path
from unittest import mock

from edge_app.store import derivation, keys
from edge_app.store.database import SCHEMA
from edge_app.store.rows import query
from edge_app.store.store import Capture, Lesion, Person, Store, StoreError

PASSPHRASE = "what everybody knows"
TABLES = ("person", "lesion", "capture")
QUICK = {"iterations": 1, "lanes": 1, "memory_cost": 64}
STEPS = 20_000  # of SQLite's machine, for the SQL of one input
# Where a disk need not be waited for.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def _analysis() -> dict:
    lesion = {"found": True, "box": [1, 1, 2, 2], "polygons": [[[1, 1], [3, 1], [3, 3]]]}
    numbers = ("asymmetry", "border", "color", "diameter_mm")
    stages = ("decode", "prepare", "segmenter", "classifier", "lesion", "quality", "total")
    texts = ("dermedge", "opencv", "runtime", "bundle", "signed_by", "models")
    return {
        "image": "x", "size": [4, 4], "scale": None, "probabilities": {"mel": 0.1, "nv": 0.9},
        "quality": {"ok": True, "usable": True, "reasons": [], "scores": {}},
        "lesion": lesion | {"area_px": 2.0}, "abcd": dict.fromkeys(numbers),
        "likely": "nv", "malignancy": 0.1, "familiarity": None, "similar": [], "triage": "low",
        "rule": "", "timing_ms": dict.fromkeys(stages, 1.0), "disclaimer": "",
        "versions": {**dict.fromkeys(texts, ""), "bundle_sha256": "0" * 64, "procedural": True},
    }  # fmt: skip


class _Template:
    """A store to import into, an export to change, and the keys of the export."""

    def __init__(self):
        with (
            mock.patch.object(derivation, "ARGON2", QUICK),
            tempfile.TemporaryDirectory() as folder,
        ):
            path = Path(folder, "cases")
            cases = Store.create(path, PASSPHRASE)
            cases.close()
            self.own = path.read_bytes()
            cases = Store.open(path, PASSPHRASE)
            person = cases.add_person(Person("", "Ada", 1984))
            lesion = cases.add_lesion(Lesion("", person.id, "arm"))
            capture = Capture("", lesion.id, "2026-01-01T00:00:00Z", _analysis(), (4, 4))
            cases.add_capture(capture, b"picture")
            cases.export(Path(folder, "export"), PASSPHRASE)
            cases.close()
            self.export = Path(folder, "export").read_bytes()
        self.seeds = [
            b"\0" + self.export,
            b"\1" + json.dumps({"kdf": "argon2id", "cost": QUICK, "salt": "00" * 16,
                                "key": "00" * 60}).encode(),
            b"\2" + json.dumps({"name": "Ada", "year_of_birth": 1984, "risk_factors": []}).encode(),
            b"\3" + json.dumps({"title": "arm", "view": "side", "x": 1e999}).encode(),
            b"\4" + json.dumps({"taken": "2026-01-01T00:00:00Z", "analysis": _analysis(),
                                "size": [4, 4]}).encode(),
            b"\5" + json.dumps(["2026-01-01T00:00:00Z", "add capture", "0" * 32, "", 0]).encode(),
            b"\6" + b"CREATE TRIGGER t AFTER INSERT ON person BEGIN DELETE FROM person; END;",
            b"\6" + b"PRAGMA user_version=2; DROP TABLE summary;",
            b"\6" + SCHEMA[-300:].encode(),
        ]  # fmt: skip


_template = _Template()
SEEDS: list[bytes] = _template.seeds


def one(data: bytes) -> None:
    kind, text = (data[0], data[1:]) if data else (0, b"")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        here, foreign = Path(folder, "here"), Path(folder, "foreign")
        here.write_bytes(_template.own)
        foreign.write_bytes(text if kind == 0 else _template.export)
        if kind:
            _change(foreign, kind, text)
        cases = Store.open(here, PASSPHRASE)
        refused = ""
        try:
            cases.merge(foreign, PASSPHRASE)
        except StoreError as error:
            refused = str(error)
        assert "\n" not in refused
        assert not (refused and cases.people())
        for person in cases.people():
            for lesion in cases.lesions(person.id):
                cases.captures(lesion.id)
        cases.check()
        cases.close()


def _change(path: Path, kind: int, text: bytes) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    with contextlib.closing(connection), contextlib.suppress(sqlite3.Error, ValueError):
        if kind == 1:
            value = hashlib.sha256(text).digest() + text
            connection.execute("UPDATE store SET value = ? WHERE name = 'header'", (value,))
        elif kind in (2, 3, 4):
            table = TABLES[kind - 2]
            sealed = _keys(connection)
            for id, above, _record in connection.execute(query(table)).fetchall():
                where = (table, id) if above is None else (table, id, above)
                value = sealed.seal(text, *where)
                connection.execute(f"UPDATE {table} SET record = ? WHERE id = ?", (value, id))
        elif kind == 5:
            # Of version 2, whose audit trail is read when it is brought to this version.
            sealed = _keys(connection)
            connection.executescript("DROP TABLE summary; PRAGMA user_version=2;")
            head = json.dumps([1, "00"]).encode()
            values = [("head", sealed.seal(head, "head"))]
            connection.executemany("INSERT OR REPLACE INTO store VALUES (?, ?)", values)
            entry = (99, sealed.seal(text, "audit", "99"), b"")
            connection.execute("INSERT INTO audit VALUES (?, ?, ?)", entry)
        else:
            connection.set_authorizer(_allowed)
            connection.set_progress_handler(lambda: True, STEPS)
            connection.executescript(text.decode(errors="replace"))


def _keys(connection: sqlite3.Connection) -> keys.Keys:
    return keys.Keys(derivation.unwrap(derivation.read(connection), PASSPHRASE))


def _allowed(action: int, *_names) -> int:
    outside = (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)
    return sqlite3.SQLITE_DENY if action in outside else sqlite3.SQLITE_OK
