"""The subcommand of this room: export."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from dermedge import DISCLAIMER
from dermedge.bundle.bundle import PRECISIONS, TARGETS
from dermedge.bundle.manifest_check import MAX_RELEASE
from dermedge.cli import Command
from dermedge.text import printable
from export import METHODS, ExportError

MOST_CASES = 8  # of a class
_GATE = {
    "retained": "share of FP32's AUC, balanced accuracy and Jaccard that is kept (0.99)",
    "sensitivity": "share of FP32's sensitivity to malignancy at its threshold that is kept (0.95)",
    "triage": "share of pictures with the same triage as FP32 (0.985)",
    "speedup": "how many times as fast as FP32 INT8 is, where it is timed (1)",
}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="run folders: a segmenter and a classifier, or a multitask network; one of the two "
        "alone gives a bundle for evaluation",
    )
    parser.add_argument("--out", metavar="FILE", help="the .dermbundle to write")
    again = parser.add_argument_group(
        "judge the precisions of a finished bundle again, no run given"
    )
    again.add_argument(
        "--recheck",
        metavar="BUNDLE",
        help="print what passes; with --out write the bundle again without what does not. Exit "
        "status 1: something did not pass",
    )
    again.add_argument("--data", metavar="NAME=PATH", help="data set that it was trained on")
    again.add_argument(
        "--split",
        metavar="FILE",
        help="split that it was trained with (default: its own, else one made with seed 0)",
    )
    parser.add_argument("--name", help="what the bundle calls itself (default: FILE's name)")
    parser.add_argument(
        "--weights",
        choices=("full", "half"),
        default="full",
        help="half: a file of half the size; all figures are of the rounded network",
    )
    parser.add_argument(
        "--cases",
        type=int,
        default=0,
        metavar="N",
        help=f"carry N training cases of each class, 0 to {MOST_CASES}, so that similar ones can "
        "be named (default: none)",
    )
    parser.add_argument(
        "--case-pictures",
        action="store_true",
        help="with --cases: small pictures of them too; mind their licence and their patients",
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["fp32"],
        metavar="P",
        help="fp32, fp16, int8; each enters the bundle only where it passes the gate "
        "(default: fp32)",
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
        default=list(METHODS),
        metavar="METHOD",
        help=f"of INT8's ranges, compared with one another: {', '.join(METHODS)} (default: all)",
    )
    parser.add_argument(
        "--retrain",
        type=int,
        default=300,
        metavar="STEPS",
        help="of quantization-aware training where INT8 fails the gate (default: 300; 0: none)",
    )
    gate = parser.add_argument_group(
        "the gate",
        "what the lower bound of the 95 % interval must reach, on the half of the validation part "
        "that chose nothing (default: the recipe's; 0: not asked)",
    )
    for name, told in _GATE.items():
        gate.add_argument(f"--gate-{name}", type=float, metavar="X", help=told)
    parser.add_argument(
        "--release",
        type=int,
        metavar="N",
        help="of the bundle of this name, counting up; a device with its trusted key takes no "
        "earlier one again (default: none)",
    )
    parser.add_argument(
        "--sign", metavar="KEYFILE", help="sign with this Ed25519 private key (PEM, no password)"
    )


def _run(args: argparse.Namespace) -> int:
    from dermedge.bundle.bundle import SUFFIX, Bundle, write_bundle
    from export.assemble import Wish, assemble, slice_for
    from export.precisions import refuse_unknown

    # Told before minutes of work, not after.
    if bool(args.recheck) == bool(args.runs):
        raise ExportError("give the run folders, or --recheck BUNDLE")
    if not args.out and not args.recheck:
        raise ExportError("--out FILE says which .dermbundle to write")
    out = Path(args.out) if args.out else None
    if out and out.suffix != SUFFIX:
        raise ExportError(f"--out must end in {SUFFIX}, got {out.name}")
    if out and not out.parent.is_dir():
        raise ExportError(f"there is no folder {out.parent} to write {out.name} to")
    if not 0 <= args.cases <= MOST_CASES:
        raise ExportError(f"--cases must be 0 to {MOST_CASES}, got {args.cases}")
    key = Path(args.sign).read_bytes() if args.sign else None
    if args.case_pictures and not args.cases:
        raise ExportError("--case-pictures needs --cases N: how many of each class")
    if args.beside_fp32 and not args.target:
        raise ExportError("--beside-fp32 needs --for TARGET: without it all precisions are carried")
    if args.release is not None and not 1 <= args.release <= MAX_RELEASE:
        raise ExportError(f"--release must be 1 to {MAX_RELEASE}, got {args.release}")
    refuse_unknown(args.precisions, PRECISIONS)
    if args.retrain < 0:
        raise ExportError(f"--retrain must be 0 or more steps, got {args.retrain}")
    limits = _limits(args)
    if args.recheck:
        return _recheck(args, out, limits, key)
    if args.data or args.split:
        raise ExportError("--data and --split go with --recheck: a run knows its own")
    wish = Wish(
        weights=args.weights,
        cases=args.cases,
        case_pictures=args.case_pictures,
        precisions=tuple(args.precisions),
        methods=tuple(args.calibration),
        limits=limits,
        retraining=args.retrain,
        targets=(args.target,) if args.target else TARGETS,
    )
    manifest, parts = assemble(args.runs, args.name or out.stem, wish)
    if args.target and not args.beside_fp32:
        manifest, parts = slice_for(manifest, parts, args.target)
    write_bundle(out, replace(manifest, release=args.release), parts, signing_key=key)
    for line in _summary(Bundle.open(out)):
        print(printable(line), file=sys.stderr)
    return 0


def _limits(args: argparse.Namespace) -> dict[str, float]:
    """The margins that are given; ExportError where one makes no sense."""
    found = {name: getattr(args, f"gate_{name}") for name in _GATE}
    for name, value in found.items():
        highest = 100 if name == "speedup" else 1
        if value is not None and not 0 <= value <= highest:
            raise ExportError(f"--gate-{name} must lie in 0 to {highest}, got {value:g}")
    return {name: value for name, value in found.items() if value is not None}


def _recheck(args: argparse.Namespace, out: Path | None, limits: dict, key: bytes | None) -> int:
    from dermedge import data as datasets
    from dermedge.bundle.bundle import Bundle, shipped, write_bundle
    from export.recheck import recheck
    from train.recipe import Gate

    if not args.data:
        raise ExportError("--recheck needs --data NAME=PATH: what the bundle was trained on")
    bundle = Bundle.open(shipped().get(args.recheck, args.recheck))
    if bundle.signed_by and out and key is None:
        raise ExportError(f"{args.recheck} is signed: give --sign KEYFILE, or leave --out away")
    data_set = datasets.load(*datasets.parse_source(args.data))
    found = recheck(bundle, data_set, args.split, Gate(**limits))
    for report in found.reports:
        note = report["judged"].get("note")
        print(_judged(report) + (f"; mind that {note}" if note else ""))
    if out:
        write_bundle(out, found.manifest, found.parts, signing_key=key)
        print(f"written: {out}", file=sys.stderr)
    return 0 if all(report["passed"] for report in found.reports) else 1


def _summary(bundle) -> list[str]:
    from dermedge.bundle.bundle import ROLES

    manifest = bundle.manifest
    lines = [f"{bundle.path}: {bundle.path.stat().st_size / 1e6:.1f} MB, {bundle.sha256[:12]}"]
    for role, model in manifest.models.items():
        difference = manifest.parity[role]["max_abs_difference"]
        pictures = manifest.parity[role]["count"]
        lines.append(
            f"{role}: {model.architecture}, {model.preprocessing.size} px, "
            f"{model.parameters / 1e6:.2f} M parameters in {model.weights} precision; differs from "
            f"the trained network by at most {difference:.1g} on {pictures} pictures"
        )
    limits = manifest.thresholds
    if "segmenter" in manifest.models:
        jaccard = manifest.measured["segmenter"]["jaccard"]
        where = _where(manifest.measured["segmenter"])
        lines.append(f"{where}: Jaccard {_shown(jaccard)}; threshold: mask {limits.mask:g}")
    if "classifier" in manifest.models:
        measured = manifest.measured["classifier"]
        lines.append(_classified(_where(measured), measured, measured["ece_before"]))
        if "without_metadata" in measured:
            lines.append(_classified("with the picture alone", measured["without_metadata"]))
        lines.append(
            f"thresholds: see a doctor {limits.see_doctor:g}, urgent {limits.urgent:g}, "
            f"unfamiliar {limits.unfamiliar:g}"
        )
    lines += [_judged(report) for report in manifest.gate]
    missing = [role for role in ROLES if role not in manifest.models]
    lines += [f"for evaluation only: the app needs a {role} too" for role in missing]
    lines += [
        f"the training of the {entry['role']} stopped at step {entry['steps']} of "
        f"{entry['planned_steps']}: finish it and export again"
        for entry in manifest.training_data
        if not entry["finished"]
    ]
    if manifest.procedural:
        lines.append("trained on generated pictures: it knows nothing of real skin")
    return [*lines, DISCLAIMER]


def _where(measured: dict) -> str:
    half = measured.get("half")
    return f"{half} half of the validation part" if half else "validation part"


def _judged(report: dict) -> str:
    """What the gate said of one precision of one network, in a line."""
    speed = report["speed"]
    fast = "speed not measured here"
    if speed:
        fast = f"{speed['ratio']:.2f} times as fast as FP32 ({speed['low']:.2f} to "
        fast += f"{speed['high']:.2f})"
    figures = [
        f"{name} {_number(figure['value'], '.4f')} ({_kept(figure['kept'])} of FP32)"
        for name, figure in report["figures"].items()
        if isinstance(figure, dict) and "kept" in figure
    ]
    if "triage_agreement" in report["figures"]:
        figures.append(f"triage agrees on {_kept(report['figures']['triage_agreement'])}")
    if few := report["figures"].get("few_lesions"):
        each = ", ".join(f"{label} {count}" for label, count in few.items())
        figures.append(f"of few lesions, and not shown for each: {each}")
    verdict = "in" if report["passed"] else f"REFUSED: {'; '.join(report['reasons'])}"
    return (
        f"{report['precision']} {' and '.join(report['roles'])} for "
        f"{', '.join(report['targets'])}: {verdict}; {', '.join(figures)}; {fast}; "
        f"{report['share_of_fp32']:.2f} of FP32's size"
    )


def _kept(interval: dict) -> str:
    value, low, high = (_number(interval[name], ".2%") for name in ("value", "low", "high"))
    return f"{value}, {low} to {high}"


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _classified(where: str, measured: dict, ece_before: float | None = None) -> str:
    before = "" if ece_before is None else f"{ece_before:.3f} -> "
    return (
        f"{where}: AUC malignant {_shown(measured['auc_malignant'])}, "
        f"balanced accuracy {_shown(measured['balanced_accuracy'])}, "
        f"ECE {before}{measured['ece']:.3f}"
    )


def _shown(figure: dict) -> str:
    if figure["low"] is None:
        return _number(figure["value"], ".3f")
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


EXPORT = Command(
    summary="turn trained runs into one bundle for devices",
    arguments=_arguments,
    run=_run,
    extra="export",
)
