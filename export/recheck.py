"""The acceptance once more, of a finished bundle; no run is needed.

Its precisions are judged as they are, or made from its own FP32 graphs first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import ROLES, Manifest, Model, Variant
from dermedge.data import DataSet
from dermedge.runtime import open_session
from export import ExportError
from export.acceptance.accept import decide
from export.bundle.learnt import Learnt, learnt_by
from export.graph.half import full_weights
from export.options import CALIBRATION_PICTURES, ExportOptions
from export.quantization.candidates import NO_FP16, Candidate, Candidates, CandidateSearch
from export.quantization.int8 import TooFewPictures
from export.validation.halves import Halves
from export.validation.outputs import ValidationSet, run_graph
from export.validation.prepared import Crop, FeedSpec, cropper, prepare_samples, subset
from export.validation.validate import members_of, usable_samples, validation_set
from train.recipe import Acceptance

NOT_INDEPENDENT = (
    "the thresholds and the candidate were chosen on the whole validation part, the accepting half "
    "among it"
)
THRESHOLDS_ONLY = (
    "the thresholds were chosen on the whole validation part, the accepting half among it"
)


@dataclass(frozen=True)
class Rechecked:
    """What came of it: the manifest, the parts for `write_bundle`, and the new reports."""

    manifest: Manifest
    parts: dict[str, bytes]
    reports: tuple[dict, ...]
    unmade: tuple[str, ...]  # a line each: what was asked for and cannot be made, and why


def recheck(
    bundle: Bundle,
    data_sets: Sequence[DataSet],
    split_files: Sequence[str],
    margins: Acceptance,
    options: ExportOptions | None = None,
) -> Rechecked:
    """Judge every variant of a bundle on the accepting half of the validation part.

    Parameters
    ----------
    data_sets, split_files : what the networks were trained on, as `learnt_by` takes them.
    margins : what a lower bound must reach.
    options : given, these precisions are made from the FP32 graphs for these targets, calibrated
        on the training part and chosen by the tuning half, and judged instead of the variants that
        are there; thresholds stay as they are, and no network is trained.

    Returns
    -------
    The bundle without the variants that were refused, its reports replaced. Whether the accepting
    half had a part in choosing the candidate is said in 'judged' of each. A network that
    `learnt_by` leaves out stays as it is.

    Raises
    ------
    ExportError
        Where there is no variant, FP32 is not there to compare with, or data sets or splits are
        not those that the bundle was made from.
    """
    networks = _networks(bundle.manifest)
    if options is None:
        networks = [roles for roles in networks if _first(bundle, roles).variants]
    if not networks:
        raise ExportError(
            f"{bundle.path} carries one graph of each network: there is nothing to judge; "
            "--precisions says what to make of FP32"
        )
    for roles in networks:
        if (precision := _first(bundle, roles).precision) != "fp32":
            raise ExportError(
                f"{bundle.path} has its {' and '.join(roles)} in {precision}, and no FP32 to "
                "compare with: give the whole bundle, not a slice of it"
            )
    crop = _crop(bundle)
    learnt = learnt_by(bundle, networks, data_sets, split_files)
    source = _Source(bundle, margins, options)
    results = [_judged(source, roles, one, crop) for roles, one in learnt.items()]
    judged = [one for ones, _ in results for one in ones]
    manifest = bundle.manifest
    parts = {name: bundle.part(name) for name in manifest.parts}
    again = {_key(one.report) for one in judged}
    models = dict(manifest.models)
    for role, model in manifest.models.items():
        mine = [one for one in judged if role in one.report["roles"]]
        retained = tuple(v for v in model.variants if not any(one.replaces(v) for one in mine))
        for variant in set(model.variants) - set(retained):
            parts.pop(variant.part, None)
        entering = tuple(one.variant for one in mine if one.report["passed"])
        models[role] = replace(model, variants=(*retained, *entering))
    parts |= {one.variant.part: one.graph for one in judged if one.report["passed"]}
    others = tuple(report for report in manifest.gate if _key(report) not in again)
    reports = tuple(one.report for one in judged)
    manifest = replace(manifest, models=models, gate=(*others, *reports))
    unmade = tuple(line for _, lines in results for line in lines)
    return Rechecked(manifest, parts, reports, unmade)


@dataclass(frozen=True, eq=False)
class _Judged:
    """One precision of one network, and what is said of it."""

    variant: Variant
    graph: bytes
    report: dict

    def replaces(self, variant: Variant) -> bool:
        """Whether that one is for the same use; a network has one graph for each."""
        mine = self.variant
        alike = mine.precision == variant.precision
        return alike and not set(mine.targets).isdisjoint(variant.targets)


@dataclass(frozen=True, eq=False)
class _Source:
    """What is judged again, and by what."""

    bundle: Bundle
    margins: Acceptance
    options: ExportOptions | None


def _judged(
    source: _Source, roles: tuple[str, ...], learnt: Learnt, crop: Crop | None
) -> tuple[list[_Judged], list[str]]:
    """Each variant of one network, and a line on each precision that cannot be made of it."""
    bundle, kind = source.bundle, learnt.kind
    model = _first(bundle, roles)
    part = learnt.validation
    judged: dict[str, object] = {"independent": True}
    if not _independent(bundle.manifest, roles, part.halves):
        judged = {
            "independent": False,
            "note": THRESHOLDS_ONLY if source.options else NOT_INDEPENDENT,
        }
    print(f"the {kind}'s validation part: {part.halves}", file=sys.stderr, flush=True)
    labels = bundle.manifest.labels if "classifier" in roles else ()
    spec = FeedSpec(model.preprocessing, model.metadata, crop)
    accepting = _half(learnt, "accepting", labels, spec)
    if source.options:
        tuning = _half(learnt, "tuning", labels, spec)
        candidates, unmade = _made(source, roles, tuning, learnt, spec)
    else:
        candidates, unmade = _candidates(bundle, roles, model, source.margins), []
    if not candidates.candidates:
        return [], unmade
    found = []
    decisions = decide(candidates, accepting, bundle.manifest.thresholds, judged)
    for decision in decisions:
        report = decision.report(len(candidates.graph))
        variant = decision.variant(kind)
        if not source.options:
            wanted = variant.precision, variant.targets
            variant = next(v for v in model.variants if (v.precision, v.targets) == wanted)
            # The share was of the graph with full weights, which a bundle of half weights lacks.
            old = _old_report(bundle.manifest, roles, variant)
            report["share_of_fp32"] = old.get("share_of_fp32", report["share_of_fp32"])
        found.append(_Judged(variant, decision.candidate.graph, report))
    return found, unmade


def _half(learnt: Learnt, half: str, labels: Sequence[str], spec: FeedSpec) -> ValidationSet:
    """The pictures of one half as the network takes them. ExportError where there is none."""
    part, kind = learnt.validation, learnt.kind
    note = f"reading the {kind}'s pictures of the {half} half"
    samples = prepare_samples(members_of(part, half, kind, labels), spec, note)
    found = validation_set(part, labels, usable_samples(samples, kind), learnt.prior)
    if not found.feeds:
        raise ExportError(f"the {half} half has no picture for a {kind}")
    return found


def _made(
    source: _Source,
    roles: tuple[str, ...],
    tuning: ValidationSet,
    learnt: Learnt,
    spec: FeedSpec,
) -> tuple[Candidates, list[str]]:
    """New candidates of one network, by the stages of an export, and a line on what is not made.

    Thresholds stay the bundle's.
    """
    options, bundle, margins = source.options, source.bundle, source.margins
    assert options is not None
    thresholds = bundle.manifest.thresholds
    graph = full_weights(bundle.part(_first(bundle, roles).part))
    reference = run_graph(tuning, graph, thresholds.mask, f"{' and '.join(roles)} in FP32")
    search = CandidateSearch(
        roles,
        graph,
        tuning,
        reference,
        thresholds,
        margins,
        frozenset(options.targets),
        lowering=False,
    )
    found: list[Candidate] = []
    unmade = []
    if "fp16" in options.precisions:
        found = search.fp16()
        if not found:
            unmade.append(f"fp16 {' and '.join(roles)}: not made: {NO_FP16}")
    if "int8" in options.precisions:
        note = f"reading the {' and '.join(roles)}'s training pictures"
        samples = prepare_samples(subset(learnt.training, CALIBRATION_PICTURES + 16), spec, note)
        try:
            found += search.int8([sample.feeds for sample in samples], options.methods)
        except TooFewPictures as error:
            # The other network may have more.
            unmade.append(f"int8 {' and '.join(roles)}: not made: {error}")
    return Candidates(graph, tuple(found), margins), unmade


def _candidates(
    bundle: Bundle, roles: tuple[str, ...], model: Model, margins: Acceptance
) -> Candidates:
    """The variants of one network as candidates; no tuning half is asked about them again."""
    manifest, candidates = bundle.manifest, []
    for variant in model.variants:
        old = _old_report(manifest, roles, variant)
        candidates.append(
            Candidate(
                roles,
                variant.precision,
                variant.targets,
                bundle.part(variant.part),
                path=tuple(old.get("path", ())),
                thresholds=manifest.thresholds,
                calibration=old.get("calibration"),
            )
        )
    return Candidates(bundle.part(model.part), tuple(candidates), margins)


def _networks(manifest: Manifest) -> list[tuple[str, ...]]:
    """The roles of each network."""
    by_part: dict[str, list[str]] = {}
    for role in ROLES:
        if role in manifest.models:
            by_part.setdefault(manifest.models[role].part, []).append(role)
    return [tuple(roles) for roles in by_part.values()]


def _first(bundle: Bundle, roles: Sequence[str]) -> Model:
    return bundle.manifest.models[roles[0]]


def _crop(bundle: Bundle) -> Crop | None:
    """Where the bundle's FP32 segmenter finds the lesion; None: it has none."""
    models = bundle.manifest.models
    if "segmenter" not in models:
        return None
    session = open_session(bundle.model("segmenter"))
    return cropper(session, models["segmenter"].preprocessing, bundle.manifest.thresholds.mask)


def _independent(manifest: Manifest, roles: tuple[str, ...], halves: Halves) -> bool:
    """Whether the bundle was made with these halves: then this one chose nothing."""
    stored = manifest.measured.get(roles[-1], {}).get("halves")
    if stored is None:
        return False
    if stored["accepting"]["sha256"] != halves.report()["accepting"]["sha256"]:
        raise ExportError(
            "the halves of the validation part are not those that the bundle was made with: "
            "lesions, patients or labels of this copy of the data set differ"
        )
    return True


def _old_report(manifest: Manifest, roles: tuple[str, ...], variant: Variant) -> dict:
    wanted = roles, variant.precision, variant.targets
    return next((report for report in manifest.gate if _key(report) == wanted), {})


def _key(report: dict) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    return tuple(report["roles"]), report["precision"], tuple(report["targets"])
