"""The subcommand of this room: export."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from dermedge.bundle.bundle import shipped
from dermedge.bundle.manifest import PRECISIONS, TARGETS, Manifest
from dermedge.cli import Command
from dermedge.files import check_writable
from dermedge.text import printable
from export import METHODS, ExportError
from export.bundle.rewrite import check_release, check_rewrite, signing_key
from export.bundle.slices import beside_first, slice_for
from export.options import ExportOptions

MOST_SIMILAR = 8  # of a class
RETRAINING = 300  # steps
_ACCEPT = {
    "retained": "share of FP32's AUC, balanced accuracy and Jaccard that is retained (0.99)",
    "sensitivity": "share of FP32's sensitivity to malignancy at its threshold that is retained "
    "(0.95)",
    "triage": "share of pictures with the same triage as FP32 (0.985)",
    "speedup": "how many times as fast as FP32 INT8 is, where it is timed (1)",
}
# Names of version 0.1, which work for one version.
_OLD_NAMES = {
    "--cases": "--similar",
    "--case-pictures": "--similar-pictures",
    **{f"--gate-{name}": f"--accept-{name}" for name in _ACCEPT},
}


class _Renamed(argparse.Action):
    """An option under its old name: it does the same, and says the new one."""

    def __call__(self, parser, namespace, values, option_string=None):
        new = _OLD_NAMES[option_string]
        print(f"dermedge: {option_string} is now called {new}", file=sys.stderr)
        setattr(namespace, self.dest, True if self.nargs == 0 else values)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="run folders: a segmenter and a classifier, or a multitask network; one of the two "
        "alone gives a bundle for evaluation, or with --with a whole one",
    )
    parser.add_argument("--out", metavar="FILE", help="the .dermbundle to write")
    parser.add_argument(
        "--with",
        dest="lender",
        metavar="BUNDLE",
        help="take the network for the role that no run plays from this bundle, with its licence "
        f"and figures: a file, or one that comes with dermedge: {', '.join(shipped())}",
    )
    _recheck_arguments(parser)
    _content_arguments(parser)
    _precision_arguments(parser)
    parser.add_argument(
        "--release",
        type=int,
        metavar="N",
        help="of the bundles of this --name, counting up; a device with its trusted key takes no "
        "earlier one again (default: none)",
    )
    parser.add_argument(
        "--sign", metavar="KEYFILE", help="sign with this Ed25519 private key (PEM, no password)"
    )
    for name, kind in {"--cases": int, "--case-pictures": None}.items():
        _old_name(parser, name, kind)
    for name in _ACCEPT:
        _old_name(parser, f"--gate-{name}", float)


def _recheck_arguments(parser: argparse.ArgumentParser) -> None:
    again = parser.add_argument_group(
        "judge the precisions of a finished bundle again, or with --precisions make new ones from "
        "its FP32 graphs; no run given"
    )
    again.add_argument(
        "--recheck",
        metavar="BUNDLE",
        help="print what passes; with --out write the bundle again without what does not. Exit "
        "status 1: something did not pass, or could not be made",
    )
    again.add_argument(
        "--data",
        action="append",
        metavar="NAME=PATH",
        help="data set that its networks were trained on; once for each",
    )
    again.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="FILE",
        help="split that a network was trained with; once for each (default: its own, else one "
        "made with seed 0)",
    )


def _content_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="what the bundle calls itself (default: FILE's name)")
    prior = parser.add_argument_group("the prior that the probabilities carry")
    prior.add_argument(
        "--prior",
        metavar="P",
        help="how frequent the classes are where the bundle will be used: "
        "uniform, the name of a data set of the training, NAME=PATH of another one (both by their "
        "labelled pictures), CLASS=SHARE,..., or FILE.csv with the columns class and share "
        "(default: as trained)",
    )
    prior.add_argument(
        "--carried",
        metavar="P",
        help="with --prior: what the probabilities of a network carry that does not state it",
    )
    parser.add_argument(
        "--weights",
        choices=("full", "half"),
        help="half: a file of half the size; all figures are of the rounded network (else: full)",
    )
    parser.add_argument(
        "--similar",
        type=int,
        default=0,
        metavar="N",
        help=f"carry N training cases of each class, 0 to {MOST_SIMILAR}, so that similar ones can "
        "be named (default: none)",
    )
    parser.add_argument(
        "--similar-pictures",
        action="store_true",
        help="with --similar: small pictures of them too; mind their licence and their patients",
    )


def _precision_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["fp32"],
        metavar="P",
        help="fp32, fp16, int8; each enters the bundle only where it is accepted (default: fp32)",
    )
    parser.add_argument(
        "--for",
        dest="target",
        choices=TARGETS,
        help="carry one graph a network alone: the smallest that passed for this target",
    )
    parser.add_argument(
        "--beside-fp32",
        action="store_true",
        help="with --for: carry FP32 too, which every machine runs",
    )
    parser.add_argument(
        "--calibration",
        nargs="+",
        choices=METHODS,
        metavar="METHOD",
        help=f"of INT8's ranges, compared with one another: {', '.join(METHODS)} (default: all)",
    )
    parser.add_argument(
        "--retrain",
        type=int,
        metavar="STEPS",
        help="of quantization-aware training where a figure of the tuning half keeps INT8 out "
        f"(default: {RETRAINING}; 0: none)",
    )
    acceptance = parser.add_argument_group(
        "the acceptance",
        "what the lower bound of the 95 % interval must reach, on the half of the validation part "
        "that chose nothing (default: the recipe's, with --recheck the numbers in brackets; 0: not "
        "asked)",
    )
    for name, meaning in _ACCEPT.items():
        acceptance.add_argument(f"--accept-{name}", type=float, metavar="X", help=meaning)


def _old_name(parser: argparse.ArgumentParser, name: str, kind: type | None) -> None:
    dest = _OLD_NAMES[name].removeprefix("--").replace("-", "_")
    extra = {"nargs": 0} if kind is None else {"type": kind}
    parser.add_argument(
        name,
        dest=dest,
        action=_Renamed,
        help=argparse.SUPPRESS,
        default=argparse.SUPPRESS,
        **extra,
    )


def _run(args: argparse.Namespace) -> int:
    out = _checked_out(args)
    key = signing_key(args.sign)
    _check(args)
    margins = _margins(args)
    if args.recheck:
        _check_recheck(args, out)
        return _recheck(args, out, margins, key)
    assert out is not None
    if args.data or args.split:
        raise ExportError("--data and --split go with --recheck: a run knows its own")
    if margins and set(args.precisions) == {"fp32"}:
        raise ExportError(
            f"--accept-{min(margins)} asks something of other precisions than FP32: name them by "
            "--precisions, or leave it out"
        )
    return _export(args, out, margins, key)


# Said before minutes of work, not after.


def _checked_out(args: argparse.Namespace) -> Path | None:
    from dermedge.bundle.bundle import SUFFIX
    from dermedge.bundle.manifest import check_name

    if not {"fp32"} <= set(args.precisions) <= set(PRECISIONS):
        # First: a run that is named behind them is taken for one of them.
        raise ExportError(
            "--precisions takes fp32, which all others are measured against, and any of "
            f"{', '.join(PRECISIONS)}; got {' '.join(args.precisions)}"
        )
    if bool(args.recheck) == bool(args.runs):
        raise ExportError("give the run folders, or --recheck BUNDLE")
    if not args.out and not args.recheck:
        raise ExportError("--out FILE says which .dermbundle to write")
    out = Path(args.out) if args.out else None
    if out and out.suffix != SUFFIX:
        raise ExportError(f"--out must end in {SUFFIX}, got {out.name}")
    if out and not out.parent.is_dir():
        raise ExportError(f"there is no folder {out.parent} to write {out.name} to")
    if out:
        check_writable(out)
    if out and args.runs:
        try:
            check_name(args.name or out.stem)
        except ValueError as error:
            raise ExportError(f"the bundle's {error}: give another --name") from None
    return out


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.similar <= MOST_SIMILAR:
        raise ExportError(f"--similar must be 0 to {MOST_SIMILAR}, got {args.similar}")
    if args.similar_pictures and not args.similar:
        raise ExportError("--similar-pictures needs --similar N: how many of each class")
    if args.beside_fp32 and not args.target:
        raise ExportError("--beside-fp32 needs --for TARGET: without it all precisions are carried")
    check_release(args.release)
    if args.release is not None and args.runs and not args.name:
        # Of a file that is called my-4 a device would not know that it replaces my-3.
        raise ExportError(
            "--release counts the bundles of one name: give --name, the same for each release"
        )
    if args.retrain is not None and args.retrain < 0:
        raise ExportError(f"--retrain must be 0 or more steps, got {args.retrain}")
    retrain = None if args.recheck else args.retrain
    for option, value in {"--calibration": args.calibration, "--retrain": retrain}.items():
        if value is not None and "int8" not in args.precisions:
            raise ExportError(f"{option} is of INT8: add int8 to --precisions, or leave it out")
    if args.carried and not args.prior:
        raise ExportError("--carried goes with --prior: what the probabilities carry so far")


def _check_recheck(args: argparse.Namespace, out: Path | None) -> None:
    """Refuse what would change nothing."""
    for option, value in {
        "--prior": args.prior,
        "--with": args.lender,
        "--name": args.name,
        "--weights": args.weights,
        "--similar": args.similar or None,
        "--retrain": args.retrain,
    }.items():
        if value is not None:
            raise ExportError(f"{option} goes with run folders, not with --recheck")
    idle = args.target if set(args.precisions) == {"fp32"} else None
    for option, value in {
        "--sign": args.sign,
        "--release": args.release,
        "--for": idle,
        "--beside-fp32": args.beside_fp32 or None,
    }.items():
        if value is not None and out is None:
            raise ExportError(f"{option} needs --out FILE: without it no bundle is written")


def _margins(args: argparse.Namespace) -> dict[str, float]:
    """The margins that are given; ExportError where one makes no sense."""
    margins = {name: getattr(args, f"accept_{name}") for name in _ACCEPT}
    for name, value in margins.items():
        highest = 100 if name == "speedup" else 1
        if value is not None and not 0 <= value <= highest:
            raise ExportError(f"--accept-{name} must lie in 0 to {highest}, got {value:g}")
    return {name: value for name, value in margins.items() if value is not None}


def _export(
    args: argparse.Namespace, out: Path, margins: dict[str, float], key: bytes | None
) -> int:
    from dermedge.bundle.bundle import Bundle, open_bundle, write_bundle
    from export.bundle.summary import summary
    from export.pipeline import export_runs

    options = replace(
        _precisions(args),
        prior=args.prior or "",
        carried=args.carried or "",
        weights=args.weights or "full",
        similar=args.similar,
        similar_pictures=args.similar_pictures,
        margins=margins,
        retraining=RETRAINING if args.retrain is None else args.retrain,
    )
    lender = open_bundle(args.lender) if args.lender else None
    manifest, parts = _cut(args, *export_runs(args.runs, args.name or out.stem, options, lender))
    write_bundle(out, replace(manifest, release=args.release), parts, signing_key=key)
    for line in summary(Bundle.open(out)):
        print(printable(line), file=sys.stderr)
    return 0


def _recheck(
    args: argparse.Namespace, out: Path | None, margins: dict[str, float], key: bytes | None
) -> int:
    from dermedge.bundle.bundle import open_bundle, write_bundle
    from dermedge.data import load_sources
    from export.bundle.summary import judged_line
    from export.recheck import recheck
    from train.recipe import Acceptance

    if not args.data:
        raise ExportError("--recheck needs --data NAME=PATH: what the bundle was trained on")
    bundle = open_bundle(args.recheck)
    if out:
        check_rewrite(bundle, key, args.release)
    data_sets = load_sources(args.data)
    options = _precisions(args)
    wanted = options if options.other_precisions else None
    rechecked = recheck(bundle, data_sets, args.split, Acceptance(**margins), wanted)
    for report in rechecked.reports:
        note = report["judged"].get("note")
        print(judged_line(report) + (f"; mind that {note}" if note else ""))
    for line in rechecked.unmade:
        print(line)
    if out:
        manifest, parts = _cut(args, rechecked.manifest, rechecked.parts)
        if args.release is not None:
            manifest = replace(manifest, release=args.release)
        write_bundle(out, manifest, parts, signing_key=key)
        print(f"written: {out}", file=sys.stderr)
    passed = all(report["passed"] for report in rechecked.reports)
    return 0 if passed and not rechecked.unmade else 1


def _precisions(args: argparse.Namespace) -> ExportOptions:
    """Which precisions are asked for, for which targets, calibrated how."""
    return ExportOptions(
        precisions=tuple(args.precisions),
        methods=tuple(args.calibration or METHODS),
        targets=(args.target,) if args.target else TARGETS,
    )


def _cut(
    args: argparse.Namespace, manifest: Manifest, parts: dict[str, bytes]
) -> tuple[Manifest, dict[str, bytes]]:
    """What --for and --beside-fp32 leave of a bundle's contents."""
    if not args.target:
        return manifest, parts
    cut = beside_first if args.beside_fp32 else slice_for
    return cut(manifest, parts, args.target)


EXPORT = Command(
    summary="turn trained runs into one bundle for devices",
    arguments=_arguments,
    run=_run,
    extra="export",
)
