"""How right a bundle is on a part of a data set, and how right simpler methods are on the same."""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks import PROCEDURAL
from benchmarks.baselines import (
    COLOUR,
    OTSU,
    OTSU_METHOD,
    ColourClassifier,
    colour_features,
    otsu_mask,
)
from benchmarks.latency import hardware
from dermedge import DISCLAIMER, metrics
from dermedge.analyzer import Analyzer
from dermedge.bundle import Bundle
from dermedge.datasets import DataError, DataSet, Record, Split, make_split
from dermedge.datasets.split import group_records
from dermedge.image import ImageError, read_image, read_mask
from dermedge.taxonomy import MALIGNANT

SCHEMA = "dermedge evaluation 1"
NETWORKS = "networks of the bundle"
SEED = 0  # of a split that is made here, and of the bootstrap
RESAMPLES = 1000
SKIN_TYPES = {"I-II": (1, 2), "III-IV": (3, 4), "V-VI": (5, 6), "not stated": (None,)}

Item = TypeVar("Item")
Result = TypeVar("Result")


class NothingToMeasure(DataError):
    """No chosen picture has a mask or a class that the bundle knows."""


@dataclass(frozen=True)
class Chosen:
    """The pictures to measure on, and what is known about their independence."""

    part: str
    records: tuple[Record, ...]
    pictures: int  # in the part, before the limit
    limit: int | None
    source: str  # where the split comes from
    split: Split | None
    train: tuple[Record, ...]  # for baselines only; shares no lesion or patient with `records`
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """What one picture gave. Counts are tp, fp, fn, tn in px of the mask file."""

    record: Record
    error: str | None = None
    triage: str | None = None
    probabilities: np.ndarray | None = None  # float64 (labels,)
    counts: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)  # by method
    features: np.ndarray | None = None


def choose(
    data_set: DataSet,
    bundle: Bundle,
    part: str,
    split_file: str | Path | None = None,
    limit: int | None = None,
    baselines: bool = False,
) -> Chosen:
    """Choose the pictures of `part` ('train', 'val', 'test' or 'all').

    The split is `split_file`, else one that the bundle carries where the data set holds all of
    its pictures, else made with seed 0. Warns where pictures were trained on, or where that
    cannot be told. With `baselines`, pictures to fit them on are chosen too (none for 'all').

    Raises
    ------
    DataError
        Where the split does not fit the data set, or the part is empty.
    NothingToMeasure
        Where no picture of the part has a mask or a class that the bundle knows.
    """
    stored = _stored_splits(bundle)
    fitting = [owner for owner, one in stored.items() if not _foreign(one, data_set)]
    warnings = []
    if split_file:
        split, source = Split.load(split_file), f"the file {Path(split_file).name}"
        if split.data_set != data_set.name:
            raise DataError(f"{split_file} splits {split.data_set}, not {data_set.name}")
    elif fitting:
        split, source = stored[fitting[0]], f"the one that the {fitting[0]} was trained with"
        # Plain numbers as ids fit any set that is large enough.
        if extra := len(data_set.records) - sum(map(len, split.parts.values())):
            warnings.append(
                f"the bundle's split knows nothing of {extra} pictures of {data_set.name}: make "
                "sure that this is the data set that it was trained on"
            )
    else:
        split, source = make_split(data_set, seed=SEED), f"made here with seed {SEED}"
        if stored and part != "all":
            warnings.append(
                f"the bundle's own split is not of these pictures: part '{part}' is of a new split"
            )
    if part == "all":
        records, source = sorted(data_set.records, key=lambda record: record.id), "none"
    else:
        records = split.select(data_set.records, part)
    if not records:
        held = {**split.parts, "all": data_set.records}
        filled = ", ".join(f"{name} ({len(ids)})" for name, ids in held.items() if ids)
        raise DataError(
            f"part '{part}' of {data_set.name} is empty; parts with pictures: {filled or 'none'}"
        )
    labels = bundle.manifest.labels
    if not any(r.mask or r.label in labels or r.malignant is not None for r in records):
        raise NothingToMeasure(
            f"nothing to measure: no picture of part '{part}' of {data_set.name} has a mask, or a "
            "class that the bundle knows"
        )
    pictures = len(records)
    if limit is not None and limit < pictures:
        # By a hash, so that neither the order of the files nor the classes decide.
        records = sorted(records, key=lambda r: hashlib.sha256(r.id.encode()).digest())[:limit]
        records = sorted(records, key=lambda record: record.id)
    else:
        limit = None
    train: list[Record] = []
    if baselines and part != "all":
        measured = _touched(data_set, {record.id for record in records})
        train = [r for r in split.select(data_set.records, "train") if r.id not in measured]
    return Chosen(
        part,
        tuple(records),
        pictures,
        limit,
        source,
        None if part == "all" else split,
        tuple(train),
        (*_independence(data_set, records, stored), *warnings),
    )


