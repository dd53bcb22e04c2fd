"""The `dermedge export` command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dermedge import DISCLAIMER
from dermedge.cli import Command


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders: one segmenter, one classifier"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the .dermbundle to write")
    parser.add_argument("--name", help="what the bundle calls itself (default: FILE's name)")
    parser.add_argument(
        "--sign", metavar="KEYFILE", help="sign with this Ed25519 private key (PEM, no password)"
    )


def _run(args: argparse.Namespace) -> int:
    from dermedge.bundle import SUFFIX, Bundle, write_bundle
    from export.assemble import assemble
    from export.graph import ExportError

    out = Path(args.out)
    # Told before minutes of work, not after.
    if out.suffix != SUFFIX:
        raise ExportError(f"--out must end in {SUFFIX}, got {out.name}")
    if not out.parent.is_dir():
        raise ExportError(f"there is no folder {out.parent} to write {out.name} to")
    key = Path(args.sign).read_bytes() if args.sign else None
    manifest, parts = assemble(args.runs, args.name or out.stem)
    write_bundle(out, manifest, parts, signing_key=key)
    for line in _summary(Bundle.open(out)):
        print(line, file=sys.stderr)
    return 0


def _summary(bundle) -> list[str]:
    manifest = bundle.manifest
    lines = [f"{bundle.path}: {bundle.path.stat().st_size / 1e6:.1f} MB, {bundle.sha256[:12]}"]
    for role, model in manifest.models.items():
        difference = manifest.parity[role]["max_abs_difference"]
        pictures = manifest.parity[role]["count"]
        lines.append(
            f"{role}: {model.architecture}, {model.preprocessing.size} px, "
            f"{model.parameters / 1e6:.2f} M parameters; differs from the trained network by "
            f"at most {difference:.1g} on {pictures} pictures"
        )
    masks, classes = manifest.measured["segmenter"], manifest.measured["classifier"]
    limits = manifest.thresholds
    lines += [
        f"validation part: Jaccard {_shown(masks['jaccard'])}, "
        f"AUC malignant {_shown(classes['auc_malignant'])}, "
        f"balanced accuracy {_shown(classes['balanced_accuracy'])}, "
        f"ECE {classes['ece_before']:.3f} -> {classes['ece']:.3f}",
        f"thresholds: mask {limits.mask:g}, see a doctor {limits.see_doctor:g}, "
        f"urgent {limits.urgent:g}",
    ]
    lines += [
        f"the training of the {entry['role']} stopped at step {entry['steps']} of "
        f"{entry['planned_steps']}: finish it and export again"
        for entry in manifest.training_data
        if not entry["finished"]
    ]
    if manifest.procedural:
        lines.append("trained on generated pictures: it knows nothing of real skin")
    return [*lines, DISCLAIMER]


def _shown(figure: dict) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


EXPORT = Command(
    summary="turn trained runs into one bundle for devices",
    arguments=_arguments,
    run=_run,
    extra="export",
)
