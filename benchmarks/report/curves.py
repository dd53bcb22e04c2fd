"""Learning curves of training runs in one picture.

`python -m benchmarks.report.curves RUN... --out PNG`.

A panel a loss or validation score, a line a run. Lines differ in dash and mark and carry their
name at the end, so that the picture is read in black and white as well.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dermedge import UserError
from dermedge.cli import call
from dermedge.files import read_text, write_atomic

# Of colours that also differ in brightness.
_LOOKS = (
    ("#10454f", "-", "o"),
    ("#c2603a", "--", "s"),
    ("#5d8a3a", "-.", "^"),
    ("#8f6fb0", ":", "D"),
    ("#b08a1e", (0, (6, 1, 1, 1, 1, 1)), "v"),
    ("#333333", (0, (3, 1)), "P"),
    ("#2f7fb5", (0, (1, 2)), "X"),
    ("#a03060", (0, (8, 3)), "*"),
)
_COLUMNS = 3  # panels side by side
_BINS = 4  # points an epoch that a training loss is averaged to
_NAMES = {
    "bce": "cross-entropy of pixels",
    "jaccard": "soft Jaccard loss",
    "dice": "soft Dice loss",
    "l1": "mean absolute difference",
    "val_jaccard": "Jaccard",
    "val_auc": "AUC, mean over classes",
    "val_balanced_accuracy": "balanced accuracy",
    "val_mean": "mean of Jaccard and AUC",
}

Log = dict[str, list[tuple[int, float]]]  # (step, value) by column of a log.csv
Curve = tuple[np.ndarray, np.ndarray]  # epochs, values


def read_log(run: Path) -> Log:
    """The losses and validation figures in the log.csv of a training run.

    Raises UserError where it is missing or no such table.
    """
    log = _columns(run)
    log.pop("epoch", None)
    return log


def _columns(run: Path) -> Log:
    path = run / "log.csv"
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        return {
            name: [(int(row["step"]), float(row[name])) for row in rows if row[name]]
            for name in (rows[0] if rows else {})
            if name not in ("step", "lr")
        }
    except OSError:
        raise UserError(f"{path} is missing: give a folder that `dermedge train` made") from None
    except (ValueError, KeyError, TypeError, csv.Error):
        raise UserError(f"{path} is no log of `dermedge train`") from None


def curves(run: Path) -> dict[str, Curve]:
    """Epochs and values of each column of the run's log that was filled; losses are averaged.

    Raises UserError where the log is missing, or not one epoch was validated yet.
    """
    log = {name: np.array(points) for name, points in _columns(run).items() if points}
    begun = {int(step): number for step, number in log.pop("epoch", ())}  # from 0
    scores = [points for name, points in log.items() if name.startswith("val_")]
    if not scores:
        raise UserError(f"{run}: no epoch has ended yet; train on")
    # A validation ends an epoch, but not each epoch ends with one.
    first = int(scores[0][0, 0])
    epoch = first / (begun[first] + 1)  # steps
    found = {}
    for name, points in log.items():
        epochs, values = points[:, 0] / epoch, points[:, 1]
        if not name.startswith("val_"):
            places = np.unique(np.ceil(epochs * _BINS), return_inverse=True)[1]
            count = np.bincount(places)
            whole = count > np.median(count) / 2  # the last one may have begun only now
            epochs, values = (
                np.bincount(places, part)[whole] / count[whole] for part in (epochs, values)
            )
        found[name] = (epochs, values)
    return found


def plot(runs: Sequence[tuple[str, dict[str, Curve]]]) -> bytes:
    """The picture (PNG) of named runs, each with what `curves` gave; at most eight."""
    names = list(dict.fromkeys(name for _, found in runs for name in found))
    names.sort(key=lambda name: not name.startswith("val_"))
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, names, strict=False):
        ends = []
        for (run, found), (colour, dash, mark) in zip(runs, _LOOKS, strict=False):
            if name not in found:
                continue
            epochs, values = found[name]
            axes.plot(
                epochs,
                values,
                color=colour,
                linestyle=dash,
                linewidth=1.6,
                marker=mark if name.startswith("val_") else None,
                markersize=4,
            )
            ends.append((epochs[-1], values[-1], f"{run} {values[-1]:.3f}", colour))
        kind = "validation: " if name.startswith("val_") else "training: "
        axes.set_title(
            kind + _NAMES.get(name, name.removeprefix("val_").replace("_", " ")),
            fontsize=10,
            loc="left",
        )
        axes.set_xlabel("epoch")
        axes.set_xlim(left=0)
        axes.grid(linewidth=0.4)
        axes.spines[["top", "right"]].set_visible(False)
        _label(axes, ends)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _label(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Write each line's name right of the panel, in the order of the ends, none upon another."""
    low, high = axes.get_ylim()
    gap = 0.075 * (high - low)
    ends = sorted(ends, key=lambda end: end[1])
    heights = [end[1] for end in ends]
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + gap)
    # What was pushed above the panel comes down again, and pushes the others.
    top = high
    for place in reversed(range(len(heights))):
        heights[place] = min(heights[place], top)
        top = heights[place] - gap
    axes.set_ylim(low, high)
    right = axes.get_xlim()[1]
    for (x, y, text, colour), height in zip(ends, heights, strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(right * 1.03, height),
            textcoords="data",
            color=colour,
            fontsize=8.5,
            va="center",
            annotation_clip=False,
            parse_math=False,  # a run's folder may have a $ in its name
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1},
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture that the arguments ask for; UserError where they cannot be followed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report.curves", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder that `dermedge train` made")
    parser.add_argument("--out", required=True, metavar="FILE.png", help="the picture")
    args = parser.parse_args(argv)
    if len(args.runs) > len(_LOOKS):
        raise UserError(f"at most {len(_LOOKS)} runs can be told apart, got {len(args.runs)}")
    folders = [Path(run).resolve() for run in args.runs]
    write_atomic(args.out, plot([(folder.name, curves(folder)) for folder in folders]))


if __name__ == "__main__":
    sys.exit(call(main))
