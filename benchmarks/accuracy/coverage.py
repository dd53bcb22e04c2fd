"""How often does a 95 % interval hold the truth? `python -m benchmarks.accuracy.coverage`.

Draws the scores of malignant and of benign lesions from two normal distributions whose AUC is
known, asks for the interval that `dermedge evaluate` would print, and counts. Also for the
difference of two classifiers of equal AUC whose scores are alike, as `benchmarks.accuracy.paired`
has it. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import NormalDist

import numpy as np
from tqdm import tqdm

from benchmarks.accuracy import intervals
from dermedge import DISCLAIMER, UserError
from dermedge.cli import call
from dermedge.evaluation.metrics import Ranking, wilson_interval
from dermedge.evaluation.provenance import commit
from dermedge.files import check_writable, write_atomic

AUCS = (0.85, 0.93, 0.97)
SIZES = ((10, 50), (20, 80), (50, 200), (200, 1300))  # malignant, benign
ALIKE = 0.9  # correlation of two classifiers' scores of one lesion, within malignant or benign


def drawn(
    auc: float, sizes: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two classifiers of this AUC, float (2, n), and what is malignant, bool (n,)."""
    malignant = np.repeat([True, False], sizes)
    shared, own = rng.normal(size=malignant.size), rng.normal(size=(2, malignant.size))
    apart = 2**0.5 * NormalDist().inv_cdf(auc)
    return apart * malignant + ALIKE**0.5 * shared + (1 - ALIKE) ** 0.5 * own, malignant


def counted(auc: float, sizes: tuple[int, int], draws: int) -> dict:
    """Of `draws` intervals, shares of those that hold the truth and that lie wholly above it.

    Without those that have no limits, as of an AUC that is 1 in all resamples.
    """
    rng = np.random.default_rng(0)
    found: dict[str, list[tuple[bool, bool]]] = {"auc": [], "difference": []}
    for _ in range(draws):
        scores, malignant = drawn(auc, sizes, rng)
        first, second = (Ranking(mine, malignant).roc_auc for mine in scores)
        each = np.arange(malignant.size)
        for name, truth, figure in (
            ("auc", auc, intervals.interval(first, each)),
            ("difference", 0.0, intervals.difference(first, second, each)),
        ):
            low, high = figure["low"], figure["high"]
            if low is not None and high is not None:
                found[name].append((low <= truth <= high, low > truth))
    rows = {name: _shares(seen) for name, seen in found.items()}
    return {"true_auc": auc, "malignant": sizes[0], "benign": sizes[1], **rows}


def _shares(seen: list[tuple[bool, bool]]) -> dict:
    held, above = np.mean(seen, axis=0).tolist() if seen else (float("nan"),) * 2
    known = wilson_interval(held, len(seen))
    return {
        "intervals": len(seen),
        "held": [round(value, 3) for value in (held, known.low, known.high)],
        "above": round(above, 3),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Write the figures; UserError where the arguments cannot be followed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.coverage",
        description=__doc__,
        epilog=DISCLAIMER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--draws", type=int, default=400, metavar="N", help="of each row (default: 400)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.json", help="the figures")
    args = parser.parse_args(argv)
    if args.draws < 1:
        raise UserError(f"--draws must be 1 or more, got {args.draws}")
    check_writable(args.out)  # said before all the work
    wanted = [(auc, sizes) for auc in AUCS for sizes in SIZES]
    rows = [
        counted(auc, sizes, args.draws) for auc, sizes in tqdm(wanted, unit="row", disable=None)
    ]
    figures = {
        "command": f"python -m benchmarks.accuracy.coverage --draws {args.draws} "
        f"--out {shlex.quote(args.out.name)}",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit("+"),
        "resamples": intervals.RESAMPLES,
        "rows": rows,
    }
    write_atomic(args.out, json.dumps(figures, indent=1) + "\n")
    for row in rows:
        one, pair = row["auc"], row["difference"]
        print(
            f"AUC {row['true_auc']}, {row['malignant']} malignant and {row['benign']} benign: held "
            f"by {one['held'][0]}, wholly above it {one['above']}; difference held by "
            f"{pair['held'][0]}"
        )


if __name__ == "__main__":
    sys.exit(call(main))
