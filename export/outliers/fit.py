"""Fits the head that tells pictures without a lesion, and chooses its limit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dermedge.outlier import OutlierHead

SHRINKAGE = 0.3  # of the covariance towards that of independent numbers
SKIN = "beside "  # and a source: the kind of outliers that is its plain skin
LEAST = 1e-3  # standard deviation of a number of the evidence
STEPS = 30  # of Newton's method
USUAL = 0.98  # quantile of the training pictures at which either score is 1


@dataclass(frozen=True, eq=False)
class Pictures:
    """What was seen of n pictures.

    evidence : float32 (n, D). groups : str (n,), source of a picture with a lesion, or kind of one
    without: SKIN and a source, or things. ids : str (n,). again : bool (n,), a copy, changed as by
    another photograph. refused : bool (n,), without a head: it is of bad quality, or unfamiliar.
    """

    evidence: np.ndarray
    groups: np.ndarray
    ids: np.ndarray
    again: np.ndarray
    refused: np.ndarray

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, rows: np.ndarray) -> Pictures:
        return Pictures(
            self.evidence[rows],
            self.groups[rows],
            self.ids[rows],
            self.again[rows],
            self.refused[rows],
        )

    def names(self) -> list[str]:
        """The groups, sorted."""
        return sorted(set(self.groups.tolist()))


def fit_usual(good: Pictures) -> OutlierHead:
    """What is usual among pictures with a lesion: a head without linear scores, and no limit yet.

    Each source has the same weight, however many pictures it has.
    """
    seen, width = good.evidence.astype(np.float64), good.evidence.shape[1]
    share = _shares(good.groups)
    mean = share @ seen
    head = OutlierHead(
        mean=mean,
        scale=np.sqrt(share @ (seen - mean) ** 2) + LEAST,
        weights=np.zeros((0, width + 1)),
        precision=np.eye(width),
        spread=np.array([0.0, 1.0]),
        limit=np.zeros(1),
    )
    usual = head.scaled(seen)
    centred = usual - share @ usual
    covariance = (centred.T * share) @ centred
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.eye(width)
    head = replace(head, precision=np.linalg.inv(covariance) / width)
    return replace(head, spread=np.array(_spread(head.distance(usual), share)))


def fit_score(head: OutlierHead, good: Pictures, outliers: Pictures, penalty: float) -> np.ndarray:
    """Weights float (D + 1,) of a linear score that tells these outliers from what is usual.

    Each source and each kind has the same weight, however many pictures it has; all sources
    together have that of all kinds.

    Parameters
    ----------
    head : by `fit_usual`, of the same good pictures.
    penalty : of squared weights, against the sum of all pictures' losses. A high one keeps to what
        tells all kinds of outliers, a low one learns how the sources differ from those here.
    """
    share = _shares(good.groups)
    usual, others = head.scaled(good.evidence), head.scaled(outliers.evidence)
    importance = np.concatenate([share, _shares(outliers.groups)]) * (len(good) + len(outliers)) / 2
    truth = np.repeat([0.0, 1.0], [len(good), len(outliers)])
    weights = _logistic(np.concatenate([usual, others]), truth, importance, penalty)
    middle, reach = _spread(usual @ weights[:-1] + weights[-1], share)
    weights[-1] -= middle
    return weights / reach


def _shares(groups: np.ndarray) -> np.ndarray:
    """Weight of each picture, float (n,): the same for each group, 1 in all."""
    _, numbers, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(1 / counts[numbers] / len(counts))


def _spread(scores: np.ndarray, share: np.ndarray) -> tuple[float, float]:
    """Weighted median, and how far above it the quantile USUAL lies."""
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(share[order])
    places = np.minimum(np.searchsorted(reached, [0.5, USUAL]), len(scores) - 1)
    median, usual = (float(value) for value in scores[order][places])
    return median, max(usual - median, 1e-6)


def _logistic(
    values: np.ndarray, truth: np.ndarray, importance: np.ndarray, penalty: float
) -> np.ndarray:
    """Weights (D + 1,), the bias last, of a penalized logistic regression on (n, D)."""
    rows = np.hstack([values, np.ones((len(values), 1))])
    ridge = np.diag([penalty] * values.shape[1] + [1e-6])
    weights = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        slope = rows.T @ (importance * (chance - truth)) + ridge @ weights
        bend = (rows.T * (importance * chance * (1 - chance))) @ rows + ridge
        step = np.linalg.solve(bend, slope)
        length = float(np.linalg.norm(step))
        # Far from the optimum a full step may overshoot.
        weights -= step * min(1.0, 5.0 / max(length, 1e-12))
        if length < 1e-6:
            break
    return weights


def lowest_limit(scores: np.ndarray, refused: np.ndarray, lost: float) -> float:
    """The lowest limit that loses at most the share `lost` of these good pictures, four decimals.

    scores : float (n,). refused : bool (n,), without a head: these cannot be lost once more.
    """
    passing = np.sort(scores[~refused])[::-1]
    allowed = int(lost * len(scores))
    if allowed >= len(passing):
        return 0.0
    return float(np.ceil(float(passing[allowed]) * 1e4) / 1e4)
