"""The cases on disk: people, lesions, captures and their pictures in one encrypted SQLite file.

In clear stand only random ids, which row belongs to which, the sizes of rows, and how the key is
made. Each record and picture is sealed by AES-256-GCM (NIST SP 800-38D) and bound to its table,
its id and the row it belongs to. The data key is random; a key from the passphrase by Argon2id
(RFC 9106) wraps it. WAL and synchronous=FULL: what was acknowledged survives a crash and a power
cut. Several processes may use one file at once.

What this cannot do: a short PIN can be guessed by whoever takes the file away; an older copy of
the whole file put in place of the newer one is not noticed; flash memory may keep old blocks of
its own, out of reach of any file system.
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
import tempfile
import threading
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timezone
from itertools import pairwise
from pathlib import Path

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from dermedge import UserError
from edge_app.look.language import N_, Said

APPLICATION = 0x6465726D  # 'derm', SQLite's application_id
VERSION = 2  # of the schema, SQLite's user_version
MIN_PASSPHRASE = 4  # characters; a kiosk's PIN has no more
# Above what RFC 9106 asks where memory is short (64 MiB, 3 passes), and still below a second on
# a Jetson. Scrypt only stands in where the OpenSSL beneath lacks Argon2id.
ARGON2 = {"iterations": 4, "lanes": 4, "memory_cost": 128 * 1024}  # KiB
SCRYPT = {"n": 2**17, "r": 8, "p": 1}
MAX_MEMORY = 2**30  # bytes; a damaged file must not ask for more
RESERVE = 8 * 2**20  # bytes of the disk left free by adding: deleting needs some, too
STALE_SECONDS = 24 * 3600.0  # after which no import or export is still at work
BUSY_SECONDS = 10.0  # that a write waits for another process

SEXES = (N_("female"), N_("male"))
VIEWS = (N_("front"), N_("back"))
RISK_FACTORS = (
    N_("own melanoma"),
    N_("own skin cancer"),
    N_("melanoma in the family"),
    N_("more than 50 moles"),
    N_("atypical moles"),
    N_("sunburns in childhood"),
    N_("sunbeds"),
    N_("work outdoors"),
    N_("weak immune system"),
)

_SCHEMA = """
CREATE TABLE store (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE person (id TEXT PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE lesion (
    id TEXT PRIMARY KEY,
    person TEXT NOT NULL REFERENCES person (id) ON DELETE CASCADE,
    record BLOB NOT NULL
);
CREATE INDEX lesion_person ON lesion (person);
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
CREATE TABLE audit (number INTEGER PRIMARY KEY, entry BLOB NOT NULL, mac BLOB NOT NULL);
CREATE TRIGGER audit_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
"""


class StoreError(UserError):
    """The store cannot be read or written; one line that says why and what to do."""


class WrongKey(StoreError):
    """The passphrase does not open the store."""


class _DiskFull(StoreError):
    pass


@dataclass(frozen=True)
class Person:
    """A person whose lesions are followed. `id` and `created` are empty before it is added."""

    id: str
    name: str  # or a code
    year_of_birth: int | None = None
    sex: str | None = None  # one of SEXES
    skin_type: int | None = None  # Fitzpatrick 1..6
    risk_factors: tuple[str, ...] = ()  # of RISK_FACTORS
    notes: str = ""
    created: str = ""  # ISO 8601, UTC


@dataclass(frozen=True)
class Lesion:
    """A place on a person's skin."""

    id: str
    person: str
    title: str
    view: str = "front"  # one of VIEWS, of the body map
    x: float = 0.5  # place on the map, 0..1 from its left
    y: float = 0.5  # and from its top
    notes: str = ""
    remind: str | None = None  # ISO date
    created: str = ""


@dataclass(frozen=True)
class Capture:
    """A picture of a lesion and what was found in it."""

    id: str
    lesion: str
    taken: str  # ISO 8601, UTC; empty: when it is added
    analysis: dict  # as `analysis.schema.json` describes it
    size: tuple[int, int]  # width, height, px
    px_per_mm: float | None = None
    notes: str = ""


@dataclass(frozen=True)
class Entry:
    """One line of the audit trail."""

    number: int  # from 1, without a gap
    when: str  # ISO 8601, UTC
    what: str  # as 'add capture'
    which: str  # id of what it was done to


UNCHANGED = N_("nothing was changed")
NOT_WIPED = N_("done, but traces may stay for now")
DAMAGED_HEADER = N_("the store's header is damaged: restore it from an export")
DAMAGED = N_("{path} is damaged or cut short: restore it from an export")
LOOSE = N_("{path} is damaged: a row belongs to none")
READ_ONLY = N_("{path} cannot be written, {state}: the disk or the folder is read-only")
GONE = {
    "person": N_("this person is not in the store any more"),
    "lesion": N_("this lesion is not in the store any more"),
    "capture": N_("this capture is not in the store any more"),
}
# Table: what its rows hold, and the table that they belong to.
_KINDS = {"person": (Person, None), "lesion": (Lesion, "person"), "capture": (Capture, "lesion")}


class Store:
    """An open store. Each method may be called from any thread.

    Reading does not wait for a write. Every method raises StoreError; then nothing was changed.
    """

    def __init__(self, path: Path, keys: _Keys):
        self.path = path
        self._keys = keys
        self._lock, self._read_lock = threading.RLock(), threading.RLock()
        self._writer, self._reader = _connect(path), _connect(path)

    @classmethod
    def create(cls, path: Path, passphrase: str) -> Store:
        """Make a new store. A file that is there already is refused."""
        path = Path(path)
        with _new_file(path) as temporary:
            keys = _build(temporary, passphrase)
        with _plain(path):
            return cls(path, keys)

    @classmethod
    def open(cls, path: Path, passphrase: str) -> Store:
        """Open a store; one of an older version is brought to this one.

        Raises WrongKey; StoreError where it is missing, damaged, of a newer version, or on a
        disk that cannot be written. The file then stays as it is.
        """
        path = Path(path)
        if not path.exists():
            raise StoreError(Said("there is no store at {path}", path=path))
        with _plain(path), contextlib.closing(_connect(path)) as connection:
            version = _check_kind(connection, path)
            keys = _Keys(_unwrap(_header(connection), passphrase))
            with contextlib.suppress(OSError):
                path.chmod(0o600)
            _migrate(connection, path, version, keys)
        _sweep(path.parent)
        with _plain(path):
            return cls(path, keys)

    def close(self) -> None:
        """Close it. A second call does nothing."""
        with self._lock, self._read_lock, _plain(self.path):
            self._reader.close()
            self._writer.close()

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

    def reminders(self, until: str) -> list[Lesion]:
        """Lesions whose reminder falls on the ISO date `until` or before, the first due first."""
        due = [
            lesion for lesion in self._rows("lesion") if lesion.remind and lesion.remind <= until
        ]
        return sorted(due, key=lambda lesion: lesion.remind)

    def captures(self, lesion_id: str) -> list[Capture]:
        """A lesion's captures, the oldest first."""
        found = self._rows("capture", "WHERE lesion = ?", (lesion_id,))
        return sorted(found, key=lambda capture: capture.taken)

    def capture(self, id: str) -> Capture:
        return self._row("capture", id)

    def picture(self, capture_id: str) -> bytes:
        """The encoded picture of a capture, as it was given."""
        rows = self._select("SELECT data FROM picture WHERE capture = ?", (capture_id,))
        if not rows:
            raise StoreError(GONE["capture"])
        return self._keys.open(rows[0][0], "picture", capture_id)

    def audit(self) -> list[Entry]:
        """All that was ever changed, the oldest first; `check` tells whether it is whole."""
        rows = self._select("SELECT number, entry FROM audit ORDER BY number")
        return [self._keys.entry(number, entry)[0] for number, entry in rows]

    # ------------------------------------------------------------------------ writing

    def add_person(self, person: Person) -> Person:
        """Returns it with its new id."""
        return self._add("person", replace(person, created=_now()))

    def add_lesion(self, lesion: Lesion) -> Lesion:
        """Returns it with its new id."""
        return self._add("lesion", replace(lesion, created=_now()))

    def add_capture(self, capture: Capture, picture: bytes) -> Capture:
        """Save a capture and its encoded picture (without metadata: it is kept as it is).

        Returns it with its new id, and only when both are on disk.
        """
        if not picture:
            raise StoreError("a capture needs a picture")
        return self._add("capture", replace(capture, taken=capture.taken or _now()), picture)

    def update_person(self, person: Person) -> None:
        self._update("person", person)

    def update_lesion(self, lesion: Lesion) -> None:
        self._update("lesion", lesion)

    def update_capture(self, capture: Capture) -> None:
        """The picture stays as it is."""
        self._update("capture", capture)

    def delete_person(self, id: str) -> None:
        """With lesions, captures and pictures; nothing of them stays in the file."""
        self._delete("person", id)

    def delete_lesion(self, id: str) -> None:
        """With its captures and pictures."""
        self._delete("lesion", id)

    def delete_capture(self, id: str) -> None:
        """With its picture."""
        self._delete("capture", id)

    def change_key(self, old: str, new: str) -> None:
        """Take another passphrase. The data key stays, so this is quick whatever the size.

        Raises WrongKey where `old` is not the passphrase.
        """
        with self._writing() as connection:
            secret = _unwrap(_header(connection), old)
            _write_header(connection, _wrap(secret, new))
            _log(connection, self._keys, "change key", "")
        self._wipe()

    # ------------------------------------------------------------------------ the whole

    def export(self, path: Path, passphrase: str, person_id: str | None = None) -> None:
        """Write everything, or one person, to a new store with a passphrase of its own.

        It is one file, whole or not there. Raises StoreError where `path` exists.
        """
        path = Path(path)
        with _new_file(path) as temporary:
            other = Store(temporary, _build(temporary, passphrase))
            with contextlib.closing(other), self._whole() as connection, other._writing() as target:
                self._copy(connection, other, target, person_id)
        with self._writing() as connection:
            _log(connection, self._keys, "export", person_id or "")

    def merge(self, path: Path, passphrase: str) -> int:
        """Take in what `export` wrote, all of it or nothing; returns how many captures came new.

        What is here already (by its id) stays as it is here. The file is only read.
        """
        path = Path(path)
        with _plain(path):
            self._make_sure_of_space(3 * path.stat().st_size)
        with tempfile.TemporaryDirectory(prefix=".importing-", dir=self.path.parent) as folder:
            copy = Path(folder) / "store"
            with _plain(path):
                for end in ("", "-wal"):  # a store that was not closed has both
                    if not end or Path(f"{path}-wal").exists():
                        shutil.copyfile(f"{path}{end}", f"{copy}{end}")
            other = _open_copy(copy, path, passphrase)
            with contextlib.closing(other), other._whole() as source, self._writing() as target:
                added = other._copy(source, self, target, None)
                _log(target, self._keys, "import", "")
        self._wipe()
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
                    Said(
                        "{path} is damaged: restore it from an export ({fault})",
                        path=self.path,
                        fault=faults[0],
                    )
                )
            if connection.execute("PRAGMA foreign_key_check").fetchone():
                raise StoreError(Said(LOOSE, path=self.path))
            expected = self._check_chain(connection)
            for table in _KINDS:
                for id, digest in self._check_rows(connection, table):
                    if expected.pop((table, id), None) != digest:
                        raise StoreError(
                            Said("a {part} was changed past the audit trail", part=table)
                        )
            if expected:
                table, _ = next(iter(expected))
                words = N_("a {part} is missing that the audit trail names")
                raise StoreError(Said(words, part=table))

    def _check_chain(self, connection) -> dict[tuple[str, str], str]:
        """Follow the audit trail; returns the digest of each record that it says is there."""
        there, last, mac = {}, 0, b""
        for number, sealed, stored in connection.execute("SELECT * FROM audit ORDER BY number"):
            last += 1
            whole = number == last and isinstance(sealed, bytes) and isinstance(stored, bytes)
            mac = self._keys.chain(mac, number, sealed) if whole else b""
            if not whole or not hmac.compare_digest(mac, stored):
                raise StoreError(Said("the audit trail is broken at entry {number}", number=last))
            entry, digest = self._keys.entry(number, sealed)
            act, _, table = entry.what.partition(" ")
            if table in _KINDS and act == "delete":
                there.pop((table, entry.which), None)
            elif table in _KINDS:
                there[table, entry.which] = digest
        if (last, mac) != _head(connection, self._keys):
            words = N_("the audit trail was cut off after entry {number}")
            raise StoreError(Said(words, number=last))
        return there

    def _check_rows(self, connection, table: str) -> Iterator[tuple[str, str]]:
        for id, parent, sealed in connection.execute(_query(table)):
            self._item(table, id, parent, sealed)
            if table == "capture":
                row = connection.execute("SELECT data FROM picture WHERE capture = ?", (id,))
                self._keys.open((row.fetchone() or [b""])[0], "picture", id)
            yield id, _digest(sealed)

    # ------------------------------------------------------------------------ rows

    def _item(self, table: str, id: str, parent: str | None, sealed: bytes):
        kind, above = _KINDS[table]
        where = (table, id, parent) if above else (table, id)
        record = json.loads(self._keys.open(sealed, *where))
        for name in ("risk_factors", "size"):
            if name in record:
                record[name] = tuple(record[name])
        return kind(id, *([parent] if above else []), **record)

    def _sealed(self, table: str, item) -> bytes:
        above = _KINDS[table][1]
        record = asdict(item)
        where = (table, record.pop("id"), *([record.pop(above)] if above else []))
        return self._keys.seal(json.dumps(record).encode(), *where)

    def _rows(self, table: str, clause: str = "", values: tuple = ()) -> list:
        rows = self._select(f"{_query(table)} {clause} ORDER BY rowid", values)
        return [self._item(table, *row) for row in rows]

    def _row(self, table: str, id: str):
        found = self._rows(table, "WHERE id = ?", (id,))
        if not found:
            raise StoreError(GONE[table])
        return found[0]

    def _select(self, query: str, values: tuple = ()) -> list[tuple]:
        with self._read_lock, _plain(self.path):
            return self._reader.execute(query, values).fetchall()

    def _add(self, table: str, item, picture: bytes = b""):
        _validate(item)
        item = replace(item, id=os.urandom(16).hex())
        sealed = self._keys.seal(picture, "picture", item.id) if picture else None
        self._make_sure_of_space(2 * len(picture))  # in the log, and then in its place
        with self._writing() as connection:
            self._insert(connection, table, item, sealed)
        return item

    def _insert(self, connection, table: str, item, sealed_picture: bytes | None) -> None:
        above, record = _KINDS[table][1], self._sealed(table, item)
        if above:
            parent = getattr(item, above)
            _must_exist(connection, above, parent)
            connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (item.id, parent, record))
        else:
            connection.execute(f"INSERT INTO {table} VALUES (?, ?)", (item.id, record))
        if sealed_picture is not None:
            connection.execute("INSERT INTO picture VALUES (?, ?)", (item.id, sealed_picture))
        _log(connection, self._keys, f"add {table}", item.id, _digest(record))

    def _update(self, table: str, item) -> None:
        _validate(item)
        above, record = _KINDS[table][1], self._sealed(table, item)
        with self._writing() as connection:
            _must_exist(connection, table, item.id)
            if above:
                parent = getattr(item, above)
                _must_exist(connection, above, parent)
                sets, values = f"{above} = ?, record = ?", (parent, record, item.id)
            else:
                sets, values = "record = ?", (record, item.id)
            connection.execute(f"UPDATE {table} SET {sets} WHERE id = ?", values)
            _log(connection, self._keys, f"update {table}", item.id, _digest(record))
        self._wipe()

    def _make_sure_of_space(self, needed: int) -> None:
        log = Path(f"{self.path}-wal")
        with _plain(self.path):
            if needed and log.exists():  # its pages are still to find a place in the file
                needed += log.stat().st_size
            if needed and shutil.disk_usage(self.path.parent).free < needed + RESERVE:
                raise OSError(errno.ENOSPC, "disk full")

    def _delete(self, table: str, id: str) -> None:
        # Overwriting, too, goes through the log. With an empty one the file need not grow for it.
        self._wipe(UNCHANGED)
        try:
            self._delete_at_once(table, id)
        except _DiskFull:
            # One picture at a time asks for the least of the disk.
            for row in self._below(self._reader, table, id).get("capture", []):
                self._delete_at_once("capture", row)
            if table != "capture":
                self._delete_at_once(table, id)

    def _delete_at_once(self, table: str, id: str) -> None:
        with self._writing() as connection:
            _must_exist(connection, table, id)
            # The trail names each row, also those that go with the one above them.
            for kind, rows in reversed(self._below(connection, table, id).items()):
                for row in rows:
                    _log(connection, self._keys, f"delete {kind}", row)
            connection.execute(f"DELETE FROM {table} WHERE id = ?", (id,))
        self._wipe()

    def _below(self, connection, table: str, id: str) -> dict[str, list[str]]:
        """Ids of a row and of all that belong to it, by table from the top."""
        found, tables = {table: [id]}, list(_KINDS)
        for above, kind in pairwise(tables[tables.index(table) :]):
            level = set(found[above])
            rows = connection.execute(f"SELECT id, {above} FROM {kind}").fetchall()
            found[kind] = [row for row, parent in rows if parent in level]
        return found

    def _copy(self, source, other: Store, target, person_id: str | None) -> int:
        """Copy rows that `other` lacks; returns how many captures."""
        wanted, added = None, 0
        if person_id is not None:
            _must_exist(source, "person", person_id)
            wanted = {person_id}
        for table in _KINDS:
            level = set()
            for id, parent, sealed in source.execute(_query(table)):
                if wanted is not None and (parent or id) not in wanted:
                    continue
                level.add(id)
                if target.execute(f"SELECT 1 FROM {table} WHERE id = ?", (id,)).fetchone():
                    continue
                item, picture = self._item(table, id, parent, sealed), None
                if table == "capture":
                    query = "SELECT data FROM picture WHERE capture = ?"
                    data = (source.execute(query, (id,)).fetchone() or [b""])[0]
                    picture = other._keys.seal(self._keys.open(data, "picture", id), "picture", id)
                    added += 1
                other._insert(target, table, item, picture)
            if wanted is not None:
                wanted = level
        return added

    # ------------------------------------------------------------------------ transactions

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _plain(self.path), _transaction(self._writer) as connection:
            yield connection

    @contextlib.contextmanager
    def _whole(self) -> Iterator[sqlite3.Connection]:
        """A view of the whole store at one moment, for long readings."""
        with _plain(self.path), contextlib.closing(_connect(self.path)) as connection:
            connection.execute("BEGIN")
            yield connection

    def _wipe(self, state: str = NOT_WIPED) -> None:
        """Empty the write-ahead log: what was overwritten must not stay there."""
        with self._lock, self._read_lock, _plain(self.path, state):
            busy, *_ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreError(
                "done, but another program reads the store: traces stay in its log until the "
                "store is closed"
            )