def _stored_splits(bundle: Bundle) -> dict[str, Split]:
    """By what was trained with them: 'bundle', or each network where they differ."""
    owners = {"split.json": "bundle"}
    if "split-segmenter.json" in bundle.manifest.parts:
        owners = {"split.json": "classifier", "split-segmenter.json": "segmenter"}
    return {
        owner: Split.from_json(bundle.part(part), f"{part} of bundle {bundle.path}")
        for part, owner in owners.items()
        if part in bundle.manifest.parts
    }


def _foreign(split: Split, data_set: DataSet) -> int:
    """How many pictures of `split` the data set lacks; all where it is read in another way."""
    ids = {name for part in split.parts.values() for name in part}
    if split.data_set == data_set.name:
        # A reader's name alone says little: 'csv' reads anybody's pictures.
        ids -= {record.id for record in data_set.records}
    return len(ids)


def _touched(data_set: DataSet, ids: set[str]) -> set[str]:
    """Ids of all pictures that share a lesion or patient with one of `ids`, and these."""
    return {
        record.id
        for group in group_records(data_set.records, data_set.same)
        if any(record.id in ids for record in group)
        for record in group
    }


def _independence(
    data_set: DataSet, records: Sequence[Record], stored: dict[str, Split]
) -> Iterator[str]:
    if not stored:
        yield "the bundle carries no split: whether it was trained on these pictures is unknown"
    for owner, split in stored.items():
        if split.data_set != data_set.name:
            # The archive's ids are one series through all of its data sets; other ids are not.
            known = {name for name in split.parts["train"] if name.startswith("ISIC_")}
            shared = sum(record.id in known for record in records)
            yield f"the {owner} was trained on {split.data_set}, not on {data_set.name}: " + (
                f"{shared} of {len(records)} pictures were in its training part"
                if shared
                else "whether a lesion was seen in training cannot be checked"
            )
            continue
        if missing := _foreign(split, data_set):
            known = set(split.parts["train"])
            shared = sum(record.id in known for record in records)
            yield (
                f"the {owner} was trained on another {split.data_set} data set, or on more of this "
                f"one ({missing} pictures of its split are not here): {shared} of {len(records)} "
                "pictures have the id of one in its training part"
            )
            continue
        for part, name, harm in (
            ("train", "training", "the figures are too good"),
            ("val", "validation", "thresholds were chosen on them"),
        ):
            touched = _touched(data_set, set(split.parts[part]))
            count = sum(record.id in touched for record in records)
            if count:
                yield (
                    f"{count} of {len(records)} pictures, or their lesions or patients, were in "
                    f"the {name} part of the {owner}: {harm}"
                )


