"""One network in every precision that is asked for; the tuning half chooses one candidate of each.

The accepting half is not asked here: see `export.acceptance`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dermedge.bundle.manifest import Thresholds
from dermedge.runtime import open_session
from dermedge.text import printable
from export.graph.half import full_weights
from export.graph.onnx_graph import ExportedGraph, GraphModule, to_onnx
from export.options import CALIBRATION_PICTURES, ExportOptions
from export.quantization.equalize import equalize
from export.quantization.fp16 import compute_half
from export.quantization.int8 import (
    SCHEMES,
    RangeCalibration,
    Scheme,
    layers,
    observe_ranges,
    quantize,
)
from export.quantization.sensitivity import layers_around, map_effects
from export.thresholds.lower import lowered
from export.validation.compare import Refusal, compare
from export.validation.expected import expected_missing
from export.validation.outputs import Outputs, ValidationSet, run_graph
from export.validation.prepared import Feeds, prepare_samples, subset
from export.validation.validate import Validation
from train.recipe import Acceptance

FP16_TARGETS = ("arm", "tensorrt", "android")
NO_FP16 = f"it is for {', '.join(FP16_TARGETS)} alone"
# First layers that stay in float, one try after the other: all that follows inherits what they
# lose, and they are few weights. A layer in the middle would still be given rounded maps.
FLOAT_LAYERS = (0, 3, 6, 10, 20, 30, 40, 50, 75)
# With so many in float, those around a map that has this share of the effect of all are, too.
OUTLYING_FROM, OUTLYING = 20, 0.01
EFFECT_PICTURES = 40  # training pictures that effects are measured on
METHOD_PICTURES = 150  # pictures of the tuning half that calibration methods are compared on
METHOD_LAYERS = 3  # first layers in float meanwhile: what they lose would drown the difference
RETRAINING_PICTURES = 2000  # training pictures of quantization-aware training


@dataclass(frozen=True)
class Candidate:
    """One precision of one network that is put forward: its graph, and how it was found."""

    roles: tuple[str, ...]
    precision: str
    targets: tuple[str, ...]
    graph: bytes
    path: tuple[str, ...]  # what was tried, in order
    thresholds: Thresholds
    refusals: tuple[Refusal, ...] = ()  # what the tuning half has against it
    calibration: dict | None = None
    expected_missing: float = 0.0  # see `export.validation.expected`

    @property
    def promising(self) -> bool:
        """Whether it is hopeful, and the accepting half can be expected to see it so, too."""
        return self.hopeful and self.expected_missing <= 0

    @property
    def hopeful(self) -> bool:
        """Whether the tuning half has nothing against it that another graph might mend."""
        return not any(refusal.of_candidate for refusal in self.refusals)

    @property
    def plausible(self) -> bool:
        """Whether no figure of the tuning half misses its margin."""
        return not any(refusal.kind in ("worse", "broken") for refusal in self.refusals)

    @property
    def missing(self) -> float:
        """By how much the tuning half misses a margin, where it does so most."""
        return max((one.missing for one in self.refusals if one.of_candidate), default=0.0)

    @property
    def title(self) -> str:
        return f"{self.precision.upper()} for {', '.join(self.targets)}"

    def say(self, words: str) -> None:
        """A line on the terminal about it."""
        where = f"{self.precision} {' and '.join(self.roles)} for {', '.join(self.targets)}"
        print(f"{where}: {printable(words)}", file=sys.stderr, flush=True)


@dataclass(frozen=True, eq=False)
class Candidates:
    """All of one network, and the float graph, weights in full, that they are made from."""

    graph: bytes
    candidates: tuple[Candidate, ...]
    margins: Acceptance


def make_candidates(
    exported: ExportedGraph,
    validation: Validation,
    thresholds: Thresholds,
    options: ExportOptions,
) -> Candidates:
    """The candidates of each precision but FP32; none where FP32 alone is asked for.

    thresholds : of FP32.
    """
    margins = replace(validation.network.recipe.acceptance, **options.margins)
    if not options.other_precisions or validation.sets is None:
        return Candidates(exported.graph, (), margins)
    graph = full_weights(exported.graph)
    roles = validation.network.roles
    tuning = validation.sets[0]
    reference = run_graph(tuning, graph, thresholds.mask, f"{' and '.join(roles)} in FP32")
    search = CandidateSearch(
        roles, graph, tuning, reference, thresholds, margins, frozenset(options.targets)
    )
    candidates = []
    if "fp16" in options.precisions:
        candidates = search.fp16()
        if not candidates:
            print(f"fp16 {' and '.join(roles)}: not made: {NO_FP16}", file=sys.stderr, flush=True)
    if "int8" in options.precisions:
        feeds = training_feeds(validation, CALIBRATION_PICTURES)
        found = search.int8(feeds, options.methods)
        # Training makes the figures better, not the pictures more.
        if options.retraining and not all(candidate.plausible for candidate in found):
            retrained = _retrained(exported, validation, options.retraining)
            found = search.retried(found, retrained, feeds, options.methods)
        candidates += found
    return Candidates(graph, tuple(candidates), margins)


def training_feeds(validation: Validation, count: int) -> list[Feeds]:
    """About `count` training pictures as the graph takes them, of all classes."""
    network = validation.network
    records = network.records("train")
    note = f"reading the {network.run.kind}'s training pictures"
    # A few more than asked for: some classes may round down, some files may be broken.
    samples = prepare_samples(subset(records, count + 16), validation.spec, note)
    return [sample.feeds for sample in samples]


def _retrained(exported: ExportedGraph, validation: Validation, steps: int) -> bytes:
    """The float graph of the network after quantization-aware training."""
    from export.quantization.qat import train_quantized  # torchao, which takes long to start

    module, model = exported.module, validation.network.model
    trained = train_quantized(model, training_feeds(validation, RETRAINING_PICTURES), steps)
    return to_onnx(GraphModule(trained, module.temperature, module.ood), exported.size)


@dataclass(frozen=True, eq=False)
class CandidateSearch:
    """Makes graphs in other precisions of one network, and chooses by the tuning half."""

    roles: tuple[str, ...]
    graph: bytes  # in float, weights in full
    tuning: ValidationSet
    reference: Outputs  # of the float graph on `tuning`
    thresholds: Thresholds  # of FP32
    margins: Acceptance
    targets: frozenset[str]  # only what serves one of them is made
    lowering: bool = True  # whether "see a doctor" may be lowered for a candidate

    def fp16(self) -> list[Candidate]:
        """FP16, as this processor runs it: stored in half, some steps computed in float.

        None where it serves no target, which is `NO_FP16` in words.
        """
        if self.targets.isdisjoint(FP16_TARGETS):
            return []
        return [self._tried("fp16", FP16_TARGETS, compute_half(self.graph), ())]

    def int8(self, feeds: Sequence[Feeds], methods: Sequence[str]) -> list[Candidate]:
        """INT8 by every scheme that serves a target; one candidate of each.

        feeds : training pictures as the graph takes them, to calibrate on. methods : of
        calibration, to be compared.
        """
        ranges = observe_ranges(equalize(self.graph, feeds), feeds, methods)
        schemes = [s for s in SCHEMES.values() if not self.targets.isdisjoint(s.targets)]
        return [self._scheme(scheme, ranges, feeds) for scheme in schemes]

    def retried(
        self,
        candidates: Sequence[Candidate],
        retrained: bytes,
        feeds: Sequence[Feeds],
        methods: Sequence[str],
    ) -> list[Candidate]:
        """INT8 candidates, those that are not plausible tried again.

        retrained : a float graph whose weights were trained to be quantized.
        """
        ranges = observe_ranges(equalize(retrained, feeds), feeds, methods)
        return [old if old.plausible else self._better(old, ranges, feeds) for old in candidates]

    def _better(
        self, old: Candidate, ranges: RangeCalibration, feeds: Sequence[Feeds]
    ) -> Candidate:
        scheme = next(s for s in SCHEMES.values() if s.targets == old.targets)
        new = self._scheme(scheme, ranges, feeds, (*old.path, "quantization-aware training"))
        if new.missing < old.missing:
            return new
        step = "quantization-aware training, which brought it no nearer"
        return replace(old, path=(*old.path, step))

    def _scheme(
        self,
        scheme: Scheme,
        ranges: RangeCalibration,
        feeds: Sequence[Feeds],
        path: tuple[str, ...] = (),
    ) -> Candidate:
        every = layers(ranges, scheme)

        def made(method: str, numbers: Iterable[int]) -> bytes:
            float_nodes = [name for number in numbers for name in every[number]]
            return quantize(ranges, method, scheme, float_nodes)

        least = range(min(max(scheme.first, METHOD_LAYERS), len(every)))
        differences = {
            method: self._difference(made(method, least), scheme.targets)
            for method in ranges.ranges
        }
        best = min(differences, key=lambda name: (math.isnan(differences[name]), differences[name]))
        compared = ", ".join(f"{method} {value:.4f}" for method, value in differences.items())
        path = (
            *path,
            "channels equalized, weights rounded by what they see, calibrated by "
            f"{best} (root mean square of the difference from FP32: {compared})",
        )
        tried: list[Candidate] = []
        counts = []
        for words, numbers in _float_layers(scheme, ranges, best, feeds):
            step = (words,) if numbers else ()
            counts.append(len(numbers))
            tried.append(self._tried("int8", scheme.targets, made(best, numbers), (*path, *step)))
            if tried[-1].promising:
                break
        nearest = min(tried, key=lambda candidate: candidate.missing + candidate.expected_missing)
        if len(tried) > 1:
            others = ", ".join(map(str, counts))
            step = (f"nearest of those with {others} layers kept in float",)
            nearest = replace(nearest, path=(*nearest.path, *step))
        calibration = {"pictures": len(feeds), "part": "train", "method": best}
        return replace(nearest, calibration=calibration)

    def _tried(
        self, precision: str, targets: tuple[str, ...], graph: bytes, path: tuple[str, ...]
    ) -> Candidate:
        candidate = Candidate(self.roles, precision, targets, graph, path, self.thresholds)
        note = f"{' and '.join(self.roles)} in {candidate.title}"
        outputs = run_graph(self.tuning, graph, self.thresholds.mask, note, targets)
        thresholds = self.thresholds
        if self.lowering:
            thresholds = lowered(thresholds, self.tuning, self.reference, outputs, self.margins)
        _, refusals = compare(self.tuning, self.reference, outputs, thresholds, self.margins)
        missing = expected_missing(self.tuning, self.reference, outputs, thresholds, self.margins)
        against = "; ".join(refusal.words for refusal in refusals) or "nothing against it"
        if 0 < missing < math.inf:
            against += f"; with chance against it another half would miss a margin by {missing:.2%}"
        candidate.say(", ".join([*path[-1:], f"tuning half: {against}"]))
        return replace(
            candidate,
            thresholds=thresholds,
            refusals=tuple(refusals),
            expected_missing=missing,
        )

    def _difference(self, graph: bytes, targets: Sequence[str]) -> float:
        """Root mean square of the difference from FP32 over some pictures of the tuning half."""
        session, feeds = open_session(graph, targets=targets), self.tuning.feeds
        differences = []
        for index in range(0, len(feeds), max(1, len(feeds) // METHOD_PICTURES)):
            outputs = session.run(feeds[index])
            if self.reference.probabilities is not None:
                expected = self.reference.probabilities[index]
                differences.append(np.abs(outputs["probabilities"][0] - expected).mean())
            if self.reference.masks is not None:
                mask = outputs["mask"][0, ::4, ::4]
                differences.append(np.abs(mask - self.reference.masks[index]).mean())
        return float(np.sqrt(np.mean(np.square(differences))))


def _float_layers(
    scheme: Scheme, ranges: RangeCalibration, method: str, feeds: Sequence[Feeds]
) -> Iterator[tuple[str, Sequence[int]]]:
    """Layers to keep in float, one try after the other, each with words on which."""
    count = len(layers(ranges, scheme))
    outlying: set[int] | None = None
    # A network of so few layers is slower in INT8 than in float: the acceptance says so.
    firsts = [number for number in FLOAT_LAYERS if scheme.first <= number < count] or [count]
    for first in firsts:
        words = f"the first {first} of {count} layers kept in float"
        if first < OUTLYING_FROM:
            yield words, range(first)
            continue
        if outlying is None:
            some = feeds[:: max(1, len(feeds) // EFFECT_PICTURES)][:EFFECT_PICTURES]
            outlying = layers_around(map_effects(ranges, method, scheme, some), OUTLYING)
        others = outlying - set(range(first))
        if others:
            words += f" and {len(others)} others around maps that bear no rounding"
        yield words, sorted({*range(first), *others})
