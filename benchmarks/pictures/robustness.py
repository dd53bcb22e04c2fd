"""How accuracy falls as pictures get worse, and how well pictures of one lesion agree.

Each picture is read once and changed in graded ways (the corruptions of Hendrycks & Dietterich
2019 that a camera in a ward brings about); what the bundle says of it is compared with the truth
and with what it said of the unchanged picture.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from queue import SimpleQueue

import numpy as np

from benchmarks.accuracy.chosen import Chosen
from benchmarks.accuracy.evaluate import count_pixels, in_threads
from benchmarks.accuracy.figures import LEVEL, SEED, clusters, malignancy, shown
from benchmarks.accuracy.networks import Networks
from benchmarks.pictures.changes import CHANGES, applied
from benchmarks.report.plots import png, worse
from benchmarks.speed.latency import hardware
from dermedge import DISCLAIMER, UserError, __version__
from dermedge.bundle.bundle import Bundle
from dermedge.data import DataSet, Record
from dermedge.data.masks import read_lesion_mask
from dermedge.evaluation import metrics
from dermedge.image.read import ImageError, read_image

SCHEMA = "dermedge robustness 1"
RESAMPLES = 1000
NONE = "none"


@dataclass(frozen=True)
class _Said:
    jaccard: float  # nan without a true outline
    risk: float  # of malignancy; nan without a classifier
    triage: str | None


def robustness(
    bundle: Bundle,
    data_set: DataSet,
    chosen: Chosen,
    names: Sequence[str],
    threads: int,
    command: str,
) -> dict:
    """Accuracy at every level of the named `CHANGES`, and the agreement of repeated captures.

    Returns
    -------
    The object of robustness.json: 'curves' holds for each change its levels, the first of them
    'none'; a figure is {value, low, high} with the 95 % interval of the bootstrap over lesions or
    patients, a `_difference` is to the unchanged picture (paired). Figures that the bundle or the
    data set has no ground for are left out.

    Raises
    ------
    UserError : an unknown change, or no picture that can be read.
    """
    if unknown := [name for name in names if name not in CHANGES]:
        raise UserError(f"no change {unknown[0]!r}; there are: {', '.join(CHANGES)}")
    steps = [(NONE, 0.0)] + [(name, level) for name in names for level in CHANGES[name].levels]
    labels = bundle.manifest.labels
    # An analyzer serves one thread at a time; the threads share the cores, so each needs but one.
    idle: SimpleQueue[Networks] = SimpleQueue()
    for _ in range(threads):
        idle.put(Networks(bundle, threads=1, views=1))

    def examine(record: Record) -> list[_Said] | str:
        try:
            picture = read_image(record.image)
            truth = None
            if record.mask:
                truth = read_lesion_mask(record.mask, picture.height, picture.width)
        except ImageError as error:
            return str(error)
        networks = idle.get()
        try:
            return [_say(networks, picture, truth, record, labels, *step) for step in steps]
        finally:
            idle.put(networks)

    found = list(in_threads(examine, chosen.records, threads, "robustness"))
    pairs = [(r, f) for r, f in zip(chosen.records, found, strict=True) if not isinstance(f, str)]
    unreadable = [
        {"id": r.id, "error": f}
        for r, f in zip(chosen.records, found, strict=True)
        if isinstance(f, str)
    ]
    if not pairs:
        raise UserError(f"none of the pictures could be read ({unreadable[0]['error']})")
    records = [record for record, _ in pairs]
    said = dict(zip(steps, zip(*(row for _, row in pairs), strict=True), strict=True))
    numbers, kind = clusters(chosen.records, chosen.same)
    groups = np.array([numbers[record.id] for record in records])
    plain = said[steps[0]]
    curves = {}
    for name in names:
        levels = [steps[0], *((name, level) for level in CHANGES[name].levels)]
        curves[name] = {
            "title": CHANGES[name].title,
            "levels": [
                {
                    "level": NONE if step == steps[0] else step[1],
                    **_figures(records, said[step], None if step == steps[0] else plain, groups),
                }
                for step in levels
            ],
        }
    return {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "data": {
            "name": data_set.name,
            "part": chosen.part,
            "split": chosen.source,
            "split_sha256": chosen.split.sha256 if chosen.split else None,
            "limit": chosen.limit,
            "pictures": len(records),
            "unreadable": unreadable,
        },
        "intervals": {"clusters": kind, "resamples": RESAMPLES, "level": LEVEL, "seed": SEED},
        "curves": curves,
        "repeats": _repeats(records, plain, groups),
        "warnings": list(chosen.warnings),
        "dermedge": __version__,
        "hardware": hardware(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
    }


def _say(networks, picture, truth, record, labels, name, level) -> _Said:
    if name != NONE:
        picture, truth = applied(name, CHANGES[name], level, picture, truth, record.id)
    found = networks.examine(picture, {})
    jaccard = risk = float("nan")
    if truth is not None and truth.any() and found.mask is not None:
        counts = np.array(count_pixels(found.mask, truth))[:, None]
        jaccard = float(metrics.Confusion(*counts).jaccard[0])
    if found.probabilities is not None:
        risk = float(malignancy(found.probabilities[None], labels)[0])
    return _Said(jaccard, risk, found.triage)


def _figures(
    records: Sequence[Record],
    said: Sequence[_Said],
    plain: Sequence[_Said] | None,
    groups: np.ndarray,
) -> dict:
    """Figures of one level; differences to `plain` where that is given."""
    figures = {}

    def add(name: str, statistic: Callable[[np.ndarray], float], used: np.ndarray) -> None:
        interval = metrics.bootstrap(
            statistic, int(used.sum()), groups[used], RESAMPLES, SEED, LEVEL
        )
        values = (interval.value, interval.low, interval.high)
        figures[name] = {
            key: None if np.isnan(value) else round(float(value), 6)
            for key, value in zip(("value", "low", "high"), values, strict=True)
        }

    def mean(values: np.ndarray) -> Callable[[np.ndarray], float]:
        return lambda weights: float(np.average(values, weights=weights))

    both = [said] if plain is None else [said, plain]
    jaccard = np.array([[one.jaccard for one in row] for row in both])
    outlined = ~np.isnan(jaccard).any(axis=0)
    if outlined.any():
        add("jaccard", mean(jaccard[0, outlined]), outlined)
        if plain is not None:
            add("jaccard_difference", mean(jaccard[0, outlined] - jaccard[1, outlined]), outlined)
    risk = np.array([[one.risk for one in row] for row in both])
    known = np.array([record.malignant is not None for record in records])
    known &= ~np.isnan(risk).any(axis=0)
    truth = np.array([bool(record.malignant) for record in records])[known]
    if truth.any() and not truth.all():
        add("malignant_auc", lambda w: metrics.roc_auc(risk[0, known], truth, w), known)
        if plain is not None:
            add(
                "malignant_auc_difference",
                lambda w: (
                    metrics.roc_auc(risk[0, known], truth, w)
                    - metrics.roc_auc(risk[1, known], truth, w)
                ),
                known,
            )
    if said[0].triage is not None:
        everything = np.ones(len(records), bool)
        retake = np.array([one.triage == "retake" for one in said], float)
        add("retake", mean(retake), everything)
        if plain is not None:
            same = [one.triage == before.triage for one, before in zip(said, plain, strict=True)]
            add("same_advice", mean(np.array(same, float)), everything)
    return figures


def _repeats(records: Sequence[Record], said: Sequence[_Said], groups: np.ndarray) -> dict | None:
    """Agreement of the pictures of one lesion, and what their mean is worth.

    `groups`, int (pictures,), is the lesion or patient of each picture: lesions of one patient are
    drawn together.

    Returns
    -------
    None where no lesion has two pictures with an estimate. 'single_auc' is over the pictures, each
    of n of a lesion with the weight 1 / n, 'together_auc' of the means over the lesions; where
    those are not all malignant or all benign.
    """
    lesions, cluster_of = defaultdict(list), {}
    for record, one, cluster in zip(records, said, groups, strict=True):
        if record.lesion_id and one.triage not in (None, "retake"):
            lesions[record.lesion_id].append((one, record.malignant))
            cluster_of[record.lesion_id] = cluster
    several = {name: pictures for name, pictures in lesions.items() if len(pictures) > 1}
    if not several:
        return None
    known = {name: group for name, group in several.items() if group[0][1] is not None}
    result: dict = {"lesions": len(several), "pictures": sum(map(len, several.values()))}

    def add(name: str, statistic: Callable[[np.ndarray], float], used: Iterable[str]) -> None:
        drawn = np.array([cluster_of[lesion] for lesion in used])
        interval = metrics.bootstrap(statistic, len(drawn), drawn, RESAMPLES, SEED, LEVEL)
        values = (interval.value, interval.low, interval.high)
        result[name] = {
            key: None if np.isnan(value) else round(float(value), 6)
            for key, value in zip(("value", "low", "high"), values, strict=True)
        }

    def mean(values: Sequence[float]) -> Callable[[np.ndarray], float]:
        return lambda weights: float(np.average(np.array(values, float), weights=weights))

    same = [len({one.triage for one, _ in group}) == 1 for group in several.values()]
    spread = [np.ptp([one.risk for one, _ in group]) for group in several.values()]
    add("same_advice", mean(same), several)
    add("risk_range", mean(spread), several)
    truth = np.array([bool(group[0][1]) for group in known.values()])
    if truth.any() and not truth.all():
        risks = [np.array([one.risk for one, _ in group]) for group in known.values()]
        counts = np.array([len(group) for group in risks])
        means, pictures = np.array([group.mean() for group in risks]), np.concatenate(risks)

        def single(weights: np.ndarray) -> float:
            return metrics.roc_auc(
                pictures, np.repeat(truth, counts), np.repeat(weights / counts, counts)
            )

        def together(weights: np.ndarray) -> float:
            return metrics.roc_auc(means, truth, weights)

        result["known"], result["malignant"] = len(known), int(truth.sum())
        add("single_auc", single, known)
        add("together_auc", together, known)
        add("auc_difference", lambda w: together(w) - single(w), known)
    return result


def to_csv(result: dict) -> str:
    """One line a figure: change, level, measure, value, low, high."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["change", "level", "measure", "value", "low", "high"])
    for name, curve in result["curves"].items():
        for entry in curve["levels"]:
            for measure, figure in entry.items():
                if measure != "level":
                    writer.writerow([name, entry["level"], measure, *figure.values()])
    return buffer.getvalue()


