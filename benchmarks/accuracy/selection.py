"""Which pictures of a data set a bundle is measured on, and how independent of its training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.accuracy.subset import Subset, by_hash, touched
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import ROLES
from dermedge.data import PARTS, DataError, DataSet, Record, Split, make_split
from dermedge.data.fingerprint import Fingerprints, of_bytes, of_names, of_pictures
from dermedge.data.joint import readers_of
from dermedge.data.leak import (
    BITS,
    FILE,
    LEARNT,
    VAL,
    TrainingPictures,
    counted,
    overlap,
)
from dermedge.data.split import group_records

SEED = 0  # of a split that is made here


class NothingToMeasure(DataError):
    """No selected picture can be read, or has what the bundle's networks can be measured by."""

    exit_status = 1  # the command was right, its pictures are not


@dataclass(frozen=True)
class Selection:
    """The pictures to measure on, and what is known about their independence."""

    part: str
    records: tuple[Record, ...]
    pictures: int  # in the part, or in the subset of it, before the limit
    limit: int | None
    source: str  # where the split comes from
    split: Split | None
    train: tuple[Record, ...]  # for baselines only; shares no lesion or patient with `records`
    warnings: tuple[str, ...] = ()
    # Pairs of one lesion: what the publisher states, and what pictures outside of `records` tie.
    same: tuple[tuple[str, str], ...] = ()
    subset: str = ""  # what of the part was taken, in words; "": all


def split_sha256(data_set: DataSet, selection: Selection) -> str:
    """Of the split. Of all pictures that of one which has them as its test part: readers of
    anybody's pictures share a name."""
    if selection.split is not None:
        return selection.split.sha256
    ids = tuple(sorted(record.id for record in data_set.records))
    return Split(data_set.name, SEED, {"train": (), "val": (), "test": ids}).sha256


def select(
    data_set: DataSet,
    bundle: Bundle,
    part: str,
    split_file: str | Path | None = None,
    limit: int | None = None,
    baselines: bool = False,
    subset: Subset | None = None,
) -> Selection:
    """Select the pictures of `part` ('train', 'val', 'test' or 'all').

    The split is `split_file`; else, where the data set is the one that the bundle was trained on,
    that bundle's: made again from the ids if its hash is then the same, or put together from the
    bundle's list of training pictures (what is neither in training nor in validation is the test
    part); bundles of version 0.1.0 carry it. Else it is made with seed 0. Warns where pictures were
    trained on, or where that cannot be known. With `baselines`, pictures to fit them on are
    selected, too (none for 'all'). `subset` says what of the part is left out, before the limit.

    Raises
    ------
    DataError
        Where the split does not fit the data set, or the part or what is left of it is empty; where
        a file parts what is all measured.
    NothingToMeasure
        Where none of the pictures that are left has what the bundle can be measured by: a mask for
        a segmenter, a class that it knows, or malignant or not, for a classifier.
    """
    if split_file and part == "all":
        raise DataError(
            "--split all measures every picture, also what the file of --split-file does not name: "
            "leave one of the two out"
        )
    stored = _stored_splits(bundle)
    training = _training(bundle)
    exact = _exact(data_set, training) if training else None
    split, source, warnings = _split(data_set, bundle, part, split_file, stored, training, exact)
    if part == "all":
        records, source = sorted(data_set.records, key=lambda record: record.id), "none"
    else:
        records = split.select(data_set.records, part)
    _check(data_set, part, records, split)
    kept = ""
    if subset:
        records, kept = subset.of(data_set, records)
    pictures = len(records)
    if limit is not None and limit < pictures:
        records = sorted(by_hash(records)[:limit], key=lambda record: record.id)
    else:
        limit = None
    words = [f"part '{part}' of {data_set.name}", kept, f"limit {limit}" if limit else ""]
    _check_usable(bundle, records, ", ".join(filter(None, words)))
    train: list[Record] = []
    if baselines and part != "all":
        measured = touched(data_set, {record.id for record in records})
        train = [r for r in split.select(data_set.records, "train") if r.id not in measured]
        if subset and subset.modality:  # a baseline of other pictures, too, would be easier to beat
            train = [r for r in train if r.modality == subset.modality]
    known = (
        _known(data_set, records, bundle, training, exact)
        if training and exact is not None
        else _independence(data_set, records, stored)
    )
    return Selection(
        part,
        tuple(records),
        pictures,
        limit,
        source,
        None if part == "all" else split,
        tuple(train),
        (
            *known,
            *warnings,
            *_missing(data_set),
            *(subset.warnings(data_set) if subset else ()),
        ),
        _ties(data_set, records),
        kept,
    )


def _missing(data_set: DataSet) -> Iterator[str]:
    """A warning where rows or files are left out, or not read in full."""
    if count := len(data_set.problems):
        yield (
            f"{count} rows or files of {data_set.name} are missing or malformed; `dermedge data "
            "check` names them"
        )


