"""How sure a network may be: one temperature for all of its logits."""

from __future__ import annotations

import numpy as np


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature that minimizes the mean negative log-likelihood (Guo et al., ICML 2017).

    Golden-section search over its logarithm, on which the likelihood has one optimum.

    Parameters
    ----------
    logits : float (N, K).
    targets : int (N,), 0 to K - 1.

    Returns
    -------
    0.05 to 20: a validation part that is classified without an error would ask for 0.
    """
    low, high = np.log(0.05), np.log(20.0)
    golden = (np.sqrt(5) - 1) / 2
    while high - low > 1e-6:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if _loss(logits, targets, np.exp(left)) < _loss(logits, targets, np.exp(right)):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def _loss(logits: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    return float(-log_softmax(logits / temperature)[np.arange(len(targets)), targets].mean())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities, float64 (N, K), of logits (N, K)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
