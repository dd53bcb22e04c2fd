"""The core's subcommands: analyze, card, data, demo, verify, tune."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import DEFAULT, PRECISIONS, TARGETS, Bundle, shipped
from dermedge.cli import Command, one_line
from dermedge.lesion.scale import PAPERS, REFERENCES
from dermedge.metadata import FIELDS, REGIONS, SEXES, region
from dermedge.runtime import RUNTIMES, Road, host
from dermedge.text import printable

if TYPE_CHECKING:
    from dermedge.analysis import Analysis
    from dermedge.analyzer import Analyzer
    from dermedge.bundle.bundle import Bundle
    from dermedge.combine import Together
    from dermedge.tune import Result


def bundle_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `open_bundle` reads; every command that takes a bundle has them."""
    parser.add_argument(
        "--bundle",
        default=DEFAULT,
        metavar="FILE",
        help=f"a .dermbundle, or one that comes with dermedge: {', '.join(shipped()) or 'none'} "
        f"(default: {DEFAULT})",
    )
    parser.add_argument(
        "--trusted-key",
        metavar="FILE",
        help="Ed25519 public key (PEM, one or more in a file); refuse a bundle that none of them "
        "signed, and an earlier release than was opened before",
    )
    parser.add_argument(
        "--min-release",
        type=int,
        metavar="N",
        help="refuse a bundle of an earlier release than N (default: with --trusted-key, the "
        "newest that this device has opened of its name and key)",
    )


def open_bundle(args: argparse.Namespace) -> Bundle:
    """The checked bundle that the options of `bundle_arguments` name."""
    from dermedge.bundle.releases import check_release

    if args.min_release is not None and args.min_release < 0:
        raise UserError("--min-release must be 0 (any) or more")
    key = Path(args.trusted_key).read_bytes() if args.trusted_key else None
    bundle = Bundle.open(shipped().get(args.bundle, args.bundle), trusted_key=key)
    try:
        check_release(bundle, args.min_release)
    except OSError as error:
        # A device whose folders are read-only is no reason to run without a bundle.
        print(
            f"dermedge: {one_line(error)}; the release is not "
            "remembered, so an earlier one would be taken: give --min-release",
            file=sys.stderr,
        )
    return bundle


