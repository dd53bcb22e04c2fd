"""Every execution (precision and runtime) of a bundle here: accuracy and time against the first."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from benchmarks.accuracy import figures
from benchmarks.accuracy.evaluate import examine
from benchmarks.accuracy.figures import Row
from benchmarks.accuracy.intervals import Share, Statistic, clusters, weighted_mean
from benchmarks.accuracy.networks import Networks
from benchmarks.accuracy.pool import NetworkPool
from benchmarks.accuracy.selection import Selection
from benchmarks.latency.in_turns import in_turns
from benchmarks.latency.plan import Plan
from benchmarks.schema.bench_result import EXECUTIONS
from benchmarks.schema.names import NETWORKS, WHOLE
from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import PRECISIONS, ROLES
from dermedge.data import Record
from dermedge.data.groups import SCALES, members
from dermedge.evaluation import metrics
from dermedge.evaluation.paired_timing import ratio
from dermedge.runtime import ENGINES, ExecutionConfig, SessionError, host, target
from dermedge.runtime.installed import providers

FP32 = "fp32"
COLUMNS = (
    *("bundle", "sha256"),
    *("execution", "segmenter", "classifier", "group", "measure", "pictures"),
    *("value", "low", "high", "difference", "difference_low", "difference_high", "reason"),
)
Execution = dict[str, ExecutionConfig]  # role to how its network is run


def executions(bundle: Bundle) -> dict[str, Execution]:
    """Name to how each role is run: every precision in every runtime that takes it here.

    A role that has not the precision keeps its first one, in this runtime if that takes it. The
    first is FP32 on the processor, as far as the bundle carries it.
    """
    models = bundle.manifest.models
    if set(models) != set(ROLES):
        raise UserError(
            f"--executions needs a bundle of both roles, {bundle.path} has {', '.join(models)}"
        )
    own = {role: model.precision for role, model in models.items()}
    exact = {role: FP32 if m.variant(FP32, host()) else own[role] for role, m in models.items()}
    named: dict[str, Execution] = {}
    for precisions in (exact, own):
        execution = {
            role: ExecutionConfig(precision, "cpu", 1) for role, precision in precisions.items()
        }
        named.setdefault(_name(execution), execution)
    for provider in providers():
        if provider in ENGINES:  # built by `dermedge engine build` for a GPU
            continue
        for precision in PRECISIONS:
            execution = {}
            for role, model in models.items():
                tried = (precision, provider), (model.precision, provider)
                runs = (pair for pair in tried if model.variant(pair[0], target(provider)))
                # A slice for another machine: the processor computes its graph.
                chosen = next(runs, (model.precision, "cpu"))
                execution[role] = ExecutionConfig(*chosen, 1)
            if ExecutionConfig(precision, provider, 1) in execution.values():
                named.setdefault(_name(execution), execution)
    return named


def _name(execution: Execution) -> str:
    precisions = {config.precision for config in execution.values()}
    runtimes = {config.provider for config in execution.values()}
    return f"{'+'.join(sorted(precisions))} {'+'.join(sorted(runtimes))}"


def measure(
    bundle: Bundle, selection: Selection | None, threads: int, fields: Sequence[str] = ()
) -> tuple[list[dict], list[dict]]:
    """Figures of every execution on the same pictures; None: of none.

    fields : of metadata that the classifier gets, where the record has them.

    Returns
    -------
    One dict an execution: 'execution' (its name), 'roles' (role to how it is run, in words),
    'reason' why it could not be measured or None, and 'figures', a list of 'group' (all, class
    LABEL or skin TYPES), 'measure' of `EXECUTION_MEASURES`, 'pictures', 'value', 'low' and 'high',
    and the 'difference', 'difference_low' and 'difference_high' to the first execution by paired
    bootstrap (None where it has none).

    And 'id' and 'error' of each picture that could not be read.
    """
    numbers = clusters(selection.records, selection.same)[0] if selection else {}

    def work(networks: Networks, record: Record) -> Row:
        return examine(record, numbers[record.id], networks, fields, False)

    results: list[dict] = []
    first: list[Row] | None = None
    for name, execution in executions(bundle).items():
        roles = {role: str(config) for role, config in execution.items()}
        results.append({"execution": name, "roles": roles, "reason": None, "figures": []})
        if selection is None:
            continue
        try:
            pool = NetworkPool(bundle, threads, executions=execution)
            rows = pool.map(work, selection.records, name)
        except SessionError as error:
            if first is None:
                raise
            results[-1]["reason"] = str(error)
            continue
        first = first or rows
        results[-1]["figures"] = _figures(first, rows, bundle.manifest.labels)
    unread = [{"id": row.record.id, "error": row.error} for row in first or () if row.error]
    return results, unread


def part(
    selection: Selection | None, threads: int, fields: Sequence[str], plan: Plan, result: dict
) -> None:
    """For a benchmark: what `measure` gives, and the time of each execution, all in turns."""
    # What cannot be read is in the result of the accuracy, which is measured on the same pictures.
    (entries, _), analyzers = measure(plan.bundle, selection, threads, fields), {}
    for entry, execution in zip(entries, executions(plan.bundle).values(), strict=True):
        if entry["reason"] is None:
            try:
                analyzers[entry["execution"]] = Analyzer(plan.bundle, executions=execution)
            except SessionError as error:
                entry["reason"] = str(error)
    times, others = in_turns(analyzers, plan, EXECUTIONS, threads=1)  # as the networks
    first = next(iter(times.values()))
    for entry in entries:
        entry |= {
            "turns": 0,
            "p50_ms": None,
            "p90_ms": None,
            "others_percent": others,
            "times_as_fast": None,
        }
        if entry["execution"] in times:
            own = times[entry["execution"]]
            speed = ratio(first, own)
            entry |= {
                "turns": len(own),
                "p50_ms": speed["ms"],
                "p90_ms": round(float(np.percentile(own, 90)), 4),
                "times_as_fast": {key: speed[key] for key in ("ratio", "low", "high")},
            }
    result["executions"] = entries


def _figures(first: Sequence[Row], rows: Sequence[Row], labels: tuple[str, ...]) -> list[dict]:
    # What cannot be read cannot be read by any execution.
    pairs = [(a, b) for a, b in zip(first, rows, strict=True) if a.error is None]
    entries: list[dict] = []

    def add(group: str, name: str, used: Sequence[tuple[Row, Row]], label: str = "") -> None:
        if not used:
            return
        before, after = zip(*used, strict=True)
        old, new = (_statistic(name, side, labels, label) for side in (before, after))
        change = figures.difference(new, old, after)
        entry = {"group": group, "measure": name, "pictures": len(used)}
        entry |= figures.interval(new, after) | {"difference": change["value"]}
        entries.append(entry | {f"difference_{side}": change[side] for side in ("low", "high")})

    for name in ("jaccard", "malignant_auc", "likely_balanced_accuracy"):
        add(WHOLE, name, [pair for pair in pairs if _known(name, pair[0], labels)])
    entries.append(_same_advice(pairs))
    named = [pair for pair in pairs if pair[0].record.label in labels]
    for label in labels:
        own = [pair for pair in named if pair[0].record.label == label]
        if own:
            add(f"class {label}", "auc", named, label)
            add(f"class {label}", "sensitivity", own, label)
    for title, places in members([a.record for a, _ in pairs], SCALES["skin_type"]).items():
        own = [pairs[place] for place in places]
        for name in ("jaccard", "malignant_auc"):
            add(f"skin {title}", name, [pair for pair in own if _known(name, pair[0], labels)])
    return entries


def _same_advice(pairs: Sequence[tuple[Row, Row]]) -> dict:
    same = np.array([a.triage == b.triage for a, b in pairs])
    agreed = figures.interval(Share(same), [b for _, b in pairs])
    entry = {"group": WHOLE, "measure": "same_advice", "pictures": len(pairs), **agreed}
    return entry | dict.fromkeys(("difference", "difference_low", "difference_high"))


def _known(name: str, row: Row, labels: Sequence[str]) -> bool:
    if name == "jaccard":
        return NETWORKS in row.counts
    return row.record.malignant is not None if "auc" in name else row.record.label in labels


def _statistic(name: str, rows: Sequence[Row], labels: tuple[str, ...], label: str) -> Statistic:
    if name == "jaccard":
        return weighted_mean(figures.counts(rows, NETWORKS).jaccard)
    if name == "sensitivity":
        return Share(np.array([row.likely == label for row in rows]))
    stated = np.array([row.probabilities for row in rows])
    if name == "auc":
        scores = stated[:, labels.index(label)]
        own = np.array([row.record.label == label for row in rows])
        return metrics.Ranking(scores, own).roc_auc
    if name == "malignant_auc":
        risk = figures.malignancy(stated, labels)
        malignant = np.array([row.record.malignant for row in rows])
        return metrics.Ranking(risk, malignant).roc_auc
    number = {label: k for k, label in enumerate(labels)}
    likely = np.array([number[str(row.likely)] for row in rows])
    truth = np.array([number[str(row.record.label)] for row in rows])
    return lambda weights: metrics.balanced_accuracy(likely, truth, len(labels), weights)


def to_csv(results: Sequence[dict], bundle: Bundle) -> str:
    """One line an execution, group and measure; its reason where it was not measured."""
    whose = {"bundle": bundle.manifest.name, "sha256": bundle.sha256[:16]}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for entry in results:
        head = {"execution": entry["execution"], "reason": entry["reason"], **entry["roles"]}
        head |= whose
        writer.writerows(head | figure for figure in entry["figures"] or [{}])
    return text.getvalue()
