"""`dermedge analyze`: pictures to results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import Bundle
from dermedge.cli import DONE, FAILED, WRONG_USE, Command, one_line
from dermedge.cli.options import (
    bundle_arguments,
    check_engine,
    engine_arguments,
    execution_arguments,
    open_bundle,
    tuned_executions,
)
from dermedge.cluster import on_ray
from dermedge.files import check_folder
from dermedge.lesion.scale import LEAST_PX_PER_MM, MOST_PX_PER_MM, REFERENCES
from dermedge.metadata import FIELDS, OLDEST, REGIONS, SEXES, region
from dermedge.runtime import MOST_THREADS
from dermedge.text import printable

if TYPE_CHECKING:
    from dermedge.analysis import Analysis
    from dermedge.analyzer import Analyzer
    from dermedge.batch import Options, Results
    from dermedge.combine import Combined


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="pictures or folders of them, also in an object store (s3://bucket/folder)",
    )
    bundle_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line, nothing else")
    parser.add_argument(
        "--masks",
        metavar="DIR",
        help="write each lesion mask as DIR/STEM.png; one that is there is replaced where it was "
        "written of the same picture",
    )
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
        "--combine",
        action="store_true",
        help="all pictures show one lesion: print their common result, too; those with a "
        "--reference that is found give the size alone where another one can be judged",
    )
    parser.add_argument("--together", action="store_true", help=argparse.SUPPRESS)  # until 0.2
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        help="of the runtime (default: what `dermedge tune` chose, else its own)",
    )
    execution_arguments(parser)
    engine_arguments(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="write one JSON object a line to FILE; a run that was stopped goes on from there",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="mean over the picture and its mirrors; four times slower",
    )
    person = parser.add_argument_group("the person, where the bundle takes it")
    person.add_argument("--age", type=float, metavar="YEARS")
    person.add_argument("--sex", choices=SEXES)
    person.add_argument("--site", metavar="WORDS", help="of the body: face, back, forearm ...")


def run(args: argparse.Namespace) -> int:
    from dermedge.batch import Options, Results, exists, find_sources

    if args.together:
        print("dermedge: --together is now called --combine", file=sys.stderr)
    _check(args)
    bundle = open_bundle(args)
    metadata = _metadata(args, bundle)
    sources, others = find_sources(args.images)
    _tell_left_out(others)
    if not sources:
        raise UserError(f"no pictures in {', '.join(args.images)}")
    _prepare_folders(args, sources)
    options = Options(
        threads=args.threads,
        views=4 if args.tta else 1,
        executions=tuned_executions(args, bundle),
        px_per_mm=args.px_per_mm,
        metadata=metadata,
        reference=args.reference,
    )
    if args.out:
        with closing(Results(Path(args.out), bundle, options, sources)) as results:
            failed, rows = _analyze(args, bundle, options, sources, results)
    else:
        failed, rows = _analyze(args, bundle, options, sources)
    if rows:
        from dermedge.combine import combine

        common = combine(rows, bundle.manifest, len(sources) - len(rows))
        print(json.dumps(common.to_json()) if args.json else _common(common), flush=True)
    if not args.json:
        if bundle.manifest.procedural:
            print("The bundle was trained on generated pictures: not for real skin.")
        print(DISCLAIMER)
    if failed == len(sources) and not any(map(exists, sources)):
        return WRONG_USE  # none of these names is there
    return FAILED if failed else DONE


def _tell_left_out(others: list[str]) -> None:
    """Say how many pictures of the folders are of kinds that are not read."""
    if others:
        kinds = ", ".join(sorted({Path(name).suffix.lower() for name in others}))
        print(
            f"dermedge: left out of the folders, as such pictures are not read ({kinds}; files: "
            f"{len(others)}): save them as JPEG or PNG",
            file=sys.stderr,
        )


def _check(args: argparse.Namespace) -> None:
    """UserError where options contradict each other or make no sense."""
    least, most = LEAST_PX_PER_MM, MOST_PX_PER_MM
    if args.px_per_mm is not None and not least <= args.px_per_mm <= most:
        raise UserError(f"--px-per-mm must be {least} to {most}: pixels to a millimetre")
    if args.reference is not None and args.reference not in REFERENCES:
        raise UserError(
            f"--reference {args.reference!r} is not known: name one of {', '.join(REFERENCES)}"
        )
    if args.reference is not None and args.px_per_mm is not None:
        raise UserError("--reference and --px-per-mm both state the scale: give one")
    if not 0 <= args.threads <= MOST_THREADS:
        raise UserError(f"--threads must be 0 (the runtime's choice) to {MOST_THREADS}")
    drawn = [f"--{name}" for name in ("masks", "outlines", "explain") if getattr(args, name)]
    if args.out and drawn:
        raise UserError(f"{drawn[0]} cannot go with --out: a run that goes on skips pictures")
    if check_engine(args):
        if drawn:
            raise UserError(f"{drawn[0]} needs --engine local")
        if not (args.json or args.out):
            raise UserError("--engine ray gives JSON lines: add --out FILE or --json")


def _analyze(
    args: argparse.Namespace,
    bundle: Bundle,
    options: Options,
    sources: list[str],
    results: Results | None = None,
) -> tuple[int, list[dict[str, Any]]]:
    """Print or write a row a picture; how many failed, and the rows of the others where they are to
    be combined: those of an archive are more than memory holds."""
    from dermedge.batch import in_actor

    known = results.places if results else {}
    remaining = [source for source in sources if source not in known]
    combined = args.combine or args.together
    rows: dict[str, dict[str, Any]] = {}
    if results and combined:
        rows = {source: results.row(source) for source in sources if source in known}
    outcomes: Iterator[tuple[dict[str, Any], Analysis | None]]
    analyzer = None
    if not remaining:
        outcomes = iter(())
    elif args.engine == "ray":
        make = partial(in_actor, bundle, options)
        lines = on_ray(make, remaining, args.workers, max(1, args.threads), args.ray_address)
        outcomes = ((row, None) for row in lines)
    else:
        from dermedge.tune import chosen

        named = args.precision is not None or args.provider is not None
        with chosen({} if named else options.executions):
            analyzer = options.analyzer(bundle)
        outcomes = (options.outcome(analyzer, source) for source in remaining)
    failed = 0
    silent = None if results and not args.json else True  # None: where stderr is no terminal
    with tqdm(total=len(sources), initial=len(sources) - len(remaining), disable=silent) as bar:
        for row, analysis in outcomes:
            bar.update()
            # The result first: a full disk must not cost it.
            if results:
                results.add(row)
            if args.json:
                print(json.dumps(row, allow_nan=False), flush=True)
            elif analysis is not None and not results:
                print(_sentence(analysis), flush=True)
            if "error" in row:
                failed += 1
                print(f"dermedge: {_named(row)}", file=sys.stderr)
                continue
            if combined:
                rows[row["image"]] = row
            if analysis is not None and analyzer is not None:
                failed += not _drawn(args, analysis, analyzer)
    return failed, [rows[source] for source in sources if source in rows]


def _named(row: dict[str, Any]) -> str:
    """Why a picture has no result, and which picture that is."""
    name, error = (" ".join(printable(row[key]).split()) for key in ("image", "error"))
    return error if error.startswith(f"{name}: ") else f"{name}: {error}"


def _drawn(args: argparse.Namespace, analysis: Analysis, analyzer: Analyzer) -> bool:
    """Whether the pictures that were asked for could be written."""
    from dermedge.image.header import ImageError
    from dermedge.image.opencv import short_of_memory

    try:
        with short_of_memory():
            _write_pictures(args, analysis, analyzer)
    except (OSError, ImageError, MemoryError) as error:
        reason = one_line(error) or f"{printable(analysis.image)}: not enough memory to draw it"
        print(f"dermedge: {reason}", file=sys.stderr)
        return False
    return True


def _prepare_folders(args: argparse.Namespace, sources: list[str]) -> None:
    """Make the output folders; refuse what would overwrite a picture, or what shows another one, or
    cannot be written to."""
    from dermedge.batch import stem

    folders = [Path(folder) for folder in (args.masks, args.outlines, args.explain) if folder]
    if not folders:
        return
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("--masks, --outlines and --explain need a folder each")
    for folder in folders:
        for name in args.images:
            if _is_within(folder, Path(name)):
                raise UserError(
                    f"{folder} lies in {name}, where the next run would take what is drawn for "
                    "pictures: choose a folder outside of it"
                )
    # Some file systems take A.png and a.png for one file.
    drawn: dict[str, str] = {}
    for source in sources:
        first = drawn.setdefault(stem(source).casefold(), source)
        if first != source:
            raise UserError(
                f"{first} and {source} would both be drawn as {stem(source)}.png: "
                "analyse them one after the other, each into a folder of its own"
            )
    pictures = {Path(source).resolve() for source in sources}
    for folder in folders:
        for source in sources:
            if (folder / f"{stem(source)}.png").resolve() in pictures:
                name = Path(source).name
                raise UserError(f"{folder} holds the picture {name}: choose another folder")
            _check_overwritten(folder / f"{stem(source)}.png", source)
        folder.mkdir(parents=True, exist_ok=True)
        check_folder(folder)


def _check_overwritten(drawing: Path, source: str) -> None:
    """UserError where a drawing is there that is none of this picture: somebody's own mask, or one
    of another card's IMG_0001."""
    from dermedge.batch import content_of
    from dermedge.image.header import ImageError
    from dermedge.image.read import is_about, load

    if not drawing.is_file():
        return
    try:
        about = _about(load(content_of(source)))
    except (ImageError, OSError):  # nothing will be drawn of it
        return
    if not is_about(drawing, about):
        raise UserError(
            f"{drawing} is there, and does not say that it was drawn of {source}: it would be "
            "overwritten; choose another folder, or delete what an earlier version drew"
        )


