"""How right a bundle is on a part of a data set, and how right simpler methods are on the same."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from benchmarks.accuracy import figures, intervals
from benchmarks.accuracy.baselines import ColourClassifier, colour_features, otsu_mask
from benchmarks.accuracy.by_group import by_group
from benchmarks.accuracy.figures import Row
from benchmarks.accuracy.intervals import clusters
from benchmarks.accuracy.networks import Networks
from benchmarks.accuracy.pool import Cluster, ClusterPool, NetworkPool, in_threads
from benchmarks.accuracy.selection import Selection, split_sha256
from benchmarks.latency.hardware import hardware
from benchmarks.schema.names import COLOUR, EVALUATION, NETWORKS, OTSU, SECOND_RATER
from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import Bundle
from dermedge.data import DataSet, Record
from dermedge.data.masks import read_lesion_mask, read_lesion_picture
from dermedge.evaluation import metrics
from dermedge.evaluation.provenance import commit
from dermedge.image.opencv import short_of_memory
from dermedge.image.read import ImageError, Picture, find_images, find_other_pictures
from dermedge.runtime import ExecutionConfig
from dermedge.text import printable


@dataclass(frozen=True)
class Options:
    """How a bundle is evaluated.

    baselines : also measure simpler methods on the same pictures.
    threads : how many pictures are analysed at the same time, 1 or more.
    command : as it was typed, for the result.
    views : 1, or 4 for test-time augmentation.
    metadata : whether a classifier that takes age, sex or site gets what the record says.
    ood : folder of pictures that show no lesion, to be separated by the distance; folders in it
        are kinds.
    executions : of a bundle of both roles, role to how its network is run.
    cluster : where the pictures are analysed; None: in `threads` of this process.
    """

    baselines: bool = False
    threads: int = 1
    command: str = ""
    views: int = 1
    metadata: bool = True
    ood: str | Path | None = None
    executions: Mapping[str, ExecutionConfig] | None = None
    cluster: Cluster | None = None


def evaluate(
    bundle: Bundle, data_set: DataSet, selection: Selection, options: Options
) -> tuple[dict, list[Row]]:
    """Run the bundle over the selected pictures once, each exactly as `dermedge analyze` does.

    A bundle of one role is measured on what that role gives.

    Returns
    -------
    The result (the object that `dermedge evaluate --json` prints) and one row a picture. Its
    'differences' are networks minus baseline on the same pictures, with the interval of the paired
    bootstrap; the list is empty without baselines. Pixels of a picture are dropped as soon as it
    is measured.

    Raises
    ------
    UserError
        Where `options.ood` holds no picture, or the bundle gives no distance.
    """
    labels, limits = bundle.manifest.labels, bundle.manifest.thresholds
    if options.ood and limits.unfamiliar is None:
        raise UserError(f"--ood: {bundle.path} gives no distance from its training pictures")
    others = _others(Path(options.ood)) if options.ood else []
    numbers, kind = clusters(selection.records, selection.same)
    fields = _fields(bundle) if options.metadata else ()
    pool: NetworkPool | ClusterPool
    if options.cluster is None:
        pool = NetworkPool(bundle, options.threads, options.views, options.executions)
    else:
        pool = ClusterPool(bundle, options.cluster, options.views, options.executions)

    def rows_of(records: Sequence[Record], title: str, baselines: bool) -> list[Row]:
        def work(networks: Networks, record: Record) -> Row:
            return examine(record, numbers.get(record.id, 0), networks, fields, baselines)

        return pool.map(work, records, title)

    start = time.perf_counter()
    rows = rows_of(selection.records, "evaluating", options.baselines)
    all_read = time.perf_counter()
    read = [row for row in rows if row.error is None]
    warnings = [*selection.warnings, *_empty_masks(read), *_unread_second(read)]
    if options.ood:
        warnings += _of_other_kinds(Path(options.ood))
    outlines = _segmentation(read)
    classes = _classification(bundle, selection, read, options, warnings)
    groups, gaps = by_group(read, labels, limits)
    result = {
        **_head(bundle, options, fields),
        "data": _about_data(data_set, selection, rows, labels),
        "warnings": warnings,
        "intervals": _intervals(kind),
        "labels": list(labels),
        "operating_point": limits.see_doctor,
        "triage": dict(Counter(row.triage for row in read if row.triage)),
        "methods": outlines[0] + classes[0],
        "differences": outlines[1] + classes[1],
        "ood_flagged": figures.ood_share(read),
        "ood": None,
        "hardware": hardware(),
        "groups": groups,
        "gaps": gaps,
    }
    seconds = all_read - start, time.perf_counter() - all_read
    result["seconds"] = {"pictures": round(seconds[0], 3), "figures": round(seconds[1], 3)}
    if options.ood:
        result["ood"] = _out_of_distribution(read, others, Path(options.ood), rows_of)
    return result, rows


def _intervals(clusters: str) -> dict:
    return {
        "level": intervals.LEVEL,
        "resamples": intervals.RESAMPLES,
        "clusters": clusters,
    }


def _fields(bundle: Bundle) -> tuple[str, ...]:
    """What the bundle's classifier takes beside the picture."""
    model = bundle.manifest.models.get("classifier")
    return () if model is None else model.metadata


