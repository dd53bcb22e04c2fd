"""The threshold "see a doctor", lowered so that another precision than FP32 finds as many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dermedge.bundle.manifest import Thresholds
from dermedge.evaluation import metrics
from export.thresholds.choose import SENSITIVITY
from export.validation.outputs import Outputs, ValidationSet
from train.recipe import Acceptance


def lowered(
    thresholds: Thresholds,
    tuning: ValidationSet,
    reference: Outputs,
    candidate: Outputs,
    margins: Acceptance,
) -> Thresholds:
    """The thresholds, "see a doctor" lowered for a candidate where that costs FP32 little.

    The threshold was the highest at which FP32 finds enough: another precision, however good, finds
    one malignant lesion less or more there. `tuning` is the tuning half, `reference` FP32's outputs
    on it.
    """
    if reference.probabilities is None or not candidate.finite or not margins.sensitivity:
        return thresholds
    needed = needed_threshold(tuning, candidate)
    found = replace(thresholds, see_doctor=min(needed, thresholds.see_doctor))
    before, after = (
        specificity(tuning, reference, limits.see_doctor) for limits in (thresholds, found)
    )
    return found if after >= margins.retained * before else thresholds


def lowest(thresholds: Sequence[Thresholds]) -> Thresholds:
    """The first, with the lowest "see a doctor": where every precision still finds enough."""
    return replace(thresholds[0], see_doctor=min(item.see_doctor for item in thresholds))


def needed_threshold(validation_set: ValidationSet, outputs: Outputs) -> float:
    """The highest "see a doctor" at which a graph still finds `SENSITIVITY`, four decimals."""
    level, truth, weights = _named(validation_set, outputs)
    limit = metrics.threshold_at_sensitivity(level, truth, SENSITIVITY, weights)
    return float(max(np.floor(limit * 1e4) / 1e4, 1e-4))


def specificity(validation_set: ValidationSet, outputs: Outputs, threshold: float) -> float:
    """Share of the benign lesions below a threshold of malignancy."""
    level, truth, weights = _named(validation_set, outputs)
    below = (level < threshold)[~truth]
    return float((weights[~truth] * below).sum() / weights[~truth].sum())


def _named(
    validation_set: ValidationSet, outputs: Outputs
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Malignancy, whether it is malignant, and the weight, of the pictures with a label."""
    named = validation_set.classes >= 0
    truth = validation_set.malignant_labels[validation_set.classes[named]]
    return outputs.malignancy(validation_set)[named], truth, validation_set.weights[named]
