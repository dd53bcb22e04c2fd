"""What a store keeps of what is sent: receivers, referrals, their parcels, and the answers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace

from dermedge import UserError
from edge_app.i18n.language import N_, Message, error_message
from edge_app.store import audit, clock, validation
from edge_app.store.damage import LeaveOut, LeftOut, pass_over, stop, without_damage
from edge_app.store.erasing import Erasing
from edge_app.store.file import StoreFile
from edge_app.store.records import RECORD, StoreError
from edge_app.store.referrals import (
    NOT_WHOLE,
    PARCEL_KINDS,
    RECEIVED,
    SENT,
    UNKNOWN,
    WAITING,
    Attempt,
    Destination,
    Endpoint,
    StoredAnswer,
    StoredParcel,
    StoredReferral,
    line,
    said,
)
from edge_app.store.rows import Rows, query
from edge_app.store.trail import Trail

IN_USE = N_("referrals still wait for this destination: send or delete them first")
ITS_NUMBER = N_(
    "it holds the person's number at {receiver}, which is nobody else's: make a new one"
)
ITS_CODE = N_(
    "{receiver} has other referrals under the same code of the person, and both receivers could "
    "tell that it is one person: make a new one"
)
FAULTS, MOST_FAULTS = "answer faults", 20  # a row of the table `store`, and the lines in it
# Why a referral is stopped that another password or certificate may mend; another address may mend
# all but what is wrong with the referral itself.
ITS_OWN = frozenset({"imported", "damaged", "tampered"})
MENDED = frozenset(
    {"401", "403", "redirect", "rejected", "token", "key", "authority", "passphrase", "insecure",
     "no-address", "no-way"}
)  # fmt: skip


def _place(door: Endpoint | None) -> tuple[str, str] | None:
    return None if door is None else (door.carrier, door.address)


class Mail:
    """The outbox within an open store. Each method may be called from any thread.

    Every method raises StoreError; nothing was changed then.
    """

    def __init__(self, file: StoreFile, trail: Trail, rows: Rows, erasing: Erasing):
        self._file, self._trail, self._rows, self._erasing = file, trail, rows, erasing

    # ------------------------------------------------------------------------ reading

    def destinations(self, leave_out: LeaveOut = stop) -> list[Destination]:
        return self._rows.all("destination", leave_out=leave_out)

    def destination(self, id: str) -> Destination:
        return self._rows.get("destination", id)

    def referrals(self, lesion: str = "", leave_out: LeaveOut = stop) -> list[StoredReferral]:
        """All, or those of one lesion, the oldest first."""
        if lesion:
            return self._rows.all("referral", "WHERE lesion = ?", (lesion,), leave_out)
        return self._rows.all("referral", leave_out=leave_out)

    def referral(self, id: str) -> StoredReferral:
        return self._rows.get("referral", id)

    def waiting(self, leave_out: LeaveOut = stop) -> list[StoredReferral]:
        """Those whose bytes are kept: not all of them was received. The oldest first."""
        held = "SELECT referral FROM parcel JOIN payload ON id = parcel"
        return self._rows.all("referral", f"WHERE id IN ({held})", leave_out=leave_out)

    def waits(self, referral: str) -> bool:
        """Whether its bytes are kept."""
        held = "SELECT 1 FROM parcel JOIN payload ON id = parcel WHERE referral = ? LIMIT 1"
        return bool(self._file.select(held, (referral,)))

    def parcels(self, referral: str, leave_out: LeaveOut = stop) -> list[StoredParcel]:
        """In the order in which they are sent."""
        found = self._rows.all("parcel", "WHERE referral = ?", (referral,), leave_out)
        return sorted(found, key=lambda one: one.sequence)

    def payload(self, parcel: StoredParcel) -> bytes:
        """The bytes of a parcel, as they were queued; they are kept until all was received."""
        rows = self._file.select("SELECT data FROM payload WHERE parcel = ?", (parcel.id,))
        if not rows:
            self._rows.get("parcel", parcel.id)
            words = N_("the bytes of this parcel were received, and are not kept here any more")
            raise StoreError(words, code="sent")
        data = self._file.keys.open(rows[0][0], "payload", parcel.id)
        if not parcel.is_of(data):
            words = N_("a {part} was changed past the audit trail")
            raise StoreError(words, code="tampered", part=Message(N_("parcel")))
        return data

    def answers(self, referral: str, leave_out: LeaveOut = stop) -> list[StoredAnswer]:
        """In the order in which they came, each once: a file may bring what another device
        fetched, too, or put back one that was damaged and has come again."""
        once: dict[tuple[str, str], StoredAnswer] = {}
        for one in self._rows.all("answer", "WHERE referral = ?", (referral,), leave_out):
            once.setdefault((one.source, one.version), one)
        return list(once.values())

    def attempt(self, referral: str) -> Attempt:
        """How its sending went so far."""
        rows = self._file.select("SELECT data FROM attempt WHERE referral = ?", (referral,))
        if not rows:
            return Attempt()
        try:
            return Attempt(**self._file.keys.record(rows[0][0], "attempt", referral))
        except TypeError:
            raise StoreError(RECORD, code="record") from None

    # ------------------------------------------------------------------------ receivers

    def add_destination(self, item: Destination) -> Destination:
        """Returns it with its new id."""
        item = replace(item, id=os.urandom(16).hex())
        self._validate(item)
        with self._file.writing() as connection:
            self._rows.insert(connection, "destination", item, None)
        return item

    def update_destination(self, item: Destination) -> None:
        """Of what was received in part, the parts for an address that is another now go again:
        who gets the rest there must find them. What waited or was stopped for what is another
        now, as a token that had expired, is sent at once.
        """
        self._validate(item)
        with self._file.writing() as connection:
            old = self._rows.one(connection, "destination", item.id)
            self._rows.put(connection, "destination", item, "update destination")
            doors = {kind: (old.endpoint(kind), item.endpoint(kind)) for kind in PARCEL_KINDS}
            changed = {kind for kind, (before, after) in doors.items() if before != after}
            moved = {kind for kind in changed if len(set(map(_place, doors[kind]))) == 2}
            for referral in self._bound_for(connection, item.id):
                parcels = self._rows.parcels(connection, referral.id)
                left = {one.kind for one in parcels if one.state != RECEIVED}
                if left & changed:
                    self._take_up(connection, referral, bool(left & moved))
                for one in parcels:
                    if left and one.state == RECEIVED and one.kind in moved:
                        again = replace(one, state=SENT, received="", place="", references=())
                        self._rows.put(connection, "parcel", again, "send parcel")
        self._erasing.tidy()

    def _take_up(self, connection, referral: StoredReferral, moved: bool) -> None:
        """`moved` : what is left of it has another address."""
        if referral.stopped:
            code = referral.stopped.get("code")
            if code not in MENDED and (code in ITS_OWN or not moved):
                return
            going = replace(referral, stopped=None)
            self._rows.put(connection, "referral", going, "resume referral")
        connection.execute("DELETE FROM attempt WHERE referral = ?", (referral.id,))

    def delete_destination(self, id: str) -> None:
        """With its secrets, as `Store.delete_person`. Refused while referrals wait for it; to one
        that is damaged they cannot be sent."""
        if not self._file.select("SELECT 1 FROM destination WHERE id = ?", (id,)):
            self._rows.get("destination", id)  # says that it is gone

        def delete() -> None:
            with self._file.writing() as connection:
                whole = self._rows.within(connection, "destination", "WHERE id = ?", (id,))
                bound = self._bound_for(connection, id) if whole else []
                if any(self._waits(connection, one) for one in bound):
                    raise StoreError(IN_USE, code="in-use")
                self._trail.log(connection, "delete destination", id)
                connection.execute("DELETE FROM destination WHERE id = ?", (id,))

        self._erasing.erase("delete destination", id, delete)

    def _bound_for(self, connection, destination: str) -> list[StoredReferral]:
        """A damaged one is bound for nowhere: it is not sent."""
        found = self._rows.within(connection, "referral")
        return [one for one in found if one.destination == destination]

    def _waits(self, connection, referral: StoredReferral) -> bool:
        return any(one.state != RECEIVED for one in self._rows.parcels(connection, referral.id))

    # ------------------------------------------------------------------------ sending

    def queue(
        self, referral: StoredReferral, parcels: Sequence[tuple[StoredParcel, bytes]]
    ) -> StoredReferral:
        """Freeze a referral and its parcels: when it returns, all of it is on disk.

        `referral.id` is its own, for its parcels carry it; one that is there already with the same
        parcels is left as it is, so that a second press queues nothing twice.
        """
        if not parcels:
            raise StoreError(N_("a referral needs its pictures"), code="invalid")
        referral = replace(referral, created=clock.now(), stopped=None)
        self._validate(referral)
        ready = []
        for parcel, data in parcels:
            parcel = replace(
                parcel, id=os.urandom(16).hex(), referral=referral.id, length=len(data),
                state=WAITING, received="", place="",
            )  # fmt: skip
            self._validate(parcel)
            if not parcel.is_of(data):
                raise StoreError(N_("a parcel lacks its checksum"), code="invalid")
            ready.append((parcel, self._rows.sealed_blob("parcel", parcel.id, data)))
        self._erasing.make_room(2 * sum(len(sealed) for _parcel, sealed in ready))
        with self._file.writing() as connection:
            there = connection.execute("SELECT 1 FROM referral WHERE id = ?", (referral.id,))
            if there.fetchone():
                kept = self._rows.parcels(connection, referral.id, stop)
                found = {(one.uid, one.sha256) for one in kept}
                if found == {(one.uid, one.sha256) for one, _sealed in ready}:
                    return self._rows.one(connection, "referral", referral.id)
                words = N_("this referral was queued already with other content: make a new one")
                raise StoreError(words, code="queued")
            self._must_be_there(connection, referral)
            self._rows.insert(connection, "referral", referral, None)
            for parcel, sealed in ready:
                self._rows.insert(connection, "parcel", parcel, sealed)
        return referral

    def _must_be_there(self, connection, referral: StoredReferral) -> None:
        """Its destination and its pictures, which are of its lesion."""
        self._rows.one(connection, "destination", referral.destination)
        for capture in referral.captures:
            if self._rows.one(connection, "capture", capture).lesion != referral.lesion:
                raise StoreError(N_("a referral needs its pictures"), code="invalid")

    def mark_sent(self, parcel: StoredParcel, destination: str = "") -> StoredParcel:
        """Before its first byte leaves: from now on it may be with the receiver.

        Raises StoreError `moved` where `destination` is given, and its referral goes elsewhere by
        now: who moved it has read that nothing had left. `pseudonym` where another that waited
        under the same code was moved, and has left.
        """
        with self._file.writing() as connection:
            old = self._rows.one(connection, "parcel", parcel.id)
            referral = self._rows.one(connection, "referral", old.referral)
            if destination not in ("", referral.destination):
                words = N_("this referral is sent to {receiver} by now")
                raise StoreError(words, code="moved", receiver=referral.receiver)
            if old.state != WAITING:
                return old
            to = self._rows.within(
                connection, "destination", "WHERE id = ?", (referral.destination,)
            )
            if to:
                self._must_join_nothing(connection, referral, to[0], damaged=False)
            new = replace(old, state=SENT)
            self._rows.put(connection, "parcel", new, "send parcel")
        return new

    def receive(
        self, parcel: StoredParcel, place: str, references: Sequence[str] = ()
    ) -> StoredParcel:
        """The receiver has shown that it has it. The last one drops the bytes of all."""
        with self._file.writing() as connection:
            now, dated = self._dated(connection)
            old = self._rows.one(connection, "parcel", parcel.id)
            if old.state == RECEIVED:
                return old
            new = replace(
                old, state=RECEIVED, received=now, place=place, dated=dated,
                references=tuple(references),
            )  # fmt: skip
            self._rows.put(connection, "parcel", new, "receive parcel")
            whole = self._rows.drop_received(connection, new.referral)
        if whole:
            self._erasing.tidy()  # on a full disk, this is what makes room
        return new

    def note_attempt(self, referral: str, attempt: Attempt) -> None:
        """How it went; of one that is gone nothing is kept. Not an entry of the audit trail."""
        text = json.dumps(vars(attempt)).encode()
        sealed = self._file.keys.seal(text, "attempt", referral)
        with self._file.writing() as connection:
            if connection.execute("SELECT 1 FROM referral WHERE id = ?", (referral,)).fetchone():
                row = (referral, sealed)
                connection.execute("INSERT OR REPLACE INTO attempt VALUES (?, ?)", row)

    def stop(self, referral: str, words: Message, code: str) -> None:
        """It is not sent any more until a person says so; `words` : why."""
        with self._file.writing() as connection:
            old = self._rows.one(connection, "referral", referral)
            new = replace(old, stopped=line(words, code))
            if new != old:
                self._rows.put(connection, "referral", new, "stop referral")

    def resume(self, referral: str, destination: str = "") -> None:
        """Send it again, now; to another destination where that is given.

        What another receiver has shown that it has stays received there, so a referral of which
        a part was received goes to no other. Nor does one that names the person by a number of
        the first, or by a code under which others have something already: nobody has seen or
        agreed that these learn that it is one person.
        """
        with self._file.writing() as connection:
            old = self._rows.one(connection, "referral", referral)
            damaged = LeftOut()
            parcels = self._rows.parcels(connection, referral, damaged)
            if damaged.what:
                raise StoreError(NOT_WHOLE, code="damaged")
            target = self._rows.one(connection, "destination", destination or old.destination)
            moved = target.id != old.destination
            if moved and any(one.state != WAITING for one in parcels):
                words = N_("a part of this referral is with {receiver}: make a new one")
                raise StoreError(words, code="queued", receiver=old.receiver)
            numbers = old.form.get("identifiers", ())
            if moved and any(one[:1] != [target.system] for one in numbers):
                raise StoreError(ITS_NUMBER, code="identifier", receiver=old.receiver)
            if moved:
                self._must_join_nothing(connection, old, target, damaged=True)
            new = replace(old, stopped=None, destination=target.id, receiver=target.name)
            self._rows.put(connection, "referral", new, "resume referral")
            connection.execute("DELETE FROM attempt WHERE referral = ?", (referral,))

    def _must_join_nothing(
        self, connection, referral: StoredReferral, to: Destination, damaged: bool
    ) -> None:
        """What is somewhere else under its code of the person, or may be, keeps it from `to`, which
        has nothing under it; where `damaged`, also what nobody can read of that person.
        """
        if referral.form.get("identifiers"):
            return
        of_person = (
            f"{query('referral')} WHERE lesion IN (SELECT id FROM lesion WHERE person = "
            "(SELECT person FROM lesion WHERE id = ?))"
        )
        elsewhere: list[str] = []
        for row in connection.execute(of_person, (referral.lesion,)).fetchall():
            receiver, same, there = Message(UNKNOWN), damaged, False
            for other in self._rows.sound("referral", [row], pass_over):
                receiver, same = other.receiver, other.patient_id == referral.patient_id
                there = other.destination == to.id or self._is_at(connection, other, to)
            if same and self._may_be_there(connection, row[0]):
                if there:
                    return
                elsewhere.append(receiver)
        if elsewhere:
            raise StoreError(ITS_CODE, code="pseudonym", receiver=elsewhere[0])

    def _is_at(self, connection, referral: StoredReferral, to: Destination) -> bool:
        """Whether its receiver is one that was removed and entered again."""
        parcels = self._rows.parcels(connection, referral.id)
        return referral.receiver == to.name and to.is_at([it.place for it in parcels])

    def _may_be_there(self, connection, referral: str) -> bool:
        """Whether something of it may have left, as far as can be read."""
        damaged = LeftOut()
        parcels = self._rows.parcels(connection, referral, damaged)
        return bool(damaged.what) or any(one.state != WAITING for one in parcels)

    # ------------------------------------------------------------------------ answers

    def add_answer(self, item: StoredAnswer) -> StoredAnswer | None:
        """Keep an answer; None where it was kept before."""
        with self._file.writing() as connection:
            now, dated = self._dated(connection)
            item = replace(item, id=os.urandom(16).hex(), received=now, dated=dated)
            validation.validate(item, now)
            # Where a damaged one was that answer, it is whole again by this.
            kept = self._rows.within(connection, "answer", "WHERE referral = ?", (item.referral,))
            if any((one.source, one.version) == (item.source, item.version) for one in kept):
                return None
            self._rows.insert(connection, "answer", item, None)
        return item

    def faults(self) -> list[Message]:
        """What was wrong when answers were last asked for: not taken, or nobody to ask.

        Damaged lines are none: they are written again at the next question.
        """
        with without_damage(FAULTS, pass_over):
            try:
                return [said(one) for one in self._file.setting(FAULTS) or ()]
            except (TypeError, KeyError):
                raise StoreError(RECORD, code="record") from None
        return []

    def note_faults(self, errors: Sequence[UserError]) -> None:
        """For the screens; each line once. Not an entry of the audit trail."""
        lines = [line(error_message(error), error.code) for error in errors]
        lines = [one for at, one in enumerate(lines) if one not in lines[:at]][:MOST_FAULTS]
        if [said(one) for one in lines] == self.faults():
            return  # asked every few minutes, on a disk that wears
        with self._file.writing() as connection:
            self._file.keep_setting(connection, FAULTS, lines)

    def _dated(self, connection) -> tuple[str, bool]:
        """The time now, and whether it holds."""
        now = clock.now()
        return now, not audit.note_clock(connection, self._file.keys, now).wrong

    def _validate(self, item) -> None:
        validation.validate(item, clock.now(), self._trail.head().seen)
