"""How far segmenters agree with each of the people who outlined a lesion.

`python -m train.outlines_ablation runs/agreed runs/all --data pad_ufes_20=PATH --split FILE.json
--out FILE.json`

On the validation part, each run, or bundle, against the first one named. A picture's figure is the
mean of its Jaccard indices with what each person drew, at the network's size and a probability of
0.5; "measured" is of the pictures on which people agree enough to be measured by.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from dermedge import UserError, data
from dermedge.cli import call
from dermedge.data.records import Record
from dermedge.data.split import Split
from dermedge.evaluation import metrics
from dermedge.evaluation.provenance import commit
from dermedge.files import check_writable, write_atomic
from train.ablation import add_options, minus, resampled
from train.origins import Origin, origin
from train.prepare import read_prepared


@torch.inference_mode()
def agreement(source: Origin, records: Sequence[Record]) -> np.ndarray:
    """Of each picture the mean Jaccard index with its outlines, float64 (N,)."""
    model, _ = source.network("segmenter")
    steps = source.preprocessing("segmenter")
    found = []
    for record in records:
        drawn = [read_prepared(replace(record, mask=path), steps, True) for path in record.outlines]
        square = torch.from_numpy(drawn[0][0])[None]
        inside = (model(square)[0] > 0).numpy()
        masks = np.stack([mask for _, mask in drawn if mask is not None]) > 127
        jaccards = metrics.confusion(np.repeat(inside, len(masks), axis=0), masks).jaccard
        found.append(float(jaccards.mean()))
    return np.array(found)


def mean_of(values: np.ndarray, among: np.ndarray) -> Callable[[np.ndarray], float]:
    """The weighted mean among some of the pictures, for `metrics.bootstrap`; nan: none is drawn."""

    def mean(weights: np.ndarray) -> float:
        total = weights[among].sum()
        return float(values[among] @ weights[among] / total) if total else float("nan")

    return mean


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m train.outlines_ablation", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs, or bundles")
    add_options(parser, "data", "split", "resamples", "out")
    args = parser.parse_args(argv)
    check_writable(args.out)
    part = set(Split.load(args.split).parts["val"])
    data_set = data.load(*data.parse_source(args.data))
    records = [r for r in data_set.records if r.id in part and r.outlines]
    if not records:
        raise UserError(
            f"{args.split}: no picture of its validation part was outlined by several people in "
            f"{args.data}"
        )
    figure = resampled(records, args.resamples)
    groups = {
        "measured": np.array([record.mask is not None for record in records]),
        "all": np.ones(len(records), bool),
    }
    found = {}
    for run in args.runs:
        found[run] = agreement(origin(run), records)
        print(run, file=sys.stderr)
    first = found[args.runs[0]]
    result = {
        "data_set": data_set.name,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit("+"),
        "pictures": {name: int(among.sum()) for name, among in groups.items()},
        "runs": {
            run: {
                name: {
                    "jaccard": figure(mean_of(values, among)),
                    "minus the first": figure(minus(mean_of(values, among), mean_of(first, among))),
                }
                for name, among in groups.items()
                if among.any()
            }
            for run, values in found.items()
        },
    }
    write_atomic(Path(args.out), json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(call(main))
