"""Every precision and runtime that a bundle has here: accuracy and time against the first."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import numpy as np

from benchmarks.accuracy import figures
from benchmarks.accuracy.chosen import Chosen
from benchmarks.accuracy.evaluate import examine, in_threads
from benchmarks.accuracy.figures import NETWORKS, TITLES, Row
from benchmarks.accuracy.networks import Networks
from benchmarks.speed.bench import ROADS, Plan, in_turns
from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import PRECISIONS, ROLES, Bundle
from dermedge.data import Record
from dermedge.evaluation import metrics
from dermedge.evaluation.paired_timing import ratio
from dermedge.runtime import ENGINES, ExecutionConfig, SessionError, host, target
from dermedge.tune import providers

WHOLE, FP32 = "all", "fp32"
MEASURES = {
    **{name: TITLES[name] for name in ("jaccard", "malignant_auc", "likely_balanced_accuracy")},
    "auc": "AUC, this class against the rest",
    "sensitivity": "Share of this class that is named so",
    "same_advice": "Share that gets the same advice as by the first",
}
COLUMNS = (
    *("road", "segmenter", "classifier", "group", "measure", "pictures", "value", "low", "high"),
    *("difference", "difference_low", "difference_high", "reason"),
)


def ways(bundle: Bundle) -> dict[str, dict[str, ExecutionConfig]]:
    """Name to the road of each role: every precision in every runtime that takes it here.

    A role that has not the precision keeps its first one. The first way is FP32 on the processor,
    as far as the bundle carries it.
    """
    models = bundle.manifest.models
    if set(models) != set(ROLES):
        raise UserError(
            f"--roads needs a bundle of both roles, {bundle.path} has {', '.join(models)}"
        )
    own = {role: model.precision for role, model in models.items()}
    exact = {role: FP32 if m.variant(FP32, host()) else own[role] for role, m in models.items()}
    found: dict[str, dict[str, ExecutionConfig]] = {}
    for precisions in (exact, own):
        roads = {
            role: ExecutionConfig(precision, "cpu", 1) for role, precision in precisions.items()
        }
        found.setdefault(_name(roads), roads)
    for provider in providers():
        if provider in ENGINES:  # built by `dermedge engine build` for a GPU
            continue
        for precision in PRECISIONS:
            roads = {
                role: ExecutionConfig(precision, provider, 1)
                if model.variant(precision, target(provider))
                else ExecutionConfig(model.precision, provider, 1)
                for role, model in models.items()
            }
            if any(road.precision == precision for road in roads.values()):
                found.setdefault(_name(roads), roads)
    return found


def _name(roads: dict[str, ExecutionConfig]) -> str:
    told = list(dict.fromkeys(road.precision for road in roads.values()))
    return f"{'+'.join(sorted(told))} {next(iter(roads.values())).provider}"


def measure(
    bundle: Bundle, chosen: Chosen | None, threads: int, fields: Sequence[str] = ()
) -> list[dict]:
    """Figures of every way on the same pictures; None: of none. The classifier is told `fields`.

    Returns
    -------
    One dict a way: 'road', 'roles' (role to road, in words), 'reason' why it could not be measured
    or None, and 'figures', a list of 'group' (all, class LABEL or skin TYPES), 'measure' of
    `MEASURES`, 'pictures', 'value', 'low' and 'high', and the 'difference', 'difference_low' and
    'difference_high' to the first way by paired bootstrap (None where it has none).
    """
    numbers, _ = figures.clusters(chosen.records, chosen.same) if chosen else ({}, "")
    results, first = [], None
    for name, roads in ways(bundle).items():
        told = {role: str(road) for role, road in roads.items()}
        results.append({"road": name, "roles": told, "reason": None, "figures": []})
        if chosen is None:
            continue
        try:
            rows = _rows(bundle, roads, chosen.records, numbers, threads, fields, name)
        except SessionError as error:
            if first is None:
                raise
            results[-1]["reason"] = str(error)
            continue
        first = first or rows
        results[-1]["figures"] = _figures(first, rows, bundle.manifest.labels)
    return results


def part(
    chosen: Chosen | None, threads: int, fields: Sequence[str], plan: Plan, result: dict
) -> None:
    """For a benchmark: what `measure` gives, and the time of each way, all in turns."""
    entries, analyzers = measure(plan.bundle, chosen, threads, fields), {}
    for entry, roads in zip(entries, ways(plan.bundle).values(), strict=True):
        if entry["reason"] is None:
            try:
                analyzers[entry["road"]] = Analyzer(plan.bundle, executions=roads)
            except SessionError as error:
                entry["reason"] = str(error)
    taken, others = in_turns(analyzers, plan, ROADS)
    first = next(iter(taken.values()))
    for entry in entries:
        times = taken.get(entry["road"])
        found = None if times is None else ratio(first, times)
        entry |= {
            "turns": 0 if found is None else len(times),
            "p50_ms": found and found["ms"],
            "p90_ms": found and round(float(np.percentile(times, 90)), 4),
            "others_percent": others,
            "times_as_fast": found and {k: found[k] for k in ("ratio", "low", "high")},
        }
    result["roads"] = entries


def _rows(
    bundle, roads, records: Sequence[Record], numbers, threads: int, fields, title: str
) -> list[Row]:
    idle: SimpleQueue[Networks] = SimpleQueue()
    for _ in range(threads):
        idle.put(Networks(bundle, threads=1, views=1, roads=roads))

    def one(record: Record) -> Row:
        networks = idle.get()
        try:
            return examine(record, numbers.get(record.id, 0), networks, fields, False)
        finally:
            idle.put(networks)

    return list(in_threads(one, records, threads, title))


def _figures(first: Sequence[Row], rows: Sequence[Row], labels: Sequence[str]) -> list[dict]:
    # What cannot be read cannot be read by any way.
    pairs = [(a, b) for a, b in zip(first, rows, strict=True) if a.error is None]
    found = []

    def add(group: str, name: str, used: Sequence[tuple[Row, Row]], label: str = "") -> None:
        if not used:
            return
        before, after = zip(*used, strict=True)
        old, new = (_statistic(name, side, labels, label) for side in (before, after))
        apart = figures.difference(new, old, after)
        entry = {"group": group, "measure": name, "pictures": len(used)}
        entry |= figures.interval(new, after) | {"difference": apart["value"]}
        found.append(entry | {f"difference_{side}": apart[side] for side in ("low", "high")})

    for name in ("jaccard", "malignant_auc", "likely_balanced_accuracy"):
        add(WHOLE, name, [pair for pair in pairs if _known(name, pair[0], labels)])
    same = np.array([float(a.triage == b.triage) for a, b in pairs])
    agreed = figures.interval(figures.weighted_mean(same), [b for _, b in pairs])
    entry = {"group": WHOLE, "measure": "same_advice", "pictures": len(pairs)} | agreed
    found.append(entry | dict.fromkeys(("difference", "difference_low", "difference_high")))
    named = [pair for pair in pairs if pair[0].record.label in labels]
    for label in labels:
        own = [pair for pair in named if pair[0].record.label == label]
        if own:
            add(f"class {label}", "auc", named, label)
            add(f"class {label}", "sensitivity", own, label)
    told = any(a.record.skin_type is not None for a, _ in pairs)
    for title, types in figures.SKIN_TYPES.items() if told else ():
        own = [pair for pair in pairs if pair[0].record.skin_type in types]
        for name in ("jaccard", "malignant_auc"):
            add(f"skin {title}", name, [pair for pair in own if _known(name, pair[0], labels)])
    return found


def _known(name: str, row: Row, labels: Sequence[str]) -> bool:
    if name == "jaccard":
        return NETWORKS in row.counts
    return row.record.malignant is not None if "auc" in name else row.record.label in labels


def _statistic(
    name: str, rows: Sequence[Row], labels: Sequence[str], label: str
) -> Callable[[np.ndarray], float]:
    if name == "jaccard":
        counts = metrics.Confusion(*np.array([row.counts[NETWORKS] for row in rows]).T)
        return figures.weighted_mean(counts.jaccard)
    if name == "sensitivity":
        return figures.weighted_mean(np.array([float(row.likely == label) for row in rows]))
    stated = np.array([row.probabilities for row in rows])
    if name == "auc":
        scores = stated[:, labels.index(label)]
        own = np.array([row.record.label == label for row in rows])
        return lambda weights: metrics.roc_auc(scores, own, weights)
    if name == "malignant_auc":
        risk = figures.malignancy(stated, labels)
        malignant = np.array([row.record.malignant for row in rows])
        return lambda weights: metrics.roc_auc(risk, malignant, weights)
    number = {label: k for k, label in enumerate(labels)}
    likely = np.array([number[row.likely] for row in rows])
    truth = np.array([number[row.record.label] for row in rows])
    return lambda weights: metrics.balanced_accuracy(likely, truth, len(labels), weights)


def to_csv(results: Sequence[dict]) -> str:
    """One line a way, group and measure; one with its reason where it could not be measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for entry in results:
        head = {"road": entry["road"], "reason": entry["reason"], **entry["roles"]}
        writer.writerows(head | figure for figure in entry["figures"] or [{}])
    return text.getvalue()


def table(results: Sequence[dict]) -> str:
    """The same for people."""
    lines = ["precisions and runtimes; differences to the first, 95 % intervals"]
    for entry in results:
        fast = entry.get("times_as_fast")
        lines.append(
            f"  {entry['road']}"
            + (f": {entry['reason']}" if entry["reason"] else "")
            + (
                f": {entry['p50_ms']:.2f} ms, {fast['ratio']:.2f} times as fast as the first "
                f"({fast['low']:.2f} to {fast['high']:.2f})"
                if fast
                else ""
            )
        )
        for figure in entry["figures"]:
            value, apart = figure["value"], figure["difference"]
            sides = figure["difference_low"], figure["difference_high"]
            lines.append(
                f"    {figure['group']:<17}{MEASURES[figure['measure']]:<50}"
                + ("-" if value is None else f"{value:.4f}")
                + (f", {apart:+.4f}" if apart is not None else "")
                + (" ({:+.4f} to {:+.4f})".format(*sides) if None not in sides else "")
            )
    return "\n".join(lines)
