"""Pictures of a data set as a network is fed with them, and what it answers; as on the device."""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch
from tqdm import tqdm

from dermedge.data.masks import read_lesion_picture
from dermedge.data.records import Record
from dermedge.image.header import ImageError
from dermedge.image.preprocess import Placement, Preprocessing, prepare
from dermedge.lesion.features import clean
from dermedge.metadata import encode
from dermedge.runtime import Session
from dermedge.text import printable
from train.models import Normalized

BATCH = 16

Box = tuple[int, int, int, int]
Crop = Callable[[np.ndarray], "Box | None"]  # a picture to the box of its lesion
Feeds = dict[str, np.ndarray]  # the inputs of an exported graph, by name
Value = TypeVar("Value")
Item = TypeVar("Item")


@dataclass(frozen=True)
class FeedSpec:
    """How a network is fed with a picture."""

    preprocessing: Preprocessing
    metadata: tuple[str, ...] = ()  # fields that it takes
    crop: Crop | None = None  # finds the lesion, for a network that is fed with crops


@dataclass(frozen=True, eq=False)
class PreparedSample:
    """One picture as a network is fed with it."""

    record: Record
    square: np.ndarray  # uint8 (S, S, 3)
    placement: Placement
    metadata: np.ndarray  # float32 (M,)

    @property
    def feeds(self) -> Feeds:
        """The inputs of the exported graph."""
        feeds = {"image": self.square[None]}
        return {**feeds, "metadata": self.metadata[None]} if len(self.metadata) else feeds


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network, not yet exported, answers to one picture.

    `outputs` are "mask", float32 (S, S) probability, and of classifiers and multitask networks
    "classes" (K,) logits, "features" (D,) and, where the network takes metadata, "without": the
    logits when none is known.
    """

    sample: PreparedSample
    outputs: dict[str, np.ndarray]


def _prepare(record: Record, spec: FeedSpec) -> PreparedSample:
    """Raises ImageError where the picture cannot be read."""
    pixels = read_lesion_picture(record.image).pixels
    box = spec.crop(pixels) if spec.crop and spec.preprocessing.crop else None
    square, placement = prepare(pixels, spec.preprocessing, box)
    metadata = encode(spec.metadata, record.age, record.sex, record.site)
    return PreparedSample(record, square, placement, metadata)


def _attempt(function: Callable[[Item], Value], item: Item, name: str) -> Value | str:
    """What `function` makes of the item, or a line that says why it is left out."""
    try:
        return function(item)
    except ImageError as error:
        return f"left out {name}: {error}"


def prepare_samples(
    records: Sequence[Record], spec: FeedSpec, note: str = "reading"
) -> list[PreparedSample]:
    """Pictures as a network is fed with them; unreadable ones are left out, with a line."""

    def read(record: Record) -> PreparedSample | str:
        return _attempt(lambda one: _prepare(one, spec), record, record.id)

    with ThreadPoolExecutor() as pool:
        bar = tqdm(pool.map(read, records), note, len(records), unit="picture", file=sys.stderr)
        samples = list(bar)
    for line in samples:
        if isinstance(line, str):
            print(printable(line), file=sys.stderr)
    return [sample for sample in samples if isinstance(sample, PreparedSample)]


def predict(
    model: Normalized,
    spec: FeedSpec,
    records: Sequence[Record],
    use: Callable[[Prediction], Value],
    note: str = "predicting",
) -> list[Value]:
    """Run a network over pictures; what `use` makes of each, those that cannot be read left out.

    `use` is called from several threads; it may raise ImageError.
    """
    values: list[Value] = []
    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=len(records), desc=note, unit="picture", file=sys.stderr) as bar,
    ):
        for start in range(0, len(records), BATCH):
            chunk = records[start : start + BATCH]
            samples = _kept(
                pool.map(lambda r: _attempt(lambda one: _prepare(one, spec), r, r.id), chunk)
            )
            predictions = _predictions(model, samples) if samples else []
            values += _kept(pool.map(lambda p: _attempt(use, p, p.sample.record.id), predictions))
            bar.update(len(chunk))
    return values


def _kept(results) -> list:
    """The results, each line printed instead."""
    kept = []
    for result in results:
        if isinstance(result, str):
            tqdm.write(printable(result), file=sys.stderr)
        else:
            kept.append(result)
    return kept


def _predictions(model: Normalized, samples: Sequence[PreparedSample]) -> list[Prediction]:
    images = torch.from_numpy(np.stack([sample.square for sample in samples]))
    metadata = torch.from_numpy(np.stack([sample.metadata for sample in samples]))
    with torch.inference_mode():
        if model.kind == "segmenter":
            tensors = {"mask": model(images)}
        else:
            tensors = model.explain(images, metadata)
            tensors.pop("activation", None)
            if model.metadata:
                tensors["without"] = model.explain(images)["classes"]
        if "mask" in tensors:
            tensors["mask"] = torch.sigmoid(tensors["mask"]).squeeze(1)
    outputs = {name: value.numpy() for name, value in tensors.items()}
    return [
        Prediction(sample, {name: value[row] for name, value in outputs.items()})
        for row, sample in enumerate(samples)
    ]


def cropper(session: Session, spec: Preprocessing, threshold: float) -> Crop:
    """Where the device finds the lesion: the box of the mask that a segmenter's graph gives."""

    def box(pixels: np.ndarray) -> Box | None:
        square, placement = prepare(pixels, spec)
        mask = session.run({"image": square[None]})["mask"][0]
        _, contours = clean(placement.restore(mask) >= threshold)
        if not contours:
            return None
        x, y, width, height = cv2.boundingRect(np.concatenate(contours))
        return x, y, width, height

    return box


def subset(records: Sequence[Record], most: int) -> list[Record]:
    """About `most` of the records, each class with its share of them, but one at least.

    Which ones depends on their ids alone; they are ordered by class, those of none last.
    """
    strata = defaultdict(list)
    for record in records:
        strata[record.label].append(record)
    share = min(1.0, most / max(1, len(records)))
    selected = []
    for label in sorted(strata, key=lambda label: (label is None, label or "")):
        stratum = sorted(strata[label], key=lambda r: hashlib.sha256(r.id.encode()).digest())
        selected += stratum[: max(1, int(share * len(stratum)))]
    return selected
