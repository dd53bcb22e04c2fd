"""`dermedge evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.commands.arguments import (
    data_arguments,
    file_to_write,
    folder,
    measure_accuracy,
    metadata_fields,
    old_option,
    precision_argument,
    select_pictures,
    thread_count,
)
from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import Bundle
from dermedge.cli import Command, one_line
from dermedge.cli.options import (
    bundle_arguments,
    check_engine,
    engine_arguments,
    in_precision,
    open_bundle,
)
from dermedge.files import write_atomic
from dermedge.text import printable, printable_lines

if TYPE_CHECKING:  # heavy; imported where it runs
    from benchmarks.accuracy.selection import Selection


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    bundle_arguments(parser)
    precision_argument(parser)
    data_arguments(parser, required=True)
    parser.add_argument("--threads", type=thread_count, metavar="N", help="default: all cores")
    engine_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--csv", metavar="FILE", help="write one line a picture")
    parser.add_argument(
        "--executions",
        metavar="FILE.csv",
        help="measure every precision of the bundle in every runtime that is installed, but "
        "TensorRT's engines, and how far each is from the first; nothing else is measured",
    )
    old_option(parser, "--roads", "--executions")
    parser.add_argument(
        "--table",
        metavar="FILE.csv",
        help="add the figures to this table of results (and those of each class and group of "
        "people to FILE-groups.csv); rows of the same measurement are replaced",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write evaluation.json, pictures.csv and evaluation.html"
    )


def _evaluate(args: argparse.Namespace) -> int:
    from benchmarks.accuracy import evaluate
    from benchmarks.accuracy.pool import Cluster
    from benchmarks.accuracy.selection import NothingToMeasure
    from benchmarks.report import text
    from benchmarks.schema import tables

    cluster = Cluster(args.workers, args.ray_address) if check_engine(args) else None
    if args.executions:
        _check_executions(args)
    whole = open_bundle(args)
    bundle = in_precision(whole, args.precision)
    if args.table:
        # What is wrong with them is said before all the work.
        groups = tables.groups_of(args.table)
        for file, columns in ((args.table, tables.COLUMNS), (groups, tables.GROUP_COLUMNS)):
            tables.read(file, columns)
            file_to_write(file)
    try:
        data_set, selection = select_pictures(bundle, args)
    except NothingToMeasure as error:
        print(f"dermedge: {one_line(error)}", file=sys.stderr)
        return 1
    if args.executions:
        return _executions(bundle, selection, args)
    out = folder(args.out) if args.out else None
    if args.csv:
        file_to_write(args.csv)
    result, rows = measure_accuracy(
        bundle, data_set, selection, args, args.threads, cluster=cluster
    )
    pictures = evaluate.to_csv(rows, bundle.manifest.labels)
    try:
        if args.csv:
            write_atomic(args.csv, pictures)
        if args.table:
            tables.update(args.table, result, _other_precision(whole, bundle, args.precision))
        if out:
            _write(out, bundle, result, pictures)
    finally:  # a disk that is full by now does not cost the figures
        print(json.dumps(result) if args.json else printable_lines(text.evaluation(result)))
    if not args.json:
        if out:
            print(f"written: {printable(out / 'evaluation.html')}, evaluation.json, pictures.csv")
        print(DISCLAIMER)
    unread = result["data"]["unreadable"] or (result["ood"] or {}).get("unreadable")
    return 1 if unread else 0


def _other_precision(whole: Bundle, bundle: Bundle, asked: str | None) -> str:
    """The precision that was asked for; "" where the whole bundle's first graphs are of it."""
    first, used = (
        [model.part for model in one.manifest.models.values()] for one in (whole, bundle)
    )
    return "" if first == used else asked or ""


def _check_executions(args: argparse.Namespace) -> None:
    """UserError where another option would be ignored."""
    if args.engine == "ray":
        raise UserError("--executions compares what runs here: leave out --engine")
    if args.precision:
        raise UserError("--executions measures every precision: leave out --precision")
    for option in ("baselines", "tta", "ood", "json", "csv", "table", "out"):
        if getattr(args, option):
            raise UserError(f"--executions measures nothing else: leave out --{option}")


def _write(out: Path, bundle: Bundle, result: dict, pictures: str) -> None:
    """The files of --out; `pictures` is one line a picture."""
    from benchmarks.report import page

    title = f"Evaluation of {bundle.manifest.name} on {result['data']['name']}"
    write_atomic(out / "evaluation.json", json.dumps(result, indent=1) + "\n")
    write_atomic(out / "pictures.csv", pictures)
    write_atomic(out / "evaluation.html", page.render(title, bundle, evaluation=result))


def _executions(bundle: Bundle, selection: Selection, args: argparse.Namespace) -> int:
    from benchmarks.accuracy import executions
    from benchmarks.report import text
    from dermedge.evaluation.provenance import usable_cores

    file_to_write(args.executions)
    threads = args.threads or usable_cores()
    results, unread = executions.measure(bundle, selection, threads, metadata_fields(bundle, args))
    try:
        write_atomic(args.executions, executions.to_csv(results, bundle))
    finally:
        print(printable_lines(text.executions(results)))
    for line in text.unread_and_warnings(unread, selection.warnings):
        print(printable(line))
    print(f"written: {printable(args.executions)}")
    print(DISCLAIMER)
    return 1 if unread else 0


EVALUATE = Command(
    summary="measure a bundle's accuracy on a part of a data set",
    arguments=_evaluate_arguments,
    run=_evaluate,
    extra="bench",
)
