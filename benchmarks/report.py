"""One self-contained HTML page: what a bundle sees, how good, how fast, and where it comes from."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks import robustness
from benchmarks.figures import NETWORKS, TITLES, Row, malignancy
from benchmarks.speed import compare
from dermedge import DISCLAIMER, UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle import Bundle
from dermedge.image import ImageError, read_image
from dermedge.quality import TITLES as QUALITY_TITLES
from dermedge.taxonomy import MALIGNANT
from dermedge.taxonomy import TITLES as CLASS_TITLES

THUMBNAIL = 480  # px, long side
WORST = 4  # pictures of each kind of error

Log = dict[str, list[tuple[int, float]]]  # (step, value) by column of a log.csv

# Stand-ins that become the page's own colours, so that a plot follows light and dark.
_INK, _PAPER, _FAINT = "#010203", "#040506", "#070809"
_COLOURS = {_INK: "currentColor", _PAPER: "var(--card)", _FAINT: "var(--line)"}
# Fill and hatch together: stages stay apart in black and white, and for colour-blind readers.
_STAGES = {
    "decode": ("#8fa3ad", ""),
    "prepare": ("#d9c58b", "////"),
    "segmenter": ("#2a7f86", ""),
    "classifier": ("#e0895f", "...."),
    "lesion": ("#b9d3c0", "\\\\\\\\"),
    "quality": ("#6b5b7b", ""),
}
_LINES = (("#2a7f86", "-"), ("#c2603a", "--"), ("#8f7fa6", "-."), ("#a08a3c", ":"))
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_EDGE = "#2b3338"  # dark on every fill, also where the page is dark
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dermedge",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _FAINT,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
}


def render(
    title: str,
    bundle: Bundle,
    bench: dict | None = None,
    evaluation: dict | None = None,
    images: Sequence[Path] = (),
    logs: Sequence[tuple[str, Log]] = (),
    worst: Sequence[tuple[Path, str]] = (),
) -> str:
    """Make the page; a section whose data is not given is left out.

    Parameters
    ----------
    bench : as `speed/bench.schema.json` describes it.
    evaluation : what `dermedge evaluate --json` prints.
    images : pictures to analyse and show with their outlines.
    logs : name of each training run, and what `read_log` found.
    worst : pictures that the networks were most wrong about, as `worst` finds them.
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
            latency_plot=_latency_plot(bench) if bench else None,
            distribution_plot=_distribution_plot(bench) if bench else None,
            course_plot=_course_plot(bench) if bench else None,
            robustness=_png(bench["robustness"]) if bench and bench["robustness"] else None,
            evaluation=evaluation,
            comparisons=_comparisons(evaluation) if evaluation else [],
            classifiers=_classifiers(evaluation) if evaluation else [],
            group_metrics=_group_metrics(evaluation) if evaluation else [],
            cards=_cards(bundle, [(path, "") for path in images]),
            worst=_cards(bundle, worst),
            differences=_differences(evaluation) if evaluation else [],
            curves=[(name, _curves(name, log)) for name, log in logs],
        )
    )


def render_compared(title: str | None, results: dict[str, dict]) -> str:
    """The page of `dermedge bench compare`: name to result, as `compare.load` gives it."""
    rows = compare.rows(results)
    return (
        _environment()
        .get_template("compare.html")
        .render(
            title=title or "Devices, runtimes and precisions",
            disclaimer=DISCLAIMER,
            rows=rows,
            results=results,
            pictures=list(dict.fromkeys(row["picture"] for row in rows)),
            bars=_compared_plot(rows),
            fronts=[
                (TITLES[measure], _pareto_plot(rows, measure))
                for measures in compare.MEASURES.values()
                for measure in measures
                if any(row[measure] is not None for row in rows)
            ],
            courses=[(name, _course_plot(result)) for name, result in results.items()],
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "figure": _number,
        "interval": lambda metric: f"{_number(metric['value'])} ({_interval(metric)})",
        "size": _size,
    }
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
            key=lambda row: row["p50_ms"],
        )
        note = f"p50, {best['picture']}, threads: {best['threads']}"
        found.append(
            {
                "label": "Picture to decision",
                "value": f"{_number(best['p50_ms'])} ms",
                "note": f"{note}; p99 {_number(best['p99_ms'])} ms",
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


def _group_metrics(evaluation: dict) -> list[str]:
    """Names of the figures that any group of skin types has, in their order."""
    return [name for name in TITLES if any(name in g["metrics"] for g in evaluation["groups"])]


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
                "calibration": _calibration_plot(method["calibration"]),
            }
        )
    return shown


