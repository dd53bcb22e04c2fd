"""The limit of the head, and what it costs: on pictures of each source, fitted to it and not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dermedge.evaluation.metrics import wilson_interval
from dermedge.outlier import OutlierHead
from export.outliers.fit import Pictures, farther, fit_head, lowest_limit

LOST = 0.01  # of the usable and familiar good pictures of each source, and of their copies
LOST_ELSEWHERE = 0.02  # of all good pictures of a source that nothing was fitted to
# What is tried: of squared weights, and of how far is far, as `fit_head` takes them.
PENALTIES = (1e2, 1e3, 1e4, 3e4, 1e5)
REACHES = (1.0, 2.0, 4.0)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The head with its limit, and the report of what it refuses, for a JSON file."""

    head: OutlierHead
    report: dict


def choose(training: Pictures, validation: Pictures, outliers: Pictures) -> Chosen:
    """Fit to the training part, choose the limit on the validation part, of two sources or more.

    The limit is the lowest that loses, of what would get an estimate without a head, at most LOST
    of each source's validation pictures and of their copies; and, of each source in turn, at most
    LOST_ELSEWHERE of its validation pictures by a head that was fitted without that source. The
    latter says what a clinic loses that no data set is of.

    Of PENALTIES and REACHES those are taken that refuse most of the kinds of outliers that the head
    was not fitted to, each left out in turn: nobody can fit to all that a camera may show.
    """
    unknown: dict[tuple[float, float], list[float]] = {}
    for penalty in PENALTIES:
        for kind in outliers.names():
            rows = outliers.groups == kind
            heads = _heads(training, outliers[~rows], penalty)
            for reach in REACHES:
                fitted = _fitted(heads, validation, reach)
                beyond = fitted.head.score(outliers.evidence[rows]) > fitted.limit
                share = float((beyond | outliers.refused[rows]).mean())
                unknown.setdefault((penalty, reach), []).append(share)
    tried = {setting: float(np.mean(shares)) for setting, shares in unknown.items()}
    penalty, reach = max(tried, key=lambda setting: tried[setting])
    fitted = _fitted(_heads(training, outliers, penalty), validation, reach)
    limit = fitted.limit
    report = {
        "limit": limit,
        "chosen_by": max(fitted.limits, key=lambda name: fitted.limits[name]),
        "limits": fitted.limits,
        "penalty": penalty,
        "reach": reach,
        "refused_of_unknown_kinds": [
            [*setting, _rounded(share)] for setting, share in tried.items()
        ],
        "training": _counts(training),
        "outliers": _counts(outliers),
        "lost": {
            name: _lost(fitted.scores[rows], validation.refused[rows], limit)
            for name, rows in _rows(validation).items()
        },
        "lost_elsewhere": {
            source: _lost(*seen, limit) for source, seen in fitted.elsewhere.items()
        },
    }
    return Chosen(replace(fitted.head, limit=np.array([limit], np.float32)), report)


def _heads(training: Pictures, outliers: Pictures, penalty: float) -> dict[str, OutlierHead]:
    """The head, as "", and for each source the one that does not know it."""
    without = {source: training[training.groups != source] for source in training.names()}
    every = {"": training, **without}
    return {name: fit_head(good, outliers, penalty) for name, good in every.items()}


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A head without its limit, and what the limit has to let pass."""

    head: OutlierHead
    scores: np.ndarray  # float (n,), of the validation pictures
    # Scores of each source's pictures by the head that does not know it, and which were refused.
    elsewhere: dict[str, tuple[np.ndarray, np.ndarray]]
    limits: dict[str, float]  # the lowest that each condition allows

    @property
    def limit(self) -> float:
        return max(self.limits.values())


def _fitted(heads: dict[str, OutlierHead], validation: Pictures, reach: float) -> _Fitted:
    head, *others = (farther(one, reach) for one in heads.values())
    scores = head.score(validation.evidence)
    limits = {}
    for name, rows in _rows(validation).items():
        usable = rows & ~validation.refused
        limits[name] = lowest_limit(scores[usable], validation.refused[usable], LOST)
    elsewhere = {}
    for source, without in zip(list(heads)[1:], others, strict=True):
        rows = (validation.groups == source) & ~validation.again
        elsewhere[source] = without.score(validation.evidence[rows]), validation.refused[rows]
        limits[f"{source}, left out"] = lowest_limit(*elsewhere[source], LOST_ELSEWHERE)
    return _Fitted(head, scores, elsewhere, limits)


def _rows(pictures: Pictures) -> dict[str, np.ndarray]:
    """Which pictures are of each source as they are, and which are copies of its pictures."""
    return {
        f"{source}, copies" if again else source: (pictures.groups == source)
        & (pictures.again == again)
        for source in pictures.names()
        for again in (False, True)
    }


def refused_of_each_kind(head: OutlierHead, others: Pictures) -> dict[str, dict]:
    """Of each kind of pictures without a lesion: how many get no estimate, without and with it."""
    beyond = head.score(others.evidence) > head.limit[0]
    found = {}
    for kind in others.names():
        rows = others.groups == kind
        share = float((beyond | others.refused)[rows].mean())
        interval = wilson_interval(share, int(rows.sum()))
        found[kind] = {
            "pictures": int(rows.sum()),
            "without": _rounded(float(others.refused[rows].mean())),
            "refused": [_rounded(v) for v in (interval.value, interval.low, interval.high)],
        }
    return found


def _lost(scores: np.ndarray, refused: np.ndarray, limit: float) -> dict:
    """Shares of good pictures that get no estimate: without a head, and how many more with it."""
    more = (scores > limit) & ~refused
    # The head refuses more and never less: a share, and no difference that may be below 0.
    interval = wilson_interval(float(more.mean()) if len(more) else 0.0, len(more))
    return {
        "pictures": len(more),
        "without": _rounded(float(refused.mean())) if len(more) else None,
        "more": [_rounded(v) for v in (interval.value, interval.low, interval.high)],
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _counts(pictures: Pictures) -> dict[str, int]:
    return {name: int((pictures.groups == name).sum()) for name in pictures.names()}
