"""One self-contained HTML page: what a bundle sees, how good, how fast, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from benchmarks.report import compare, corruption_plots, plots
from benchmarks.report.cards import started_from
from benchmarks.report.curves import Log
from benchmarks.report.text import outside
from benchmarks.schema.names import (
    EXECUTION_MEASURES,
    GROUP_MINIMUM,
    HEADLINES,
    TITLES,
    WHOLE,
)
from dermedge import DISCLAIMER
from dermedge.bundle.bundle import Bundle
from dermedge.data.groups import SCALES
from dermedge.taxonomy import MALIGNANT
from dermedge.taxonomy import TITLES as CLASS_TITLES

FEW = 20  # lesions with several pictures; fewer say nothing

_TRAINED = {  # what the page tells of the training of each network
    "role": "Role",
    "data_set": "Data set",
    "licence": "Licence",
    "pictures": "Pictures",
    "recipe": "Recipe",
    "seed": "Seed",
    "epochs": "Epochs",
    "steps": "Steps",
    "split_sha256": "Split",
    "commit": "Commit",
}


def render(
    title: str,
    bundle: Bundle,
    bench: dict | None = None,
    evaluation: dict | None = None,
    gallery: Sequence[dict] = (),
    logs: Sequence[tuple[str, Log]] = (),
    worst_cases: Sequence[dict] = (),
) -> str:
    """Make the page; a section whose data is not given is left out.

    Parameters
    ----------
    bench : as `schema/bench.schema.json` describes it.
    evaluation : what `dermedge evaluate --json` prints.
    gallery : analysed pictures, as `benchmarks.accuracy.examples.analysed` describes them.
    logs : name of each training run, and what `curves.read_log` gave.
    worst_cases : those that the networks got most wrong, as `gallery`.
    """
    manifest = bundle.manifest
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=title,
            disclaimer=DISCLAIMER,
            bundle=bundle,
            manifest=manifest,
            titles=TITLES,
            class_titles=CLASS_TITLES,
            malignant=MALIGNANT,
            bench=bench,
            highlights=_highlights(bench, evaluation),
            few=FEW,
            measures=EXECUTION_MEASURES,
            plots=plots,
            corruption_plots=corruption_plots,
            fronts=_fronts(bench["executions"], bench["latency"][0]["picture"]) if bench else "",
            figures_by_execution=_by_execution(bench["executions"] or []) if bench else [],
            totals=_totals(bench["latency"]) if bench else [],
            peers=_peers(bench["peers"]) if bench and bench["peers"] else {},
            evaluation=evaluation,
            comparisons=_comparisons(evaluation) if evaluation else [],
            classifiers=_classifiers(evaluation) if evaluation else [],
            people=_people(evaluation) if evaluation else [],
            group_minimum=GROUP_MINIMUM,
            gallery=gallery,
            worst_cases=worst_cases,
            differences=_differences(evaluation) if evaluation else [],
            training=[
                {title: source[key] for key, title in _TRAINED.items() if key in source}
                | {"Started from": started_from(source)}
                for source in manifest.training_data
            ],
            curves=[(name, plots.training(name, log)) for name, log in logs],
        )
    )


def render_compared(
    title: str | None, results: dict[str, dict], phones: dict[str, dict[str, object]] | None = None
) -> str:
    """The page of `dermedge bench compare`: name to result, as `bench_result.load` gives it.

    `phones` : name to what a person answered, as `benchmarks.schema.phone.answers` gives it.
    """
    rows = compare.rows(results)
    return (
        _environment()
        .get_template("compare.html")
        .render(
            title=title or "Devices, runtimes and precisions",
            disclaimer=DISCLAIMER,
            rows=rows,
            results=results,
            phones=phones or {},
            phone_heading=compare.PHONES,
            pictures=list(dict.fromkeys(row["picture"] for row in rows)),
            repeated=compare.repeated(results),
            incomparable=compare.incomparable(results),
            each=list({row["file"]: row for row in reversed(rows)}.values())[::-1],
            plots=plots,
            fronts=_device_fronts(rows, results),
        )
    )


def render_picture(bench: dict, width: int) -> str:
    """The page that `benchmarks.report.picture` draws, `width` px wide."""
    return (
        _environment()
        .get_template("picture.html")
        .render(
            title=f"dermedge bench: {bench['bundle']['name']}",
            disclaimer=DISCLAIMER,
            width=width,
            bench=bench,
            highlights=_highlights(bench, bench["evaluation"]),
            plots=plots,
            fronts=_fronts(bench["executions"], bench["latency"][0]["picture"]),
            totals=_totals(bench["latency"]),
            beside=_beside(bench["peers"] or ()),
        )
    )


def _fronts(entries: Sequence[dict] | None, picture: str) -> Markup | str:
    """Accuracy of every precision and runtime against its time; '' where none was measured."""
    panels = {}
    for measure in ("jaccard", "malignant_auc", "likely_balanced_accuracy"):
        points = {
            entry["execution"]: (entry["p90_ms"], figure)
            for entry in entries or ()
            for figure in entry["figures"]
            if (figure["group"], figure["measure"]) == (WHOLE, measure)
            and None not in (entry["p90_ms"], figure["value"])
        }
        if points:
            panels[measure] = points
    return plots.pareto(panels, picture) if panels else ""


def _by_execution(entries: Sequence[dict]) -> list[list[dict | None]]:
    """The figures of each group and measure, one of each execution."""
    names = [(f["group"], f["measure"]) for entry in entries[:1] for f in entry["figures"]]
    every = [{(f["group"], f["measure"]): f for f in entry["figures"]} for entry in entries]
    return [[figures.get(name) for figures in every] for name in names]


def _totals(latency: Sequence[dict]) -> list[list[dict]]:
    """The rows of each picture and thread count, stage by stage; the last is the whole."""
    names = list(dict.fromkeys(row["picture"] for row in latency))
    found: dict[tuple[int, int], list[dict]] = {}
    for row in latency:
        found.setdefault((names.index(row["picture"]), row["threads"]), []).append(row)
    return [found[case] for case in sorted(found)]


def _device_fronts(rows: Sequence[dict], results: dict[str, dict]) -> Markup | str:
    """Accuracy of every result and thread count against the time of the first picture."""
    panels, picture = {}, rows[0]["picture"]
    for measure in (name for names in HEADLINES.values() for name in names):
        points = {
            f"{row['file']}, threads: {row['threads']}": (row["p90_ms"], figure)
            for row in rows
            if row["picture"] == picture
            and (figure := compare.accuracy(results[row["file"]]["evaluation"])[measure])
        }
        if points:
            panels[measure] = points
    return plots.pareto(panels, picture) if panels else ""


def _peers(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """The rows of each thing that was asked for, the fastest side first."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(f"{row['what']}, threads: {row['threads']}", []).append(row)
    return {
        what: sorted(sides, key=lambda row: row["ms"] or float("inf"))
        for what, sides in found.items()
    }


