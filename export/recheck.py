"""The acceptance once more, of a finished bundle; no run is needed.

Its precisions are judged as they are, or made from its own FP32 graphs first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import ROLES, Manifest, Model, Variant
from dermedge.data import DataSet, Record, make_split
from dermedge.data.records import of_modality
from dermedge.data.split import Split
from dermedge.runtime import open_session
from export import ExportError
from export.acceptance.accept import decide
from export.graph.half import full_weights
from export.options import CALIBRATION_PICTURES, ExportOptions
from export.quantization.candidates import Candidate, Candidates, CandidateSearch
from export.validation.halves import Halves, ValidationPart
from export.validation.outputs import ValidationSet, run_graph
from export.validation.prepared import Crop, FeedSpec, cropper, prepare_samples, subset
from export.validation.validate import members_of, usable_samples, validation_set
from train.recipe import Acceptance

SPLIT = "split.json"  # part of bundles made before 2026-12
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


def recheck(
    bundle: Bundle,
    data_set: DataSet,
    split_file: str | None,
    margins: Acceptance,
    options: ExportOptions | None = None,
) -> Rechecked:
    """Judge every variant of a bundle on the accepting half of the validation part.

    Parameters
    ----------
    data_set : what the networks were trained on.
    split_file : the frozen split; None: the bundle's own where it carries one, else made with
        seed 0. Its hash must be the one that the bundle names.
    margins : what a lower bound must reach.
    options : given, these precisions are made from the FP32 graphs for these targets, calibrated
        on the training part and chosen by the tuning half, and judged instead of the variants that
        are there; thresholds stay as they are, and no network is trained.

    Returns
    -------
    The bundle without the variants that were refused, its reports replaced. Whether the accepting
    half had a part in choosing the candidate is said in 'judged' of each.

    Raises
    ------
    ExportError
        Where there is no variant, FP32 is not there to compare with, or data set or split are not
        those that the bundle was made from.
    """
    networks = _networks(bundle.manifest)
    if options is None:
        networks = [roles for roles in networks if _first(bundle, roles).variants]
    if not networks:
        raise ExportError(f"{bundle.path} carries FP32 alone: there is nothing to judge")
    crop = _crop(bundle)
    source = _Source(bundle, data_set, split_file, margins, options)
    judged = [one for roles in networks for one in _judged(source, roles, crop)]
    manifest = bundle.manifest
    parts = {name: bundle.part(name) for name in manifest.parts}
    again = {_key(one.report) for one in judged}
    models = dict(manifest.models)
    for role, model in manifest.models.items():
        mine = [one for one in judged if role in one.report["roles"]]
        names = {one.variant.part for one in mine}
        retained = tuple(v for v in model.variants if v.part not in names)
        entering = tuple(one.variant for one in mine if one.report["passed"])
        models[role] = replace(model, variants=(*retained, *entering))
    for one in judged:
        parts.pop(one.variant.part, None)
        if one.report["passed"]:
            parts[one.variant.part] = one.graph
    others = tuple(report for report in manifest.gate if _key(report) not in again)
    reports = tuple(one.report for one in judged)
    manifest = replace(manifest, models=models, gate=(*others, *reports))
    return Rechecked(manifest, parts, reports)


@dataclass(frozen=True, eq=False)
class _Judged:
    """One precision of one network, and what is said of it."""

    variant: Variant
    graph: bytes
    report: dict


@dataclass(frozen=True, eq=False)
class _Source:
    """What is judged again, and on which pictures."""

    bundle: Bundle
    data_set: DataSet
    split_file: str | None
    margins: Acceptance
    options: ExportOptions | None


def _judged(source: _Source, roles: tuple[str, ...], crop: Crop | None) -> Iterator[_Judged]:
    """Each variant of one network."""
    bundle, data_set = source.bundle, source.data_set
    model = _first(bundle, roles)
    if model.precision != "fp32":
        raise ExportError(f"{bundle.path} has no FP32 {roles[0]} to compare with")
    split = _split(bundle, roles, data_set, source.split_file)
    modality = str(_trained_on(bundle, roles).get("modality", ""))
    part = ValidationPart.of(data_set, split, modality)
    judged: dict[str, object] = {"independent": True}
    if not _independent(bundle.manifest, roles, part.halves):
        judged = {
            "independent": False,
            "note": THRESHOLDS_ONLY if source.options else NOT_INDEPENDENT,
        }
    kind = "multitask" if len(roles) > 1 else roles[0]
    print(f"the {kind}'s validation part: {part.halves}", file=sys.stderr, flush=True)
    labels = bundle.manifest.labels if "classifier" in roles else ()
    spec = FeedSpec(model.preprocessing, model.metadata, crop)
    accepting = _half(part, "accepting", kind, labels, spec)
    if source.options:
        tuning = _half(part, "tuning", kind, labels, spec)
        training = of_modality(split.select(data_set.records, "train"), modality)
        candidates = _made(source, roles, tuning, training, spec)
    else:
        candidates = _candidates(bundle, roles, model, source.margins)
    if not candidates.candidates:
        return
    decisions = decide(candidates, accepting, bundle.manifest.thresholds, judged)
    for decision in decisions:
        report = decision.report(len(candidates.graph))
        variant = decision.variant(kind)
        if not source.options:
            variant = next(
                v for v in model.variants if bundle.part(v.part) == decision.candidate.graph
            )
            # The share was of the graph with full weights, which a bundle of half weights lacks.
            old = _old_report(bundle.manifest, roles, variant)
            report["share_of_fp32"] = old.get("share_of_fp32", report["share_of_fp32"])
        yield _Judged(variant, decision.candidate.graph, report)


def _half(
    part: ValidationPart, half: str, kind: str, labels: Sequence[str], spec: FeedSpec
) -> ValidationSet:
    """The pictures of one half as the network takes them. ExportError where there is none."""
    note = f"reading the {kind}'s pictures of the {half} half"
    samples = prepare_samples(members_of(part, half, kind, labels), spec, note)
    found = validation_set(part, labels, usable_samples(samples, kind))
    if not found.feeds:
        raise ExportError(f"the {half} half has no picture for a {kind}")
    return found


def _made(
    source: _Source,
    roles: tuple[str, ...],
    tuning: ValidationSet,
    training: Sequence[Record],
    spec: FeedSpec,
) -> Candidates:
    """New candidates of one network, by the stages of an export; thresholds stay the bundle's."""
    options, bundle, margins = source.options, source.bundle, source.margins
    assert options is not None
    thresholds = bundle.manifest.thresholds
    graph = full_weights(bundle.part(_first(bundle, roles).part))
    reference = run_graph(tuning, graph, thresholds.mask, f"{' and '.join(roles)} in FP32")
    search = CandidateSearch(
        roles, graph, tuning, reference, thresholds, margins, frozenset(options.targets)
    )
    found = search.fp16() if "fp16" in options.precisions else []
    if "int8" in options.precisions:
        note = f"reading the {' and '.join(roles)}'s training pictures"
        samples = prepare_samples(subset(list(training), CALIBRATION_PICTURES + 16), spec, note)
        found += search.int8([sample.feeds for sample in samples], options.methods)
    fixed = tuple(replace(candidate, thresholds=thresholds) for candidate in found)
    return Candidates(graph, fixed, margins)


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


