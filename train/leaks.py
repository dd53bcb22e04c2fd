"""Whether what a run starts or learns from knows the pictures that the run is measured on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from dermedge import UserError
from dermedge.data.fingerprint import Fingerprints, of_pictures
from dermedge.data.joint import BETWEEN, reader_name
from dermedge.data.leak import TrainingPictures, duplicates, leaks, overlap, torn
from dermedge.data.records import DataSet
from dermedge.data.split import Split, group_records
from train.origins import origins
from train.recipe import Recipe
from train.run import Run, load_run, of_split

_ENOUGH = 256  # pictures to compare, to know a data set by them


def check_leaks(
    recipe: Recipe, data_set: DataSet, split: Split, out: Path, accelerator: Accelerator
) -> tuple[TrainingPictures, dict[str, int]]:
    """What the new network will know of which pictures; and by id, which file each picture is.

    Files are numbered as `Fingerprints.files` has them.

    UserError where a network to start or learn from knows pictures that are to be measured here,
    by more than their look; a line on the terminal where only the look says so, and where the split
    itself parts copies of one picture.
    """
    prints, records = {}, []
    for part in split.parts:
        chosen = split.select(data_set.records, part)
        records += chosen
        prints[part], _ = of_pictures(chosen, out.parent / "fingerprints", f"comparing {part}")
    every = Fingerprints.joined(list(prints.values()))
    rows = {record.id: row for row, record in enumerate(records)}
    files = {
        record.id: number for record, number in zip(records, every.files.tolist(), strict=True)
    }
    notes: list[str] = []
    known: list[TrainingPictures] = []
    unknown: list[str] = []
    if apart := torn(split, duplicates(records, every)):
        one, other = apart[0]
        notes.append(
            f"the split parts {len(apart)} pairs of copies of one picture (first: {one} ~ "
            f"{other}), so that its figures are too good: make it again with `dermedge data check`"
        )
    for source in origins(recipe):
        path, run = source.path, source.run
        if run is None and source.bundle is None:
            if path != recipe.start:
                load_run(path)  # says what it lacks
            continue
        learnt = source.pictures(recipe.kind)
        if learnt is None or not learnt.roles():
            name = run.folder.name if run else Path(path).name
            unknown += learnt.unknown if learnt else (name,)
            lacks = "split.json" if run else "list of this network's pictures"
            notes.append(f"{path} has no {lacks}: what it learnt from is not known")
            continue
        known.append(learnt)
        lesions = _lesions_of(run, learnt, data_set, split, rows, every) if run else ""
        leak = leaks(learnt, prints, dict(split.parts))
        if lesions or (leak and leak.certain):
            if run and run.data_set == data_set.name:
                owner = f"another split of {run.data_set}"
                advice = "give its split.json with --split"
            else:
                owner, advice = source.data_set, "measure on pictures that it does not know"
            raise UserError(
                f"{path} was trained on {owner}, and knows what is to be measured here: "
                f"{leak.line if leak else lesions}; {advice}, or do not build on it"
            )
        if leak:
            notes.append(
                f"{path} was trained on {source.data_set}, and may know what is to be measured "
                f"here: {leak.line}"
            )
        unknown += learnt.unknown
    if accelerator.is_main_process:
        for note in notes:
            print(f"warning: {note}", file=sys.stderr)
    return of_split(recipe.kind, split, prints, known, unknown), files


def _lesions_of(
    run: Run,
    known: TrainingPictures,
    data_set: DataSet,
    split: Split,
    rows: Mapping[str, int],
    prints: Fingerprints,
) -> str:
    """Lesions and patients of this data set that a run learnt from and `split` measures, in words.

    Their ids mean something in one data set alone; so only for runs on the same one, or on one of
    several here: `known` are the run's pictures, `prints` those of here, in `rows` by id.
    """
    ids = {record.id for record in data_set.records}
    stored = Split.load(run.folder / "split.json").parts
    for prefix in _prefixes(run, data_set):
        before = {part: {prefix + name for name in names} for part, names in stored.items()}
        every: set[str] = set().union(*before.values())
        here = [rows[name] for name in sorted(every & rows.keys())]
        if not ids.issuperset(every) or not _same_pictures(prints, here, known):
            continue
        learnt = before["train"]
        tuned = learnt | before["val"]
        measured = dict.fromkeys(split.parts["val"], learnt)
        measured |= dict.fromkeys(split.parts["test"], tuned)
        seen = [
            record.id
            for group in group_records(data_set.records, data_set.same)
            for record in group
            if any(other.id in measured.get(record.id, ()) for other in group)
        ]
        if seen:
            return f"{len(seen)} pictures, or their lesions or patients (first: {seen[0]})"
    return ""


def _prefixes(run: Run, data_set: DataSet) -> list[str]:
    """What the ids of the run's data set may have before them here."""
    if run.data_set == data_set.name:
        return [""]
    if BETWEEN not in data_set.name:
        return []
    keys = data_set.name.split(BETWEEN)
    return [f"{key}/" for key in keys if run.data_set in (key, reader_name(key))]


def _same_pictures(prints: Fingerprints, rows: Sequence[int], known: TrainingPictures) -> bool:
    """Whether most of these are among the known: tables of two clinics may have the same ids."""
    if not len(rows) or not (known.prints.files.any() or known.prints.looks.any()):
        return bool(len(rows))  # of older runs nothing but ids may be left
    some = prints[np.array(rows[:: max(1, len(rows) // _ENOUGH)])]
    return bool(2 * np.count_nonzero(overlap(some, known.prints)) > len(some))
