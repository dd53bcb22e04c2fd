"""The training loop."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm

from dermedge import UserError, __version__
from dermedge.datasets.records import DataSet, Record
from dermedge.datasets.split import Split
from dermedge.taxonomy import CLASSES
from train.data import (
    UNKNOWN,
    Batches,
    Pictures,
    Views,
    load_pictures,
    loader,
    present_labels,
    sampling_shares,
)
from train.learner import Learner
from train.recipe import Recipe
from train.run import Log, Run, commit, load_run, open_folder, save_content

LOG_EVERY = 10  # steps
MOST_NOTES = 3  # lines on the split; split.json has them all


class Interrupted(Exception):
    """Training was asked to stop, and did so after saving a checkpoint."""


def train(
    recipe: Recipe, data_set: DataSet, split: Split, out: str | Path, *, fresh: bool = False
) -> Run:
    """Train the recipe's network on the split's train part; validate on its val part.

    A run that `out` already holds goes on from its checkpoint, exactly as if it had never
    stopped; `fresh` throws it away instead. Prepared pictures are kept in `cache` beside `out`.

    Raises
    ------
    UserError : the data set lacks masks or labels, ImageNet weights are required and cannot be
        had, or `out` holds another run or a damaged one.
    Interrupted : on Ctrl-C or SIGTERM, after a checkpoint.
    """
    out = Path(out)
    accelerator = make_accelerator(recipe)
    _refuse_leaks(recipe, data_set, split)
    open_folder(out, recipe, split, fresh, accelerator)
    labels, chosen = _choose(recipe, data_set, split)
    with accelerator.main_process_first():
        pictures = {
            # Only one process may heal a failed picture: all must see the same ones.
            part: load_pictures(
                records, recipe, out.parent / "cache", retry=accelerator.is_main_process
            )
            for part, records in chosen.items()
        }
    _report_problems(split, pictures, accelerator)

    shares = sampling_shares(pictures["train"].records, recipe.balanced_sampling)
    batches = Batches(len(pictures["train"]), recipe.batch_size, recipe.seed, shares)
    total = recipe.epochs * batches.per_epoch
    total = min(total, recipe.max_steps or total)
    checkpoint = out / "checkpoint.pt"
    resumed = checkpoint.exists()
    # A checkpoint replaces all weights: a resumed run needs no others, and no network.
    start = replace(recipe, pretrained="no", start="") if resumed else recipe
    learner = Learner(start, labels, pictures["train"], total, accelerator)
    if resumed:
        learner.load(checkpoint)
    describe = partial(_describe, recipe, data_set, split, out, labels, pictures, learner, commit())
    if resumed and accelerator.is_main_process:
        # The run may have been killed between its last checkpoint and this.
        describe().save()

    train_views = Views(pictures["train"], labels, recipe)
    val_views = Views(pictures["val"], labels, recipe)
    steps = batches.share(learner.step, total, accelerator.process_index, accelerator.num_processes)
    with (
        Log(out, recipe.kind, learner.step, accelerator.is_main_process) as log,
        _interruption() as asked,
        tqdm(
            total=total,
            initial=learner.step,
            desc=f"training {recipe.model}",
            unit="step",
            disable=not accelerator.is_main_process,
        ) as bar,
    ):
        for batch in loader(train_views, steps, recipe.workers):
            losses = learner.update(batch)
            step = learner.step
            epoch_ends = step % batches.per_epoch == 0 or step == total
            row = {}
            if epoch_ends or step % LOG_EVERY == 0:
                row = learner.measured(losses)
            if step == total or step % (batches.per_epoch * recipe.validate_every) == 0:
                scores = learner.validate(val_views)
                row.update({f"val_{name}": value for name, value in scores.items()})
                bar.set_postfix({name: f"{value:.3f}" for name, value in scores.items()})
                if learner.is_best(scores) and accelerator.is_main_process:
                    save_content(learner.weights(), out / "best.pt")
            if row:
                log.write(step, (step - 1) // batches.per_epoch, row)
            stop = _anyone(asked, step, accelerator)
            if epoch_ends or stop or step % recipe.checkpoint_every == 0:
                learner.save(checkpoint)
                if accelerator.is_main_process:
                    describe().save()
            bar.update()
            if stop and step < total:
                raise Interrupted(f"stopped after step {step} of {total}, all of it saved")
    accelerator.wait_for_everyone()
    return load_run(out)


def _keep_memory() -> None:
    """Let freed memory stay with this process.

    glibc hands large blocks back to the kernel, which clears each page again at the next step:
    on a processor that costs a third of the training's time and more.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        mmap_max, trim_threshold = -4, -1  # numbers from malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def make_accelerator(recipe: Recipe) -> Accelerator:
    """What puts networks and batches on the device. UserError where it cannot do as the recipe."""
    # Accelerate takes several processes without a GPU for one each, unless told.
    accelerator = Accelerator(mixed_precision=recipe.amp, cpu=not torch.accelerator.is_available())
    if recipe.amp == "fp16" and accelerator.device.type == "cpu":
        raise UserError("amp = 'fp16' needs a GPU; use --set amp=bf16 or amp=no")
    if recipe.batch_size % accelerator.num_processes:
        raise UserError(
            f"batch_size {recipe.batch_size} cannot be shared by {accelerator.num_processes} "
            "processes: make it a multiple"
        )
    if accelerator.device.type == "cpu":
        _keep_memory()
    return accelerator


