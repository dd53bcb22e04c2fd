"""The cases on disk: people, lesions, captures and their pictures in one encrypted SQLite file.

In clear stand only random ids, which row belongs to which, the sizes of rows, and how the key is
made. Each record and picture is sealed by AES-256-GCM (NIST SP 800-38D) and bound to its table,
its id and the row it belongs to. The data key is random; a key from the passphrase by Argon2id
(RFC 9106) wraps it. WAL and synchronous=FULL: what was acknowledged survives a crash and a power
cut. Several processes may use one file at once.

What this cannot do: a short passphrase can be guessed by whoever takes the file away; an older
copy of the whole file put in place of the newer one is not noticed; of a picture that was deleted,
up to 4 KiB may stay, sealed, in a page that SQLite had moved it from; flash memory may keep old
blocks of its own, out of reach of any file system; `edge_app.store.memory` says what may stay in
memory after the store was closed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from edge_app.i18n.language import N_, Message
from edge_app.store import clock, database, derivation, pending
from edge_app.store.changes import Changes
from edge_app.store.damage import LeaveOut, stop
from edge_app.store.database import plain
from edge_app.store.deletion import Deletion
from edge_app.store.erasing import Erasing
from edge_app.store.file import StoreFile
from edge_app.store.labels import Labels
from edge_app.store.mail import Mail
from edge_app.store.memory import wipe
from edge_app.store.opening import build, open_file
from edge_app.store.reading import Reading
from edge_app.store.records import (
    RISK_FACTORS,
    SEXES,
    VIEWS,
    Capture,
    DermoscopeSettings,
    Entry,
    Lesion,
    NotWiped,
    Person,
    StoreError,
    Summary,
    WrongKey,
    in_order,
)
from edge_app.store.referrals import Elsewhere
from edge_app.store.rows import Rows
from edge_app.store.trail import Trail
from edge_app.store.transfer import Transfer
from edge_app.store.verification import Verification

__all__ = [
    "RISK_FACTORS", "SEXES", "VIEWS", "Capture", "Entry", "Lesion", "NotWiped", "Person", "Store",
    "StoreError", "Summary", "WrongKey",
]  # fmt: skip


class Store:
    """An open store, put together of its parts. Each method may be called from any thread.

    Reading does not wait for a write. Every method raises StoreError; where its line does not say
    otherwise, nothing was changed. `path` : the file. `mail` : what is sent, and the answers.
    `labels` : what was confirmed of pictures, for training.

    What lists takes `leave_out`: it is given the name of each damaged record, and the rest goes on.
    Without it, a damaged one is a StoreError.
    """

    def __init__(self, file: StoreFile):
        self.path = file.path
        self._file, self._trail = file, Trail(file)
        self._rows, self._erasing = Rows(file, self._trail), Erasing(file, self._trail)
        parts = file, self._trail, self._rows, self._erasing
        self._reading = Reading(file, self._rows)
        self.mail, self.labels = Mail(*parts), Labels(file, self._trail)
        self._changes, self._deletion, self._transfer = (
            Changes(*parts),
            Deletion(*parts),
            Transfer(*parts),
        )

    @classmethod
    def create(cls, path: Path, passphrase: str) -> Store:
        """Make a new store. A file that is there already is refused.

        The passphrase may be a PIN of four digits, which only keeps out who cannot take the file
        away: the screens ask for more, as `passphrase.strength` says.
        """
        path = Path(path)
        derivation.must_be_long(passphrase)
        with database.new_file(path, database.rename) as made:
            keys = build(made, passphrase)
        with plain(path):
            return cls(StoreFile(path, keys))

    @classmethod
    def open(cls, path: Path, passphrase: str) -> Store:
        """Open a store; one of an older version is brought to this one.

        Raises WrongKey; StoreError where it is missing, damaged, of a newer version, or on a
        disk that cannot be written. The file then stays as it is.
        """
        path = Path(path)
        try:
            store = cls(open_file(path, passphrase))
        except WrongKey:
            pending.note(path.parent, clock.now(), "wrong passphrase")
            raise
        database.sweep(path.parent)
        try:
            store._catch_up()
        except BaseException:
            store.close()
            raise
        return store

    def _catch_up(self) -> None:
        """Enter what happened while it was closed, and end what was cut off."""
        self._trail.enter_pending()
        if self._trail.head().begun:
            self._erasing.tidy()

    def close(self) -> None:
        """Close it and overwrite its keys. A second call does nothing.

        What another thread is doing is broken off; a change that is not complete is not made.
        """
        self._file.close(self._erasing.settle)

    # ------------------------------------------------------------------------ reading

    def people(self, search: str = "", leave_out: LeaveOut = stop) -> list[Person]:
        """Those whose name, notes or lesions hold `search`, whatever its case; by name."""
        return self._reading.people(search, leave_out)

    def person(self, id: str) -> Person:
        return self._rows.get("person", id)

    def lesions(self, person_id: str, leave_out: LeaveOut = stop) -> list[Lesion]:
        """A person's lesions, in the order in which they were added."""
        return self._rows.all("lesion", "WHERE person = ?", (person_id,), leave_out)

    def lesion(self, id: str) -> Lesion:
        return self._rows.get("lesion", id)

    def summaries(self, people: Collection[str]) -> dict[str, dict[str, Summary]]:
        """Of each of these people by id: their lesions by id, and what those's pictures say.

        No record and no analysis is opened for it.
        """
        return self._reading.summaries(people)

    def reminders(self, until: str, leave_out: LeaveOut = stop) -> list[Lesion]:
        """Lesions whose reminder falls on the ISO date `until` or before, the first due first."""
        return self._reading.reminders(until, leave_out)

    def captures(self, lesion_id: str, leave_out: LeaveOut = stop) -> list[Capture]:
        """A lesion's captures, the oldest first, as `records.in_order` says."""
        return in_order(self._rows.all("capture", "WHERE lesion = ?", (lesion_id,), leave_out))

    def capture(self, id: str) -> Capture:
        return self._rows.get("capture", id)

    def picture(self, capture_id: str) -> bytes:
        """The encoded picture of a capture, as it was given."""
        return self._rows.picture(capture_id)

    def audit(self) -> list[Entry]:
        """All that was ever changed, the oldest first; `check` tells whether it is whole."""
        if pending.read(self.path.parent):
            self._catch_up()
        return self._trail.entries()

    def clock_fault(self) -> Message | None:
        """What is wrong with the clock of this device, in one line; None where nothing is."""
        return clock.words(clock.now(), self._trail.head().seen)

    def clock_behind(self) -> bool:
        """Whether the clock could be right, but is behind the last entry: see `confirm_clock`."""
        return clock.fault(clock.now(), self._trail.head().seen) == clock.BEHIND

    # ------------------------------------------------------------------------ writing

    def add_person(self, person: Person) -> Person:
        """Returns it with its new id."""
        return self._changes.add("person", replace(person, created=clock.now()))

    def add_lesion(self, lesion: Lesion) -> Lesion:
        """Returns it with its new id."""
        return self._changes.add("lesion", replace(lesion, created=clock.now()))

    def add_capture(self, capture: Capture, picture: bytes) -> Capture:
        """Save a capture and its encoded picture (without metadata: it is kept as it is).

        `capture.taken` : empty for a picture that was taken just now; it then keeps its place
        behind all that were added before it, whatever the clock says. A time says that the date is
        known from elsewhere, and is what it is sorted by. `capture.dating` is UNKNOWN for a file
        that does not say when it was taken.

        Returns it with its new id, and only when both are on disk.
        """
        if not picture:
            raise StoreError("a capture needs a picture", code="invalid")
        return self._changes.add_capture(capture, picture)

    def update_person(self, person: Person) -> None:
        self._changes.update("person", person)

    def update_lesion(self, lesion: Lesion) -> None:
        self._changes.update("lesion", lesion)

    def update_capture(self, capture: Capture) -> None:
        """The picture stays as it is, and so does its date: `correct_date` changes that."""
        self._changes.update("capture", capture)

    def correct_date(self, capture_id: str, day: str) -> Capture:
        """Say on which ISO date, here, a picture was taken whose date the clock got wrong, or that
        came from a file.

        The first is marked as corrected and keeps what the clock said. Raises StoreError for a day
        that does not fit in between those of the pictures before and after it.
        """
        return self._changes.correct_date(capture_id, day)

    def confirm_clock(self) -> None:
        """The clock of this device is right now, though it is behind the last entry.

        Pictures, receipts and answers of the time while it was ahead are marked.
        """
        self._changes.confirm_clock()

    def delete_person(self, id: str) -> tuple[Elsewhere, ...]:
        """With lesions, captures, pictures and what waits to be sent; nothing stays in the file.

        Returns what is, or may be, with a receiver; `NotWiped.elsewhere` holds the same.

        Raises NotWiped where it is deleted, but another program began to read meanwhile; any
        other StoreError says that nothing was changed, or what was.
        """
        return self._deletion.delete("person", id)

    def delete_lesion(self, id: str) -> tuple[Elsewhere, ...]:
        """With its captures and pictures; as `delete_person`."""
        return self._deletion.delete("lesion", id)

    def delete_capture(self, id: str) -> tuple[Elsewhere, ...]:
        """With its picture, and referrals with it that were not received; as `delete_person`."""
        return self._deletion.delete("capture", id)

    def delete_referral(self, id: str) -> tuple[Elsewhere, ...]:
        """With its parcels and answers; as `delete_person`."""
        return self._deletion.delete("referral", id)

    def dermoscope(self, leave_out: LeaveOut = stop) -> DermoscopeSettings:
        """What the dermoscope of this device is."""
        return self._changes.dermoscope(leave_out)

    def set_dermoscope(self, settings: DermoscopeSettings) -> None:
        self._changes.set_dermoscope(settings)

    def change_key(self, old: str, new: str) -> None:
        """Take another passphrase. The data key stays, so this is quick whatever the size.

        Raises WrongKey where `old` is not the passphrase; NotWiped as `delete_person` does: the
        old passphrase then opens what is left in the log.
        """
        derivation.must_be_long(new)
        self._file.must_be_open()
        with self._file.read_lock, plain(self.path):
            header = derivation.read(self._file.reader)
        try:
            secret = derivation.unwrap(header, old)
        except WrongKey:
            with self._file.writing() as connection:
                self._trail.log(connection, "wrong passphrase")
            raise
        fresh = derivation.wrap(secret, new)
        wipe(secret)

        def write() -> None:
            with self._file.writing() as connection:
                if derivation.read(connection) != header:
                    words = N_("the passphrase was changed meanwhile, nothing was changed")
                    raise StoreError(words, code="busy")
                derivation.write(connection, fresh)
                self._trail.log(connection, "change key")

        self._erasing.erase("change key", "", write)

    # ------------------------------------------------------------------------ the whole

    @contextlib.contextmanager
    def act(self, deed: str, which: str = "") -> Iterator[None]:
        """Enter what leaves a trace outside into the audit trail before it is done, and its end.

        `deed` : what, as 'report'; `which` : the id of what it is done to. Raises StoreError where
        that cannot be entered: before it is done, nothing was changed; after it, the line says so.
        """
        with self._trail.act(deed, which):
            yield

    def export(
        self, path: Path, passphrase: str, person_id: str | None = None,
        leave_out: LeaveOut = stop,
    ) -> None:  # fmt: skip
        """Write everything, or one person, to a new store with a passphrase of its own.

        It is one file, whole or not there. Raises StoreError where `path` exists, and for a
        passphrase that is too easy to guess.
        """
        self._transfer.export(Path(path), passphrase, person_id, leave_out)

    def merge(self, path: Path, passphrase: str) -> int:
        """Take in what `export` wrote, all of it or nothing; returns how many captures came new.

        What is here already (by its id) stays as it is here; where it is damaged, it is put back.
        The file is only read. A file of which one record makes no sense is refused; the line says
        which.
        """
        return self._transfer.merge(Path(path), passphrase)

    def check(self) -> None:
        """Verify every page, every record and picture, and the audit trail.

        Reads the whole file. Raises StoreError where one does not verify, or where a row came or
        went past the audit trail.
        """
        Verification(self._file, self._rows).check()