def _beside(rows: Sequence[dict]) -> dict[tuple[str, ...], dict[str, dict[str, float]]]:
    """How many times as long others take on one thread; a table for what the same were asked."""
    sides: dict[str, dict[str, float]] = {}
    for row in rows:
        ours = row["side"].startswith("dermedge") or row["times_of_ours"] == 1
        if row["threads"] == 1 and not row["reason"] and not ours:
            sides.setdefault(row["side"], {})[row["what"]] = row["times_of_ours"]
    tables: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
    for side, times in sorted(sides.items(), key=lambda item: min(item[1].values())):
        tables.setdefault(tuple(times), {})[side] = times
    return tables


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    filters: dict[str, Callable[..., str]] = {
        "figure": _number,
        "interval": lambda metric: f"{_number(metric['value'])} ({_interval(metric)})",
        "range": _interval,
        "size": _size,
    }
    environment.filters |= filters
    environment.globals["outside"] = outside
    return environment


def _number(value: float | None) -> str:
    """Three decimals for a share, fewer for larger figures; a dash where there is none."""
    if value is None:
        return "–"
    magnitude = abs(value)
    return (
        f"{value:.3f}" if magnitude <= 1 else f"{value:.1f}" if magnitude < 100 else f"{value:.0f}"
    )


def _size(count: int) -> str:
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.2f} MB" if count < 1e8 else f"{count / 1e6:.0f} MB"


