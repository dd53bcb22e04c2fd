"""From finished runs to the contents of a bundle: calibration, thresholds, graphs, figures."""

from __future__ import annotations

import hashlib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from dermedge import __version__, datasets, procedural
from dermedge.bundle import CASES, ROLES, Manifest, Model, Thresholds
from dermedge.datasets.split import Split
from dermedge.preprocess import prepare
from dermedge.runtime import open_session
from export import ExportError
from export.familiarity import fit
from export.graph import Network, Parity, compare, to_onnx
from export.judge import PART, Judge
from export.look import Crop, cropper
from export.weights import fold_norms, round_to_half
from train.recipe import RecipeError, load_recipe
from train.run import Run, load_model, load_run

REFERENCE_SEEDS = (1, 2)
REFERENCE_STRIDE = 8  # px; the reference holds every eighth row and column


@dataclass(frozen=True)
class _Finished:
    """One network, ready for the bundle."""

    run: Run
    graph: bytes
    parity: Parity
    thresholds: Thresholds
    measured: dict[str, dict]  # by role
    cases: bytes | None


def assemble(
    folders: Sequence[str | Path],
    name: str,
    weights: str = "full",
    cases: int = 0,
    case_pictures: bool = False,
) -> tuple[Manifest, dict[str, bytes]]:
    """Calibrate, export and measure a segmenter and a classifier, a multitask network, or one.

    Parameters
    ----------
    folders : their run folders, in any order.
    name : what the bundle calls itself.
    weights : "full", or "half": rounded to half precision before all else, and stored so.
    cases : labelled training cases of each class that the bundle carries, 0 to 8.
    case_pictures : whether small pictures of them travel too.

    Returns
    -------
    The manifest, and the parts for `dermedge.bundle.write_bundle`. Nothing is written.

    Raises
    ------
    UserError
        In one line: two runs for one role, splits that let one network be tested on what the
        other was trained on, a validation part that thresholds cannot be chosen on, or a graph
        that differs from its network.
    """
    runs = _runs(folders)
    splits = [_split(run) for run in runs]
    if len(runs) > 1:
        _refuse_leaks(*splits)
    crop, finished = None, []
    for run, split in zip(runs, splits, strict=True):
        if run.preprocessing.crop and crop is None:
            raise ExportError(
                f"{run.folder} learnt on crops around the lesion: add the run of a segmenter, "
                "whose masks will place them"
            )
        item = _finish(run, split, crop, weights, cases, case_pictures)
        crop = cropper(open_session(item.graph), run.preprocessing, item.thresholds.mask)
        finished.append(item)
    first, last = finished[0], finished[-1]
    parts = {_part(run): item.graph for run, item in zip(runs, finished, strict=True)}
    parts["split.json"] = (last.run.folder / "split.json").read_bytes()
    if splits[0] != splits[-1]:
        parts["split-segmenter.json"] = (first.run.folder / "split.json").read_bytes()
    parts["reference.npz"] = _reference(finished)
    if last.cases:
        parts[CASES] = last.cases
    by_role = {role: item for item in finished for role in item.measured}
    manifest = Manifest(
        name=name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        labels=last.run.labels,
        models={
            role: Model(
                part=_part(item.run),
                architecture=item.run.model,
                preprocessing=item.run.preprocessing,
                parameters=item.run.parameters,
                macs=item.run.macs,
                weights=weights,
                metadata=item.run.metadata,
            )
            for role, item in by_role.items()
        },
        thresholds=replace(last.thresholds, mask=first.thresholds.mask),
        licence="; ".join(dict.fromkeys(run.licence for run in runs)),
        procedural=any(run.procedural for run in runs),
        training_data=tuple(_training_data(run) for run in runs),
        measured={role: item.measured[role] for role, item in by_role.items()},
        parity={role: asdict(item.parity) for role, item in by_role.items()},
        software={
            "dermedge": __version__,
            **{package: version(package) for package in ("torch", "onnx", "onnxruntime")},
        },
    )
    return manifest, parts


def _part(run: Run) -> str:
    return f"{run.kind}.onnx"


def _roles(run: Run) -> tuple[str, ...]:
    return ROLES if run.kind == "multitask" else (run.kind,)


def _runs(folders: Sequence[str | Path]) -> list[Run]:
    """The runs, a segmenter before a classifier; no role twice."""
    taken: dict[str, Run] = {}
    for folder in folders:
        run = load_run(folder)
        for role in _roles(run):
            if role in taken:
                raise ExportError(
                    f"{taken[role].folder} and {run.folder} are both a {role}: give one"
                )
            taken[role] = run
    return list({id(taken[role]): taken[role] for role in ROLES if role in taken}.values())


def _split(run: Run) -> Split:
    split = Split.load(run.folder / "split.json")
    if split.sha256 != run.split_sha256:
        raise ExportError(
            f"{run.folder / 'split.json'} is not the split that this run was trained on: "
            "put the original back"
        )
    return split


