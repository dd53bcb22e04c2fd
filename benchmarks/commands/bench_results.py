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
    files = (
        "bench.json of `dermedge bench`, or a form about a phone (.toml) that a person filled in"
    )
    compare.add_argument("files", nargs="+", metavar="FILE", help=files)
    compare.add_argument(
        "--out",
        dest="compare_out",
        default="bench-compared",
        metavar="DIR",
        help="folder for compare.csv and compare.html, and phones.csv where there are forms about "
        "phones (default: ./bench-compared)",
    )
    compare.add_argument("--title", dest="compare_title", metavar="TITLE", help="of the page")
    compare.add_argument(
        "--json",
        dest="compare_json",
        action="store_true",
        help="the table of what was measured as JSON, nothing else",
    )
    validate = kinds.add_parser(
        "validate",
        help="say whether results may stand among those of other devices",
        description="Say whether results may stand among those of other devices, and if not, why.",
    )
    validate.add_argument("files", nargs="+", metavar="FILE", help=files)


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
    from benchmarks.schema import bench_result, phone

    faults: list[tuple[str, str]] = []
    for path in dict.fromkeys(args.files):
        if _is_phone(path):
            found = phone.problems(phone.load(path))
        else:
            found = problems(bench_result.load(path))
        faults += [(path, fault) for fault in found]
    for path, fault in faults:
        print(printable(f"{path}: {fault}"))
    if not faults:
        print(printable(f"valid: {', '.join(dict.fromkeys(args.files))}"))
    return 1 if faults else 0


def _is_phone(path: str) -> bool:
    from benchmarks.schema.phone import SUFFIX

    return Path(path).suffix.lower() == SUFFIX


def _phones(paths: list[str]) -> dict[str, dict[str, object]]:
    """Name to answers of forms about phones; UserError where one has a problem."""
    from benchmarks.schema import phone

    forms: dict[str, dict[str, object]] = {}
    for path in paths:
        content = phone.load(path)
        for problem in phone.problems(content):
            raise UserError(f"{path}: {problem}; `dermedge bench validate` says all")
        name = path if Path(path).stem in forms else Path(path).stem
        forms[name] = phone.answers(content)
    return forms


def _compare(args: argparse.Namespace) -> int:
    from benchmarks.report import compare, page
    from benchmarks.schema import bench_result

    paths = list(dict.fromkeys(args.files))
    results = {path: bench_result.load(path) for path in paths if not _is_phone(path)}
    if not results:
        raise UserError("forms about phones stand beside what was measured: give a bench.json, too")
    phones = _phones([path for path in paths if _is_phone(path)])
    # Files of one name in folders of the devices' names, or files that are called after them.
    stems = [Path(path).stem for path in results]
    same = len(set(stems)) < len(stems)
    names = [Path(path).parent.name if same else Path(path).stem for path in results]
    if len(set(names)) < len(names) or "" in names:  # one lies in the working folder
        names = list(results)
    named = dict(zip(names, results.values(), strict=True))
    rows = compare.rows(named)
    out = folder(args.compare_out)
    write_atomic(out / "compare.csv", compare.to_csv(rows))
    write_atomic(out / "compare.html", page.render_compared(args.compare_title, named, phones))
    if phones:
        write_atomic(out / "phones.csv", compare.phones_to_csv(phones))
    if args.compare_json:
        print(json.dumps(rows))
    else:
        repeats, reasons = compare.repeated(named), compare.incomparable(named)
        print(printable_lines(compare.table(rows, repeats, reasons)))
        if phones:
            print(printable_lines(compare.phone_table(phones)))
        csv = "compare.csv, phones.csv" if phones else "compare.csv"
        print(f"written: {printable(out / 'compare.html')}, {csv}")
        print(DISCLAIMER)
    return 0
