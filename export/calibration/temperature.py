"""How sure a network may be: one temperature for all of its logits."""

from __future__ import annotations

import numpy as np


def fit_temperature(
    logits: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """The temperature that minimizes the mean negative log-likelihood (Guo et al., ICML 2017).

    Golden-section search over its logarithm, on which the likelihood has one optimum.

    Parameters
    ----------
    logits : float (N, K).
    targets : int (N,), 0 to K - 1.
    weights : float (N,), how much each picture counts; None: all alike.

    Returns
    -------
    0.05 to 20: a validation part that is classified without an error would ask for 0.
    """
    low, high = np.log(0.05), np.log(20.0)
    share = np.full(len(targets), 1 / len(targets)) if weights is None else weights / weights.sum()
    golden = (np.sqrt(5) - 1) / 2
    while high - low > 1e-6:
        left, right = high - golden * (high - low), low + golden * (high - low)
        losses = (_loss(logits, targets, share, np.exp(point)) for point in (left, right))
        if next(losses) < next(losses):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def _loss(logits: np.ndarray, targets: np.ndarray, share: np.ndarray, temperature: float) -> float:
    each = log_softmax(logits / temperature)[np.arange(len(targets)), targets]
    return float(-(share * each).sum())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities, float64 (N, K), of logits (N, K)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
