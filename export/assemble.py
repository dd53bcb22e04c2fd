"""From finished runs to the contents of a bundle: calibration, thresholds, graphs, figures."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dermedge import __version__, datasets, metrics, procedural
from dermedge.bundle import ROLES, Manifest, Model, Thresholds
from dermedge.datasets.records import Record
from dermedge.datasets.split import Split, group_records
from dermedge.image import ImageError, read_image, read_mask
from dermedge.preprocess import Placement, prepare
from dermedge.session import open_session
from dermedge.taxonomy import MALIGNANT
from export.graph import ExportError, Network, Parity, compare, to_onnx
from train.loop import Run, load_model, load_run

PART = "val"  # thresholds and calibration are chosen here; the test part stays unseen
SENSITIVITY = 0.95  # at "see a doctor"
SPECIFICITY = 0.95  # at "urgent"
MASK_THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
PARITY_PICTURES = 100
RESAMPLES = 1000  # of the bootstrap
REFERENCE_SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Role:
    """One network, ready for the bundle."""

    run: Run
    graph: bytes
    parity: Parity
    measured: dict
    thresholds: dict[str, float]


def assemble(folders: Sequence[str | Path], name: str) -> tuple[Manifest, dict[str, bytes]]:
    """Calibrate, export and measure one segmenter and one classifier.

    Parameters
    ----------
    folders : their run folders, in any order.
    name : what the bundle calls itself.

    Returns
    -------
    The manifest, and the parts for `dermedge.bundle.write_bundle`. Nothing is written.

    Raises
    ------
    UserError
        In one line: not one run of each kind, splits that let one network be tested on what the
        other was trained on, a validation part that thresholds cannot be chosen on, or a graph
        that differs from its network.
    """
    runs = _one_of_each(folders)
    splits = {role: _split(run) for role, run in runs.items()}
    _refuse_leaks(splits["segmenter"], splits["classifier"])
    finished = {
        "segmenter": _segmenter(runs["segmenter"], splits["segmenter"]),
        "classifier": _classifier(runs["classifier"], splits["classifier"]),
    }
    parts = {f"{role}.onnx": item.graph for role, item in finished.items()}
    parts["split.json"] = (runs["classifier"].folder / "split.json").read_bytes()
    if splits["segmenter"] != splits["classifier"]:
        parts["split-segmenter.json"] = (runs["segmenter"].folder / "split.json").read_bytes()
    parts["reference.npz"] = _reference(finished)
    thresholds = {key: v for item in finished.values() for key, v in item.thresholds.items()}
    manifest = Manifest(
        name=name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        labels=runs["classifier"].labels,
        models={
            role: Model(f"{role}.onnx", run.model, run.preprocessing, "fp32", run.parameters)
            for role, run in runs.items()
        },
        thresholds=Thresholds(**thresholds),
        licence="; ".join(dict.fromkeys(run.licence for run in runs.values())),
        procedural=any(run.procedural for run in runs.values()),
        training_data=tuple(_training_data(run) for run in runs.values()),
        measured={role: item.measured for role, item in finished.items()},
        parity={role: asdict(item.parity) for role, item in finished.items()},
        software={
            "dermedge": __version__,
            **{package: version(package) for package in ("torch", "onnx", "onnxruntime")},
        },
    )
    return manifest, parts


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature that minimizes the mean negative log-likelihood (Guo et al., ICML 2017).

    Golden-section search over its logarithm, on which the likelihood has one optimum.

    Parameters
    ----------
    logits : float (N, K).
    targets : int (N,), 0 to K - 1.

    Returns
    -------
    0.05 to 20: a validation part that is classified without an error would ask for 0.
    """
    low, high = np.log(0.05), np.log(20.0)
    golden = (np.sqrt(5) - 1) / 2
    while high - low > 1e-6:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if _loss(logits, targets, np.exp(left)) < _loss(logits, targets, np.exp(right)):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def _loss(logits: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    return float(-_log_softmax(logits / temperature)[np.arange(len(targets)), targets].mean())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _one_of_each(folders: Sequence[str | Path]) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for folder in folders:
        run = load_run(folder)
        if run.kind in runs:
            raise ExportError(
                f"{runs[run.kind].folder} and {run.folder} are both a {run.kind}: give one"
            )
        runs[run.kind] = run
    missing = [role for role in ROLES if role not in runs]
    if missing:
        raise ExportError(f"a bundle needs a {missing[0]} too: add the folder of its run")
    return {role: runs[role] for role in ROLES}


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


@dataclass(frozen=True)
class _Predictions:
    """What a network makes of the validation part; one entry a picture that could be read."""

    records: list[Record]
    groups: np.ndarray  # int (n,): lesion or patient
    squares: list[np.ndarray]  # uint8 (S, S, 3), prepared; `PARITY_PICTURES` of them at most
    outputs: np.ndarray  # float (n, ...)


def _predict(
    run: Run,
    split: Split,
    network: Callable[[np.ndarray], np.ndarray],
    judge: Callable[[np.ndarray, Placement, Record], np.ndarray],
) -> _Predictions:
    """Run `network` over the validation part; what `judge` makes of each output is kept."""
    data_set = datasets.load(run.data_set, run.data_root)
    records = split.select(data_set.records, PART)
    if run.kind == "segmenter":
        records = [record for record in records if record.mask is not None]
    else:
        records = [record for record in records if record.label in run.labels]
    group_of = {
        record.id: number
        for number, group in enumerate(group_records(records, data_set.same))
        for record in group
    }
    kept, squares, outputs = [], [], []
    every = -(-len(records) // PARITY_PICTURES)
    for record in tqdm(records, desc=f"validating the {run.kind}", file=sys.stderr):
        try:
            square, placement = prepare(read_image(record.image).pixels, run.preprocessing)
            outputs.append(judge(network(square[None])[0], placement, record))
        except ImageError as error:
            tqdm.write(f"left out {record.id}: {error}", file=sys.stderr)
            continue
        if len(kept) % every == 0:
            squares.append(square)
        kept.append(record)
    if not kept:
        raise ExportError(
            f"the validation part of {run.data_set} has no picture that a {run.kind} can be "
            "measured on: train with a split that has one"
        )
    groups = np.array([group_of[record.id] for record in kept])
    return _Predictions(kept, groups, squares, np.array(outputs))


def _segmenter(run: Run, split: Split) -> Role:
    network = Network(load_model(run))
    graph = _graph(network, run)

    session = open_session(graph)

    def masks(image: np.ndarray) -> np.ndarray:
        return session.run({"image": image})["mask"]

    def judge(output: np.ndarray, placement: Placement, record: Record) -> np.ndarray:
        # At the size of the drawn mask, as the analysis will be judged.
        truth = read_mask(record.mask)
        probability = placement.restore(output, truth.shape)
        predicted = [probability >= threshold for threshold in MASK_THRESHOLDS]
        return metrics.confusion(predicted, [truth] * len(predicted)).jaccard

    found = _predict(run, split, masks, judge)
    # Of thresholds that are as good as each other, the one nearest to 0.5.
    means = found.outputs.mean(axis=0).round(4)
    best = min(np.flatnonzero(means == means.max()), key=lambda i: abs(MASK_THRESHOLDS[i] - 0.5))
    jaccards = found.outputs[:, best]
    measured = {
        **_origin(run, found),
        "jaccard": _interval(lambda w: w @ jaccards / w.sum(), found.groups),
    }
    parity = compare(network, graph, found.squares)
    return Role(run, graph, parity, measured, {"mask": MASK_THRESHOLDS[best]})


def _classifier(run: Run, split: Split) -> Role:
    model = load_model(run)

    # The graph is made afterwards: the temperature inside it comes from these logits.
    @torch.inference_mode()
    def logits(image: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(image)).numpy()

    found = _predict(run, split, logits, lambda output, placement, record: output)
    targets = np.array([run.labels.index(record.label) for record in found.records])
    malignant = np.array([label in MALIGNANT for label in run.labels])
    truth = malignant[targets]
    if truth.all() or not truth.any():
        raise ExportError(
            f"the validation part of {run.data_set} has only "
            f"{'malignant' if truth.any() else 'benign'} lesions: no threshold can be chosen on it"
        )
    temperature = fit_temperature(found.outputs, targets)
    network = Network(model, temperature)
    graph = _graph(network, run)
    uncalibrated = np.exp(_log_softmax(found.outputs))
    probabilities = np.exp(_log_softmax(found.outputs / temperature))
    malignancy = probabilities[:, malignant].sum(axis=1)
    see_doctor, urgent = operating_points(malignancy, truth)
    predicted, count = probabilities.argmax(axis=1), len(run.labels)

    def interval(statistic) -> dict:
        return _interval(statistic, found.groups)

    measured = {
        **_origin(run, found),
        "malignant": int(truth.sum()),
        "temperature": temperature,
        "auc_malignant": interval(lambda w: metrics.roc_auc(malignancy, truth, w)),
        "macro_auc": interval(lambda w: metrics.macro_auc(probabilities, targets, w)),
        "balanced_accuracy": interval(
            lambda w: metrics.balanced_accuracy(predicted, targets, count, w)
        ),
        "ece_before": metrics.expected_calibration_error(uncalibrated, targets),
        "ece": metrics.expected_calibration_error(probabilities, targets),
        **{
            point: {
                "sensitivity": interval(lambda w, hit=malignancy >= limit: _share(hit, truth, w)),
                "specificity": interval(lambda w, hit=malignancy >= limit: _share(~hit, ~truth, w)),
            }
            for point, limit in (("see_doctor", see_doctor), ("urgent", urgent))
        },
    }
    parity = compare(network, graph, found.squares)
    return Role(run, graph, parity, measured, {"see_doctor": see_doctor, "urgent": urgent})


def operating_points(malignancy: np.ndarray, malignant: np.ndarray) -> tuple[float, float]:
    """Thresholds of "see a doctor" and "urgent".

    The first is the highest that finds 95 % of the malignant lesions, the second the lowest that
    leaves 95 % of the benign ones alone, and never below the first. Both have four decimals,
    rounded to the safe side: other runtimes differ in the sixth.

    Parameters
    ----------
    malignancy : float (n,), 0 to 1.
    malignant : bool (n,), with both kinds.
    """
    found = metrics.threshold_at_sensitivity(malignancy, malignant, SENSITIVITY)
    see_doctor = max(np.floor(found * 1e4) / 1e4, 1e-4)
    limits, _, alarms = metrics.roc_curve(malignancy, malignant)
    lowest = limits[1 - alarms >= SPECIFICITY - 1e-12].min()
    urgent = min(np.ceil(lowest * 1e4) / 1e4, 1.0)
    return float(see_doctor), float(max(see_doctor, urgent))


def _graph(network: Network, run: Run) -> bytes:
    print(f"exporting the {run.kind} ({run.model}, {run.size} px)", file=sys.stderr, flush=True)
    return to_onnx(network, run.size)


def _share(hit: np.ndarray, among: np.ndarray, weights: np.ndarray) -> float:
    whole = weights[among].sum()
    return float(weights[among & hit].sum() / whole) if whole else float("nan")


def _origin(run: Run, found: _Predictions) -> dict:
    return {
        "data_set": run.data_set,
        "part": PART,
        "split_sha256": run.split_sha256,
        "pictures": len(found.records),
    }


def _interval(statistic: Callable[[np.ndarray], float], groups: np.ndarray) -> dict:
    """95 % bootstrap interval over lesions and patients. None: cannot be had."""
    interval = metrics.bootstrap(statistic, len(groups), groups, RESAMPLES)
    return {key: None if np.isnan(v) else round(v, 6) for key, v in asdict(interval).items()}


def _training_data(run: Run) -> dict:
    return {
        "role": run.kind,
        "data_set": run.data_set,
        "licence": run.licence,
        "procedural": run.procedural,
        "split_sha256": run.split_sha256,
        "subset": run.subset,
        "pictures": run.pictures,
        "seed": run.seed,
        "imagenet_weights": run.pretrained,
        "steps": run.steps,
        "planned_steps": run.planned,
        "finished": run.finished,
        "versions": run.versions,
    }


def _reference(roles: dict[str, Role]) -> bytes:
    """Drawn pictures, what each network is fed of them, and what it must answer (an .npz)."""
    pictures = np.stack([procedural.draw(seed, size=(192, 256)).image for seed in REFERENCE_SEEDS])
    arrays = {"pictures": pictures}
    for role, item in roles.items():
        session = open_session(item.graph)
        inputs = np.stack([prepare(image, item.run.preprocessing)[0] for image in pictures])
        (output,) = session.outputs
        answers = [session.run({"image": square[None]})[output.name] for square in inputs]
        arrays[f"{role}_image"] = inputs
        arrays[f"{role}_{output.name}"] = np.concatenate(answers)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
