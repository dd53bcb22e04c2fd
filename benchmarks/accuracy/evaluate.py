"""How right a bundle is on a part of a data set, and how right simpler methods are on the same."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks import PROCEDURAL
from benchmarks.accuracy import figures
from benchmarks.accuracy.baselines import (
    COLOUR,
    OTSU,
    OTSU_METHOD,
    ColourClassifier,
    colour_features,
    otsu_mask,
)
from benchmarks.accuracy.chosen import Chosen
from benchmarks.accuracy.figures import NETWORKS, Row
from benchmarks.accuracy.networks import Networks
from benchmarks.speed.latency import hardware
from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import Bundle
from dermedge.data import DataSet, Record
from dermedge.data.masks import read_lesion_mask
from dermedge.evaluation import metrics
from dermedge.image.read import ImageError, find_images, read_image
from dermedge.runtime import ExecutionConfig

SCHEMA = "dermedge evaluation 2"

Item = TypeVar("Item")
Result = TypeVar("Result")


def evaluate(
    bundle: Bundle,
    data_set: DataSet,
    chosen: Chosen,
    baselines: bool,
    threads: int,
    command: str,
    views: int = 1,
    metadata: bool = True,
    unlike: str | Path | None = None,
    roads: Mapping[str, ExecutionConfig] | None = None,
) -> tuple[dict, list[Row]]:
    """Run the bundle over the chosen pictures once, each exactly as `dermedge analyze` does.

    A bundle of one role is measured on what that role gives.

    Parameters
    ----------
    views : 1, or 4 for test-time augmentation.
    metadata : whether a classifier that takes age, sex or site is told what the record says.
    unlike : folder of pictures that show no lesion, to be told apart by the distance; folders in
        it are kinds.
    roads : of a bundle of both roles, as `dermedge.analyzer.Analyzer` takes them.

    Returns
    -------
    The result (the object that `dermedge evaluate --json` prints) and one row a picture. Its
    'differences' are networks minus baseline on the same pictures, with the interval of the paired
    bootstrap; the list is empty without baselines. Pixels of a picture are dropped as soon as it
    is measured.

    Raises
    ------
    UserError
        Where `unlike` holds no picture, or the bundle tells no distance.
    """
    manifest = bundle.manifest
    labels, limits = manifest.labels, manifest.thresholds
    fields = manifest.models["classifier"].metadata if "classifier" in manifest.models else ()
    told = fields if metadata else ()
    if unlike and limits.unfamiliar is None:
        raise UserError(f"--unlike: {bundle.path} tells no distance from its training pictures")
    others = _others(Path(unlike)) if unlike else []
    numbers, kind = figures.clusters(chosen.records, chosen.same)

    # An analyzer serves one thread at a time; the threads share the cores, so each needs but one.
    idle: SimpleQueue[Networks] = SimpleQueue()
    for _ in range(threads):
        idle.put(Networks(bundle, threads=1, views=views, roads=roads))

    def rows_of(records: Sequence[Record], first: int, title: str, simple: bool) -> list[Row]:
        def one(record: Record) -> Row:
            networks = idle.get()
            try:
                cluster = numbers.get(record.id, first)
                return examine(record, cluster, networks, told, simple)
            finally:
                idle.put(networks)

        return list(in_threads(one, records, threads, title))

    start = time.perf_counter()
    rows = rows_of(chosen.records, 0, "evaluating", baselines)
    passed = time.perf_counter()
    read = [row for row in rows if row.error is None]
    warnings = [*chosen.warnings, *_empty_masks(read)]
    methods, differences = [], []
    for name, baseline in ((NETWORKS, False), (OTSU, True)):
        if any(name in row.counts for row in read):
            methods.append(figures.segmentation(name, baseline, read))
    if any(OTSU in row.counts for row in read):
        differences.append(figures.jaccard_difference(read))
    known = any(row.record.label in labels or row.record.malignant is not None for row in read)
    if "classifier" in manifest.models and known:
        stated = np.array([row.probabilities for row in read])
        methods.append(figures.classification(NETWORKS, False, read, stated, labels, limits))
        if baselines:
            try:
                model, used = _fit_colours(chosen.train, labels, threads)
            except ValueError as error:
                warnings.append(f"no colour baseline: {error}")
            else:
                simple = model.probabilities(np.array([row.features for row in read]), labels)
                method = figures.classification(COLOUR, True, read, simple, labels)
                methods.append({**method, "trained_on": used})
                if "malignant_auc" in method["metrics"]:
                    differences.append(figures.auc_difference(read, stated, simple, labels))
    result = {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "commit": commit(),
        "bundle": _about(bundle),
        "views": views,
        "roads": {role: str(replace(road, threads=1)) for role, road in (roads or {}).items()},
        "metadata": {"taken": list(fields), "given": list(told)},
        "data": _about_data(data_set, chosen, rows, labels),
        "warnings": warnings,
        "intervals": {
            "level": figures.LEVEL,
            "resamples": figures.RESAMPLES,
            "clusters": kind,
        },
        "labels": list(labels),
        "operating_point": limits.see_doctor,
        "triage": dict(Counter(row.triage for row in read if row.triage)),
        "methods": methods,
        "differences": differences,
        "unfamiliar": figures.unfamiliar_share(read),
        "unlike": None,
        "hardware": hardware(),
        "groups": figures.by_skin_type(read, labels, limits),
    }
    result["seconds"] = {
        "pictures": round(passed - start, 3),
        "figures": round(time.perf_counter() - passed, 3),
    }
    if unlike:
        result["unlike"] = _unlike(read, others, Path(unlike), rows_of)
    return result, rows


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
    data_set: DataSet, chosen: Chosen, rows: Sequence[Row], labels: tuple[str, ...]
) -> dict:
    read = [row.record for row in rows if row.error is None]
    return {
        "name": data_set.name,
        "licence": data_set.licence,
        "part": chosen.part,
        "pictures": chosen.pictures,
        "limit": chosen.limit,
        "evaluated": len(read),
        "split": chosen.source,
        "split_sha256": chosen.split.sha256 if chosen.split else None,
        "seed": chosen.split.seed if chosen.split else None,
        "outside_labels": sum(r.label is not None and r.label not in labels for r in read),
        "unreadable": [{"id": row.record.id, "error": row.error} for row in rows if row.error],
    }


def commit() -> str:
    """The commit of the checkout that this package lies in; '-' where it lies in none."""
    room = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(room), "rev-parse", "--show-toplevel", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "-"
    # An environment may lie inside the checkout of something else.
    top, head = done.stdout.splitlines()
    return head if Path(top).resolve() == room.parent else "-"


def _others(folder: Path) -> list[Record]:
    """Pictures that show no lesion; the first folder on the way to one is its kind."""
    if not folder.is_dir():
        raise UserError(f"--unlike: there is no folder {folder}")
    found = []
    for path in find_images([folder]):
        way = path.relative_to(folder)
        name = way.as_posix() if len(way.parts) > 1 else f"{folder.name}/{way.name}"
        found.append(Record(id=name, image=path))
    if not found:
        raise UserError(f"--unlike: there is no picture in {folder}")
    return found


def _unlike(read: Sequence[Row], others: Sequence[Record], folder: Path, rows_of: Callable) -> dict:
    # Each is a cluster of its own, apart from those of the part.
    first = 1 + max((row.cluster for row in read), default=0)
    rows = [
        replace(row, cluster=first + number)
        for number, row in enumerate(rows_of(others, first, "unlike", False))
    ]
    good = [row for row in rows if row.error is None]
    if not good:
        raise UserError(f"--unlike: no picture in {folder} can be read ({rows[0].error})")
    return {
        "folder": folder.name,
        "unreadable": len(rows) - len(good),
        **figures.unlike(read, good),
    }


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], threads: int, title: str
) -> Iterator[Result]:
    """`map` over threads, in order, with few results waiting: memory does not grow."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with (
            ThreadPoolExecutor(threads) as pool,
            tqdm(
                total=len(items), desc=title, unit=" pictures", disable=None, file=sys.stderr
            ) as bar,
        ):
            waiting: deque = deque()
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
                    bar.update()
            while waiting:
                yield waiting.popleft().result()
                bar.update()
    finally:
        cv2.setNumThreads(before)


