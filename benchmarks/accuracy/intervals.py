"""Figures with 95 % intervals, by bootstrap over lesions and patients.

A figure is {'value', 'low', 'high'}; None stands for what cannot be computed (JSON has no nan).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from dermedge.data import Record
from dermedge.data.split import group_records
from dermedge.evaluation import metrics

LEVEL = 0.95
RESAMPLES = 1000
SEED = 0

Statistic = Callable[[np.ndarray], float]  # of the weights of a resample, float (pictures,)
Figure = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Share:
    """Statistic: the share of bool (pictures,) under the weights of a resample."""

    counted: np.ndarray

    def __call__(self, weights: np.ndarray) -> float:
        return weighted_mean(self.counted)(weights)


def clusters(
    records: Iterable[Record], same: Iterable[tuple[str, str]] = ()
) -> tuple[dict[str, int], str]:
    """Number of the cluster of each id, and what the clusters are.

    same : pairs of ids that show one lesion or patient, beside what the records themselves say.
    """
    records, same = list(records), list(same)
    patients = any(record.patient_id for record in records)
    lesions = any(record.lesion_id for record in records) or (bool(same) and not patients)
    kinds = [name for name, known in (("lesions", lesions), ("patients", patients)) if known]
    groups = enumerate(group_records(records, same))
    numbers = {record.id: number for number, group in groups for record in group}
    return numbers, " and ".join(kinds) or "pictures"


def interval(statistic: Statistic, groups: np.ndarray) -> Figure:
    """The statistic of all pictures with its interval.

    groups : int (pictures,), the cluster of each; clusters are drawn whole.

    Where all or none of a share counts it is Wilson's over the clusters; another figure that is 0,
    1 or -1 in all resamples, such as the AUC of few pictures or the gap between two groups of which
    all and none are found, has no limits.
    """
    found = metrics.bootstrap(statistic, len(groups), groups, RESAMPLES, SEED, LEVEL)
    if isinstance(statistic, Share):
        found = metrics.share_interval(found, len(np.unique(groups)))
    elif found.low == found.high and found.low in (-1, 0, 1):
        found = metrics.Interval(found.value, np.nan, np.nan)
    return _rounded(found)


def difference(ours: Statistic, other: Statistic, groups: np.ndarray) -> Figure:
    """As `interval`, of ours - other; both see the same resamples.

    Of shares that differ in no resample it is Tango's over the clusters.
    """
    found = metrics.bootstrap_difference(ours, other, len(groups), groups, RESAMPLES, SEED, LEVEL)
    shares = isinstance(ours, Share) and isinstance(other, Share)
    if shares and found.value == found.low == found.high == 0:
        found = metrics.paired_share_interval(0, 0, len(np.unique(groups)), LEVEL)
    return _rounded(found)


def about(kind: str) -> dict:
    """What a result says of its intervals; `kind` is what the clusters are."""
    return {"clusters": kind, "resamples": RESAMPLES, "level": LEVEL, "seed": SEED}


def _rounded(found: metrics.Interval) -> Figure:
    return {
        name: None if np.isnan(value) else round(float(value), 6)
        for name, value in (("value", found.value), ("low", found.low), ("high", found.high))
    }


def weighted_mean(values: np.ndarray) -> Statistic:
    """Mean of float (pictures,) under the weights of a resample; nan where they are all 0."""

    def mean(weights: np.ndarray) -> float:
        total = weights.sum()
        # Not `@`: from 10,000 rows on BLAS would wake its threads for each of these.
        return float((weights * values).sum() / total) if total > 0 else float("nan")

    return mean
