"""Do two devices or runtimes say the same of the same pictures?

`dermedge analyze PICTURES --out FILE.jsonl` writes what one of them says, on any machine; run it
with another `--provider` or on another device, then

    python -m benchmarks.agreement DESKTOP.jsonl OTHER.jsonl --out FILE.json

Pictures are matched by their names. `abcd` counts equal points and colours. `probabilities`,
`malignancy`, `quality` and `abcd_indices` are the largest differences; `analyze` writes six digits,
six, four and all.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from dermedge import DISCLAIMER, UserError
from dermedge.cli import call
from dermedge.files import write_atomic

INDICES = ("asymmetry_index", "border_irregularity")
COMPARED = ("triage", "likely", "lesion", "abcd", "probabilities", "malignancy", "quality")
ALSO_READ = ("timing_ms", "versions")


def read(path: Path, only: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
    """A picture's name to its analysis. Raises UserError where the file is none of `analyze`.

    only : pictures as they were named to `analyze`; the file may hold others of an earlier run.
    """
    analyses: dict[str, dict[str, Any]] = {}
    wanted = None if only is None else {str(Path(name)) for name in only}  # "./a.jpg" is "a.jpg"
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            analysis = json.loads(line)
            if wanted is not None and analysis["image"] not in wanted:
                continue
            # Of whichever system it was written on.
            name = re.split(r"[/\\]", analysis["image"])[-1]
            if name in analyses:
                raise UserError(f"{path} names {name} twice")
            analyses[name] = analysis
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no output of `dermedge analyze --out`") from None
    return analyses


def agreement(ours: dict[str, dict], theirs: dict[str, dict]) -> dict[str, Any]:
    """What is equal, and by how much the rest differs.

    Raises UserError where the two do not name the same pictures, a picture was refused by one of
    them alone, or an analysis is not whole.
    """
    if set(ours) != set(theirs):
        raise UserError("the two files are not of the same pictures")
    refused = [{n for n, a in some.items() if "error" in a} for some in (ours, theirs)]
    if refused[0] != refused[1]:
        raise UserError(f"refused by one alone: {', '.join(sorted(refused[0] ^ refused[1]))}")
    pairs = [(ours[name], theirs[name]) for name in sorted(set(ours) - refused[0])]
    if not pairs:
        raise UserError("there is no analysis to compare")
    for name in sorted(set(ours) - refused[0]):
        for analysis in (ours[name], theirs[name]):
            if missing := [k for k in (*COMPARED, *ALSO_READ) if k not in analysis]:
                raise UserError(
                    f"an analysis of {name} lacks {missing[0]}: give both files as `dermedge "
                    "analyze --out` wrote them"
                )
    if any(a["probabilities"].keys() != b["probabilities"].keys() for a, b in pairs):
        raise UserError("the two files are not of the same classes: analyze with one bundle")

    def largest(values) -> float:
        return float(max(max(map(abs, values(a, b)), default=0.0) for a, b in pairs))

    def counted(value: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        count = sum(value(a) == value(b) for a, b in pairs)
        low, high = binomtest(count, len(pairs)).proportion_ci(0.95, "exact")
        return {"equal": count, "low": round(float(low), 4), "high": round(float(high), 4)}

    def equal(*keys: str) -> dict[str, Any]:
        return counted(lambda analysis: _inside(analysis, keys))

    areas = np.array([[x["lesion"]["area_px"] or 0 for x in pair] for pair in pairs])
    # Where ours finds no lesion, it is a share of theirs.
    whole = np.maximum(np.where(areas[:, 0] > 0, areas[:, 0], areas[:, 1]), 1)
    return {
        "pictures": len(pairs),
        "refused_by_both": len(refused[0]),
        "advice": equal("triage"),
        "likely": equal("likely"),
        "box": equal("lesion", "box"),
        "outline": equal("lesion", "polygons"),
        "abcd": counted(_points),
        "abcd_indices": largest(_index_differences),
        "probabilities": largest(
            lambda a, b: [a["probabilities"][k] - b["probabilities"][k] for k in a["probabilities"]]
        ),
        "malignancy": largest(lambda a, b: [a["malignancy"] - b["malignancy"]]),
        "quality": largest(_score_differences),
        "area_share": float(np.max(abs(areas[:, 0] - areas[:, 1]) / whole)),
        "median_ms": [
            round(float(np.median([p[i]["timing_ms"]["total"] for p in pairs])), 2) for i in (0, 1)
        ],
        "versions": [pairs[0][i]["versions"] for i in (0, 1)],
    }


def _points(analysis: dict[str, Any]) -> list[Any]:
    """What is shown of the ABCD measures."""
    return [analysis["abcd"][name] for name in ("asymmetry", "border", "color", "colors")]


def _score_differences(a: dict[str, Any], b: dict[str, Any]) -> list[float]:
    """Of the picture's quality; what one of them could not measure counts as usual there."""
    ours, theirs = a["quality"]["scores"], b["quality"]["scores"]
    return [ours.get(name, 0.0) - theirs.get(name, 0.0) for name in ours.keys() | theirs.keys()]


def _index_differences(a: dict[str, Any], b: dict[str, Any]) -> list[float]:
    """Of the numbers that the points are made of, where there are any."""
    pairs = [(a["abcd"][name], b["abcd"][name]) for name in INDICES]
    return [x - y for x, y in pairs if x is not None and y is not None]


def _inside(analysis: dict[str, Any], keys: Sequence[str]) -> Any:
    for key in keys:
        analysis = analysis[key]
    return analysis


def main(argv: Sequence[str] | None = None) -> None:
    """Write the figures; UserError where the arguments cannot be followed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.agreement",
        description=__doc__,
        epilog=DISCLAIMER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ours", type=Path, metavar="DESKTOP.jsonl", help="of `dermedge analyze`")
    parser.add_argument("theirs", type=Path, metavar="OTHER.jsonl", help="of the same pictures")
    parser.add_argument("--note", default="", help="what is to be said of the machines")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.json", help="the figures")
    args = parser.parse_args(argv)
    figures = {
        **agreement(read(args.ours), read(args.theirs)),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "note": args.note,
    }
    write_atomic(args.out, json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    raise SystemExit(call(main))