def examine(
    record: Record, cluster: int, networks: Networks, fields: Sequence[str], baselines: bool
) -> Row:
    """Run the networks on one picture and count; `fields` of metadata are told to them."""
    try:
        picture = read_image(record.image)
        truth = None
        if record.mask:
            truth = read_lesion_mask(record.mask, picture.height, picture.width)
    except ImageError as error:
        return Row(record, cluster, error=str(error))
    found = networks.examine(picture, {name: getattr(record, name) for name in fields})
    counts = {}
    if truth is not None and found.mask is not None:
        counts[NETWORKS] = count_pixels(found.mask, truth)
        if baselines:
            counts[OTSU] = count_pixels(otsu_mask(picture.pixels), truth)
    return Row(
        record,
        cluster,
        triage=found.triage,
        probabilities=found.probabilities,
        likely=found.likely,
        distance=found.distance,
        unfamiliar=found.unfamiliar,
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
            return colour_features(read_image(record.image).pixels)
        except ImageError:
            return None

    found = list(in_threads(features, known, threads, "colour baseline"))
    pairs = [
        (feature, record.label)
        for feature, record in zip(found, known, strict=True)
        if feature is not None
    ]
    if len({label for _, label in pairs}) < 2:
        raise ValueError("the train part holds fewer than two of the bundle's classes")
    values, names = zip(*pairs, strict=True)
    return ColourClassifier(values, names), len(pairs)


def to_csv(rows: Sequence[Row], labels: tuple[str, ...]) -> str:
    """One line a picture: what is true, what was found, or why it could not be read."""
    names = ["id", "label", "malignant", "malignancy", "triage", "likely", "distance"]
    names += [f"p_{name}" for name in labels]
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer, [*names, "jaccard", "dice", "otsu_jaccard", "error"], lineterminator="\n"
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
        for method, prefix in ((NETWORKS, ""), (OTSU, "otsu_")):
            if method in row.counts:
                counts = metrics.Confusion(*np.array(row.counts[method])[:, None])
                line[f"{prefix}jaccard"] = f"{counts.jaccard[0]:.6f}"
                if not prefix:
                    line["dice"] = f"{counts.dice[0]:.6f}"
        writer.writerow(line)
    return buffer.getvalue()


def table(result: dict) -> str:
    """The result for people, as plain text."""
    data, how = result["data"], result["intervals"]
    subset = f", a fixed subset of {data['pictures']}" if data["limit"] else ""
    lines = [
        f"{result['bundle']['name']} on {data['name']}, part {data['part']}: "
        f"{data['evaluated']} pictures{subset}; split: {data['split']}",
        *([PROCEDURAL] if result["bundle"]["procedural"] else []),
        *_ways(result),
        f"95 % intervals: bootstrap over {how['clusters']}, {how['resamples']} resamples",
    ]
    for method in result["methods"]:
        lines += ["", f"{method['task']}: {method['name']} ({method['count']} pictures)"]
        if "trained_on" in method:
            lines.append(f"  fitted on {method['trained_on']} pictures of the train part")
        if method["name"] == OTSU:
            lines.append(f"  {OTSU_METHOD}")
        lines += [f"  {name:<30}{_shown(value)}" for name, value in method["metrics"].items()]
        for label, entry in method.get("per_class", {}).items():
            shown = "; ".join(
                f"{name} {_shown(entry[name])}" for name in ("auc", "sensitivity", "specificity")
            )
            lines.append(f"  {label:<6}{entry['count']:>5} pictures; {shown}")
        if method.get("confusion"):
            lines.append("  confusion, rows true: " + " ".join(result["labels"]))
            for label, counts in zip(result["labels"], method["confusion"], strict=True):
                lines.append(f"    {label:<8}" + "".join(f"{count:>6}" for count in counts))
    if result["differences"]:
        lines += ["", "difference to the baseline (95 % interval)"]
    for entry in result["differences"]:
        lines.append(f"  {entry['metric']:<30}{_shown(entry, '+')}  networks - {entry['baseline']}")
    if result["groups"]:
        lines += ["", "by skin type (Fitzpatrick), networks of the bundle"]
    for group in result["groups"]:
        shown = [f"{name} {_shown(value)}" for name, value in group["metrics"].items()]
        lines.append(
            f"  {group['skin_type']:<12}{group['pictures']:>5} pictures, {group['malignant']} "
            "malignant" + "".join(f"; {one}" for one in shown)
        )
    if result["unfamiliar"]:
        lines += ["", f"marked as unlike the learnt pictures: {_shown(result['unfamiliar'])}"]
    if result["unlike"]:
        kinds = {"all": result["unlike"], **result["unlike"]["kinds"]}
        lines.append(f"pictures of {result['unlike']['folder']}, which show no lesion")
        for kind, entry in kinds.items():
            lines.append(
                f"  {kind:<12}{entry['pictures']:>5} pictures; auc of the distance "
                f"{_shown(entry['auc'])}; marked {_shown(entry['flagged'])}; no estimate given "
                f"{_shown(entry['retaken'])}"
            )
    lines.append("")
    if result["triage"]:
        lines.append("advice: " + ", ".join(f"{k} {v}" for k, v in result["triage"].items()))
    if data["outside_labels"]:
        lines.append(
            f"{data['outside_labels']} pictures of classes that the bundle does not know: "
            "counted for malignancy only"
        )
    lines += [f"not read: {entry['id']}: {entry['error']}" for entry in data["unreadable"]]
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    return "\n".join(lines)


def _ways(result: dict) -> Iterator[str]:
    """How the networks were run, where that is not the plain way."""
    if result["views"] > 1:
        yield f"test-time augmentation: mean of {result['views']} mirrored views"
    taken, given = result["metadata"]["taken"], result["metadata"]["given"]
    if taken:
        yield f"told beside the picture: {', '.join(given) or 'nothing'}"


def _shown(metric: dict | None, sign: str = "-") -> str:
    if metric is None or metric["value"] is None:
        return "-"
    value, low, high = (metric[key] for key in ("value", "low", "high"))
    if low is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
