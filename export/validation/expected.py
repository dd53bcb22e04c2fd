"""How many pictures change their advice, judged by how far answers move and not by how many did.

Few do, so that their number on one half of the validation part says little of that on the other.
How far the malignancy moves shows on every picture: each is moved as those of about its own
malignancy are, and what crosses a threshold then is counted. It chooses candidates; the accepting
half counts.
"""

from __future__ import annotations

import numpy as np

from dermedge.bundle.manifest import Thresholds
from dermedge.evaluation import metrics
from export.validation.compare import LEVEL
from export.validation.outputs import Outputs, ValidationSet, known

NEIGHBOURS = 200  # pictures whose moves each one may make


def expected_agreement(
    validation_set: ValidationSet, reference: Outputs, candidate: Outputs, thresholds: Thresholds
) -> float:
    """The lower bound of the share with FP32's advice that another half of this size would show.

    Allowing for as many changes more as chance brings there, by one standard deviation. 1 of a
    network without classes, 0 where its numbers are none.
    """
    if reference.probabilities is None:
        return 1.0
    if not candidate.finite:
        return 0.0
    expected = expected_changes(validation_set, reference, candidate, thresholds)
    share = max(0.0, 1 - (expected + np.sqrt(expected)) / len(validation_set.groups))
    lesions = len(np.unique(validation_set.groups))
    return metrics.wilson_interval(share, lesions, LEVEL).low


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