def _licence(recipe: Recipe, data_set: DataSet) -> str:
    """What binds the weights: the data set's licence, and those of the runs that they build on."""
    runs = [path for path in (recipe.start, *recipe.teachers) if path and Path(path).is_dir()]
    return "; ".join(dict.fromkeys([data_set.licence, *(load_run(p).licence for p in runs)]))


def _refuse_leaks(recipe: Recipe, data_set: DataSet, split: Split) -> None:
    """UserError where a network to start or learn from may know this split's test pictures."""
    for path in filter(None, (recipe.start, *recipe.teachers)):
        if not Path(path).is_dir():
            continue
        run = load_run(path)
        if run.data_set == data_set.name and run.split_sha256 != split.sha256:
            raise UserError(
                f"{path} was trained on another split of {data_set.name}, which may hold pictures "
                "to be tested on here: give its split.json with --split"
            )


def _choose(
    recipe: Recipe, data_set: DataSet, split: Split
) -> tuple[tuple[str, ...], dict[str, list[Record]]]:
    """The labels, and the records of train and val that have what this kind of network learns."""
    parts = {part: split.select(data_set.records, part) for part in ("train", "val")}
    if recipe.kind != "classifier" and not any(r.mask for r in parts["train"]):
        raise UserError(f"{data_set.name} has no masks to train a {recipe.kind} on")
    if recipe.kind == "segmenter":
        parts = {part: [r for r in rs if r.mask is not None] for part, rs in parts.items()}
        return (), parts
    labels = present_labels(parts["train"], CLASSES)
    if len(labels) < 2:
        raise UserError(
            f"a classifier needs two classes at least; the training part of {data_set.name} has "
            + (f"only {labels[0]}" if labels else "no labels")
        )
    return labels, {part: [r for r in rs if r.label in labels] for part, rs in parts.items()}


def _report_problems(split: Split, pictures: dict[str, Pictures], accelerator: Accelerator) -> None:
    if accelerator.is_main_process:
        for line in split.notes[:MOST_NOTES]:
            print(f"note on the split: {line}", file=sys.stderr)
        if len(split.notes) > MOST_NOTES:
            print(f"... and {len(split.notes) - MOST_NOTES} more notes", file=sys.stderr)
        for part in pictures.values():
            for line in part.problems:
                print(f"left out {line}", file=sys.stderr)
    if not len(pictures["train"]):
        raise UserError("none of the training pictures could be read")
    empty, drawn = _masks(pictures["train"])
    if empty and accelerator.is_main_process:
        print(f"{empty} of {drawn} masks of the training part are empty", file=sys.stderr)
    if drawn and empty == drawn:
        raise UserError("all masks of the training part are empty: there is no lesion to learn")


def _masks(pictures: Pictures) -> tuple[int, int]:
    """How many masks are empty, and how many there are."""
    if pictures.masks is None:
        return 0, 0
    masks = [pictures.mask(index) for index in range(len(pictures))]
    drawn = [mask for mask in masks if mask[0, 0] != UNKNOWN]
    return sum(not mask.any() for mask in drawn), len(drawn)


def _describe(recipe, data_set, split, out, labels, pictures, learner, code) -> Run:
    subset = [note for note in split.notes if note.startswith("subset")]
    return Run(
        folder=out,
        kind=recipe.kind,
        model=recipe.model,
        labels=labels,
        preprocessing=recipe.preprocessing,
        size=recipe.preprocessing.size,
        data_set=data_set.name,
        data_root=str(data_set.root),
        licence=_licence(recipe, data_set),
        procedural=data_set.procedural,
        split_sha256=split.sha256,
        seed=recipe.seed,
        pretrained=learner.pretrained,
        start=recipe.start,
        metadata=recipe.fields,
        commit=code,
        subset=subset[0] if subset else None,
        pictures={part: len(found) for part, found in pictures.items()},
        parameters=learner.complexity.parameters,
        macs=learner.complexity.macs,
        processes=learner.accelerator.num_processes,
        steps=learner.step,
        planned=learner.total,
        finished=learner.step >= learner.total,
        val=learner.best_scores,
        versions={
            "dermedge": __version__,
            **{name: version(name) for name in ("torch", "torchvision", "accelerate")},
        },
    )


def _anyone(asked: list[int], step: int, accelerator: Accelerator) -> bool:
    """Whether any process was asked to stop; all processes get the same answer."""
    if accelerator.num_processes == 1:
        return bool(asked)
    if step % LOG_EVERY:
        return False
    flag = torch.tensor([float(bool(asked))], device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum").item())


@contextmanager
def _interruption() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM instead of dying from them; the second one kills."""
    asked: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in signals]

    def note(number, _frame):
        asked.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in signals:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
