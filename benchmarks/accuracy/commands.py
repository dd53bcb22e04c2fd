"""`dermedge evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.arguments import (
    choose_pictures,
    data_arguments,
    folder,
    measure_accuracy,
    positive,
    precision_argument,
    told,
)
from dermedge import DISCLAIMER
from dermedge.cli import Command, one_line
from dermedge.cli.options import bundle_arguments, in_precision, open_bundle
from dermedge.files import write_atomic
from dermedge.text import printable, printable_lines


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    bundle_arguments(parser)
    precision_argument(parser)
    data_arguments(parser, required=True)
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all cores")
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--csv", metavar="FILE", help="write one line a picture")
    parser.add_argument(
        "--roads",
        metavar="FILE.csv",
        help="measure every precision of the bundle in every runtime that is installed, and how "
        "far each is from the first; nothing else is measured",
    )
    parser.add_argument(
        "--table",
        metavar="FILE.csv",
        help="add the figures to this table of results (and those of each class and skin type to "
        "FILE-groups.csv); rows of the same measurement are replaced",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write evaluation.json, pictures.csv and evaluation.html"
    )


def _evaluate(args: argparse.Namespace) -> int:
    from benchmarks.accuracy import evaluate, tables
    from benchmarks.accuracy.chosen import NothingToMeasure

    bundle = in_precision(open_bundle(args), args.precision)
    if args.table:
        tables.read(args.table)  # what is wrong with it is told before all the work
        folder(Path(args.table).parent)
    try:
        measured = choose_pictures(bundle, args)
    except NothingToMeasure as error:
        print(f"dermedge: {one_line(error)}", file=sys.stderr)
        return 1
    if args.roads:
        from benchmarks.accuracy import roads
        from benchmarks.speed.latency import usable_cores

        folder(Path(args.roads).parent)
        found = roads.measure(
            bundle, measured[1], args.threads or usable_cores(), told(bundle, args)
        )
        write_atomic(args.roads, roads.to_csv(found))
        print(printable_lines(roads.table(found)))
        print(f"written: {printable(args.roads)}")
        print(DISCLAIMER)
        return 0
    out = folder(args.out) if args.out else None
    if args.csv:
        folder(Path(args.csv).parent)
    result, rows = measure_accuracy(bundle, measured, args, args.threads)
    if args.csv:
        write_atomic(args.csv, evaluate.to_csv(rows, bundle.manifest.labels))
    if args.table:
        tables.update(args.table, result)
    if args.out:
        from benchmarks.report import page

        title = f"Evaluation of {bundle.manifest.name} on {result['data']['name']}"
        write_atomic(out / "evaluation.json", json.dumps(result, indent=1) + "\n")
        write_atomic(out / "pictures.csv", evaluate.to_csv(rows, bundle.manifest.labels))
        write_atomic(out / "evaluation.html", page.render(title, bundle, evaluation=result))
    if args.json:
        print(json.dumps(result))
    else:
        print(printable_lines(evaluate.table(result)))
        if args.out:
            print(f"written: {printable(out / 'evaluation.html')}, evaluation.json, pictures.csv")
        print(DISCLAIMER)
    return 1 if result["data"]["unreadable"] else 0


EVALUATE = Command(
    summary="measure a bundle's accuracy on a part of a data set",
    arguments=_evaluate_arguments,
    run=_evaluate,
    extra="bench",
)
