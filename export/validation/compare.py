"""How a candidate compares with FP32: tests of non-inferiority, measure by measure.

The lower bound of the two-sided 95 % interval must clear the margin, so that a candidate worse
than the margin allows gets past with a chance of 2.5 % at most. A candidate must pass in every
measure: their number needs no correction (intersection-union test; Berger, Technometrics 24, 1982).
Intervals are by paired bootstrap over lesions or patients. Of shares, the lower of that and a score
interval counts: few pictures change, and a resample of those in which none did knows no doubt.

The margins, which `train.recipe.Acceptance` holds, and why:

- retained 0.99, of FP32's AUC, balanced accuracy and Jaccard: the quality target at which MLPerf
  Inference lets a reduced precision count as the same model.
- sensitivity 0.95, of FP32's own at "see a doctor": the margin of 5 % at which readings of cancer
  screening are compared (McKinney et al., Nature 577, 2020). A narrower one could not be shown by
  any validation part of a public data set: 1 % asks for 400 malignant lesions without a change.
- triage 0.985, of the pictures with FP32's own advice: about as many change theirs when a picture
  is saved again as JPEG at quality 90 (1.7 %, `benchmarks/results/robustness`).
- speedup 1: the whole interval lies above (`export.acceptance.speed`).

0 switches a measure off. What a class with few lesions loses does not show in a mean over classes:
the report names those with fewer than `LEAST_LESIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from dermedge.bundle.manifest import Thresholds
from dermedge.evaluation import metrics
from export.validation import RESAMPLES
from export.validation.outputs import Outputs, ValidationSet, known
from train.recipe import Acceptance

LEVEL = 0.95
# Below so many malignant, benign or outlined lesions a bootstrap says little of its own error.
LEAST_LESIONS = 30
LEAST_OF_CLASS = 2  # one lesion drawn again and again does not vary

Statistic = Callable[[np.ndarray], float]  # of weights (n,)


@dataclass(frozen=True)
class Refusal:
    """One reason against a candidate."""

    words: str
    # "worse": the figure itself misses the margin; "unsure": it clears it, its interval does not;
    # "few": so few pictures cannot show it, whatever the candidate; "slow"; "broken": no numbers.
    kind: str
    missing: float = math.inf  # from the margin to the lower bound

    @property
    def of_candidate(self) -> bool:
        """Whether another graph might do better."""
        return self.kind in ("worse", "unsure", "broken")


@dataclass(frozen=True, eq=False)
class Pair:
    """What is compared: the outputs of FP32 and of a candidate on one validation set."""

    validation_set: ValidationSet
    reference: Outputs
    candidate: Outputs
    thresholds: Thresholds
    margins: Acceptance

    def lesions(self, among: np.ndarray) -> int:
        """How many lesions or patients the pictures bool (n,) show."""
        return len(np.unique(self.validation_set.groups[among]))

    def bootstrap(self, statistic: Statistic) -> metrics.Interval:
        groups = self.validation_set.groups
        return metrics.bootstrap(statistic, len(groups), groups, RESAMPLES, level=LEVEL)


def compare(
    validation_set: ValidationSet,
    reference: Outputs,
    candidate: Outputs,
    thresholds: Thresholds,
    margins: Acceptance,
) -> tuple[dict[str, object], list[Refusal]]:
    """Compare a candidate's outputs with those of FP32.

    Returns
    -------
    The figures, each with its interval, and the reasons to refuse the candidate: none, it passes.
    """
    if not candidate.finite:
        return {}, [Refusal("it gives no finite numbers", "broken")]
    pair = Pair(validation_set, reference, candidate, thresholds, margins)
    figures: dict[str, object] = {}
    refusals = []
    for name, figure, refusal in _measured(pair):
        figures[name] = figure
        if refusal:
            refusals.append(refusal)
    return figures, refusals


_Figure = tuple[str, object, "Refusal | None"]


def _measured(pair: Pair) -> Iterator[_Figure]:
    if pair.reference.jaccard is not None:
        yield _retained(pair, _jaccard(pair))
        masks = pair.candidate.masks, pair.reference.masks
        yield "mask_difference", _difference(*map(known, masks)), None
    if pair.reference.probabilities is None:
        return
    for measure in _class_measures(pair):
        yield _retained(pair, measure)
    yield "few_lesions", _few_lesions(pair), None
    yield _sensitivity(pair)
    yield from _agreement(pair)
    probabilities = pair.candidate.probabilities, pair.reference.probabilities
    yield "probability_difference", _difference(*map(known, probabilities)), None


@dataclass(frozen=True)
class _Margin:
    """What the lower end of a figure's interval must clear."""

    name: str
    least: float
    pictures: int  # that the figure rests upon
    noun: str = "pictures"
    # Of each kind of lesion how many there are, and must be.
    lesions: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Measure:
    """A figure of which a candidate is to retain a share."""

    margin: _Margin
    score: Callable[[Outputs], Statistic]
    bound: float = math.inf  # what the lower end of the interval may not exceed


