"""What a network makes of the pictures of a data set, as the device would show them to it."""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from tqdm import tqdm

from dermedge.data.records import Record
from dermedge.image.preprocess import Placement, Preprocessing, prepare
from dermedge.image.read import ImageError, read_image
from dermedge.lesion.features import clean
from dermedge.metadata import encode
from dermedge.runtime import Session
from dermedge.text import printable
from train.models import Normalized

BATCH = 16

Box = tuple[int, int, int, int]
Crop = Callable[[np.ndarray], Box | None]  # a picture to the box of its lesion


@dataclass(frozen=True, eq=False)
class Sight:
    """One picture as a network is fed with it, and what the network answers."""

    record: Record
    square: np.ndarray  # uint8 (S, S, 3)
    placement: Placement
    metadata: np.ndarray  # float32 (M,)
    answers: dict[str, np.ndarray]

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        """The inputs of the exported graph."""
        feeds = {"image": self.square[None]}
        return {**feeds, "metadata": self.metadata[None]} if len(self.metadata) else feeds


def feed(
    records: Sequence[Record],
    spec: Preprocessing,
    metadata: Sequence[str],
    crop: Crop | None = None,
    note: str = "reading",
) -> list[Sight]:
    """Pictures as a network is fed with them, nothing answered; unreadable ones are left out."""

    def read(record: Record) -> Sight | str:
        try:
            square, placement = _read(record, spec, crop)
        except ImageError as error:
            return f"left out {record.id}: {error}"
        told = encode(metadata, record.age, record.sex, record.site)
        return Sight(record, square, placement, told, {})

    with ThreadPoolExecutor() as pool:
        bar = tqdm(pool.map(read, records), note, len(records), unit="picture", file=sys.stderr)
        found = list(bar)
    for line in found:
        if isinstance(line, str):
            print(printable(line), file=sys.stderr)
    return [sight for sight in found if isinstance(sight, Sight)]


def _read(record: Record, spec: Preprocessing, crop: Crop | None) -> tuple[np.ndarray, Placement]:
    pixels = read_image(record.image).pixels
    return prepare(pixels, spec, crop(pixels) if crop and spec.crop else None)


def look(
    model: Normalized,
    spec: Preprocessing,
    records: Sequence[Record],
    judge: Callable[[Sight], object],
    crop: Crop | None = None,
    note: str = "looking",
) -> list:
    """Run a network over pictures; what `judge` makes of each, those that cannot be read left out.

    Answers are "mask", float32 (S, S) probability, and of classifiers and multitask networks
    "classes" (K,) logits, "features" (D,) and, where the network takes metadata, "without": the
    logits when none is known. `judge` is called from several threads; it may raise ImageError.
    """

    def read(record: Record) -> tuple[Record, np.ndarray, Placement]:
        return record, *_read(record, spec, crop)

    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=len(records), desc=note, unit="picture", file=sys.stderr) as bar,
    ):

        def tried(function, items, ids) -> list:
            found = []
            tasks = [pool.submit(function, item) for item in items]
            for name, task in zip(ids, tasks, strict=True):
                try:
                    found.append(task.result())
                except ImageError as error:
                    tqdm.write(f"left out {name}: {error}", file=sys.stderr)
            return found

        judged = []
        for start in range(0, len(records), BATCH):
            chunk = records[start : start + BATCH]
            seen = tried(read, chunk, [record.id for record in chunk])
            sights = _sights(model, seen) if seen else []
            judged += tried(judge, sights, [sight.record.id for sight in sights])
            bar.update(len(chunk))
    return judged


def _sights(model: Normalized, seen: list[tuple[Record, np.ndarray, Placement]]) -> list[Sight]:
    metadata = np.stack(
        [encode(model.metadata, record.age, record.sex, record.site) for record, _, _ in seen]
    )
    images = torch.from_numpy(np.stack([square for _, square, _ in seen]))
    with torch.inference_mode():
        if model.kind == "segmenter":
            found = {"mask": model(images)}
        else:
            found = model.explain(images, torch.from_numpy(metadata))
            found.pop("activation", None)
            if model.metadata:
                found["without"] = model.explain(images)["classes"]
        if "mask" in found:
            found["mask"] = torch.sigmoid(found["mask"]).squeeze(1)
    answers = {name: value.numpy() for name, value in found.items()}
    return [
        Sight(*item, metadata[i], {name: value[i] for name, value in answers.items()})
        for i, item in enumerate(seen)
    ]


def cropper(session: Session, spec: Preprocessing, threshold: float) -> Crop:
    """Where the device finds the lesion: the box of the mask that a segmenter's graph gives."""

    def box(pixels: np.ndarray) -> Box | None:
        square, placement = prepare(pixels, spec)
        mask = session.run({"image": square[None]})["mask"][0]
        _, contours = clean(placement.restore(mask) >= threshold)
        return cv2.boundingRect(np.concatenate(contours)) if contours else None

    return box


def sample(records: Sequence[Record], most: int) -> list[Record]:
    """About `most` of the records, each class with its share of them, but one at least.

    Which ones depends on their ids alone; they are ordered by class, those of none last.
    """
    strata = defaultdict(list)
    for record in records:
        strata[record.label].append(record)
    share = min(1.0, most / max(1, len(records)))
    chosen = []
    for label in sorted(strata, key=lambda label: (label is None, label or "")):
        stratum = sorted(strata[label], key=lambda r: hashlib.sha256(r.id.encode()).digest())
        chosen += stratum[: max(1, int(share * len(stratum)))]
    return chosen