class _Keys:
    """What the data key, bytes (32,), is used for."""

    def __init__(self, secret: bytes):
        self._aead = AESGCM(_derived(secret, b"dermedge store records"))
        self._mac = _derived(secret, b"dermedge store audit")

    def seal(self, data: bytes, *where: str) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._aead.encrypt(nonce, data, _bound(where))

    def open(self, sealed: bytes, *where: str) -> bytes:
        try:
            return self._aead.decrypt(sealed[:12], sealed[12:], _bound(where))
        except (InvalidTag, ValueError, TypeError):  # a damaged row may hold anything
            raise StoreError(
                Said(
                    "a {part} in the store is damaged or was tampered with: restore it from an "
                    "export",
                    part=where[0],
                )
            ) from None

    def chain(self, mac: bytes, number: int, sealed: bytes) -> bytes:
        message = mac + number.to_bytes(8, "big") + sealed
        return hmac.digest(self._mac, message, "sha256")

    def entry(self, number: int, sealed: bytes) -> tuple[Entry, str]:
        """A line of the audit trail, and the digest of the record that it is about."""
        when, what, which, digest = json.loads(self.open(sealed, "audit", str(number)))
        return Entry(number, when, what, which), digest


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=None, info=purpose).derive(secret)


def _bound(where: tuple[str, ...]) -> bytes:
    # The 1 is the version of the records' form.
    return "\0".join(("dermedge store", "1", *where)).encode()


