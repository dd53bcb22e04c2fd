"""Deleting a person, a lesion or a capture, with all that belongs to it."""

from __future__ import annotations

from edge_app.i18n.language import N_
from edge_app.store import database
from edge_app.store.database import UNCHANGED
from edge_app.store.erasing import Erasing
from edge_app.store.file import StoreFile
from edge_app.store.rows import Rows, must_exist
from edge_app.store.trail import Trail

PARTLY = N_("a part is deleted and the rest is still there")


class Deletion:
    """Deletes rows and erases their traces. Each method may be called from any thread."""

    def __init__(self, file: StoreFile, trail: Trail, rows: Rows, erasing: Erasing):
        self._file, self._trail, self._rows, self._erasing = file, trail, rows, erasing

    def delete(self, table: str, id: str) -> None:
        """Raises StoreError as `Store.delete_person` says."""
        if not self._file.select(f"SELECT 1 FROM {table} WHERE id = ?", (id,)):
            self._rows.get(table, id)  # says that it is gone

        def delete() -> None:
            try:
                self._at_once(table, id)
            except database.DiskFull:
                # One picture at a time asks for the least of the disk.
                state = UNCHANGED
                for row in self._rows.below(self._file.reader, table, id).get("capture", []):
                    self._at_once("capture", row, state)
                    state = PARTLY
                    self._file.checkpoint(database.BUSY_SECONDS)
                if table != "capture":
                    self._at_once(table, id, state)

        self._erasing.erase(f"delete {table}", id, delete)

    def _at_once(self, table: str, id: str, state: str = UNCHANGED) -> None:
        with self._file.writing(state) as connection:
            must_exist(connection, table, id)
            lesion = self._rows.one(connection, table, id).lesion if table == "capture" else None
            # The trail names each row, also those that go with the one above them.
            for kind, rows in reversed(self._rows.below(connection, table, id).items()):
                for row in rows:
                    self._trail.log(connection, f"delete {kind}", row)
            connection.execute(f"DELETE FROM {table} WHERE id = ?", (id,))
            if lesion:
                self._rows.summarise(connection, {lesion})
