"""The acceptance: a precision enters the bundle only where it is shown to be as good as FP32.

It is asked on the accepting half of the validation part, which chose neither the thresholds nor the
candidate, once about each candidate. `export.validation.compare` says by which measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from dermedge.bundle.manifest import Thresholds, Variant
from dermedge.runtime import host
from export.acceptance.speed import Speed, speed_refusals, time_graphs
from export.quantization.candidates import Candidate, Candidates
from export.thresholds.lower import lowest
from export.validation.compare import LEVEL, compare
from export.validation.outputs import Outputs, ValidationSet, run_graph
from export.validation.validate import Validation
from train.recipe import Acceptance

FP16_TOLERANCE = 1e-2  # of probability; more is no rounding, but an overflow
TIMED_PICTURES = 8  # that take turns in the timing
HINT = "hard-swish and squeeze-excite keep INT8 from being fused: use mobilenet_v2"


@dataclass(frozen=True)
class Decision:
    """What the accepting half says of one candidate."""

    candidate: Candidate
    figures: dict[str, object]
    reasons: tuple[str, ...]  # against it; none: it enters
    speed: Speed | None  # None: it is for another machine
    judged: Mapping[str, object]  # on how many pictures, by which margins

    @property
    def passed(self) -> bool:
        return not self.reasons

    def part(self, kind: str) -> str:
        """The name of its graph in the bundle."""
        return f"{kind}-{self.candidate.precision}-{self.candidate.targets[0]}.onnx"

    def variant(self, kind: str) -> Variant:
        return Variant(self.part(kind), self.candidate.precision, self.candidate.targets)

    def report(self, fp32_bytes: int) -> dict:
        """What the manifest says of it."""
        candidate = self.candidate
        return {
            "roles": list(candidate.roles),
            "precision": candidate.precision,
            "targets": list(candidate.targets),
            "passed": self.passed,
            "reasons": list(self.reasons),
            "figures": self.figures,
            "judged": dict(self.judged),
            "tuning": [refusal.words for refusal in candidate.refusals],
            "speed": asdict(self.speed) if self.speed else None,
            "bytes": len(candidate.graph),
            "share_of_fp32": round(len(candidate.graph) / fp32_bytes, 4),
            "path": list(candidate.path),
            "calibration": candidate.calibration,
        }


@dataclass(frozen=True)
class Accepted:
    """All decisions about one network, and the thresholds that what enters shares with FP32."""

    thresholds: Thresholds
    decisions: tuple[Decision, ...]
    reports: tuple[dict, ...]  # of the decisions, for the manifest

    @property
    def entering(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.passed]


def accept(candidates: Candidates, validation: Validation, thresholds: Thresholds) -> Accepted:
    """Ask the accepting half, once, about each candidate.

    "See a doctor" is lowered before, for those that may be accepted by the tuning half; FP32's own,
    `thresholds`, comes back where nothing is.
    """
    if not candidates.candidates or validation.sets is None:
        return Accepted(thresholds, (), ())
    tuning, accepting = validation.sets
    judged = {"tuning": tuning.sizes()}
    decisions = decide(candidates, accepting, thresholds, judged)
    shared = decisions[0].candidate.thresholds
    return Accepted(
        shared if any(decision.passed for decision in decisions) else thresholds,
        decisions,
        tuple(decision.report(len(candidates.graph)) for decision in decisions),
    )


def decide(
    candidates: Candidates,
    accepting: ValidationSet,
    thresholds: Thresholds,
    judged: Mapping[str, object],
) -> tuple[Decision, ...]:
    """The decisions, all with the thresholds that those which may be accepted share.

    judged : what else their reports say of how they were judged.
    """
    every = candidates.candidates
    shared = lowest([thresholds, *(one.thresholds for one in every if one.plausible)])
    who = " and ".join(every[0].roles)
    reference = run_graph(accepting, candidates.graph, thresholds.mask, f"{who} in FP32")
    decisions = []
    for candidate in every:
        note = f"{who} in {candidate.title}"
        outputs = run_graph(accepting, candidate.graph, thresholds.mask, note, candidate.targets)
        speed = _speed(candidate, candidates.graph, accepting)
        decision = _decision(
            replace(candidate, thresholds=shared),
            _Asked(accepting, reference, candidates.margins),
            outputs,
            speed,
        )
        decisions.append(replace(decision, judged={**decision.judged, **judged}))
    return tuple(decisions)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What every candidate of a network is compared with."""

    accepting: ValidationSet
    reference: Outputs  # of FP32
    margins: Acceptance


def _speed(candidate: Candidate, fp32: bytes, accepting: ValidationSet) -> Speed | None:
    # FP16 is for accelerators: a processor without half-precision units says nothing of them.
    if candidate.precision == "fp16" or host() not in candidate.targets:
        return None
    return time_graphs(fp32, candidate.graph, accepting.feeds[:TIMED_PICTURES])


def _decision(
    candidate: Candidate, asked: _Asked, outputs: Outputs, speed: Speed | None
) -> Decision:
    margins = asked.margins
    figures, refusals = compare(
        asked.accepting, asked.reference, outputs, candidate.thresholds, margins
    )
    reasons = [refusal.words for refusal in refusals]
    if candidate.precision == "fp16":
        reasons += _overflow(figures)
    slow = [refusal.words for refusal in speed_refusals(speed, margins)]
    reasons += [f"{words}; {HINT}" if _unfused(candidate.graph) else words for words in slow]
    verdict = f"refused: {'; '.join(reasons)}" if reasons else "accepted"
    candidate.say(f"accepting half: {verdict}")
    judged = {"accepting": asked.accepting.sizes(), "level": LEVEL, "margins": asdict(margins)}
    return Decision(candidate, figures, tuple(reasons), speed, judged)


def _overflow(figures: dict) -> list[str]:
    reasons = []
    for name in ("mask_difference", "probability_difference"):
        difference = figures.get(name, {"max": 0.0})["max"]
        if not difference <= FP16_TOLERANCE:
            reasons.append(f"{name} {difference:.2g} is more than {FP16_TOLERANCE:g}")
    return reasons


def _unfused(graph: bytes) -> bool:
    return b"HardSwish" in graph or b"HardSigmoid" in graph
