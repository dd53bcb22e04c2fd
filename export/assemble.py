"""From finished runs to the contents of a bundle: calibration, thresholds, graphs, figures."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import permutations
from pathlib import Path

import numpy as np
import torch

from dermedge import __version__
from dermedge import data as datasets
from dermedge.bundle.bundle import CASES, ROLES, TARGETS, Manifest, Model, Thresholds, Variant
from dermedge.bundle.reference import REFERENCE, Expected, Reference
from dermedge.data import synthetic as procedural
from dermedge.data.fingerprint import NO_NUMBER
from dermedge.data.leak import FILE, TEST, leaks, published
from dermedge.data.split import Split
from dermedge.image.preprocess import prepare
from dermedge.runtime import open_session
from export import METHODS, ExportError
from export.familiarity import fit
from export.graph import Network, Parity, compare, to_onnx
from export.int8 import LEAST_PICTURES
from export.judge import Judge
from export.look import Crop, cropper
from export.precisions import Attempt, Precisions
from export.weights import fold_norms, round_to_half
from train.models import Normalized
from train.recipe import Recipe, RecipeError, load_recipe
from train.run import Run, load_model, load_run, training_pictures

RETRAINED = 2000  # training pictures of quantization-aware training
REFERENCE_SEEDS = (1, 2)


@dataclass(frozen=True)
class _Finished:
    """One network, ready for the bundle."""

    run: Run
    graph: bytes
    parity: Parity
    thresholds: Thresholds
    measured: dict[str, dict]  # by role
    cases: bytes | None
    attempts: list[Attempt]  # at other precisions
    gate: tuple[dict, ...]  # what came of them

    @property
    def parts(self) -> dict[str, bytes]:
        """The graphs, by name."""
        passed = [attempt for attempt in self.attempts if attempt.passed]
        others = {attempt.part(self.run.kind): attempt.graph for attempt in passed}
        return {_part(self.run): self.graph, **others}

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple(item.variant(self.run.kind) for item in self.attempts if item.passed)


@dataclass(frozen=True)
class Wish:
    """What an export is asked for beside the runs."""

    weights: str = "full"  # "half": rounded to half precision before all else, and stored so
    cases: int = 0  # labelled training cases of each class that the bundle carries, 0 to 8
    case_pictures: bool = False  # whether small pictures of them travel too
    precisions: tuple[str, ...] = ("fp32",)  # of `dermedge.bundle.bundle.PRECISIONS`
    methods: tuple[str, ...] = METHODS  # of calibration, to be compared
    calibration: int = LEAST_PICTURES  # training pictures
    limits: dict[str, float] = field(default_factory=dict)  # of the recipe's gate, to be changed
    retraining: int = 0  # steps of quantization-aware training where INT8 fails
    targets: tuple[str, ...] = TARGETS  # that other precisions than FP32 are made for


def assemble(
    folders: Sequence[str | Path], name: str, wish: Wish = Wish()
) -> tuple[Manifest, dict[str, bytes]]:
    """Calibrate, export and measure a segmenter and a classifier, a multitask network, or one.

    Parameters
    ----------
    folders : their run folders, in any order.
    name : what the bundle calls itself.
    wish : what else is asked for.

    Returns
    -------
    The manifest, and the parts for `dermedge.bundle.bundle.write_bundle`. Nothing is written.

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
        _refuse_leaks(runs, splits)
    crop, finished = None, []
    for run, split in zip(runs, splits, strict=True):
        if run.preprocessing.crop and crop is None:
            raise ExportError(
                f"{run.folder} learnt on crops around the lesion: add the run of a segmenter, "
                "whose masks will place them"
            )
        item = _finish(run, split, crop, wish)
        crop = cropper(open_session(item.graph), run.preprocessing, item.thresholds.mask)
        finished.append(item)
    first, last = finished[0], finished[-1]
    parts = {name: graph for item in finished for name, graph in item.parts.items()}
    # Not the splits: their ids may be a hospital's file names.
    parts[FILE] = published([training_pictures(run) for run in runs])
    parts[REFERENCE] = _reference(finished)
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
                weights=wish.weights,
                metadata=item.run.metadata,
                variants=item.variants,
            )
            for role, item in by_role.items()
        },
        thresholds=replace(last.thresholds, mask=first.thresholds.mask),
        licence="; ".join(dict.fromkeys(run.licence for run in runs)),
        procedural=any(run.procedural for run in runs),
        training_data=tuple(map(_training_data, runs, splits)),
        measured={role: item.measured[role] for role, item in by_role.items()},
        parity={role: asdict(item.parity) for role, item in by_role.items()},
        gate=tuple(report for item in finished for report in item.gate),
        software={
            "dermedge": __version__,
            **{package: version(package) for package in ("torch", "onnx", "onnxruntime")},
        },
    )
    return manifest, parts


def slice_for(
    manifest: Manifest, parts: dict[str, bytes], target: str
) -> tuple[Manifest, dict[str, bytes]]:
    """The contents of a bundle with one graph a network: the best that passed for `target`.

    INT8 before FP16 before FP32; the gate let in what is as good, so the smaller one is better.
    """
    models = {}
    for role, model in manifest.models.items():
        found = (model.variant(precision, target) for precision in ("int8", "fp16", "fp32"))
        best = next(variant for variant in found if variant)
        models[role] = replace(model, **asdict(best), variants=())
    graphs = {v.part for model in manifest.models.values() for v in (model, *model.variants)}
    kept = {model.part for model in models.values()}
    parts = {name: value for name, value in parts.items() if name not in graphs - kept}
    return replace(manifest, models=models), parts


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


