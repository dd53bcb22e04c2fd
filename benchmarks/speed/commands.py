"""`dermedge bench`, with `bench compare` and `bench validate`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.arguments import (
    choose_pictures,
    command,
    data_arguments,
    folder,
    measure_accuracy,
    positive,
    precision_argument,
    told,
)
from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import PRECISIONS
from dermedge.cli import Command
from dermedge.cli.options import bundle_arguments, in_precision, open_bundle
from dermedge.files import write_atomic
from dermedge.text import printable, printable_lines


def _bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="compare|validate FILE",
        help="`compare A.json B.json ...` puts results of several devices into one table and page "
        "under --out; `validate FILE ...` tells whether results may be submitted",
    )
    bundle_arguments(parser)
    precision_argument(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for bench.csv, bench.json and bench.html (default: ./bench-NAME)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--image",
        nargs="+",
        default=[],
        metavar="FILE",
        help="photographs to time; default: a generated JPEG of 12 megapixels. "
        "A generated camera frame of 1280x720 is always timed",
    )
    speed.add_argument(
        "--threads",
        nargs="+",
        type=positive,
        metavar="N",
        help="thread counts to compare (default: 1, 2 and all cores)",
    )
    length = speed.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="of each of two passes, whose p90 are compared (default with --mlperf: 60; else one "
        "pass of 10, called quick)",
    )
    length.add_argument(
        "--runs", type=positive, metavar="N", help="rounds of each pass, whatever they take"
    )
    speed.add_argument(
        "--mlperf",
        action="store_true",
        help="also MLPerf's scenarios SingleStream and Offline, at least 60 s each, asked by "
        "mlcommons-loadgen where it is installed",
    )
    speed.add_argument(
        "--resume",
        action="store_true",
        help="with the same command: measure what an interrupted run lacks, and again what other "
        "programs have disturbed",
    )
    speed.add_argument(
        "--rest", type=float, default=0, metavar="S", help="seconds to let the device cool first"
    )
    speed.add_argument(
        "--tuned", action="store_true", help="run the networks as `dermedge tune` has chosen here"
    )
    speed.add_argument(
        "--vs",
        metavar="OTHER",
        help="also time another bundle file, or another precision of this one (fp32, fp16, int8), "
        "in turns with it: how many times as fast, with the interval",
    )
    speed.add_argument(
        "--roads",
        action="store_true",
        help="also time every precision of the bundle in every runtime that is installed, in "
        "turns, and with --data measure how far each is from the first",
    )
    accuracy = parser.add_argument_group("accuracy, on a data set")
    data_arguments(accuracy, required=False)
    shown = parser.add_argument_group("what else the page shows")
    shown.add_argument("--report", metavar="FILE", help="write the page here instead of bench.html")
    shown.add_argument("--title", help="of the page")
    shown.add_argument(
        "--pictures",
        nargs="+",
        default=[],
        metavar="FILE",
        help="pictures or folders to analyse and show with outline, risk and advice",
    )
    shown.add_argument(
        "--evaluation", metavar="FILE", help="what `dermedge evaluate --json` printed before"
    )
    shown.add_argument(
        "--robustness", metavar="FILE", help="robustness.json of `dermedge robustness`"
    )
    shown.add_argument("--peers", metavar="FILE", help="the table of `dermedge peers`")
    shown.add_argument(
        "--training-runs",
        nargs="+",
        default=[],
        metavar="RUN",
        help="folders that `dermedge train` made, for their curves",
    )


def _bench(args: argparse.Namespace) -> int:
    from benchmarks.accuracy import evaluate, roads
    from benchmarks.report import page, stored
    from benchmarks.report.curves import read_log
    from benchmarks.speed import bench, compare, latency
    from dermedge.analyzer import with_executions
    from dermedge.image.read import find_images
    from dermedge.tune import load_tuned

    if args.words:
        return _side_by_side(args)
    if args.seconds is not None and not args.seconds > 0:
        raise UserError("--seconds must be above 0")
    if not args.rest >= 0:
        raise UserError("--rest must not be below 0")
    if args.tuned and args.roads:
        raise UserError("--roads measures every way to run it and --tuned one of them: give one")
    if args.data and args.evaluation:
        raise UserError("--data measures anew and --evaluation shows old figures: give one")
    for option in ("split", "split_file", "limit", "baselines", "tta", "no_metadata", "unlike"):
        if getattr(args, option) and not args.data:
            raise UserError(f"--{option.replace('_', '-')} needs --data")
    bundle = in_precision(open_bundle(args), args.precision)
    # All that is given is looked at before the timing, so that no mistake throws it away.
    other = _other(args.vs, bundle) if args.vs else None
    tuned = load_tuned(bundle) if args.tuned else None
    if args.tuned and not tuned:
        raise UserError("--tuned: nothing was chosen for this bundle here; run `dermedge tune`")
    if tuned:
        bundle = with_executions(bundle, tuned)
    evaluation = stored.evaluation(args.evaluation, bundle) if args.evaluation else None
    curves = stored.robustness(args.robustness, bundle) if args.robustness else None
    peers = stored.peers(args.peers, bundle) if args.peers else None
    logs = [(Path(run).name, read_log(Path(run))) for run in args.training_runs]
    for path in args.pictures:
        if not find_images([path]) or not Path(path).exists():
            raise UserError(f"--pictures: there is no picture at {path}")
    chosen = choose_pictures(bundle, args) if args.data else None
    name = bundle.manifest.name
    out = folder(args.out or f"bench-{name}")
    path = Path(args.report) if args.report else out / "bench.html"
    folder(path.parent)
    if path.is_dir():
        raise UserError(f"--report: {path} is a folder; give the page a file name")
    cores = latency.usable_cores()
    threads = list(dict.fromkeys(args.threads or (1, min(2, cores), cores)))
    later: dict[str, bench.Later] = {}
    if other:
        later[bench.turns_with(other)] = partial(bench.against, other)
    if args.roads:
        later[bench.ROADS] = partial(roads.part, chosen and chosen[1], cores, told(bundle, args))
    if chosen:
        later["accuracy"] = partial(_accuracy, chosen, args, cores)
    with _bar() as show:
        plan = bench.Plan(
            bundle,
            latency.pictures([Path(image) for image in args.image]),
            threads,
            command(),
            args.seconds,
            args.runs,
            args.mlperf,
            args.rest,
            tuned,
            later,
            show,
        )
        if args.resume:
            result = compare.load(out / "bench.json")
            bench.fits(plan, result)
            bench.redo(plan, result)
        else:
            result = bench.begin(plan, evaluation, curves, peers)

        def save(found: dict) -> None:
            write_atomic(out / "bench.csv", bench.to_csv(found))
            write_atomic(out / "bench.json", bench.to_json(found))

        bench.run(plan, result, save)
    known = {record.id: record for record in chosen[1].records} if chosen else {}
    text = page.render(
        args.title or f"{name}: benchmark",
        bundle,
        bench=result,
        evaluation=result["evaluation"],
        images=find_images(args.pictures),
        logs=logs,
        worst=[(known[e["id"]], e["note"]) for e in result["worst"] if e["id"] in known],
    )
    write_atomic(path, text)
    if args.json:
        print(json.dumps(result))
    else:
        print(printable_lines(bench.table(result)))
        if result["roads"]:
            print(f"\n{printable_lines(roads.table(result['roads']))}")
        if result["evaluation"] and args.data:
            print(f"\n{printable_lines(evaluate.table(result['evaluation']))}")
        print(printable(f"written: {path}, {out / 'bench.json'}, {out / 'bench.csv'}"))
        if result["missing"]:
            print("the same command with --resume measures what is missing")
        print(DISCLAIMER)
    return 130 if result["missing"] else 0


def _other(name: str, bundle):
    from dermedge.bundle.bundle import Bundle

    if name in PRECISIONS:
        return in_precision(bundle, name)
    if not Path(name).exists():
        raise UserError(f"--vs: there is no bundle at {name}; give a file, or fp32, fp16 or int8")
    return Bundle.open(name)


def _accuracy(measured, args: argparse.Namespace, threads: int, plan, result: dict) -> None:
    from benchmarks.report import cases

    evaluation, rows = measure_accuracy(plan.bundle, measured, args, threads, plan.roads)
    worst = cases.worst(rows, plan.bundle.manifest.labels)
    result |= {"evaluation": evaluation, "worst": worst}


@contextmanager
def _bar():
    """Progress on standard error: called with what is done and how often it was. To be asked to
    end (SIGTERM) is to be interrupted meanwhile."""
    from tqdm import tqdm

    def stop(*_) -> None:
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if ours else None
    with tqdm(unit=" rounds", file=sys.stderr, disable=None) as bar:

        def show(what: str, done: int) -> None:
            bar.set_description(what, refresh=False)
            bar.n = done
            bar.refresh()

        try:
            yield show
        finally:
            if ours:
                signal.signal(signal.SIGTERM, before)


def _side_by_side(args: argparse.Namespace) -> int:
    """`dermedge bench compare` and `dermedge bench validate`."""
    from benchmarks.speed import compare

    what, *paths = args.words
    if what not in ("compare", "validate"):
        raise UserError(f"'{what}' is not known: `bench compare FILE ...` or `bench validate FILE`")
    if not paths:
        raise UserError(f"`bench {what}` needs results: bench.json files of `dermedge bench`")
    results = {path: compare.load(path) for path in dict.fromkeys(paths)}
    if what == "validate":
        faults = [(path, fault) for path, r in results.items() for fault in compare.problems(r)]
        for path, fault in faults:
            print(printable(f"{path}: {fault}"))
        if not faults:
            print(printable(f"valid: {', '.join(results)}"))
        return 1 if faults else 0
    from benchmarks.report import page

    # Files of one name in folders of the devices' names, or files that are called after them.
    stems = [Path(path).stem for path in results]
    same = len(set(stems)) < len(stems)
    names = [Path(path).parent.name if same else Path(path).stem for path in results]
    if len(set(names)) < len(names):
        names = list(results)
    named = dict(zip(names, results.values(), strict=True))
    found = compare.rows(named)
    out = folder(args.out or "bench-compared")
    write_atomic(out / "compare.csv", compare.to_csv(found))
    write_atomic(out / "compare.html", page.render_compared(args.title, named))
    if args.json:
        print(json.dumps(found))
    else:
        print(printable_lines(compare.table(found, compare.again(named), compare.unlike(named))))
        print(f"written: {printable(out / 'compare.html')}, compare.csv")
        print(DISCLAIMER)
    return 0


BENCH = Command(
    summary="measure a bundle's speed, memory and accuracy here, and write a report",
    arguments=_bench_arguments,
    run=_bench,
    extra="bench",
)
