"""One network in every precision that is accepted, and what was tried on the way there.

The tuning half of the validation part chooses one candidate of each precision and kind of
processor; the accepting half is asked once about it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from dermedge.bundle.bundle import TARGETS, Thresholds, Variant
from dermedge.runtime import open_session
from dermedge.text import printable
from export import METHODS, ExportError
from export.calibrate import SENSITIVITY
from export.equalize import equalize
from export.gate import (
    LEVEL,
    Answers,
    Exam,
    Refusal,
    finite,
    judge,
    needed_threshold,
    race,
    runs_here,
    sit,
    specificity,
    speed_refusals,
)
from export.int8 import SCHEMES, Calibration, Scheme, calibrate, layers, quantize
from export.weights import compute_half
from train.recipe import Gate

FP16_TARGETS = ("arm", "tensorrt", "android")
FP16_TOLERANCE = 1e-2  # of probability; more is no rounding, but an overflow
# First layers that stay in float, one try after the other: all that follows inherits what they
# lose. One in the middle would still be given rounded maps and have its own one rounded.
KEPT = (0, 3, 6, 10, 20)
SAMPLE = 150  # pictures of the tuning half that calibration methods are compared on
TIMED = 8  # pictures that take turns in the race
HINT = "hard-swish and squeeze-excite keep INT8 from being fused: use mobilenet_v2"


@dataclass
class Attempt:
    """One precision of one network: the graph that was chosen, and the report for the manifest.

    `tuning` is what the tuning half has against it; figures, reasons and speed are there once
    `Precisions.accept` was called.
    """

    roles: tuple[str, ...]
    precision: str
    targets: tuple[str, ...]
    graph: bytes
    path: list[str]  # what was tried, in order
    thresholds: Thresholds
    tuning: list[Refusal]
    figures: dict = field(default_factory=dict)
    reasons: list[str] = field(default_factory=lambda: ["it was not judged"])
    speed: dict | None = None
    calibration: dict | None = None
    judged: dict = field(default_factory=dict)  # on how many pictures, by which margins

    @property
    def hopeful(self) -> bool:
        """Whether the tuning half has nothing against it that another graph might mend."""
        return not any(refusal.of_candidate for refusal in self.tuning)

    @property
    def plausible(self) -> bool:
        """Whether no figure of the tuning half misses its margin."""
        return not any(refusal.kind in ("worse", "broken") for refusal in self.tuning)

    @property
    def missing(self) -> float:
        """By how much the tuning half misses a margin, where it does so most."""
        return max((one.missing for one in self.tuning if one.of_candidate), default=0.0)

    @property
    def passed(self) -> bool:
        return not self.reasons

    def part(self, kind: str) -> str:
        return f"{kind}-{self.precision}-{self.targets[0]}.onnx"

    def variant(self, kind: str) -> Variant:
        return Variant(self.part(kind), self.precision, self.targets)

    def report(self, fp32_bytes: int) -> dict:
        """What the manifest says of it."""
        return {
            "roles": list(self.roles),
            "precision": self.precision,
            "targets": list(self.targets),
            "passed": self.passed,
            "reasons": self.reasons,
            "figures": self.figures,
            "judged": self.judged,
            "tuning": [refusal.words for refusal in self.tuning],
            "speed": self.speed,
            "bytes": len(self.graph),
            "share_of_fp32": round(len(self.graph) / fp32_bytes, 4),
            "path": self.path,
            "calibration": self.calibration,
        }


class Precisions:
    """Makes the precisions of one network, chooses and judges them."""

    def __init__(
        self,
        roles: tuple[str, ...],
        graph: bytes,
        halves: tuple[Exam, Exam],
        thresholds: Thresholds,
        limits: Gate,
        targets: Sequence[str] = TARGETS,
    ):
        """`graph` is the float graph with its weights in full, `halves` the pictures that choose
        and those that accept, `thresholds` those of FP32.

        Only what serves one of `targets` is made.
        """
        self.roles, self.graph = roles, graph
        self.exam, self.accepting = halves
        self.targets = frozenset(targets)
        self.thresholds, self.limits = thresholds, limits
        self.reference = self._sit(self.exam, graph, "FP32")

    def fp16(self) -> list[Attempt]:
        """FP16, as this processor runs it: stored in half, some steps computed in float."""
        if self.targets.isdisjoint(FP16_TARGETS):
            return []
        return [self._tried("fp16", FP16_TARGETS, compute_half(self.graph), [])]

    def accept(self, attempts: Sequence[Attempt]) -> Thresholds:
        """Ask the accepting half, once, about each attempt; the thresholds that all then share.

        "See a doctor" is lowered before, for those that may be accepted by the tuning half; FP32's
        own comes back where nothing is.
        """
        if not attempts:
            return self.thresholds
        shared = lowest([self.thresholds, *(one.thresholds for one in attempts if one.plausible)])
        reference = self._sit(self.accepting, self.graph, "FP32")
        for attempt in attempts:
            attempt.thresholds = shared
            answers = self._sit(self.accepting, attempt.graph, _title(attempt))
            accept(attempt, self.accepting, reference, answers, self.graph, self.limits)
            attempt.judged["tuning"] = self.exam.sizes()
        return shared if any(attempt.passed for attempt in attempts) else self.thresholds

    def int8(
        self,
        feeds: Sequence[dict[str, np.ndarray]],
        methods: Sequence[str] = METHODS,
        retrain: Callable[[], bytes] | None = None,
    ) -> list[Attempt]:
        """INT8 by every scheme that serves a target; one candidate of each.

        Parameters
        ----------
        feeds : training pictures as the graph takes them, to calibrate on.
        methods : of calibration, to be compared.
        retrain : gives a float graph whose weights were trained to be quantized; called once at
            most, where all else fails.
        """
        seen = calibrate(equalize(self.graph, feeds), feeds, methods)
        schemes = [s for s in SCHEMES.values() if not self.targets.isdisjoint(s.targets)]
        attempts = [self._scheme(scheme, seen, len(feeds)) for scheme in schemes]
        # Training makes the figures better, not the pictures more.
        failed = [attempt for attempt in attempts if not attempt.plausible]
        if retrain is None or not failed:
            return attempts
        seen = calibrate(equalize(retrain(), feeds), feeds, methods)
        for old in failed:
            scheme = next(s for s in SCHEMES.values() if s.targets == old.targets)
            path = [*old.path, "quantization-aware training"]
            new = self._scheme(scheme, seen, len(feeds), path)
            if new.missing < old.missing:
                attempts[attempts.index(old)] = new
            else:
                old.path.append("quantization-aware training, which brought it no nearer")
        return attempts

    def _scheme(self, scheme: Scheme, seen: Calibration, pictures: int, path=()) -> Attempt:
        every = layers(seen, scheme)

        def made(method: str, count: int) -> bytes:
            kept = [name for layer in every[:count] for name in layer]
            return quantize(seen, method, scheme, kept)

        apart = {method: self._apart(made(method, scheme.first)) for method in seen.ranges}
        best = min(apart, key=lambda method: (math.isnan(apart[method]), apart[method]))
        compared = ", ".join(f"{method} {value:.4f}" for method, value in apart.items())
        path = [
            *path,
            f"channels equalized, biases corrected, calibrated by {best} (mean difference from "
            f"FP32: {compared})",
        ]
        tried: list[Attempt] = []
        counts = [number for number in KEPT if number >= scheme.first]
        for count in counts:
            kept = [f"the first {count} of {len(every)} layers kept in float"] if count else []
            tried.append(self._tried("int8", scheme.targets, made(best, count), [*path, *kept]))
            if tried[-1].hopeful:
                break
        chosen = min(tried, key=lambda attempt: attempt.missing)
        if len(tried) > 1:
            others = ", ".join(map(str, counts[: len(tried)]))
            chosen.path.append(f"nearest of those with {others} layers kept in float")
        chosen.calibration = {"pictures": pictures, "part": "train", "method": best}
        return chosen

    def _tried(
        self, precision: str, targets: tuple[str, ...], graph: bytes, path: list[str]
    ) -> Attempt:
        attempt = Attempt(self.roles, precision, targets, graph, path, self.thresholds, [])
        answers = self._sit(self.exam, graph, _title(attempt))
        attempt.thresholds = self._lowered(answers)
        _, attempt.tuning = judge(
            self.exam, self.reference, answers, attempt.thresholds, self.limits
        )
        against = "; ".join(refusal.words for refusal in attempt.tuning) or "nothing against it"
        _say(attempt, ", ".join([*path[-1:], f"tuning half: {against}"]))
        return attempt

    def _lowered(self, answers: Answers) -> Thresholds:
        """The thresholds, "see a doctor" lowered for this precision where that costs FP32 little.

        The threshold was the highest at which FP32 finds enough: another precision, however good,
        finds one malignant lesion less or more there.
        """
        if self.reference.probabilities is None or not finite(answers):
            return self.thresholds
        if not self.limits.sensitivity:
            return self.thresholds
        needed = needed_threshold(self.exam, answers, SENSITIVITY)
        lowered = replace(self.thresholds, see_doctor=min(needed, self.thresholds.see_doctor))
        before, after = (
            specificity(self.exam, self.reference, limits.see_doctor)
            for limits in (self.thresholds, lowered)
        )
        return lowered if after >= self.limits.retained * before else self.thresholds

    def _sit(self, exam: Exam, graph: bytes, note: str) -> Answers:
        return sit(exam, graph, self.thresholds.mask, f"{' and '.join(self.roles)} in {note}")

    def _apart(self, graph: bytes) -> float:
        """Mean difference from FP32 over some pictures of the tuning half."""
        session = open_session(graph)
        total = []
        for index in range(0, len(self.exam.feeds), max(1, len(self.exam.feeds) // SAMPLE)):
            found = session.run(self.exam.feeds[index])
            if self.reference.probabilities is not None:
                expected = self.reference.probabilities[index]
                total.append(np.abs(found["probabilities"][0] - expected).mean())
            if self.reference.masks is not None:
                apart = np.abs(found["mask"][0, ::4, ::4] - self.reference.masks[index])
                total.append(apart.mean())
        return float(np.mean(total))


def accept(
    attempt: Attempt,
    exam: Exam,
    reference: Answers,
    answers: Answers,
    fp32: bytes,
    limits: Gate,
) -> None:
    """Judge an attempt by what it makes of the accepting half, and put down figures and reasons.

    Parameters
    ----------
    exam : the accepting half.
    reference, answers : of FP32 and of the attempt there.
    fp32 : the graph that INT8 is timed against, where it can run on this machine.
    """
    attempt.figures, refusals = judge(exam, reference, answers, attempt.thresholds, limits)
    reasons = [refusal.words for refusal in refusals]
    if attempt.precision == "fp16":
        for name in ("mask_difference", "probability_difference"):
            apart = attempt.figures.get(name, {"max": 0.0})["max"]
            if not apart <= FP16_TOLERANCE:
                reasons.append(f"{name} {apart:.2g} is more than {FP16_TOLERANCE:g}")
    # FP16 is for accelerators: a processor without half-precision units says nothing of them.
    elif runs_here(attempt.targets):
        speed = race(fp32, attempt.graph, exam.feeds[:TIMED])
        slow = [refusal.words for refusal in speed_refusals(speed, limits)]
        reasons += [f"{words}; {HINT}" if _unfused(attempt.graph) else words for words in slow]
        attempt.speed = asdict(speed)
    attempt.reasons = reasons
    attempt.judged = {"accepting": exam.sizes(), "level": LEVEL, "margins": asdict(limits)}
    verdict = "accepted" if attempt.passed else f"refused: {'; '.join(reasons)}"
    _say(attempt, f"accepting half: {verdict}")


def _title(attempt: Attempt) -> str:
    return f"{attempt.precision.upper()} for {', '.join(attempt.targets)}"


def _say(attempt: Attempt, words: str) -> None:
    where = f"{attempt.precision} {' and '.join(attempt.roles)} for {', '.join(attempt.targets)}"
    print(f"{where}: {printable(words)}", file=sys.stderr, flush=True)


def _unfused(graph: bytes) -> bool:
    return b"HardSwish" in graph or b"HardSigmoid" in graph


def lowest(thresholds: Sequence[Thresholds]) -> Thresholds:
    """The first, with the lowest "see a doctor": where every precision still finds enough."""
    return replace(thresholds[0], see_doctor=min(item.see_doctor for item in thresholds))


def refuse_unknown(precisions: Sequence[str], known: Sequence[str]) -> None:
    """ExportError where a precision is asked for that there is none of, or not FP32."""
    strange = [name for name in precisions if name not in known]
    if strange or "fp32" not in precisions:
        raise ExportError(
            f"--precisions takes fp32, which all others are measured against, and any of "
            f"{', '.join(known)}; got {' '.join(precisions)}"
        )
