"""Which pictures of a data set a bundle is measured on, and how independent of its training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from dermedge.bundle import Bundle
from dermedge.datasets import DataError, DataSet, Record, Split, make_split
from dermedge.datasets.split import group_records

SEED = 0  # of a split that is made here


class NothingToMeasure(DataError):
    """No chosen picture has what the bundle's networks can be measured by."""


@dataclass(frozen=True)
class Chosen:
    """The pictures to measure on, and what is known about their independence."""

    part: str
    records: tuple[Record, ...]
    pictures: int  # in the part, before the limit
    limit: int | None
    source: str  # where the split comes from
    split: Split | None
    train: tuple[Record, ...]  # for baselines only; shares no lesion or patient with `records`
    warnings: tuple[str, ...] = ()
    # Pairs of one lesion: what the publisher states, and what pictures outside of `records` tie.
    same: tuple[tuple[str, str], ...] = ()


def choose(
    data_set: DataSet,
    bundle: Bundle,
    part: str,
    split_file: str | Path | None = None,
    limit: int | None = None,
    baselines: bool = False,
) -> Chosen:
    """Choose the pictures of `part` ('train', 'val', 'test' or 'all').

    The split is `split_file`, else one that the bundle carries where the data set holds all of
    its pictures, else made with seed 0. Warns where pictures were trained on, or where that
    cannot be told. With `baselines`, pictures to fit them on are chosen too (none for 'all').

    Raises
    ------
    DataError
        Where the split does not fit the data set, or the part is empty.
    NothingToMeasure
        Where no picture of the part has what the bundle can be measured by: a mask for a segmenter,
        a class that it knows, or malignant or not, for a classifier.
    """
    stored = _stored_splits(bundle)
    fitting = [owner for owner, one in stored.items() if not _foreign(one, data_set)]
    warnings = []
    if split_file:
        split, source = Split.load(split_file), f"the file {Path(split_file).name}"
        if split.data_set != data_set.name:
            raise DataError(f"{split_file} splits {split.data_set}, not {data_set.name}")
    elif fitting:
        split, source = stored[fitting[0]], f"the one that the {fitting[0]} was trained with"
        # Plain numbers as ids fit any set that is large enough.
        if extra := len(data_set.records) - sum(map(len, split.parts.values())):
            warnings.append(
                f"the bundle's split knows nothing of {extra} pictures of {data_set.name}: make "
                "sure that this is the data set that it was trained on"
            )
    else:
        split, source = make_split(data_set, seed=SEED), f"made here with seed {SEED}"
        if stored and part != "all":
            warnings.append(
                f"the bundle's own split is not of these pictures: part '{part}' is of a new split"
            )
    if part == "all":
        records, source = sorted(data_set.records, key=lambda record: record.id), "none"
    else:
        records = split.select(data_set.records, part)
    if not records:
        held = {**split.parts, "all": data_set.records}
        filled = ", ".join(f"{name} ({len(ids)})" for name, ids in held.items() if ids)
        raise DataError(
            f"part '{part}' of {data_set.name} is empty; parts with pictures: {filled or 'none'}"
        )
    wanted = {
        "segmenter": ("a mask", lambda r: r.mask),
        "classifier": (
            "a class that the bundle knows",
            lambda r: r.label in bundle.manifest.labels or r.malignant is not None,
        ),
    }
    wanted = [wanted[role] for role in bundle.manifest.models]
    if not any(has(record) for record in records for _, has in wanted):
        raise NothingToMeasure(
            f"nothing to measure: no picture of part '{part}' of {data_set.name} has "
            + ", or ".join(words for words, _ in wanted)
        )
    pictures = len(records)
    if limit is not None and limit < pictures:
        # By a hash, so that neither the order of the files nor the classes decide.
        records = sorted(records, key=lambda r: hashlib.sha256(r.id.encode()).digest())[:limit]
        records = sorted(records, key=lambda record: record.id)
    else:
        limit = None
    train: list[Record] = []
    if baselines and part != "all":
        measured = _touched(data_set, {record.id for record in records})
        train = [r for r in split.select(data_set.records, "train") if r.id not in measured]
    return Chosen(
        part,
        tuple(records),
        pictures,
        limit,
        source,
        None if part == "all" else split,
        tuple(train),
        (*_independence(data_set, records, stored), *warnings),
        _ties(data_set, records),
    )


def _ties(data_set: DataSet, records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    """Pairs of `records` that show one lesion or patient by the whole data set.

    Two pictures may be tied by a third that is not measured, or by the publisher's word alone.
    """
    measured = {record.id for record in records}
    groups = group_records(data_set.records, data_set.same)
    groups = ([r.id for r in group if r.id in measured] for group in groups)
    return tuple(pair for group in groups for pair in pairwise(group))


def _stored_splits(bundle: Bundle) -> dict[str, Split]:
    """By what was trained with them: 'bundle', or each network where they differ."""
    owners = {"split.json": "bundle"}
    if "split-segmenter.json" in bundle.manifest.parts:
        owners = {"split.json": "classifier", "split-segmenter.json": "segmenter"}
    return {
        owner: Split.from_json(bundle.part(part), f"{part} of bundle {bundle.path}")
        for part, owner in owners.items()
        if part in bundle.manifest.parts
    }


def _foreign(split: Split, data_set: DataSet) -> int:
    """How many pictures of `split` the data set lacks; all where it is read in another way."""
    ids = {name for part in split.parts.values() for name in part}
    if split.data_set == data_set.name:
        # A reader's name alone says little: 'csv' reads anybody's pictures.
        ids -= {record.id for record in data_set.records}
    return len(ids)


def _touched(data_set: DataSet, ids: set[str]) -> set[str]:
    """Ids of all pictures that share a lesion or patient with one of `ids`, and these."""
    return {
        record.id
        for group in group_records(data_set.records, data_set.same)
        if any(record.id in ids for record in group)
        for record in group
    }


def _independence(
    data_set: DataSet, records: Sequence[Record], stored: dict[str, Split]
) -> Iterator[str]:
    if not stored:
        yield "the bundle carries no split: whether it was trained on these pictures is unknown"
    for owner, split in stored.items():
        if split.data_set != data_set.name:
            # The archive's ids are one series through all of its data sets; other ids are not.
            known = {name for name in split.parts["train"] if name.startswith("ISIC_")}
            shared = sum(record.id in known for record in records)
            yield f"the {owner} was trained on {split.data_set}, not on {data_set.name}: " + (
                f"{shared} of {len(records)} pictures were in its training part"
                if shared
                else "whether a lesion was seen in training cannot be checked"
            )
            continue
        if missing := _foreign(split, data_set):
            known = set(split.parts["train"])
            shared = sum(record.id in known for record in records)
            yield (
                f"the {owner} was trained on another {split.data_set} data set, or on more of this "
                f"one ({missing} pictures of its split are not here): {shared} of {len(records)} "
                "pictures have the id of one in its training part"
            )
            continue
        for part, name, harm in (
            ("train", "training", "the figures are too good"),
            ("val", "validation", "thresholds were chosen on them"),
        ):
            touched = _touched(data_set, set(split.parts[part]))
            count = sum(record.id in touched for record in records)
            if count:
                yield (
                    f"{count} of {len(records)} pictures, or their lesions or patients, were in "
                    f"the {name} part of the {owner}: {harm}"
                )
