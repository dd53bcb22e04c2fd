"""Pixel and image metrics with bootstrap intervals. numpy only.

What cannot be computed (one class only, no samples) is nan, without a warning; masks follow the
conventions of the ISIC challenges instead, see `Confusion`. Predictions come before truths in
every argument list. `weights` (n,) count each sample so many times; the bootstrap works through
them, so every metric that takes weights can be bootstrapped without copying its data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

THRESHOLD_JACCARD = 0.65  # ISIC 2018 task 1: a mask below it counts as a failure, 0


@dataclass(frozen=True)
class Confusion:
    """Counts of one or many binary decisions, and the ratios made of them.

    Each count is an array (n,), one entry an image or class; each ratio is float64 (n,) in 0..1.
    A ratio without anything to count is `undefined`. For masks that is 1, as in the official
    scoring of the ISIC challenges: an empty prediction of an empty truth is right, sensitivity
    is 1 where the truth is empty, specificity 1 where it is full, precision 1 where nothing is
    predicted.
    """

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray
    undefined: float = 1.0

    @property
    def jaccard(self) -> np.ndarray:
        return self._ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def threshold_jaccard(self) -> np.ndarray:
        """Jaccard, 0 where it is below 0.65."""
        jaccard = self.jaccard
        return np.where(jaccard < THRESHOLD_JACCARD, 0.0, jaccard)

    @property
    def dice(self) -> np.ndarray:
        return self._ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> np.ndarray:
        return self._ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def sensitivity(self) -> np.ndarray:
        return self._ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> np.ndarray:
        return self._ratio(self.tn, self.tn + self.fp)

    @property
    def precision(self) -> np.ndarray:
        return self._ratio(self.tp, self.tp + self.fp)

    def pooled(self, weights: np.ndarray | None = None) -> Confusion:
        """All images as one, (1,): every pixel counts the same, so large images count more."""
        weights = np.ones(len(self.tp), np.int64) if weights is None else weights
        counts = (np.atleast_1d(weights @ part) for part in (self.tp, self.fp, self.fn, self.tn))
        return Confusion(*counts, undefined=self.undefined)

    def _ratio(self, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        ratio = np.full(np.shape(whole), self.undefined)
        return np.divide(part, whole, out=ratio, where=whole > 0)


@dataclass(frozen=True)
class Interval:
    """A value and the limits of its confidence interval."""

    value: float
    low: float
    high: float


# ------------------------------------------------------------------------------------------ masks


def confusion(predictions: Iterable[np.ndarray], truths: Iterable[np.ndarray]) -> Confusion:
    """Count the pixels of pairs of bool (h, w) masks; one entry an image.

    Images may differ in size. ValueError where a mask is not bool, where the two of a pair differ
    in shape, or where one list is longer.
    """
    counts = []
    for number, (prediction, truth) in enumerate(zip_longest(predictions, truths)):
        if prediction is None or truth is None:
            raise ValueError(f"mask {number} has no partner: one list is longer than the other")
        prediction, truth = np.asarray(prediction), np.asarray(truth)
        if prediction.dtype != bool or truth.dtype != bool:
            raise ValueError(f"mask {number} is {prediction.dtype} and {truth.dtype}, not bool")
        if prediction.shape != truth.shape:
            raise ValueError(
                f"mask {number}: predicted {prediction.shape}, but the truth is {truth.shape}"
            )
        both = np.count_nonzero(prediction & truth)
        predicted, true = np.count_nonzero(prediction), np.count_nonzero(truth)
        counts.append((both, predicted - both, true - both, truth.size - predicted - true + both))
    return Confusion(*np.array(counts, np.int64).reshape(-1, 4).T)


# --------------------------------------------------------------------------------- scores, binary


def roc_auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Area under the ROC curve; tied scores count one half. nan where one class is missing.

    scores : float (n,), higher for positive; labels : bool or 0/1 (n,).
    """
    _, tp, fp = _steps(scores, labels, weights)
    if tp[-1] == 0 or fp[-1] == 0:
        return float("nan")
    return float(np.sum(np.diff(fp) * (tp[1:] + tp[:-1])) / (2 * tp[-1] * fp[-1]))


