"""The gate: a precision enters the bundle only where it is as good as FP32, and faster.

All is measured on the validation part, which neither training nor calibration has seen, through
the runtime that the device uses; intervals are by paired bootstrap over lesions or patients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from tqdm import tqdm

from dermedge import metrics
from dermedge.bundle import Thresholds
from dermedge.image import read_mask
from dermedge.preprocess import Placement
from dermedge.runtime import host, open_session
from dermedge.taxonomy import MALIGNANT
from export.calibrate import RESAMPLES
from train.recipe import Gate

TURNS = 60  # of FP32 and the candidate, one after the other
WARMUP = 5


@dataclass(frozen=True, eq=False)
class Exam:
    """The validation pictures of one network, as its graph takes them; one entry a picture."""

    feeds: list[dict[str, np.ndarray]]
    groups: np.ndarray  # int (n,): lesion or patient
    labels: tuple[str, ...] = ()  # () of a segmenter
    targets: np.ndarray | None = None  # int (n,): index of the label, -1: it has none
    masks: list = field(default_factory=list)  # file of the drawn mask, or None
    placements: list[Placement] = field(default_factory=list)


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
            masks.append(found["mask"][0, ::4, ::4].astype(np.float16))
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
    sessions = [open_session(graph, threads=1) for graph in (reference, candidate)]
    taken = np.empty((TURNS + WARMUP, 2))
    for turn in range(len(taken)):
        for which in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter()
            sessions[which].run(feeds[turn % len(feeds)])
            taken[turn, which] = time.perf_counter() - start
    taken = taken[WARMUP:] * 1000
    ratio = np.median(taken[:, 0]) / np.median(taken[:, 1])
    rng = np.random.default_rng(0)
    draws = taken[rng.integers(TURNS, size=(RESAMPLES, TURNS))]
    found = np.median(draws[..., 0], axis=1) / np.median(draws[..., 1], axis=1)
    low, high = np.quantile(found, (0.025, 0.975))
    medians = np.median(taken, axis=0)
    values = (*medians, ratio, low, high)
    return Speed(*(round(float(v), 4) for v in values), f"{sessions[1].runtime}, 1 thread")


def judge(
    exam: Exam, reference: Answers, candidate: Answers, thresholds: Thresholds, limits: Gate
) -> tuple[dict, list[str]]:
    """Compare a candidate's answers with those of FP32.

    Returns
    -------
    The figures, each with its interval, and the reasons to refuse the candidate: none, it passes.
    """
    figures: dict[str, object] = {}
    reasons: list[str] = []
    if not finite(candidate):
        return figures, ["it gives no finite numbers"]

    def ratio(score: Callable, weights: np.ndarray) -> float:
        before = score(reference, weights)
        # All of nothing is kept.
        return score(candidate, weights) / before if before != 0 else 1.0

    def retained(name: str, score: Callable[[Answers, np.ndarray], float]) -> None:
        value, before = score(candidate, _ones(exam)), score(reference, _ones(exam))
        kept = metrics.bootstrap(
            lambda w: ratio(score, w),
            len(exam.groups),
            exam.groups,
            RESAMPLES,
        )
        figures[name] = {"fp32": round(before, 6), "value": round(value, 6), "kept": _plain(kept)}
        # Written so that nan is refused, too.
        if not kept.value >= limits.retained:
            reasons.append(f"{name} {value:.4f} is {kept.value:.2%} of FP32's {before:.4f}")

    if reference.jaccard is not None:
        known = ~np.isnan(reference.jaccard)
        retained("jaccard", lambda a, w: float(w[known] @ a.jaccard[known] / w[known].sum()))
        figures["mask_difference"] = _difference(candidate.masks, reference.masks)
    if reference.probabilities is not None:
        _judge_classes(exam, reference, candidate, thresholds, limits, figures, reasons, retained)
    return figures, reasons


def _judge_classes(exam, reference, candidate, thresholds, limits, figures, reasons, retained):
    named = exam.targets >= 0
    targets = exam.targets[named]
    malignant = np.array([label in MALIGNANT for label in exam.labels])
    truth = malignant[targets]
    offsets = np.array(thresholds.class_offsets or 0)

    def malignancy(answers: Answers) -> np.ndarray:
        return answers.probabilities[:, malignant].sum(axis=1)

    def likely(answers: Answers) -> np.ndarray:
        return (np.log(np.maximum(answers.probabilities[named], 1e-12)) + offsets).argmax(axis=1)

    retained("auc_malignant", lambda a, w: metrics.roc_auc(malignancy(a)[named], truth, w[named]))
    retained("macro_auc", lambda a, w: metrics.macro_auc(a.probabilities[named], targets, w[named]))
    retained(
        "balanced_accuracy",
        lambda a, w: metrics.balanced_accuracy(likely(a), targets, len(exam.labels), w[named]),
    )
    hit = malignancy(candidate)[named] >= thresholds.see_doctor
    sensitivity = metrics.bootstrap(
        lambda w: _share(hit & truth, truth, w[named]), len(exam.groups), exam.groups, RESAMPLES
    )
    figures["sensitivity"] = _plain(sensitivity)
    if not sensitivity.value >= limits.sensitivity:
        reasons.append(
            f"sensitivity {sensitivity.value:.4f} at threshold {thresholds.see_doctor:g} is below "
            f"{limits.sensitivity:g}"
        )
    same = _triage(candidate, malignancy, thresholds) == _triage(reference, malignancy, thresholds)
    agreement = metrics.bootstrap(
        lambda w: float(w @ same / w.sum()), len(exam.groups), exam.groups, RESAMPLES
    )
    figures["triage_agreement"] = _plain(agreement)
    figures["triage_changes"] = int((~same).sum())
    if not agreement.value >= limits.triage:
        reasons.append(f"triage agrees with FP32 on {agreement.value:.2%}, {limits.triage:.1%} is")
        reasons[-1] += " the least"
    figures["probability_difference"] = _difference(
        candidate.probabilities, reference.probabilities
    )


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


def speed_reasons(speed: Speed | None, limits: Gate) -> list[str]:
    """Why a graph's speed refuses it. None: it is for another machine, and not timed here."""
    if speed is None or speed.low > limits.speedup:
        return []
    return [
        f"{speed.ratio:.2f} times as fast as FP32 ({speed.low:.2f} to {speed.high:.2f}), more than "
        f"{limits.speedup:g} is asked"
    ]


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
    return {k: None if np.isnan(v) else round(v, 6) for k, v in asdict(interval).items()}


def specificity(exam: Exam, answers: Answers, threshold: float) -> float:
    """Share of the benign lesions below a threshold of malignancy."""
    named = exam.targets >= 0
    malignant = np.array([label in MALIGNANT for label in exam.labels])
    level = answers.probabilities[named][:, malignant].sum(axis=1)
    return float((level < threshold)[~malignant[exam.targets[named]]].mean())
