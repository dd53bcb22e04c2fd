"""The rows of a store: records as they are sealed in tables, and what belongs to what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable

from edge_app.i18n.language import N_
from edge_app.store import damage, records
from edge_app.store.damage import LeaveOut, pass_over, stop, without_damage
from edge_app.store.database import BLOBS, KINDS
from edge_app.store.file import StoreFile
from edge_app.store.memory import wipe
from edge_app.store.migrations import read_summary, write_summary
from edge_app.store.records import Brief, Capture, StoreError
from edge_app.store.referrals import RECEIVED, StoredParcel
from edge_app.store.trail import Trail

GONE = {
    "person": N_("this person is not in the store any more"),
    "lesion": N_("this lesion is not in the store any more"),
    "capture": N_("this capture is not in the store any more"),
    "referral": N_("this referral is not in the store any more"),
    "parcel": N_("this parcel is not in the store any more"),
    "answer": N_("this answer is not in the store any more"),
    "destination": N_("this destination is not in the store any more"),
}


class Rows:
    """Reads and writes the rows of an open store. Each method may be called from any thread;
    those that take a connection only within `StoreFile.writing` or `StoreFile.whole`.
    """

    def __init__(self, file: StoreFile, trail: Trail):
        self._file, self._trail = file, trail

    # ------------------------------------------------------------------------ reading

    def item(self, table: str, id: str, parent: str | None, sealed: bytes):
        """A row as a value. Raises StoreError where it was tampered with."""
        kind, above = KINDS[table]
        where = (table, id, parent) if above else (table, id)
        return records.unpacked(kind, id, parent, self._file.keys.record(sealed, *where))

    def all(
        self, table: str, clause: str = "", values: tuple = (), leave_out: LeaveOut = stop
    ) -> list:
        """In the order in which they were added."""
        rows = self._file.select(f"{query(table)} {clause} ORDER BY rowid", values)
        return self.sound(table, rows, leave_out)

    def sound(self, table: str, rows: Iterable[tuple], leave_out: LeaveOut) -> list:
        """Rows as values, without those that are damaged."""
        found = []
        for id, parent, sealed in rows:
            with without_damage(damage.row(table, id, KINDS[table][1], parent), leave_out):
                found.append(self.item(table, id, parent, sealed))
        return found

    def get(self, table: str, id: str):
        found = self.all(table, "WHERE id = ?", (id,))
        if not found:
            raise StoreError(GONE[table], code="gone")
        return found[0]

    def picture(self, capture: str) -> bytes:
        rows = self._file.select("SELECT data FROM picture WHERE capture = ?", (capture,))
        if not rows:
            raise StoreError(GONE["capture"], code="gone")
        return self._file.keys.open(rows[0][0], "picture", capture)

    def one(self, connection, table: str, id: str):
        """As `get`, within a write."""
        row = connection.execute(f"{query(table)} WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise StoreError(GONE[table], code="gone")
        return self.item(table, *row)

    def within(
        self, connection, table: str, clause: str = "", values: tuple = (),
        leave_out: LeaveOut = pass_over,
    ) -> list:  # fmt: skip
        """As `all`, within a write; what is damaged is left out."""
        rows = connection.execute(f"{query(table)} {clause}", values).fetchall()
        return self.sound(table, rows, leave_out)

    def of_lesion(self, connection, lesion: str) -> list[Capture]:
        """Those that are not damaged."""
        return self.within(connection, "capture", "WHERE lesion = ?", (lesion,))

    def parcels(
        self, connection, referral: str, leave_out: LeaveOut = pass_over
    ) -> list[StoredParcel]:
        return self.within(connection, "parcel", "WHERE referral = ?", (referral,), leave_out)

    def below(self, connection, table: str, id: str) -> dict[str, list[str]]:
        """Ids of a row and of all that belong to it, by table from the top."""
        found = {table: [id]}
        for kind, (_type, above) in KINDS.items():  # each stands below its own
            if above in found:
                level = set(found[above])
                rows = connection.execute(f"SELECT id, {above} FROM {kind}").fetchall()
                found[kind] = [row for row, parent in rows if parent in level]
        return found

    def blob(self, connection, table: str, id: str) -> bytes | None:
        """The bytes of a row, as they were given; None where it has none (any more)."""
        kept, column = BLOBS[table]
        row = connection.execute(f"SELECT data FROM {kept} WHERE {column} = ?", (id,)).fetchone()
        return None if row is None else self._file.keys.open(row[0], kept, id)

    def sealed_blob(self, table: str, id: str, data: bytes) -> bytes:
        return self._file.keys.seal(data, BLOBS[table][0], id)

    # ------------------------------------------------------------------------ writing

    def sealed(self, table: str, item) -> bytes:
        above = KINDS[table][1]
        where = (table, item.id, *([getattr(item, above)] if above else []))
        text = bytearray(json.dumps(records.packed(item)).encode())
        sealed = self._file.keys.seal(text, *where)
        wipe(text)
        return sealed

    def drop_received(self, connection, referral: str) -> bool:
        """Delete the bytes of a referral where all of it was received; whether it was."""
        parcels = self.parcels(connection, referral, stop)
        if any(one.state != RECEIVED for one in parcels):
            return False
        for one in parcels:
            connection.execute("DELETE FROM payload WHERE parcel = ?", (one.id,))
        connection.execute("DELETE FROM attempt WHERE referral = ?", (referral,))
        return True

    def insert(self, connection, table: str, item, sealed_blob: bytes | None) -> None:
        """A new row, entered into the audit trail."""
        above, record = KINDS[table][1], self.sealed(table, item)
        if above:
            parent = getattr(item, above)
            must_exist(connection, above, parent)
            connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (item.id, parent, record))
        else:
            connection.execute(f"INSERT INTO {table} VALUES (?, ?)", (item.id, record))
        if sealed_blob is not None:
            kept = BLOBS[table][0]
            connection.execute(f"INSERT INTO {kept} VALUES (?, ?)", (item.id, sealed_blob))
        if table == "lesion":
            self.summarise(connection, {item.id})
        self._trail.log(connection, f"add {table}", item.id, digest(record))

    def put(self, connection, table: str, item, what: str) -> None:
        """Write a row that is there already, entered as `what`."""
        above, record = KINDS[table][1], self.sealed(table, item)
        if above:
            parent = getattr(item, above)
            must_exist(connection, above, parent)
            sets, values = f"{above} = ?, record = ?", [parent, record]
        else:
            sets, values = "record = ?", [record]
        connection.execute(f"UPDATE {table} SET {sets} WHERE id = ?", (*values, item.id))
        self._trail.log(connection, what, item.id, digest(record))

    def summarise(self, connection, lesions: Collection[str]) -> None:
        """Write again what the captures of these lesions say for lists."""
        for lesion in lesions:
            briefs = {one.id: Brief.of(one) for one in self.of_lesion(connection, lesion)}
            there = connection.execute("SELECT id FROM capture WHERE lesion = ?", (lesion,))
            if damaged := {id for (id,) in there} - briefs.keys():
                # What was said of it before still holds: a grave one must not look harmless.
                for brief in self._briefs(connection, lesion) or ():
                    if brief.id in damaged:
                        briefs[brief.id] = brief
            write_summary(connection, self._file.keys, lesion, list(briefs.values()))

    def summarise_one_more(self, connection, capture: Capture) -> None:
        """The same where a capture was added, without opening those that were there."""
        briefs = self._briefs(connection, capture.lesion)
        if briefs is None:
            self.summarise(connection, {capture.lesion})
        else:
            briefs.append(Brief.of(capture))
            write_summary(connection, self._file.keys, capture.lesion, briefs)

    def _briefs(self, connection, lesion: str) -> list[Brief] | None:
        """Of the summary of a lesion; None where that is damaged."""
        row = connection.execute("SELECT data FROM summary WHERE lesion = ?", (lesion,)).fetchone()
        briefs = None
        with without_damage("", pass_over):
            _said, briefs = read_summary(self._file.keys, lesion, (row or (None,))[0])
        return briefs


def digest(sealed: bytes) -> str:
    """Of a sealed record, as the audit trail holds it."""
    return hashlib.sha256(sealed).hexdigest()


def query(table: str) -> str:
    return f"SELECT id, {KINDS[table][1] or 'NULL'}, record FROM {table}"


def must_exist(connection, table: str, id: str) -> None:
    if not connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (id,)).fetchone():
        raise StoreError(GONE[table], code="gone")
