"""Pixel and image metrics with bootstrap intervals. numpy only.

What cannot be computed (one class only, no samples) is nan, without a warning; masks follow the
conventions of the ISIC challenges instead, see `Confusion`. Predictions come before truths in
every argument list. Scores, probabilities and confidences must be finite, else ScoreError;
what measures probabilities takes none beyond 0 to 1, such as percent (ValueError).
`weights` (n,), 0 or more, count each sample so many times; the bootstrap works through them, so
every metric that takes weights can be bootstrapped without copying its data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from dermedge import UserError

THRESHOLD_JACCARD = 0.65  # ISIC 2018 task 1: a mask below it counts as a failure, 0


class ScoreError(UserError, ValueError):
    """Scores that are nan or infinite: whatever gave them is at fault, and no figure is made."""


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
        """TP / (TP + FP + FN), also called intersection over union."""
        return self._ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def threshold_jaccard(self) -> np.ndarray:
        """Jaccard, 0 where it is below 0.65."""
        jaccard = self.jaccard
        return np.where(jaccard < THRESHOLD_JACCARD, 0.0, jaccard)

    @property
    def dice(self) -> np.ndarray:
        """2 TP / (2 TP + FP + FN), also called F1."""
        return self._ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> np.ndarray:
        """(TP + TN) / all."""
        return self._ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def sensitivity(self) -> np.ndarray:
        """TP / (TP + FN), also called recall."""
        return self._ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> np.ndarray:
        """TN / (TN + FP)."""
        return self._ratio(self.tn, self.tn + self.fp)

    @property
    def precision(self) -> np.ndarray:
        """TP / (TP + FP), also called positive predictive value."""
        return self._ratio(self.tp, self.tp + self.fp)

    def pooled(self, weights: np.ndarray | None = None) -> Confusion:
        """All images as one, (1,): every pixel counts the same, so large images count more."""
        weights = np.ones(len(self.tp), np.int64) if weights is None else weights
        parts = (self.tp, self.fp, self.fn, self.tn)
        tp, fp, fn, tn = (np.atleast_1d((weights * part).sum()) for part in parts)
        return Confusion(tp, fp, fn, tn, undefined=self.undefined)

    def _ratio(self, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        ratio = np.full(np.shape(whole), self.undefined)
        np.divide(part, whole, out=ratio, where=whole > 0)
        return ratio


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


class Ranking:
    """Scores put in order once, for as many `weights` as one likes.

    scores : float (n,), higher for positive; labels : bool or 0/1 (n,).
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray):
        scores = _finite(scores)
        if scores.ndim != 1:
            raise ValueError(f"scores must be numbers in one row; got {scores.shape}")
        self._order = np.argsort(-scores, kind="stable")
        self._positive = _binary(labels, len(scores))[self._order]
        scores = scores[self._order]
        # The last of each run of tied scores.
        self._ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)[: len(scores)]
        self.thresholds = np.append(np.inf, scores[self._ends])  # falling, distinct

    def above(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Weights of positives and of negatives at or above each threshold, float64 (m,)."""
        weights = _weights(weights, len(self._order))[self._order]
        tp = np.cumsum(weights * self._positive)[self._ends]
        fp = np.cumsum(weights)[self._ends] - tp
        return np.append(0.0, tp), np.append(0.0, fp)

    def roc_auc(self, weights: np.ndarray | None = None) -> float:
        """See `roc_auc`."""
        tp, fp = self.above(weights)
        if tp[-1] == 0 or fp[-1] == 0:
            return float("nan")
        return float((np.diff(fp) * (tp[1:] + tp[:-1])).sum() / (2 * tp[-1] * fp[-1]))

    def average_precision(self, weights: np.ndarray | None = None) -> float:
        """See `average_precision`."""
        tp, fp = self.above(weights)
        if tp[-1] == 0:
            return float("nan")
        # A sample of weight 0 leaves precision without a denominator, but is no step either.
        called = tp[1:] + fp[1:]
        precision = np.divide(tp[1:], called, out=np.zeros_like(called), where=called > 0)
        return float((np.diff(tp) * precision).sum() / tp[-1])

    def sensitivity_at_specificity(self, target: float, weights: np.ndarray | None = None) -> float:
        """See `sensitivity_at_specificity`."""
        if not 0 <= target <= 1:
            raise ValueError(f"the target specificity must be 0 to 1, got {target!r}")
        tp, fp = self.above(weights)
        if tp[-1] == 0 or fp[-1] == 0:
            return float("nan")
        return float(tp[1 - fp / fp[-1] >= target - 1e-12].max() / tp[-1])


def roc_auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Area under the ROC curve; tied scores count one half. nan where one class is missing.

    scores : float (n,), higher for positive; labels : bool or 0/1 (n,).
    """
    return Ranking(scores, labels).roc_auc(weights)


def average_precision(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Sum of precision times the step in recall, not interpolated. nan without positives."""
    return Ranking(scores, labels).average_precision(weights)


def roc_curve(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds (falling, from inf), sensitivity and 1 - specificity, each float64 (m,).

    A sample is positive where its score is the threshold or more. A rate is nan where its class
    is missing.
    """
    ranking = Ranking(scores, labels)
    sides = ranking.above(weights)
    first, second = (
        part / part[-1] if part[-1] > 0 else np.full_like(part, np.nan) for part in sides
    )
    return ranking.thresholds, first, second


def threshold_at_sensitivity(
    scores: np.ndarray, labels: np.ndarray, target: float, weights: np.ndarray | None = None
) -> float:
    """The highest threshold (positive: score >= threshold) that finds a share `target` or more.

    It is one of the scores. nan without positives; ValueError unless 0 < target <= 1.
    """
    if not 0 < target <= 1:
        raise ValueError(f"the target sensitivity must be above 0 and at most 1, got {target!r}")
    thresholds, sensitivity, _ = roc_curve(scores, labels, weights)
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
    return Ranking(scores, labels).sensitivity_at_specificity(target, weights)


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
    return mean(per_class(predicted, labels, classes, weights).sensitivity)


def per_class_auc(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """AUC of each class against the rest, float64 (classes,), nan where a class is missing.

    probabilities : float (n, classes); labels : class numbers int (n,).
    """
    return np.array([ranking.roc_auc(weights) for ranking in rankings(probabilities, labels)])


def rankings(probabilities: np.ndarray, labels: np.ndarray) -> list[Ranking]:
    """That of each class against the rest; arguments as of `per_class_auc`."""
    probabilities, labels = _class_probabilities(probabilities, labels)
    return [Ranking(column, labels == k) for k, column in enumerate(probabilities.T)]


def macro_auc(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean of `per_class_auc` over the classes where it is defined."""
    return mean(per_class_auc(probabilities, labels, weights))


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
    _check_range(probabilities)
    right = probabilities.argmax(axis=1) == labels
    return calibration_error(probabilities.max(axis=1), right, bins, weights)


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, bins: int = 15, weights: np.ndarray | None = None
) -> float:
    """As `expected_calibration_error`, of float (n,) confidences in answers, bool (n,) right."""
    confidence = _finite(confidence)
    _check_range(confidence)
    weights = _weights(weights, len(confidence))
    if weights.sum() == 0:
        return float("nan")
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
    squares = squared_errors(probabilities, labels)
    weights = _weights(weights, len(squares))
    return float(weights @ squares / weights.sum()) if weights.sum() > 0 else float("nan")


def squared_errors(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each sample, float64 (n,): what `brier` is the mean of."""
    probabilities = _finite(probabilities)
    _check_range(probabilities)
    if probabilities.ndim == 1:
        errors: np.ndarray = (probabilities - _binary(labels, len(probabilities))) ** 2
        return errors
    probabilities, labels = _class_probabilities(probabilities, labels)
    hit = labels[:, None] == np.arange(probabilities.shape[1])
    errors = ((probabilities - hit) ** 2).sum(axis=1)
    return errors


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
        witnesses: they are drawn together. None: each sample is its own group. ValueError where
        one of them is nan or None: all of these would be drawn as one.

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
    names = () if groups is None else np.array(groups, object).ravel()
    if any(name is None or name != name for name in names):
        raise ValueError("a group is nan: give each such sample a group of its own")
    members = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    members = np.ravel(members).astype(np.int64)
    if len(members) != count:
        raise ValueError(f"{len(members)} groups for {count} samples")
    value = float(statistic(np.ones(count)))
    number = int(members.max()) + 1 if count else 0
    if number < 2:
        return Interval(value, float("nan"), float("nan"))
    drawn = _drawn(members.tobytes(), number, resamples, seed)
    values = np.array([statistic(row.astype(np.float64)) for row in drawn])
    values = values[~np.isnan(values)]
    if 2 * len(values) < resamples:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
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


def wilson_interval(share: float, count: float, level: float = 0.95) -> Interval:
    """Score interval of a share of `count` independent samples (Wilson, JASA 22, 1927).

    Unlike a bootstrap it has a width where the share is 0 or 1: of 100 right ones it says that
    1 may be 0.963. nan without samples.
    """
    if not count > 0:
        return Interval(share, float("nan"), float("nan"))
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle, scale = share + z * z / (2 * count), 1 + z * z / count
    reach = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # Rounding reaches beyond, by as little as the minus of -0.
    low, high = max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)
    return Interval(share, float(low), float(high))


def share_interval(found: Interval, count: int) -> Interval:
    """`found` by bootstrap, of a share of `count` independent samples.

    Where all of them count, or none does, no resample differs: a certainty that nobody has. There
    it is Wilson's.
    """
    return wilson_interval(found.value, count) if found.value in (0, 1) else found


def paired_share_interval(
    gained: float, lost: float, count: float, level: float = 0.95
) -> Interval:
    """Score interval of the difference of two shares of the same samples.

    Tango, Stat. Med. 17, 1998. It has a width where no sample changed.

    Parameters
    ----------
    gained, lost : independent samples (not of need whole numbers) that only the one, only the
        other side of the pair counts.
    count : independent samples; nan without.
    """
    if not count > 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    z = NormalDist().inv_cdf((1 + level) / 2)

    def low(gained: float, lost: float) -> float:
        below, above = -1.0, (gained - lost) / count
        for _ in range(60):
            middle = (below + above) / 2
            if _tango(gained, lost, count, middle) > z:
                below = middle
            else:
                above = middle
        return below

    return Interval((gained - lost) / count, low(gained, lost), -low(lost, gained))


def _tango(gained: float, lost: float, count: float, difference: float) -> float:
    """Standardized distance of what was seen from a true difference."""
    first = 2 * count
    second = -gained - lost + (2 * count - gained + lost) * difference
    third = -lost * difference * (1 - difference)
    share = (np.sqrt(max(second * second - 4 * first * third, 0.0)) - second) / (2 * first)
    variance = count * (2 * share + difference * (1 - difference))
    distance: float = (gained - lost - count * difference) / np.sqrt(max(variance, 1e-12))
    return distance


# Many figures are of the same samples.
@lru_cache(maxsize=2)
def _drawn(members: bytes, number: int, resamples: int, seed: int) -> np.ndarray:
    """How often each sample is drawn, uint16 (resamples, count); `members` as int64 (count,)."""
    rng, indices = np.random.default_rng(seed), np.frombuffer(members, np.int64)
    drawn = np.empty((resamples, len(indices)), np.uint16)
    for row in drawn:
        row[:] = np.bincount(rng.integers(number, size=number), minlength=number)[indices]
    return drawn


# ------------------------------------------------------------------------------------------ input


def _finite(values: npt.ArrayLike) -> np.ndarray:
    """float64, any shape. ScoreError where one is nan or infinite."""
    scores: np.ndarray = np.asarray(values, np.float64)
    bad = int(np.count_nonzero(~np.isfinite(scores)))
    if bad:
        raise ScoreError(
            "{bad} of {count} scores are nan or infinite: no figure can be made of them; "
            "the model or the runtime that gave them is at fault",
            code="scores_not_finite",
            bad=bad,
            count=scores.size,
        )
    return scores


def _check_range(probabilities: np.ndarray) -> None:
    # Sums of rounded ones may be a little beyond.
    if probabilities.size and not -1e-3 <= probabilities.min() <= probabilities.max() <= 1 + 1e-3:
        raise ValueError(
            f"probabilities must be 0 to 1, got {probabilities.min():g} to {probabilities.max():g}"
        )


def _binary(values: npt.ArrayLike, count: int) -> np.ndarray:
    labels: np.ndarray = np.asarray(values)
    if labels.shape != (count,) or not ((labels == 0) | (labels == 1)).all():
        raise ValueError(f"labels must be {count} of 0 or 1, got {labels.dtype} {labels.shape}")
    binary: np.ndarray = labels.astype(bool)
    return binary


def _weights(values: npt.ArrayLike | None, count: int) -> np.ndarray:
    if values is None:
        return np.ones(count)
    weights: np.ndarray = np.asarray(values, np.float64)
    if weights.shape != (count,):
        raise ValueError(f"weights must be {count} numbers, got {weights.shape}")
    if not (weights >= 0).all():
        raise ValueError("weights must be 0 or more")
    return weights


def _class_numbers(labels: npt.ArrayLike, classes: int) -> np.ndarray:
    values: np.ndarray = np.asarray(labels)
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        raise ValueError(f"class numbers must be whole, in one row; got {values.dtype}")
    if values.size and not (values.min() >= 0 and values.max() < classes):
        raise ValueError(f"class numbers must be 0 to {classes - 1}, got up to {values.max()}")
    numbers: np.ndarray = values.astype(np.int64)
    return numbers


def _class_probabilities(
    probabilities: np.ndarray, labels: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    probabilities = _finite(probabilities)
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities must be (n, classes), got {probabilities.shape}")
    labels = _class_numbers(labels, probabilities.shape[1])
    if len(labels) != len(probabilities):
        raise ValueError(f"{len(probabilities)} predictions for {len(labels)} labels")
    return probabilities, labels


def mean(values: np.ndarray) -> float:
    """Of float (n,), without those that are nan; nan where none is left."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
