"""Gives a bundle what tells pictures without a lesion, fitted to its own data set.

`python -m export.outliers.add BUNDLE NEW.dermbundle --data NAME=PATH` does it to a finished bundle;
graphs and thresholds stay as they are. A run's export does it by itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dermedge import UserError
from dermedge import data as datasets
from dermedge.analysis import Analysis
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle, open_bundle, write_bundle
from dermedge.bundle.manifest import OUTLIERS, ROLES, Manifest
from dermedge.data import DataSet, Record
from dermedge.data.masks import read_lesion_mask
from dermedge.data.split import Split
from dermedge.image.read import ImageError, Picture, read_image
from dermedge.text import printable
from export import ExportError
from export.outliers.draw import DRAWN, beside, mosaic
from export.outliers.fit import LOST, fit_head, limit_of
from export.recheck import network_roles, split_of
from export.validation.halves import halve
from export.validation.prepared import subset

PICTURES = 600  # with a lesion, of the training part and of either half
OUTLIERS_OF_A_KIND = 120
FEWEST = 100  # training pictures: to fewer nothing is fitted
PIECES = 6  # pictures that a mosaic is made of


@dataclass(frozen=True, eq=False)
class Fitted:
    """The part, and how many good pictures of the accepting half it refuses."""

    part: bytes
    report: dict


def fit_outliers(bundle: Bundle, data_set: DataSet, split: Split) -> Fitted | None:
    """What tells pictures without a lesion: fitted to the training part, limit by the tuning half.

    None, with a line that says so, where the training part is too small, or the bundle's classifier
    lacks an output. Raises ExportError where no picture of the tuning half can be read.
    """
    if set(bundle.manifest.models) != set(ROLES):
        return None
    training = subset(split.select(data_set.records, "train"), PICTURES)
    if len(training) < FEWEST:
        print(
            f"{len(training)} training pictures: what tells pictures without a lesion is not "
            f"fitted to fewer than {FEWEST}",
            file=sys.stderr,
        )
        return None
    plain = _without_head(bundle)
    halves = halve(data_set, split)
    members = (halves.tuning, halves.accepting)
    tuning, accepting = (
        subset([r for r in data_set.records if r.id in half], PICTURES) for half in members
    )
    good = _evidence(plain, (_file(record) for record in training), len(training), "with a lesion")
    if good is None:
        print("the classifier lacks an output that tells lesions from others", file=sys.stderr)
        return None
    kinds, seen = _outliers(plain, training)
    head = fit_head(good.evidence, seen, kinds)
    chosen = _evidence(plain, map(_file, tuning), len(tuning), "tuning half")
    judged = _evidence(plain, map(_file, accepting), len(accepting), "accepting half")
    if chosen is None or judged is None:
        raise ExportError(f"no picture of the validation part of {data_set.name} can be read")
    limit = limit_of(head.score(chosen.evidence), chosen.unfamiliar, head.score(seen), kinds)
    head = replace(head, limit=np.array([limit], np.float32))
    refused = head.score(judged.evidence) > limit
    report = {
        "pictures": len(good.evidence),
        "outliers": {kind: int((kinds == kind).sum()) for kind in sorted(set(kinds.tolist()))},
        "lost_at_most": LOST,
        "accepting_pictures": len(refused),
        "accepting_refused": round(float(refused.mean()), 4),
        "accepting_refused_or_unfamiliar": round(float((refused | judged.unfamiliar).mean()), 4),
    }
    return Fitted(head.to_bytes(), report)


def with_outliers(
    manifest: Manifest, parts: dict[str, bytes], data_set: DataSet, split: Split
) -> dict[str, bytes]:
    """The parts, the head among them where it could be fitted."""
    if set(manifest.models) != set(ROLES):
        return parts
    with tempfile.TemporaryDirectory() as folder:
        path = write_bundle(Path(folder, "unfinished.dermbundle"), manifest, parts)
        fitted = fit_outliers(Bundle.open(path), data_set, split)
    if fitted is None:
        return parts
    print(f"what tells pictures without a lesion: {fitted.report}", file=sys.stderr)
    return {**parts, OUTLIERS: fitted.part}


def _without_head(bundle: Bundle) -> Bundle:
    """The bundle as it was before a head: what it refused would hide what is to be seen."""
    if OUTLIERS not in bundle.manifest.parts:
        return bundle
    parts = {name: bundle.part(name) for name in bundle.manifest.parts if name != OUTLIERS}
    with tempfile.TemporaryDirectory() as folder:
        return Bundle.open(write_bundle(Path(folder, "plain.dermbundle"), bundle.manifest, parts))


@dataclass(frozen=True, eq=False)
class _Seen:
    evidence: np.ndarray  # float32 (n, D)
    unfamiliar: np.ndarray  # bool (n,)


Source = Callable[[Analyzer], "Picture | None"]


def _file(record: Record) -> Source:
    return lambda _: read_image(record.image)


def _evidence(bundle: Bundle, sources: Iterable[Source], count: int, note: str) -> _Seen | None:
    """Of each picture that can be read, as a device sees it; None: of none."""
    analyses = [one for one in _analyses(bundle, sources, count, note) if one is not None]
    found = [one for one in analyses if one.evidence is not None]
    if not found:
        return None
    evidence = np.stack([one.evidence for one in found if one.evidence is not None])
    return _Seen(evidence, np.array([one.unfamiliar for one in found]))


def _analyses(
    bundle: Bundle, sources: Iterable[Source], count: int, note: str
) -> Iterator[Analysis | None]:
    analyzer = Analyzer(bundle, threads=0)
    for source in tqdm(sources, note, count, unit="picture", file=sys.stderr):
        try:
            picture = source(analyzer)
            yield None if picture is None else analyzer.analyze(picture)
        except ImageError as error:
            tqdm.write(printable(f"left out: {error}"), file=sys.stderr)
            yield None


def _outliers(bundle: Bundle, training: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Kind (m,) and evidence (m, D) of outliers; fewer of each where there are few pictures."""
    count = min(OUTLIERS_OF_A_KIND, max(8, len(training) // 4))
    sources: list[tuple[str, Source]] = []
    for number, record in enumerate(training[:: max(1, len(training) // (2 * count))]):
        sources.append(("beside", _beside(record, number)))
    for seed in range(count):
        sources.append(("mosaic", _mosaic(training, seed)))
        for kind, draw in DRAWN.items():
            sources.append((kind, lambda _, d=draw, s=seed: _drawn(d(np.random.default_rng(s)))))
    analyses = _analyses(bundle, (one for _, one in sources), len(sources), "without a lesion")
    pairs = [
        (kind, analysis.evidence)
        for (kind, _), analysis in zip(sources, analyses, strict=True)
        if analysis is not None and analysis.evidence is not None
    ]
    return np.array([kind for kind, _ in pairs]), np.stack([seen for _, seen in pairs])


def _drawn(pixels: np.ndarray) -> Picture:
    done, content = cv2.imencode(".png", pixels[..., ::-1])
    assert done
    return read_image(content.tobytes())


def _beside(record: Record, seed: int) -> Source:
    def cut(analyzer: Analyzer) -> Picture | None:
        picture = read_image(record.image)
        size = picture.pixels.shape[1::-1]
        if record.mask is not None:
            lesion = read_lesion_mask(record.mask, *picture.pixels.shape[:2])
        else:
            lesion = analyzer.analyze(picture).full_mask()
        lesion = cv2.resize(lesion.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        plain = beside(picture.pixels, lesion, np.random.default_rng(seed))
        return None if plain is None else _drawn(plain)

    return cut


def _mosaic(training: Sequence[Record], seed: int) -> Source:
    def draw(_: Analyzer) -> Picture:
        random = np.random.default_rng(seed)
        chosen = random.choice(len(training), PIECES)
        return _drawn(mosaic([read_image(training[k].image).pixels for k in chosen], random))

    return draw


def refit(bundle: Bundle, data_set: DataSet, split_file: str | None) -> dict[str, bytes]:
    """The parts of a finished bundle, its head fitted again; ExportError where it cannot.

    The data set is the one that its classifier was trained on, the split as `recheck` takes it.
    """
    roles = next((r for r in network_roles(bundle.manifest) if "classifier" in r), ())
    if set(bundle.manifest.models) != set(ROLES):
        raise ExportError(f"{bundle.path} has not both roles: nothing tells a lesion there")
    split = split_of(bundle, roles, data_set, split_file)
    parts = {name: bundle.part(name) for name in bundle.manifest.parts if name != OUTLIERS}
    done = with_outliers(bundle.manifest, parts, data_set, split)
    if OUTLIERS not in done:
        raise ExportError(f"nothing was fitted for {bundle.path}: see the line above")
    return done


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m export.outliers.add", description=__doc__)
    parser.add_argument("old", metavar="BUNDLE", help="a file, or the name of a shipped one")
    parser.add_argument("new", metavar="NEW.dermbundle")
    parser.add_argument("--data", required=True, metavar="NAME=PATH")
    parser.add_argument("--split", metavar="FILE", help="default: its own, else one of seed 0")
    args = parser.parse_args(argv)
    old = open_bundle(args.old)
    if old.signed_by:
        raise ExportError(f"{args.old} is signed: export it again, and sign that")
    data_set = datasets.load(*datasets.parse_source(args.data))
    write_bundle(args.new, old.manifest, refit(old, data_set, args.split))
    print(f"written: {printable(args.new)}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"dermedge: {error}")
