"""Networks, calibrated, exported and accepted, to the contents of a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from dermedge import __version__
from dermedge.bundle.manifest import CASES, ROLES, Manifest, Model, Thresholds
from dermedge.bundle.reference import REFERENCE
from dermedge.data.leak import FILE, published
from dermedge.runtime import open_session
from export.acceptance.accept import Accepted
from export.bundle.figures import measured
from export.bundle.lend import LentNetwork
from export.bundle.reference import ReferenceNetwork, reference
from export.bundle.similar import similar_cases
from export.calibration.calibrate import Calibration
from export.graph.onnx_graph import ExportedGraph
from export.options import ExportOptions
from export.runs.load import TrainedNetwork
from export.validation.prepared import Crop, cropper
from export.validation.validate import Validation
from train.run import training_pictures

Contents = tuple[Manifest, dict[str, bytes]]  # for `dermedge.bundle.bundle.write_bundle`


@dataclass(frozen=True, eq=False)
class FinishedNetwork:
    """One network after all stages before this one."""

    validation: Validation
    calibration: Calibration | None  # None: a segmenter
    exported: ExportedGraph
    accepted: Accepted

    @property
    def network(self) -> TrainedNetwork:
        return self.validation.network

    @property
    def kind(self) -> str:
        return self.network.run.kind

    @property
    def part(self) -> str:
        """The name of its FP32 graph in the bundle."""
        return f"{self.kind}.onnx"

    @property
    def graphs(self) -> dict[str, bytes]:
        """Its graphs, by part."""
        entering = {one.part(self.kind): one.candidate.graph for one in self.accepted.entering}
        return {self.part: self.exported.graph, **entering}

    @property
    def model(self) -> Model:
        run = self.network.run
        return Model(
            part=self.part,
            architecture=run.model,
            preprocessing=run.preprocessing,
            parameters=run.parameters,
            macs=run.macs,
            weights=self.network.weights,
            metadata=run.metadata,
            variants=tuple(one.variant(self.kind) for one in self.accepted.entering),
        )

    @property
    def outlines(self) -> tuple[bytes, float]:
        """A segmenter's FP32 graph and mask threshold: what decides where it finds lesions."""
        return self.exported.graph, self.accepted.thresholds.mask

    @property
    def crop(self) -> Crop | None:
        """Where its FP32 graph finds the lesion; None: it is no segmenter."""
        if "segmenter" not in self.network.roles:
            return None
        session = open_session(self.exported.graph)
        return cropper(session, self.network.run.preprocessing, self.accepted.thresholds.mask)


def assemble(
    finished: Sequence[FinishedNetwork],
    name: str,
    options: ExportOptions,
    lent: LentNetwork | None = None,
) -> Contents:
    """Manifest and parts; nothing is written.

    Parameters
    ----------
    finished : a segmenter before a classifier, or one network.
    name : what the bundle calls itself.
    lent : the network for the role that none of them plays.
    """
    runs = [item.network.run for item in finished]
    by_role = {role: item for item in finished for role in item.network.roles}
    models = {role: item.model for role, item in by_role.items()}
    figures = {
        role: figure
        for item in finished
        for role, figure in measured(
            item.validation, item.calibration, item.accepted.thresholds
        ).items()
    }
    parity = {role: asdict(item.exported.parity) for role, item in by_role.items()}
    manifest = Manifest(
        name=name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        labels=finished[-1].network.run.labels,
        models=models,
        thresholds=_thresholds(finished),
        licence=_licences(run.licence for run in runs),
        procedural=any(run.procedural for run in runs),
        training_data=tuple(_training_data(item.network) for item in finished),
        measured=figures,
        parity=parity,
        gate=tuple(report for item in finished for report in item.accepted.reports),
        software={
            "dermedge": __version__,
            **{package: version(package) for package in ("torch", "onnx", "onnxruntime")},
        },
    )
    if lent is not None:
        manifest = _with_lent(manifest, lent)
    return manifest, _parts(finished, options, lent)


def _thresholds(finished: Sequence[FinishedNetwork]) -> Thresholds:
    first, last = finished[0].accepted.thresholds, finished[-1].accepted.thresholds
    return replace(last, mask=first.mask)


def _licences(stated: Iterable[str]) -> str:
    """All that bind the bundle, each once: one network's may be several."""
    return "; ".join(dict.fromkeys(part for text in stated for part in text.split("; ") if part))


def _with_lent(manifest: Manifest, lent: LentNetwork) -> Manifest:
    """The manifest of both networks."""
    theirs, role = lent.lender.manifest, lent.role
    models = {**manifest.models, role: lent.model}
    entry = lent.training_data
    return replace(
        manifest,
        labels=theirs.labels if role == "classifier" else manifest.labels,
        models={name: models[name] for name in ROLES},
        thresholds=lent.with_thresholds(manifest.thresholds),
        licence=_licences((manifest.licence, theirs.licence)),
        procedural=manifest.procedural or entry.get("procedural", theirs.procedural),
        training_data=(*manifest.training_data, entry),
        measured=manifest.measured | _entry(theirs.measured, role),
        parity=manifest.parity | _entry(theirs.parity, role),
        gate=(*manifest.gate, *lent.reports),
    )


def _entry(by_role: dict, role: str) -> dict:
    return {role: by_role[role]} if role in by_role else {}


def _parts(
    finished: Sequence[FinishedNetwork], options: ExportOptions, lent: LentNetwork | None
) -> dict[str, bytes]:
    parts = {name: graph for item in finished for name, graph in item.graphs.items()}
    networks = [
        ReferenceNetwork(item.kind, item.exported.graph, item.network.run.preprocessing)
        for item in finished
    ]
    crop = finished[0].crop
    training = [training_pictures(item.network.run) for item in finished]
    calibration = finished[-1].calibration
    similar = None
    if options.similar and calibration is not None:
        labels = finished[-1].network.run.labels
        similar = similar_cases(calibration, labels, options.similar, options.similar_pictures)
    if lent is not None:
        parts |= lent.graphs
        networks.append(lent.reference)
        crop = crop or lent.crop
        similar = similar or lent.similar
        training.append(lent.training)
    # Not the splits: their ids may be a hospital's file names.
    parts[FILE] = published(training)
    parts[REFERENCE] = reference(networks, crop)
    if similar:
        parts[CASES] = similar
    return parts


def _training_data(network: TrainedNetwork) -> dict:
    """What the manifest says of a network's training."""
    run, recipe = network.run, network.recipe
    return {
        "role": run.kind,
        "data_set": run.data_set,
        "licence": run.licence,
        "procedural": run.procedural,
        "split_sha256": run.split_sha256,
        "subset": run.subset,
        "pictures": run.pictures,
        "split_parts": {part: len(ids) for part, ids in network.split.parts.items()},
        "modality": recipe.modality,  # of the pictures; "": all
        "crop_by": Path(recipe.crop_by).name,  # whose segmenter placed the crops; "": drawn masks
        "recipe": recipe.name,
        "recipe_sha256": hashlib.sha256((run.folder / "recipe.toml").read_bytes()).hexdigest(),
        "commit": run.commit,
        "seed": run.seed,
        "imagenet_weights": run.pretrained,
        "prior": run.prior,  # of the classes, that the probabilities carry
        "prior_of": network.prior.title if network.prior else "",  # "": that of its training
        "start": Path(run.start).name,
        "teachers": [Path(teacher).name for teacher in (*recipe.teachers, *recipe.paired)],
        "steps": run.steps,
        "planned_steps": run.planned,
        "finished": run.finished,
        "versions": run.versions,
    }