def plot(result: dict) -> bytes:
    """The curves as a picture (PNG), a panel a change; bars are 95 % intervals."""
    figure = worse(result)
    data = result["data"]
    title = (
        f"{result['bundle']['name']} on {data['name']}, part {data['part']}, "
        f"{data['pictures']} pictures; 95 % intervals"
    )
    return png(figure, title, dpi=120)


def table(result: dict) -> str:
    """The result for people, as plain text."""
    data = result["data"]
    lines = [
        f"{result['bundle']['name']} on {data['name']}, part {data['part']}: "
        f"{data['pictures']} pictures; 95 % intervals over {result['intervals']['clusters']}"
    ]
    for curve in result["curves"].values():
        lines += ["", curve["title"]]
        for entry in curve["levels"]:
            told = [
                f"{measure.replace('_', ' ')} {shown(entry[measure])}"
                for measure in ("jaccard", "malignant_auc", "retake", "same_advice")
                if measure in entry
            ]
            lines.append(f"  {entry['level']!s:>6}  " + "; ".join(told))
    if repeats := result["repeats"]:
        lines += [
            "",
            f"{repeats['lesions']} lesions with several pictures ({repeats['pictures']}): the same "
            f"advice for all of a lesion's {shown(repeats['same_advice'])}, range of its risk "
            f"{shown(repeats['risk_range'])}",
        ]
        if "single_auc" in repeats:
            lines.append(
                f"of {repeats['known']} of them it is known whether they are malignant: AUC of "
                f"single pictures {shown(repeats['single_auc'])}, of the mean of a lesion's "
                f"{shown(repeats['together_auc'])}, difference "
                f"{shown(repeats['auc_difference'])}"
            )
    lines += [f"not read: {entry['id']}: {entry['error']}" for entry in data["unreadable"]]
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    return "\n".join(lines)