def _split(
    data_set: DataSet,
    bundle: Bundle,
    part: str,
    split_file: str | Path | None,
    stored: dict[str, Split],
    training: TrainingPictures | None,
    exact: Fingerprints | None,
) -> tuple[Split, str, list[str]]:
    """The split, where it comes from, and warnings about it."""
    if split_file:
        split = Split.load(split_file)
        if split.data_set != data_set.name:
            raise DataError(f"{split_file} splits {split.data_set}, not {data_set.name}")
        return split, f"the file {Path(split_file).name}", []
    if fitting := [owner for owner, one in stored.items() if not _foreign(one, data_set)]:
        split, source = stored[fitting[0]], f"the one that the {fitting[0]} was trained with"
        # Plain numbers as ids fit any set that is large enough.
        extra = len(data_set.records) - sum(map(len, split.parts.values()))
        warning = (
            f"the bundle's split knows nothing of {extra} pictures of {data_set.name}: make "
            "sure that this is the data set that it was trained on"
        )
        return split, source, [warning] if extra else []
    if training and exact is not None:
        if again := _again(data_set, bundle):
            return again, "the one that the bundle was trained with, made again here", []
        if rebuilt := _rebuilt(data_set, bundle, training, exact):
            source = "what the bundle neither learnt from nor was tuned on is the test part"
            return rebuilt, source, []
    # All pictures need no parts.
    split = make_split(data_set, seed=SEED, by_picture=part == "all")
    warning = (
        f"the bundle's own split is not of these pictures: part '{part}' is of a new split, which "
        "harms no figure unless another warning says that the bundle knows some of them"
    )
    new = (stored or training) and part != "all"
    return split, f"made here with seed {SEED}", [warning] if new else []


def _check(data_set: DataSet, part: str, records: Sequence[Record], split: Split) -> None:
    """Raise DataError where the part is empty."""
    if not records:
        held = {**split.parts, "all": data_set.records}
        filled = ", ".join(f"{name} ({len(ids)})" for name, ids in held.items() if ids)
        raise DataError(
            f"part '{part}' of {data_set.name} is empty; parts with pictures: {filled or 'none'}"
        )


def _check_usable(bundle: Bundle, records: Sequence[Record], what: str) -> None:
    """Raise NothingToMeasure where no record can measure the bundle; `what` says which they are."""
    needs: dict[str, tuple[str, Callable[[Record], object]]] = {
        "segmenter": ("a mask", lambda r: r.mask),
        "classifier": (
            "a class that the bundle knows",
            lambda r: r.label in bundle.manifest.labels or r.malignant is not None,
        ),
    }
    needed = [needs[role] for role in bundle.manifest.models]
    if not any(has(record) for record in records for _, has in needed):
        raise NothingToMeasure(
            f"nothing to measure: no picture of {what} has "
            + ", or ".join(words for words, _ in needed)
        )


def _training(bundle: Bundle) -> TrainingPictures | None:
    if FILE not in bundle.manifest.parts:
        return None
    return TrainingPictures.from_bytes(bundle.part(FILE), f"{FILE} of bundle {bundle.path}")


def _owners(training: TrainingPictures) -> dict[str, str]:
    """The roles to ask about, and what a warning calls them: 'bundle' where they learnt alike."""
    roles = training.roles()
    if len(roles) == 2 and (training.use >> 4 == training.use & 15).all():
        return {roles[0]: "bundle"}
    return {role: role if len(roles) > 1 else "bundle" for role in roles}


def _exact(data_set: DataSet, training: TrainingPictures) -> Fingerprints:
    """What tells for certain which picture is which: numbers, and bytes where they were noted."""
    records = data_set.records
    return of_bytes(records) if training.prints.files.any() else of_names([r.id for r in records])


def _trained_here(bundle: Bundle, data_set: DataSet) -> list[dict]:
    return [
        entry for entry in bundle.manifest.training_data if entry.get("data_set") == data_set.name
    ]


def _again(data_set: DataSet, bundle: Bundle) -> Split | None:
    """The bundle's split, where it depends on ids alone."""
    hashes = {entry.get("split_sha256") for entry in _trained_here(bundle, data_set)}
    if hashes:
        official = {record.official for record in data_set.records}
        val = ("val",) if "val" in official and "test" not in official else ()
        for test_on in ("test", *val):
            split = make_split(data_set, seed=SEED, test_on=test_on)
            if split.sha256 in hashes:
                return split
    return None


