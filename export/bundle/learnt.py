"""What a bundle's networks learnt from: found among the data sets and splits that are given."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermedge.bundle.bundle import Bundle
from dermedge.data import DataSet, make_split
from dermedge.data.joint import BETWEEN, join, keyed, reader_name
from dermedge.data.records import Record, of_modality
from dermedge.data.split import Split
from export import ExportError
from export.validation.halves import ValidationPart

SPLIT = "split.json"  # part of bundles made before 2026-12


@dataclass(frozen=True, eq=False)
class Learnt:
    """What one network of a bundle learnt from."""

    kind: str  # segmenter, classifier or multitask
    data_set: DataSet
    split: Split
    training: tuple[Record, ...]
    validation: ValidationPart
    prior: np.ndarray | None  # float (K,) that its export asked for, in the order of its labels


def learnt_by(
    bundle: Bundle,
    networks: Sequence[tuple[str, ...]],
    data_sets: Sequence[DataSet],
    split_files: Sequence[str] = (),
) -> dict[tuple[str, ...], Learnt]:
    """What each network learnt from, by its roles.

    One that was taken from another bundle is left out where that is not here, with a line: whoever
    has the other network's pictures need not have its own.

    Parameters
    ----------
    networks : the roles of each.
    data_sets : single ones, all that the networks were trained on.
    split_files : frozen splits, in any order. A network takes the one whose hash the bundle names,
        else the bundle's own where it carries one, else, of a single data set, that of seed 0.

    Raises
    ------
    ExportError
        Where a data set or the split of a network is not among them, one that is given is not of
        any network, or as `halve`.
    """
    sources = keyed(data_sets)
    splits = {name: Split.load(name) for name in split_files}
    found: dict[tuple[str, ...], Learnt] = {}
    lacking: dict[tuple[str, ...], ExportError] = {}
    for roles in networks:
        try:
            found[roles] = _one(bundle, roles, sources, splits)
        except ExportError as error:
            if "from_bundle" not in (_entry(bundle, roles) or {}):
                raise
            lacking[roles] = error
    if not found and lacking:
        raise next(iter(lacking.values()))
    for roles, why in lacking.items():
        print(
            f"the {' and '.join(roles)} was taken from another bundle, and stays as it is: {why}",
            file=sys.stderr,
        )
    nobody = f"{bundle.path}: none of what is judged ({_names(list(found))})"
    used = {key for one in found.values() for key in one.data_set.name.split(BETWEEN)}
    if unused := [key for key in sources if key not in used]:
        raise ExportError(f"{nobody} was trained on {unused[0]}: leave it out")
    hashes = {one.split.sha256 for one in found.values()}
    if unused := [name for name, split in splits.items() if split.sha256 not in hashes]:
        raise ExportError(f"{nobody} was trained with {unused[0]}: leave it out")
    return found


def _names(networks: Sequence[tuple[str, ...]]) -> str:
    return ", ".join(" and ".join(roles) for roles in networks)


def _kind(roles: tuple[str, ...]) -> str:
    return "multitask" if len(roles) > 1 else roles[0]


def _entry(bundle: Bundle, roles: tuple[str, ...]) -> dict[str, Any] | None:
    """What the manifest says of the network's training; None: nothing."""
    entries = bundle.manifest.training_data
    return next((entry for entry in entries if entry.get("role") == _kind(roles)), None)


def _one(
    bundle: Bundle,
    roles: tuple[str, ...],
    sources: Mapping[str, DataSet],
    splits: Mapping[str, Split],
) -> Learnt:
    kind, entry = _kind(roles), _entry(bundle, roles)
    if entry is None or not {"data_set", "split_sha256"} <= entry.keys():
        raise ExportError(f"{bundle.path} does not say what its {kind} was trained on")
    keys = str(entry["data_set"]).split(BETWEEN)
    if missing := [key for key in keys if key not in sources]:
        given = f", not on {BETWEEN.join(sources)}" if len(sources) == 1 else ""
        raise ExportError(
            f"the {kind} of {bundle.path} was trained on {entry['data_set']}{given}: give "
            f"--data {' --data '.join(f'{reader_name(key)}=PATH' for key in missing)}"
            f"{', in that order' if any(reader_name(key) != key for key in keys) else ''}"
        )
    data_set = join([sources[key] for key in keys])
    prior = None
    if entry.get("prior_of"):  # without it the prior is that of the training
        prior = np.array([entry["prior"][label] for label in bundle.manifest.labels])
    split = _split(bundle, entry, data_set, splits)
    modality = str(entry.get("modality", ""))
    training = of_modality(split.select(data_set.records, "train"), modality)
    part = ValidationPart.of(data_set, split, modality)
    return Learnt(kind, data_set, split, tuple(training), part, prior)


def _split(
    bundle: Bundle, entry: Mapping[str, Any], data_set: DataSet, splits: Mapping[str, Split]
) -> Split:
    kind, wanted = entry["role"], entry["split_sha256"]
    own = "split-segmenter.json" if kind == "segmenter" else SPLIT
    if own not in bundle.manifest.parts:
        own = SPLIT
    near = dict(splits)
    if own in bundle.manifest.parts:
        title = f"{own} of {bundle.path}"
        near[title] = Split.from_json(bundle.part(own), title)
    mine = {name: split for name, split in near.items() if split.data_set == data_set.name}
    if not mine and BETWEEN not in data_set.name:
        mine[f"one made of {data_set.root}"] = make_split(data_set)
    for split in mine.values():
        if split.sha256 == wanted:
            return split
    others = "; ".join(f"{name} is {split.sha256[:12]}" for name, split in mine.items())
    raise ExportError(
        f"the {kind} of {bundle.path} was trained with the split {wanted[:12]} of "
        f"{data_set.name}{f', {others}' if others else ''}: give that one by --split FILE"
    )
