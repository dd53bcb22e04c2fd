"""Plots of what corruptions do: for pages (SVG), and as files (PNG)."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from benchmarks.report.plots import STYLE, WIDTH, new_figure, svg
from benchmarks.report.text import part_of
from benchmarks.schema.names import LEVELS_BEFORE_UNCHANGED

_ROBUSTNESS = {
    "jaccard": ("Jaccard", "#2a7f86", "-", "o"),
    "malignant_auc": ("AUC, malignant or not", "#c2603a", "--", "s"),
    "retake": ("share asked to take again", "#8a8a8a", ":", "^"),
}


def _curves(result: dict, columns: int = 4, width: float = 13.6) -> Figure:
    """A panel a corruption; bars are 95 % intervals."""
    curves = result["curves"]
    columns = min(columns, len(curves))
    rows = -(-len(curves) // columns)
    figure = new_figure(0.4 + width / columns * 0.78 * rows, width)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    handles: dict[str, Any] = {}  # an ErrorbarContainer, which the stubs do not know as a handle
    for axes, (name, curve) in zip(grid.flat, curves.items(), strict=False):
        plain, *levels = curve["levels"]
        before = LEVELS_BEFORE_UNCHANGED.get(name, 0)
        levels = [*levels[:before], plain, *levels[before:]]
        for measure, style in _ROBUSTNESS.items():
            if drawn := _against_levels(axes, levels, measure, *style):
                handles[style[0]] = drawn
        axes.set_title("\n".join(textwrap.wrap(curve["title"], 28)), fontsize=9, loc="left")
        axes.set_xticks(range(len(levels)), [f"{e['level']}" for e in levels], fontsize=8)
        axes.set_ylim(0, 1.03)
        axes.grid(axis="y", linewidth=0.4)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower left", ncols=3, frameon=False
    )
    return figure


def _against_levels(
    axes: Axes,
    levels: Sequence[dict],
    measure: str,
    title: str,
    colour: str,
    dash: str,
    mark: str,
) -> ErrorbarContainer | None:
    """A line of one measure over the levels, with intervals; None where there is none to draw."""
    points = [
        (place, *(entry[measure][key] for key in ("value", "low", "high")))
        for place, entry in enumerate(levels)
        if measure in entry and entry[measure]["value"] is not None
    ]
    if not points:
        return None
    x, value, low, high = np.array(points, float).T  # without limits: nan, and no bar is drawn
    return axes.errorbar(
        x,
        value,
        yerr=[np.maximum(value - low, 0), np.maximum(high - value, 0)],
        color=colour,
        linestyle=dash,
        marker=mark,
        markersize=4,
        linewidth=1.5,
        capsize=2,
        label=title,
    )


def _png(figure: Figure, title: str, dpi: int) -> bytes:
    """The figure as PNG, the same bytes each time."""
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def robustness(result: dict) -> Markup:
    """The curves of `dermedge robustness` for a page, a panel a corruption."""
    with rc_context(STYLE):
        names = ", ".join(curve["title"] for curve in result["curves"].values())
        return svg(_curves(result, 3, WIDTH), f"Accuracy against {names}, one panel each")


def robustness_png(result: dict) -> bytes:
    """The curves of `dermedge robustness` (PNG), a panel a corruption; bars are 95 % intervals."""
    figure = _curves(result)
    data = result["data"]
    title = (
        f"{result['bundle']['name']} on {part_of(data)}, "
        f"{data['pictures']} pictures; 95 % intervals"
    )
    return _png(figure, title, dpi=120)


_QUALITY = {  # colours of different brightness, so that black and white keeps them apart
    "auc": ("AUC of the reason", "#10454f", "-", "o"),
    "reported": ("reported", "#c2603a", "--", "s"),
    "refused": ("refused", "#8a8a8a", ":", "^"),
}


def quality_png(result: dict) -> bytes:
    """What `dermedge quality` measured (PNG), a panel a corruption.

    Levels on grey ground are unusable, bars are 95 % intervals.
    """
    corruptions = result["corruptions"]
    figure = Figure(figsize=(13.6, 10), layout="constrained")
    grid = figure.subplots(-(-len(corruptions) // 4), 4, squeeze=False, sharey=True)
    for axes in grid.flat[len(corruptions) :]:
        axes.set_visible(False)
    for axes, corruption in zip(grid.flat, corruptions.values(), strict=False):
        levels = corruption["levels"]
        for place, entry in enumerate(levels):
            if entry["unusable"]:
                axes.axvspan(place - 0.5, place + 0.5, color="#eeeae4", linewidth=0)
        for measure, style in _QUALITY.items():
            _against_levels(axes, levels, measure, *style)
        axes.set_title(corruption["title"], fontsize=9, loc="left")
        axes.set_xticks(range(len(levels)), [f"{entry['level']}" for entry in levels], fontsize=8)
        axes.set_xlim(-0.5, len(levels) - 0.5)
        axes.set_ylim(0, 1.02)
        axes.grid(axis="y", linewidth=0.4)
        axes.spines[["top", "right"]].set_visible(False)
    handles, titles = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    data = result["data"]
    title = (
        f"Quality check, {result['bundle']['name']} on {part_of(data)}, "
        f"{data['pictures']} pictures; grey: has to be taken again; 95 % intervals"
    )
    return _png(figure, title, dpi=110)