def _rebuilt(
    data_set: DataSet, bundle: Bundle, training: TrainingPictures, exact: Fingerprints
) -> Split | None:
    """The parts as the bundle's list of pictures gives them; None: it is of other pictures."""
    for entry in _trained_here(bundle, data_set):
        role = "classifier" if entry.get("role") == "multitask" else entry.get("role")
        if role not in training.roles():
            continue
        ids = [record.id for record in data_set.records]
        part_of: dict[str, str] = {}
        whole = True
        for part in ("val", "train"):
            used = training.of(role, BITS[part])
            how = overlap(exact, used)
            members = [name for name, one in zip(ids, how, strict=True) if 0 < one <= 2]
            whole &= len(members) >= len(used) > 0
            part_of |= dict.fromkeys(members, part)
        if not whole:
            continue
        # Of what is left, nothing that shares a lesion or patient with what was used.
        used_up = touched(data_set, set(part_of))
        part_of |= {name: "test" for name in ids if name not in used_up}
        parts = {p: tuple(sorted(i for i in part_of if part_of[i] == p)) for p in PARTS}
        return Split(data_set.name, SEED, parts, ("put together by dermedge evaluate",))
    return None


def _known(
    data_set: DataSet,
    records: Sequence[Record],
    bundle: Bundle,
    training: TrainingPictures,
    exact: Fingerprints,
) -> Iterator[str]:
    """Warnings about what the bundle's networks know of the pictures that are measured."""
    every, _ = of_pictures(records)
    ids = [record.id for record in data_set.records]
    drawn = np.array([record.mask is not None for record in records], bool)
    trained = {
        role: entry.get("data_set")
        for entry in bundle.manifest.training_data
        for role in (ROLES if entry.get("role") == "multitask" else (entry.get("role"),))
    }
    for role, owner in _owners(training).items():
        # Without an outline a picture measures no segmenter, nor was one tuned on it.
        outlines = role == "segmenter" and (owner == role or len(training.roles()) == 1)
        used_for = drawn if outlines else np.ones(len(records), bool)
        if not used_for.any():
            continue
        measured = [record for record, one in zip(records, used_for, strict=True) if one]
        among = f"{len(measured)} pictures" + " with an outline" * (not used_for.all())
        prints, seen = every[used_for], False
        for bits, name, harm in (
            (LEARNT, "training", "the figures are too good"),
            (VAL, "validation", "thresholds were chosen on them"),
        ):
            used = training.of(role, bits)
            how = overlap(prints, used)
            # Also what shares a lesion or patient with a picture of this data set that was used.
            used_here = {name for name, one in zip(ids, overlap(exact, used), strict=True) if one}
            tied = touched(data_set, used_here)
            count = sum(bool(one) or r.id in tied for r, one in zip(measured, how, strict=True))
            if not count:
                continue
            seen = True
            rest = count - int((how > 0).sum())
            ways = [counted(how)] if how.any() else []
            ways += [f"{rest} by a lesion or patient of this data set"] if rest else []
            yield (
                f"{count} of {among}, or their lesions or patients, were in the "
                f"{name} part of the {owner} ({', '.join(ways)}): {harm}"
            )
        if not seen and data_set.name not in readers_of(str(trained.get(role))):
            yield (
                f"the {owner} was trained on {trained.get(role)}, not on {data_set.name}: none of "
                "these pictures was found in its training, but whether a lesion was seen in "
                "training cannot be checked"
            )
    unlisted = [role for role in bundle.manifest.models if role not in training.roles()]
    if unlisted and not training.unknown:  # of an older `export --with`
        yield (
            f"the bundle does not list what its {unlisted[0]} learnt from: whether these pictures "
            "were among it is unknown"
        )
    if training.unknown:
        yield (
            "networks that the bundle holds, started or learnt from "
            f"({', '.join(training.unknown)}) saw pictures that are not recorded: "
            "whether these were among them is unknown"
        )


def _ties(data_set: DataSet, records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    """Pairs of `records` that show one lesion or patient by the whole data set.

    Two pictures may be tied by a third that is not measured, or by the publisher's word alone.
    """
    measured = {record.id for record in records}
    groups = group_records(data_set.records, data_set.same)
    ids = ([record.id for record in group if record.id in measured] for group in groups)
    return tuple(pair for group in ids for pair in pairwise(group))


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


def _independence(
    data_set: DataSet, records: Sequence[Record], stored: dict[str, Split]
) -> Iterator[str]:
    if not stored:
        yield "the bundle does not say which pictures it learnt from: whether from these is unknown"
    for owner, split in stored.items():
        if split.data_set != data_set.name:
            # The archive's ids are one series through all of its data sets; other ids are not.
            how = overlap(of_names([r.id for r in records]), of_names(split.parts["train"]))
            shared = int((how > 0).sum())
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
            tied = touched(data_set, set(split.parts[part]))
            measured = [record for record in records if owner != "segmenter" or record.mask]
            count = sum(record.id in tied for record in measured)
            if count:
                yield (
                    f"{count} of {len(measured)} pictures, or their lesions or patients, were in "
                    f"the {name} part of the {owner}: {harm}"
                )
