"""Which pictures of a part are measured, where not all of them are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dermedge.data import DataError, DataSet, Record
from dermedge.data.split import group_records
from dermedge.data.tables import read_table

_COLUMNS = ("id", "lesion_id", "patient_id")


def by_hash(records: Iterable[Record]) -> list[Record]:
    """In an order that neither the files nor the classes decide: by a hash of their ids."""
    return sorted(records, key=lambda record: hashlib.sha256(record.id.encode()).digest())


def touched(data_set: DataSet, ids: set[str]) -> set[str]:
    """Ids of all pictures that share a lesion or patient with one of `ids`, and these."""
    return {
        record.id
        for group in group_records(data_set.records, data_set.same)
        if any(record.id in ids for record in group)
        for record in group
    }


@dataclass(frozen=True)
class Subset:
    """What is left out of a part.

    modality : pictures of this kind alone; None: all.
    left_out : a table whose column 'id', 'lesion_id' or 'patient_id' names pictures, lesions or
        patients that are not to be measured, nor what else belongs to one of their lesions or
        patients; None: nothing.
    """

    modality: str | None = None
    left_out: Path | None = None

    def of(self, data_set: DataSet, records: Sequence[Record]) -> tuple[list[Record], str]:
        """What is left of `records`, and in words what that is; '' where nothing is asked for.

        Raises DataError where nothing is left, no picture states its kind, or the table names none
        of the pictures of the data set.
        """
        kept, words = list(records), []
        if self.modality:
            if all(record.modality is None for record in kept):
                raise DataError(
                    f"--modality: {data_set.name} does not say which of its pictures are "
                    f"{self.modality}"
                )
            kept = [record for record in kept if record.modality == self.modality]
            words.append(self.modality)
        if self.left_out:
            gone = _left_out(self.left_out, data_set)
            kept = [record for record in kept if record.id not in gone]
            words.append(f"without those of {self.left_out.name}")
        if not kept:
            raise DataError(f"no picture of {data_set.name} is left: {', '.join(words)}")
        return kept, ", ".join(words)

    def warnings(self, data_set: DataSet) -> Iterator[str]:
        """Pictures of which nobody says of what kind they are, and what the table names that the
        data set has not: a slip of the pen leaves nothing out."""
        silent = sum(record.modality is None for record in data_set.records)
        if self.modality and silent:
            yield (
                f"{silent} of the {len(data_set.records)} pictures of {data_set.name} do not state "
                f"whether they are {self.modality}, and are not measured"
            )
        if not self.left_out:
            return
        column, values = _named(self.left_out)
        unknown = values - {getattr(record, column) for record in data_set.records}
        if unknown:
            yield (
                f"{len(unknown)} of the {len(values)} that {self.left_out.name} names by {column} "
                f"are not in {data_set.name}, such as {min(unknown)!r}: left out is only what is "
                "there"
            )


def _named(path: Path) -> tuple[str, set[str]]:
    """The table's column, of _COLUMNS, and what it names."""
    table = read_table(path)
    columns = [name for name in _COLUMNS if name in table.columns]
    if len(columns) != 1:
        raise DataError(
            f"--leave-out: {path.name} needs one column of {', '.join(_COLUMNS)}; it has "
            f"{', '.join(table.columns)}"
        )
    return columns[0], {row.cells[columns[0]] for row in table.rows} - {""}


def _left_out(path: Path, data_set: DataSet) -> set[str]:
    """Ids of the pictures that a table names, and of all that share a lesion or patient."""
    column, values = _named(path)
    named = {record.id for record in data_set.records if getattr(record, column) in values}
    if not named:
        raise DataError(f"--leave-out: {path.name} names no {column} of {data_set.name}")
    return touched(data_set, named)
