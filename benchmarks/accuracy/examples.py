"""Pictures for a report: analysed and outlined, and those that the networks got most wrong."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.accuracy.evaluate import without_folders
from benchmarks.accuracy.figures import Row, counts, malignancy
from benchmarks.schema.names import NETWORKS
from dermedge.analysis import lesion_outline
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.image.read import ImageError, Picture, read_image, read_mask
from dermedge.lesion.quality import TITLES as QUALITY_TITLES
from dermedge.metadata import understood

THUMBNAIL = 480  # px, long side
WORST = 4  # pictures of each kind of error
# The quality check asks how sure the outline is: "no lesion" would contradict one that is drawn.
_UNSURE = {"no_lesion": "The outline is unsure: put the spot in the middle of the picture."}


def worst_cases(rows: Sequence[Row], labels: tuple[str, ...], count: int = WORST) -> list[dict]:
    """Up to `count` pictures each: least overlap of outlines, malignant ones that were given the
    lowest risk, benign ones that were given the highest.

    Returns 'id', 'kind' (outline, missed or alarm) and 'note', in words what is wrong.
    """
    cases: list[dict] = []
    outlined = [row for row in rows if NETWORKS in row.counts]
    overlaps = counts(outlined, NETWORKS).jaccard if outlined else ()
    pairs = sorted(zip(overlaps, outlined, strict=True), key=lambda pair: pair[0])
    for overlap, row in pairs[:count]:
        note = f"Outline: Jaccard {overlap:.2f}"
        cases.append({"id": row.record.id, "kind": "outline", "note": note})
    risk = {
        id(row): malignancy(row.probabilities[None], labels)[0]
        for row in rows
        if row.probabilities is not None and row.record.malignant is not None
    }
    for malignant, sign in ((True, 1), (False, -1)):
        members = [r for r in rows if id(r) in risk and r.record.malignant is malignant]
        for row in sorted(members, key=lambda row: sign * risk[id(row)])[:count]:
            truth = row.record.label or ("malignant" if malignant else "benign")
            note = f"Truly {truth}, malignancy {risk[id(row)]:.2f}"
            kind = "missed" if malignant else "alarm"
            cases.append({"id": row.record.id, "kind": kind, "note": note})
    return cases


def analysed(
    bundle: Bundle,
    images: Sequence[tuple[Path, str, Path | None]],
    people: Sequence[Mapping[str, object]] | None = None,
    views: int = 1,
) -> list[dict]:
    """Of pictures, notes and files with the true outline: a panel each, as the page shows it.

    people : of each picture what is known of the person; views : as `Analyzer` takes them.
    """
    if not images:
        return []
    analyzer = Analyzer(bundle, views=views)
    limits = bundle.manifest.thresholds
    panels: list[dict] = []
    for (path, note, truth), person in zip(images, people or [{}] * len(images), strict=True):
        try:
            picture = read_image(path)
            true = _true_outline(truth, picture) if truth else ""
        except ImageError as error:
            why = without_folders(str(error), path, truth)
            panels.append({"name": path.name, "note": note, "error": why})
            continue
        known = understood(person)
        analysis = analyzer.analyze(picture, name=path.name, metadata=known).to_json()
        width, height = analysis["size"]
        outline = lesion_outline(analysis)
        hints = {**QUALITY_TITLES, **(_UNSURE if outline else {})}
        if true:  # what was outlined beside it, whatever it was taken for
            outline = analysis["lesion"]["polygons"]
        # The named class first: with class offsets it need not have the highest probability.
        likely = sorted(
            analysis["probabilities"].items(),
            key=lambda item: (item[0] != analysis["likely"], -item[1]),
        )[:3]
        panels.append(
            {
                "name": path.name,
                "note": note,
                "error": None,
                "thumbnail": _thumbnail(picture.pixels),
                "width": width,
                "height": height,
                "outline": " ".join(map(_path, outline)),
                "truth": true,
                "analysis": analysis,
                "likely": likely,
                "quality": [hints[reason] for reason in analysis["quality"]["reasons"]],
                "thresholds": [limits.see_doctor, limits.urgent],
            }
        )
    return panels


def _true_outline(path: Path, picture: Picture) -> str:
    size = (picture.width, picture.height)
    mask = cv2.resize(read_mask(path).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return " ".join(_path(contour[:, 0].astype(float)) for contour in contours if len(contour) > 2)


def _thumbnail(pixels: np.ndarray) -> str:
    scale = min(1.0, THUMBNAIL / max(pixels.shape[:2]))
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _path(polygon: Iterable[Sequence[float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in polygon) + "Z"