def road_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `chosen_roads` reads."""
    road = parser.add_argument_group("how the networks run (default: what `dermedge tune` chose)")
    road.add_argument("--precision", choices=PRECISIONS, help="of both networks")
    road.add_argument("--provider", choices=RUNTIMES, metavar="NAME", help=", ".join(RUNTIMES))


def chosen_roads(args: argparse.Namespace, bundle: Bundle) -> dict[str, Road]:
    """Role to how its network is run: as the options say, else as `dermedge tune` chose."""
    from dermedge.tune import load_choice

    if args.precision is None and args.provider is None:
        return load_choice(bundle)
    return {
        role: Road(args.precision or model.precision, args.provider or "cpu", args.threads)
        for role, model in bundle.manifest.models.items()
    }


def in_precision(bundle: Bundle, precision: str | None) -> Bundle:
    """The bundle with its graphs of that precision for this machine; None: as it is.

    Raises BundleError where a network has none.
    """
    if precision is None:
        return bundle
    roles = bundle.manifest.models
    return bundle.sliced({role: bundle.variant(role, precision, host()) for role in roles})


def _analyze_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures or folders of them")
    bundle_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line, nothing else")
    parser.add_argument("--masks", metavar="DIR", help="write each lesion mask as DIR/STEM.png")
    parser.add_argument(
        "--outlines", metavar="DIR", help="write each picture with its outline as DIR/STEM.png"
    )
    parser.add_argument(
        "--explain",
        metavar="DIR",
        help="write what the result rests upon as DIR/STEM.png: outline, ABCD measures, what "
        "speaks for a malignant class, similar cases",
    )
    parser.add_argument(
        "--px-per-mm", type=float, metavar="N", help="scale of the pictures, for the diameter"
    )
    parser.add_argument(
        "--reference",
        metavar="NAME",
        help="what lies beside the lesion, for the diameter (take it in an extra picture: it "
        "shifts the risk): card (`dermedge card` prints it), "
        f"ruler, {', '.join(name for name in REFERENCES if name.startswith('coin-'))}",
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="all pictures show one lesion: tell their common result, too",
    )
    parser.add_argument("--threads", type=int, default=0, help="of the runtime (default: its own)")
    road_arguments(parser)
    parser.add_argument(
        "--tta",
        action="store_true",
        help="mean over the picture and its mirrors; four times slower",
    )
    person = parser.add_argument_group("the person, where the bundle takes it")
    person.add_argument("--age", type=float, metavar="YEARS")
    person.add_argument("--sex", choices=SEXES)
    person.add_argument("--site", metavar="WORDS", help="of the body: face, back, forearm ...")


def _analyze(args: argparse.Namespace) -> int:
    from dermedge.analyzer import Analyzer
    from dermedge.image.header import ImageError
    from dermedge.image.read import find_images
    from dermedge.runtime import SessionError

    if args.px_per_mm is not None and not 0 < args.px_per_mm < float("inf"):
        raise UserError("--px-per-mm must be a number above 0")
    if args.reference is not None and args.reference not in REFERENCES:
        raise UserError(
            f"--reference {args.reference!r} is not known: name one of {', '.join(REFERENCES)}"
        )
    if args.reference is not None and args.px_per_mm is not None:
        raise UserError("--reference and --px-per-mm both tell the scale: give one")
    if args.threads < 0:
        raise UserError("--threads must be 0 (the runtime's choice) or more")
    bundle = open_bundle(args)
    metadata = _metadata(args, bundle)
    images = find_images(args.images)
    if not images:
        raise UserError(f"no pictures in {', '.join(args.images)}")
    _prepare_folders(args, images)
    roads = chosen_roads(args, bundle)
    analyzer = Analyzer(bundle, args.threads, 4 if args.tta else 1, roads)
    failed = 0
    analyses = []
    for path in images:
        try:
            analysis = analyzer.analyze(
                path, px_per_mm=args.px_per_mm, metadata=metadata, reference=args.reference
            )
        except (ImageError, SessionError, MemoryError) as error:
            failed += 1
            reason = str(error) or "not enough memory for this picture"
            if args.json:
                print(json.dumps({"image": str(path), "error": reason}), flush=True)
            print(f"dermedge: {printable(reason)}", file=sys.stderr)
            continue
        # The result first: a full disk must not cost it.
        analyses.append(analysis.to_json())
        found = json.dumps(analyses[-1], allow_nan=False) if args.json else None
        print(found or _sentence(analysis), flush=True)
        try:
            _write_pictures(args, path, analysis, analyzer)
        except (OSError, ImageError) as error:
            failed += 1
            print(f"dermedge: {one_line(error)}", file=sys.stderr)
    if args.together and analyses:
        from dermedge.combine import together

        common = together(analyses, bundle.manifest)
        print(json.dumps(common.to_json()) if args.json else _common(common), flush=True)
    if not args.json:
        if bundle.manifest.procedural:
            print("The bundle was trained on generated pictures: not for real skin.")
        print(DISCLAIMER)
    return 1 if failed else 0


def _prepare_folders(args: argparse.Namespace, images: list[Path]) -> None:
    """Make the output folders; refuse what would overwrite a picture or another output."""
    folders = [Path(folder) for folder in (args.masks, args.outlines, args.explain) if folder]
    if not folders:
        return
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("--masks, --outlines and --explain need a folder each")
    # Some file systems take A.png and a.png for one file.
    twice = [s for s, count in Counter(p.stem.casefold() for p in images).items() if count > 1]
    if twice:
        raise UserError(
            f"two pictures are called {twice[0]}, their results would overwrite each other: "
            "analyse their folders one at a time"
        )
    taken = {path.resolve() for path in images}
    for folder in folders:
        for path in images:
            if (folder / f"{path.stem}.png").resolve() in taken:
                raise UserError(f"{folder} holds the picture {path.name}: choose another folder")
        folder.mkdir(parents=True, exist_ok=True)


def _metadata(args: argparse.Namespace, bundle: Bundle) -> dict[str, object]:
    """What is told of the person; UserError where it makes no sense, or no use is made of it."""
    told = {name: getattr(args, name) for name in FIELDS if getattr(args, name) is not None}
    if "age" in told and not 0 <= args.age <= 120:
        raise UserError(f"--age must be 0 to 120 years, got {args.age:g}")
    if "site" in told and region(args.site) is None:
        raise UserError(
            f"--site {args.site!r} is no part of the body that is known: "
            f"name one of {', '.join(REGIONS)}, or one within them"
        )
    model = bundle.manifest.models.get("classifier")
    unused = [name for name in told if name not in model.metadata] if model else []
    if model and unused:
        raise UserError(
            f"bundle {bundle.path} takes {' and '.join(model.metadata) or 'pictures alone'}: "
            f"leave out --{unused[0]}"
        )
    return told


def _write_pictures(
    args: argparse.Namespace, path: Path, analysis: Analysis, analyzer: Analyzer
) -> None:
    from dermedge.image.read import read_image, write_png

    name = f"{path.stem}.png"
    if args.masks:
        write_png(Path(args.masks) / name, analysis.full_mask().astype("uint8") * 255)
    if not args.outlines and not args.explain:
        return
    from dermedge.explain import explain, outlined

    pixels = read_image(path).pixels
    if args.outlines:
        write_png(Path(args.outlines) / name, outlined(pixels, analysis))
    if args.explain:
        write_png(Path(args.explain) / name, explain(pixels, analysis, analyzer.cases))


def _sentence(analysis: Analysis) -> str:
    parts = [f"{printable(analysis.image)}: {analysis.triage}", analysis.rule]
    # A picture that cannot be judged gets no numbers.
    if analysis.triage != "retake":
        # The likely class first: with class offsets it need not have the highest probability.
        classes = sorted(
            analysis.probabilities.items(), key=lambda item: (item[0] != analysis.likely, -item[1])
        )
        parts.append("likely " + ", ".join(f"{label} {value:.2f}" for label, value in classes[:3]))
        lesion = analysis.lesion
        parts.append(f"A {lesion.asymmetry:g} B {lesion.border:g} C {lesion.color:g}")
        if lesion.diameter_mm is not None:
            parts.append(f"D {lesion.diameter_mm:.1f} mm")
    if analysis.scale is not None and analysis.scale["reason"]:
        parts.append(f"size unknown: {analysis.scale['reason']}")
    if analysis.inner is not None:
        parts.append("without the plain frame around it")
    return "; ".join(parts)


def _common(common: Together) -> str:
    parts = [f"together: {common.triage}", common.rule]
    if common.used:
        classes = sorted(
            common.probabilities.items(), key=lambda item: (item[0] != common.likely, -item[1])
        )
        parts.append("likely " + ", ".join(f"{label} {value:.2f}" for label, value in classes[:3]))
        parts.append(
            f"malignancy {common.lowest:.3f} to {common.highest:.3f} in single pictures, which "
            + ("lead to the same advice" if common.agreed else "do not lead to the same advice")
        )
    if common.used < common.pictures:
        parts.append(f"{common.pictures - common.used} of {common.pictures} refused")
    return "; ".join(parts)


def _card_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="FILE.pdf", help="a page to print")
    parser.add_argument("--paper", choices=tuple(PAPERS), default="a4", help="(default: a4)")


def _card(args: argparse.Namespace) -> int:
    from dermedge.lesion.scale import write_card

    if Path(args.out).suffix.lower() != ".pdf":
        raise UserError(f"--out {args.out}: the card is a PDF, end its name with .pdf")
    write_card(args.out, args.paper)
    print(
        f"written: {printable(args.out)}; print it at 100 % (actual size) and check its 50 mm line"
    )
    return 0


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    from dermedge.data import check

    check.arguments(parser)


def _data(args: argparse.Namespace) -> int:
    from dermedge.data import check

    return check.run(args)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    from dermedge.cli import demo

    demo.arguments(parser)


def _demo(args: argparse.Namespace) -> int:
    from dermedge.cli import demo

    return demo.run(args)


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    bundle_arguments(parser)
    parser.add_argument(
        "--target", choices=TARGETS, help="that the graphs must run on (default: this machine)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")


def _verify(args: argparse.Namespace) -> int:
    from dermedge.verify import verify

    checks = []
    for check in verify(open_bundle(args), args.target):
        checks.append(check)
        if not args.json:
            print(f"{check.verdict.upper()}  {check.name}: {printable(check.detail)}", flush=True)
    failed = any(check.verdict == "fail" for check in checks)
    if args.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}))
    return 1 if failed else 0


def _tune_arguments(parser: argparse.ArgumentParser) -> None:
    bundle_arguments(parser)
    parser.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        metavar="S",
        help="for timing each network (default: 20)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument(
        "--forget", action="store_true", help="drop the choice; the bundle's own graphs run again"
    )


def _tune(args: argparse.Namespace) -> int:
    from dermedge import tune

    if not 0 < args.seconds < float("inf"):
        raise UserError("--seconds must be a number above 0")
    bundle = open_bundle(args)
    if args.forget:
        tune.forget(bundle)
        return 0

    def progress(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)

    tune.prepare_store(bundle)  # minutes of measuring would be lost where this fails
    results = tune.tune(bundle, args.seconds, progress=progress)
    progress("")
    # The result first: a full disk must not cost it.
    if args.json:
        content = {"machine": tune.machine(), "results": [asdict(result) for result in results]}
        print(json.dumps(content), flush=True)
    else:
        for result in results:
            print(_tuned(result), flush=True)
    try:
        path = tune.store(bundle, results)
    except tune.TuneError as error:
        print(f"dermedge: {error}", file=sys.stderr)
        return 1
    if not args.json:
        print(f"kept in {printable(path)}: `dermedge analyze` runs so from now on")
    return 0


def _tuned(result: Result) -> str:
    start = f"{'*' if result.chosen else ' '} {result.role:<11}{result.road!s:<32}"
    if result.reason:
        return f"{start} left out: {result.reason}"
    return (
        f"{start}{result.ms:8.2f} ms, {result.ratio:.2f} times as fast "
        f"({result.low:.2f} to {result.high:.2f})"
    )


ANALYZE = Command("analyse pictures with a bundle", _analyze_arguments, _analyze)
CARD = Command("make the printed card that gives a lesion's size", _card_arguments, _card, "app")
DATA = Command("check a data set and freeze its split", _data_arguments, _data)
DEMO = Command(
    "the whole way: data, training, export, analysis, report",
    _demo_arguments,
    _demo,
    "export,bench",
)
VERIFY = Command("check a bundle, and what it computes here", _verify_arguments, _verify)
TUNE = Command("find what runs a bundle fastest on this device", _tune_arguments, _tune)
