"""Finding what lists and screens show."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from dataclasses import replace

from edge_app.store import records, schema
from edge_app.store.damage import LeaveOut, LeftOut, pass_over, stop, without_damage
from edge_app.store.file import StoreFile
from edge_app.store.migrations import read_summary
from edge_app.store.records import Brief, Lesion, Person, Summary
from edge_app.store.rows import Rows

AT_ONCE = 500  # values in one query


class Reading:
    """Searches an open store. Each method may be called from any thread; none waits for a write."""

    def __init__(self, file: StoreFile, rows: Rows):
        self._file, self._rows = file, rows

    def people(self, search: str = "", leave_out: LeaveOut = stop) -> list[Person]:
        """As `Store.people`."""
        people = self._rows.all("person", leave_out=leave_out)
        wanted = _folded(search.strip())
        if wanted:
            texts = {person.id: f"{person.name}\n{person.notes}" for person in people}
            for lesion in self._rows.all("lesion", leave_out=leave_out):
                if lesion.person in texts:
                    texts[lesion.person] += f"\n{lesion.title}\n{lesion.notes}"
            people = [person for person in people if wanted in _folded(texts[person.id])]
        return sorted(people, key=lambda person: _folded(person.name))

    def summaries(self, people: Collection[str]) -> dict[str, dict[str, Summary]]:
        """As `Store.summaries`."""
        found: dict[str, dict[str, Summary]] = {id: {} for id in people}
        for first in range(0, len(found), AT_ONCE):
            some = list(found)[first : first + AT_ONCE]
            rows = self._file.select(
                "SELECT person, id, data FROM lesion LEFT JOIN summary ON id = lesion "
                f"WHERE person IN ({', '.join('?' * len(some))}) ORDER BY lesion.rowid",
                tuple(some),
            )
            for person, lesion, sealed in rows:
                said = self._summary(lesion, sealed)
                if said.triage is not None and said.version != schema.analysis_version():
                    said = replace(said, triage=records.OTHER_VERSION)
                found[person][lesion] = said
        return found

    def _summary(self, lesion: str, sealed: bytes | None) -> Summary:
        """As it is kept or, where that is damaged, of the captures that can be read."""
        with without_damage("", pass_over):
            return read_summary(self._file.keys, lesion, sealed)[0]
        left = LeftOut()
        captures = self._rows.all("capture", "WHERE lesion = ?", (lesion,), left)
        said = Summary.of(map(Brief.of, captures))
        return replace(said, triage=records.OTHER_VERSION) if left.what else said

    def reminders(self, until: str, leave_out: LeaveOut = stop) -> list[Lesion]:
        """As `Store.reminders`."""
        lesions = self._rows.all("lesion", leave_out=leave_out)
        due = [one for one in lesions if one.remind and one.remind <= until]
        return sorted(due, key=lambda lesion: lesion.remind)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
