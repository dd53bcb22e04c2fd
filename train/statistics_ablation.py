"""What it costs to feed a backbone with the statistics of another one's training.

`python -m train.statistics_ablation --model efficientnet_lite0 --weights FILE.pth
--data ham10000=HAM10000 --out FILE.json`

The backbone stays as ImageNet left it. A last layer alone learns on its pooled features, as in
`train.group_ablation`: every picture is judged by heads that have not seen its lesion.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from dermedge import UserError, data
from dermedge.cli import call
from dermedge.evaluation import metrics
from dermedge.evaluation.provenance import commit
from dermedge.files import check_writable, write_atomic
from dermedge.image.preprocess import Preprocessing
from dermedge.taxonomy import CLASSES
from train.ablation import add_options, minus, resampled
from train.group_ablation import EPOCHS, FOLDS, judged, pooled
from train.models import IMAGENET, MODELS, build_model
from train.recipe import ClassifierLoss
from train.run import intact
from train.start import start_from

CLASSIFIERS = tuple(name for name, entry in MODELS.items() if entry.kind == "classifier")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.statistics_ablation", description=__doc__
    )
    parser.add_argument(
        "--model", required=True, metavar="NAME", choices=CLASSIFIERS, help=", ".join(CLASSIFIERS)
    )
    parser.add_argument("--weights", required=True, metavar="FILE.pth", help="of ImageNet")
    add_options(parser, "data")
    parser.add_argument(
        "--size", type=int, default=224, metavar="PX", help="of the input (default: 224)"
    )
    add_options(parser, "seeds", "resamples", "out")
    args = parser.parse_args(argv)
    check_writable(args.out)
    data_set = data.load(*data.parse_source(args.data))
    records = [record for record in data_set.records if record.label in CLASSES]
    model = build_model(args.model, CLASSES).eval()
    with intact(Path(args.weights)):
        weights = torch.load(args.weights, map_location="cpu", weights_only=True)
    try:
        start_from(model, weights)
    except ValueError as error:
        raise UserError(f"{args.weights}: {error}") from error
    ways = {"its own": MODELS[args.model].statistics, "ImageNet's": IMAGENET}
    risks = {}
    for way, statistics in ways.items():
        model.mean.copy_(torch.tensor(statistics.mean).view(1, 3, 1, 1))
        model.std.copy_(torch.tensor(statistics.std).view(1, 3, 1, 1))
        features = pooled(records, model, Preprocessing(size=args.size))
        every = [judged(records, features, ClassifierLoss(), seed) for seed in range(args.seeds)]
        risks[way] = np.mean(every, axis=0)
        print(way, file=sys.stderr)
    truth = np.array([bool(record.malignant) for record in records])
    ranked = {way: metrics.Ranking(risk, truth).roc_auc for way, risk in risks.items()}
    own, other = ranked.values()
    figure = resampled(records, args.resamples)
    result = {
        "model": args.model,
        "weights": Path(args.weights).name,
        "data_set": data_set.name,
        "pictures": len(records),
        "size": args.size,
        "folds": FOLDS,
        "epochs": EPOCHS,
        "seeds": args.seeds,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit("+"),
        "malignant_auc": {way: figure(statistic) for way, statistic in ranked.items()},
        "its own minus ImageNet's": figure(minus(own, other)),
    }
    write_atomic(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(call(main))
