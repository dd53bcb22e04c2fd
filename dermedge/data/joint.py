"""Several data sets as one, and a split that keeps each lesion in one part over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from dermedge.data.fingerprint import lesion_number
from dermedge.data.leak import split_apart
from dermedge.data.records import PARTS, DataError, DataSet, Record, id_key, short
from dermedge.data.split import Split, group_records, leave_out_torn, linked

BETWEEN = "+"  # in the name of a joint set
_WITHIN = "/"  # between the source and the id of a record


def keyed(data_sets: Sequence[DataSet]) -> dict[str, DataSet]:
    """The sets by a key each: their names, with a number where one comes again ("csv", "csv.2")."""
    found: dict[str, DataSet] = {}
    for data_set in data_sets:
        number, key = 1, data_set.name
        while key in found:
            number += 1
            key = f"{data_set.name}.{number}"
        found[key] = data_set
    return found


def reader_name(key: str) -> str:
    """The reader behind a key: "csv" of "csv.2"."""
    return key.partition(".")[0]


def readers_of(name: str) -> set[str]:
    """The readers of all sets that are in a set, by its name: a joint one is called after them."""
    return {reader_name(key) for key in name.split(BETWEEN)}


def join(data_sets: Sequence[DataSet]) -> DataSet:
    """All sets as one; a single one as it is.

    Ids become "SOURCE/ID". Lesions and patients keep their ids where those are public, so that one
    lesion is one over all sets, else they get the source's key, too. DataError where a folder's
    name cannot be noted.
    """
    if len(data_sets) == 1:
        return data_sets[0]
    sources = keyed(data_sets)
    for data_set in data_sets:
        if os.pathsep in str(data_set.root):
            raise DataError(
                "{root}: with several data sets no folder may have '{sign}' in its name",
                code="joint_root",
                root=data_set.root,
                sign=os.pathsep,
            )
    records = tuple(
        _prefixed(record, key) for key, source in sources.items() for record in source.records
    )
    return DataSet(
        name=BETWEEN.join(sources),
        root=Path(os.pathsep.join(str(source.root) for source in data_sets)),
        records=records,
        problems=tuple(f"{k}: {line}" for k, s in sources.items() for line in s.problems),
        licence="; ".join(
            dict.fromkeys(part for s in data_sets for part in s.licence.split("; ") if part)
        ),
        procedural=any(source.procedural for source in data_sets),
        same=tuple(
            (_name(key, one), _name(key, other))
            for key, source in sources.items()
            for one, other in source.same
        ),
        notes=(
            *(f"{k}: {line}" for k, s in sources.items() for line in s.notes),
            *_same_names(sources),
        ),
        ungrouped="; ".join(f"{k}: {s.ungrouped}" for k, s in sources.items() if s.ungrouped),
    )


def _same_names(sources: Mapping[str, DataSet]) -> Iterator[str]:
    """A line for two sets of one reader that call lesions or patients alike."""
    for (key, one), (also, other) in combinations(sources.items(), 2):
        if one.name != other.name:
            continue
        for field, what in (("patient_id", "patients"), ("lesion_id", "lesions")):
            here, there = (
                {id_key(name): name for r in s.records if (name := getattr(r, field))}
                for s in (one, other)
            )
            names = (here[same] for same in here.keys() & there)
            # A public lesion is one in both.
            if alike := sorted(name for name in names if _own(name, key) != name):
                yield (
                    f"{key} and {also} name {len(alike)} {what} alike (such as {short(alike[0])}): "
                    "they count as others, and may be learnt in one set and tested in the other; "
                    "where they are the same, put both sets into one table"
                )


def source_of(record_id: str, data_set: str) -> str:
    """Which source of the set called `data_set` a record is of; the set itself where it is one."""
    return record_id.partition(_WITHIN)[0] if BETWEEN in data_set else data_set


def split_of_source(split: Split, key: str) -> Split:
    """What a joint split says of one source, with that source's own ids."""
    parts = {
        part: tuple(sorted(n.partition(_WITHIN)[2] for n in ids if n.partition(_WITHIN)[0] == key))
        for part, ids in split.parts.items()
    }
    return Split(reader_name(key), split.seed, parts, (f"of the joint split of {split.data_set}",))


def joint_split(
    data_sets: Sequence[DataSet],
    frozen: Mapping[str, Split],
    pairs: Iterable[tuple[str, str]] = (),
    unreadable: Iterable[str] = (),
    by_picture: bool = False,
) -> Split:
    """One split of all sets, in which no lesion, patient or pair of `pairs` crosses parts.

    A source (by its key, see `keyed`) that has a `frozen` split of its own keeps it. The others are
    dealt out one after the other as `split_apart` does, but a picture of a lesion that a source
    before them has goes where that lesion is. What still lies in two parts, by frozen splits or by
    publishers, stays in the part that is tested last, and is left out of the other with a note.
    Ids in `pairs` and `unreadable` are those of the joint set.

    Raises DataError where a frozen split is of another set, or names pictures that are not there.
    """
    sources, left_out = keyed(data_sets), set(unreadable)
    if unknown := frozen.keys() - sources.keys():
        raise DataError(f"a split of {min(unknown)}, which is not among the data sets")
    whole = join(data_sets)
    pairs = list(pairs)
    pairs += linked(group_records(whole.records, [*whole.same, *pairs]), left_out)
    records = (record for record in whole.records if record.id not in left_out)
    groups = group_records(records, [*whole.same, *pairs])
    part_of: dict[str, str] = {}
    notes: list[str] = []
    for key, split in frozen.items():
        for part in PARTS:
            names = [_name(key, r.id) for r in split.select(sources[key].records, part)]
            part_of.update((name, part) for name in names if name not in left_out)
    for key, source in sources.items():
        if key in frozen:
            continue
        mine = {_name(key, record.id): record for record in source.records}
        free = {}
        for group in groups:
            taken = [part_of[record.id] for record in group if record.id in part_of]
            for record in group:
                if record.id in mine and not taken:
                    free[record.id] = mine[record.id]
                elif record.id in mine:
                    stated = [record.official] if record.official else []
                    part_of[record.id] = max([*taken, *stated], key=PARTS.index)
        # By its own ids, so that a set without twins is dealt out as if it were alone.
        own = [(free[a].id, free[b].id) for a, b in pairs if a in free and b in free]
        here = {record.id for record in free.values()}
        same = tuple(pair for pair in source.same if here.issuperset(pair))
        left = replace(source, records=tuple(free.values()), same=same)
        dealt = split_apart(left, own, by_picture=by_picture)
        notes += [f"{key}: {line}" for line in dealt.notes]
        part_of.update((_name(key, n), part) for part, ids in dealt.parts.items() for n in ids)
    notes += leave_out_torn(groups, part_of, "the {} part of another source")
    parts = {p: tuple(i for i in sorted(part_of) if part_of[i] == p) for p in PARTS}
    return Split(whole.name, 0, parts, tuple(notes))


def _prefixed(record: Record, key: str) -> Record:
    return replace(
        record,
        id=_name(key, record.id),
        lesion_id=_own(record.lesion_id, key),
        patient_id=None if record.patient_id is None else _name(key, record.patient_id),
        source=key,
    )


def _own(lesion: str | None, key: str) -> str | None:
    return lesion if lesion is None or lesion_number(lesion) else _name(key, lesion)


def _name(key: str, record_id: str) -> str:
    return f"{key}{_WITHIN}{record_id}"