def _trained_on(bundle: Bundle, roles: tuple[str, ...]) -> dict[str, Any]:
    wanted = "multitask" if len(roles) > 1 else roles[0]
    entry = next((e for e in bundle.manifest.training_data if e.get("role") == wanted), None)
    if entry is None:
        raise ExportError(f"{bundle.path} does not say what its {wanted} was trained on")
    return entry


def _split(
    bundle: Bundle, roles: tuple[str, ...], data_set: DataSet, split_file: str | None
) -> Split:
    entry = _trained_on(bundle, roles)
    wanted = entry["role"]
    if entry["data_set"] != data_set.name:
        raise ExportError(
            f"the {wanted} of {bundle.path} was trained on {entry['data_set']}, not on "
            f"{data_set.name}: give --data {entry['data_set']}=PATH"
        )
    own = SPLIT
    if wanted == "segmenter" and "split-segmenter.json" in bundle.manifest.parts:
        own = "split-segmenter.json"
    if split_file:
        split = Split.load(split_file)
    elif own in bundle.manifest.parts:
        split = Split.from_json(bundle.part(own), f"{own} of {bundle.path}")
    else:
        split = make_split(data_set)
    if split.sha256 != entry["split_sha256"]:
        source = Path(split_file).name if split_file else f"one made of {data_set.root}"
        raise ExportError(
            f"the {wanted} of {bundle.path} was trained with the split "
            f"{entry['split_sha256'][:12]}, {source} is {split.sha256[:12]}: give that one by "
            "--split FILE"
        )
    return split


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
    wanted = list(roles), variant.precision, list(variant.targets)
    return next((report for report in manifest.gate if _key(report) == _plain(wanted)), {})


def _key(report: dict) -> str:
    return _plain((report["roles"], report["precision"], report["targets"]))


def _plain(key: tuple) -> str:
    return repr((list(key[0]), key[1], list(key[2])))
