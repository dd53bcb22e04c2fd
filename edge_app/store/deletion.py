"""Deleting a person, a lesion, a capture or a referral, with all that belongs to it."""

from __future__ import annotations

from edge_app.i18n.language import N_, Message
from edge_app.store import database, labels
from edge_app.store.damage import LeftOut, pass_over, without_damage
from edge_app.store.database import UNCHANGED
from edge_app.store.erasing import Erasing
from edge_app.store.file import StoreFile
from edge_app.store.records import NotWiped
from edge_app.store.referrals import RECEIVED, UNKNOWN, WAITING, Elsewhere
from edge_app.store.rows import Rows, must_exist, query
from edge_app.store.trail import Trail

PARTLY = N_("a part is deleted and the rest is still there")


class Deletion:
    """Deletes rows and erases their traces. Each method may be called from any thread."""

    def __init__(self, file: StoreFile, trail: Trail, rows: Rows, erasing: Erasing):
        self._file, self._trail, self._rows, self._erasing = file, trail, rows, erasing

    def delete(self, table: str, id: str) -> tuple[Elsewhere, ...]:
        """Returns what is with a receiver. Raises StoreError as `Store.delete_person` says."""
        if not self._file.select(f"SELECT 1 FROM {table} WHERE id = ?", (id,)):
            self._rows.get(table, id)  # says that it is gone
        elsewhere: dict[str, Elsewhere] = {}  # by receiver

        def delete() -> None:
            try:
                self._at_once(table, id, UNCHANGED, elsewhere)
            except database.DiskFull:
                # One picture at a time asks for the least of the disk.
                state = UNCHANGED
                for row in self._rows.below(self._file.reader, table, id).get("capture", []):
                    self._at_once("capture", row, state, elsewhere)
                    state = PARTLY
                    self._file.checkpoint(database.BUSY_SECONDS)
                if table != "capture":
                    self._at_once(table, id, state, elsewhere)

        try:
            self._erasing.erase(f"delete {table}", id, delete)
        except NotWiped as error:
            error.elsewhere = tuple(elsewhere.values())
            raise
        return tuple(elsewhere.values())

    def _at_once(self, table: str, id: str, state: str, elsewhere: dict[str, Elsewhere]) -> None:
        found: dict[str, Elsewhere] = {}
        with self._file.writing(state) as connection:
            must_exist(connection, table, id)
            lesion = None
            if table == "capture":  # from its row: its record may be damaged
                select = "SELECT lesion FROM capture WHERE id = ?"
                (lesion,) = connection.execute(select, (id,)).fetchone()
            noted = doomed = [(table, id)]
            if lesion:
                noted = [("referral", one) for one in self._showing(connection, lesion, id)]
                doomed = [*(it for it in noted if self._holds_bytes(connection, it[1])), *doomed]
            for kind, row in noted:  # a receiver has the picture, though its receipt stays here
                self._note(connection, kind, row, found)
            for kind, row in doomed:
                self._remove(connection, kind, row)
            if lesion:
                self._rows.summarise(connection, {lesion})
        elsewhere.update(found)

    def _remove(self, connection, table: str, id: str) -> None:
        # The trail names each row, also those that go with the one above them.
        for kind, rows in reversed(self._rows.below(connection, table, id).items()):
            for row in rows:
                self._trail.log(connection, f"delete {kind}", row)
                labels.remove(connection, kind, row)
        connection.execute(f"DELETE FROM {table} WHERE id = ?", (id,))

    def _showing(self, connection, lesion: str, capture: str) -> list[str]:
        """Referrals with that picture."""
        rows = connection.execute(f"{query('referral')} WHERE lesion = ?", (lesion,)).fetchall()
        # One that is damaged may hold it, and is sent nowhere.
        others = {
            one.id
            for one in self._rows.sound("referral", rows, pass_over)
            if capture not in one.captures
        }
        return [id for id, *_row in rows if id not in others]

    def _holds_bytes(self, connection, referral: str) -> bool:
        """Whether it was not received as a whole: then all that is to be sent lies here."""
        held = "SELECT 1 FROM payload JOIN parcel ON id = parcel WHERE referral = ?"
        return connection.execute(held, (referral,)).fetchone() is not None

    def _note(self, connection, table: str, id: str, found: dict[str, Elsewhere]) -> None:
        """What of it is with a receiver, or may be."""
        for referral in self._rows.below(connection, table, id).get("referral", []):
            receiver = Message(UNKNOWN)
            with without_damage("", pass_over):
                receiver = self._rows.one(connection, "referral", referral).receiver
            damaged = LeftOut()
            parcels = self._rows.parcels(connection, referral, damaged)
            received = [one.received for one in parcels if one.state == RECEIVED]
            if received:
                before = found.get(receiver)
                if before and before.received:
                    received.append(before.received)
                found[receiver] = Elsewhere(receiver, min(received))
            elif damaged.what or any(one.state != WAITING for one in parcels):
                found.setdefault(receiver, Elsewhere(receiver, ""))