def evaluate(
    bundle: Bundle,
    data_set: DataSet,
    chosen: Chosen,
    baselines: bool,
    threads: int,
    command: str,
) -> tuple[dict, list[Row]]:
    """Run the bundle over the chosen pictures once, each exactly as `dermedge analyze` does.

    Returns the result (the object that `dermedge evaluate --json` prints) and one row a picture.
    Its 'differences' are networks minus baseline on the same pictures, with the interval of the
    paired bootstrap; the list is empty without baselines. Pixels of a picture are dropped as soon
    as it is measured.
    """
    labels = bundle.manifest.labels
    rows = list(_rows(bundle, chosen.records, baselines, threads))
    read = [row for row in rows if row.error is None]
    outside = sum(row.record.label is not None and row.record.label not in labels for row in read)
    warnings = list(chosen.warnings)
    clusters, kind = _clusters([row.record for row in rows])
    methods, differences = [], []
    for name, baseline in ((NETWORKS, False), (OTSU, True)):
        if any(name in row.counts for row in read):
            methods.append(_segmentation(name, baseline, read, clusters))
    if any(OTSU in row.counts for row in read):
        differences.append(_jaccard_difference(read, clusters))
    thresholds = bundle.manifest.thresholds
    if any(row.record.label in labels or row.record.malignant is not None for row in read):
        stated = np.array([row.probabilities for row in read])
        methods.append(
            _classification(NETWORKS, False, read, stated, labels, clusters, thresholds.see_doctor)
        )
        if baselines:
            try:
                model, used = _fit_colours(chosen.train, labels, threads)
            except ValueError as error:
                warnings.append(f"no colour baseline: {error}")
            else:
                simple = model.probabilities(np.array([row.features for row in read]), labels)
                method = _classification(COLOUR, True, read, simple, labels, clusters, None)
                methods.append({**method, "trained_on": used})
                if "malignant_auc" in method["metrics"]:
                    differences.append(_auc_difference(read, stated, simple, labels, clusters))
    data = {
        "name": data_set.name,
        "licence": data_set.licence,
        "part": chosen.part,
        "pictures": chosen.pictures,
        "limit": chosen.limit,
        "evaluated": len(read),
        "split": chosen.source,
        "split_sha256": chosen.split.sha256 if chosen.split else None,
        "outside_labels": outside,
        "unreadable": [{"id": row.record.id, "error": row.error} for row in rows if row.error],
    }
    result = {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "bundle": {
            "name": bundle.manifest.name,
            "sha256": bundle.sha256,
            "procedural": bundle.manifest.procedural,
        },
        "data": data,
        "warnings": warnings,
        "intervals": {"level": 0.95, "resamples": RESAMPLES, "clusters": kind},
        "labels": list(labels),
        "operating_point": thresholds.see_doctor,
        "triage": dict(Counter(row.triage for row in read)),
        "methods": methods,
        "differences": differences,
        "hardware": hardware(),
        "groups": _groups(read, clusters, bundle),
    }
    return result, rows


def _rows(
    bundle: Bundle, records: Sequence[Record], baselines: bool, threads: int
) -> Iterator[Row]:
    # An analyzer serves one thread at a time; the threads share the cores, so each needs but one.
    idle: SimpleQueue[Analyzer] = SimpleQueue()
    for _ in range(threads):
        idle.put(Analyzer(bundle, threads=1))

    def examine(record: Record) -> Row:
        analyzer = idle.get()
        try:
            return _examine(record, analyzer, baselines)
        finally:
            idle.put(analyzer)

    return _in_threads(examine, records, threads, "evaluating")


