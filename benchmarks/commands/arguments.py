"""Arguments that the commands of this room share, and what is made of them."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import PRECISIONS
from dermedge.files import check_folder, check_writable
from dermedge.runtime import MOST_THREADS
from dermedge.text import printable

if TYPE_CHECKING:  # heavy; a command imports them when it runs
    from benchmarks.accuracy.figures import Row
    from benchmarks.accuracy.pool import Cluster
    from benchmarks.accuracy.selection import Selection
    from dermedge.data import DataSet
    from dermedge.runtime import ExecutionConfig


MODALITIES = ("dermoscopic", "clinical")  # of `dermedge.data.Record`


def part_arguments(parser: argparse._ActionsContainer, required: bool) -> None:
    """What `select_pictures` selects from, and what of it."""
    parser.add_argument(
        "--data", required=required, metavar="NAME=PATH", help="the data set to measure on"
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
        "--modality",
        choices=MODALITIES,
        help="pictures of this kind alone, where the data set has both",
    )
    parser.add_argument(
        "--leave-out",
        metavar="FILE.csv",
        help="do not measure on what this table names in its column id, lesion_id or patient_id",
    )
    parser.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="measure on a fixed subset of N pictures, selected by a hash of their ids",
    )


def data_arguments(parser: argparse._ActionsContainer, required: bool) -> None:
    """What to measure the accuracy on, and how."""
    part_arguments(parser, required)
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also measure Otsu's threshold, colour statistics with logistic regression, and "
        "masks of a second person where the data set has them",
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
        "--ood",
        metavar="FOLDER",
        help="out-of-distribution pictures, which show no lesion, a folder a kind: how well are "
        "they recognised? `python -m benchmarks.corruptions.out_of_distribution` makes some",
    )
    old_option(parser, "--unlike", "--ood")


class _OldOption(argparse.Action):
    """An option's name of version 0.1.0: works, and says what it is called now."""

    def __init__(self, option_strings: Sequence[str], dest: str, new: str, nargs: str | int | None):
        super().__init__(
            option_strings, dest, nargs, default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        self.new = new

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        print(
            f"dermedge: {option_string} is called {self.new} now; the old name will go",
            file=sys.stderr,
        )
        setattr(namespace, self.dest, True if self.nargs == 0 else values)


def old_option(
    parser: argparse._ActionsContainer, old: str, new: str, nargs: str | int | None = None
) -> None:
    """Let `old` stand for the option `new` for one version; `nargs` is 0 for a switch."""
    dest = new.removeprefix("--").replace("-", "_")
    parser.add_argument(old, dest=dest, action=_OldOption, new=new, nargs=nargs)


def precision_argument(parser: argparse.ArgumentParser) -> None:
    """The option that `in_precision` reads."""
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="of all networks (default: the bundle's first)"
    )


def positive(text: str) -> int:
    """A whole number from 1, as the type of an argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def thread_count(text: str) -> int:
    """A number of threads from 1, as the type of an argument."""
    value = positive(text)
    if value > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"must be 1 to {MOST_THREADS}, got {value}")
    return value


def folder(path: str | Path) -> Path:
    """The folder, made where it was missing. OSError where nothing can be written into it."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    check_folder(path)
    return path


def file_to_write(path: str | Path) -> Path:
    """The file, in a folder that is made where it was missing; said before all the work.

    UserError where a folder has its name, OSError where it could not be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    check_writable(path)
    return path


def command() -> str:
    """The command as it was typed; of a path that leads elsewhere only the last name.

    Where somebody keeps pictures is nobody else's business, and differs on the next machine.
    """

    def here(word: str) -> str:
        # "--data=csv=PATH" names both; folders of a path may have a "=", too.
        name = "".join(re.findall(r"^(?:--[\w-]+=)?(?:[^=/\\]+=)?", word))
        path = os.path.expanduser(word.removeprefix(name))
        if os.path.isabs(path) or path.startswith(".."):
            try:
                inside = os.path.relpath(path)
            except ValueError:  # on another drive of Windows
                inside = ".."
            outside = inside.startswith("..")
            path = os.path.basename(os.path.normpath(path)) if outside else inside
        return name + path

    return shlex.join(["dermedge", *map(here, sys.argv[1:])])


def select_pictures(bundle: Bundle, args: argparse.Namespace) -> tuple[DataSet, Selection]:
    """The data set, and what of it is to be measured."""
    from benchmarks.accuracy.selection import select
    from benchmarks.accuracy.subset import Subset
    from dermedge.data import load, parse_source, report_lines

    data_set = load(*parse_source(args.data))
    part = args.split or "test"
    subset = Subset(args.modality, Path(args.leave_out) if args.leave_out else None)
    selection = select(data_set, bundle, part, args.split_file, args.limit, args.baselines, subset)
    for line in report_lines(data_set):
        print(printable(line), file=sys.stderr)
    return data_set, selection


def any_unread(evaluation: dict) -> bool:
    """Whether a picture could not be read that was to be measured, or to show no lesion."""
    ood = evaluation["ood"] or {}
    return bool(evaluation["data"]["unreadable"] or ood.get("unreadable"))


def metadata_fields(bundle: Bundle, args: argparse.Namespace) -> tuple[str, ...]:
    """What the classifier gets beside the picture."""
    model = bundle.manifest.models.get("classifier")
    return () if model is None or args.no_metadata else model.metadata


def measure_accuracy(
    bundle: Bundle,
    data_set: DataSet,
    selection: Selection,
    args: argparse.Namespace,
    threads: int | None,
    executions: Mapping[str, ExecutionConfig] | None = None,
    cluster: Cluster | None = None,
) -> tuple[dict, list[Row]]:
    """What `evaluate` returns of what `select_pictures` selected; `threads` None: all cores."""
    from benchmarks.accuracy.evaluate import Options, evaluate
    from dermedge.evaluation.provenance import usable_cores

    options = Options(
        baselines=args.baselines,
        threads=threads or usable_cores(),
        command=command(),
        views=4 if args.tta else 1,
        metadata=not args.no_metadata,
        ood=args.ood,
        executions=executions,
        cluster=cluster,
    )
    return evaluate(bundle, data_set, selection, options)