def _refuse_leaks(runs: Sequence[Run], splits: Sequence[Split]) -> None:
    """ExportError where one network may have been trained on what the other is tested on.

    Where only the look of pictures says so, which may deceive, a line on the terminal.
    """
    one, other = splits
    if one.data_set == other.data_set:
        if one.sha256 != other.sha256:
            raise ExportError(
                f"the runs split {one.data_set} differently ({one.sha256[:12]} and "
                f"{other.sha256[:12]}), so that one may have learnt what the other is tested on: "
                "train both with the same --split and --limit"
            )
        return
    lists = [training_pictures(run) for run in runs]
    for (learnt, known), (tested, measured) in permutations(zip(runs, lists, strict=True)):
        test = measured.of(measured.roles()[0], TEST) if measured.roles() else None
        if test is None:
            continue
        names = [
            "no ISIC number" if number == NO_NUMBER else f"ISIC_{number:07}"
            for number in test.numbers
        ]
        if leak := leaks(known, {"test": test}, {"test": names}):
            line = (
                f"of {tested.data_set}, {leak.line} were in the training of the other network, on "
                f"{learnt.data_set}"
            )
            if leak.certain:
                raise ExportError(f"{line}: train both on one data set")
            print(f"warning: {line}", file=sys.stderr)


def _finish(run: Run, split: Split, crop: Crop | None, wish: Wish) -> _Finished:
    """Calibrate, export and check one run, in every precision that was asked for."""
    model = load_model(run)
    if wish.weights == "half":
        model = fold_norms(model, torch.zeros(1, run.size, run.size, 3, dtype=torch.uint8))
        round_to_half(model)
    judge = Judge(run, split, datasets.load(run.data_set, run.data_root), model, crop)
    print(f"the {run.kind}'s validation part: {judge.halves}", file=sys.stderr, flush=True)
    thresholds, measured = Thresholds(), {}
    temperature, familiarity, shown = 1.0, None, None
    if "segmenter" in _roles(run):
        thresholds, measured["segmenter"] = judge.masks()
    if "classifier" in _roles(run):
        training = judge.training()
        familiarity = fit(training.features)
        if wish.weights == "half":
            round_to_half(familiarity)
        limits, measured["classifier"] = judge.classes(familiarity)
        thresholds = replace(limits, mask=thresholds.mask)
        temperature = measured["classifier"]["temperature"]
        if wish.cases:
            shown = training.cases(familiarity, wish.cases, wish.case_pictures)
    print(f"exporting the {run.kind} ({run.model}, {run.size} px)", file=sys.stderr, flush=True)
    network = Network(model, temperature, familiarity)
    graph = to_onnx(network, run.size, wish.weights)
    parity = compare(network, graph, judge.feeds)
    attempts, reports = [], ()
    if set(wish.precisions) != {"fp32"}:
        full = to_onnx(network, run.size)
        attempts, thresholds = _attempts(run, judge, model, network, full, thresholds, wish)
        if "classifier" in measured:
            measured["classifier"].update(judge.classes_again(thresholds))
        reports = tuple(item.report(len(full)) for item in attempts)
    return _Finished(run, graph, parity, thresholds, measured, shown, attempts, reports)


def _attempts(
    run: Run,
    judge: Judge,
    model: Normalized,
    network: Network,
    graph: bytes,
    thresholds: Thresholds,
    wish: Wish,
) -> tuple[list[Attempt], Thresholds]:
    """All precisions but FP32, judged, and the thresholds that those accepted share with FP32."""
    limits = replace(_recipe(run).gate, **wish.limits)
    maker = Precisions(_roles(run), graph, judge.exams(), thresholds, limits, wish.targets)
    attempts = maker.fp16() if "fp16" in wish.precisions else []
    if "int8" in wish.precisions:
        feeds = judge.calibration(wish.calibration)
        retrain = None
        if wish.retraining:

            def retrain() -> bytes:
                from export.qat import train_quantized  # torchao, which takes long to start

                more = judge.calibration(RETRAINED)
                trained = train_quantized(model, more, wish.retraining)
                return to_onnx(Network(trained, network.temperature, network.familiarity), run.size)

        attempts += maker.int8(feeds, wish.methods, retrain)
    return attempts, maker.accept(attempts)


def _recipe(run: Run) -> Recipe:
    stored = run.folder / "recipe.toml"
    try:
        return load_recipe(stored)
    except RecipeError as error:
        raise ExportError(f"{stored} cannot be used: {error}") from None


def _training_data(run: Run, split: Split) -> dict:
    recipe = _recipe(run)
    return {
        "role": run.kind,
        "data_set": run.data_set,
        "licence": run.licence,
        "procedural": run.procedural,
        "split_sha256": run.split_sha256,
        "subset": run.subset,
        "pictures": run.pictures,
        "split_parts": {part: len(ids) for part, ids in split.parts.items()},
        "recipe": recipe.name,
        "recipe_sha256": hashlib.sha256((run.folder / "recipe.toml").read_bytes()).hexdigest(),
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
    """Drawn pictures, and what each network must be fed and must answer, as `Reference` says.

    What else is known of the person is absent.
    """
    pictures = np.stack([procedural.draw(seed, size=(96, 128)).image for seed in REFERENCE_SEEDS])
    networks, crop = {}, None
    for item in finished:
        session, spec = open_session(item.graph), item.run.preprocessing
        absent = {
            tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in session.inputs[1:]
        }
        squares = [
            prepare(picture, spec, crop(picture) if spec.crop else None)[0] for picture in pictures
        ]
        answers = [session.run({"image": square[None], **absent}) for square in squares]
        outputs = {
            name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]
        }
        networks[item.run.kind] = Expected.of(np.stack(squares), outputs)
        crop = cropper(session, spec, item.thresholds.mask)
    return Reference(pictures, networks).to_bytes()
