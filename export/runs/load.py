"""Run folders to networks that can be exported, and what is refused before any work is done."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch

from dermedge import data as datasets
from dermedge.bundle.manifest import ROLES
from dermedge.data import DataSet, Record
from dermedge.data.fingerprint import NO_NUMBER, of_pictures
from dermedge.data.joint import BETWEEN
from dermedge.data.leak import FILE, TEST, VAL, Leak, TrainingPictures, leaks, overlap
from dermedge.data.records import of_modality
from dermedge.data.split import Split
from dermedge.taxonomy import MALIGNANT
from export import ExportError
from export.runs.half_weights import fold_norms, round_to_half
from train.models import Normalized
from train.recipe import Recipe, RecipeError, load_recipe
from train.run import Run, load_model, load_run, training_pictures

OWN = ("csv", "folders")  # readers of which two folders are two data sets
_COMPARED = 64  # pictures, to know a run's by them
_BACK = (
    "put them back, or give the `dermedge train` command of this run again with --data where they "
    "are now, which a finished run notes"
)


@dataclass(frozen=True, eq=False)
class Prior:
    """Shares of the classes, float64 (K,) with a sum of 1, all above 0, and whose they are."""

    shares: np.ndarray
    title: str

    def stated(self, labels: Sequence[str]) -> dict[str, float]:
        """By class, as a manifest holds it."""
        return {k: round(float(v), 6) for k, v in zip(labels, self.shares, strict=True)}


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """One run: its network, and the pictures that it was trained and is measured on."""

    run: Run
    recipe: Recipe
    split: Split
    data_set: DataSet
    # In evaluation mode, in the memory layout that is faster on most processors. `weights` "half":
    # batch norm folded away, the weights rounded.
    model: Normalized
    weights: str
    # That was asked for, and that the model carries by now; None: as it was trained.
    prior: Prior | None = None

    def records(self, part: str) -> list[Record]:
        """Of a part of the split, those of the modality that it learnt, ordered by id."""
        return of_modality(self.split.select(self.data_set.records, part), self.recipe.modality)

    @property
    def roles(self) -> tuple[str, ...]:
        return roles_of(self.run)


def roles_of(run: Run) -> tuple[str, ...]:
    """The roles that a run's network plays."""
    return ROLES if run.kind == "multitask" else (run.kind,)


def load_networks(
    folders: Sequence[str | Path], weights: str = "full", can_crop: bool = False
) -> tuple[TrainedNetwork, ...]:
    """The networks of these run folders, a segmenter before a classifier.

    weights : "half": rounded to half precision before all else. can_crop : whether a segmenter
    that is no run will place crops.

    Raises UserError, in one line, where two runs play one role, a network learnt what the other is
    tested on, a classifier of crops has no segmenter, or a run is damaged.
    """
    runs = _one_per_role([load_run(folder) for folder in folders])
    for run in runs:
        _refuse_one_kind(run)
    splits = [_split(run) for run in runs]
    if len(runs) > 1:
        _refuse_leaks(runs, splits)
    if runs[0].preprocessing.crop and not can_crop:
        placed_by = _recipe(runs[0]).crop_by
        how = "add the run of a segmenter, whose masks will place them"
        if placed_by:
            how = f"give --with {placed_by}, whose segmenter placed them"
        raise ExportError(f"{runs[0].folder} learnt on crops around the lesion: {how}")
    return tuple(_load(run, split, weights) for run, split in zip(runs, splits, strict=True))


def _one_per_role(runs: Sequence[Run]) -> list[Run]:
    by_role: dict[str, Run] = {}
    for run in runs:
        for role in roles_of(run):
            if role in by_role:
                raise ExportError(
                    f"{by_role[role].folder} and {run.folder} are both a {role}: give one"
                )
            by_role[role] = run
    return list({id(by_role[role]): by_role[role] for role in ROLES if role in by_role}.values())


def _refuse_one_kind(run: Run) -> None:
    """ExportError where its classes are all malignant, or all benign: no split would help."""
    malignant = MALIGNANT.intersection(run.labels)
    if run.labels and len(malignant) in (0, len(run.labels)):
        raise ExportError(
            f"{run.folder} tells only {'malignant' if malignant else 'benign'} classes apart "
            f"({', '.join(run.labels)}), and 'see a doctor' parts one kind from the other: train "
            "with classes of both kinds"
        )


