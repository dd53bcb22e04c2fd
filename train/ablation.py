"""What the ablation scripts share: options, and the intervals of their figures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from dermedge.data.records import Record
from dermedge.data.split import group_records
from dermedge.evaluation import metrics

Statistic = Callable[[np.ndarray], float]  # of the weights of a resample, float (pictures,)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {count}")
    return count


_OPTIONS: dict[str, dict[str, Any]] = {
    "bundle": {"required": True, "help": "a file, or the name of one that comes with dermedge"},
    "data": {"required": True, "metavar": "NAME=PATH", "help": "the data set"},
    "modality": {
        "choices": ("dermoscopic", "clinical"),
        "help": "pictures of this kind alone (default: all)",
    },
    "split": {
        "required": True,
        "metavar": "FILE.json",
        "help": "whose validation part is measured on",
    },
    "seeds": {
        "type": _count,
        "default": 3,
        "metavar": "N",
        "help": "trainings, averaged (default: 3)",
    },
    "resamples": {
        "type": _count,
        "default": 1000,
        "metavar": "N",
        "help": "of the intervals (default: 1000)",
    },
    "out": {"required": True, "metavar": "FILE.json", "help": "the figures"},
}


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Those of the names, of the options that more than one script has."""
    for name in names:
        parser.add_argument(f"--{name}", **_OPTIONS[name])


def resampled(records: Sequence[Record], resamples: int) -> Callable[[Statistic], dict]:
    """What gives a statistic of the records its interval; lesions and patients are drawn whole."""
    groups = enumerate(group_records(records))
    numbers = {record.id: number for number, group in groups for record in group}
    clusters = np.array([numbers[record.id] for record in records])
    return lambda of: asdict(metrics.bootstrap(of, len(records), clusters, resamples))


def minus(one: Statistic, other: Statistic) -> Statistic:
    return lambda weights: one(weights) - other(weights)
