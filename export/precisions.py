"""One network in every precision that passes the gate, and what was tried on the way there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from dermedge.bundle import TARGETS, Thresholds, Variant
from dermedge.runtime import open_session
from dermedge.text import printable
from export import METHODS, ExportError
from export.equalize import equalize
from export.gate import (
    Answers,
    Exam,
    finite,
    judge,
    needed_threshold,
    race,
    runs_here,
    sit,
    specificity,
    speed_reasons,
)
from export.int8 import SCHEMES, Calibration, Scheme, calibrate, layers, quantize
from export.weights import compute_half
from train.recipe import Gate

FP16_TARGETS = ("arm", "tensorrt", "android")
FP16_TOLERANCE = 1e-2  # of probability; more is no rounding, but an overflow
# First layers that stay in float, one try after the other: all that follows inherits what they
# lose. One in the middle would still be given rounded maps and have its own one rounded.
KEPT = (0, 3, 6, 10, 20)
SAMPLE = 150  # validation pictures that calibration methods are compared on
TIMED = 8  # pictures that take turns in the race
HINT = "hard-swish and squeeze-excite keep INT8 from being fused: use mobilenet_v2"


@dataclass
class Attempt:
    """One precision of one network: its graph, and the report that goes into the manifest."""

    roles: tuple[str, ...]
    precision: str
    targets: tuple[str, ...]
    graph: bytes
    path: list[str]  # what was tried, in order
    answers: Answers
    figures: dict
    reasons: list[str]
    thresholds: Thresholds
    speed: dict | None = None
    calibration: dict | None = None

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
            "speed": self.speed,
            "bytes": len(self.graph),
            "share_of_fp32": round(len(self.graph) / fp32_bytes, 4),
            "path": self.path,
            "calibration": self.calibration,
        }


class Precisions:
    """Makes and judges the precisions of one network."""

    def __init__(
        self,
        roles: tuple[str, ...],
        graph: bytes,
        exam: Exam,
        thresholds: Thresholds,
        limits: Gate,
        targets: Sequence[str] = TARGETS,
    ):
        """`graph` is the float graph with its weights in full, `exam` the validation pictures.

        Only what serves one of `targets` is made.
        """
        self.roles, self.graph, self.exam = roles, graph, exam
        self.targets = frozenset(targets)
        self.thresholds, self.limits = thresholds, limits
        self.reference = self._sit(graph, "FP32")

    def fp16(self) -> list[Attempt]:
        """FP16, judged as this processor runs it: stored in half, some steps computed in float."""
        if self.targets.isdisjoint(FP16_TARGETS):
            return []
        attempt = self._judged("fp16", FP16_TARGETS, compute_half(self.graph), [])
        for name in ("mask_difference", "probability_difference"):
            apart = attempt.figures.get(name, {"max": 0.0})["max"]
            if not apart <= FP16_TOLERANCE:
                attempt.reasons.append(f"{name} {apart:.2g} is more than {FP16_TOLERANCE:g}")
        return [attempt]

    def int8(
        self,
        feeds: Sequence[dict[str, np.ndarray]],
        methods: Sequence[str] = METHODS,
        retrain: Callable[[], bytes] | None = None,
    ) -> list[Attempt]:
        """INT8 by every scheme that serves a target.

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
        failed = [a for a in attempts if not a.passed and _could_train_help(a)]
        if retrain is None or not failed:
            return attempts
        seen = calibrate(equalize(retrain(), feeds), feeds, methods)
        for old in failed:
            scheme = next(s for s in SCHEMES.values() if s.targets == old.targets)
            path = [*old.path, "quantization-aware training"]
            new = self._scheme(scheme, seen, len(feeds), path)
            if new.passed:
                attempts[attempts.index(old)] = new
            else:
                old.path.append(f"quantization-aware training refused: {'; '.join(new.reasons)}")
        return attempts

    def _scheme(self, scheme: Scheme, seen: Calibration, pictures: int, path=()) -> Attempt:
        every = layers(seen, scheme)

        def made(method: str, count: int) -> bytes:
            kept = [name for layer in every[:count] for name in layer]
            return quantize(seen, method, scheme, kept)

        apart = {method: self._apart(made(method, scheme.first)) for method in seen.ranges}
        best = min(apart, key=apart.__getitem__)
        compared = ", ".join(f"{method} {value:.4f}" for method, value in apart.items())
        path = [
            *path,
            f"channels equalized, biases corrected, calibrated by {best} (mean difference from "
            f"FP32: {compared})",
        ]
        for count in (number for number in KEPT if number >= scheme.first):
            kept = [f"the first {count} of {len(every)} layers kept in float"] if count else []
            graph = made(best, count)
            attempt = self._judged("int8", scheme.targets, graph, [*path, *kept])
            if attempt.passed or not _could_train_help(attempt):
                break
        attempt.calibration = {"pictures": pictures, "part": "train", "method": best}
        return attempt

    def _judged(
        self, precision: str, targets: tuple[str, ...], graph: bytes, path: list[str]
    ) -> Attempt:
        answers = self._sit(graph, f"{precision.upper()} for {', '.join(targets)}")
        thresholds = self._lowered(answers)
        figures, reasons = judge(self.exam, self.reference, answers, thresholds, self.limits)
        speed = None
        # FP16 is for accelerators: a processor without half-precision units says nothing of them.
        if runs_here(targets) and precision == "int8":
            speed = race(self.graph, graph, self.exam.feeds[:TIMED])
            slow = speed_reasons(speed, self.limits)
            reasons += [f"{line}; {HINT}" if _unfused(graph) else line for line in slow]
        timed = asdict(speed) if speed else None
        attempt = Attempt(
            *(self.roles, precision, targets, graph, path, answers, figures, reasons, thresholds),
            speed=timed,
        )
        verdict = "passed" if attempt.passed else f"refused: {'; '.join(reasons)}"
        told = ", ".join([*path[-1:], verdict])
        print(
            f"{precision} for {', '.join(targets)}: {printable(told)}", file=sys.stderr, flush=True
        )
        return attempt

    def again(self, attempt: Attempt, thresholds: Thresholds) -> None:
        """Judge once more, with the thresholds that the bundle is given."""
        attempt.thresholds = thresholds
        slow = [] if attempt.passed else attempt.reasons
        attempt.figures, reasons = judge(
            self.exam, self.reference, attempt.answers, thresholds, self.limits
        )
        attempt.reasons = [*slow, *reasons]

    def _lowered(self, answers: Answers) -> Thresholds:
        """The thresholds, "see a doctor" lowered for this precision where that costs FP32 little.

        The threshold was the highest at which FP32 finds enough: another precision, however good,
        finds one malignant lesion less or more there.
        """
        if self.reference.probabilities is None or not finite(answers):
            return self.thresholds
        needed = needed_threshold(self.exam, answers, self.limits.sensitivity)
        lowered = replace(self.thresholds, see_doctor=min(needed, self.thresholds.see_doctor))
        before, after = (
            specificity(self.exam, self.reference, limits.see_doctor)
            for limits in (self.thresholds, lowered)
        )
        return lowered if after >= self.limits.retained * before else self.thresholds

    def _sit(self, graph: bytes, note: str) -> Answers:
        return sit(self.exam, graph, self.thresholds.mask, f"{' and '.join(self.roles)} in {note}")

    def _apart(self, graph: bytes) -> float:
        """Mean difference from FP32 over some validation pictures."""
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


def _could_train_help(attempt: Attempt) -> bool:
    """Whether it is the numbers that fail, and not the speed."""
    return any("times as fast" not in reason for reason in attempt.reasons)


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