# ---------------------------------------------------------------------------- pictures


def worst(rows: Sequence[Row], labels: Sequence[str], count: int = WORST) -> list[tuple[Path, str]]:
    """Up to `count` pictures each: least overlap of outlines, malignant ones that were given the
    lowest risk, benign ones that were given the highest; and in words what is wrong."""
    found: list[tuple[Path, str]] = []
    outlined = [row for row in rows if NETWORKS in row.counts]
    scores = {id(row): _jaccard(row.counts[NETWORKS]) for row in outlined}
    for row in sorted(outlined, key=lambda row: scores[id(row)])[:count]:
        found.append((Path(row.record.image), f"Outline: Jaccard {scores[id(row)]:.2f}"))
    told = [r for r in rows if r.probabilities is not None and r.record.malignant is not None]
    risk = {id(row): malignancy(row.probabilities[None], labels)[0] for row in told}
    for malignant, sign in ((True, 1), (False, -1)):
        chosen = [row for row in told if row.record.malignant is malignant]
        for row in sorted(chosen, key=lambda row: sign * risk[id(row)])[:count]:
            what = f"{row.record.label or ('malignant' if malignant else 'benign')}"
            found.append((Path(row.record.image), f"Truly {what}, malignancy {risk[id(row)]:.2f}"))
    return found


def _jaccard(counts: Sequence[int]) -> float:
    hit, more, missed, _ = counts
    return hit / (hit + more + missed) if hit + more + missed else 1.0


def _cards(bundle: Bundle, images: Sequence[tuple[Path, str]]) -> list[dict]:
    analyzer = Analyzer(bundle) if images else None
    limits = bundle.manifest.thresholds
    cards = []
    for path, note in images:
        try:
            picture = read_image(path)
        except ImageError as error:
            cards.append({"name": path.name, "note": note, "error": str(error)})
            continue
        analysis = analyzer.analyze(picture, name=path.name).to_json()
        width, height = analysis["size"]
        likely = sorted(analysis["probabilities"].items(), key=lambda item: -item[1])[:3]
        cards.append(
            {
                "name": path.name,
                "note": note,
                "error": None,
                "thumbnail": _thumbnail(picture.pixels),
                "width": width,
                "height": height,
                "outline": " ".join(_path(polygon) for polygon in analysis["lesion"]["polygons"]),
                "analysis": analysis,
                "likely": likely,
                "quality": [
                    QUALITY_TITLES.get(reason, reason) for reason in analysis["quality"]["reasons"]
                ],
                "thresholds": [limits.see_doctor, limits.urgent],
            }
        )
    return cards


def _thumbnail(pixels: np.ndarray) -> str:
    scale = min(1.0, THUMBNAIL / max(pixels.shape[:2]))
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _path(polygon: list[list[float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in polygon) + "Z"


# ---------------------------------------------------------------------------- plots


def _svg(figure, description: str) -> Markup:
    """The figure as inline SVG that takes its text and lines from the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    head, body = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    # Matplotlib writes its own metadata, which names web addresses; the page stands alone.
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    for stand_in, colour in _COLOURS.items():
        body = body.replace(stand_in, colour)
    return Markup(head) + Markup(' role="img" aria-label="{}">').format(description) + Markup(body)


def _latency_plot(bench: dict) -> Markup:
    """Stacked bars: median of each stage, for each picture and thread count."""
    rows = bench["latency"]
    cases = list(dict.fromkeys((row["picture"], row["threads"]) for row in rows))
    median = {(row["picture"], row["threads"], row["stage"]): row["p50_ms"] for row in rows}
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.6, 1.1 + 0.52 * len(cases)))
        axes = figure.subplots()
        left = np.zeros(len(cases))
        for stage, (colour, hatch) in _STAGES.items():
            widths = np.array([median[(*case, stage)] for case in cases])
            axes.barh(
                range(len(cases)),
                widths,
                left=left,
                height=0.62,
                color=colour,
                hatch=hatch,
                edgecolor=_EDGE,
                linewidth=0.7,
                label=stage,
            )
            left += widths
        for place, case in enumerate(cases):
            axes.annotate(
                f"{median[(*case, 'total')]:.1f} ms",
                (left[place], place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
            )
        labels = [
            f"{_shorten(picture)}\n{threads} thread{'s' * (threads > 1)}"
            for picture, threads in cases
        ]
        axes.set_yticks(range(len(cases)), labels)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, left.max() * 1.16)
        axes.set_xlabel("median time, ms")
        axes.grid(axis="x", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1.0), handlelength=2.2)
        spoken = "; ".join(
            f"{name}, {threads} threads: {median[name, threads, 'total']:.1f} ms"
            for name, threads in cases
        )
        return _svg(figure, f"Median time of each stage. Total: {spoken}")


def _distribution_plot(bench: dict) -> Markup:
    """Share of analyses that took at most so long, a line a picture and thread count."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.6, 3.2))
        axes = figure.subplots()
        for k, entry in enumerate(bench["distribution"]):
            quantiles = entry["quantiles_ms"]
            axes.plot(
                quantiles,
                np.linspace(0, 1, len(quantiles)),
                color=_LINES[k % len(_LINES)][0],
                linestyle=_LINES[k % len(_LINES)][1],
                linewidth=1.6,
                label=f"{_shorten(entry['picture'])}, threads: {entry['threads']}",
            )
        axes.axhline(0.9, color=_INK, linewidth=0.7, linestyle=":")
        slow = max(entry["quantiles_ms"][-2] for entry in bench["distribution"])
        axes.set_xlim(0, 1.1 * slow)  # the slowest 2 % are in the table
        axes.set_ylim(0, 1)
        axes.set_xlabel("time, ms")
        axes.set_ylabel("share of analyses")
        axes.grid(linewidth=0.6)
        axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.18))
        spoken = "; ".join(
            f"{e['picture']}, {e['threads']} threads: 90 % within {e['quantiles_ms'][45]:.1f} ms"
            for e in bench["distribution"]
        )
        return _svg(figure, f"Distribution of the time. {spoken}")


