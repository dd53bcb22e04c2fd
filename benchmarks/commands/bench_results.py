"""`dermedge bench compare` and `dermedge bench validate`: with results, nothing is measured."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.commands.arguments import folder
from dermedge import DISCLAIMER, UserError
from dermedge.files import write_atomic
from dermedge.text import printable, printable_lines


def arguments(parser: argparse.ArgumentParser) -> None:
    """The two as subcommands of `dermedge bench`; `args.kind` says which, None: neither."""
    kinds = parser.add_subparsers(
        title="with results of several devices, nothing is measured", dest="kind", metavar="KIND"
    )
    compare = kinds.add_parser(
        "compare",
        help="put results of several devices into one table and page",
        description="Put results of several devices, or of several versions, into one table and "
        "page: speed, memory, and accuracy against time.",
    )
    compare.add_argument("files", nargs="+", metavar="FILE", help="bench.json of `dermedge bench`")
    compare.add_argument(
        "--out",
        dest="compare_out",
        default="bench-compared",
        metavar="DIR",
        help="folder for compare.csv and compare.html (default: ./bench-compared)",
    )
    compare.add_argument("--title", dest="compare_title", help="of the page")
    compare.add_argument(
        "--json", dest="compare_json", action="store_true", help="the table as JSON, nothing else"
    )
    validate = kinds.add_parser(
        "validate",
        help="say whether results may stand among those of other devices",
        description="Say whether results may stand among those of other devices, and if not, why.",
    )
    validate.add_argument("files", nargs="+", metavar="FILE", help="bench.json of `dermedge bench`")


def run(args: argparse.Namespace) -> int:
    """Compare or validate results. UserError where options of measuring are given."""
    for name, default in args.unset.items():
        if getattr(args, name) != default:
            option = f"--{name.replace('_', '-')}"
            if args.kind == "compare" and name in ("out", "title", "json"):
                # Version 0.1.0 took them there, too.
                print(
                    f"dermedge: {option} stands behind 'compare' now; the old place will go",
                    file=sys.stderr,
                )
                setattr(args, f"compare_{name}", getattr(args, name))
                continue
            raise UserError(
                f"{option} is an option of `dermedge bench`: `dermedge bench {args.kind}` measures "
                f"nothing; what it takes stands behind `{args.kind}`"
            )
    return (_validate if args.kind == "validate" else _compare)(args)


def _validate(args: argparse.Namespace) -> int:
    from benchmarks.report.validate import problems
    from benchmarks.schema import bench_result

    results = {path: bench_result.load(path) for path in dict.fromkeys(args.files)}
    faults = [(path, fault) for path, result in results.items() for fault in problems(result)]
    for path, fault in faults:
        print(printable(f"{path}: {fault}"))
    if not faults:
        print(printable(f"valid: {', '.join(results)}"))
    return 1 if faults else 0


def _compare(args: argparse.Namespace) -> int:
    from benchmarks.report import compare, page
    from benchmarks.schema import bench_result

    results = {path: bench_result.load(path) for path in dict.fromkeys(args.files)}
    # Files of one name in folders of the devices' names, or files that are called after them.
    stems = [Path(path).stem for path in results]
    same = len(set(stems)) < len(stems)
    names = [Path(path).parent.name if same else Path(path).stem for path in results]
    if len(set(names)) < len(names):
        names = list(results)
    named = dict(zip(names, results.values(), strict=True))
    rows = compare.rows(named)
    out = folder(args.compare_out)
    write_atomic(out / "compare.csv", compare.to_csv(rows))
    write_atomic(out / "compare.html", page.render_compared(args.compare_title, named))
    if args.compare_json:
        print(json.dumps(rows))
    else:
        repeats, reasons = compare.repeated(named), compare.incomparable(named)
        print(printable_lines(compare.table(rows, repeats, reasons)))
        print(f"written: {printable(out / 'compare.html')}, compare.csv")
        print(DISCLAIMER)
    return 0
