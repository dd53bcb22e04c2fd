"""The cases on disk: people, lesions, captures and their pictures in one encrypted SQLite file.

In clear stand only random ids, which row belongs to which, the sizes of rows, and how the key is
made. Each record and picture is sealed by AES-256-GCM (NIST SP 800-38D) and bound to its table,
its id and the row it belongs to. The data key is random; a key from the passphrase by Argon2id
(RFC 9106) wraps it. WAL and synchronous=FULL: what was acknowledged survives a crash and a power
cut. Several processes may use one file at once.

What this cannot do: a short passphrase can be guessed by whoever takes the file away; an older
copy of the whole file put in place of the newer one is not noticed; flash memory may keep old
blocks of its own, out of reach of any file system; `edge_app.cases.memory` says what may stay in
memory after the store was closed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import json
import os
import shutil
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

from edge_app.cases import clock, database, pending, records, trail
from edge_app.cases import keys as keyring
from edge_app.cases.database import KINDS, UNCHANGED, VERSION, connect, plain
from edge_app.cases.keys import ARGON2, SCRYPT, Keys
from edge_app.cases.memory import overwrite_freed, wipe
from edge_app.cases.migrate import migrate, write_summary
from edge_app.cases.passphrase import strength
from edge_app.cases.records import (
    BY_CLOCK,
    CLOCK_WRONG,
    CORRECTED,
    GIVEN,
    RISK_FACTORS,
    SEXES,
    VIEWS,
    Capture,
    Entry,
    Lesion,
    NotWiped,
    Person,
    StoreError,
    Summary,
    WrongKey,
    in_order,
)
from edge_app.cases.trail import BEGIN, DONE, FAILED
from edge_app.look.language import N_, Said

__all__ = [
    "RISK_FACTORS", "SEXES", "VIEWS", "Capture", "Entry", "Lesion", "NotWiped", "Person", "Store",
    "StoreError", "Summary", "WrongKey",
]  # fmt: skip

RESERVE = 8 * 2**20  # bytes of the disk left free by adding: deleting needs some, too
BUSY_SECONDS = 10.0  # that a write waits for another process
AT_ONCE = 500  # values in one query
MIN_PASSPHRASE = 4  # characters

PARTLY = N_("a part is deleted and the rest is still there")
NO_END = N_("it was done, but the audit trail does not say so")
GONE = {
    "person": N_("this person is not in the store any more"),
    "lesion": N_("this lesion is not in the store any more"),
    "capture": N_("this capture is not in the store any more"),
}
PARTS = {"person": N_("person"), "lesion": N_("lesion"), "capture": N_("capture")}


class Store:
    """An open store. Each method may be called from any thread.

    Reading does not wait for a write. Every method raises StoreError; where its line does not say
    otherwise, nothing was changed. `path` : the file.
    """

    def __init__(self, path: Path, keys: Keys):
        self.path = path
        self._keys = keys
        self._lock, self._read_lock = threading.RLock(), threading.RLock()
        self._closing = threading.Event()
        self._unwiped: set[int] = set()  # entries that began what is done
        self._writer, self._reader = (connect(path, self._closing.is_set) for _ in range(2))

    @classmethod
    def create(cls, path: Path, passphrase: str) -> Store:
        """Make a new store. A file that is there already is refused.

        The passphrase may be a PIN of four digits, which only keeps out who cannot take the file
        away: the screens ask for more, as `passphrase.strength` says.
        """
        path = Path(path)
        _must_be_long(passphrase)
        with database.new_file(path, database.rename) as made:
            keys = _build(made, passphrase)
        with plain(path):
            return cls(path, keys)

    @classmethod
    def open(cls, path: Path, passphrase: str) -> Store:
        """Open a store; one of an older version is brought to this one.

        Raises WrongKey; StoreError where it is missing, damaged, of a newer version, or on a
        disk that cannot be written. The file then stays as it is.
        """
        path = Path(path)
        try:
            store = cls._open(path, passphrase)
        except WrongKey:
            pending.note(path.parent, _now(), "wrong passphrase")
            raise
        database.sweep(path.parent)
        try:
            store._catch_up()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def _open(cls, path: Path, passphrase: str, foreign: bool = False) -> Store:
        if not path.exists():
            raise StoreError("there is no store at {path}", code="missing", path=path)
        with plain(path), contextlib.closing(connect(path)) as connection:
            version = database.check_kind(connection, path)
            if foreign:
                database.check_rows(connection, path, version)
            keys = Keys(keyring.unwrap(_header(connection), passphrase))
            with contextlib.suppress(OSError):
                path.chmod(0o600)
            migrate(connection, path, keys, _now, BUSY_SECONDS)
        with plain(path):
            return cls(path, keys)

    def close(self) -> None:
        """Close it and overwrite its keys. A second call does nothing.

        What another thread is doing is broken off; a change that is not complete is not made.
        """
        already, _none = self._closing.is_set(), self._closing.set()
        with self._lock, self._read_lock:
            try:
                if not already:
                    with contextlib.suppress(StoreError, sqlite3.Error):
                        self._settle()
                for connection in (self._reader, self._writer):
                    with contextlib.suppress(sqlite3.Error):
                        connection.close()
            finally:
                self._keys.wipe()
        if not already:
            overwrite_freed()

    # ------------------------------------------------------------------------ reading

    def people(self, search: str = "") -> list[Person]:
        """Those whose name, notes or lesions hold `search`, whatever its case; by name."""
        people, wanted = self._rows("person"), _folded(search.strip())
        if wanted:
            texts = {person.id: f"{person.name}\n{person.notes}" for person in people}
            for lesion in self._rows("lesion"):
                if lesion.person in texts:
                    texts[lesion.person] += f"\n{lesion.title}\n{lesion.notes}"
            people = [person for person in people if wanted in _folded(texts[person.id])]
        return sorted(people, key=lambda person: _folded(person.name))

    def person(self, id: str) -> Person:
        return self._row("person", id)

    def lesions(self, person_id: str) -> list[Lesion]:
        """A person's lesions, in the order in which they were added."""
        return self._rows("lesion", "WHERE person = ?", (person_id,))

    def lesion(self, id: str) -> Lesion:
        return self._row("lesion", id)

    def summaries(self, people: Collection[str]) -> dict[str, dict[str, Summary]]:
        """Of each of these people by id: their lesions by id, and what those's pictures say.

        No record and no analysis is opened for it.
        """
        found: dict[str, dict[str, Summary]] = {id: {} for id in people}
        for first in range(0, len(found), AT_ONCE):
            some = list(found)[first : first + AT_ONCE]
            rows = self._select(
                "SELECT person, id, data FROM lesion LEFT JOIN summary ON id = lesion "
                f"WHERE person IN ({', '.join('?' * len(some))}) ORDER BY lesion.rowid",
                tuple(some),
            )
            for person, lesion, sealed in rows:
                found[person][lesion] = _summary(self._keys, lesion, sealed)
        return found

    def reminders(self, until: str) -> list[Lesion]:
        """Lesions whose reminder falls on the ISO date `until` or before, the first due first."""
        due = [
            lesion for lesion in self._rows("lesion") if lesion.remind and lesion.remind <= until
        ]
        return sorted(due, key=lambda lesion: lesion.remind)

    def captures(self, lesion_id: str) -> list[Capture]:
        """A lesion's captures, the oldest first, as `records.in_order` says."""
        return in_order(self._rows("capture", "WHERE lesion = ?", (lesion_id,)))

    def capture(self, id: str) -> Capture:
        return self._row("capture", id)

    def picture(self, capture_id: str) -> bytes:
        """The encoded picture of a capture, as it was given."""
        rows = self._select("SELECT data FROM picture WHERE capture = ?", (capture_id,))
        if not rows:
            raise StoreError(GONE["capture"], code="gone")
        return self._keys.open(rows[0][0], "picture", capture_id)

    def audit(self) -> list[Entry]:
        """All that was ever changed, the oldest first; `check` tells whether it is whole."""
        if pending.read(self.path.parent):
            self._catch_up()
        rows = self._select("SELECT number, entry FROM audit ORDER BY number")
        return [trail.entry(self._keys, number, sealed)[0] for number, sealed in rows]

    def clock_fault(self) -> Said | None:
        """What is wrong with the clock of this device, in one line; None where nothing is."""
        return clock.words(_now(), self._seen())

    def clock_behind(self) -> bool:
        """Whether the clock could be right, but is behind the last entry: see `confirm_clock`."""
        return clock.fault(_now(), self._seen()) == clock.BEHIND

    # ------------------------------------------------------------------------ writing

    def add_person(self, person: Person) -> Person:
        """Returns it with its new id."""
        return self._add("person", replace(person, created=_now()))

    def add_lesion(self, lesion: Lesion) -> Lesion:
        """Returns it with its new id."""
        return self._add("lesion", replace(lesion, created=_now()))

    def add_capture(self, capture: Capture, picture: bytes) -> Capture:
        """Save a capture and its encoded picture (without metadata: it is kept as it is).

        `capture.taken` : empty for a picture that was taken just now; it then keeps its place
        behind all that were added before it, whatever the clock says. A time says that the date is
        known from elsewhere, and is what it is sorted by.

        Returns it with its new id, and only when both are on disk.
        """
        if not picture:
            raise StoreError("a capture needs a picture", code="invalid")
        return self._add("capture", capture, picture)

    def update_person(self, person: Person) -> None:
        self._update("person", person)

    def update_lesion(self, lesion: Lesion) -> None:
        self._update("lesion", lesion)

    def update_capture(self, capture: Capture) -> None:
        """The picture stays as it is, and so does its date: `correct_date` changes that."""
        self._update("capture", capture)

    def correct_date(self, capture_id: str, day: str) -> Capture:
        """Say on which ISO date a picture was taken whose date the clock got wrong.

        It is marked as corrected and keeps what the clock said. Raises StoreError for a day that
        does not fit in between those of the pictures before and after it.
        """
        if not records.is_date(day):
            raise StoreError("a picture needs a date", code="invalid")
        with self._writing() as connection:
            old = self._one(connection, "capture", capture_id)
            now = _now()
            low, high = f"{day}T00:00:00Z", f"{day}T23:59:59Z"
            chain = [
                one
                for one in self._of_lesion(connection, old.lesion)
                if one.origin == old.origin and one.dated and one.dating != GIVEN
            ]
            before = [one.taken for one in chain if one.sequence < old.sequence]
            after = [one.taken for one in chain if one.sequence > old.sequence]
            if not clock.fault(now, trail.head(connection, self._keys).seen):
                after.append(now)
            first = max([low, *before], key=clock.moment)
            last = min([high, *after], key=clock.moment)
            if clock.moment(first) > clock.moment(last):
                raise StoreError(
                    "the picture was taken after {before} and before {after}: choose a day in "
                    "between",
                    code="order",
                    before=max(before, default="-")[:10],
                    after=min(after, default="-")[:10],
                )
            noon = f"{day}T12:00:00Z"
            taken = min(max(noon, first, key=clock.moment), last, key=clock.moment)
            new = replace(old, taken=taken, dating=CORRECTED, clock=old.clock or old.taken)
            self._put(connection, "capture", new, "date capture")
            self._summarise(connection, {new.lesion})
        self._tidy()
        return new

    def confirm_clock(self) -> None:
        """The clock of this device is right now, though it is behind the last entry.

        Pictures that were taken while it was ahead are marked.
        """
        with self._writing() as connection:
            now = _now()
            if clock.fault(now):
                raise StoreError(clock.words(now), code="clock")
            head = trail.head(connection, self._keys)
            trail.write_head(connection, self._keys, replace(head, seen=now, wrong=""))
            self._log(connection, "confirm clock")
            touched, limit = set(), clock.moment(now) + clock.TOLERANCE
            for row in connection.execute(_query("capture")).fetchall():
                item = self._item("capture", *row)
                ahead = item.dating == BY_CLOCK and clock.moment(item.taken) > limit
                if ahead and item.origin == self._keys.origin:
                    marked = replace(item, dating=CLOCK_WRONG)
                    self._put(connection, "capture", marked, "date capture")
                    touched.add(item.lesion)
            self._summarise(connection, touched)
        self._tidy()

    def delete_person(self, id: str) -> None:
        """With lesions, captures and pictures; nothing of them stays in the file.

        Raises NotWiped where it is deleted, but another program began to read meanwhile; any
        other StoreError says that nothing was changed, or what was.
        """
        self._delete("person", id)

    def delete_lesion(self, id: str) -> None:
        """With its captures and pictures; as `delete_person`."""
        self._delete("lesion", id)

    def delete_capture(self, id: str) -> None:
        """With its picture; as `delete_person`."""
        self._delete("capture", id)

    def change_key(self, old: str, new: str) -> None:
        """Take another passphrase. The data key stays, so this is quick whatever the size.

        Raises WrongKey where `old` is not the passphrase; NotWiped as `delete_person` does: the
        old passphrase then opens what is left in the log.
        """
        _must_be_long(new)
        self._must_be_open()
        with self._read_lock, plain(self.path):
            header = _header(self._reader)
        try:
            secret = keyring.unwrap(header, old)
        except WrongKey:
            with self._writing() as connection:
                self._log(connection, "wrong passphrase")
            raise
        fresh = keyring.wrap(secret, new, ARGON2, SCRYPT)
        wipe(secret)

        def write() -> None:
            with self._writing() as connection:
                if _header(connection) != header:
                    words = N_("the passphrase was changed meanwhile, nothing was changed")
                    raise StoreError(words, code="busy")
                _write_header(connection, fresh)
                self._log(connection, "change key")

        self._erase("change key", "", write)

    # ------------------------------------------------------------------------ the whole

    @contextlib.contextmanager
    def act(self, deed: str, which: str = "") -> Iterator[None]:
        """Enter what leaves a trace outside into the audit trail before it is done, and its end.

        `deed` : what, as 'report'; `which` : the id of what it is done to. Raises StoreError where
        that cannot be entered: before it is done, nothing was changed; after it, the line says so.
        """
        number = self._begin(deed, which)
        try:
            yield
        except BaseException:
            with contextlib.suppress(StoreError):
                self._end(number, FAILED + deed, which)
            raise
        self._end(number, DONE + deed, which, NO_END)

    def export(self, path: Path, passphrase: str, person_id: str | None = None) -> None:
        """Write everything, or one person, to a new store with a passphrase of its own.

        It is one file, whole or not there. Raises StoreError where `path` exists, and for a
        passphrase that is too easy to guess.
        """
        path = Path(path)
        if fault := strength(passphrase).fault:
            raise StoreError(fault, code="passphrase")

        def place(made: Path, path: Path) -> None:
            with self._lock:  # not while it is being closed
                self._must_be_open()
                database.rename(made, path)

        with self.act("export", person_id or ""), database.new_file(path, place) as made:
            other = Store(made, _build(made, passphrase))
            with contextlib.closing(other), self._whole() as connection, other._writing() as target:
                self._copy(connection, other, target, person_id)

    def merge(self, path: Path, passphrase: str) -> int:
        """Take in what `export` wrote, all of it or nothing; returns how many captures came new.

        What is here already (by its id) stays as it is here. The file is only read. A file of
        which one record makes no sense is refused; the line says which.
        """
        path = Path(path)
        with self.act("import"):
            with plain(path):
                if path.exists() and not path.is_file():
                    raise StoreError(database.NO_STORE, code="no-store", path=path)
                self._make_sure_of_space(3 * path.stat().st_size)
            with plain(self.path), database.workshop(self.path.parent, ".importing-") as folder:
                copy = folder / "store"
                with plain(path):
                    for end in ("", "-wal"):  # a store that was not closed has both
                        if not end or Path(f"{path}-wal").exists():
                            shutil.copyfile(f"{path}{end}", f"{copy}{end}")
                other = _open_copy(copy, path, passphrase)
                with contextlib.closing(other), other._whole() as source, self._writing() as target:
                    added = other._copy(source, self, target, None, path)
        self._tidy()
        return added

    def check(self) -> None:
        """Verify every page, every record and picture, and the audit trail.

        Reads the whole file. Raises StoreError where one does not verify, or where a row came or
        went past the audit trail.
        """
        with self._whole() as connection:
            faults = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
            if faults != ["ok"]:
                raise StoreError(
                    "{path} is damaged: restore it from an export ({fault})",
                    code="damaged",
                    path=self.path,
                    fault=faults[0],
                )
            if connection.execute("PRAGMA foreign_key_check").fetchone():
                raise StoreError(database.LOOSE, code="damaged", path=self.path)
            expected = self._check_chain(connection)
            captures: dict[str, list[Capture]] = {}
            for table in KINDS:
                for id, digest, item in self._check_rows(connection, table):
                    if expected.pop((table, id), None) != digest:
                        words = N_("a {part} was changed past the audit trail")
                        raise StoreError(words, code="tampered", part=Said(PARTS[table]))
                    if table == "capture":
                        captures.setdefault(item.lesion, []).append(item)
            if expected:
                table, _ = next(iter(expected))
                words = N_("a {part} is missing that the audit trail names")
                raise StoreError(words, code="tampered", part=Said(PARTS[table]))
            query = "SELECT id, data FROM lesion LEFT JOIN summary ON id = lesion"
            for lesion, sealed in connection.execute(query):
                said = Summary.of(in_order(captures.get(lesion, [])))
                if _summary(self._keys, lesion, sealed) != said:
                    words = N_("a {part} was changed past the audit trail")
                    raise StoreError(words, code="tampered", part=Said(PARTS["lesion"]))
            database.check_schema(connection, self.path)

    def _check_chain(self, connection) -> dict[tuple[str, str], str]:
        """Follow the audit trail; returns the digest of each record that it says is there."""
        there, last, mac = {}, 0, b""
        for number, sealed, stored in connection.execute("SELECT * FROM audit ORDER BY number"):
            self._must_be_open()
            last += 1
            whole = number == last and isinstance(sealed, bytes) and isinstance(stored, bytes)
            mac = self._keys.chain(mac, number, sealed) if whole else b""
            if not whole or not hmac.compare_digest(mac, stored):
                words = N_("the audit trail is broken at entry {number}")
                raise StoreError(words, code="tampered", number=last)
            entry, digest = trail.entry(self._keys, number, sealed)
            act, _, table = entry.what.partition(" ")
            if table in KINDS and act == "delete":
                there.pop((table, entry.which), None)
            elif table in KINDS:
                there[table, entry.which] = digest
        head = trail.head(connection, self._keys)
        if (last, mac) != (head.number, head.mac):
            words = N_("the audit trail was cut off after entry {number}")
            raise StoreError(words, code="tampered", number=last)
        return there

    def _check_rows(self, connection, table: str) -> Iterator[tuple]:
        for id, parent, sealed in connection.execute(_query(table)):
            self._must_be_open()
            item = self._item(table, id, parent, sealed)
            if table == "capture":
                row = connection.execute("SELECT data FROM picture WHERE capture = ?", (id,))
                self._keys.open((row.fetchone() or [b""])[0], "picture", id)
            yield id, _digest(sealed), item

    # ------------------------------------------------------------------------ rows

    def _item(self, table: str, id: str, parent: str | None, sealed: bytes):
        kind, above = KINDS[table]
        where = (table, id, parent) if above else (table, id)
        return records.unpacked(kind, id, parent, self._keys.record(sealed, *where))

    def _sealed(self, table: str, item) -> bytes:
        above = KINDS[table][1]
        where = (table, item.id, *([getattr(item, above)] if above else []))
        text = bytearray(json.dumps(records.packed(item)).encode())
        sealed = self._keys.seal(text, *where)
        wipe(text)
        return sealed

    def _rows(self, table: str, clause: str = "", values: tuple = ()) -> list:
        rows = self._select(f"{_query(table)} {clause} ORDER BY rowid", values)
        return [self._item(table, *row) for row in rows]

    def _row(self, table: str, id: str):
        found = self._rows(table, "WHERE id = ?", (id,))
        if not found:
            raise StoreError(GONE[table], code="gone")
        return found[0]

    def _one(self, connection, table: str, id: str):
        """As `_row`, within a write."""
        row = connection.execute(f"{_query(table)} WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise StoreError(GONE[table], code="gone")
        return self._item(table, *row)

    def _of_lesion(self, connection, lesion: str) -> list[Capture]:
        rows = connection.execute(f"{_query('capture')} WHERE lesion = ?", (lesion,)).fetchall()
        return [self._item("capture", *row) for row in rows]

    def _select(self, query: str, values: tuple = ()) -> list[tuple]:
        self._must_be_open()
        with self._read_lock, plain(self.path):
            return self._reader.execute(query, values).fetchall()

    def _seen(self) -> str:
        self._must_be_open()
        with self._read_lock, plain(self.path):
            return trail.head(self._reader, self._keys).seen

    def _add(self, table: str, item, picture: bytes = b""):
        item = replace(item, id=os.urandom(16).hex())
        given = table == "capture" and bool(item.taken)
        if table == "capture":
            item = replace(
                item,
                taken=item.taken or _now(),
                dating=GIVEN if given else BY_CLOCK,
                clock="",
                origin=self._keys.origin,
                sequence=0,
                version=records.analysis_version(),
            )
        _validate(item, self._seen())
        sealed = self._keys.seal(picture, "picture", item.id) if picture else None
        self._make_sure_of_space(2 * len(picture))  # in the log, and then in its place
        with self._writing() as connection:
            if table == "capture":
                head = trail.note_clock(connection, self._keys, _now())
                wrong = bool(head.wrong) and not given
                item = replace(
                    item,
                    sequence=head.number + 1,  # of its entry in the audit trail
                    dating=CLOCK_WRONG if wrong else item.dating,
                )
            self._insert(connection, table, item, sealed)
            if table == "capture":
                self._summarise(connection, {item.lesion})
        return item

    def _insert(self, connection, table: str, item, sealed_picture: bytes | None) -> None:
        above, record = KINDS[table][1], self._sealed(table, item)
        if above:
            parent = getattr(item, above)
            _must_exist(connection, above, parent)
            connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (item.id, parent, record))
        else:
            connection.execute(f"INSERT INTO {table} VALUES (?, ?)", (item.id, record))
        if sealed_picture is not None:
            connection.execute("INSERT INTO picture VALUES (?, ?)", (item.id, sealed_picture))
        if table == "lesion":
            self._summarise(connection, {item.id})
        self._log(connection, f"add {table}", item.id, _digest(record))

    def _update(self, table: str, item) -> None:
        _validate(item, self._seen())
        with self._writing() as connection:
            old = self._one(connection, table, item.id)
            if table == "capture":
                kept = ("taken", "dating", "clock", "origin", "sequence", "version")
                if any(getattr(old, name) != getattr(item, name) for name in kept):
                    words = N_("when a picture was taken is changed by its date alone")
                    raise StoreError(words, code="invalid")
            self._put(connection, table, item, f"update {table}")
            if table == "capture":
                self._summarise(connection, {old.lesion, item.lesion})
        self._tidy()

    def _put(self, connection, table: str, item, what: str) -> None:
        """Write a row that is there already."""
        above, record = KINDS[table][1], self._sealed(table, item)
        if above:
            parent = getattr(item, above)
            _must_exist(connection, above, parent)
            sets, values = f"{above} = ?, record = ?", (parent, record, item.id)
        else:
            sets, values = "record = ?", (record, item.id)
        connection.execute(f"UPDATE {table} SET {sets} WHERE id = ?", values)
        self._log(connection, what, item.id, _digest(record))

    def _summarise(self, connection, lesions: Collection[str]) -> None:
        for lesion in lesions:
            write_summary(connection, self._keys, lesion, self._of_lesion(connection, lesion))

    def _make_sure_of_space(self, needed: int) -> None:
        if needed and self._lacks(needed):
            self._tidy()
            if self._lacks(needed):
                with plain(self.path):
                    raise OSError(errno.ENOSPC, "disk full")

    def _lacks(self, needed: int) -> bool:
        log = Path(f"{self.path}-wal")
        with plain(self.path):
            # The log's pages are still to find a place in the file.
            waiting = log.stat().st_size if log.exists() else 0
            free = shutil.disk_usage(self.path.parent).free
            return free < needed + waiting + RESERVE

    def _delete(self, table: str, id: str) -> None:
        self._select(f"SELECT 1 FROM {table} WHERE id = ?", (id,)) or self._row(table, id)

        def delete() -> None:
            try:
                self._delete_at_once(table, id)
            except database.DiskFull:
                # One picture at a time asks for the least of the disk.
                state = UNCHANGED
                for row in self._below(self._reader, table, id).get("capture", []):
                    self._delete_at_once("capture", row, state)
                    state = PARTLY
                    self._checkpoint(BUSY_SECONDS)
                if table != "capture":
                    self._delete_at_once(table, id, state)

        self._erase(f"delete {table}", id, delete)

    def _delete_at_once(self, table: str, id: str, state: str = UNCHANGED) -> None:
        with self._writing(state) as connection:
            _must_exist(connection, table, id)
            lesion = self._one(connection, table, id).lesion if table == "capture" else None
            # The trail names each row, also those that go with the one above them.
            for kind, rows in reversed(self._below(connection, table, id).items()):
                for row in rows:
                    self._log(connection, f"delete {kind}", row)
            connection.execute(f"DELETE FROM {table} WHERE id = ?", (id,))
            if lesion:
                self._summarise(connection, {lesion})

    def _below(self, connection, table: str, id: str) -> dict[str, list[str]]:
        """Ids of a row and of all that belong to it, by table from the top."""
        found, tables = {table: [id]}, list(KINDS)
        for above, kind in pairwise(tables[tables.index(table) :]):
            level = set(found[above])
            rows = connection.execute(f"SELECT id, {above} FROM {kind}").fetchall()
            found[kind] = [row for row, parent in rows if parent in level]
        return found

    def _copy(
        self, source, other: Store, target, person_id: str | None, path: Path | None = None
    ) -> int:
        """Copy rows that `other` lacks; returns how many captures.

        With `path`, of a foreign file, each record is judged as one that is typed in.
        """
        wanted, added, lesions = None, 0, set()
        seen = trail.head(target, other._keys).seen
        if person_id is not None:
            _must_exist(source, "person", person_id)
            wanted = {person_id}
        for table in KINDS:
            level = set()
            rows = source.execute(f"{_query(table)} ORDER BY rowid")
            for number, (id, parent, sealed) in enumerate(rows, 1):
                self._must_be_open()
                other._must_be_open()
                if wanted is not None and (parent or id) not in wanted:
                    continue
                level.add(id)
                if target.execute(f"SELECT 1 FROM {table} WHERE id = ?", (id,)).fetchone():
                    continue
                item, picture = self._judged(table, id, parent, sealed, path, number, seen), None
                if table == "capture":
                    query = "SELECT data FROM picture WHERE capture = ?"
                    data = (source.execute(query, (id,)).fetchone() or [b""])[0]
                    picture = other._keys.seal(self._keys.open(data, "picture", id), "picture", id)
                    added += 1
                    lesions.add(parent)
                other._insert(target, table, item, picture)
            if wanted is not None:
                wanted = level
        other._summarise(target, lesions)
        return added

    def _judged(self, table, id, parent, sealed, path: Path | None, number: int, seen: str):
        """A record to copy; of a foreign file only one that makes sense."""
        if path is None:
            return self._item(table, id, parent, sealed)
        try:
            item = self._item(table, id, parent, sealed)
            _validate(item, seen)
        except StoreError as error:
            raise StoreError(
                "{path} cannot be imported, nothing was changed: {part} {number}: {reason}",
                code="import",
                path=path,
                part=Said(PARTS[table]),
                number=number,
                reason=error,
            ) from None
        return item

    # ------------------------------------------------------------------------ transactions

    def _must_be_open(self) -> None:
        if self._closing.is_set():
            raise StoreError(keyring.CLOSED, code="closed")

    @contextlib.contextmanager
    def _writing(self, state: str = UNCHANGED) -> Iterator[sqlite3.Connection]:
        self._must_be_open()
        write = database.transaction(self._writer, BUSY_SECONDS, self._must_be_open)
        with self._lock, plain(self.path, state), write as connection:
            yield connection

    @contextlib.contextmanager
    def _whole(self) -> Iterator[sqlite3.Connection]:
        """A view of the whole store at one moment, for long readings."""
        self._must_be_open()
        connection = None
        with plain(self.path):
            connection = connect(self.path, self._closing.is_set)
            with contextlib.closing(connection):
                connection.execute("BEGIN")
                yield connection

    def _log(self, connection, what: str, which: str = "", digest: str = "", **values) -> int:
        return trail.log(connection, self._keys, _now(), what, which, digest, **values)

    def _begin(self, deed: str, which: str) -> int:
        with self._writing() as connection:
            return self._log(connection, BEGIN + deed, which)

    def _end(self, number: int, what: str, which: str, state: str = UNCHANGED) -> None:
        with self._writing(state) as connection:
            begun = {one[0] for one in trail.head(connection, self._keys).begun}
            if number in begun:
                self._log(connection, what, which, ends=number)

    # ------------------------------------------------------------------------ erasing

    def _erase(self, deed: str, which: str, action: Callable[[], None]) -> None:
        """Do what promises that nothing of the old stays, not even sealed.

        What was overwritten stays in the write-ahead log until nobody reads an older state, so it
        begins only where nobody does.
        """
        with self._lock:
            number = self._begin(deed, which)
            try:
                # Overwriting, too, goes through the log. With an empty one the file need not grow.
                if self._checkpoint(BUSY_SECONDS):
                    raise StoreError(
                        "another program reads the store, nothing was changed: try again when it "
                        "has ended",
                        code="busy",
                    )
                action()
            except BaseException:
                with contextlib.suppress(StoreError):
                    self._end(number, FAILED + deed, which)
                raise
            self._unwiped.add(number)
            self._wipe()
            self._end(number, DONE + deed, which, NO_END)

    def _wipe(self) -> None:
        """Empty the log of what was deleted; raises NotWiped."""
        with plain(self.path, N_("it is done, but sealed traces stay in the store's log for now")):
            busy = self._checkpoint(BUSY_SECONDS)
        if busy:
            words = N_(
                "it is done, but another program reads the store: sealed traces stay in its log "
                "until that has ended"
            )
            raise NotWiped(words, code="not-wiped")

    def _checkpoint(self, seconds: float) -> bool:
        """Write the log back and empty it; whether somebody was in the way for so long."""
        end = time.monotonic() + seconds
        with self._lock, self._read_lock, plain(self.path):
            while True:
                busy, *_ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not busy or time.monotonic() >= end or self._closing.is_set():
                    return bool(busy)

    def _tidy(self) -> None:
        """After a change that promises no erasing: empty the log if nobody is in the way."""
        with contextlib.suppress(StoreError):
            self._settle()

    def _settle(self) -> None:
        """Bring to its end what was deleted, but not yet wiped; waits for nobody."""
        with self._lock:
            if self._checkpoint(0):
                return
            begun = trail.head(self._writer, self._keys).begun
            left = [
                (number, deed, which)
                for number, deed, which in begun
                if number in self._unwiped
                or (deed.startswith("delete ") and _is_gone(self._writer, deed, which))
            ]
            if left:
                with database.transaction(self._writer) as connection:
                    for number, deed, which in left:
                        self._log(connection, DONE + deed, which, ends=number)

    def _catch_up(self) -> None:
        """Enter what happened while it was closed, and end what was cut off."""
        folder = self.path.parent
        events = pending.read(folder)
        if events:
            with self._writing() as connection:
                begun: dict[str, int] = {}
                for when, event, count in events:
                    which = f"{count}x" if count > 1 else ""
                    verb, _, deed = event.partition(" ")
                    ends = begun.pop(deed, 0) if f"{verb} " in (DONE, FAILED) else 0
                    number = self._log(connection, event, which, when=when, ends=ends)
                    if f"{verb} " == BEGIN:
                        begun[deed] = number
            pending.clear(folder)
        with self._read_lock, plain(self.path):
            begun = trail.head(self._reader, self._keys).begun
        if begun:
            self._tidy()


