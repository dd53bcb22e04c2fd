"""How right `dermedge.lesion.scale` is, and how often it refuses, on drawn references.

`python -m benchmarks.corruptions.scales --out FILE.csv` draws cards, coins and rulers upon drawn
skin, seen at a slant, blurred, in bad light, noisy and as JPEG, and measures a known length in each
picture. With --data it also says how often a reference is found in pictures that show none.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.accuracy.subset import by_hash
from dermedge import DISCLAIMER, UserError
from dermedge.cli import call
from dermedge.data import DataSet, load_sources
from dermedge.data.joint import keyed
from dermedge.data.synthetic import draw
from dermedge.files import check_writable, write_atomic
from dermedge.image.read import ImageError, read_image
from dermedge.lesion import scale
from dermedge.text import printable

SIZE = (720, 960)  # px, height and width of a drawn picture
KINDS = ("card", "coin", "ruler")
_FINE = 20  # px of a drawn reference per mm


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn picture.

    pixels : uint8 (h, w, 3) RGB. reference : one of `dermedge.lesion.scale.REFERENCES`.
    ends : float (n, 2, 2), px of the ends of lengths that are `lengths` (n,) mm long.
    """

    pixels: np.ndarray
    reference: str
    ends: np.ndarray
    lengths: np.ndarray

    def errors(self, measured: scale.Scale) -> np.ndarray:
        """Shares by which the lengths are measured too large, (n,)."""
        mm = measured.millimetres(self.ends.reshape(-1, 2)).reshape(-1, 2, 2)
        return np.linalg.norm(mm[:, 0] - mm[:, 1], axis=1) / self.lengths - 1


def scene(kind: str, seed: int, tilt: float = 15.0) -> Scene:
    """Draw a card, coin or ruler on skin, tilted by up to `tilt` degrees."""
    rng = np.random.default_rng(seed)
    sample = draw(seed, style="phone", size=(SIZE[0] // 2, SIZE[1] // 2), artefacts=())
    pixels = cv2.resize(sample.image, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    reference = kind
    middle: np.ndarray  # of the view, mm
    if kind == "card":
        layer, density = _card(), rng.uniform(5, 10)
        middle = np.full(2, scale.CARD / 2)
        at, length = middle, scale.HOLE
    elif kind == "coin":
        name = list(scale.COINS)[rng.integers(len(scale.COINS))]
        reference, diameter = f"coin-{name}", scale.COINS[name]
        layer, density = _coin(rng, diameter), rng.uniform(5, 12)
        at, length = np.full(2, diameter / 2 + 1), diameter
        middle = at + rng.uniform(-12, 12, 2)
    else:
        layer, density = _ruler(rng), rng.uniform(6, 20)
        middle = np.array([rng.uniform(20, 40), 6 + rng.uniform(-8, 8)])
        at, length = np.array([middle[0], 1.5]), 10.0
    view = _camera(rng, density, middle, rng.uniform(0, tilt))
    if kind == "coin":
        pixels = _shaded(pixels, layer[1], view, rng)
    pixels = _photographed(_laid(pixels, *layer, view), rng)
    half = np.array([[length / 2, 0], [0, length / 2]])
    if kind == "ruler":  # it gives the scale along itself
        half = half[:1]
    ends = np.stack([at - half, at + half], axis=1)
    seen = cv2.perspectiveTransform(ends.reshape(-1, 1, 2), view).reshape(-1, 2, 2)
    return Scene(pixels, reference, seen, np.full(len(half), length))


def _camera(rng, density: float, middle, degrees: float) -> np.ndarray:
    """Homography from mm to px of a camera that sees `middle` in the middle, at `density`."""
    height, width = SIZE
    focal = 1.2 * width
    axis = rng.normal(size=2)
    lean, _ = cv2.Rodrigues(np.array([*(axis / np.linalg.norm(axis) * np.radians(degrees)), 0.0]))
    roll, _ = cv2.Rodrigues(np.array([0, 0, rng.uniform(0, 2 * np.pi)]))
    lens = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    rotation = lean @ roll
    place = np.column_stack([rotation[:, 0], rotation[:, 1], (0, 0, focal / density)])
    return lens @ place @ np.array([[1, 0, -middle[0]], [0, 1, -middle[1]], [0, 0, 1.0]])


def _seen(layer: np.ndarray, view: np.ndarray) -> np.ndarray:
    """A layer of `_FINE` px per mm as the camera sees it."""
    to_mm = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, _FINE]]) / _FINE
    matrix = view @ to_mm
    height, width = layer.shape[:2]
    area = np.array([[[0, 0]], [[width, 0]], [[width, height]], [[0, height]]], np.float64)
    share = cv2.contourArea(cv2.perspectiveTransform(area, matrix).astype(np.float32))
    smaller = (height * width / share) ** 0.5
    if smaller > 1:  # as a sensor's pixels do
        layer = cv2.GaussianBlur(layer, (0, 0), 0.45 * smaller, borderType=cv2.BORDER_REPLICATE)
    return cv2.warpPerspective(layer, matrix, SIZE[::-1])


