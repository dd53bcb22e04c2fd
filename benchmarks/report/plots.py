"""The plots of the pages. Marks, dashes and hatches tell things apart, not colours alone: they stay
readable in black and white, on light and on dark paper."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.report import compare
from benchmarks.schema.names import TITLES

WIDTH = 7.2  # inches, of all plots: their letters then have one size on the page

# Stand-ins that become the page's own colours, so that a plot follows light and dark.
_INK, _PAPER, _FAINT = "#010203", "#040506", "#070809"
_COLOURS = {_INK: "currentColor", _PAPER: "var(--card)", _FAINT: "var(--line)"}
_STAGES = {
    "decode": ("#8fa3ad", ""),
    "prepare": ("#d9c58b", "////"),
    "segmenter": ("#2a7f86", ""),
    "classifier": ("#e0895f", "...."),
    "lesion": ("#b9d3c0", "\\\\\\\\"),
    "quality": ("#c9bfd6", "xxxx"),
}
_LINES = (("#2a7f86", "-"), ("#c2603a", "--"), ("#8f7fa6", "-."), ("#a08a3c", ":"))
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_EDGE = "#2b3338"  # dark on every fill, also where the page is dark
STYLE: dict[Any, Any] = {  # as `rc_context` takes it
    "svg.fonttype": "none",
    "svg.hashsalt": "dermedge",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "text.parse_math": False,  # names of files may hold a $
}


def svg(figure: Figure, description: str) -> Markup:
    """The figure as inline SVG that takes its text and lines from the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    head, body = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    # Matplotlib writes its own metadata, which names web addresses; the page stands alone.
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    for stand_in, colour in _COLOURS.items():
        body = body.replace(stand_in, colour)
    return Markup(head) + Markup(' role="img" aria-label="{}">').format(description) + Markup(body)


def new_figure(height: float, width: float = WIDTH) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _case(picture: str, threads: int) -> str:
    return f"{_shorten(picture)}, {threads} thread{'s' * (threads > 1)}"


def _shorten(name: str) -> str:
    name = name if "/" not in name else Path(name).name
    return name if len(name) <= 30 else f"{name[:14]}…{name[-14:]}"


def latency(bench: dict) -> Markup:
    """Stacked bars: median of each stage, for each picture and thread count."""
    rows = bench["latency"]
    names = list(dict.fromkeys(row["picture"] for row in rows))
    cases = list(dict.fromkeys((row["picture"], row["threads"]) for row in rows))
    cases.sort(key=lambda case: (names.index(case[0]), case[1]))
    median = {(row["picture"], row["threads"], row["stage"]): row["p50_ms"] for row in rows}
    with rc_context(STYLE):
        figure = new_figure(0.95 + 0.34 * len(cases))
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
            _beside(axes, left[place], place, f"{median[(*case, 'total')]:.1f} ms")
        axes.set_yticks(range(len(cases)), [_case(*case) for case in cases])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, left.max() * 1.14)
        axes.set_xlabel("median time, ms")
        axes.grid(axis="x")
        figure.legend(ncols=6, loc="outside upper right", handlelength=2.2, columnspacing=1.2)
        spoken = "; ".join(f"{_case(*case)}: {median[(*case, 'total')]:.1f} ms" for case in cases)
        return svg(figure, f"Median time of each stage. Total: {spoken}")


def _beside(axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), xytext=(6, 0), textcoords="offset points", va="center")


