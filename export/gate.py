"""The acceptance: a precision enters the bundle only where it is shown to be as good as FP32.

Each measure is a test of non-inferiority on the accepting half of the validation part, which chose
neither the thresholds nor the candidate. The lower bound of the two-sided 95 % interval must clear
the margin, so that a candidate worse than the margin allows gets past with a chance of 2.5 % at
most. A candidate must pass in every measure: their number needs no correction (intersection-union
test; Berger, Technometrics 24, 1982). Intervals are by paired bootstrap over lesions or patients.
Of shares, the lower of that and a score interval counts: few pictures change, and a resample of
those in which none did knows no doubt.

The margins, which `train.recipe.Gate` holds, and why:

- retained 0.99, of FP32's AUC, balanced accuracy and Jaccard: the quality target at which MLPerf
  Inference lets a reduced precision count as the same model.
- sensitivity 0.95, of FP32's own at "see a doctor": the margin of 5 % at which readings of cancer
  screening are compared (McKinney et al., Nature 577, 2020). A narrower one could not be shown by
  any validation part of a public data set: 1 % asks for 400 malignant lesions without a change.
- triage 0.985, of the pictures with FP32's own advice: about as many change theirs when a picture
  is saved again as JPEG at quality 90 (1.7 %, `benchmarks/results/robustness`).
- speedup 1: the whole interval lies above.

0 switches a measure off. What a class with few lesions loses does not show in a mean over classes:
the report names those with fewer than `LEAST_LESIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from tqdm import tqdm

from dermedge.bundle.bundle import Thresholds
from dermedge.evaluation import metrics
from dermedge.evaluation import paired_timing as paired_timing
from dermedge.image.preprocess import Placement
from dermedge.image.read import read_mask
from dermedge.runtime import host, open_session
from dermedge.taxonomy import MALIGNANT
from export.calibrate import RESAMPLES
from train.recipe import Gate

TURNS = 60  # of FP32 and the candidate, one after the other
WARMUP = 5
LEVEL = 0.95
# Below so many malignant, benign or outlined lesions a bootstrap says little of its own error.
LEAST_LESIONS = 30
LEAST_OF_CLASS = 2  # one lesion drawn again and again does not vary


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
class Exam:
    """Pictures of one half of the validation part, as a graph takes them; one entry a picture."""

    feeds: list[dict[str, np.ndarray]]
    groups: np.ndarray  # int (n,): lesion or patient
    labels: tuple[str, ...] = ()  # () of a segmenter
    targets: np.ndarray | None = None  # int (n,): index of the label, -1: it has none
    masks: list = field(default_factory=list)  # file of the drawn mask, or None
    placements: list[Placement] = field(default_factory=list)

    def sizes(self) -> dict[str, int]:
        """How many pictures, lesions or patients, and pictures of malignant lesions it holds."""
        malignant = [number for number, label in enumerate(self.labels) if label in MALIGNANT]
        return {
            "pictures": len(self.groups),
            "lesions": len(np.unique(self.groups)),
            "malignant": 0 if self.targets is None else int(np.isin(self.targets, malignant).sum()),
        }


@dataclass(frozen=True, eq=False)
class Answers:
    """What one graph makes of an exam."""

    probabilities: np.ndarray | None  # float64 (n, K)
    distance: np.ndarray | None  # float32 (n,)
    jaccard: np.ndarray | None  # float (n,), nan without a drawn mask
    masks: np.ndarray | None  # float16 (n, S / 4, S / 4): every fourth row and column


def sit(exam: Exam, graph: bytes, threshold: float, note: str) -> Answers:
    """Run a graph over an exam; `threshold` makes its probabilities a mask."""
    session = open_session(graph)
    probabilities, distances, jaccards, masks = [], [], [], []
    for index, feeds in enumerate(tqdm(exam.feeds, desc=note, unit="picture")):
        found = session.run(feeds)
        if "probabilities" in found:
            probabilities.append(found["probabilities"][0].astype(np.float64))
        if "distance" in found:
            distances.append(found["distance"][0, 0])
        if "mask" in found:
            small = found["mask"][0, ::4, ::4].astype(np.float16)
            # One number that is none, wherever it is, makes none of the sum.
            masks.append(small if np.isfinite(found["mask"].sum()) else np.full_like(small, np.nan))
            jaccards.append(_jaccard(found["mask"][0], exam, index, threshold))
    return Answers(
        *(np.array(values) if values else None for values in (probabilities, distances)),
        *(np.array(values) if values else None for values in (jaccards, masks)),
    )


def _jaccard(mask: np.ndarray, exam: Exam, index: int, threshold: float) -> float:
    if exam.masks[index] is None:
        return float("nan")
    truth = read_mask(exam.masks[index])
    probability = exam.placements[index].restore(mask, truth.shape)
    return float(metrics.confusion([probability >= threshold], [truth]).jaccard[0])


@dataclass(frozen=True)
class Speed:
    """How much faster a graph is than FP32, interleaved, on one thread of this machine."""

    fp32_ms: float
    ms: float
    ratio: float  # above 1: faster
    low: float
    high: float
    where: str  # the runtime


def race(reference: bytes, candidate: bytes, feeds: Sequence[dict[str, np.ndarray]]) -> Speed:
    """Time two graphs in turns, on one thread; medians, and a bootstrap interval over turns."""
    sessions = {
        name: open_session(graph, threads=1)
        for name, graph in (("fp32", reference), ("candidate", candidate))
    }
    ways = {
        name: lambda turn, session=session: session.run(feeds[turn % len(feeds)])
        for name, session in sessions.items()
    }
    times = paired_timing.paired_timing(ways, 0, (TURNS + WARMUP, TURNS + WARMUP))
    first, own = times["fp32"][WARMUP:], times["candidate"][WARMUP:]
    found = paired_timing.ratio(first, own)
    return Speed(
        fp32_ms=round(float(np.median(first)), 4),
        **found,
        where=f"{sessions['candidate'].runtime}, 1 thread",
    )


def judge(
    exam: Exam, reference: Answers, candidate: Answers, thresholds: Thresholds, limits: Gate
) -> tuple[dict, list[Refusal]]:
    """Compare a candidate's answers with those of FP32.

    Returns
    -------
    The figures, each with its interval, and the reasons to refuse the candidate: none, it passes.
    """
    if not finite(candidate):
        return {}, [Refusal("it gives no finite numbers", "broken")]
    comparison = _Comparison(exam, reference, candidate, thresholds, limits)
    if reference.jaccard is not None:
        comparison.masks()
    if reference.probabilities is not None:
        comparison.classes()
    return comparison.figures, comparison.refusals


class _Comparison:
    """A candidate beside FP32, measure by measure."""

    def __init__(
        self,
        exam: Exam,
        reference: Answers,
        candidate: Answers,
        thresholds: Thresholds,
        limits: Gate,
    ):
        self.exam, self.reference, self.candidate = exam, reference, candidate
        self.thresholds, self.limits = thresholds, limits
        self.figures: dict[str, object] = {}
        self.refusals: list[Refusal] = []

    def masks(self) -> None:
        known = ~np.isnan(self.reference.jaccard)

        def score(answers: Answers) -> Callable[[np.ndarray], float]:
            values = answers.jaccard[known]
            return lambda w: float(w[known] @ values / w[known].sum()) if known.any() else math.nan

        lesions = {"outlined": (self._lesions(known), LEAST_LESIONS)}
        self._retained("jaccard", score, int(known.sum()), lesions)
        self.figures["mask_difference"] = _difference(self.candidate.masks, self.reference.masks)

    def classes(self) -> None:
        exam, limits = self.exam, self.thresholds
        named = exam.targets >= 0
        targets = exam.targets[named]
        malignant = np.array([label in MALIGNANT for label in exam.labels])
        truth = malignant[targets]
        offsets = np.array(limits.class_offsets or 0)
        whole = np.zeros(len(exam.groups), bool)
        whole[named] = truth

        def malignancy(answers: Answers) -> np.ndarray:
            return answers.probabilities[:, malignant].sum(axis=1)

        def auc(answers: Answers) -> Callable[[np.ndarray], float]:
            ranking = metrics.Ranking(malignancy(answers)[named], truth)
            return lambda w: ranking.roc_auc(w[named])

        def macro_auc(answers: Answers) -> Callable[[np.ndarray], float]:
            ranked = metrics.rankings(answers.probabilities[named], targets)
            return lambda w: metrics.mean(np.array([one.roc_auc(w[named]) for one in ranked]))

        def balanced(answers: Answers) -> Callable[[np.ndarray], float]:
            logs = np.log(np.maximum(answers.probabilities[named], 1e-12)) + offsets
            likely = logs.argmax(axis=1)
            return lambda w: metrics.balanced_accuracy(likely, targets, len(exam.labels), w[named])

        of_class = {
            label: self._lesions(exam.targets == number) for number, label in enumerate(exam.labels)
        }
        kinds = {
            "malignant": (self._lesions(whole), LEAST_LESIONS),
            "benign": (self._lesions(named & ~whole), LEAST_LESIONS),
        }
        each = {label: (count, LEAST_OF_CLASS) for label, count in of_class.items()}
        pictures = int(named.sum())
        self._retained("auc_malignant", auc, pictures, kinds)
        self._retained("macro_auc", macro_auc, pictures, each)
        self._retained("balanced_accuracy", balanced, pictures, each)
        self.figures["few_lesions"] = {
            label: count for label, count in of_class.items() if count < LEAST_LESIONS
        }
        self._sensitivity(malignancy, whole)
        self._agreement(malignancy)
        self.figures["probability_difference"] = _difference(
            self.candidate.probabilities, self.reference.probabilities
        )

    def _sensitivity(self, malignancy: Callable[[Answers], np.ndarray], truth: np.ndarray) -> None:
        level = self.thresholds.see_doctor
        before, after = (
            (malignancy(answers) >= level) & truth for answers in (self.reference, self.candidate)
        )

        def score(answers: Answers) -> Callable[[np.ndarray], float]:
            hit = before if answers is self.reference else after
            return lambda w: _share(hit, truth, w)

        # Of a lesion or patient with several pictures each counts its part.
        lesions = self._lesions(truth)
        gained, lost = (
            self._per_lesion(one & ~other, truth)
            for one, other in ((after, before), (before, after))
        )
        apart = metrics.paired_share_interval(gained, lost, lesions, LEVEL)
        found = score(self.reference)(_ones(self.exam))
        floor = 1 + apart.low / found if found else math.nan
        self._retained(
            "sensitivity",
            score,
            int(truth.sum()),
            {},
            self.limits.sensitivity,
            floor,
            "malignant pictures",
        )

    def _agreement(self, malignancy: Callable[[Answers], np.ndarray]) -> None:
        first, second = (
            _triage(answers, malignancy, self.thresholds)
            for answers in (self.reference, self.candidate)
        )
        same = first == second
        found = self._bootstrap(lambda w: float(w @ same / w.sum()))
        everyone = np.ones(len(same), bool)
        score = metrics.wilson_interval(found.value, self._lesions(everyone), LEVEL)
        found = _lower(found, score.low)
        least = self.limits.triage
        self.figures["triage_agreement"] = {**_plain(found), "least": least}
        self.figures["triage_changes"] = int((~same).sum())
        words = f"triage agrees with FP32 on {found.value:.2%}"
        self._decide(words, found, least, len(same), "pictures", {})

    def _retained(
        self,
        name: str,
        score: Callable[[Answers], Callable[[np.ndarray], float]],
        pictures: int,
        lesions: Mapping[str, tuple[int, int]],
        least: float | None = None,
        floor: float = math.inf,
        noun: str = "pictures",
    ) -> None:
        """Judge by the share of FP32's figure that the candidate keeps.

        score : of some answers, a statistic of weights (n,). pictures : that it rests upon.
        lesions : of each kind how many there are, and must be. least : share to be kept.
        floor : what the lower bound may not exceed.
        """
        least = self.limits.retained if least is None else least
        before, after = score(self.reference), score(self.candidate)

        def ratio(weights: np.ndarray) -> float:
            whole = before(weights)
            # All of nothing is kept.
            return after(weights) / whole if whole != 0 else 1.0

        kept = _lower(self._bootstrap(ratio), floor)
        old, new = before(_ones(self.exam)), after(_ones(self.exam))
        self.figures[name] = {
            "fp32": _number(old),
            "value": _number(new),
            "kept": _plain(kept),
            "least": least,
        }
        words = f"{name} {new:.4f} is {kept.value:.2%} of FP32's {old:.4f}"
        self._decide(words, kept, least, pictures, noun, lesions, name)

    def _decide(
        self,
        words: str,
        found: metrics.Interval,
        least: float,
        pictures: int,
        noun: str,
        lesions: Mapping[str, tuple[int, int]],
        name: str = "",
    ) -> None:
        if not least:
            return
        for kind, (count, needed) in lesions.items():
            if count < needed:
                self.refusals.append(
                    Refusal(
                        f"{name}: too few pictures to show it: {count} lesions {kind}; needs at "
                        f"least {needed}",
                        "few",
                    )
                )
                return
        unknown = math.isnan(found.value) or (math.isnan(found.low) and found.value >= least)
        if unknown or not pictures:
            self.refusals.append(
                Refusal(f"{words}: too few pictures to show it: {pictures} {noun}", "few")
            )
            return
        shown = f"{words} ({found.low:.2%} to {found.high:.2%})"
        missing = math.inf if math.isnan(found.low) else least - found.low
        # Written so that nan is refused, too.
        if not found.value >= least:
            reason = Refusal(f"{shown}, {least:.1%} is the least", "worse", missing)
        elif not found.low >= least:
            unchanged = found.value == 1 and found.high <= 1
            more = _needed(pictures, found, least, unchanged)
            reason = Refusal(
                f"{shown}: too few pictures to show at least {least:.1%}: {pictures} {noun}; needs "
                f"about {more}",
                "few" if unchanged else "unsure",
                missing,
            )
        else:
            return
        self.refusals.append(reason)

    def _bootstrap(self, statistic: Callable[[np.ndarray], float]) -> metrics.Interval:
        groups = self.exam.groups
        return metrics.bootstrap(statistic, len(groups), groups, RESAMPLES, level=LEVEL)

    def _lesions(self, among: np.ndarray) -> int:
        """How many lesions or patients the pictures bool (n,) show."""
        return len(np.unique(self.exam.groups[among]))

    def _per_lesion(self, hit: np.ndarray, among: np.ndarray) -> float:
        """Sum over lesions of the share of their pictures in `among` that are `hit`."""
        numbers = np.unique(self.exam.groups, return_inverse=True)[1]
        hits, whole = (np.bincount(numbers, values) for values in (hit & among, among))
        return float((hits[whole > 0] / whole[whole > 0]).sum())


def _lower(interval: metrics.Interval, bound: float) -> metrics.Interval:
    """The interval, its lower end no higher than `bound`; nan stays nan."""
    low = interval.low if bound == math.inf else np.minimum(interval.low, bound)
    return metrics.Interval(interval.value, float(low), interval.high)


def _needed(pictures: int, found: metrics.Interval, least: float, unchanged: bool) -> str:
    """About how many pictures would bring the lower bound to `least`, in words."""
    if math.isnan(found.low) or found.value <= least:
        return "many more"
    if unchanged:  # a score interval, whose width falls with the number of lesions
        more = pictures * (1 - found.low) / max(found.low, 1e-3) * least / (1 - least)
    else:  # falls with its root
        more = pictures * ((found.value - found.low) / (found.value - least)) ** 2
    if more > 100 * pictures:
        return "more than a hundred times as many"
    digits = 10 ** max(0, math.floor(math.log10(more)) - 1)
    return f"{math.ceil(more / digits) * digits:,}"


def _triage(answers: Answers, malignancy: Callable, limits: Thresholds) -> np.ndarray:
    """0 low, 1 see a doctor, 2 urgent, 3 retake (n,); as the device decides it."""
    level = malignancy(answers)
    found = (level >= limits.see_doctor).astype(int) + (level >= limits.urgent)
    if limits.unfamiliar is not None and answers.distance is not None:
        found[answers.distance > limits.unfamiliar] = 3
    return found


def finite(answers: Answers) -> bool:
    """Whether a graph gave numbers for every picture. FP16 overflows without an error."""
    given = (answers.probabilities, answers.distance, answers.masks)
    return all(np.isfinite(values).all() for values in given if values is not None)


def needed_threshold(exam: Exam, answers: Answers, sensitivity: float) -> float:
    """The highest "see a doctor" threshold at which a graph still finds so many, four decimals."""
    if not sensitivity:
        return 1.0
    named = exam.targets >= 0
    malignant = np.array([label in MALIGNANT for label in exam.labels])
    level = answers.probabilities[named][:, malignant].sum(axis=1)
    found = metrics.threshold_at_sensitivity(level, malignant[exam.targets[named]], sensitivity)
    return float(max(np.floor(found * 1e4) / 1e4, 1e-4))


def speed_refusals(speed: Speed | None, limits: Gate) -> list[Refusal]:
    """Why a graph's speed refuses it. None: it is for another machine, and not timed here."""
    if speed is None or speed.low > limits.speedup:
        return []
    words = (
        f"{speed.ratio:.2f} times as fast as FP32 ({speed.low:.2f} to {speed.high:.2f}), more than "
        f"{limits.speedup:g} is asked"
    )
    return [Refusal(words, "slow", limits.speedup - speed.low)]


def runs_here(targets: Sequence[str]) -> bool:
    """Whether a graph for these targets can be timed on this machine."""
    return host() in targets


def _difference(values: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    apart = np.abs(values.astype(np.float64) - reference)
    return {"mean": round(float(apart.mean()), 6), "max": round(float(apart.max()), 6)}


def _share(hit: np.ndarray, among: np.ndarray, weights: np.ndarray) -> float:
    whole = weights[among].sum()
    return float(weights[hit].sum() / whole) if whole else float("nan")


def _ones(exam: Exam) -> np.ndarray:
    return np.ones(len(exam.groups))


def _plain(interval: metrics.Interval) -> dict:
    return {k: _number(v) for k, v in asdict(interval).items()}


def _number(value: float) -> float | None:
    """For JSON, which has no nan."""
    return None if np.isnan(value) else round(float(value), 6)


def specificity(exam: Exam, answers: Answers, threshold: float) -> float:
    """Share of the benign lesions below a threshold of malignancy."""
    named = exam.targets >= 0
    malignant = np.array([label in MALIGNANT for label in exam.labels])
    level = answers.probabilities[named][:, malignant].sum(axis=1)
    return float((level < threshold)[~malignant[exam.targets[named]]].mean())