def _highlights(bench: dict | None, evaluation: dict | None) -> list[dict]:
    """The few figures that a reader looks for first."""
    found = []
    wanted = {"segmentation": ("jaccard",), "classification": ("malignant_auc", "macro_auc")}
    for method in evaluation["methods"] if evaluation else []:
        for name in wanted[method["task"]] if not method["baseline"] else ():
            metric = method["metrics"].get(name)
            if metric:
                note = f"95 % interval {_interval(metric)}; {method['count']} pictures"
                found.append(
                    {"label": TITLES[name], "value": _number(metric["value"]), "note": note}
                )
    if bench:
        totals = [row for row in bench["latency"] if row["stage"] == "total"]
        best = min(
            (row for row in totals if row["picture"] == totals[0]["picture"]),
            key=lambda row: row["p90_ms"],
        )
        note = f"p90, {best['picture']}, threads: {best['threads']}"
        found.append(
            {
                "label": "Picture to decision",
                "value": f"{_number(best['p90_ms'])} ms",
                "note": note + ("; not comparable" if bench["not_comparable"] else ""),
            }
        )
    if bench and bench["cold_start"]:
        peak = max(row["peak_bytes"] for row in bench["cold_start"])
        start = np.median(bench["cold_start"][0]["seconds"])
        found.append(
            {
                "label": "Peak memory",
                "value": f"{peak / 1e6:.0f} MB",
                "note": f"whole process; {start:.2f} s from start to first result",
            }
        )
    if bench:
        found.append(
            {
                "label": "Bundle",
                "value": _size(bench["bundle"]["bytes"]),
                "note": ", ".join(
                    f"{model['role']} {_size(model['bytes'])}"
                    for model in bench["bundle"]["models"]
                ),
            }
        )
    return found


def _interval(metric: dict) -> str:
    if metric["low"] is None:
        return "unknown"
    return f"{_number(metric['low'])} to {_number(metric['high'])}"


def _comparisons(evaluation: dict) -> list[dict]:
    """One table a task: metrics down, networks and baselines across."""
    tables = []
    for task, caption in (
        ("segmentation", "Lesion outline"),
        ("classification", "Class and malignancy"),
    ):
        methods = [method for method in evaluation["methods"] if method["task"] == task]
        if not methods:
            continue
        names = [name for name in TITLES if any(name in m["metrics"] for m in methods)]
        rows = []
        for name in names:
            cells = [method["metrics"].get(name) for method in methods]
            rows.append(
                {
                    "title": TITLES[name],
                    "cells": [cell and {**cell, "interval": _interval(cell)} for cell in cells],
                }
            )
        tables.append({"caption": caption, "methods": methods, "rows": rows})
    return tables


def _differences(evaluation: dict) -> list[dict]:
    return [
        {**entry, "title": TITLES[entry["metric"]], "interval": _interval(entry)}
        for entry in evaluation["differences"]
    ]


def _people(evaluation: dict) -> list[dict]:
    """Of each scale that groups people: its title, measures, groups, and gaps with intervals."""
    found = []
    for scale in SCALES.values():
        groups = [group for group in evaluation["groups"] if group["scale"] == scale.field]
        gaps = [gap for gap in evaluation["gaps"] if gap["scale"] == scale.field]
        if groups:
            found.append(
                {
                    "title": scale.title,
                    "name": scale.name,
                    "measures": [n for n in TITLES if any(n in g["metrics"] for g in groups)],
                    "groups": groups,
                    "gaps": gaps,
                }
            )
    return found


def _classifiers(evaluation: dict) -> list[dict]:
    """Calibration plot and confusion matrix of each method that classifies."""
    shown = []
    for method in evaluation["methods"]:
        if method["task"] != "classification" or not method["confusion"]:
            continue
        rows = []
        for label, counts in zip(evaluation["labels"], method["confusion"], strict=True):
            total = sum(counts)
            shares = [count / total if total else 0 for count in counts]
            rows.append({"label": label, "cells": list(zip(counts, shares, strict=True))})
        shown.append(
            {
                "name": method["name"],
                "confusion": rows,
                "per_class": method["per_class"] if not method["baseline"] else {},
                "calibration": plots.calibration(method["calibration"]),
            }
        )
    return shown