def _laid(pixels, layer: np.ndarray, alpha: np.ndarray, view: np.ndarray) -> np.ndarray:
    # The colours reach beyond the alpha's edge, so that its edge is not mixed with black.
    margin = 20
    shift = np.array([[1, 0, -margin / _FINE], [0, 1, -margin / _FINE], [0, 0, 1.0]])
    layer = cv2.copyMakeBorder(layer, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    alpha = cv2.copyMakeBorder(alpha, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
    colours, share = _seen(layer, view @ shift), _seen(alpha, view @ shift)[..., None]
    return np.clip(pixels * (1 - share) + colours * share, 0, 255).astype(np.uint8)


def _shaded(pixels, alpha: np.ndarray, view: np.ndarray, rng) -> np.ndarray:
    shift = np.eye(3)
    shift[:2, 2] = rng.normal(0, 0.4, 2)  # mm
    shade = cv2.GaussianBlur(_seen(alpha, view @ shift), (0, 0), rng.uniform(1.5, 5))
    return (pixels * (1 - 0.45 * shade[..., None])).astype(np.uint8)


def _photographed(pixels, rng) -> np.ndarray:
    pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 2.2)).astype(np.float32)
    pixels = pixels * 2 ** (rng.uniform(-1.5, 0.5) / 2.2) + rng.normal(
        0, rng.uniform(0, 6), pixels.shape
    )
    options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 96))]
    _, data = cv2.imencode(".jpg", np.clip(pixels, 0, 255).astype(np.uint8)[..., ::-1], options)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was encoded just now
    return np.ascontiguousarray(decoded[..., ::-1])


def _card() -> tuple[np.ndarray, np.ndarray]:
    side = round(scale.CARD * _FINE)
    card, alpha = np.full((side, side, 3), 245, np.uint8), np.ones((side, side), np.float32)
    for x, y, cell in scale.marker_cells():
        left, top, right, bottom = (round(v * _FINE) for v in (x, y, x + cell, y + cell))
        card[top:bottom, left:right] = 20
    cv2.circle(alpha, (side // 2, side // 2), round(scale.HOLE * _FINE), 0, cv2.FILLED)
    return card, alpha


def _coin(rng, diameter: float) -> tuple[np.ndarray, np.ndarray]:
    """Copper, brass or silver: a rim, relief and figures, light from one side."""
    side = round((diameter + 2) * _FINE)
    y, x = (np.indices((side, side)) - (side - 1) / 2) / _FINE
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    metal = np.array([(176, 120, 80), (200, 165, 90), (175, 175, 178)][rng.integers(3)])
    light = rng.uniform(0.75, 1.05) * (1 + 0.22 * np.cos(angle - rng.uniform(0, 2 * np.pi)))
    inner = diameter * (0.5 - rng.uniform(0.04, 0.08))
    light[radius > inner] *= rng.uniform(1.05, 1.25)
    relief = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), 0.5 * _FINE)
    relief = cv2.Sobel(relief, cv2.CV_64F, 1, 0)
    coin = metal * light[..., None] + ((radius < inner) * 18 * relief / relief.std())[..., None]
    return np.clip(coin, 0, 255).astype(np.uint8), (radius <= diameter / 2).astype(np.float32)


