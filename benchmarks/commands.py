"""The subcommands of this room: evaluate, robustness, gate, bench."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import signal
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from dermedge import DISCLAIMER, UserError
from dermedge.bundle import PRECISIONS
from dermedge.cli import Command
from dermedge.commands import bundle_arguments, in_precision, open_bundle
from dermedge.files import write_atomic


def _data_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "--data",
        required=required,
        metavar="NAME=PATH",
        help="the data set to measure the accuracy on",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help="part of the data set (default: test)",
    )
    parser.add_argument(
        "--split-file",
        metavar="FILE",
        help="split to use; default: the bundle's own, else one made with seed 0",
    )
    parser.add_argument(
        "--limit",
        type=_positive,
        metavar="N",
        help="measure on a fixed subset of N pictures, chosen by a hash of their ids",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also measure Otsu's threshold, and colour statistics with logistic regression",
    )
    parser.add_argument(
        "--tta", action="store_true", help="mean over the picture and its three mirror images"
    )
    parser.add_argument(
        "--no-metadata",
        action="store_true",
        help="withhold age, sex and site from a classifier that can take them",
    )
    parser.add_argument(
        "--unlike",
        metavar="FOLDER",
        help="pictures that show no lesion, a folder a kind; how well are they told apart? "
        "`python -m benchmarks.unlike` makes some",
    )


def _precision_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="of all networks (default: the bundle's first)"
    )


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    bundle_arguments(parser)
    _precision_argument(parser)
    _data_arguments(parser, required=True)
    parser.add_argument("--threads", type=_positive, metavar="N", help="default: all cores")
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
    from benchmarks import accuracy, tables

    bundle = in_precision(open_bundle(args), args.precision)
    if args.table:
        tables.read(args.table)  # what is wrong with it is told before all the work
        _folder(Path(args.table).parent)
    try:
        measured = _choose(bundle, args)
    except accuracy.NothingToMeasure as error:
        print(f"dermedge: {error}", file=sys.stderr)
        return 1
    if args.roads:
        from benchmarks import roads
        from benchmarks.speed.latency import usable_cores

        _folder(Path(args.roads).parent)
        found = roads.measure(
            bundle, measured[1], args.threads or usable_cores(), _told(bundle, args)
        )
        write_atomic(args.roads, roads.to_csv(found))
        print(roads.table(found))
        print(f"written: {args.roads}")
        print(DISCLAIMER)
        return 0
    out = _folder(args.out) if args.out else None
    if args.csv:
        _folder(Path(args.csv).parent)
    result, rows = _measure_accuracy(bundle, measured, args, args.threads)
    if args.csv:
        write_atomic(args.csv, accuracy.to_csv(rows, bundle.manifest.labels))
    if args.table:
        tables.update(args.table, result)
    if args.out:
        from benchmarks import report

        title = f"Evaluation of {bundle.manifest.name} on {result['data']['name']}"
        write_atomic(out / "evaluation.json", json.dumps(result, indent=1) + "\n")
        write_atomic(out / "pictures.csv", accuracy.to_csv(rows, bundle.manifest.labels))
        write_atomic(out / "evaluation.html", report.render(title, bundle, evaluation=result))
    if args.json:
        print(json.dumps(result))
    else:
        print(accuracy.table(result))
        if args.out:
            print(f"written: {out / 'evaluation.html'}, evaluation.json, pictures.csv")
        print(DISCLAIMER)
    return 1 if result["data"]["unreadable"] else 0


def _spoilt_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """What the commands that change pictures take."""
    bundle_arguments(parser)
    _precision_argument(parser)
    parser.add_argument("--data", required=True, metavar="NAME=PATH", help="the data set")
    parser.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help="part of the data set (default: test)",
    )
    parser.add_argument("--split-file", metavar="FILE", help="as of `dermedge evaluate`")
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="N pictures, chosen by a hash of their ids"
    )
    parser.add_argument("--threads", type=_positive, metavar="N", help="default: all cores")
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
    from benchmarks import robustness
    from benchmarks.speed import latency

    args.baselines = False
    bundle = in_precision(open_bundle(args), args.precision)
    data_set, chosen = _choose(bundle, args)
    result = robustness.robustness(
        bundle,
        data_set,
        chosen,
        args.changes or tuple(robustness.CHANGES),
        args.threads or latency.usable_cores(),
        _command(),
    )
    return _deliver(args.out, "robustness", robustness, result)


def _deliver(folder: str, name: str, kind, result: dict) -> int:
    """Write NAME.json, .csv and .png by the functions of the module `kind`; the exit status."""
    out = _folder(folder)
    write_atomic(out / f"{name}.json", json.dumps(result, indent=1) + "\n")
    write_atomic(out / f"{name}.csv", kind.to_csv(result))
    write_atomic(out / f"{name}.png", kind.plot(result))
    print(kind.table(result))
    print(f"written: {out / name}.json, {name}.csv, {name}.png")
    print(DISCLAIMER)
    return 1 if result["data"]["unreadable"] else 0


def _gate_arguments(parser: argparse.ArgumentParser) -> None:
    _spoilt_arguments(parser, "gate")


def _gate(args: argparse.Namespace) -> int:
    from benchmarks import gate
    from benchmarks.speed import latency

    args.baselines = False
    bundle = in_precision(open_bundle(args), args.precision)
    data_set, chosen = _choose(bundle, args)
    threads = args.threads or latency.usable_cores()
    return _deliver(
        args.out, "gate", gate, gate.gate(bundle, data_set, chosen, threads, _command())
    )


def _bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="compare|validate FILE",
        help="`compare A.json B.json ...` puts results of several devices into one table and page "
        "under --out; `validate FILE ...` tells whether results may be submitted",
    )
    bundle_arguments(parser)
    _precision_argument(parser)
    parser.add_argument(
        "--image",
        nargs="+",
        default=[],
        metavar="FILE",
        help="photographs to time; default: a generated JPEG of 12 megapixels. "
        "A generated camera frame of 1280x720 is always timed",
    )
    parser.add_argument(
        "--threads",
        nargs="+",
        type=_positive,
        metavar="N",
        help="thread counts to compare (default: 1, 2 and all cores)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="of each of two passes, whose p90 are compared (default with --mlperf: 60; else one "
        "pass of 10, called quick)",
    )
    length.add_argument(
        "--runs", type=_positive, metavar="N", help="rounds of each pass, whatever they take"
    )
    parser.add_argument(
        "--mlperf",
        action="store_true",
        help="also MLPerf's scenarios SingleStream and Offline, at least 60 s each, asked by "
        "mlcommons-loadgen where it is installed",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with a run of the same command that was interrupted, and measure again what "
        "other programs have disturbed",
    )
    parser.add_argument(
        "--rest", type=float, default=0, metavar="S", help="seconds to let the device cool first"
    )
    parser.add_argument(
        "--tuned", action="store_true", help="run the networks as `dermedge tune` has chosen here"
    )
    parser.add_argument(
        "--vs",
        metavar="OTHER",
        help="also time another bundle file, or another precision of this one (fp32, fp16, int8), "
        "in turns with it: how many times as fast, with the interval",
    )
    parser.add_argument(
        "--roads",
        action="store_true",
        help="also time every precision of the bundle in every runtime that is installed, in "
        "turns, and with --data measure how far each is from the first",
    )
    _data_arguments(parser, required=False)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for bench.csv, bench.json and bench.html (default: ./bench-NAME)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    page = parser.add_argument_group("what else the page shows")
    page.add_argument("--report", metavar="FILE", help="write the page here instead of bench.html")
    page.add_argument("--title", help="of the page")
    page.add_argument(
        "--pictures",
        nargs="+",
        default=[],
        metavar="FILE",
        help="pictures or folders to analyse and show with outline, risk and advice",
    )
    page.add_argument(
        "--evaluation", metavar="FILE", help="what `dermedge evaluate --json` printed before"
    )
    page.add_argument(
        "--robustness", metavar="FILE", help="robustness.json of `dermedge robustness`"
    )
    page.add_argument("--peers", metavar="FILE", help="the table of `dermedge peers`")
    page.add_argument(
        "--training-runs",
        nargs="+",
        default=[],
        metavar="RUN",
        help="folders that `dermedge train` made, for their curves",
    )


def _bench(args: argparse.Namespace) -> int:
    from benchmarks import accuracy, report, roads
    from benchmarks.speed import bench, compare, latency
    from dermedge.image import find_images
    from dermedge.tune import load_choice

    if args.words:
        return _side_by_side(args)
    if args.seconds is not None and not args.seconds > 0:
        raise UserError("--seconds must be above 0")
    if not args.rest >= 0:
        raise UserError("--rest must not be below 0")
    if args.data and args.evaluation:
        raise UserError("--data measures anew and --evaluation shows old figures: give one")
    for option in ("split", "split_file", "limit", "baselines", "tta", "no_metadata", "unlike"):
        if getattr(args, option) and not args.data:
            raise UserError(f"--{option.replace('_', '-')} needs --data")
    bundle = in_precision(open_bundle(args), args.precision)
    # All that is given is looked at before the timing, so that no mistake throws it away.
    other = _other(args.vs, bundle) if args.vs else None
    tuned = load_choice(bundle) if args.tuned else None
    if args.tuned and not tuned:
        raise UserError("--tuned: nothing was chosen for this bundle here; run `dermedge tune`")
    evaluation = _stored_evaluation(args.evaluation, bundle) if args.evaluation else None
    curves = _stored_robustness(args.robustness, bundle) if args.robustness else None
    peers = _stored_peers(args.peers, bundle) if args.peers else None
    logs = [(Path(run).name, report.read_log(Path(run))) for run in args.training_runs]
    for path in args.pictures:
        if not find_images([path]) or not Path(path).exists():
            raise UserError(f"--pictures: there is no picture at {path}")
    chosen = _choose(bundle, args) if args.data else None
    name = bundle.manifest.name
    out = _folder(args.out or f"bench-{name}")
    page = Path(args.report) if args.report else out / "bench.html"
    _folder(page.parent)
    if page.is_dir():
        raise UserError(f"--report: {page} is a folder; give the page a file name")
    cores = latency.usable_cores()
    threads = list(dict.fromkeys(args.threads or (1, min(2, cores), cores)))
    later: dict[str, bench.Later] = {}
    if other:
        later[bench.turns_with(other)] = partial(bench.against, other)
    if args.roads:
        later[bench.ROADS] = partial(roads.part, chosen and chosen[1], cores, _told(bundle, args))
    if chosen:
        later["accuracy"] = partial(_accuracy, chosen, args, cores)
    with _bar() as show:
        plan = bench.Plan(
            bundle,
            latency.pictures([Path(image) for image in args.image]),
            threads,
            _command(),
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
    text = report.render(
        args.title or f"{name}: benchmark",
        bundle,
        bench=result,
        evaluation=result["evaluation"],
        images=find_images(args.pictures),
        logs=logs,
        worst=[(known[e["id"]], e["note"]) for e in result["worst"] if e["id"] in known],
    )
    write_atomic(page, text)
    if args.json:
        print(json.dumps(result))
    else:
        print(bench.table(result))
        if result["roads"]:
            print(f"\n{roads.table(result['roads'])}")
        if result["evaluation"] and args.data:
            print(f"\n{accuracy.table(result['evaluation'])}")
        print(f"written: {page}, {out / 'bench.json'}, {out / 'bench.csv'}")
        if result["missing"]:
            print("the same command with --resume measures what is missing")
        print(DISCLAIMER)
    return 130 if result["missing"] else 0


def _told(bundle, args: argparse.Namespace) -> tuple[str, ...]:
    """What the classifier is told beside the picture."""
    model = bundle.manifest.models.get("classifier")
    return () if model is None or args.no_metadata else model.metadata


def _accuracy(measured, args: argparse.Namespace, threads: int, plan, result: dict) -> None:
    from benchmarks import report

    evaluation, rows = _measure_accuracy(plan.bundle, measured, args, threads)
    worst = report.worst(rows, plan.bundle.manifest.labels)
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
            print(f"{path}: {fault}")
        if not faults:
            print(f"valid: {', '.join(results)}")
        return 1 if faults else 0
    from benchmarks import report

    # Files of one name in folders of the devices' names, or files that are called after them.
    stems = [Path(path).stem for path in results]
    same = len(set(stems)) < len(stems)
    names = [Path(path).parent.name if same else Path(path).stem for path in results]
    if len(set(names)) < len(names):
        names = list(results)
    named = dict(zip(names, results.values(), strict=True))
    found = compare.rows(named)
    out = _folder(args.out or "bench-compared")
    write_atomic(out / "compare.csv", compare.to_csv(found))
    write_atomic(out / "compare.html", report.render_compared(args.title, named))
    if args.json:
        print(json.dumps(found))
    else:
        print(compare.table(found, compare.again(named), compare.unlike(named)))
        print(f"written: {out / 'compare.html'}, compare.csv")
        print(DISCLAIMER)
    return 0


def _other(told: str, bundle):
    from dermedge.bundle import Bundle

    if told in PRECISIONS:
        return in_precision(bundle, told)
    if not Path(told).exists():
        raise UserError(f"--vs: there is no bundle at {told}; give a file, or fp32, fp16 or int8")
    return Bundle.open(told)


def _stored_robustness(path: str, bundle) -> dict:
    from benchmarks import robustness

    try:
        curves = json.loads(Path(path).read_bytes())
        fits = curves["bundle"]["sha256"] == bundle.sha256
        robustness.plot(curves)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} is no robustness.json of `dermedge robustness`") from None
    if not fits:
        raise UserError(f"{path} was made with another bundle; make it anew")
    return curves


_PEERS = {  # what the page shows of the table of `dermedge peers`, and of what kind it is
    **dict.fromkeys(("what", "side", "version", "reason"), str),
    "threads": int,
    **dict.fromkeys(("ms", "p90_ms"), float),
    **dict.fromkeys(("times_of_ours", "times_of_ours_low", "times_of_ours_high"), float),
    **dict.fromkeys(("outside_networks", "difference"), float),
}


def _stored_peers(path: str, bundle) -> list[dict]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        rows = [
            {k: kind(row[k]) if row[k] else None for k, kind in _PEERS.items()} for row in table
        ]
        fits = all(row["bundle_sha256"] == bundle.sha256[:16] for row in table)
    except (ValueError, KeyError, TypeError, csv.Error):
        raise UserError(f"{path} is no table of `dermedge peers`") from None
    if not rows or not fits:
        raise UserError(f"{path} was made with another bundle; make it anew")
    return rows


def _choose(bundle, args: argparse.Namespace):
    """The data set, and what of it is to be measured."""
    from benchmarks import accuracy
    from dermedge.datasets import load, parse_source

    data_set = load(*parse_source(args.data))
    part = args.split or "test"
    return data_set, accuracy.choose(
        data_set, bundle, part, args.split_file, args.limit, args.baselines
    )


def _measure_accuracy(bundle, measured, args: argparse.Namespace, threads: int | None):
    from benchmarks import accuracy
    from benchmarks.speed import latency

    data_set, chosen = measured
    return accuracy.evaluate(
        bundle,
        data_set,
        chosen,
        baselines=args.baselines,
        threads=threads or latency.usable_cores(),
        command=_command(),
        views=4 if args.tta else 1,
        metadata=not args.no_metadata,
        unlike=args.unlike,
    )


def _stored_evaluation(path: str, bundle) -> dict:
    import jinja2

    from benchmarks import report
    from benchmarks.accuracy import SCHEMA

    try:
        evaluation = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON; make it with `dermedge evaluate --json`") from None
    if not isinstance(evaluation, dict) or evaluation.get("schema") != SCHEMA:
        raise UserError(f"{path} is no evaluation of the kind '{SCHEMA}'; make it anew")
    try:
        fits = evaluation["bundle"]["sha256"] == bundle.sha256
        if fits:
            report.render("trial", bundle, evaluation=evaluation)
    except (LookupError, TypeError, ValueError, AttributeError, jinja2.TemplateError) as error:
        raise UserError(
            f"{path} is an incomplete evaluation ({type(error).__name__}: {error}); make it anew"
        ) from None
    if not fits:
        raise UserError(f"{path} was made with another bundle; evaluate {bundle.path} anew")
    return evaluation


def _command() -> str:
    """The command as it was typed; of a path that leads elsewhere only the last name.

    Where somebody keeps pictures is nobody else's business, and differs on the next machine.
    """

    def here(word: str) -> str:
        name, sign, path = word.rpartition("=")
        outside = os.path.isabs(path) or path.startswith("..")
        if outside and not os.path.relpath(path).startswith(".."):
            path, outside = os.path.relpath(path), False
        return name + sign + (os.path.basename(os.path.normpath(path)) if outside else path)

    return shlex.join(["dermedge", *map(here, sys.argv[1:])])


def _folder(path: str | Path) -> Path:
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


EVALUATE = Command(
    summary="measure a bundle's accuracy on a part of a data set",
    arguments=_evaluate_arguments,
    run=_evaluate,
    extra="bench",
)
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
BENCH = Command(
    summary="measure a bundle's speed and memory, and write a report",
    arguments=_bench_arguments,
    run=_bench,
    extra="bench",
)