def _digest(sealed: bytes) -> str:
    return hashlib.sha256(sealed).hexdigest()


# ---------------------------------------------------------------------------- the passphrase


def _wrap(secret: bytes, passphrase: str) -> dict:
    """The header: how the passphrase gives the data key."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise StoreError(
            Said("the passphrase needs at least {count} characters", count=MIN_PASSPHRASE)
        )
    header = {"kdf": "argon2id", "cost": ARGON2, "salt": os.urandom(16).hex()}
    try:
        key = _stretched(header, passphrase)
    except UnsupportedAlgorithm:
        header |= {"kdf": "scrypt", "cost": SCRYPT}
        key = _stretched(header, passphrase)
    nonce = os.urandom(12)
    wrapped = AESGCM(key).encrypt(nonce, secret, b"dermedge store key")
    return header | {"key": (nonce + wrapped).hex()}


def _unwrap(header: dict, passphrase: str) -> bytes:
    wrapped = bytes.fromhex(header["key"])
    try:
        key = _stretched(header, passphrase)
        return AESGCM(key).decrypt(wrapped[:12], wrapped[12:], b"dermedge store key")
    except InvalidTag:
        raise WrongKey("the passphrase is wrong") from None
    except UnsupportedAlgorithm:
        raise StoreError(
            "this store's key needs Argon2id, which the OpenSSL here lacks: update the package "
            "cryptography"
        ) from None


def _stretched(header: dict, passphrase: str) -> bytes:
    cost, salt = header["cost"], bytes.fromhex(header["salt"])
    if header["kdf"] == "argon2id":
        memory, function = cost["memory_cost"] * 1024, Argon2id
    else:
        memory, function = 128 * cost["n"] * cost["r"], Scrypt
    if memory > MAX_MEMORY:
        raise StoreError(DAMAGED_HEADER)
    # Two keyboards may write one letter in two ways.
    typed = unicodedata.normalize("NFC", passphrase).encode(errors="surrogatepass")
    return function(salt=salt, length=32, **cost).derive(typed)


def _header(connection) -> dict:
    row = connection.execute("SELECT value FROM store WHERE name = 'header'").fetchone()
    text = row[0] if row and isinstance(row[0], bytes) else b""
    # The checksum tells a damaged header from a wrong passphrase.
    if hashlib.sha256(text[32:]).digest() != text[:32]:
        raise StoreError(DAMAGED_HEADER)
    return json.loads(text[32:])


def _write_header(connection, header: dict) -> None:
    text = json.dumps(header).encode()
    value = hashlib.sha256(text).digest() + text
    connection.execute("INSERT OR REPLACE INTO store VALUES ('header', ?)", (value,))


def _log(connection, keys: _Keys, what: str, which: str, digest: str = "") -> None:
    """Append to the audit trail."""
    # From the stored head, not from the last row: a trail that was cut stays broken.
    number, mac = _head(connection, keys)
    number += 1
    entry = json.dumps([_now(), what, which, digest]).encode()
    sealed = keys.seal(entry, "audit", str(number))
    mac = keys.chain(mac, number, sealed)
    connection.execute("INSERT INTO audit VALUES (?, ?, ?)", (number, sealed, mac))
    _write_head(connection, keys, number, mac)


def _head(connection, keys: _Keys) -> tuple[int, bytes]:
    """Number and chain value of the newest entry."""
    row = connection.execute("SELECT value FROM store WHERE name = 'head'").fetchone()
    number, mac = json.loads(keys.open((row or [b""])[0], "head"))
    return number, bytes.fromhex(mac)


def _write_head(connection, keys: _Keys, number: int, mac: bytes) -> None:
    head = keys.seal(json.dumps([number, mac.hex()]).encode(), "head")
    connection.execute("INSERT OR REPLACE INTO store VALUES ('head', ?)", (head,))


# ---------------------------------------------------------------------------- the file


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    for setting in ("synchronous=FULL", "secure_delete=ON", "foreign_keys=ON", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {setting}")
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """A file to fill, which then becomes `path`; on an error neither is there."""
    path = Path(path)
    if path.exists():
        raise StoreError(Said("{path} is there already: choose another name", path=path))
    with _plain(path):
        handle, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
        os.close(handle)
        try:
            yield Path(name)
            os.rename(name, path)
            _sync(path.parent)
        finally:
            for end in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name + end)


def _sweep(folder: Path) -> None:
    """Remove what imports and exports that were killed left behind."""
    with contextlib.suppress(OSError):
        for left in (*folder.glob(".importing-*"), *folder.glob(".writing-*")):
            if time.time() - left.stat().st_mtime < STALE_SECONDS:
                continue
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def _build(path: Path, passphrase: str) -> _Keys:
    """Make the empty file `path` a store."""
    secret = os.urandom(32)
    keys, header = _Keys(secret), _wrap(secret, passphrase)
    with contextlib.closing(_connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        with _transaction(connection):
            for statement in _statements(_SCHEMA):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION}")
            connection.execute(f"PRAGMA user_version={VERSION}")
            _write_header(connection, header)
            _write_head(connection, keys, 0, b"")
            _log(connection, keys, "create", "")
    return keys


def _open_copy(copy: Path, path: Path, passphrase: str) -> Store:
    try:
        return Store.open(copy, passphrase)
    except StoreError as error:
        line = error.args[0]
        if isinstance(line, Said):  # the copy means nothing to a reader
            values = {name: path if v == copy else v for name, v in line.values.items()}
            line = Said(line.message, **values)
        raise type(error)(line) from None


def _check_kind(connection, path: Path) -> int:
    """The schema's version of a file that is a store."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION or version < 1:
        raise StoreError(Said("{path} is not a store of dermedge", path=path))
    if version > VERSION:
        raise StoreError(
            Said("{path} was written by a newer dermedge: update dermedge to open it", path=path)
        )
    # SQLite itself does not mind a last page that is cut. A log that was not yet written back may
    # hold what the file lacks.
    wal = Path(f"{path}-wal")
    if not (wal.exists() and wal.stat().st_size):
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        if path.stat().st_size < pages * size:
            raise StoreError(Said(DAMAGED, path=path))
    return version


