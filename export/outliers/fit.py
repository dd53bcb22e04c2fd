"""Fits the head that tells pictures without a lesion, and chooses its limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dermedge.outlier import OutlierHead

PENALTY = 100.0  # of squared weights, against the sum of all pictures' losses
FOUND = 0.97  # share of each kind of outliers that a raised limit must still refuse
SHRINKAGE = 0.3  # of the covariance towards that of independent numbers
LEAST = 1e-3  # standard deviation of a number of the evidence
STEPS = 30  # of Newton's method
USUAL = 0.98  # quantile of the training pictures at which either score is 1
LOST = 0.02  # share of good pictures that distance and head may refuse together


def fit_head(good: np.ndarray, outliers: np.ndarray, kinds: np.ndarray) -> OutlierHead:
    """Fit to the evidence of pictures with a lesion (n, D) and of outliers (m, D); no limit yet.

    kinds : (m,), of each outlier; each kind has the same weight, all of them that of the good ones.
    """
    width = good.shape[1]
    head = OutlierHead(
        mean=good.mean(axis=0, dtype=np.float64),
        scale=good.std(axis=0, dtype=np.float64) + LEAST,
        weights=np.zeros(width + 1),
        precision=np.eye(width),
        spread=np.array([0.0, 1.0]),
        limit=np.array([np.inf]),
    )
    usual, others = head.scaled(good), head.scaled(outliers)
    covariance = (1 - SHRINKAGE) * np.cov(usual.T) + SHRINKAGE * np.eye(width)
    head = replace(head, precision=np.linalg.inv(covariance) / width)
    median, span = _spread(head.distance(usual))
    _, numbers, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    shares = (np.full(len(good), 1 / len(good)), 1 / counts[numbers] / len(counts))
    importance = np.concatenate(shares) * (len(good) + len(outliers)) / 2
    truth = np.repeat([0.0, 1.0], [len(good), len(outliers)])
    weights = _logistic(np.concatenate([usual, others]), truth, importance)
    middle, reach = _spread(usual @ weights[:-1] + weights[-1])
    weights[-1] -= middle
    return replace(head, weights=weights / reach, spread=np.array([median, span]))


def _spread(scores: np.ndarray) -> tuple[float, float]:
    """Median, and how far above it the quantile USUAL lies."""
    median = float(np.median(scores))
    return median, max(float(np.quantile(scores, USUAL)) - median, 1e-6)


def _logistic(values: np.ndarray, truth: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Weights (D + 1,), the bias last, of a penalized logistic regression on (n, D)."""
    rows = np.hstack([values, np.ones((len(values), 1))])
    penalty = np.diag([PENALTY] * values.shape[1] + [1e-6])
    weights = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        slope = rows.T @ (importance * (chance - truth)) + penalty @ weights
        bend = (rows.T * (importance * chance * (1 - chance))) @ rows + penalty
        step = np.linalg.solve(bend, slope)
        # Far from the optimum a full step may overshoot.
        weights -= step * min(1.0, 5.0 / max(np.linalg.norm(step), 1e-12))
    return weights


def limit_of(
    scores: np.ndarray, refused: np.ndarray, outliers: np.ndarray, kinds: np.ndarray
) -> float:
    """The limit, four decimals.

    At most LOST of the good pictures may be refused; where lesions and outliers lie farther apart
    it is raised until FOUND of the outliers of some kind are just refused: pictures of another
    clinic lie between them.

    scores : float (n,), of good pictures. refused : bool (n,), by the distance already.
    outliers, kinds : score and kind (m,) of outliers.
    """
    allowed = max(0, int(LOST * len(scores)) - int(refused.sum()))
    passing = np.sort(scores[~refused])[::-1]
    lowest = passing[min(allowed, len(passing) - 1)]
    found = min(np.quantile(outliers[kinds == kind], 1 - FOUND) for kind in np.unique(kinds))
    return float(np.ceil(max(lowest, found) * 1e4) / 1e4)
