"""Accuracy of every precision and runtime that a bundle has here, against the first of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import numpy as np

from benchmarks import figures
from benchmarks.accuracy import Chosen, examine, in_threads
from benchmarks.figures import NETWORKS, TITLES, Row
from benchmarks.networks import Networks
from dermedge import UserError, metrics
from dermedge.bundle import PRECISIONS, ROLES, Bundle
from dermedge.datasets import Record
from dermedge.runtime import ENGINES, Road, SessionError, target
from dermedge.tune import providers

MEASURES = ("jaccard", "malignant_auc", "likely_balanced_accuracy")
COLUMNS = (
    *("road", "segmenter", "classifier", "measure", "value", "low", "high"),
    *("difference", "difference_low", "difference_high", "reason"),
)
_NOTHING = {"value": None, "low": None, "high": None}


def ways(bundle: Bundle) -> dict[str, dict[str, Road]]:
    """Name to the road of each role: every precision in every runtime that takes it here.

    A role that has not the precision keeps its first one. The first way is the bundle's own.
    """
    models = bundle.manifest.models
    if set(models) != set(ROLES):
        raise UserError(
            f"--roads needs a bundle of both roles, {bundle.path} has {', '.join(models)}"
        )
    first = {role: Road(model.precision, "cpu", 1) for role, model in models.items()}
    found = {_name(first): first}
    for provider in providers():
        if provider in ENGINES:  # built by `dermedge engine build` for a GPU
            continue
        for precision in PRECISIONS:
            own = {
                role: Road(precision, provider, 1)
                if model.variant(precision, target(provider))
                else Road(model.precision, provider, 1)
                for role, model in models.items()
            }
            if any(road.precision == precision for road in own.values()):
                found.setdefault(_name(own), own)
    return found


def _name(roads: dict[str, Road]) -> str:
    told = list(dict.fromkeys(road.precision for road in roads.values()))
    return f"{'+'.join(sorted(told))} {next(iter(roads.values())).provider}"


def measure(bundle: Bundle, chosen: Chosen, threads: int) -> list[dict]:
    """Figures of every way on the same pictures.

    Returns
    -------
    One dict a way: 'road', 'roles' (role to road, in words), 'reason' why it could not be measured
    or None, 'figures' (name to figure and interval), 'differences' to the first way (paired
    bootstrap) and 'same_advice', the share of pictures that get the first way's triage.
    """
    numbers, _ = figures.clusters(chosen.records)
    results, first = [], None
    for name, roads in ways(bundle).items():
        told = {role: str(road) for role, road in roads.items()}
        entry = {"road": name, "roles": told, "reason": None, "figures": {}, "differences": {}}
        results.append(entry | {"same_advice": _NOTHING})
        try:
            rows = _rows(bundle, roads, chosen.records, numbers, threads, name)
        except SessionError as error:
            if first is None:
                raise
            results[-1]["reason"] = str(error)
            continue
        first = first or rows
        _compare(results[-1], first, rows, bundle.manifest.labels)
    return results


def _rows(bundle, roads, records: Sequence[Record], numbers, threads: int, title: str) -> list[Row]:
    idle: SimpleQueue[Networks] = SimpleQueue()
    for _ in range(threads):
        idle.put(Networks(bundle, threads=1, views=1, roads=roads))

    def one(record: Record) -> Row:
        networks = idle.get()
        try:
            return examine(record, numbers.get(record.id, 0), networks, (), False)
        finally:
            idle.put(networks)

    return list(in_threads(one, records, threads, title))


def _compare(entry: dict, first: Sequence[Row], rows: Sequence[Row], labels) -> None:
    # What cannot be read cannot be read by any way.
    pairs = [(a, b) for a, b in zip(first, rows, strict=True) if a.error is None]
    for name in MEASURES:
        used = [(a, b) for a, b in pairs if _known(name, a, labels)]
        if not used:
            continue
        before, after = zip(*used, strict=True)
        old, new = (_statistic(name, side, labels) for side in (before, after))
        entry["figures"][name] = figures.interval(new, after)
        entry["differences"][name] = figures.difference(new, old, after)
    same = np.array([float(a.triage == b.triage) for a, b in pairs])
    entry["same_advice"] = figures.interval(figures.weighted_mean(same), [b for _, b in pairs])


def _known(name: str, row: Row, labels) -> bool:
    if name == "jaccard":
        return NETWORKS in row.counts
    return row.record.malignant is not None if "auc" in name else row.record.label in labels


def _statistic(name: str, rows: Sequence[Row], labels) -> Callable[[np.ndarray], float]:
    if name == "jaccard":
        counts = metrics.Confusion(*np.array([row.counts[NETWORKS] for row in rows]).T)
        return figures.weighted_mean(counts.jaccard)
    if name == "malignant_auc":
        risk = figures.malignancy(np.array([row.probabilities for row in rows]), labels)
        truth = np.array([row.record.malignant for row in rows])
        return lambda weights: metrics.roc_auc(risk, truth, weights)
    number = {label: k for k, label in enumerate(labels)}
    named = np.array([number[row.likely] for row in rows])
    truth = np.array([number[row.record.label] for row in rows])
    return lambda weights: metrics.balanced_accuracy(named, truth, len(labels), weights)


def to_csv(results: Sequence[dict]) -> str:
    """One line a way and measure."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for entry in results:
        head = {"road": entry["road"], "reason": entry["reason"], **entry["roles"]}
        told = {**entry["figures"], "same_advice": entry["same_advice"]}
        for name, figure in told.items():
            apart = entry["differences"].get(name, _NOTHING)
            line = {"measure": name, **figure, "difference": apart["value"]}
            line |= {f"difference_{side}": apart[side] for side in ("low", "high")}
            writer.writerow(head | line)
    return text.getvalue()


def table(results: Sequence[dict]) -> str:
    """The same for people."""
    lines = ["precisions and runtimes; differences to the first, 95 % intervals"]
    for entry in results:
        lines.append(f"  {entry['road']}" + (f": {entry['reason']}" if entry["reason"] else ""))
        for name, figure in entry["figures"].items():
            apart = entry["differences"][name]
            lines.append(
                f"    {TITLES[name]:<40}{figure['value']:.4f}, {apart['value']:+.4f} "
                f"({apart['low']:+.4f} to {apart['high']:+.4f})"
            )
        if entry["same_advice"]["value"] is not None:
            lines.append(f"    {'same advice':<40}{entry['same_advice']['value']:.4f}")
    return "\n".join(lines)
