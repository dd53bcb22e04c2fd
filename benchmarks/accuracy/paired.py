"""Two bundles on the same pictures: the second's figures minus the first's, paired.

`python -m benchmarks.accuracy.paired OLD/pictures.csv NEW/pictures.csv --data NAME=PATH`, of what
`dermedge evaluate --out` wrote for each. The data set says which pictures show one lesion or
patient: these are drawn together, and both bundles see the same resamples.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.accuracy import intervals
from dermedge import UserError
from dermedge.cli import call
from dermedge.data import load, parse_source
from dermedge.evaluation import metrics
from dermedge.files import read_text

Table = dict[str, dict[str, str]]  # by id, the row of a picture


def read_pictures(path: Path) -> Table:
    """The rows of pictures that could be read, by id. UserError where it is no such table."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        found = {row["id"]: row for row in rows if row["malignancy"]}
        twice = len(rows) - len({row["id"] for row in rows})
        # A spreadsheet writes TRUE, or the word of its language.
        if not {row["malignant"].lower() for row in found.values()} <= {"true", "false", ""}:
            raise KeyError("malignant")
    except (OSError, KeyError, TypeError, AttributeError, csv.Error):
        raise UserError(f"{path} is no pictures.csv of `dermedge evaluate --out`") from None
    if twice:
        raise UserError(f"{path}: {twice} rows name a picture again: evaluate the bundle again")
    for name, row in found.items():
        for column in ("malignancy", "jaccard"):
            if not _is_share(row.get(column) or "0"):
                raise UserError(
                    f"{path}: the {column} of {name} is {row[column]!r}, no number from 0 to 1; a "
                    "spreadsheet may have changed it: take the file as it was written"
                )
    if not found:
        raise UserError(f"{path} says of no picture how malignant it is: nothing to compare")
    return found


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1.0001  # a sum of shares, rounded
    except ValueError:
        return False


def compare(old: Table, new: Table, clusters: dict[str, int]) -> dict[str, intervals.Figure]:
    """By measure, new minus old; malignant AUC, and the balanced accuracy of the class named.

    The latter over the classes that both know. Mean Jaccard, too, of the pictures whose outline
    both tables measure, if there are any.

    Raises UserError where the tables are not of the same pictures, do not say the same of what they
    show, or these are not of the data set.
    """
    if old.keys() != new.keys():
        raise UserError(
            f"the tables are of {len(old)} and {len(new)} pictures, which are not the same: "
            "evaluate both bundles on one part"
        )
    if strange := sorted(old.keys() - clusters.keys()):
        raise UserError(f"{len(strange)} pictures are not in the data set (first: {strange[0]})")
    if other := [name for name in sorted(old) if _truth(old[name]) != _truth(new[name])]:
        raise UserError(
            f"the tables do not say the same of what {len(other)} pictures show (first: "
            f"{other[0]}): evaluate both bundles on the data set as it is now"
        )
    certain = [name for name in sorted(old) if old[name]["malignant"]]
    known = _classes(old) & _classes(new)
    named = [name for name in sorted(old) if old[name]["label"] in known]
    drawn = [name for name in sorted(old) if old[name].get("jaccard") and new[name].get("jaccard")]
    classes = sorted({old[name]["label"] for name in named})
    malignant = np.array([old[name]["malignant"].lower() == "true" for name in certain])
    truth = np.array([classes.index(old[name]["label"]) for name in named], int)

    def auc(table: Table) -> Callable[[np.ndarray], float]:
        risks = np.array([float(table[name]["malignancy"]) for name in certain])
        return metrics.Ranking(risks, malignant).roc_auc

    def accuracy(table: Table) -> Callable[[np.ndarray], float]:
        # A class that no picture here shows is wrong for each of them.
        likely = [table[name]["likely"] for name in named]
        numbers = np.array([classes.index(k) if k in classes else len(classes) for k in likely])
        return lambda weights: metrics.balanced_accuracy(numbers, truth, len(classes) + 1, weights)

    def jaccard(table: Table) -> Callable[[np.ndarray], float]:
        return intervals.weighted_mean(np.array([float(table[name]["jaccard"]) for name in drawn]))

    return {
        measure: intervals.difference(
            of(new), of(old), np.array([clusters[name] for name in names], int)
        )
        for measure, of, names in (
            ("malignant_auc", auc, certain),
            ("likely_balanced_accuracy", accuracy, named),
            ("jaccard", jaccard, drawn),
        )
        if names or measure != "jaccard"
    }


def _classes(table: Table) -> set[str]:
    """What the bundle behind a table knows."""
    columns = next(iter(table.values()))
    return {name.removeprefix("p_") for name in columns if name and name.startswith("p_")}


def _truth(row: dict[str, str]) -> tuple[str, str]:
    """Diagnosis, and whether it is malignant; a spreadsheet writes TRUE."""
    return row["label"], row["malignant"].lower()


def main(argv: Sequence[str] | None = None) -> None:
    """Print the differences; UserError where the arguments cannot be followed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.paired", description=__doc__
    )
    parser.add_argument("old", metavar="OLD.csv", help="pictures.csv of the first bundle")
    parser.add_argument("new", metavar="NEW.csv", help="pictures.csv of the second")
    parser.add_argument("--data", required=True, metavar="NAME=PATH", help="that both are of")
    args = parser.parse_args(argv)
    data_set = load(*parse_source(args.data))
    clusters, kind = intervals.clusters(data_set.records, data_set.same)
    old, new = (read_pictures(Path(path)) for path in (args.old, args.new))
    print(f"{len(old)} pictures; 95 % intervals: bootstrap over {kind}")
    if alone := sorted(_classes(old) ^ _classes(new)):
        print(f"not in the balanced accuracy, as one bundle alone knows them: {', '.join(alone)}")
    for measure, figure in compare(old, new, clusters).items():
        value, low, high = (
            "-" if figure[key] is None else f"{figure[key]:+.3f}"
            for key in ("value", "low", "high")
        )
        print(f"{measure} {value} ({low} to {high})")


if __name__ == "__main__":
    sys.exit(call(main))