def _jaccard(pair: Pair) -> _Measure:
    drawn = ~np.isnan(known(pair.reference.jaccard))

    def score(outputs: Outputs) -> Statistic:
        values = known(outputs.jaccard)[drawn]
        return lambda w: float(w[drawn] @ values / w[drawn].sum()) if drawn.any() else math.nan

    lesions = {"outlined": (pair.lesions(drawn), LEAST_LESIONS)}
    margin = _Margin("jaccard", pair.margins.retained, int(drawn.sum()), lesions=lesions)
    return _Measure(margin, score)


def _class_measures(pair: Pair) -> list[_Measure]:
    validation_set = pair.validation_set
    named = validation_set.classes >= 0
    targets = validation_set.classes[named]
    whole = _malignant(validation_set)
    truth = whole[named]
    offsets = np.array(pair.thresholds.class_offsets or 0)

    def auc(outputs: Outputs) -> Statistic:
        ranking = metrics.Ranking(outputs.malignancy(validation_set)[named], truth)
        return lambda w: ranking.roc_auc(w[named])

    def macro_auc(outputs: Outputs) -> Statistic:
        ranked = metrics.rankings(known(outputs.probabilities)[named], targets)
        return lambda w: metrics.mean(np.array([one.roc_auc(w[named]) for one in ranked]))

    def balanced(outputs: Outputs) -> Statistic:
        logs = np.log(np.maximum(known(outputs.probabilities)[named], 1e-12)) + offsets
        likely, classes = logs.argmax(axis=1), len(validation_set.labels)
        return lambda w: metrics.balanced_accuracy(likely, targets, classes, w[named])

    kinds = {
        "malignant": (pair.lesions(whole), LEAST_LESIONS),
        "benign": (pair.lesions(named & ~whole), LEAST_LESIONS),
    }
    each = {label: (count, LEAST_OF_CLASS) for label, count in _lesions_by_class(pair).items()}
    pictures, least = int(named.sum()), pair.margins.retained
    return [
        _Measure(_Margin(name, least, pictures, lesions=lesions), score)
        for name, score, lesions in (
            ("auc_malignant", auc, kinds),
            ("macro_auc", macro_auc, each),
            ("balanced_accuracy", balanced, each),
        )
    ]


def _malignant(validation_set: ValidationSet) -> np.ndarray:
    """bool (n,): which pictures show a lesion that is named and malignant."""
    return np.isin(validation_set.classes, np.flatnonzero(validation_set.malignant_labels))


def _lesions_by_class(pair: Pair) -> dict[str, int]:
    validation_set = pair.validation_set
    return {
        label: pair.lesions(validation_set.classes == number)
        for number, label in enumerate(validation_set.labels)
    }


def _few_lesions(pair: Pair) -> dict[str, int]:
    return {k: count for k, count in _lesions_by_class(pair).items() if count < LEAST_LESIONS}


def _sensitivity(pair: Pair) -> _Figure:
    level, truth = pair.thresholds.see_doctor, _malignant(pair.validation_set)
    before, after = (
        (outputs.malignancy(pair.validation_set) >= level) & truth
        for outputs in (pair.reference, pair.candidate)
    )

    def score(outputs: Outputs) -> Statistic:
        hit = before if outputs is pair.reference else after
        return lambda w: _share(hit, truth, w)

    # Of a lesion or patient with several pictures each counts its part.
    groups = pair.validation_set.groups
    gained, lost = (
        _per_lesion(one & ~other, truth, groups)
        for one, other in ((after, before), (before, after))
    )
    change = metrics.paired_share_interval(gained, lost, pair.lesions(truth), LEVEL)
    reference = score(pair.reference)(_ones(pair))
    least = pair.margins.sensitivity
    margin = _Margin("sensitivity", least, int(truth.sum()), "malignant pictures")
    bound = 1 + change.low / reference if reference else math.nan
    return _retained(pair, _Measure(margin, score, bound))


def _agreement(pair: Pair) -> Iterator[_Figure]:
    first, second = (_triage(pair, outputs) for outputs in (pair.reference, pair.candidate))
    same = first == second
    interval = pair.bootstrap(lambda w: float(w @ same / w.sum()))
    lesions = pair.lesions(np.ones(len(same), bool))
    score = metrics.wilson_interval(interval.value, lesions, LEVEL)
    interval = _lower(interval, score.low)
    margin = _Margin("triage_agreement", pair.margins.triage, len(same))
    words = f"triage agrees with FP32 on {interval.value:.2%}"
    figure = {**plain_interval(interval), "least": margin.least}
    yield margin.name, figure, _decide(margin, words, interval)
    yield "triage_changes", int((~same).sum()), None


