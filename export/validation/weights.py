"""What each picture weighs, so that the classes are as frequent as in the prior of a place."""

from __future__ import annotations

import numpy as np


def prior_weights(targets: np.ndarray, prior: np.ndarray | None) -> np.ndarray:
    """float64 (N,): the share of the picture's class in the prior over its share here, mean 1.

    A class of the prior without a picture here cannot count: the others keep their proportions.

    Parameters
    ----------
    targets : int (N,), 0 to K - 1; what is below 0 has no class, and weighs 0 beside a prior.
    prior : float (K,), a sum of 1; None: each picture weighs 1.
    """
    if prior is None or not len(targets):
        return np.ones(len(targets))
    counts = np.bincount(targets[targets >= 0], minlength=len(prior))
    each = np.append(np.divide(prior, counts, out=np.zeros(len(prior)), where=counts > 0), 0.0)
    weights = each[targets]
    return np.asarray(weights * len(targets) / max(weights.sum(), 1e-300))
