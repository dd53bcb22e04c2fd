"""`dermedge peers`."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from pathlib import Path

from benchmarks.commands.arguments import file_to_write, thread_count
from dermedge import UserError
from dermedge.cli import DESKTOP, Command
from dermedge.cli.options import bundle_arguments, open_bundle
from dermedge.files import write_atomic
from dermedge.text import printable

# It measures by rooms that the wheel leaves out: said before anybody installs torch in vain.
for room in DESKTOP:
    if importlib.util.find_spec(room) is None:
        raise ModuleNotFoundError(f"No module named {room!r}", name=room)


def _peers_arguments(parser: argparse.ArgumentParser) -> None:
    bundle_arguments(parser)
    parser.add_argument(
        "--runs", nargs="+", required=True, metavar="RUN", help="that the bundle was exported from"
    )
    parser.add_argument("--threads", type=thread_count, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--seconds", type=float, default=30, metavar="S", help="for each table (default: 30)"
    )
    parser.add_argument("--out", required=True, metavar="FILE.csv", help="table to write")


def _peers(args: argparse.Namespace) -> int:
    from benchmarks.peers import measure

    if not args.seconds > 0:
        raise UserError("--seconds must be above 0")
    file_to_write(args.out)
    bundle = open_bundle(args)
    command = shlex.join(["dermedge", "peers", "--bundle", bundle.path.name, *_options(args)])
    rows = measure.measure(
        bundle,
        args.runs,
        args.threads,
        args.seconds,
        command,
        progress=lambda text: print(printable(text), file=sys.stderr),
    )
    try:
        write_atomic(args.out, measure.to_csv(rows))
    finally:  # a full disk must not cost the figures
        for row in rows:
            figure = row["reason"] or (
                f"{row['ms']:>8.2f} ms, {row['times_of_ours']:.2f} times ours "
                f"({row['times_of_ours_low']:.2f} to {row['times_of_ours_high']:.2f})"
            )
            print(printable(f"{row['what']:<26}{row['side']:<26}{figure}"))
    print(f"written: {printable(args.out)}")
    return 0


def _options(args: argparse.Namespace) -> list[str]:
    runs = [Path(run).name for run in args.runs]
    return ["--runs", *runs, "--threads", str(args.threads), "--seconds", f"{args.seconds:g}"]


PEERS = Command(
    summary="time a bundle's networks beside other runtimes, and beside torch with torchvision",
    arguments=_peers_arguments,
    run=_peers,
    extra="export,peers",
)