def average_precision(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Sum of precision times the step in recall, not interpolated. nan without positives."""
    _, tp, fp = _steps(scores, labels, weights)
    if tp[-1] == 0:
        return float("nan")
    # A sample of weight 0 leaves precision without a denominator, but is no step either.
    called = tp[1:] + fp[1:]
    precision = np.divide(tp[1:], called, out=np.zeros_like(called), where=called > 0)
    return float(np.sum(np.diff(tp) * precision) / tp[-1])


def roc_curve(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds (falling, from inf), sensitivity and 1 - specificity, each float64 (m,).

    A sample is positive where its score is the threshold or more. A rate is nan where its class
    is missing.
    """
    thresholds, tp, fp = _steps(scores, labels, weights)
    rates = (part / part[-1] if part[-1] > 0 else np.full_like(part, np.nan) for part in (tp, fp))
    return thresholds, *rates


def threshold_at_sensitivity(scores: np.ndarray, labels: np.ndarray, target: float) -> float:
    """The highest threshold (positive: score >= threshold) that finds a share `target` or more.

    It is one of the scores. nan without positives; ValueError unless 0 < target <= 1.
    """
    if not 0 < target <= 1:
        raise ValueError(f"the target sensitivity must be above 0 and at most 1, got {target!r}")
    thresholds, sensitivity, _ = roc_curve(scores, labels)
    if np.isnan(sensitivity[-1]):
        return float("nan")
    # Rounding of k / n must not cost a positive: 0.95 of 20 is 19.
    return float(thresholds[np.argmax(sensitivity >= target - 1e-12)])


def sensitivity_at_specificity(
    scores: np.ndarray, labels: np.ndarray, target: float, weights: np.ndarray | None = None
) -> float:
    """The greatest sensitivity of any threshold whose specificity is `target` or more.

    nan where one class is missing; ValueError unless 0 <= target <= 1.
    """
    if not 0 <= target <= 1:
        raise ValueError(f"the target specificity must be 0 to 1, got {target!r}")
    _, sensitivity, false_alarms = roc_curve(scores, labels, weights)
    if np.isnan(sensitivity[-1]) or np.isnan(false_alarms[-1]):
        return float("nan")
    return float(sensitivity[1 - false_alarms >= target - 1e-12].max())


# -------------------------------------------------------------------------------- several classes


def confusion_matrix(
    predicted: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Counts [true, predicted], float64 (classes, classes), of class numbers int (n,)."""
    predicted, labels = _class_numbers(predicted, classes), _class_numbers(labels, classes)
    if len(predicted) != len(labels):
        raise ValueError(f"{len(predicted)} predictions for {len(labels)} labels")
    cells = np.bincount(labels * classes + predicted, weights, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.float64)


def per_class(
    predicted: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> Confusion:
    """One class against the rest, one entry a class; a ratio without samples is nan."""
    matrix = confusion_matrix(predicted, labels, classes, weights)
    tp = np.diagonal(matrix)
    fp, fn = matrix.sum(axis=0) - tp, matrix.sum(axis=1) - tp
    return Confusion(tp, fp, fn, matrix.sum() - tp - fp - fn, undefined=float("nan"))


def balanced_accuracy(
    predicted: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> float:
    """Mean sensitivity over the classes that occur; the goal metric of ISIC 2018 task 3."""
    return _mean(per_class(predicted, labels, classes, weights).sensitivity)


def per_class_auc(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """AUC of each class against the rest, float64 (classes,), nan where a class is missing.

    probabilities : float (n, classes); labels : class numbers int (n,).
    """
    probabilities, labels = _class_probabilities(probabilities, labels)
    classes = probabilities.shape[1]
    return np.array([roc_auc(probabilities[:, k], labels == k, weights) for k in range(classes)])


def macro_auc(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean of `per_class_auc` over the classes where it is defined."""
    return _mean(per_class_auc(probabilities, labels, weights))


def expected_calibration_error(
    probabilities: np.ndarray,
    labels: np.ndarray,
    bins: int = 15,
    weights: np.ndarray | None = None,
) -> float:
    """Top-label ECE over equally wide bins, open below and closed above (Guo et al., ICML 2017).

    probabilities : float (n, classes); labels : class numbers int (n,). Returns 0 to 1.
    """
    probabilities, labels = _class_probabilities(probabilities, labels)
    weights = _weights(weights, len(labels))
    if weights.sum() == 0:
        return float("nan")
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights * (confidence - right), minlength=bins)
    return float(np.abs(gaps).sum() / weights.sum())


def brier(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean squared error of probabilities (Brier, Mon. Weather Rev. 78, 1950).

    probabilities float (n,) of the positive class with labels 0/1: returns 0 to 1. Float
    (n, classes) with class numbers: summed over the classes, returns 0 to 2.
    """
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim == 1:
        squares = (probabilities - _binary(labels, len(probabilities))) ** 2
    else:
        probabilities, labels = _class_probabilities(probabilities, labels)
        hit = labels[:, None] == np.arange(probabilities.shape[1])
        squares = ((probabilities - hit) ** 2).sum(axis=1)
    weights = _weights(weights, len(squares))
    return float(weights @ squares / weights.sum()) if weights.sum() > 0 else float("nan")


# -------------------------------------------------------------------------------------- intervals


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    count: int,
    groups: np.ndarray | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval (Efron & Tibshirani 1993), by whole groups.

    Parameters
    ----------
    statistic : takes weights float64 (count,), how often each sample was drawn; returns a float.
        For example `lambda w: roc_auc(scores, labels, w)`.
    count : number of samples.
    groups : (count,) lesion or patient of each sample. Pictures of one lesion are no independent
        witnesses: they are drawn together. None: each sample is its own group.

    Returns
    -------
    The statistic of all samples, and its limits. Resamples where it is nan (a rare class was not
    drawn) are left out; the limits are nan where that is more than half of them, or there is one
    group only.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level!r}")
    if resamples < 1:
        raise ValueError(f"resamples must be 1 or more, got {resamples!r}")
    members = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    members = np.ravel(members)
    if len(members) != count:
        raise ValueError(f"{len(members)} groups for {count} samples")
    value = float(statistic(np.ones(count)))
    number = int(members.max()) + 1 if count else 0
    if number < 2:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    found = np.empty(resamples)
    for k in range(resamples):
        drawn = np.bincount(rng.integers(number, size=number), minlength=number)
        found[k] = statistic(drawn[members].astype(np.float64))
    found = found[~np.isnan(found)]
    if 2 * len(found) < resamples:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def bootstrap_difference(
    first: Callable[[np.ndarray], float],
    second: Callable[[np.ndarray], float],
    count: int,
    groups: np.ndarray | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of first - second on the same samples: both see each resample (paired)."""
    return bootstrap(
        lambda weights: first(weights) - second(weights), count, groups, resamples, seed, level
    )


# ------------------------------------------------------------------------------------------ input


def _steps(scores, labels, weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Falling distinct thresholds from inf, and weights of positives and negatives at or above."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or np.isnan(scores).any():
        raise ValueError(f"scores must be numbers in one row, without nan; got {scores.shape}")
    labels, weights = _binary(labels, len(scores)), _weights(weights, len(scores))
    order = np.argsort(-scores, kind="stable")
    scores, labels, weights = scores[order], labels[order], weights[order]
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)[: len(scores)]
    tp, fp = np.cumsum(weights * labels)[ends], np.cumsum(weights * ~labels)[ends]
    return np.append(np.inf, scores[ends]), np.append(0.0, tp), np.append(0.0, fp)


def _binary(labels, count: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels must be {count} of 0 or 1, got {labels.dtype} {labels.shape}")
    return labels.astype(bool)


def _weights(weights, count: int) -> np.ndarray:
    if weights is None:
        return np.ones(count)
    weights = np.asarray(weights, np.float64)
    if weights.shape != (count,):
        raise ValueError(f"weights must be {count} numbers, got {weights.shape}")
    return weights


def _class_numbers(values, classes: int) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        raise ValueError(f"class numbers must be whole, in one row; got {values.dtype}")
    if values.size and not (values.min() >= 0 and values.max() < classes):
        raise ValueError(f"class numbers must be 0 to {classes - 1}, got up to {values.max()}")
    return values.astype(np.int64)


def _class_probabilities(probabilities, labels) -> tuple[np.ndarray, np.ndarray]:
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or np.isnan(probabilities).any():
        raise ValueError(f"probabilities must be (n, classes) without nan: {probabilities.shape}")
    labels = _class_numbers(labels, probabilities.shape[1])
    if len(labels) != len(probabilities):
        raise ValueError(f"{len(probabilities)} predictions for {len(labels)} labels")
    return probabilities, labels


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
