"""Half of the validation part as a graph takes it, and what a graph makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dermedge.evaluation import metrics
from dermedge.image.preprocess import Placement
from dermedge.image.read import read_mask
from dermedge.runtime import open_session
from dermedge.taxonomy import MALIGNANT
from export.validation.prepared import Feeds
from export.validation.weights import prior_weights


@dataclass(frozen=True, eq=False)
class ValidationSet:
    """Pictures of one half of the validation part, as a graph takes them; one entry a picture."""

    feeds: list[Feeds]
    groups: np.ndarray  # int (n,): lesion or patient
    labels: tuple[str, ...] = ()  # () of a segmenter
    targets: np.ndarray | None = None  # int (n,): index of the label, -1: it has none
    masks: list[Path | None] = field(default_factory=list)  # file of the drawn mask
    placements: list[Placement] = field(default_factory=list)
    prior: np.ndarray | None = None  # float (K,) that was asked for; None: as the classes are here

    @property
    def weights(self) -> np.ndarray:
        """What each picture weighs for thresholds, float64 (n,); see `prior_weights`."""
        return prior_weights(self.classes, self.prior)

    @property
    def classes(self) -> np.ndarray:
        """`targets`; -1 of each picture where there are none."""
        return np.full(len(self.groups), -1) if self.targets is None else self.targets

    @property
    def malignant_labels(self) -> np.ndarray:
        """bool (K,): which labels are malignant."""
        return np.array([label in MALIGNANT for label in self.labels], bool)

    def sizes(self) -> dict[str, int]:
        """How many pictures, lesions or patients, and pictures of malignant lesions it holds."""
        return {
            "pictures": len(self.groups),
            "lesions": len(np.unique(self.groups)),
            "malignant": int(np.isin(self.classes, np.flatnonzero(self.malignant_labels)).sum()),
        }


@dataclass(frozen=True, eq=False)
class Outputs:
    """What one graph makes of a validation set; None: it has no such output."""

    probabilities: np.ndarray | None  # float64 (n, K)
    distance: np.ndarray | None  # float32 (n,)
    jaccard: np.ndarray | None  # float (n,), nan without a drawn mask
    masks: np.ndarray | None  # float16 (n, S / 4, S / 4): every fourth row and column

    @property
    def finite(self) -> bool:
        """Whether the graph gave numbers for every picture. FP16 overflows without an error."""
        every = (self.probabilities, self.distance, self.masks)
        return all(np.isfinite(values).all() for values in every if values is not None)

    def malignancy(self, validation_set: ValidationSet) -> np.ndarray:
        """float64 (n,): the sum of the malignant classes' probabilities."""
        return known(self.probabilities)[:, validation_set.malignant_labels].sum(axis=1)


def known(values: np.ndarray | None) -> np.ndarray:
    """An output of a network that has it."""
    assert values is not None
    return values


def run_graph(
    validation_set: ValidationSet,
    graph: bytes,
    threshold: float,
    note: str,
    targets: Sequence[str] | None = None,
) -> Outputs:
    """Run a graph over a validation set.

    Parameters
    ----------
    threshold : makes its probabilities a mask.
    targets : that it was made for, as `open_session` takes them.
    """
    session = open_session(graph, targets=targets)
    probabilities, distances, jaccards, masks = [], [], [], []
    for index, feeds in enumerate(tqdm(validation_set.feeds, desc=note, unit="picture")):
        outputs = session.run(feeds)
        if "probabilities" in outputs:
            probabilities.append(outputs["probabilities"][0].astype(np.float64))
        if "distance" in outputs:
            distances.append(outputs["distance"][0, 0])
        if "mask" in outputs:
            mask = outputs["mask"][0]
            small = mask[::4, ::4].astype(np.float16)
            # One number that is none, wherever it is, makes none of the sum.
            masks.append(small if np.isfinite(mask.sum()) else np.full_like(small, np.nan))
            jaccards.append(_jaccard(mask, validation_set, index, threshold))
    return Outputs(
        *(np.array(values) if values else None for values in (probabilities, distances)),
        *(np.array(values) if values else None for values in (jaccards, masks)),
    )


def _jaccard(
    mask: np.ndarray, validation_set: ValidationSet, index: int, threshold: float
) -> float:
    drawn = validation_set.masks[index]
    if drawn is None:
        return float("nan")
    truth = read_mask(drawn)
    probability = validation_set.placements[index].restore(mask, truth.shape)
    return float(metrics.confusion([probability >= threshold], [truth]).jaccard[0])