def distribution(bench: dict) -> Markup:
    """Share of analyses that took at most so long, a line a picture and thread count."""
    with rc_context(STYLE):
        figure = new_figure(2.9)
        axes = figure.subplots()
        lines = []  # what a legend gathers itself lacks names like _DSC0001.JPG
        for k, entry in enumerate(bench["distribution"]):
            quantiles = entry["quantiles_ms"]
            lines += axes.plot(
                quantiles,
                np.linspace(0, 1, len(quantiles)),
                color=_LINES[k % len(_LINES)][0],
                linestyle=_LINES[k % len(_LINES)][1],
                linewidth=1.6,
                marker=_MARKS[k % len(_MARKS)],
                markevery=(k % 5, 10),
                markersize=4,
            )
        axes.axhline(0.9, color=_INK, linewidth=0.9, linestyle=(0, (1, 2)))
        slow = max(entry["quantiles_ms"][-2] for entry in bench["distribution"])
        axes.set_xlim(0, 1.1 * slow)  # the slowest 2 % are in the table
        axes.set_ylim(0, 1)
        axes.set_xlabel("time, ms")
        axes.set_ylabel("share of analyses")
        axes.grid()
        names = [_case(entry["picture"], entry["threads"]) for entry in bench["distribution"]]
        figure.legend(lines, names, ncols=2, loc="outside lower center", handlelength=3)
        spoken = "; ".join(
            f"{_case(e['picture'], e['threads'])}: 90 % within {e['quantiles_ms'][45]:.1f} ms"
            for e in bench["distribution"]
        )
        return svg(figure, f"Distribution of the time. {spoken}")


def course(bench: dict) -> Markup:
    """Time, clock, heat and other programs over the run, each against its own axis."""
    parts = bench["course"]
    at = [part["seconds"] for part in parts]
    panels = {
        "ratio": "time over its median",
        "frequency_mhz": "clock, MHz",
        "temperature_c": "temperature, °C",
        "others_percent": "other programs, % of the cores",
    }
    values = {key: [part[key] for part in parts] for key in panels}
    shown = [key for key in panels if None not in values[key]]
    with rc_context(STYLE):
        figure = new_figure(0.5 + 1.0 * len(shown))
        grid = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, key in zip(grid, shown, strict=True):
            axes.plot(at, values[key], color="#2a7f86", linewidth=1.5, marker="o", markersize=2.5)
            axes.set_title(panels[key], fontsize=9, loc="left")
            axes.grid()
        ratios = values["ratio"]
        grid[0].set_ylim(min(0.8, *ratios), max(1.2, *ratios))
        if "others_percent" in shown:
            grid[shown.index("others_percent")].set_ylim(0, max(20, *values["others_percent"]))
        grid[-1].set_xlabel("seconds since the start")
        return svg(figure, f"Course of the run; at its end {ratios[-1]:.2f} of the median time")


def compared(rows: Sequence[dict]) -> Markup:
    """p50 as a bar and p90 as its whisker, of each device, picture and thread count."""
    with rc_context(STYLE):
        figure = new_figure(0.6 + 0.3 * len(rows))
        axes = figure.subplots()
        pictures = list(dict.fromkeys(row["picture"] for row in rows))
        ordered = sorted(rows, key=lambda row: (pictures.index(row["picture"]), row["p90_ms"]))
        fills = list(_STAGES.values())
        handles: dict[str, Any] = {}  # of containers, which the stubs do not know as handles
        for place, row in enumerate(ordered):
            colour, hatch = fills[pictures.index(row["picture"]) % len(fills)]
            handles[_shorten(row["picture"])] = axes.barh(
                place,
                row["p50_ms"],
                xerr=[[0], [row["p90_ms"] - row["p50_ms"]]],
                height=0.6,
                color=colour,
                hatch=hatch,
                edgecolor=_EDGE,
                ecolor=_INK,
                capsize=3,
                linewidth=0.7,
            )
            _beside(axes, row["p90_ms"], place, f"{row['p90_ms']:.1f}")
        labels = [_case(row["file"], row["threads"]) for row in ordered]
        axes.set_yticks(range(len(ordered)), labels)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * max(row["p90_ms"] for row in rows))
        axes.set_xlabel("median time; whisker and number: p90, ms")
        axes.grid(axis="x")
        figure.legend(handles.values(), handles, ncols=2, loc="outside upper right")
        spoken = "; ".join(f"{r['file']}, {r['picture']}: {r['p90_ms']:.1f}" for r in ordered)
        return svg(figure, f"p90 in ms of each device. {spoken}")