def _course_plot(bench: dict) -> Markup:
    """Time, clock and heat over the run, each against its own axis."""
    told = bench["course"]
    at = [part["seconds"] for part in told]
    panels = [
        ("time over median", [part["ratio"] for part in told]),
        ("clock, MHz", [part["frequency_mhz"] for part in told]),
        ("temperature, °C", [part["temperature_c"] for part in told]),
    ]
    panels = [(name, values) for name, values in panels if None not in values]
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.6, 1.0 + 1.1 * len(panels)), layout="constrained")
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(grid, panels, strict=True):
            axes.plot(at, values, color="#2a7f86", linewidth=1.5, marker="o", markersize=2.5)
            axes.set_title(name, fontsize=9, loc="left")
            axes.grid(linewidth=0.6)
        spread = max(1.3, *(part["ratio"] for part in told))
        grid[0].set_ylim(min(0.7, *(part["ratio"] for part in told)), spread)
        grid[-1].set_xlabel("seconds since the start")
        last = told[-1]["ratio"]
        return _svg(figure, f"Course of the run; at its end {last:.2f} of the median time")


def _compared_plot(rows: Sequence[dict]) -> Markup:
    """p50 as a bar and p90 as its whisker, of each device, picture and thread count."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.6, 0.9 + 0.42 * len(rows)))
        axes = figure.subplots()
        pictures = list(dict.fromkeys(row["picture"] for row in rows))
        ordered = sorted(rows, key=lambda row: (pictures.index(row["picture"]), row["p90_ms"]))
        fills = list(_STAGES.values())
        for place, row in enumerate(ordered):
            colour, hatch = fills[pictures.index(row["picture"]) % len(fills)]
            rest = row["p90_ms"] - row["p50_ms"]
            axes.barh(
                place,
                row["p50_ms"],
                xerr=[[0], [rest]],
                height=0.6,
                color=colour,
                hatch=hatch,
                edgecolor=_EDGE,
                ecolor=_INK,
                capsize=3,
                linewidth=0.7,
            )
            axes.annotate(
                f"{row['p90_ms']:.1f}",
                (row["p90_ms"], place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
            )
        labels = [
            f"{_shorten(row['file'])}, {row['threads']} thread{'s' * (row['threads'] > 1)}\n"
            f"{_shorten(row['picture'])}"
            for row in ordered
        ]
        axes.set_yticks(range(len(ordered)), labels, fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.15 * max(row["p90_ms"] for row in rows))
        axes.set_xlabel("median time, whisker and figure: p90, ms")
        axes.grid(axis="x", linewidth=0.6)
        axes.set_axisbelow(True)
        spoken = "; ".join(f"{r['file']}, {r['picture']}: {r['p90_ms']:.1f}" for r in ordered)
        return _svg(figure, f"p90 in ms of each device. {spoken}")


def _pareto_plot(rows: Sequence[dict], measure: str) -> Markup:
    """Accuracy against p90 of the first picture; the line joins what nothing beats in both."""
    first = rows[0]["picture"]
    chosen = [row for row in rows if row["picture"] == first and row[measure] is not None]
    points = [(row["p90_ms"], row[measure]) for row in chosen]
    line = [points[k] for k in compare.front(points)]
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.6, 3.4))
        axes = figure.subplots()
        axes.step(*zip(*line, strict=True), where="post", color=_INK, linewidth=1, linestyle="--")
        names = list(dict.fromkeys((row["file"], row["threads"]) for row in chosen))
        for k, (name, row) in enumerate(zip(names, chosen, strict=True)):
            axes.plot(
                row["p90_ms"],
                row[measure],
                linestyle="",
                color=_LINES[k % len(_LINES)][0],
                marker=_MARKS[k % len(_MARKS)],
                markersize=8,
                label=f"{_shorten(name[0])}, threads: {name[1]}",
            )
        axes.set_xlim(0, 1.15 * max(x for x, _ in points))
        axes.set_xlabel(f"p90, ms ({_shorten(first)})")
        axes.set_ylabel(TITLES[measure])
        axes.grid(linewidth=0.6)
        axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
        spoken = "; ".join(
            f"{row['file']}: {row[measure]:.3f} at {row['p90_ms']:.1f} ms" for row in chosen
        )
        return _svg(figure, f"{TITLES[measure]} against time. {spoken}")


def _png(curves: dict) -> str:
    return "data:image/png;base64," + base64.b64encode(robustness.plot(curves)).decode()


def _shorten(name: str) -> str:
    name = name if "/" not in name else Path(name).name
    return name if len(name) <= 30 else f"{name[:14]}…{name[-14:]}"


def _calibration_plot(bins: Sequence[dict]) -> Markup:
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.5, 3.3))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle="--")
        axes.plot(
            [entry["confidence"] for entry in bins],
            [entry["accuracy"] for entry in bins],
            color="#2a7f86",
            linewidth=1.5,
        )
        total = sum(entry["count"] for entry in bins)
        axes.scatter(
            [entry["confidence"] for entry in bins],
            [entry["accuracy"] for entry in bins],
            [14 + 220 * entry["count"] / total for entry in bins],
            color="#2a7f86",
            edgecolor=_PAPER,
            zorder=3,
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_xlabel("stated probability")
        axes.set_ylabel("share that was right")
        axes.grid(linewidth=0.6)
        return _svg(
            figure,
            "Calibration: stated probability of the top class against the share that was right; "
            + ", ".join(f"{e['confidence']:.2f}: {e['accuracy']:.2f}" for e in bins),
        )


def read_log(run: Path) -> Log:
    """The losses and validation figures in the log.csv of a training run.

    Raises UserError where it is missing or no such table.
    """
    path = run / "log.csv"
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        return {
            name: [(int(row["step"]), float(row[name])) for row in rows if row[name]]
            for name in (rows[0] if rows else {})
            if name not in ("step", "epoch", "lr")
        }
    except OSError:
        raise UserError(f"{path} is missing: give a folder that `dermedge train` made") from None
    except (ValueError, KeyError, TypeError, csv.Error):
        raise UserError(f"{path} is no log of `dermedge train`") from None


def _curves(run: str, columns: Log) -> Markup:
    """Losses and validation figures of one run against its steps."""
    panels = (
        ("training loss", {k: v for k, v in columns.items() if not k.startswith("val_")}),
        ("validation", {k: v for k, v in columns.items() if k.startswith("val_")}),
    )
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.6, 3.1), layout="constrained")
        grid = figure.subplots(1, 2)
        for axes, (name, curves) in zip(grid, panels, strict=True):
            marks = zip(
                ("#2a7f86", "#c2603a", "#8f7fa6", "#a08a3c", "#5b8a5f"),
                ("-", "--", "-.", ":", (0, (5, 1))),
                strict=True,
            )
            for (label, points), (colour, dash) in zip(curves.items(), marks, strict=False):
                steps, values = zip(*points, strict=True) if points else ((), ())
                axes.plot(
                    steps,
                    values,
                    color=colour,
                    linestyle=dash,
                    linewidth=1.6,
                    marker="o" if len(points) < 12 else None,
                    markersize=3.5,
                    label=label.removeprefix("val_").replace("_", " "),
                )
            axes.set_title(name, fontsize=10, loc="left")
            axes.set_xlabel("step")
            axes.grid(linewidth=0.6)
            if name == "validation":
                axes.set_ylim(0, 1)
            if curves:
                axes.legend(fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.22))
        last = ", ".join(f"{k} {v[-1][1]:.3f}" for k, v in columns.items() if v)
        return _svg(figure, f"Training curves of {run}; last values: {last}")
