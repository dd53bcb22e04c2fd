"""Frozen splits: lesions and patients never cross parts, and the file carries its own hash."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from dermedge.data.records import PARTS, DataError, DataSet, Record
from dermedge.files import write_atomic
from dermedge.taxonomy import CLASSES, MALIGNANT

_FORMAT = "dermedge split 1"


@dataclass(frozen=True)
class Split:
    """Which picture belongs to which part.

    `parts` has the keys 'train', 'val' and 'test', each with sorted ids (possibly none). `notes`
    are one-line warnings, such as lesions that the publisher itself put into two parts.
    """

    data_set: str
    seed: int
    parts: dict[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hex digest over the canonical JSON of everything in the split."""
        canonical = json.dumps(self._content(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the split as JSON, atomically."""
        write_atomic(Path(path), json.dumps(self._stored(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read a split file. DataError where it is damaged, changed or of another format."""
        return cls.from_json(Path(path).read_bytes(), str(path))

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "the split") -> Split:
        """Read the text of a split file; `name` is what a DataError calls it."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}: not a split file ({type(error).__name__})") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise DataError(f"{name}: not a split file of the format '{_FORMAT}'")
        try:
            split = cls(
                data_set=content["data_set"],
                seed=content["seed"],
                parts={part: tuple(content["parts"][part]) for part in PARTS},
                notes=tuple(content["notes"]),
            )
            ids = (name for part in split.parts.values() for name in part)
            if not all(isinstance(name, str) for name in (split.data_set, *ids, *split.notes)):
                raise TypeError("an id is no text")
            intact = content == split._stored()
        except (KeyError, TypeError) as error:
            raise DataError(f"{name}: an incomplete split file; make it again") from error
        if not intact:
            raise DataError(
                f"{name}: the hash does not match the content, the file was changed or damaged; "
                "take the original or make the split again"
            )
        return split

    def select(self, records: Iterable[Record], part: str) -> list[Record]:
        """The records of `part`, ordered by id. DataError where ids of the part are missing."""
        if part not in self.parts:
            raise DataError(f"no part '{part}' in the split; there are: {', '.join(self.parts)}")
        by_id = {record.id: record for record in records}
        missing = [name for name in self.parts[part] if name not in by_id]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self.parts[part])} pictures of part '{part}' are not in "
                f"the data set (first: {missing[0]}); the split was made for another copy of "
                f"{self.data_set}"
            )
        return [by_id[name] for name in self.parts[part]]

    def _stored(self) -> dict[str, Any]:
        return {"format": _FORMAT, **self._content(), "sha256": self.sha256}

    def _content(self) -> dict[str, Any]:
        parts = {part: list(ids) for part, ids in self.parts.items()}
        return {
            "data_set": self.data_set,
            "seed": self.seed,
            "parts": parts,
            "notes": list(self.notes),
        }


def make_split(
    data_set: DataSet,
    seed: int = 0,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    same: Iterable[tuple[str, str]] = (),
    test_on: str = "test",
    by_picture: bool = False,
) -> Split:
    """Split by groups: pictures that share a lesion, a patient or a pair in `same` stay together.

    Stratified by label; a pure function of ids, groups, labels and `seed`, whatever the order of
    the records. `fractions` are those of train, val and test (they sum to 1) and are met per
    class up to the size of a group. Where the publisher made parts, those are kept: only a
    missing val part is taken out of the official train part, and no test part is made up. Where
    they tear a group apart, its pictures outside of test (else val) are left out, with a note.

    `test_on` "val" tests on the publisher's validation part, as most papers on ISIC 2017 do: it
    becomes the test part, and a new val part, to choose on, is taken out of train. DataError where
    there is no such part, or a test part too.

    `by_picture` deals out the pictures of a data set whose table of lesions is missing as if each
    showed a lesion of its own; without it, DataError.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"fractions of train, val and test must sum to 1, got {tuple(fractions)}")
    records = sorted(data_set.records, key=lambda record: record.id)
    if test_on == "val":
        made = {record.official for record in records}
        if "val" not in made or "test" in made:
            raise DataError(
                f"{data_set.name} has {'a test part' if 'test' in made else 'no validation part'} "
                "of its publisher: only a validation part without a test part can be tested on"
            )
        records = [replace(r, official="test") if r.official == "val" else r for r in records]
    pairs = sorted({(min(pair), max(pair)) for pair in (*data_set.same, *same)})
    known = {record.id for record in records}
    unknown = [pair for pair in pairs if not known.issuperset(pair)]
    notes = []
    if unknown:
        notes.append(f"{len(unknown)} pairs of one lesion name a picture that is not here; ignored")
    groups = group_records(records, pairs)

    official = {record.official for record in records if record.official}
    part_of: dict[str, str] = {}
    shares = dict(zip(PARTS, fractions, strict=True))
    free = groups
    if official:
        # A picture without an official part counts to train: it is what one may choose freely.
        part_of = {record.id: _official(record) for record in records}
        notes += leave_out_torn(groups, part_of, "the official {} part")
        free = []
        shares = {"train": shares["train"], "val": shares["val"]}
        if "val" not in official and sum(shares.values()) > 0:
            free = [group for group in groups if all(_official(r) == "train" for r in group)]
    if data_set.ungrouped and not by_picture and free and sum(shares.values()) > 0:
        raise DataError(
            "{data_set}: {missing}, so a split could tear lesions apart; get the table, or "
            "let `data check` or `train` split by picture with --split-by-picture",
            code="split_ungrouped",
            data_set=data_set.name,
            missing=data_set.ungrouped,
        )
    if data_set.ungrouped and free:
        notes.append(f"split by picture: {data_set.ungrouped}")
    part_of.update(_assign(free, shares, seed))

    parts = {part: tuple(i for i in sorted(part_of) if part_of[i] == part) for part in PARTS}
    return Split(data_set.name, seed, parts, tuple(notes))