def _about(picture: bytes) -> str:
    """What is written into the drawings of a picture."""
    return f"drawn by dermedge, SHA-256 of the picture {sha256(picture).hexdigest()}"


def _is_within(folder: Path, pictures: Path) -> bool:
    """Whether what is written into a folder is among the pictures that are found in another one."""
    if not pictures.is_dir():
        return False
    folder, pictures = folder.resolve(), pictures.resolve()
    if not folder.is_relative_to(pictures):
        return False
    return not any(part.startswith(".") for part in folder.relative_to(pictures).parts)


def _metadata(args: argparse.Namespace, bundle: Bundle) -> dict[str, object]:
    """The options about the person; UserError where one makes no sense or would be ignored."""
    metadata = {name: getattr(args, name) for name in FIELDS if getattr(args, name) is not None}
    if "age" in metadata and not 0 <= args.age <= OLDEST:
        raise UserError(f"--age must be 0 to {OLDEST} years, got {args.age:g}")
    if "site" in metadata and region(args.site) is None:
        raise UserError(
            f"--site {args.site!r} is no part of the body that is known: "
            f"name one of {', '.join(REGIONS)}, or one within them"
        )
    model = bundle.manifest.models.get("classifier")
    unused = [name for name in metadata if name not in model.metadata] if model else []
    if model and unused:
        raise UserError(
            f"bundle {bundle.path} takes {' and '.join(model.metadata) or 'pictures alone'}: "
            f"leave out --{unused[0]}"
        )
    return metadata