def _head(bundle: Bundle, options: Options, fields: Sequence[str]) -> dict:
    executions = (options.executions or {}).items()
    return {
        "schema": EVALUATION,
        "disclaimer": DISCLAIMER,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": options.command,
        "commit": commit("+"),
        "bundle": _about(bundle),
        "views": options.views,
        "executions": {role: str(replace(execution, threads=1)) for role, execution in executions},
        "metadata": {"accepted": list(_fields(bundle)), "used": list(fields)},
    }


def _segmentation(read: Sequence[Row]) -> tuple[list[dict], list[dict]]:
    """Methods that outline, and the networks' difference to each of the others."""
    names = (NETWORKS, OTSU, SECOND_RATER)
    measured = [name for name in names if any(name in row.counts for row in read)]
    return (
        [figures.segmentation(name, name != NETWORKS, read) for name in measured],
        [figures.jaccard_difference(read, name) for name in measured if name != NETWORKS],
    )


def _classification(
    bundle: Bundle,
    selection: Selection,
    read: Sequence[Row],
    options: Options,
    warnings: list[str],
) -> tuple[list[dict], list[dict]]:
    """Methods that classify, and the networks' difference to the baseline; adds to `warnings`."""
    labels, limits = bundle.manifest.labels, bundle.manifest.thresholds
    known = any(row.record.label in labels or row.record.malignant is not None for row in read)
    if "classifier" not in bundle.manifest.models or not known:
        return [], []
    stated = np.array([row.probabilities for row in read])
    methods = [figures.classification(NETWORKS, False, read, stated, labels, limits)]
    if not options.baselines:
        return methods, []
    try:
        model, used = _fit_colours(selection.train, labels, options.threads)
    except ValueError as error:
        warnings.append(f"no colour baseline: {error}")
        return methods, []
    simple = model.probabilities(np.array([row.features for row in read]), labels)
    method = figures.classification(COLOUR, True, read, simple, labels)
    compared = "malignant_auc" in method["metrics"]
    return (
        [*methods, {**method, "trained_on": used}],
        [figures.auc_difference(read, stated, simple, labels)] if compared else [],
    )


def _empty_masks(rows: Sequence[Row]) -> list[str]:
    """A warning where masks are empty. UserError where all are: nothing to find is no success."""
    truths = [row.counts[NETWORKS][0] + row.counts[NETWORKS][2] for row in rows if row.counts]
    empty = sum(not lesion for lesion in truths)
    if truths and empty == len(truths):
        raise UserError(
            "all {count} masks of these pictures are empty: there is no outline to measure; look "
            "at them with `dermedge data check`",
            code="masks_all_empty",
            count=empty,
        )
    return [f"{empty} of {len(truths)} masks are empty"] if empty else []


def _unread_second(rows: Sequence[Row]) -> list[str]:
    """A warning where a second person's masks were to be compared and some cannot be used."""
    compared = [row for row in rows if OTSU in row.counts and row.record.second_mask]
    unread = sum(SECOND_RATER not in row.counts for row in compared)
    if not unread:
        return []
    return [
        f"{unread} of {len(compared)} masks of the second person cannot be used; `dermedge data "
        "check` names them"
    ]