def pareto(panels: Mapping[str, Mapping[str, tuple[float, Mapping]]], about: str) -> Markup:
    """Accuracy against p90, a panel a measure; the dashed line joins what nothing beats in both.

    Parameters
    ----------
    panels : measure to name to p90 in ms and the figure, with its 'value', 'low' and 'high'.
    about : what was timed.
    """
    names = list(dict.fromkeys(name for points in panels.values() for name in points))
    with rc_context(STYLE):
        figure = new_figure(0.6 + 1.45 * len(panels) + 0.17 * -(-len(names) // 2))
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        handles, spoken = {}, []
        for axes, (measure, points) in zip(grid, panels.items(), strict=True):
            places = [(ms, metric["value"]) for ms, metric in points.values()]
            front = [places[k] for k in compare.front(places)]
            line = {"color": _INK, "linewidth": 1, "linestyle": "--"}
            axes.step(*zip(*front, strict=True), where="post", **line)
            for name, (ms, metric) in points.items():
                k = names.index(name)
                sides = [metric["low"], metric["high"]]
                value = metric["value"]
                around = None if None in sides else np.abs(np.array(sides) - value)[:, None]
                handles[name] = axes.errorbar(
                    [ms],
                    [value],
                    yerr=around,
                    linestyle="",
                    color=_LINES[k % len(_LINES)][0],
                    marker=_MARKS[k % len(_MARKS)],
                    markersize=6 + 2.5 * (k % 3),  # hollow, of three sizes: one shows in another
                    markerfacecolor="none",
                    markeredgewidth=1.6,
                    elinewidth=1,
                    capsize=3,
                )
            axes.set_title(TITLES[measure], fontsize=9, loc="left")
            axes.grid()
            points_text = "; ".join(
                f"{n}: {f['value']:.3f} at {ms:.1f} ms" for n, (ms, f) in points.items()
            )
            spoken.append(f"{TITLES[measure]} against time. {points_text}")
        times = [ms for points in panels.values() for ms, _ in points.values()]
        margin = max(0.2 * (max(times) - min(times)), 0.03 * max(times))
        grid[-1].set_xlim(min(times) - margin, max(times) + margin)
        grid[-1].set_xlabel(f"p90, ms ({_shorten(about)})")
        figure.legend(handles.values(), handles, ncols=2, loc="outside lower center")
        return svg(figure, ". ".join(spoken))


def calibration(bins: Sequence[dict]) -> Markup:
    """Stated probability of the top class against the share that was right; dots by count."""
    with rc_context(STYLE):
        figure = new_figure(3.5, 3.6)
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
            clip_on=False,
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_xlabel("stated probability")
        axes.set_ylabel("share that was right")
        axes.grid()
        return svg(
            figure,
            "Calibration: stated probability of the top class against the share that was right; "
            + ", ".join(f"{e['confidence']:.2f}: {e['accuracy']:.2f}" for e in bins),
        )


def training(run: str, columns: Mapping[str, Sequence[tuple[int, float]]]) -> Markup:
    """Losses and validation figures of one run against its steps."""
    panels = (
        ("training loss", {k: v for k, v in columns.items() if not k.startswith("val_")}),
        ("validation", {k: v for k, v in columns.items() if k.startswith("val_")}),
    )
    with rc_context(STYLE):
        figure = new_figure(3.1)
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
            axes.set_title(name, fontsize=9, loc="left")
            axes.set_xlabel("step")
            axes.grid()
            if name == "validation":
                axes.set_ylim(0, 1)
            if curves:
                axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
        last = ", ".join(f"{k} {v[-1][1]:.3f}" for k, v in columns.items() if v)
        return svg(figure, f"Training curves of {run}; last values: {last}")
