"""Copying cases into a file for another device, and taking such a file in."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

from edge_app.i18n.language import N_, Message
from edge_app.store import audit, clock, damage, database, validation
from edge_app.store.damage import PARTS, LeaveOut, pass_over, stop, without_damage
from edge_app.store.database import BLOBS, KINDS, plain
from edge_app.store.erasing import Erasing
from edge_app.store.file import StoreFile
from edge_app.store.opening import build, open_copy
from edge_app.store.passphrase import strength
from edge_app.store.records import Capture, StoreError
from edge_app.store.referrals import RECEIVED, StoredParcel, StoredReferral, line
from edge_app.store.rows import Rows, must_exist, query
from edge_app.store.trail import Trail

DAMAGED = N_("a {part} in the store is damaged or was tampered with: restore it from an export")
CAME = "imported"  # code of why such a referral is stopped
IMPORTED = N_("it came with a file of cases: send it from the device that it was queued on")


class Transfer:
    """Export and import of an open store. Each method may be called from any thread."""

    def __init__(self, file: StoreFile, trail: Trail, rows: Rows, erasing: Erasing):
        self._file, self._trail, self._rows, self._erasing = file, trail, rows, erasing

    def export(
        self, path: Path, passphrase: str, person_id: str | None = None,
        leave_out: LeaveOut = stop,
    ) -> None:  # fmt: skip
        """As `Store.export`."""
        if fault := strength(passphrase).fault:
            raise StoreError(fault, code="passphrase")

        def place(made: Path, path: Path) -> None:
            with self._file.lock:  # not while it is being closed
                self._file.must_be_open()
                database.rename(made, path)

        with self._trail.act("export", person_id or ""), database.new_file(path, place) as made:
            other = StoreFile(made, build(made, passphrase))
            with contextlib.closing(other), self._file.whole() as source, other.writing() as target:
                here, there = (self._file, source), (other, target)
                copy_rows(here, there, person_id, leave_out=leave_out)

    def merge(self, path: Path, passphrase: str) -> int:
        """As `Store.merge`."""
        with self._trail.act("import"):
            with plain(path):
                if path.exists() and not path.is_file():
                    raise StoreError(database.NO_STORE, code="no-store", path=path)
                self._erasing.make_room(3 * path.stat().st_size)
            here = self._file
            with plain(here.path), database.workshop(here.path.parent, ".importing-") as folder:
                copy = folder / "store"
                with plain(path):
                    for end in ("", "-wal"):  # a store that was not closed has both
                        if not end or Path(f"{path}-wal").exists():
                            shutil.copyfile(f"{path}{end}", f"{copy}{end}")
                other = open_copy(copy, path, passphrase)
                with contextlib.closing(other), other.whole() as source, here.writing() as target:
                    added = copy_rows((other, source), (here, target), None, path)
        self._erasing.tidy()
        return added


def copy_rows(
    source: tuple, target: tuple, person_id: str | None, path: Path | None = None,
    leave_out: LeaveOut = stop,
) -> int:  # fmt: skip
    """Copy rows that the target lacks, all or those of one person; returns how many captures.

    `source`, `target` : a StoreFile and a connection of it each. With `path`, of a foreign file,
    each record is judged as one that is typed in, and what is damaged in the target is put back.
    With what is left out goes all that belongs to it.
    """
    (file, reading), (other, writing) = source, target
    rows, others = (Rows(one, Trail(one)) for one in (file, other))
    added, lesions = 0, set()
    copied: dict[str, set[str]] = {}
    left: set[str] = set()
    seen = audit.head(writing, other.keys).seen
    if person_id is not None:
        must_exist(reading, "person", person_id)
    for table, (_kind, above) in KINDS.items():
        if table == "destination":
            continue  # it is this device's, and holds secrets
        # Without the one person who was asked for there is nothing to copy.
        skip = stop if table == "person" and person_id is not None else leave_out
        wanted = None
        if person_id is not None:
            wanted = copied[above] if above else {person_id}
        level = copied[table] = set()
        for number, row in enumerate(reading.execute(f"{query(table)} ORDER BY rowid"), 1):
            id, parent, _sealed = row
            file.must_be_open()
            other.must_be_open()
            if wanted is not None and (parent or id) not in wanted:
                continue
            if parent in left:
                left.add(id)
                continue
            level.add(id)
            there = writing.execute(f"{query(table)} WHERE id = ?", (id,)).fetchone()
            if there and not (path and _is_damaged(others, writing, table, there)):
                if path and table == "parcel":
                    newer = _judged(rows, table, row, path, number, seen)
                    _take_receipt(others, writing, there, newer)
                continue
            item = None
            with without_damage(damage.row(table, id, above, parent), skip):
                found = _judged(rows, table, row, path, number, seen)
                blob = _blob(rows, reading, others, table, found) if table in BLOBS else None
                if table == "referral" and path is None:
                    _must_be_whole(rows, reading, others, id)
                item = found
            if item is None:
                left.add(id)
                continue
            if table == "capture":
                if path is not None and item.origin == other.keys.origin:
                    item = replace(item, origin=_origin(writing, other, item))
                added += not there
                lesions.add(parent)
            if there:
                _put_back(others, writing, table, there, item, blob)
                if table == "lesion":
                    lesions.add(id)
            else:
                others.insert(writing, table, item, blob)
    others.summarise(writing, lesions)
    return added


def _is_damaged(rows: Rows, connection, table: str, row: tuple) -> bool:
    """Whether a row of the store, or its picture, is to be put back from a file.

    Not a parcel: what a file brings is never sent by itself. Nor a record that a newer dermedge
    wrote.
    """
    if table == "parcel":
        return False
    try:
        rows.item(table, *row)
        return table == "capture" and rows.blob(connection, table, row[0]) is None
    except StoreError as error:
        return error.code == "damaged"


def _take_receipt(rows: Rows, connection, row: tuple, newer: StoredParcel) -> None:
    """Of a referral that came with a file, a newer one says what was received since."""
    with without_damage("", pass_over):
        here = rows.item("parcel", *row)
        referral = rows.one(connection, "referral", here.referral)
        came = referral.stopped and referral.stopped.get("code") == CAME
        if came and here.state != RECEIVED == newer.state and here.sha256 == newer.sha256:
            item = replace(
                here, state=RECEIVED, received=newer.received, place=newer.place,
                dated=newer.dated, references=newer.references,
            )  # fmt: skip
            rows.put(connection, "parcel", item, "receive parcel")
            rows.drop_received(connection, here.referral)


def _put_back(
    rows: Rows, connection, table: str, row: tuple, item, sealed_blob: bytes | None
) -> None:
    """A row that was damaged; where its picture alone was, its record stays as it is here."""
    (item,) = rows.sound(table, [row], pass_over) or [item]
    rows.put(connection, table, item, f"restore {table}")
    if sealed_blob is not None:
        kept = BLOBS[table][0]
        connection.execute(f"INSERT OR REPLACE INTO {kept} VALUES (?, ?)", (item.id, sealed_blob))


def _origin(connection, file: StoreFile, item: Capture) -> str:
    """That of a picture which says that it was added here. Where the audit trail knows nothing of
    it, a copy of this store's file went on elsewhere, and numbers its pictures as this one does.
    """
    query = "SELECT entry FROM audit WHERE number = ?"
    for (sealed,) in connection.execute(query, (item.sequence,)):
        entry, _digest = audit.entry(file.keys, item.sequence, sealed)
        if (entry.what, entry.which) == ("add capture", item.id):
            return item.origin
    return hashlib.sha256(f"copy of {item.origin}".encode()).hexdigest()[: len(item.origin)]


def _must_be_whole(rows: Rows, reading, others: Rows, referral: str) -> None:
    """Without one of its parcels a referral would look as if all of it had been received."""
    for row in reading.execute(f"{query('parcel')} WHERE referral = ?", (referral,)):
        _blob(rows, reading, others, "parcel", rows.item("parcel", *row))


def _blob(rows: Rows, reading, others: Rows, table: str, item) -> bytes | None:
    """The bytes of a row, sealed for the other file; None: it needs none any more."""
    data = rows.blob(reading, table, item.id)
    if not (item.is_of(data) if table == "parcel" else data is not None):
        raise StoreError(DAMAGED, code="damaged", part=Message(PARTS[table]))
    return None if data is None else others.sealed_blob(table, item.id, data)


def _judged(rows: Rows, table: str, row: tuple, path: Path | None, number: int, seen: str):
    """A record to copy; of a foreign file only one that makes sense."""
    if path is None:
        return rows.item(table, *row)
    try:
        item = rows.item(table, *row)
        validation.validate(item, clock.now(), seen)
        if isinstance(item, StoredReferral):
            # Whoever made the file has agreed to nothing here.
            item = replace(item, stopped=line(IMPORTED, CAME))
    except StoreError as error:
        raise StoreError(
            "{path} cannot be imported, nothing was changed: {part} {number}: {reason}",
            code="import",
            path=path,
            part=Message(PARTS[table]),
            number=number,
            reason=error,
        ) from None
    return item