def _in_threads(
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


def _examine(record: Record, analyzer: Analyzer, baselines: bool) -> Row:
    try:
        picture = read_image(record.image)
        truth = read_mask(record.mask) if record.mask else None
    except ImageError as error:
        return Row(record, error=str(error))
    analysis = analyzer.analyze(picture, name=record.id)
    counts = {}
    if truth is not None:
        counts[NETWORKS] = _count(analysis.full_mask(), truth)
        if baselines:
            counts[OTSU] = _count(otsu_mask(picture.pixels), truth)
    return Row(
        record,
        triage=analysis.triage,
        probabilities=np.array(list(analysis.probabilities.values())),
        counts=counts,
        features=colour_features(picture.pixels) if baselines else None,
    )


def _count(predicted: np.ndarray, truth: np.ndarray) -> tuple[int, int, int, int]:
    """tp, fp, fn, tn at the size of the true mask."""
    if predicted.shape != truth.shape:
        size = truth.shape[::-1]
        smooth = cv2.resize(predicted.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        predicted = smooth >= 0.5
    both = int(np.count_nonzero(predicted & truth))
    fp = int(np.count_nonzero(predicted)) - both
    fn = int(np.count_nonzero(truth)) - both
    return both, fp, fn, truth.size - both - fp - fn


def _clusters(records: Iterable[Record]) -> tuple[dict[str, int], str]:
    """Number of the cluster of each id, and what the clusters are."""
    records = list(records)
    groups = group_records(records)
    kinds = [
        name
        for name, known in (
            ("lesions", any(record.lesion_id for record in records)),
            ("patients", any(record.patient_id for record in records)),
        )
        if known
    ]
    numbers = {record.id: number for number, group in enumerate(groups) for record in group}
    return numbers, " and ".join(kinds) or "pictures"


def _segmentation(name: str, baseline: bool, rows: Sequence[Row], clusters: dict[str, int]) -> dict:
    used = [row for row in rows if name in row.counts]
    counts = metrics.Confusion(*np.array([row.counts[name] for row in used], np.int64).T)
    found = {
        measure: _interval(_weighted_mean(getattr(counts, measure)), used, clusters)
        for measure in (
            *("jaccard", "threshold_jaccard", "dice"),
            *("sensitivity", "specificity", "accuracy"),
        )
    }
    for measure in ("jaccard", "dice"):
        found[f"pooled_{measure}"] = _interval(
            lambda weights, measure=measure: float(getattr(counts.pooled(weights), measure)[0]),
            used,
            clusters,
        )
    return {
        "name": name,
        "task": "segmentation",
        "baseline": baseline,
        "count": len(used),
        "metrics": found,
    }


def _classification(
    name: str,
    baseline: bool,
    rows: Sequence[Row],
    stated: np.ndarray,
    labels: tuple[str, ...],
    clusters: dict[str, int],
    threshold: float | None,
) -> dict:
    """`stated` is float64 (rows, labels); `threshold` of the malignancy, None: none was chosen."""
    malignancy = _malignancy(stated, labels)
    known = [place for place, row in enumerate(rows) if row.record.malignant is not None]
    named = [place for place, row in enumerate(rows) if row.record.label in labels]
    found = {}
    if known:
        used = [rows[place] for place in known]
        truth = np.array([row.record.malignant for row in used])
        scores = malignancy[known]
        found["malignant_auc"] = _interval(
            lambda weights: metrics.roc_auc(scores, truth, weights), used, clusters
        )
        if threshold is not None:
            positive = scores >= threshold
            for measure, of in (("sensitivity", truth), ("specificity", ~truth)):
                right = (positive == truth)[of].astype(np.float64)
                subset = [row for row, member in zip(used, of, strict=True) if member]
                found[f"malignant_{measure}"] = _interval(_weighted_mean(right), subset, clusters)
    result = {
        "name": name,
        "task": "classification",
        "baseline": baseline,
        "count": len(known) or len(named),
        "labelled": len(named),
        "malignant": sum(bool(rows[place].record.malignant) for place in known),
        "metrics": found,
        "per_class": {},
        "confusion": [],
        "calibration": [],
    }
    if not named:
        return result
    used = [rows[place] for place in named]
    shares = stated[named]
    truth = np.array([labels.index(row.record.label) for row in used])
    top, classes = shares.argmax(axis=1), len(labels)
    found["macro_auc"] = _interval(
        lambda weights: metrics.macro_auc(shares, truth, weights), used, clusters
    )
    found["balanced_accuracy"] = _interval(
        lambda weights: metrics.balanced_accuracy(top, truth, classes, weights), used, clusters
    )
    found["ece"] = _interval(
        lambda weights: metrics.expected_calibration_error(shares, truth, weights=weights),
        used,
        clusters,
    )
    for number, label in enumerate(labels):
        if (truth == number).any():
            auc = _interval(
                lambda weights, number=number: metrics.roc_auc(
                    shares[:, number], truth == number, weights
                ),
                used,
                clusters,
            )
            result["per_class"][label] = {"auc": auc, "count": int((truth == number).sum())}
    result["confusion"] = metrics.confusion_matrix(top, truth, classes).astype(int).tolist()
    result["calibration"] = _calibration(shares.max(axis=1), top == truth)
    return result


def _malignancy(stated: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
    return stated[:, [label in MALIGNANT for label in labels]].sum(axis=1)


def _jaccard_difference(rows: Sequence[Row], clusters: dict[str, int]) -> dict:
    used = [row for row in rows if OTSU in row.counts]
    ours, simple = (
        metrics.Confusion(*np.array([row.counts[name] for row in used], np.int64).T).jaccard
        for name in (NETWORKS, OTSU)
    )
    return {
        "metric": "jaccard",
        "baseline": OTSU,
        **_difference(_weighted_mean(ours), _weighted_mean(simple), used, clusters),
    }


def _auc_difference(
    rows: Sequence[Row],
    ours: np.ndarray,
    simple: np.ndarray,
    labels: tuple[str, ...],
    clusters: dict[str, int],
) -> dict:
    """`ours` and `simple` are float64 (rows, labels)."""
    known = [place for place, row in enumerate(rows) if row.record.malignant is not None]
    truth = np.array([rows[place].record.malignant for place in known])
    first, second = (_malignancy(stated, labels)[known] for stated in (ours, simple))
    difference = _difference(
        lambda weights: metrics.roc_auc(first, truth, weights),
        lambda weights: metrics.roc_auc(second, truth, weights),
        [rows[place] for place in known],
        clusters,
    )
    return {"metric": "malignant_auc", "baseline": COLOUR, **difference}


def _calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> list[dict]:
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        {
            "count": int((index == number).sum()),
            "confidence": round(float(confidence[index == number].mean()), 6),
            "accuracy": round(float(right[index == number].mean()), 6),
        }
        for number in np.unique(index)
    ]


def _groups(rows: Sequence[Row], clusters: dict[str, int], bundle: Bundle) -> list[dict]:
    """Figures for each skin type group; none where no picture states its skin type."""
    if all(row.record.skin_type is None for row in rows):
        return []
    labels = bundle.manifest.labels
    groups = []
    for name, types in SKIN_TYPES.items():
        members = [row for row in rows if row.record.skin_type in types]
        if not members:
            continue
        drawn = [row for row in members if NETWORKS in row.counts]
        stated = np.array([row.probabilities for row in members])
        malignancy = _malignancy(stated, labels)
        known = [place for place, row in enumerate(members) if row.record.malignant is not None]
        truth = np.array([members[place].record.malignant for place in known], bool)
        jaccard = auc = None
        if drawn:
            counts = metrics.Confusion(*np.array([row.counts[NETWORKS] for row in drawn]).T)
            jaccard = _interval(_weighted_mean(counts.jaccard), drawn, clusters)
        if truth.any() and not truth.all():
            scores = malignancy[known]
            auc = _interval(
                lambda weights, scores=scores, truth=truth: metrics.roc_auc(scores, truth, weights),
                [members[place] for place in known],
                clusters,
            )
        groups.append(
            {
                "skin_type": name,
                "pictures": len(members),
                "malignant": int(truth.sum()),
                "jaccard": jaccard,
                "malignant_auc": auc,
            }
        )
    return groups


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

    found = list(_in_threads(features, known, threads, "colour baseline"))
    pairs = [
        (feature, record.label)
        for feature, record in zip(found, known, strict=True)
        if feature is not None
    ]
    if len({label for _, label in pairs}) < 2:
        raise ValueError("the train part holds fewer than two of the bundle's classes")
    values, names = zip(*pairs, strict=True)
    return ColourClassifier(values, names), len(pairs)


def _weighted_mean(values: np.ndarray) -> Callable[[np.ndarray], float]:
    def mean(weights: np.ndarray) -> float:
        total = weights.sum()
        return float(weights @ values / total) if total > 0 else float("nan")

    return mean


def _interval(
    statistic: Callable[[np.ndarray], float], rows: Sequence[Row], clusters: dict[str, int]
) -> dict:
    """{'value', 'low', 'high'}; None stands for what cannot be computed (JSON has no nan)."""
    groups = np.array([clusters[row.record.id] for row in rows], int)
    return _rounded(metrics.bootstrap(statistic, len(rows), groups, RESAMPLES, SEED))


def _difference(
    ours: Callable[[np.ndarray], float],
    simple: Callable[[np.ndarray], float],
    rows: Sequence[Row],
    clusters: dict[str, int],
) -> dict:
    """As `_interval`, of ours - simple; both see the same resamples."""
    groups = np.array([clusters[row.record.id] for row in rows], int)
    found = metrics.bootstrap_difference(ours, simple, len(rows), groups, RESAMPLES, SEED)
    return _rounded(found)


def _rounded(found: metrics.Interval) -> dict:
    return {
        name: None if np.isnan(value) else round(value, 6)
        for name, value in (("value", found.value), ("low", found.low), ("high", found.high))
    }


def to_csv(rows: Sequence[Row], labels: tuple[str, ...]) -> str:
    """One line a picture: what is true, what was found, or why it could not be read."""
    names = ["id", "label", "malignant", "malignancy", "triage", *(f"p_{name}" for name in labels)]
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer, [*names, "jaccard", "dice", "otsu_jaccard", "error"], lineterminator="\n"
    )
    writer.writeheader()
    for row in rows:
        line = {"id": row.record.id, "label": row.record.label, "malignant": row.record.malignant}
        line |= {"triage": row.triage, "error": row.error}
        if row.probabilities is not None:
            stated = dict(zip(labels, row.probabilities.tolist(), strict=True))
            line |= {f"p_{name}": f"{value:.6f}" for name, value in stated.items()}
            risk = sum(value for name, value in stated.items() if name in MALIGNANT)
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
        f"95 % intervals: bootstrap over {how['clusters']}, {how['resamples']} resamples",
    ]
    for method in result["methods"]:
        lines += ["", f"{method['task']}: {method['name']} ({method['count']} pictures)"]
        if "trained_on" in method:
            lines.append(f"  fitted on {method['trained_on']} pictures of the train part")
        if method["name"] == OTSU:
            lines.append(f"  {OTSU_METHOD}")
        lines += [f"  {name:<24}{_shown(value)}" for name, value in method["metrics"].items()]
        for label, entry in method.get("per_class", {}).items():
            lines.append(f"  {'auc ' + label:<24}{_shown(entry['auc'])}  n={entry['count']}")
        if method.get("confusion"):
            lines.append("  confusion, rows true: " + " ".join(result["labels"]))
            for label, counts in zip(result["labels"], method["confusion"], strict=True):
                lines.append(f"    {label:<8}" + "".join(f"{count:>6}" for count in counts))
    if result["differences"]:
        lines += ["", "difference to the baseline (95 % interval)"]
    for entry in result["differences"]:
        lines.append(f"  {entry['metric']:<24}{_shown(entry, '+')}  networks - {entry['baseline']}")
    if result["groups"]:
        lines += ["", "by skin type (Fitzpatrick), networks of the bundle"]
    for group in result["groups"]:
        lines.append(
            f"  {group['skin_type']:<12}{group['pictures']:>5} pictures, {group['malignant']} "
            f"malignant; jaccard {_shown(group['jaccard'])}; "
            f"malignant_auc {_shown(group['malignant_auc'])}"
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


def _shown(metric: dict | None, sign: str = "-") -> str:
    if metric is None or metric["value"] is None:
        return "-"
    value, low, high = (metric[key] for key in ("value", "low", "high"))
    if low is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