def _migrate(connection, path: Path, version: int, keys: _Keys) -> None:
    """Bring the schema to `VERSION`. A copy lies beside the file until that is done."""
    copy = path.with_name(f"{path.name}.before-migration")
    if version < VERSION:
        with contextlib.suppress(FileNotFoundError):
            copy.unlink()  # of a migration that was cut off: the file is as it was
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with contextlib.closing(sqlite3.connect(copy)) as target:
            connection.backup(target)
        # Tables that others refer to can only be made anew without their watch.
        connection.execute("PRAGMA foreign_keys=OFF")
        with _transaction(connection):
            for step in _STEPS[version - 1 :]:
                step(connection, keys)
            if connection.execute("PRAGMA foreign_key_check").fetchone():
                raise StoreError(Said(LOOSE, path=path))
            connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with contextlib.suppress(FileNotFoundError):
        copy.unlink()


def _pictures_apart(connection, keys: _Keys) -> None:
    """1 -> 2: pictures leave the captures' rows, where each change of a note wrote them anew."""
    apart = "CREATE TABLE picture"
    connection.execute(next(s for s in _statements(_SCHEMA) if s.startswith(apart)))
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


_STEPS = (_pictures_apart,)  # the n-th leads from version n to n + 1


def _statements(script: str) -> list[str]:
    found, part = [], ""
    for line in script.strip().splitlines():
        part += line + "\n"
        if sqlite3.complete_statement(part):
            found.append(part)
            part = ""
    return found


