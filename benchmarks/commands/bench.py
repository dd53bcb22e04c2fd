"""`dermedge bench`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.commands import bench_results
from benchmarks.commands.arguments import (
    any_unread,
    command,
    data_arguments,
    file_to_write,
    folder,
    measure_accuracy,
    metadata_fields,
    old_option,
    positive,
    precision_argument,
    select_pictures,
    thread_count,
)
from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import Bundle, shipped
from dermedge.bundle.manifest import PRECISIONS, ROLES
from dermedge.cli import Command
from dermedge.cli.options import bundle_arguments, in_precision, open_bundle
from dermedge.files import write_atomic
from dermedge.text import printable, printable_lines

if TYPE_CHECKING:  # heavy; imported where they are used
    from benchmarks.accuracy.selection import Selection
    from benchmarks.latency.plan import Plan
    from benchmarks.report.curves import Log
    from dermedge.data import DataSet
    from dermedge.runtime import ExecutionConfig


def _bench_arguments(parser: argparse.ArgumentParser) -> None:
    _measuring_arguments(parser)
    # What an option of measuring is where it is not given: `compare` and `validate` take none.
    parser.set_defaults(unset=vars(parser.parse_args([])))
    bench_results.arguments(parser)


def _measuring_arguments(parser: argparse.ArgumentParser) -> None:
    bundle_arguments(parser)
    precision_argument(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for bench.csv, bench.json and bench.html (default: ./bench-NAME; what another "
        "command measured there is overwritten where it was a quick run)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    _speed_arguments(parser.add_argument_group("speed"))
    data_arguments(parser.add_argument_group("accuracy, on a data set"), required=False)
    _page_arguments(parser.add_argument_group("what else the page shows"))


def _speed_arguments(speed: argparse._ArgumentGroup) -> None:
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
        type=thread_count,
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
        "--tuned",
        action="store_true",
        help="run the networks as `dermedge tune` has chosen here, those of --vs OTHER, too",
    )
    speed.add_argument(
        "--vs",
        metavar="OTHER",
        help="also time another bundle file, or another precision of this one (fp32, fp16, int8), "
        "in turns with it: how many times as fast, with the interval",
    )
    speed.add_argument(
        "--executions",
        action="store_true",
        help="also time every precision of the bundle in every runtime that is installed, on one "
        "thread, in turns, and with --data measure how far each is from the first; TensorRT's "
        "engines are timed by --tuned",
    )
    old_option(speed, "--roads", "--executions", nargs=0)


def _page_arguments(shown: argparse._ArgumentGroup) -> None:
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
    if args.kind:
        return bench_results.run(args)
    _check(args)
    inputs = _read(args)
    out = folder(args.out or f"bench-{inputs.bundle.manifest.name}")
    if not (args.out or args.resume):
        _check_kept(out / "bench.json")
    report = Path(args.report) if args.report else out / "bench.html"
    if report.is_dir():
        raise UserError(f"--report: {report} is a folder; give the page a file name")
    file_to_write(report)
    result = _measure(args, inputs, out)
    _write_page(args, inputs, result, report)
    _print(args, result, report, out)
    if result["missing"]:
        return 130
    return 1 if args.data and any_unread(result["evaluation"]) else 0


def _check(args: argparse.Namespace) -> None:
    """Raise UserError where options do not go together."""
    if args.seconds is not None and not args.seconds > 0:
        raise UserError("--seconds must be above 0")
    if not args.rest >= 0:
        raise UserError("--rest must not be below 0")
    if args.tuned and args.executions:
        raise UserError(
            "--executions measures every way to run it and --tuned one of them: give one"
        )
    if args.executions and args.precision:
        raise UserError("--executions measures every precision: leave out --precision")
    if args.tuned and args.precision:
        raise UserError(
            "--tuned runs the precisions that `dermedge tune` chose: leave out --precision, or "
            "--tuned"
        )
    if args.data and args.evaluation:
        raise UserError("--data measures again and --evaluation shows old figures: give one")
    chosen = ("split", "split_file", "modality", "leave_out", "limit")
    for option in (*chosen, "baselines", "tta", "no_metadata", "ood"):
        if getattr(args, option) and not args.data:
            raise UserError(f"--{option.replace('_', '-')} needs --data")


def _check_kept(path: Path) -> None:
    """UserError where an hour of another command would be overwritten in the usual folder."""
    from benchmarks.schema.bench_result import load, typed

    try:
        before = load(path)
    except (UserError, OSError):  # none of ours
        return
    if not before["quick"] and typed(before["command"]) != typed(command()):
        raise UserError(
            f"{path} is the result of another command ({before['command']}), and of no quick run: "
            "name a folder of its own by --out"
        )


@dataclass(frozen=True)
class _Inputs:
    """All that the options name, read before the timing: no mistake throws the timing away."""

    bundle: Bundle
    other: Bundle | None
    executions: dict[str, ExecutionConfig] | None  # as `dermedge tune` selected them
    other_executions: dict[str, ExecutionConfig] | None
    evaluation: dict | None
    curves: dict | None
    peers: list[dict] | None
    logs: list[tuple[str, Log]]
    pictures: list[Path]  # to show
    measured: tuple[DataSet, Selection] | None


def _read(args: argparse.Namespace) -> _Inputs:
    from benchmarks.report import stored
    from benchmarks.report.curves import read_log
    from dermedge.analyzer import with_executions
    from dermedge.image.read import find_images
    from dermedge.tune import load_tuned

    whole = open_bundle(args)
    bundle = in_precision(whole, args.precision)
    other = _other(args, whole) if args.vs else None
    executions = load_tuned(bundle) if args.tuned else None
    if args.tuned and not executions:
        raise UserError("--tuned: nothing was chosen for this bundle here; run `dermedge tune`")
    if executions:
        bundle = with_executions(bundle, executions)
    others = load_tuned(other) if args.tuned and other and args.vs not in PRECISIONS else None
    if others == {}:
        raise UserError(
            f"--tuned: nothing was chosen for {args.vs} here; run `dermedge tune --bundle "
            f"{args.vs}`, or give --vs a precision"
        )
    if other and others:
        other = with_executions(other, others)
    evaluation = stored.evaluation(args.evaluation, bundle) if args.evaluation else None
    curves = stored.robustness(args.robustness, bundle) if args.robustness else None
    peers = stored.peers(args.peers, bundle) if args.peers else None
    logs = [(Path(run).name, read_log(Path(run))) for run in args.training_runs]
    for path in args.pictures:
        if not find_images([path]) or not Path(path).exists():
            raise UserError(f"--pictures: there is no picture at {path}")
    return _Inputs(
        bundle,
        other,
        executions,
        others,
        evaluation,
        curves,
        peers,
        logs,
        find_images(args.pictures),
        select_pictures(bundle, args) if args.data else None,
    )


def _measure(args: argparse.Namespace, inputs: _Inputs, out: Path) -> dict:
    """The result, measured from the beginning or resumed, and saved under `out` after each part."""
    from benchmarks.latency import bench
    from benchmarks.schema import bench_result

    def save(result: dict) -> None:
        write_atomic(out / "bench.csv", bench.to_csv(result))
        write_atomic(out / "bench.json", bench.to_json(result))

    with _bar() as show:
        plan = _plan(args, inputs, show)
        if args.resume:
            result = bench_result.load(out / "bench.json")
            bench.fits(plan, result)
            bench.redo(plan, result)
            # As these files are now: they may have been made again meanwhile.
            shown: dict[str, object] = {
                "evaluation": inputs.evaluation,
                "robustness": inputs.curves,
                "peers": inputs.peers,
            }
            result |= {name: content for name, content in shown.items() if content is not None}
        else:
            result = bench.begin(plan, inputs.evaluation, inputs.curves, inputs.peers)
        bench.run(plan, result, save)
    return result


def _plan(args: argparse.Namespace, inputs: _Inputs, progress: Callable[[str, int], None]) -> Plan:
    from benchmarks.accuracy import executions
    from benchmarks.latency import in_turns, timing
    from benchmarks.latency.plan import Later, Plan
    from benchmarks.schema.bench_result import EXECUTIONS, in_turns_with
    from dermedge.evaluation.provenance import usable_cores

    cores, measured = usable_cores(), inputs.measured
    later: dict[str, Later] = {}
    if inputs.other:
        name = in_turns_with(in_turns.name_of(inputs.other))
        later[name] = partial(in_turns.against, inputs.other, inputs.other_executions)
    if args.executions:
        fields = metadata_fields(inputs.bundle, args)
        later[EXECUTIONS] = partial(executions.part, measured and measured[1], cores, fields)
    if measured:
        later["accuracy"] = partial(_accuracy, *measured, args, cores)
    return Plan(
        inputs.bundle,
        timing.pictures([Path(image) for image in args.image]),
        list(dict.fromkeys(args.threads or (1, min(2, cores), cores))),
        command(),
        args.seconds,
        args.runs,
        args.mlperf,
        args.rest,
        inputs.executions,
        later,
        progress,
    )


def _accuracy(
    data_set: DataSet,
    selection: Selection,
    args: argparse.Namespace,
    threads: int,
    plan: Plan,
    result: dict,
) -> None:
    from benchmarks.accuracy.examples import worst_cases

    evaluation, rows = measure_accuracy(
        plan.bundle, data_set, selection, args, threads, plan.executions
    )
    worst = worst_cases(rows, plan.bundle.manifest.labels)
    result |= {"evaluation": evaluation, "worst": worst}


def _write_page(args: argparse.Namespace, inputs: _Inputs, result: dict, path: Path) -> None:
    from benchmarks.accuracy.examples import analysed
    from benchmarks.report import page

    bundle = inputs.bundle
    records = {r.id: r for r in inputs.measured[1].records} if inputs.measured else {}
    worst = [(records[e["id"]], e["note"]) for e in result["worst"] if e["id"] in records]
    # As they were measured: the note beside the picture says what came of it.
    fields = metadata_fields(bundle, args)
    people = [{name: getattr(record, name) for name in fields} for record, _ in worst]
    text = page.render(
        args.title or f"{bundle.manifest.name}: benchmark",
        bundle,
        bench=result,
        evaluation=result["evaluation"],
        gallery=analysed(bundle, [(picture, "", None) for picture in inputs.pictures]),
        logs=inputs.logs,
        worst_cases=analysed(
            bundle,
            [(Path(r.image), note, r.mask) for r, note in worst],
            people,
            4 if args.tta else 1,
        ),
    )
    write_atomic(path, text)


def _print(args: argparse.Namespace, result: dict, report: Path, out: Path) -> None:
    from benchmarks.report import text

    if args.json:
        print(json.dumps(result))
        return
    print(printable_lines(text.bench(result)))
    if result["executions"]:
        print(f"\n{printable_lines(text.executions(result['executions']))}")
    if result["evaluation"] and args.data:
        print(f"\n{printable_lines(text.evaluation(result['evaluation']))}")
    print(printable(f"written: {report}, {out / 'bench.json'}, {out / 'bench.csv'}"))
    if result["missing"]:
        print("the same command with --resume measures what is missing")
    print(DISCLAIMER)


def _other(args: argparse.Namespace, whole: Bundle) -> Bundle:
    name = args.vs
    if name in PRECISIONS:
        return in_precision(whole, name)
    if name not in shipped() and not Path(name).exists():
        raise UserError(f"--vs: there is no bundle at {name}; give a file, or fp32, fp16 or int8")
    # By the same key as the first; which release is compared is up to whoever asks.
    other = open_bundle(argparse.Namespace(**{**vars(args), "bundle": name, "min_release": 0}))
    if missing := [role for role in ROLES if role not in other.manifest.models]:
        raise UserError(f"--vs: {name} has no {missing[0]}: whole analyses are timed, by both")
    return other


@contextmanager
def _bar() -> Iterator[Callable[[str, int], None]]:
    """Progress on standard error: called with what is done and how often it was. To be asked to
    end (SIGTERM) is to be interrupted meanwhile."""
    from tqdm import tqdm

    def stop(*_: object) -> None:
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


BENCH = Command(
    summary="measure a bundle's speed, memory and accuracy here, and write a report",
    arguments=_bench_arguments,
    run=_bench,
    extra="bench",
)
