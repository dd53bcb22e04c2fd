"""What the commands of this room share: arguments, and what is made of them."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from dermedge.bundle.bundle import PRECISIONS


def data_arguments(parser: argparse._ActionsContainer, required: bool) -> None:
    """What to measure the accuracy on, and how."""
    parser.add_argument(
        "--data",
        required=required,
        metavar="NAME=PATH",
        help="the data set to measure the accuracy on",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help="part of the data set (default: test)",
    )
    parser.add_argument(
        "--split-file",
        metavar="FILE",
        help="split to use; default: the bundle's own, else one made with seed 0",
    )
    parser.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="measure on a fixed subset of N pictures, chosen by a hash of their ids",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also measure Otsu's threshold, and colour statistics with logistic regression",
    )
    parser.add_argument(
        "--tta", action="store_true", help="mean over the picture and its three mirror images"
    )
    parser.add_argument(
        "--no-metadata",
        action="store_true",
        help="withhold age, sex and site from a classifier that can take them",
    )
    parser.add_argument(
        "--unlike",
        metavar="FOLDER",
        help="pictures that show no lesion, a folder a kind; how well are they told apart? "
        "`python -m benchmarks.pictures.unlike` makes some",
    )


def precision_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="of all networks (default: the bundle's first)"
    )


def positive(text: str) -> int:
    """A whole number from 1, as the type of an argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def folder(path: str | Path) -> Path:
    """The folder, made where it was missing."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def command() -> str:
    """The command as it was typed; of a path that leads elsewhere only the last name.

    Where somebody keeps pictures is nobody else's business, and differs on the next machine.
    """

    def here(word: str) -> str:
        name, sign, path = word.rpartition("=")
        outside = os.path.isabs(path) or path.startswith("..")
        if outside and not os.path.relpath(path).startswith(".."):
            path, outside = os.path.relpath(path), False
        return name + sign + (os.path.basename(os.path.normpath(path)) if outside else path)

    return shlex.join(["dermedge", *map(here, sys.argv[1:])])


def choose_pictures(bundle, args: argparse.Namespace):
    """The data set, and what of it is to be measured."""
    from benchmarks.accuracy.chosen import choose
    from dermedge.data import load, parse_source

    data_set = load(*parse_source(args.data))
    part = args.split or "test"
    return data_set, choose(data_set, bundle, part, args.split_file, args.limit, args.baselines)


def told(bundle, args: argparse.Namespace) -> tuple[str, ...]:
    """What the classifier is told beside the picture."""
    model = bundle.manifest.models.get("classifier")
    return () if model is None or args.no_metadata else model.metadata


def measure_accuracy(bundle, measured, args: argparse.Namespace, threads: int | None, roads=None):
    """What `evaluate` returns of what `choose_pictures` chose; `threads` None: all cores."""
    from benchmarks.accuracy.evaluate import evaluate
    from benchmarks.speed.latency import usable_cores

    data_set, chosen = measured
    return evaluate(
        bundle,
        data_set,
        chosen,
        baselines=args.baselines,
        threads=threads or usable_cores(),
        command=command(),
        views=4 if args.tta else 1,
        metadata=not args.no_metadata,
        unlike=args.unlike,
        roads=roads,
    )
