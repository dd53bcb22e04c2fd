"""How many pictures a second training takes, beside torchvision's reference training script.

The reference is what `references/classification/train.py` of torchvision does by default: each
picture is decoded by PIL at every step, cut and flipped at random, normalized, and learnt by SGD.
Both sides train the same network on the same pictures with the same batches, each in a process of
its own, because both change what holds for a whole process. They take turns, and each turn of one
is compared with the other's next to it: a machine that slows down slows both.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import multiprocessing
import platform
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler
from tqdm import tqdm

from dermedge import UserError, __version__
from dermedge.data.records import DataSet, Record
from dermedge.evaluation.provenance import cpu_name
from dermedge.files import check_writable, read_text, write_atomic
from dermedge.taxonomy import CLASSES
from train.data import Batches, Pictures, load_pictures, present_labels
from train.feed import training_batches
from train.learner import Learner
from train.loop import make_accelerator
from train.models import build_model
from train.recipe import Recipe
from train.sources import sampling_shares

ROUNDS = 7
_T95 = 2.447  # Student's t for 95 % of ROUNDS - 1 degrees of freedom
ENDLESS = 10**9  # steps or samples; no measurement comes to their end

CONDITIONS = {
    "rounds": "turns of each side, alternating",
    "seconds": "of each turn, warm-up left out",
    "prepared": "pictures a second of filling the cache, which is done once before training",
    "data_set": "name of its reader",
    "pictures": "that both sides draw from, chosen by a hash of their ids",
    "recipe": "name of the recipe",
    "model": "name of the network in the registry",
    "size": "side of the network's square input, px",
    "batch_size": "pictures in each step",
    "workers": "loader processes of each side",
    "amp": "mixed precision of both sides",
    "channels_last": "memory layout of our side; the reference has no such option",
    "threads": "of PyTorch",
    "processor": "name of the processor",
    "accelerator": "name of the GPU; '-': none was used",
    "dermedge": "version",
    "torch": "version",
    "torchvision": "version",
    "date": "day of the measurement, UTC",
}

COLUMNS = {
    "measured": "training: loading and learning; loading: the pictures alone, without a network",
    "ours": "pictures a second of `dermedge train`, geometric mean of the rounds",
    "reference": "pictures a second of torchvision's reference training, likewise",
    "ratio": "ours to reference, geometric mean of the rounds",
    "ratio_low": "lower end of its 95 % interval (Student's t of the rounds' logarithms)",
    "ratio_high": "upper end",
    **CONDITIONS,
}

Source = Callable[[], Iterable]  # gives new endless batches
Use = Callable[[Any], int]  # takes a batch, gives the number of its pictures


def measure(recipe: Recipe, data_set: DataSet, seconds: float, limit: int) -> list[dict]:
    """Measure both sides in turns; a row of `COLUMNS` for training, and one for loading.

    Parameters
    ----------
    recipe : of a classifier without metadata, teachers and kept views, which the reference does not
        have.
    seconds : of each turn; there are four times `ROUNDS` of them.
    limit : how many labelled pictures are used at most.

    Raises
    ------
    UserError : another kind of recipe, or a data set without two classes or readable pictures.
    """
    beside = (recipe.fields, recipe.teachers, recipe.paired, recipe.views)
    if recipe.kind != "classifier" or any(beside):
        raise UserError(
            "throughput compares plain classifiers: no mask, metadata, teacher or kept views"
        )
    # What the weights are makes no difference to the time.
    recipe = replace(recipe, pretrained="no", start="")
    records, labels = chosen(recipe, data_set, limit)
    with tempfile.TemporaryDirectory() as cache:
        pictures, prepared = timed_pictures(records, recipe, Path(cache))
        arguments = (recipe, pictures.records, labels, cache)
        rates: dict[tuple[str, str], list[float]]
        rates = {(what, side): [] for what in ("training", "loading") for side in _SIDES}
        with _process("ours", arguments) as ours, _process("reference", arguments) as reference:
            turns = [("ours", ours), ("reference", reference)]
            for number in tqdm(range(ROUNDS), "measuring", unit="round"):
                for what in ("training", "loading"):
                    # Neither side is always the first.
                    for side, connection in turns[:: -1 if number % 2 else 1]:
                        connection.send((what, seconds))
                        rates[what, side].append(_reply(connection, side))
    common = conditions(recipe, data_set, len(pictures), seconds, prepared)
    return [
        {"measured": what, **compared(rates[what, "ours"], rates[what, "reference"]), **common}
        for what in ("training", "loading")
    ]


def chosen(recipe: Recipe, data_set: DataSet, limit: int) -> tuple[list[Record], tuple[str, ...]]:
    """Pictures by a hash of their ids, and the labels that a network of this kind has."""
    masks = recipe.kind == "segmenter"
    records = [record for record in data_set.records if (record.mask if masks else record.label)]
    records.sort(key=lambda record: hashlib.sha256(record.id.encode()).digest())
    records = records[:limit]
    if masks:
        if not records:
            raise UserError(f"{data_set.name} has no masks to train a segmenter on")
        return records, ()
    labels = present_labels(records, CLASSES)
    if len(labels) < 2:
        raise UserError(f"{data_set.name} has no two classes among the pictures that are used")
    return records, labels


def timed_pictures(
    records: Sequence[Record], recipe: Recipe, cache: Path
) -> tuple[Pictures, float]:
    """The pictures, and how many a second were prepared. UserError where none can be read."""
    begin = time.perf_counter()
    pictures = load_pictures(records, recipe, cache)
    took = time.perf_counter() - begin
    if not len(pictures):
        raise UserError("none of the pictures could be read")
    return pictures, len(pictures) / took


def conditions(
    recipe: Recipe, data_set: DataSet, pictures: int, seconds: float, prepared: float
) -> dict[str, Any]:
    """The columns of `CONDITIONS`; `prepared` in pictures a second."""
    return {
        "rounds": ROUNDS,
        "seconds": seconds,
        "prepared": f"{prepared:.1f}",
        "data_set": data_set.name,
        "pictures": pictures,
        "recipe": recipe.name,
        "model": recipe.model,
        "size": recipe.preprocessing.size,
        "batch_size": recipe.batch_size,
        "workers": recipe.workers,
        "amp": recipe.amp,
        "channels_last": recipe.channels_last,
        "threads": torch.get_num_threads(),
        "processor": cpu_name() or platform.machine(),
        "accelerator": _accelerator(),
        "dermedge": __version__,
        "torch": version("torch"),
        "torchvision": version("torchvision"),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def compared(ours: list[float], reference: list[float]) -> dict[str, str]:
    """Both rates and their ratio with its interval, from the rates of `ROUNDS` rounds."""
    logs = np.log([ours, reference])
    ratios = logs[0] - logs[1]
    spread = _T95 * ratios.std(ddof=1) / math.sqrt(len(ratios))
    values = (*logs.mean(axis=1), *(ratios.mean() + spread * np.array([0, -1, 1])))
    names = ("ours", "reference", "ratio", "ratio_low", "ratio_high")
    return {name: f"{math.exp(value):.4g}" for name, value in zip(names, values, strict=True)}


def table_before(path: Path, columns: Iterable[str] = COLUMNS) -> str:
    """What a table of `columns` holds so far; "" where there is none yet.

    UserError where it is another table or a folder, OSError where it could not be written.
    """
    check_writable(path)
    before = read_text(path) if path.exists() else ""
    if before and before.splitlines()[0] != ",".join(columns):
        raise UserError(f"{path} is a table of something else: give another file with --out")
    return before


def append_rows(rows: list[dict], path: Path, columns: Iterable[str] = COLUMNS) -> None:
    """Add rows to a table of `columns`, or begin one. Raises as `table_before`."""
    before = table_before(path, columns)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    if not before:
        writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, before + text.getvalue())


def _ours(
    recipe: Recipe, records: tuple[Record, ...], labels: tuple[str, ...], cache: str
) -> dict[str, tuple[Source, Use]]:
    pictures = load_pictures(records, recipe, Path(cache))
    learner = Learner(recipe, labels, pictures, ENDLESS, make_accelerator(recipe))
    shares = sampling_shares(pictures.records, recipe.balanced_sampling)
    batches = Batches(len(pictures), recipe.batch_size, recipe.seed, shares)
    device, priors = learner.accelerator.device, learner.batch_priors()

    def source() -> Iterable:
        steps = batches.share(learner.step, ENDLESS, 0, 1)
        return training_batches(pictures, labels, recipe, steps, device, priors)

    def learn(batch: dict[str, torch.Tensor]) -> int:
        learner.update(batch)
        return len(batch["image"])

    return {"training": (source, learn), "loading": (source, lambda batch: len(batch["image"]))}


def _reference(
    recipe: Recipe, records: tuple[Record, ...], labels: tuple[str, ...], _: str
) -> dict[str, tuple[Source, Use]]:
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    torch.backends.cudnn.benchmark = True  # as the reference has it
    # Its normalization is a part of its loader.
    model = build_model(recipe.model, labels).net.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    dtype = torch.float16 if recipe.amp == "fp16" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp == "fp16")
    files = _Files(records, labels, recipe.preprocessing.size)

    def source() -> DataLoader:
        return DataLoader(
            files,
            batch_size=recipe.batch_size,
            # No epoch ends: starting the workers again is not what is measured.
            sampler=RandomSampler(files, replacement=True, num_samples=ENDLESS),
            num_workers=recipe.workers,
            pin_memory=device.type != "cpu",
        )

    def learn(batch: list[torch.Tensor]) -> int:
        images, classes = (part.to(device, non_blocking=True) for part in batch)
        with torch.autocast(device.type, dtype, enabled=recipe.amp != "no"):
            loss = torch.nn.functional.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return len(images)

    return {"training": (source, learn), "loading": (source, lambda batch: len(batch[0]))}


class _Files(Dataset):
    """Float (3, size, size) and the number of the class, from the file at every call."""

    def __init__(self, records: tuple[Record, ...], labels: tuple[str, ...], size: int):
        from torchvision import transforms

        self.samples = [(record.image, labels.index(record.label)) for record in records]
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.PILToTensor(),
                transforms.ConvertImageDtype(torch.float),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        path, label = self.samples[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


_SIDES = {"ours": _ours, "reference": _reference}


@contextmanager
def _process(side: str, arguments: tuple) -> Iterator[Connection]:
    """A process of its own for one side; it ends when the connection does."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, side, arguments))
    process.start()
    there.close()
    try:
        _reply(here, side)
        yield here
    finally:
        here.close()
        process.join()


def _serve(connection: Connection, side: str, arguments: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the parent this
    try:
        work = _SIDES[side](*arguments)
        connection.send(0.0)
        while True:
            what, seconds = connection.recv()
            connection.send(rate_of(*work[what], seconds, warm_up=2 * arguments[0].workers + 3))
    except UserError as error:
        connection.send(error)
    except EOFError:
        pass


def _reply(connection: Connection, side: str) -> float:
    try:
        reply = connection.recv()
    except EOFError as error:
        raise UserError(f"measuring '{side}' failed; the reason stands above") from error
    if isinstance(reply, UserError):
        raise reply
    return reply


def rate_of(source: Source, use: Use, seconds: float, warm_up: int) -> float:
    """Pictures a second. The warm-up uses up what the loader's workers have made beforehand."""
    batches = iter(source())
    for _ in range(warm_up):
        use(next(batches))
    _wait_for_device()
    count, begin = 0, time.perf_counter()
    while not count or time.perf_counter() - begin < seconds:
        count += use(next(batches))
    _wait_for_device()
    return count / (time.perf_counter() - begin)


def _wait_for_device() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _accelerator() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return str(torch.accelerator.current_accelerator(check_available=True) or "-")
