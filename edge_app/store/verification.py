"""Verifying every page, record, picture and entry of a store."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import replace

from edge_app.i18n.language import N_, Message
from edge_app.store import audit, database, records
from edge_app.store.damage import PARTS
from edge_app.store.database import KINDS
from edge_app.store.file import StoreFile
from edge_app.store.migrations import read_summary
from edge_app.store.records import Brief, Capture, StoreError, Summary
from edge_app.store.referrals import StoredParcel
from edge_app.store.rows import Rows, digest, query

CHANGED = N_("a {part} was changed past the audit trail")


class Verification:
    """Reads a whole store and its audit trail. Each method may be called from any thread."""

    def __init__(self, file: StoreFile, rows: Rows):
        self._file, self._rows = file, rows

    def check(self) -> None:
        """As `Store.check`."""
        path = self._file.path
        with self._file.whole() as connection:
            faults = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
            if faults != ["ok"]:
                raise StoreError(
                    "{path} is damaged: restore it from an export ({fault})",
                    code="damaged",
                    path=path,
                    fault=faults[0],
                )
            if connection.execute("PRAGMA foreign_key_check").fetchone():
                raise StoreError(database.LOOSE, code="damaged", path=path)
            expected = self._chain(connection)
            captures: dict[str, list[Capture]] = {}
            for table in KINDS:
                for id, found, item in self._of(connection, table):
                    if expected.pop((table, id), None) != found:
                        raise StoreError(CHANGED, code="tampered", part=Message(PARTS[table]))
                    if table == "capture":
                        captures.setdefault(item.lesion, []).append(item)
            if expected:
                table, _ = next(iter(expected))
                words = N_("a {part} is missing that the audit trail names")
                raise StoreError(words, code="tampered", part=Message(PARTS[table]))
            self._summaries(connection, captures)
            database.check_schema(connection, path)

    def _chain(self, connection) -> dict[tuple[str, str], str]:
        """Follow the audit trail; returns the digest of each record that it says is there."""
        keys = self._file.keys
        there: dict[tuple[str, str], str] = {}
        last, mac = 0, b""
        for number, sealed, stored in connection.execute("SELECT * FROM audit ORDER BY number"):
            self._file.must_be_open()
            last += 1
            whole = number == last and isinstance(sealed, bytes) and isinstance(stored, bytes)
            mac = keys.chain(mac, number, sealed) if whole else b""
            if not whole or not hmac.compare_digest(mac, stored):
                words = N_("the audit trail is broken at entry {number}")
                raise StoreError(words, code="tampered", number=last)
            entry, of = audit.entry(keys, number, sealed)
            act, _, table = entry.what.partition(" ")
            if table in KINDS and act == "delete":
                there.pop((table, entry.which), None)
            elif table in KINDS:
                there[table, entry.which] = of
        head = audit.head(connection, keys)
        if (last, mac) != (head.number, head.mac):
            words = N_("the audit trail was cut off after entry {number}")
            raise StoreError(words, code="tampered", number=last)
        return there

    def _of(self, connection, table: str) -> Iterator[tuple]:
        for id, parent, sealed in connection.execute(query(table)):
            self._file.must_be_open()
            item = self._rows.item(table, id, parent, sealed)
            if table == "capture" and self._rows.blob(connection, table, id) is None:
                self._file.keys.open(b"", "picture", id)  # says that it is damaged
            if table == "parcel":
                self._payload(connection, item)
            yield id, digest(sealed), item

    def _payload(self, connection, parcel: StoredParcel) -> None:
        """What is still to be sent is what was queued."""
        if not parcel.is_of(self._rows.blob(connection, "parcel", parcel.id)):
            raise StoreError(CHANGED, code="tampered", part=Message(PARTS["parcel"]))

    def _summaries(self, connection, captures: dict[str, list[Capture]]) -> None:
        rows = "SELECT id, data FROM lesion LEFT JOIN summary ON id = lesion"
        for lesion, sealed in connection.execute(rows):
            said, briefs = read_summary(self._file.keys, lesion, sealed)
            there = {one.id: one for one in captures.get(lesion, [])}
            if not _agree(briefs, there) or said != Summary.of(briefs):
                raise StoreError(CHANGED, code="tampered", part=Message(PARTS["lesion"]))


def _agree(briefs: list[Brief], captures: dict[str, Capture]) -> bool:
    """Whether a summary is of just these captures, as far as they can be read here."""
    return {one.id for one in briefs} == set(captures) and all(
        replace(brief, triage="") == replace(Brief.of(captures[brief.id]), triage="")
        and captures[brief.id].triage in (brief.triage, records.OTHER_VERSION)
        for brief in briefs
    )