def _about(bundle: Bundle) -> dict:
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "sha256": bundle.sha256,
        "procedural": manifest.procedural,
        "licence": manifest.licence,
        "bytes": bundle.path.stat().st_size,
        "models": {
            role: {
                "architecture": model.architecture,
                "part": model.part,
                "size": model.preprocessing.size,
                "crop": model.preprocessing.crop,
                "parameters": model.parameters,
                "macs": model.macs,
                "precision": model.precision,
                "weights": model.weights,
                "bytes": manifest.parts[model.part]["bytes"],
            }
            for role, model in manifest.models.items()
        },
        "training_data": list(manifest.training_data),
    }


def _about_data(
    data_set: DataSet, selection: Selection, rows: Sequence[Row], labels: tuple[str, ...]
) -> dict:
    read = [row.record for row in rows if row.error is None]
    outside = [r for r in read if r.label is not None and r.label not in labels]
    return {
        "name": data_set.name,
        "licence": data_set.licence,
        "part": selection.part,
        "subset": selection.subset,
        "pictures": selection.pictures,
        "limit": selection.limit,
        "evaluated": len(read),
        "split": selection.source,
        "split_sha256": split_sha256(data_set, selection),
        "seed": selection.split.seed if selection.split else None,
        "outside_labels": len(outside),
        # Nobody knows whether these are malignant: of no figure of the classifier.
        "outside_unknown": sum(r.malignant is None for r in outside),
        "unreadable": [{"id": row.record.id, "error": row.error} for row in rows if row.error],
    }


def _others(folder: Path) -> list[Record]:
    """Pictures that show no lesion; the first folder on the way to one is its kind."""
    if not folder.is_dir():
        raise UserError(f"--ood: there is no folder {folder}")
    records = []
    for path in find_images([folder]):
        inside = path.relative_to(folder)
        # Of '.', too, which has no name of its own.
        kind = folder.resolve().name
        name = inside.as_posix() if len(inside.parts) > 1 else f"{kind}/{inside.name}"
        records.append(Record(id=name, image=path))
    if not records:
        raise UserError(f"--ood: there is no picture in {folder}")
    return records


def _of_other_kinds(folder: Path) -> list[str]:
    """A warning where files of the folder are pictures that are not read."""
    others = find_other_pictures([folder])
    if not others:
        return []
    kinds = ", ".join(sorted({path.suffix.lower() for path in others}))
    return [f"--ood: {len(others)} pictures are not read ({kinds}): save them as PNG"]


def _out_of_distribution(
    read: Sequence[Row],
    others: Sequence[Record],
    folder: Path,
    rows_of: Callable[[Sequence[Record], str, bool], list[Row]],
) -> dict:
    # Each is a cluster of its own, none of those of the part.
    first = 1 + max((row.cluster for row in read), default=0)
    rows = [
        replace(row, cluster=first + number)
        for number, row in enumerate(rows_of(others, "out of distribution", False))
    ]
    good = [row for row in rows if row.error is None]
    if not good:
        raise UserError(f"--ood: no picture in {folder} can be read ({rows[0].error})")
    return {
        "folder": folder.resolve().name,
        "unreadable": len(rows) - len(good),
        **figures.out_of_distribution(read, good),
    }


def read_picture(record: Record) -> tuple[Picture, np.ndarray | None]:
    """A record's picture and true mask, bool at the size of its file. ImageError as they raise, and
    where memory is short for one of them: the others are measured all the same.

    It names the file without its folders: results are shown to others.
    """
    try:
        with short_of_memory():
            picture = read_lesion_picture(record.image)
            if not record.mask:
                return picture, None
            return picture, read_lesion_mask(record.mask, picture.height, picture.width)
    except MemoryError:
        name = printable(record.image.name)
        raise ImageError(f"{name}: not enough memory for this picture") from None
    except ImageError as error:
        reason = without_folders(str(error), record.image, record.mask)
        raise ImageError("{reason}", code=error.code, reason=reason) from None


def without_folders(text: str, *paths: Path | None) -> str:
    """A message that names these files by their last name alone."""
    for path in filter(None, paths):
        text = text.replace(printable(path), printable(path.name))
    return text


