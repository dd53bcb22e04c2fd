"""How well and how fast a bundle's classifier is at other input sizes than its own.

`python -m train.size_ablation --bundle dermoscopy --modality dermoscopic --data ham10000=HAM10000
--split FILE.json --sizes 192 256 288 --out FILE.json`

On the validation part, with the weights as they are: what another size would bring without learning
at it. Balanced accuracy is that of the most probable class, all classes taken as equally frequent.
Milliseconds are of one picture by PyTorch on one thread, sizes in turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from dermedge import UserError, data
from dermedge.cli import call
from dermedge.data.split import Split
from dermedge.evaluation import metrics
from dermedge.evaluation.provenance import commit
from dermedge.files import check_writable, write_atomic
from dermedge.taxonomy import MALIGNANT
from train.ablation import add_options, minus, resampled
from train.models import Normalized, complexity
from train.origins import origin
from train.prepare import read_prepared

_PASSES = 30


@torch.inference_mode()
def milliseconds(model: Normalized, sizes: Sequence[int]) -> dict[int, float]:
    """By size, the median time of one picture."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pictures = {size: torch.zeros(1, size, size, 3, dtype=torch.uint8) for size in sizes}
    spent: dict[int, list[float]] = {size: [] for size in sizes}
    for turn in range(_PASSES + 1):
        for size, picture in pictures.items():
            begun = time.perf_counter()
            model(picture)
            if turn:  # the first is slower
                spent[size].append(1000 * (time.perf_counter() - begun))
    torch.set_num_threads(threads)
    return {size: round(float(np.median(values)), 2) for size, values in spent.items()}


def log_prior(prior: Mapping[str, float], labels: Sequence[str]) -> np.ndarray:
    """What the log-probabilities carry of each class, float64 (K,).

    0 for a class that was never drawn: its share of 0 would put it above all others.
    """
    shares = [prior.get(label, 1 / len(labels)) for label in labels]
    return np.array([np.log(share) if share > 0 else 0.0 for share in shares])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m train.size_ablation", description=__doc__)
    add_options(parser, "bundle", "data", "modality", "split")
    parser.add_argument(
        "--sizes", required=True, type=int, nargs="+", metavar="PX", help="multiples of 32"
    )
    add_options(parser, "resamples", "out")
    args = parser.parse_args(argv)
    check_writable(args.out)
    source = origin(args.bundle)
    (model, labels), own = source.network("classifier"), source.preprocessing("classifier")
    if model.metadata or own.crop:
        raise UserError(f"{args.bundle}: for classifiers of whole pictures without metadata")
    part = set(Split.load(args.split).parts["val"])
    data_set = data.load(*data.parse_source(args.data))
    records = [
        record
        for record in data_set.records
        if record.id in part and record.label in labels and args.modality in (None, record.modality)
    ]
    if not records:
        raise UserError(f"{args.split}: no picture of its validation part is in {args.data}")
    sizes = sorted({own.size, *args.sizes})
    prior = log_prior(source.prior, labels)
    malignant = [label in MALIGNANT for label in labels]
    truth = np.array([labels.index(str(record.label)) for record in records])
    figure = resampled(records, args.resamples)

    def statistics(size: int) -> dict:
        found = []
        with torch.inference_mode():
            for at in range(0, len(records), 16):
                steps = replace(own, size=size)
                squares = [read_prepared(r, steps, False)[0] for r in records[at : at + 16]]
                found.append(model(torch.from_numpy(np.stack(squares))).double())
        logits = torch.cat(found)
        risk = torch.softmax(logits, dim=1)[:, malignant].sum(dim=1).numpy()
        likely = (logits.numpy() - prior).argmax(axis=1)
        return {
            "malignant_auc": metrics.Ranking(risk, np.array(malignant)[truth]).roc_auc,
            "balanced_accuracy": lambda weights: metrics.balanced_accuracy(
                likely, truth, len(labels), weights
            ),
        }

    by_size = {}
    for size in sizes:
        by_size[size] = statistics(size)
        print(f"{size} px", file=sys.stderr)

    spent = milliseconds(model, sizes)
    result = {
        "bundle": source.title,
        "data_set": data_set.name,
        "modality": args.modality,
        "pictures": len(records),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit("+"),
        "sizes": {
            size: {
                "macs": complexity(model, size).macs,
                "ms": spent[size],
                **{name: figure(statistic) for name, statistic in found.items()},
                "minus its own": {
                    name: figure(minus(statistic, by_size[own.size][name]))
                    for name, statistic in found.items()
                },
            }
            for size, found in by_size.items()
        },
    }
    write_atomic(Path(args.out), json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(call(main))
