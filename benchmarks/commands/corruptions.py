"""`dermedge robustness` and `dermedge quality`."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

from benchmarks.commands.arguments import (
    command,
    folder,
    old_option,
    part_arguments,
    precision_argument,
    select_pictures,
    thread_count,
)
from dermedge import DISCLAIMER
from dermedge.cli import Command
from dermedge.cli.options import bundle_arguments, in_precision, open_bundle
from dermedge.files import write_atomic
from dermedge.text import printable, printable_lines


def _shared_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """What the commands that corrupt pictures take."""
    bundle_arguments(parser)
    precision_argument(parser)
    part_arguments(parser, required=True)
    parser.set_defaults(baselines=False)  # which `select_pictures` asks for
    parser.add_argument("--threads", type=thread_count, metavar="N", help="default: all cores")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help=f"for {name}.json, .csv and .png"
    )


def _robustness_arguments(parser: argparse.ArgumentParser) -> None:
    _shared_arguments(parser, "robustness")
    parser.add_argument(
        "--corruptions",
        nargs="+",
        metavar="NAME",
        help="jpeg, blur, light, cast, noise, rotation, crop (default: all)",
    )
    old_option(parser, "--changes", "--corruptions", nargs="+")


def _robustness(args: argparse.Namespace) -> int:
    from benchmarks.corruptions import robustness
    from benchmarks.report import corruption_plots, text
    from dermedge.evaluation.provenance import usable_cores

    bundle = in_precision(open_bundle(args), args.precision)
    data_set, selection = select_pictures(bundle, args)
    names = args.corruptions or tuple(robustness.CORRUPTIONS)
    robustness.check_names(names)
    folder(args.out)  # what is wrong with it is said before all the work
    threads = args.threads or usable_cores()
    result = robustness.robustness(bundle, data_set, selection, names, threads, command())
    table, plot = robustness.to_csv(result), corruption_plots.robustness_png(result)
    return _deliver(args.out, "robustness", result, table, plot, text.robustness(result))


def _quality_arguments(parser: argparse.ArgumentParser) -> None:
    _shared_arguments(parser, "quality")


def _gate_arguments(parser: argparse.ArgumentParser) -> None:
    _shared_arguments(parser, "gate")


def _quality(args: argparse.Namespace, name: str = "quality") -> int:
    """Measure, and write files called `name`."""
    from benchmarks.corruptions import quality_check
    from benchmarks.report import corruption_plots, text
    from dermedge.evaluation.provenance import usable_cores

    bundle = in_precision(open_bundle(args), args.precision)
    data_set, selection = select_pictures(bundle, args)
    folder(args.out)  # what is wrong with it is said before all the work
    threads = args.threads or usable_cores()
    result = quality_check.quality_check(bundle, data_set, selection, threads, command())
    table, plot = quality_check.to_csv(result), corruption_plots.quality_png(result)
    return _deliver(args.out, name, result, table, plot, text.quality(result))


def _deliver(where: str, name: str, result: dict, table: str, plot: bytes, shown: str) -> int:
    """Write NAME.json, .csv and .png, and print `shown`; the exit status."""
    out = Path(where)
    try:
        write_atomic(out / f"{name}.json", json.dumps(result, indent=1) + "\n")
        write_atomic(out / f"{name}.csv", table)
        write_atomic(out / f"{name}.png", plot)
    finally:  # a disk that is full by now does not cost the figures
        print(printable_lines(shown))
    print(f"written: {printable(out / name)}.json, {name}.csv, {name}.png")
    print(DISCLAIMER)
    return 1 if result["data"]["unreadable"] else 0


ROBUSTNESS = Command(
    summary="measure how accuracy falls as pictures get worse",
    arguments=_robustness_arguments,
    run=_robustness,
    extra="bench",
)
QUALITY = Command(
    summary="measure how well the quality check separates bad pictures from good ones",
    arguments=_quality_arguments,
    run=_quality,
    extra="bench",
)
# The name of version 0.1.0, whose files were called so, too.
GATE = Command(
    summary=QUALITY.summary,
    arguments=_gate_arguments,
    run=partial(_quality, name="gate"),
    extra="bench",
    renamed="quality",
)