def _refuse_leaks(one: Split, other: Split) -> None:
    """ExportError where one network may have been trained on what the other is tested on."""
    if one.data_set == other.data_set:
        if one.sha256 != other.sha256:
            raise ExportError(
                f"the runs split {one.data_set} differently ({one.sha256[:12]} and "
                f"{other.sha256[:12]}), so that one may have learnt what the other is tested on: "
                "train both with the same --split and --limit"
            )
        return
    # ISIC numbers name one picture in all the data sets that were drawn from the archive.
    for learnt, tested in ((one, other), (other, one)):
        seen = _isic_numbers((*learnt.parts["train"], *learnt.parts[PART]))
        shared = sorted(seen & _isic_numbers(tested.parts["test"]))
        if shared:
            raise ExportError(
                f"{len(shared)} test pictures of {tested.data_set} were in the training of the "
                f"other network, on {learnt.data_set} (first: ISIC_{shared[0]}): "
                "train both on one data set"
            )


def _isic_numbers(ids: Sequence[str]) -> set[str]:
    found = (re.search(r"ISIC_(\d+)", name, re.IGNORECASE) for name in ids)
    return {match.group(1) for match in found if match}


def _finish(
    run: Run, split: Split, crop: Crop | None, weights: str, cases: int, case_pictures: bool
) -> _Finished:
    """Calibrate, export and check one run."""
    model = load_model(run)
    if weights == "half":
        model = fold_norms(model, torch.zeros(1, run.size, run.size, 3, dtype=torch.uint8))
        round_to_half(model)
    judge = Judge(run, split, datasets.load(run.data_set, run.data_root), model, crop)
    thresholds, measured = Thresholds(), {}
    temperature, familiarity, shown = 1.0, None, None
    if "segmenter" in _roles(run):
        thresholds, measured["segmenter"] = judge.masks()
    if "classifier" in _roles(run):
        training = judge.training()
        familiarity = fit(training.features)
        if weights == "half":
            round_to_half(familiarity)
        limits, measured["classifier"] = judge.classes(familiarity)
        thresholds = replace(limits, mask=thresholds.mask)
        temperature = measured["classifier"]["temperature"]
        if cases:
            shown = training.cases(familiarity, cases, case_pictures)
    print(f"exporting the {run.kind} ({run.model}, {run.size} px)", file=sys.stderr, flush=True)
    network = Network(model, temperature, familiarity)
    graph = to_onnx(network, run.size, weights)
    parity = compare(network, graph, judge.feeds)
    return _Finished(run, graph, parity, thresholds, measured, shown)


def _training_data(run: Run) -> dict:
    stored = run.folder / "recipe.toml"
    try:
        recipe = load_recipe(stored)
    except RecipeError as error:
        raise ExportError(f"{stored} cannot be used: {error}") from None
    return {
        "role": run.kind,
        "data_set": run.data_set,
        "licence": run.licence,
        "procedural": run.procedural,
        "split_sha256": run.split_sha256,
        "subset": run.subset,
        "pictures": run.pictures,
        "recipe": recipe.name,
        "recipe_sha256": hashlib.sha256(stored.read_bytes()).hexdigest(),
        "commit": run.commit,
        "seed": run.seed,
        "imagenet_weights": run.pretrained,
        "start": Path(run.start).name,
        "teachers": [Path(teacher).name for teacher in recipe.teachers],
        "steps": run.steps,
        "planned_steps": run.planned,
        "finished": run.finished,
        "versions": run.versions,
    }


def _reference(finished: Sequence[_Finished]) -> bytes:
    """Drawn pictures, and what each network must be fed and must answer (an .npz).

    Of images and masks it holds every `REFERENCE_STRIDE`-th row and column: enough to see that a
    device prepares and computes alike. What else is known of the person is absent.
    """
    pictures = np.stack([procedural.draw(seed, size=(96, 128)).image for seed in REFERENCE_SEEDS])
    arrays, crop = {"pictures": pictures}, None
    for item in finished:
        session, spec = open_session(item.graph), item.run.preprocessing
        absent = {
            tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in session.inputs[1:]
        }
        squares = [
            prepare(picture, spec, crop(picture) if spec.crop else None)[0] for picture in pictures
        ]
        answers = [session.run({"image": square[None], **absent}) for square in squares]
        stride = slice(None, None, REFERENCE_STRIDE)
        arrays[f"{item.run.kind}_image"] = np.stack(squares)[:, stride, stride]
        for name in answers[0]:
            values = np.concatenate([answer[name] for answer in answers])
            arrays[f"{item.run.kind}_{name}"] = (
                values[:, stride, stride] if name == "mask" else values
            )
        crop = cropper(session, spec, item.thresholds.mask)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
