"""`dermedge tune`: find what runs a bundle fastest on this device."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dermedge import UserError
from dermedge.cli import Command
from dermedge.cli.options import bundle_arguments, open_bundle
from dermedge.text import printable

if TYPE_CHECKING:
    from dermedge.tune import Result

SECONDS = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    bundle_arguments(parser)
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help=f"for timing each network (default: {SECONDS})",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument(
        "--forget",
        action="store_true",
        help="drop the choice; the bundle's own graphs run again, until it is tuned again: by this "
        "command, or by `dermedge app` at its next start (not with --tune never)",
    )


def run(args: argparse.Namespace) -> int:
    from dermedge import tune

    if args.forget and (args.json or args.seconds is not None):
        raise UserError("--forget measures nothing: leave out --json and --seconds")
    seconds = SECONDS if args.seconds is None else args.seconds
    if not 0 < seconds < float("inf"):
        raise UserError("--seconds must be a number above 0")
    bundle = open_bundle(args)
    if args.forget:
        dropped = "is dropped" if tune.forget(bundle) else "was not there"
        print(f"the choice for {printable(bundle.path)} {dropped}")
        return 0

    def progress(text: str) -> None:
        if sys.stderr.isatty():
            # What is printed next, a result or an error, begins where this line does.
            print(f"{text:<78}", end="\r", file=sys.stderr, flush=True)

    tune.prepare_store(bundle)  # minutes of measuring would be lost where this fails
    results = tune.tune(bundle, seconds, progress=progress)
    progress("")
    # The result first: a full disk must not cost it.
    if args.json:
        content = {"machine": tune.machine(), "results": [result.to_json() for result in results]}
        print(json.dumps(content), flush=True)
    else:
        for line in (*map(_line, results), *_fp32_alone(results)):
            print(line, flush=True)
    try:
        path = tune.store(bundle, results)
    except tune.TuneError as error:
        print(f"dermedge: {error}", file=sys.stderr)
        return 1
    if not args.json:
        print(f"kept in {printable(path)}: `dermedge analyze` runs so from now on")
    return 0


def _line(result: Result) -> str:
    start = f"{'*' if result.chosen else ' '} {result.role:<11}{result.execution!s:<32}"
    if result.reason:
        return f"{start} left out: {result.reason}"
    return (
        f"{start}{result.ms:8.2f} ms, {result.ratio:.2f} times as fast "
        f"({result.low:.2f} to {result.high:.2f})"
    )


def _fp32_alone(results: Sequence[Result]) -> Iterator[str]:
    """A line on the roles that the bundle has nothing faster of to try on this machine."""
    precisions: dict[str, set[str]] = {}
    for result in results:
        precisions.setdefault(result.role, set()).add(result.execution.precision)
    roles = [role for role, held in precisions.items() if held == {"fp32"}]
    if roles:
        yield (
            f"of the {' and the '.join(roles)} the bundle holds FP32 alone for this machine; "
            "`dermedge export --recheck BUNDLE --precisions fp32 int8` makes INT8 and says whether "
            "it may be used"
        )


TUNE = Command("find what runs a bundle fastest on this device", arguments, run)