def _split(run: Run) -> Split:
    split = Split.load(run.folder / "split.json")
    if split.sha256 != run.split_sha256:
        raise ExportError(
            f"{run.folder / 'split.json'} is not the split that this run was trained on: "
            "put the original back"
        )
    return split


def _load(run: Run, split: Split, weights: str) -> TrainedNetwork:
    data_set = _pictures(run)
    _refuse_others(run, split, data_set)
    model = load_model(run)
    if weights == "half":
        model = fold_norms(model, torch.zeros(1, run.size, run.size, 3, dtype=torch.uint8))
        round_to_half(model)
    return TrainedNetwork(
        run=run,
        recipe=_recipe(run),
        split=split,
        data_set=data_set,
        model=model.to(memory_format=torch.channels_last),
        weights=weights,
    )


def _pictures(run: Run) -> DataSet:
    """The data set that it learnt from. ExportError where that is no longer where it was."""
    roots = run.data_root.split(os.pathsep) if BETWEEN in run.data_set else [run.data_root]
    gone = [root for root in roots if not Path(root).exists()]
    if gone:
        raise ExportError(
            f"the pictures of {run.folder} are no longer in {', '.join(gone)}: {_BACK}"
        )
    return datasets.load(run.data_set, run.data_root)


def _refuse_others(run: Run, split: Split, data_set: DataSet) -> None:
    """ExportError where most of the validation part are other pictures under the same names."""
    records, stored = split.select(data_set.records, "val"), run.folder / FILE
    some = records[:: max(1, len(records) // _COMPARED)]
    if not some or not stored.exists():
        return
    known = TrainingPictures.from_bytes(stored.read_bytes(), str(stored))
    mine = known.of(roles_of(run)[0], VAL)
    # A list of another split, as `training_pictures` has it, says nothing of these.
    if known.split.hex() != split.sha256 or not len(mine):
        return
    prints, unread = of_pictures(some)
    readable = np.array([record.id not in unread for record in some])
    found = overlap(prints[readable], mine)
    if readable.any() and 2 * np.count_nonzero(found) <= readable.sum():
        raise ExportError(
            f"the pictures in {run.data_root} have the names of those that {run.folder} was "
            f"validated on, and are others: {_BACK}"
        )


def _recipe(run: Run) -> Recipe:
    stored = run.folder / "recipe.toml"
    try:
        return load_recipe(stored)
    except RecipeError as error:
        raise ExportError(f"{stored} cannot be used: {error}") from None


def _refuse_leaks(runs: Sequence[Run], splits: Sequence[Split]) -> None:
    """ExportError where one network may have been trained on what the other is tested on.

    Where only the look of pictures says so, which may deceive, a line on the terminal.
    """
    one, other = splits
    # A reader's name says little where it reads anybody's pictures: those are compared below.
    own = one.data_set in OWN and runs[0].data_root != runs[1].data_root
    if one.data_set == other.data_set and not own:
        if one.sha256 != other.sha256:
            raise ExportError(
                f"the runs split {one.data_set} differently ({one.sha256[:12]} and "
                f"{other.sha256[:12]}), so that one may have learnt what the other is tested on: "
                "train both with the same --split and --limit"
            )
        return
    lists = [training_pictures(run) for run in runs]
    for (learnt, known), (tested, measured) in permutations(zip(runs, lists, strict=True)):
        if leak := leak_of_test(known, measured):
            line = (
                f"of {tested.data_set}, {leak.line} were in the training of the other network, on "
                f"{learnt.data_set}"
            )
            if leak.certain:
                raise ExportError(f"{line}: train both on one data set, with one split")
            print(f"warning: {line}", file=sys.stderr)


def leak_of_test(known: TrainingPictures, measured: TrainingPictures) -> Leak | None:
    """Whether one network learnt from the test pictures of the other's run."""
    if not measured.roles():
        return None
    test = measured.of(measured.roles()[0], TEST)
    names = [
        "no ISIC number" if number == NO_NUMBER else f"ISIC_{number:07}" for number in test.numbers
    ]
    return leaks(known, {"test": test}, {"test": names})