def leave_out_torn(
    groups: Iterable[Sequence[Record]], part_of: dict[str, str], where: str
) -> list[str]:
    """Of a group in several parts, leave out of `part_of` all but the part that is tested last.

    A line for each such group; `where` says in words which part that is.
    """
    notes = []
    for group in groups:
        placed = [record.id for record in group if record.id in part_of]
        kept = max((part_of[name] for name in placed), key=PARTS.index, default="")
        torn = [name for name in placed if part_of[name] != kept]
        for name in torn:
            del part_of[name]
        if torn:
            more = " and more" if len(torn) > 4 else ""
            notes.append(
                f"left out {', '.join(torn[:4])}{more}: the same lesion or patient is in "
                f"{where.format(kept)}"
            )
    return notes


def group_records(
    records: Iterable[Record], same: Iterable[tuple[str, str]] = ()
) -> list[list[Record]]:
    """Connected components over lesion ids, patient ids and the pairs in `same`.

    Groups and the records in them are ordered by id. Pairs with unknown ids are ignored.
    """
    records = sorted(records, key=lambda record: record.id)
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def top(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for record in records:
        for kind, name in (("lesion", record.lesion_id), ("patient", record.patient_id)):
            if name is not None:
                parent[top(("picture", record.id))] = top((kind, name))
    known = {record.id for record in records}
    for one, other in same:
        if one in known and other in known:
            parent[top(("picture", one))] = top(("picture", other))

    groups = defaultdict(list)
    for record in records:
        groups[top(("picture", record.id))].append(record)
    return sorted(groups.values(), key=lambda group: group[0].id)


def linked(groups: Iterable[Sequence[Record]], left_out: Collection[str]) -> list[tuple[str, str]]:
    """Pairs of ids that keep groups together of which a picture is left out.

    It may have been the only one that said that one lesion is of the same person as another.
    """
    pairs: list[tuple[str, str]] = []
    for group in groups:
        ids = [record.id for record in group if record.id not in left_out]
        if len(ids) < len(group):
            pairs += pairwise(ids)
    return pairs


def _official(record: Record) -> str:
    return record.official or "train"


def _assign(groups: list[list[Record]], shares: dict[str, float], seed: int) -> dict[str, str]:
    """Deal the groups out to the parts of `shares`, the rarest class first.

    Each group goes where its class is furthest behind its share (Webster's rule, which favours
    neither large nor small parts). The same term over all pictures carries the rounding from
    class to class, so that a small set of many classes still fills every part.
    """
    whole = sum(shares.values())
    shares = {part: share / whole for part, share in shares.items() if share > 0}
    total = Counter(record.label for group in groups for record in group)
    total_all = sum(total.values())
    rarity = sorted(total, key=lambda label: (label is None, total[label], _seriousness(label)))
    rank = {label: place for place, label in enumerate(rarity)}

    def order(group: Sequence[Record]) -> tuple[int, int, str]:
        digest = hashlib.sha256(f"{seed}\n{group[0].id}".encode()).hexdigest()
        return min(rank[record.label] for record in group), -len(group), digest

    have: dict[str, Counter[str | None]] = {part: Counter() for part in shares}
    part_of = {}
    for group in sorted(groups, key=order):
        stratum = min((record.label for record in group), key=rank.__getitem__)
        own = sum(record.label == stratum for record in group)

        filled = {
            part: (have[part][stratum] + own / 2) / (share * total[stratum])
            + (have[part].total() + len(group) / 2) / (share * total_all)
            for part, share in shares.items()
        }
        part = min(filled, key=filled.__getitem__)
        have[part].update(record.label for record in group)
        part_of.update({record.id: part for record in group})
    return part_of


def _seriousness(label: str | None) -> tuple[bool, int]:
    if label not in CLASSES:
        return True, len(CLASSES)
    return label not in MALIGNANT, CLASSES.index(label)
