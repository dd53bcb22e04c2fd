"""`dermedge robustness` and `dermedge gate`."""

from __future__ import annotations

import argparse
import json

from benchmarks.arguments import choose_pictures, command, folder, positive, precision_argument
from dermedge import DISCLAIMER
from dermedge.cli import Command
from dermedge.cli.options import bundle_arguments, in_precision, open_bundle
from dermedge.files import write_atomic
from dermedge.text import printable, printable_lines


def _spoilt_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """What the commands that change pictures take."""
    bundle_arguments(parser)
    precision_argument(parser)
    parser.add_argument("--data", required=True, metavar="NAME=PATH", help="the data set")
    parser.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help="part of the data set (default: test)",
    )
    parser.add_argument("--split-file", metavar="FILE", help="as of `dermedge evaluate`")
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="N pictures, chosen by a hash of their ids"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all cores")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help=f"for {name}.json, .csv and .png"
    )


def _robustness_arguments(parser: argparse.ArgumentParser) -> None:
    _spoilt_arguments(parser, "robustness")
    parser.add_argument(
        "--changes",
        nargs="+",
        metavar="NAME",
        help="jpeg, blur, light, cast, noise, rotation, crop (default: all)",
    )


def _robustness(args: argparse.Namespace) -> int:
    from benchmarks.pictures import robustness
    from benchmarks.speed.latency import usable_cores

    args.baselines = False
    bundle = in_precision(open_bundle(args), args.precision)
    data_set, chosen = choose_pictures(bundle, args)
    result = robustness.robustness(
        bundle,
        data_set,
        chosen,
        args.changes or tuple(robustness.CHANGES),
        args.threads or usable_cores(),
        command(),
    )
    return _deliver(args.out, "robustness", robustness, result)


def _gate_arguments(parser: argparse.ArgumentParser) -> None:
    _spoilt_arguments(parser, "gate")


def _gate(args: argparse.Namespace) -> int:
    from benchmarks.pictures import gate
    from benchmarks.speed.latency import usable_cores

    args.baselines = False
    bundle = in_precision(open_bundle(args), args.precision)
    data_set, chosen = choose_pictures(bundle, args)
    threads = args.threads or usable_cores()
    return _deliver(args.out, "gate", gate, gate.gate(bundle, data_set, chosen, threads, command()))


def _deliver(where: str, name: str, kind, result: dict) -> int:
    """Write NAME.json, .csv and .png by the functions of the module `kind`; the exit status."""
    out = folder(where)
    write_atomic(out / f"{name}.json", json.dumps(result, indent=1) + "\n")
    write_atomic(out / f"{name}.csv", kind.to_csv(result))
    write_atomic(out / f"{name}.png", kind.plot(result))
    print(printable_lines(kind.table(result)))
    print(f"written: {printable(out / name)}.json, {name}.csv, {name}.png")
    print(DISCLAIMER)
    return 1 if result["data"]["unreadable"] else 0


ROBUSTNESS = Command(
    summary="measure how accuracy falls as pictures get worse",
    arguments=_robustness_arguments,
    run=_robustness,
    extra="bench",
)
GATE = Command(
    summary="measure how well spoilt pictures are told from good ones",
    arguments=_gate_arguments,
    run=_gate,
    extra="bench",
)
