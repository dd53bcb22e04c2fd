"""The `dermedge train` and `dermedge throughput` commands."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dermedge import UserError
from dermedge.cli import Command

if TYPE_CHECKING:
    from dermedge.data.records import DataSet
    from dermedge.data.split import Split
    from train.recipe import Recipe


def _what_to_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe",
        required=True,
        metavar="NAME",
        help="a recipe of dermedge (a wrong name lists them), or a .toml file",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the recipe, such as optimizer.lr=1e-3; may be repeated",
    )


def _recipe(args: argparse.Namespace) -> Recipe:
    from train.recipe import RecipeError, load_recipe

    try:
        return load_recipe(args.recipe, args.set)
    except RecipeError as error:
        raise UserError(str(error)) from error


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("segmenter", "classifier", "multitask"))
    _what_to_train(parser)
    parser.add_argument(
        "--data",
        required=True,
        action="append",
        metavar="NAME=PATH",
        help="the data set; may be repeated, to train on several",
    )
    parser.add_argument(
        "--out", metavar="RUN", help="folder of the run; what is in it goes on (default: runs/NAME)"
    )
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="FILE",
        help="a frozen split, of one data set or of all of them together; may be repeated; "
        "default: the one that `data check` makes, seed 0",
    )
    parser.add_argument(
        "--split-by-picture",
        action="store_true",
        help="without --split: split although the publisher's table of lesions is missing",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="use a stratified subset of about N pictures, of whole lesions and patients",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="throw away what RUN holds and start again"
    )


def _train(args: argparse.Namespace) -> int:
    from accelerate import PartialState

    from dermedge.data import load_sources, report_lines
    from dermedge.data.joint import join
    from train.data import subset
    from train.loop import Interrupted, train
    from train.recipe import refuse_repeats
    from train.run import holds

    if args.limit is not None and args.limit < 1:
        raise UserError("--limit must be 1 or more")
    recipe = _recipe(args)
    if recipe.kind != args.kind:
        raise UserError(f"recipe {args.recipe} trains a {recipe.kind}, not a {args.kind}")
    out = Path(args.out or f"runs/{recipe.name}")
    if not out.name:  # ".", whose parent would be itself: caches lie beside a run
        out = out.absolute()
    if args.fresh or not (out / "run.json").exists():
        refuse_repeats(recipe)
    data_sets = load_sources(args.data)
    data_set = join(data_sets)
    for line in report_lines(data_set):
        print(line, file=sys.stderr)
    split = _split(args, data_sets, out)
    if args.limit:
        split = subset(data_set, split, args.limit)
    there = out.exists()
    try:
        run = train(recipe, data_set, split, out, fresh=args.fresh)
    except Interrupted as stop:
        how = " (without --fresh)" if args.fresh else ""
        print(f"{stop}; the same command goes on from here{how}", file=sys.stderr)
        return 130
    except UserError:
        # A run that never began would refuse the corrected command as another run.
        mine = not there and holds(out, recipe) and not (out / "checkpoint.pt").exists()
        if mine and PartialState().is_main_process:
            shutil.rmtree(out, ignore_errors=True)
        raise
    state = PartialState()
    state.destroy_process_group()  # left to the exit, gloo's threads can abort the process
    if not state.is_main_process:
        return 0
    scores = ", ".join(f"{name} {value:.3f}" for name, value in run.val.items())
    print(f"{run.folder}: {run.steps} steps of {run.model}; val {scores or 'not measured'}")
    return 0


def _split(args: argparse.Namespace, data_sets: Sequence[DataSet], out: Path) -> Split:
    from dermedge.data.joint import BETWEEN, keyed
    from dermedge.data.split import Split
    from train.data import default_joint_split, default_split

    stored = [Split.load(file) for file in args.split]
    names = [split.data_set for split in stored]
    if len(data_sets) == 1:
        if len(stored) > 1:
            raise UserError("one data set has one split: give --split once")
        return stored[0] if stored else default_split(data_sets[0], out, args.split_by_picture)
    whole = BETWEEN.join(keyed(data_sets))
    if names == [whole]:
        return stored[0]
    if joint := [name for name in names if BETWEEN in name]:
        raise UserError(
            f"--split names the joint split of {joint[0]}: give it alone, with the --data of those "
            f"sets in that order; here they are {whole}"
        )
    frozen = _frozen(stored, keyed(data_sets))
    if len(frozen) < len(stored) or not frozen.keys() <= keyed(data_sets).keys():
        raise UserError(
            f"--split names {', '.join(names)}: give one split for each data set, or the joint one "
            f"of {whole} alone"
        )
    return default_joint_split(data_sets, frozen, out, args.split_by_picture)


def _frozen(stored: Sequence[Split], sources: Mapping[str, DataSet]) -> dict[str, Split]:
    """The splits by source. Of several tables of one's own each takes the one with its pictures.

    Where their pictures have the same ids, in the order given. UserError where that is not sure.
    """
    from dermedge.data.joint import reader_name

    found: dict[str, Split] = {}
    for split in stored:
        keys = [key for key in sources if reader_name(key) == split.data_set]
        count = sum(other.data_set == split.data_set for other in stored)
        ids = {name for names in split.parts.values() for name in names}
        free = [key for key in keys if key not in found]
        fits = [key for key in free if ids.issubset(r.id for r in sources[key].records)]
        if len(fits) > 1 and count < len(keys):
            raise UserError(
                f"a split of {split.data_set} fits {' and '.join(fits)}, whose pictures have the "
                "same ids: give one split for each of them, in their order"
            )
        found[next(iter(fits or free or [split.data_set]))] = split
    return found


def _throughput_arguments(parser: argparse.ArgumentParser) -> None:
    _what_to_train(parser)
    parser.add_argument("--data", required=True, metavar="NAME=PATH", help="the data set")
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="of each turn (default: 10)"
    )
    parser.add_argument(
        "--limit", type=int, default=1000, metavar="N", help="pictures to use (default: 1000)"
    )
    parser.add_argument(
        "--beside",
        choices=("torchvision", "constant"),
        default="torchvision",
        help="compare with torchvision's reference training (default), or the loader and "
        "augmentation on the device with the same network on a constant batch",
    )
    parser.add_argument("--out", metavar="FILE.csv", help="table to add the figures to")


def _throughput(args: argparse.Namespace) -> int:
    from dermedge.data import load, parse_source
    from train.throughput import append_rows, measure, table_before

    if not 0 < args.seconds < 3600:
        raise UserError("--seconds must be more than 0 and less than 3600")
    if args.limit < 2:
        raise UserError("--limit must be 2 or more")
    if args.beside == "constant":
        return _feeds(args)
    if args.out:
        table_before(Path(args.out))
    rows = measure(_recipe(args), load(*parse_source(args.data)), args.seconds, args.limit)
    for row in rows:
        print(
            f"{row['measured']}: {row['ours']} pictures a second, torchvision's reference "
            f"{row['reference']}: {row['ratio']} times as many "
            f"(95 % interval {row['ratio_low']} to {row['ratio_high']})"
        )
    print(f"prepared once, before training: {rows[0]['prepared']} pictures a second")
    if args.out:
        append_rows(rows, Path(args.out))
        print(args.out)
    return 0


def _feeds(args: argparse.Namespace) -> int:
    from dermedge.data import load, parse_source
    from train.feed_speed import COLUMNS, measure_feeds
    from train.throughput import append_rows, table_before

    if args.out:
        table_before(Path(args.out), COLUMNS)
    rows = measure_feeds(_recipe(args), load(*parse_source(args.data)), args.seconds, args.limit)
    for row in rows:
        print(
            f"{row['feed']}: {row['rate']} pictures a second, {row['share']} of the constant batch "
            f"(95 % interval {row['share_low']} to {row['share_high']}); "
            f"augmentation alone {row['augmenting']}"
        )
    print(f"on {row['accelerator'] if row['accelerator'] != '-' else row['processor']}")
    if args.out:
        append_rows(rows, Path(args.out), COLUMNS)
        print(args.out)
    return 0


TRAIN = Command(
    "train a segmenter, a classifier, or both in one network", _train_arguments, _train, "train"
)
THROUGHPUT = Command(
    "measure how fast training is, beside torchvision's reference or a constant batch",
    _throughput_arguments,
    _throughput,
    "train",
)
