"""Which pictures a person is asked about first: active learning over what a model says of them.

Numpy alone; functions of arrays, pure, any thread.
"""

from __future__ import annotations

import numpy as np

POOL = 3  # as many of the most doubtful are kept, for each that is asked for


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Of (N, K) probabilities, float (N,): 0 where the model is sure, 1 where all are alike."""
    p = np.clip(probabilities, 1e-12, 1.0)
    return np.asarray(-(p * np.log(p)).sum(axis=1) / np.log(max(2, p.shape[1])))


def margin(probabilities: np.ndarray) -> np.ndarray:
    """1 less what the two most probable of (N, K) lie apart, float (N,): 1 is the most doubtful."""
    top = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray(1 - (top[:, 1] - top[:, 0]))


def k_center(features: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
    """Positions of `count` of (N, E) features, each as far as possible from those before it.

    Greedy k-center (Sener and Savarese, ICLR 2018) by Euclidean distance; `known` (M, E) are there
    already. Without any, the first is the one nearest to the mean.
    """
    count = min(count, len(features))
    if not count:
        return np.zeros(0, int)
    order: list[int] = []
    if len(known):
        apart = np.min([_distances(features, one) for one in known], axis=0)
    else:
        first = int(_distances(features, features.mean(axis=0)).argmin())
        order.append(first)
        apart = _distances(features, features[first])
    taken = np.zeros(len(features), bool)
    taken[order] = True
    while len(order) < count:
        nearest = int(np.where(taken, -1.0, apart).argmax())
        order.append(nearest)
        taken[nearest] = True
        apart = np.minimum(apart, _distances(features, features[nearest]))
    return np.array(order)


def ask_first(
    probabilities: np.ndarray, features: np.ndarray, known: np.ndarray, count: int
) -> np.ndarray:
    """Positions of the `count` pictures to ask about: doubtful ones, far from each other.

    Of the `POOL` times as many that are the most doubtful by margin, k-center takes those that are
    least alike, so that near copies are not asked about twice.

    Parameters
    ----------
    probabilities : (N, K), calibrated.
    features : (N, E), the classifier's.
    known : (M, E), of pictures that are labelled already.
    """
    doubtful = np.argsort(-margin(probabilities), kind="stable")[: POOL * count]
    return np.asarray(doubtful[k_center(features[doubtful], known, count)])


def _distances(features: np.ndarray, one: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(features - one, axis=1))
