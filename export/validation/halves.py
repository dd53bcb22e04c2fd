"""The validation part in two halves: what chooses is not what decides.

The tuning half chooses thresholds, temperature, offsets, and of each precision the one candidate
that is put forward. The accepting half is asked once: it gives the published figures and says
whether a candidate may enter the bundle.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dermedge.data.records import DataSet, Record, of_modality
from dermedge.data.split import Split, group_records
from dermedge.taxonomy import MALIGNANT
from export import ExportError

PART = "val"  # the test part stays unseen


@dataclass(frozen=True)
class Halves:
    """Ids of either half; no lesion and no patient is in both."""

    tuning: frozenset[str]
    accepting: frozenset[str]
    groups: Mapping[str, int]  # number of the lesion or patient of each id of the data set
    malignant: frozenset[str]  # ids

    def is_tuning(self, records: Iterable[Record]) -> np.ndarray:
        """bool (n,): whether each record of the validation part is in the tuning half."""
        return np.array([record.id in self.tuning for record in records], bool)

    def groups_of(self, records: Iterable[Record]) -> np.ndarray:
        """int (n,): the lesion or patient that each record shows."""
        return np.array([self.groups[record.id] for record in records], int)

    def report(self) -> dict[str, dict]:
        """For the manifest: sizes, and a hash of the ids (one a line, sorted), of either half."""
        return {
            name: {
                "pictures": len(ids),
                "lesions": len({self.groups[one] for one in ids}),
                "malignant": len(ids & self.malignant),
                "sha256": hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest(),
            }
            for name, ids in (("tuning", self.tuning), ("accepting", self.accepting))
        }

    def __str__(self) -> str:
        sizes = [
            f"{half['pictures']} pictures of {half['lesions']} lesions ({half['malignant']} "
            "malignant pictures)"
            for half in self.report().values()
        ]
        return f"{sizes[0]} choose, {sizes[1]} accept"


def halve(data_set: DataSet, split: Split, modality: str = "") -> Halves:
    """Deal the lesions and patients of the validation part out to the halves, class by class.

    A pure function of the split's hash, and of the lesions, patients and labels of the data set.
    With `modality` without pictures that are said to be of the other one: it was not learnt.
    Of a class with one lesion alone the tuning half gets it.

    Raises
    ------
    ExportError
        Where there are not two lesions or patients to be dealt out.
    """
    everything = group_records(data_set.records, data_set.same)
    numbers = {record.id: number for number, group in enumerate(everything) for record in group}
    records = of_modality(split.select(data_set.records, PART), modality)
    groups: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        groups[numbers[record.id]].append(record)
    if len(groups) < 2:
        raise ExportError(
            f"the validation part of {data_set.name} shows {len(groups)} lesions or patients: one "
            "half of them chooses thresholds and the other measures; train with a split that has "
            "more"
        )
    counts = Counter(record.label for record in records)

    def rarity(label: str | None) -> tuple[bool, int, str]:
        return label is None, counts[label], label or ""

    strata: dict[str | None, list[list[Record]]] = defaultdict(list)
    for group in groups.values():
        strata[min((record.label for record in group), key=rarity)].append(group)
    halves: tuple[set[str], set[str]] = set(), set()
    have: tuple[Counter, Counter] = Counter(), Counter()  # pictures of each class
    for label in sorted(strata, key=rarity):
        for group in sorted(strata[label], key=lambda group: _order(group, split.sha256)):
            half = 0
            if have[0][label]:
                # That which is behind in this class, then the smaller one.
                half = min((0, 1), key=lambda half: (have[half][label], have[half].total()))
            halves[half].update(record.id for record in group)
            have[half].update(record.label for record in group)
    malignant = frozenset(record.id for record in records if record.label in MALIGNANT)
    return Halves(frozenset(halves[0]), frozenset(halves[1]), numbers, malignant)


def _order(group: Sequence[Record], salt: str) -> tuple[int, str]:
    """Large groups first, which the smaller ones then even out."""
    name = min(record.id for record in group)
    return -len(group), hashlib.sha256(f"{salt}\n{name}".encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class ValidationPart:
    """The validation part of a data set, and how it is divided."""

    records: tuple[Record, ...]
    halves: Halves

    @classmethod
    def of(cls, data_set: DataSet, split: Split, modality: str = "") -> ValidationPart:
        """Raises ExportError as `halve`."""
        records = of_modality(split.select(data_set.records, PART), modality)
        return cls(tuple(records), halve(data_set, split, modality))