def _ruler(rng) -> tuple[np.ndarray, np.ndarray]:
    """60 mm marked from the edge, every fifth and tenth longer, numbered."""
    length = 60
    size = round(12 * _FINE), length * _FINE
    ground = [(250, 250, 245), (240, 225, 120), (225, 235, 240)][rng.integers(3)]
    ruler, half = np.full((*size, 3), ground, np.uint8), 2
    for mm in range(1, length):
        end = round((5 if mm % 10 == 0 else 4 if mm % 5 == 0 else 2.6) * _FINE)
        ruler[:end, mm * _FINE - half : mm * _FINE + half] = 25
        if mm % 10 == 0:
            place = (round((mm - 0.7) * _FINE), 8 * _FINE)
            cv2.putText(ruler, str(mm // 10), place, 0, 0.1 * _FINE, (25, 25, 25), 5)
    return ruler, np.ones(size, np.float32)


def _measured(kind: str, count: int, tilt: float) -> dict:
    errors, reasons = [], []
    for seed in tqdm(range(count), desc=kind, disable=None, file=sys.stderr):
        drawn = scene(kind, seed, tilt)
        try:
            errors.append(np.abs(drawn.errors(scale.find(drawn.pixels, drawn.reference))).max())
        except scale.ScaleError as error:
            reasons.append(str(error))
    quantiles = np.quantile(errors, [0.5, 0.9, 0.99, 1]) if errors else [np.nan] * 4
    return {
        "what": f"drawn {kind}",
        "pictures": count,
        "found": len(errors),
        **{
            name: round(float(value), 5)
            for name, value in zip(
                ("error_median", "error_90", "error_99", "error_max"), quantiles, strict=True
            )
        },
        "above_3_percent": int((np.array(errors) > 0.03).sum()),
    }


def _found_in(name: str, data_set: DataSet, kind: str, count: int) -> dict:
    """How often a reference is found in pictures of a data set, which show none.

    UserError where none of them can be read.
    """
    records = by_hash(data_set.records)[:count]
    reference = "coin-1-euro" if kind == "coin" else kind
    found = read = 0
    for record in tqdm(records, desc=f"{name}, {kind}", disable=None, file=sys.stderr):
        try:
            pixels = read_image(record.image).pixels
        except ImageError as error:
            print(f"not read: {printable(error)}", file=sys.stderr)
            continue
        read += 1
        try:
            scale.find(pixels, reference)
        except scale.ScaleError:
            continue
        found += 1
        print(printable(f"{kind} found in {name} {record.id}"))
    if not read:
        raise UserError(f"none of {len(records)} pictures of {name} can be read")
    return {"what": f"{name}, {kind}", "pictures": read, "found": found}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table that the arguments ask for; UserError where they cannot be followed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.corruptions.scales", description=__doc__, epilog=DISCLAIMER
    )
    parser.add_argument(
        "--count", type=int, default=200, metavar="N", help="pictures a kind (default: 200)"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="(default: all)")
    parser.add_argument(
        "--tilt", type=float, default=15.0, metavar="DEGREES", help="at most (default: 15)"
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="data set whose pictures show no reference; more than one may be given",
    )
    parser.add_argument("--out", required=True, metavar="FILE.csv", help="the figures")
    args = parser.parse_args(argv)
    if args.count < 1:
        raise UserError(f"--count must be 1 or more, got {args.count}")
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    check_writable(args.out)  # said before all the work
    work: list[Callable[[], dict]] = [
        partial(_measured, kind, args.count, args.tilt) for kind in args.kinds
    ]
    work += [
        partial(_found_in, name, data_set, kind, args.count)
        for name, data_set in keyed(load_sources(args.data)).items()
        for kind in args.kinds
    ]
    rows = []
    for step in work:
        rows.append(step())
        print(", ".join(f"{name} {value}" for name, value in rows[-1].items()))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(args.out, buffer.getvalue())


if __name__ == "__main__":
    sys.exit(call(main))
