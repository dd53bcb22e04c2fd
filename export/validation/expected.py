"""What the accepting half can be expected to say, judged by how far answers move.

Few pictures change their advice or their class, so that their number on one half of the validation
part says little of that on the other. How far an answer moves shows on every picture: each is moved
as those of about its own value are, and what crosses a threshold then is counted. That chooses
candidates; the accepting half counts.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from dermedge.bundle.manifest import Thresholds
from dermedge.evaluation import metrics
from export.validation.compare import LEVEL
from export.validation.outputs import Outputs, ValidationSet, known
from train.recipe import Acceptance

NEIGHBOURS = 200  # pictures whose moves each one may make


def expected_missing(
    validation_set: ValidationSet,
    reference: Outputs,
    candidate: Outputs,
    thresholds: Thresholds,
    margins: Acceptance,
) -> float:
    """By how much another half of this size would miss a margin, with chance against it.

    Chance: one standard deviation. 0: it would miss neither that of triage nor that of the balanced
    accuracy, which rest upon the fewest pictures; infinite where the numbers are none.
    """
    if reference.probabilities is None:
        return 0.0
    if not candidate.finite:
        return math.inf
    data = (validation_set, reference, candidate, thresholds)
    bounds = ((margins.triage, _agreement(*data)), (margins.retained, _balanced_accuracy(*data)))
    return max([0.0, *(least - bound for least, bound in bounds if least)])


def _agreement(
    validation_set: ValidationSet, reference: Outputs, candidate: Outputs, thresholds: Thresholds
) -> float:
    """The lower bound of the share with FP32's advice."""
    expected = expected_changes(validation_set, reference, candidate, thresholds)
    share = max(0.0, 1 - (expected + np.sqrt(expected)) / len(validation_set.groups))
    lesions = len(np.unique(validation_set.groups))
    return metrics.wilson_interval(share, lesions, LEVEL).low


def _balanced_accuracy(
    validation_set: ValidationSet, reference: Outputs, candidate: Outputs, thresholds: Thresholds
) -> float:
    """The lower bound of what is retained of FP32's; 1 where no picture has a label."""
    targets = validation_set.classes
    named = targets >= 0
    if not named.any():
        return 1.0
    rows, truth = np.arange(int(named.sum())), targets[named]
    leads = []
    for outputs in (reference, candidate):
        scores = np.log(np.maximum(known(outputs.probabilities)[named], 1e-12))
        scores = scores + np.array(thresholds.class_offsets or 0)
        own = scores[rows, truth]
        scores[rows, truth] = -np.inf
        leads.append(own - scores.max(axis=1))
    counts = np.bincount(truth, minlength=len(validation_set.labels))
    weights = 1 / (np.count_nonzero(counts) * counts[truth])
    accuracy = float(weights[leads[0] > 0].sum())
    if not accuracy:
        return 1.0
    # Changes go both ways, so that their mean is about nothing and their spread is the doubt.
    spread = math.sqrt(float(_crossing(leads[0], leads[1], np.zeros(1)) @ weights**2)) / accuracy
    return 1 - (NormalDist().inv_cdf((1 + LEVEL) / 2) + 1) * spread


def expected_changes(
    validation_set: ValidationSet, reference: Outputs, candidate: Outputs, thresholds: Thresholds
) -> float:
    """How many pictures of another half of this size would change their advice."""
    old, new = (_logit(outputs.malignancy(validation_set)) for outputs in (reference, candidate))
    changes = _crossing(old, new, _logit(np.array([thresholds.see_doctor, thresholds.urgent])))
    if thresholds.unfamiliar is not None and reference.distance is not None:
        before, after = (
            np.log(np.maximum(known(outputs.distance), 1e-12)) for outputs in (reference, candidate)
        )
        retakes = _crossing(before, after, np.log(np.array([thresholds.unfamiliar])))
        changes = changes + retakes - changes * retakes
    return float(changes.sum())


def _logit(share: np.ndarray) -> np.ndarray:
    inside = np.clip(share, 1e-6, 1 - 1e-6)
    return np.log(inside) - np.log1p(-inside)


def _crossing(old: np.ndarray, new: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """How probable it is for each value (n,) to cross a limit, moved as its neighbours are."""
    order = np.argsort(old, kind="stable")
    moves = (new - old)[order]
    near = min(NEIGHBOURS, len(old))
    starts = np.clip(np.arange(len(old)) - near // 2, 0, len(old) - near)
    windows = np.lib.stride_tricks.sliding_window_view(moves, near)[starts]
    values = old[order]
    side = np.searchsorted(limits, values, side="right")
    moved = np.searchsorted(limits, values[:, None] + windows, side="right")
    shares = np.empty(len(old))
    shares[order] = (moved != side[:, None]).mean(axis=1)
    return shares