# ---------------------------------------------------------------------------- parts of the file


def _digest(sealed: bytes) -> str:
    return hashlib.sha256(sealed).hexdigest()


def _summary(keys: Keys, lesion: str, sealed: bytes | None) -> Summary:
    try:
        found = Summary(*keys.record(sealed or b"", "summary", lesion))
    except TypeError:
        raise StoreError(records.RECORD, code="record") from None
    if found.triage is not None and found.version != records.analysis_version():
        return replace(found, triage=records.OTHER_VERSION)
    return found


def _header(connection) -> dict:
    row = connection.execute("SELECT value FROM store WHERE name = 'header'").fetchone()
    return keyring.unpacked(row[0] if row else None)


def _write_header(connection, header: dict) -> None:
    value = keyring.packed(header)
    connection.execute("INSERT OR REPLACE INTO store VALUES ('header', ?)", (value,))


def _must_be_long(passphrase: str) -> None:
    if len(passphrase) < MIN_PASSPHRASE:
        raise StoreError("the passphrase needs at least four characters", code="passphrase")


def _build(path: Path, passphrase: str) -> Keys:
    """Make the empty file `path` a store."""
    secret = bytearray(os.urandom(keyring.KEY))
    header = keyring.wrap(secret, passphrase, ARGON2, SCRYPT)
    keys = Keys(secret)
    with contextlib.closing(connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        with database.transaction(connection):
            for statement in database.statements(database.SCHEMA):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={database.APPLICATION}")
            connection.execute(f"PRAGMA user_version={VERSION}")
            _write_header(connection, header)
            trail.write_head(connection, keys, trail.Head())
            trail.log(connection, keys, _now(), "create")
    return keys


def _open_copy(copy: Path, path: Path, passphrase: str) -> Store:
    try:
        return Store._open(copy, passphrase, foreign=True)
    except StoreError as error:  # the copy means nothing to a reader
        values = {name: path if value == copy else value for name, value in error.values.items()}
        raise type(error)(error.message, code=error.code, **values) from None


def _query(table: str) -> str:
    return f"SELECT id, {KINDS[table][1] or 'NULL'}, record FROM {table}"


def _must_exist(connection, table: str, id: str) -> None:
    if not connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (id,)).fetchone():
        raise StoreError(GONE[table], code="gone")


def _is_gone(connection, deed: str, which: str) -> bool:
    table = deed.partition(" ")[2]
    return not connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (which,)).fetchone()


# ---------------------------------------------------------------------------- values


def _validate(item: Person | Lesion | Capture, seen: str = "") -> None:
    records.validate(item, _now(), seen)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
