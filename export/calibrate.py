"""What is chosen on the tuning half of the validation part, and measured on the accepting half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from dermedge.bundle.bundle import Thresholds
from dermedge.evaluation import metrics
from dermedge.taxonomy import MALIGNANT

SENSITIVITY = 0.95  # at "see a doctor"
SPECIFICITY = 0.95  # at "urgent"
FAMILIAR = 0.99  # share of the validation pictures that are no stranger than the threshold
MASK_THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
OFFSET_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
RESAMPLES = 1000  # of the bootstrap


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


def operating_points(malignancy: np.ndarray, malignant: np.ndarray) -> tuple[float, float]:
    """Thresholds of "see a doctor" and "urgent".

    The first is the highest that finds 95 % of the malignant lesions, the second the lowest that
    leaves 95 % of the benign ones alone, and never below the first. Both have four decimals,
    rounded to the safe side: other runtimes differ in the sixth.

    Parameters
    ----------
    malignancy : float (n,), 0 to 1.
    malignant : bool (n,), with both kinds.
    """
    found = metrics.threshold_at_sensitivity(malignancy, malignant, SENSITIVITY)
    see_doctor = max(np.floor(found * 1e4) / 1e4, 1e-4)
    limits, _, alarms = metrics.roc_curve(malignancy, malignant)
    lowest = limits[1 - alarms >= SPECIFICITY - 1e-12].min()
    urgent = min(np.ceil(lowest * 1e4) / 1e4, 1.0)
    return float(see_doctor), float(max(see_doctor, urgent))


def class_offsets(
    log_probabilities: np.ndarray, targets: np.ndarray, counts: Sequence[int]
) -> tuple[float, ...]:
    """Log-odds that make the most likely class balanced (Menon et al., ICLR 2021).

    -strength * log(share in training); of the `OFFSET_STRENGTHS` the one with the best balanced
    accuracy, and of equally good ones the weakest.

    Parameters
    ----------
    log_probabilities : float (N, K), calibrated.
    targets : int (N,), 0 to K - 1.
    counts : training pictures of each class, all above 0.

    Returns
    -------
    K numbers, to be added to the log-probabilities; () where none are best.
    """
    shares = np.array(counts) / np.sum(counts)

    def score(strength: float) -> float:
        predicted = (log_probabilities - strength * np.log(shares)).argmax(axis=1)
        return round(metrics.balanced_accuracy(predicted, targets, len(shares)), 6)

    best = max(OFFSET_STRENGTHS, key=score)
    return tuple((-best * np.log(shares)).round(4).tolist()) if best else ()


def unfamiliar_limit(distance: np.ndarray) -> float:
    """The distance, above 0, that 99 % of the pictures (n,) do not exceed; four decimals."""
    return float(max(np.ceil(np.quantile(distance, FAMILIAR) * 1e4) / 1e4, 1e-4))


def mask_threshold(jaccards: np.ndarray) -> float:
    """The best of `MASK_THRESHOLDS`.

    jaccards : float (n, len(MASK_THRESHOLDS)), of each picture at each of them.
    """
    # Of thresholds that are as good as each other, the one nearest to 0.5.
    means = jaccards.mean(axis=0).round(4)
    best = min(np.flatnonzero(means == means.max()), key=lambda i: abs(MASK_THRESHOLDS[i] - 0.5))
    return MASK_THRESHOLDS[best]


def mask_figures(jaccards: np.ndarray, groups: np.ndarray) -> dict:
    """How well lesions are outlined: the mean of `jaccards` (n,), with its interval."""
    return {"jaccard": _interval(lambda w: w @ jaccards / w.sum(), groups)}


def class_figures(
    log_probabilities: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    labels: Sequence[str],
    limits: Thresholds,
) -> dict:
    """How good a classifier is with these thresholds.

    Parameters
    ----------
    log_probabilities : float (N, K), calibrated; of the classes `labels`.
    targets, groups : int (N,), the class and the lesion or patient of each picture.
    """
    probabilities = np.exp(log_probabilities)
    malignant = np.array([label in MALIGNANT for label in labels])
    malignancy, truth = probabilities[:, malignant].sum(axis=1), malignant[targets]
    likely = (log_probabilities + np.array(limits.class_offsets or 0)).argmax(axis=1)

    def interval(statistic) -> dict:
        return _interval(statistic, groups)

    return {
        "auc_malignant": interval(lambda w: metrics.roc_auc(malignancy, truth, w)),
        "macro_auc": interval(lambda w: metrics.macro_auc(probabilities, targets, w)),
        "balanced_accuracy": interval(
            lambda w: metrics.balanced_accuracy(likely, targets, len(labels), w)
        ),
        "ece": metrics.expected_calibration_error(probabilities, targets),
        **{
            point: {
                "sensitivity": interval(lambda w, hit=malignancy >= limit: _share(hit, truth, w)),
                "specificity": interval(lambda w, hit=malignancy >= limit: _share(~hit, ~truth, w)),
            }
            for point, limit in (("see_doctor", limits.see_doctor), ("urgent", limits.urgent))
        },
    }


def _share(hit: np.ndarray, among: np.ndarray, weights: np.ndarray) -> float:
    whole = weights[among].sum()
    return float(weights[among & hit].sum() / whole) if whole else float("nan")


def _interval(statistic: Callable[[np.ndarray], float], groups: np.ndarray) -> dict:
    """95 % bootstrap interval over lesions and patients. None: cannot be had."""
    interval = metrics.bootstrap(statistic, len(groups), groups, RESAMPLES)
    return {key: None if np.isnan(v) else round(v, 6) for key, v in asdict(interval).items()}