def _write_pictures(args: argparse.Namespace, analysis: Analysis, analyzer: Analyzer) -> None:
    from dermedge.batch import content_of, stem
    from dermedge.image.read import load, read_image, write_png

    picture = load(content_of(analysis.image))
    name, about = f"{stem(analysis.image)}.png", _about(picture)
    if args.masks:
        # What was outlined on a picture without a lesion is not one.
        mask = analysis.full_mask() & (not analysis.is_outlier)
        write_png(Path(args.masks) / name, mask.astype("uint8") * 255, about=about)
    if not args.outlines and not args.explain:
        return
    from dermedge.explain import explain, outlined

    pixels = read_image(picture).pixels
    if args.outlines:
        write_png(Path(args.outlines) / name, outlined(pixels, analysis), about=about)
    if args.explain:
        write_png(Path(args.explain) / name, explain(pixels, analysis, analyzer.cases), about=about)


def _sentence(analysis: Analysis) -> str:
    parts = [f"{printable(analysis.image)}: {analysis.triage}", analysis.rule]
    # A picture that cannot be judged gets no numbers.
    if analysis.triage != "retake":
        parts.append(_classes(analysis.likely, analysis.probabilities))
        lesion = analysis.lesion
        parts.append(f"A {lesion.asymmetry:g} B {lesion.border:g} C {lesion.color:g}")
        if lesion.diameter_mm is not None:
            parts.append(f"D {lesion.diameter_mm:.1f} mm")
        # Advice: what refuses a picture is in the rule.
        if analysis.quality.reasons:
            parts.append(f"picture quality: {', '.join(analysis.quality.reasons)}")
    if analysis.scale is not None and analysis.scale["reason"]:
        parts.append(f"size unknown: {analysis.scale['reason']}")
    if analysis.inner is not None:
        parts.append("without the plain frame around it")
    return "; ".join(parts)


def _classes(likely: str | None, probabilities: dict[str, float]) -> str:
    # The likely class first: with class offsets it need not have the highest probability.
    classes = sorted(probabilities.items(), key=lambda item: (item[0] != likely, -item[1]))
    return "likely " + ", ".join(f"{label} {value:.2f}" for label, value in classes[:3])


def _common(common: Combined) -> str:
    parts = [f"together: {common.triage}", common.rule]
    if common.used:
        parts.append(_classes(common.likely, common.probabilities))
        parts.append(
            f"malignancy {common.lowest:.3f} to {common.highest:.3f} in single pictures, which "
            + ("lead to the same advice" if common.agreed else "do not lead to the same advice")
        )
    if common.used < common.pictures:
        parts.append(
            f"{common.pictures - common.used} of {common.pictures} not in the mean: not readable, "
            "refused, or with a card, ruler or coin"
        )
    return "; ".join(parts)


ANALYZE = Command("analyse pictures with a bundle", arguments, run)