def _query(table: str) -> str:
    return f"SELECT id, {_KINDS[table][1] or 'NULL'}, record FROM {table}"


def _must_exist(connection, table: str, id: str) -> None:
    if not connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (id,)).fetchone():
        raise StoreError(GONE[table])


def _sync(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _plain(path: Path, state: str = UNCHANGED) -> Iterator[None]:
    """Turn what SQLite and the system say into words for the screen."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        # By its words, for Python 3.10 does not give SQLite's code.
        said = (getattr(error, "strerror", None) or str(error)).lower()
        if "full" in said or "no space" in said or ("i/o" in said and _is_full(path.parent)):
            words = N_("the disk is full, {state}: free some space in {folder}")
            raise _DiskFull(Said(words, state=Said(state), folder=path.parent)) from error
        raise StoreError(_words(said, path, state)) from error


def _words(said: str, path: Path, state: str) -> Said:
    state, folder = Said(state), path.parent
    if "readonly" in said or "read-only" in said or "permission" in said:
        return Said(READ_ONLY, path=path, state=state)
    if "unable to open" in said and not os.access(folder, os.W_OK):
        return Said(READ_ONLY, path=path, state=state)
    if "locked" in said:
        words = N_("another program is writing to {path}, {state}: try again in a moment")
        return Said(words, path=path, state=state)
    if "closed database" in said:
        return Said("the store is closed")
    if "not a database" in said:
        return Said("{path} is not a store of dermedge, or its start is damaged", path=path)
    if "malformed" in said or "no such" in said or "decode" in said:
        return Said(DAMAGED, path=path)
    fault = " ".join(said.split())
    return Said("{path}: {fault}, {state}", path=path, fault=fault, state=state)


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < 2**20
    except OSError:
        return False


# ---------------------------------------------------------------------------- values


def _validate(item: Person | Lesion | Capture) -> None:
    faults = []
    if isinstance(item, Person):
        this_year = datetime.now(timezone.utc).year
        year = item.year_of_birth
        faults = [
            (not item.name.strip(), N_("a person needs a name or a code")),
            (
                year is not None and not this_year - 130 <= year <= this_year,
                N_("no such birth year"),
            ),
            (item.sex not in (None, *SEXES), f"sex is one of {', '.join(SEXES)}"),
            (item.skin_type not in (None, *range(1, 7)), "skin types are 1 to 6"),
            (not set(item.risk_factors) <= set(RISK_FACTORS), "an unknown risk factor"),
        ]
    elif isinstance(item, Lesion):
        faults = [
            (not item.title.strip(), N_("a lesion needs a title")),
            (item.view not in VIEWS, f"a view is one of {', '.join(VIEWS)}"),
            (not (0 <= item.x <= 1 and 0 <= item.y <= 1), "the place lies off the body map"),
            (item.remind is not None and not _is_date(item.remind), N_("a reminder needs a date")),
        ]
    else:
        faults = [
            (min(item.size) < 1, "a picture has at least one px"),
            (item.px_per_mm is not None and not item.px_per_mm > 0, "a scale is above zero"),
        ]
    for wrong, words in faults:
        if wrong:
            raise StoreError(words)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