def _second_mask(record: Record, picture: Picture) -> np.ndarray | None:
    """What a second person drew; None where nobody did, or it cannot be used."""
    if record.second_mask is None:
        return None
    try:
        return read_lesion_mask(record.second_mask, picture.height, picture.width)
    except ImageError:
        return None


def examine(
    record: Record, cluster: int, networks: Networks, fields: Sequence[str], baselines: bool
) -> Row:
    """Run the networks on one picture and count; they get the `fields` of its metadata."""
    try:
        picture, truth = read_picture(record)
    except ImageError as error:
        return Row(record, cluster, error=str(error))
    outputs = networks.examine(picture, {name: getattr(record, name) for name in fields})
    counts = {}
    if truth is not None and outputs.mask is not None:
        counts[NETWORKS] = count_pixels(outputs.mask, truth)
        if baselines:
            counts[OTSU] = count_pixels(otsu_mask(picture.pixels), truth)
            second = _second_mask(record, picture)
            if second is not None:
                counts[SECOND_RATER] = count_pixels(second, truth)
    return Row(
        record,
        cluster,
        triage=outputs.triage,
        probabilities=outputs.probabilities,
        likely=outputs.likely,
        distance=outputs.distance,
        ood=outputs.ood,
        counts=counts,
        features=colour_features(picture.pixels) if baselines else None,
    )


def count_pixels(predicted: np.ndarray, truth: np.ndarray) -> tuple[int, int, int, int]:
    """tp, fp, fn, tn at the size of the true mask."""
    if predicted.shape != truth.shape:
        size = truth.shape[::-1]
        smooth = cv2.resize(predicted.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        predicted = smooth >= 0.5
    both = int(np.count_nonzero(predicted & truth))
    fp = int(np.count_nonzero(predicted)) - both
    fn = int(np.count_nonzero(truth)) - both
    return both, fp, fn, truth.size - both - fp - fn


def _fit_colours(
    train: Sequence[Record], labels: tuple[str, ...], threads: int
) -> tuple[ColourClassifier, int]:
    """The colour baseline, fitted on the train part, and the number of pictures it had.

    Raises ValueError where there is too little to fit on.
    """
    if not train:
        raise ValueError("no pictures are left to fit it on")
    known = [record for record in train if record.label in labels]

    def features(record: Record) -> np.ndarray | None:
        try:
            return colour_features(read_picture(replace(record, mask=None))[0].pixels)
        except ImageError:
            return None

    extracted = list(in_threads(features, known, threads, "colour baseline"))
    pairs = [
        (feature, record.label)
        for feature, record in zip(extracted, known, strict=True)
        if feature is not None
    ]
    if len({label for _, label in pairs}) < 2:
        raise ValueError("the train part holds fewer than two of the bundle's classes")
    values, names = zip(*pairs, strict=True)
    return ColourClassifier(values, names), len(pairs)


def to_csv(rows: Sequence[Row], labels: tuple[str, ...]) -> str:
    """One line a picture: the truth, what the networks say, or why it could not be read."""
    names = ["id", "label", "malignant", "malignancy", "triage", "likely", "distance"]
    names += [f"p_{name}" for name in labels]
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer,
        [*names, "jaccard", "dice", "otsu_jaccard", "second_jaccard", "error"],
        lineterminator="\n",
    )
    writer.writeheader()
    for row in rows:
        line = {"id": row.record.id, "label": row.record.label, "malignant": row.record.malignant}
        line |= {"triage": row.triage, "likely": row.likely, "error": row.error}
        if row.distance is not None:
            line["distance"] = f"{row.distance:.4f}"
        if row.probabilities is not None:
            stated = dict(zip(labels, row.probabilities.tolist(), strict=True))
            line |= {f"p_{name}": f"{value:.6f}" for name, value in stated.items()}
            risk = figures.malignancy(row.probabilities[None], labels)[0]
            line["malignancy"] = f"{risk:.6f}"
        for method, prefix in ((NETWORKS, ""), (OTSU, "otsu_"), (SECOND_RATER, "second_")):
            if method in row.counts:
                counts = metrics.Confusion(*np.array(row.counts[method])[:, None])
                line[f"{prefix}jaccard"] = f"{counts.jaccard[0]:.6f}"
                if not prefix:
                    line["dice"] = f"{counts.dice[0]:.6f}"
        writer.writerow(line)
    return buffer.getvalue()
