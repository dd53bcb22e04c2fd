"""The training loop, and the folder that a run leaves behind."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dermedge import UserError, __version__, metrics
from dermedge.datasets.records import DataSet, Record
from dermedge.datasets.split import Split
from dermedge.files import write_atomic
from dermedge.preprocess import Preprocessing
from dermedge.taxonomy import CLASSES
from train.data import Batches, Pictures, Views, load_pictures, loader, present_labels
from train.losses import class_weights, classifier_loss, discriminator_loss, segmenter_losses
from train.mobilegan import PatchDiscriminator
from train.models import Normalized, build_model, complexity
from train.recipe import Recipe, load_recipe, to_toml

LOG_EVERY = 10  # steps


class Interrupted(Exception):
    """Training was asked to stop, and did so after saving a checkpoint."""


@dataclass(frozen=True)
class Run:
    """What a run folder says about its network; `run.json`."""

    folder: Path
    kind: str  # "segmenter" or "classifier"
    model: str
    labels: tuple[str, ...]  # of a classifier, in the order of its outputs
    preprocessing: Preprocessing
    size: int
    data_set: str
    data_root: str
    licence: str
    procedural: bool  # trained on generated pictures
    split_sha256: str
    seed: int
    pretrained: bool  # started from ImageNet weights
    subset: str | None  # what part of the data set was used; None: all of it
    pictures: dict[str, int]  # how many were in the parts that training used
    parameters: int
    macs: int
    processes: int
    steps: int  # done so far
    finished: bool
    val: dict[str, float]  # of the weights in best.pt
    versions: dict[str, str]

    def save(self) -> None:
        content = asdict(self)
        del content["folder"]
        write_atomic(self.folder / "run.json", json.dumps(content, indent=1) + "\n")


def load_run(path: str | Path) -> Run:
    """Read a run folder. UserError where there is none, or none that can be used."""
    folder = Path(path)
    try:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        content["preprocessing"] = Preprocessing.from_dict(content["preprocessing"])
        content["labels"] = tuple(content["labels"])
        return Run(folder=folder, **content)
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no run folder: it has no run.json") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / 'run.json'} cannot be used: {error}") from error


def load_model(run: Run) -> Normalized:
    """The network with the weights in best.pt, in evaluation mode, on the CPU."""
    path = run.folder / "best.pt"
    if not path.exists():
        raise UserError(f"{run.folder} has no best.pt yet: train on until the first validation")
    model = build_model(run.model, run.labels)
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def train(
    recipe: Recipe,
    data_set: DataSet,
    split: Split,
    out: str | Path,
    *,
    subset: str | None = None,
    fresh: bool = False,
) -> Run:
    """Train the recipe's network on the split's train part; validate on its val part.

    A run that `out` already holds goes on from its checkpoint, exactly as if it had never
    stopped; `fresh` throws it away instead. `subset` is recorded: what part of the data set the
    split covers.

    Raises
    ------
    UserError : the data set lacks masks or labels, or `out` holds another run.
    Interrupted : on Ctrl-C, after a checkpoint.
    """
    out = Path(out)
    accelerator = _accelerator(recipe)
    checkpoint = _open_folder(out, recipe, split, fresh, accelerator)

    labels, parts = _choose(recipe, data_set, split)
    with accelerator.main_process_first():
        train_part, val_part = (
            load_pictures(
                part, recipe.preprocessing, recipe.kind == "segmenter", out.parent / "cache"
            )
            for part in parts
        )
    if accelerator.is_main_process:
        for line in (*train_part.problems, *val_part.problems):
            print(f"left out {line}", file=sys.stderr)
    if not len(train_part):
        raise UserError("none of the training pictures could be read")

    batches = Batches(len(train_part), recipe.batch_size, recipe.seed, 0, 0)
    total = recipe.epochs * batches.per_epoch
    total = min(total, recipe.max_steps) if recipe.max_steps else total
    _reproducible(recipe.seed, 0, 0)
    learner = Learner(recipe, labels, train_part, total, accelerator)
    if checkpoint:
        learner.load(checkpoint)

    views = Views(train_part, labels, recipe.augmentation, recipe.seed)
    batches = Batches(
        len(train_part),
        recipe.batch_size,
        recipe.seed,
        start=learner.step,
        stop=total,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    run = Run(
        folder=out,
        kind=recipe.kind,
        model=recipe.model,
        labels=labels,
        preprocessing=recipe.preprocessing,
        size=recipe.preprocessing.size,
        data_set=data_set.name,
        data_root=str(data_set.root),
        licence=data_set.licence,
        procedural=data_set.procedural,
        split_sha256=split.sha256,
        seed=recipe.seed,
        pretrained=learner.pretrained,
        subset=subset,
        pictures={"train": len(train_part), "val": len(val_part)},
        **asdict(learner.complexity),
        processes=accelerator.num_processes,
        steps=learner.step,
        finished=learner.step >= total,
        val=learner.best,
        versions={"dermedge": __version__, "torch": torch.__version__},
    )
    ...