def _retained(pair: Pair, measure: _Measure) -> _Figure:
    """Judge by the share of FP32's figure that the candidate retains."""
    before, after = measure.score(pair.reference), measure.score(pair.candidate)

    def ratio(weights: np.ndarray) -> float:
        whole = before(weights)
        # All of nothing is retained.
        return after(weights) / whole if whole != 0 else 1.0

    retained = _lower(pair.bootstrap(ratio), measure.bound)
    old, new = before(_ones(pair)), after(_ones(pair))
    figure = {
        "fp32": _number(old),
        "value": _number(new),
        "kept": plain_interval(retained),
        "least": measure.margin.least,
    }
    name = measure.margin.name
    words = f"{name} {new:.4f} is {retained.value:.2%} of FP32's {old:.4f}"
    return name, figure, _decide(measure.margin, words, retained)


def _decide(margin: _Margin, words: str, interval: metrics.Interval) -> Refusal | None:
    """Whether the lower end of an interval clears its margin."""
    least, pictures = margin.least, margin.pictures
    if not least:
        return None
    for kind, (count, needed) in margin.lesions.items():
        if count < needed:
            return Refusal(
                f"{margin.name}: too few pictures to show it: {count} lesions {kind}; needs at "
                f"least {needed}",
                "few",
            )
    unknown = math.isnan(interval.value) or (math.isnan(interval.low) and interval.value >= least)
    if unknown or not pictures:
        return Refusal(f"{words}: too few pictures to show it: {pictures} {margin.noun}", "few")
    shown = f"{words} ({interval.low:.2%} to {interval.high:.2%})"
    missing = math.inf if math.isnan(interval.low) else least - interval.low
    # Written so that nan is refused, too.
    if not interval.value >= least:
        return Refusal(f"{shown}, {least:.1%} is the least", "worse", missing)
    if not interval.low >= least:
        unchanged = interval.value == 1 and interval.high <= 1
        more = _needed(pictures, interval, least, unchanged)
        return Refusal(
            f"{shown}: too few pictures to show at least {least:.1%}: {pictures} {margin.noun}; "
            f"needs {more}",
            "few" if unchanged else "unsure",
            missing,
        )
    return None


def _lower(interval: metrics.Interval, bound: float) -> metrics.Interval:
    """The interval, its lower end no higher than `bound`; nan stays nan."""
    low = interval.low if bound == math.inf else np.minimum(interval.low, bound)
    return metrics.Interval(interval.value, float(low), interval.high)


def _needed(pictures: int, interval: metrics.Interval, least: float, unchanged: bool) -> str:
    """How many pictures would bring the lower bound to `least`, in words."""
    if math.isnan(interval.low) or interval.value <= least:
        return "many more"
    if unchanged:  # a score interval, whose width falls with the number of lesions
        more = pictures * (1 - interval.low) / max(interval.low, 1e-3) * least / (1 - least)
    else:  # falls with its root
        more = pictures * ((interval.value - interval.low) / (interval.value - least)) ** 2
    if more > 100 * pictures:
        return "more than a hundred times as many"
    digits = 10 ** max(0, math.floor(math.log10(more)) - 1)
    return f"about {math.ceil(more / digits) * digits:,}"


def _triage(pair: Pair, outputs: Outputs) -> np.ndarray:
    """0 low, 1 see a doctor, 2 urgent, 3 retake (n,); as the device decides it of the graph alone.

    Without the picture's quality and the bundle's head against pictures without a lesion.
    """
    level, limits = outputs.malignancy(pair.validation_set), pair.thresholds
    triage = (level >= limits.see_doctor).astype(int) + (level >= limits.urgent)
    if limits.unfamiliar is not None and outputs.distance is not None:
        triage[outputs.distance > limits.unfamiliar] = 3
    return triage


def _difference(values: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    difference = np.abs(values.astype(np.float64) - reference)
    return {
        "mean": round(float(difference.mean()), 6),
        "max": round(float(difference.max()), 6),
    }


def _per_lesion(hit: np.ndarray, among: np.ndarray, groups: np.ndarray) -> float:
    """Sum over lesions (n,) of the share of their pictures in `among` that are `hit`."""
    numbers = np.unique(groups, return_inverse=True)[1]
    hits, whole = (np.bincount(numbers, values) for values in (hit & among, among))
    return float((hits[whole > 0] / whole[whole > 0]).sum())


def _share(hit: np.ndarray, among: np.ndarray, weights: np.ndarray) -> float:
    whole = weights[among].sum()
    return float(weights[hit].sum() / whole) if whole else float("nan")


def _ones(pair: Pair) -> np.ndarray:
    return np.ones(len(pair.validation_set.groups))


def plain_interval(interval: metrics.Interval) -> dict[str, float | None]:
    """For JSON, six decimals; None: cannot be had."""
    return {key: _number(value) for key, value in asdict(interval).items()}


def _number(value: float) -> float | None:
    """For JSON, which has no nan."""
    return None if np.isnan(value) else round(float(value), 6)
