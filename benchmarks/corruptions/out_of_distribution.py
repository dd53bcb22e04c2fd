"""Pictures that show no lesion, for `dermedge evaluate --ood`.

`python -m benchmarks.corruptions.out_of_distribution --data ham10000=HAM10000 --out DIR` writes
DIR/KIND/*.png: plain skin cut from beside the lesions of data sets, drawn surfaces and documents,
and cuttings of the sample photographs that matplotlib and scikit-learn bring. Skin keeps its data
set's licence.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.accuracy.subset import by_hash
from dermedge import UserError
from dermedge.cli import call
from dermedge.data import DataSet, load_sources
from dermedge.data.joint import keyed
from dermedge.data.masks import read_lesion_mask
from dermedge.files import names_in
from dermedge.image.read import ImageError, read_image, write_png
from dermedge.text import printable

LEAST = 64  # px, side of the smallest cutting of skin
MARGIN = 0.06  # of the long side: outlines are drawn tight, and lesions fade
DARK = 45  # brightest channel; darker is the frame of a dermoscope, or hair
SIDE = 320  # px, of drawn pictures


def skin(picture: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """The largest square of plain skin beside the lesion; None where it is under 64 px.

    Parameters
    ----------
    picture : uint8 (h, w, 3) RGB.
    mask : bool (h, w), the true outline.

    Returns
    -------
    uint8 (s, s, 3).
    """
    reach = round(MARGIN * max(mask.shape))
    lesion = cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8))
    dark = cv2.morphologyEx(
        (picture.max(axis=2) < DARK).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)
    )
    # The edge of the picture counts as occupied. Chessboard distance: its balls are squares.
    free = np.pad(((lesion == 0) & (dark == 0)).astype(np.uint8), 1)
    distance = cv2.distanceTransform(free, cv2.DIST_C, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    half = int(distance[y, x]) - 1
    if 2 * half + 1 < LEAST:
        return None
    return picture[y - half : y + half + 1, x - half : x + half + 1]


def surface(rng: np.random.Generator) -> np.ndarray:
    """Cloth, wood, tiles or plaster, drawn: uint8 (320, 320, 3)."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 40)
    cloud = cv2.resize(rng.normal(size=(9, 9)).astype(np.float32), (SIDE, SIDE), interpolation=2)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows * np.sin(angle)
    kind = rng.integers(4)
    if kind == 0:  # cloth
        pattern = np.sin(along * 6.28 / period) * np.sin(across * 6.28 / period)
    elif kind == 1:  # wood
        pattern = np.sin((along + 12 * cloud) * 6.28 / period)
    elif kind == 2:  # tiles
        pattern = np.where((along % (3 * period) < 3) | (across % (3 * period) < 3), -2.0, 0.5)
    else:  # plaster
        pattern = cloud
    pattern = pattern + rng.normal(scale=0.15, size=pattern.shape)
    colours = rng.uniform(30, 225, (2, 3))
    share = np.clip(pattern * 0.25 + 0.5, 0, 1)[..., None]
    return np.rint(colours[0] * share + colours[1] * (1 - share)).astype(np.uint8)


def document(rng: np.random.Generator) -> np.ndarray:
    """A page of print, seen at a slant: uint8 (320, 320, 3)."""
    page = np.full((SIDE, SIDE, 3), rng.integers(215, 256, 3), np.uint8)
    ink = tuple(int(value) for value in rng.integers(0, 90, 3))
    letters = np.array(list("abcdefghiklmnoprstuvwxyzABCDEFGH 0123456789    "))
    size = rng.uniform(0.35, 0.9)
    step = int(34 * size) + 4
    for y in range(step, SIDE, step):
        text = "".join(rng.choice(letters, rng.integers(8, 60)))
        cv2.putText(page, text, (12, y), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)
    if rng.random() < 0.4:  # a chart
        bars = rng.integers(20, 120, 6)
        cv2.rectangle(page, (60, 150), (270, 290), (250, 250, 250), cv2.FILLED)
        for number, height in enumerate(bars):
            left = 70 + 33 * number
            colour = tuple(int(value) for value in rng.integers(0, 256, 3))
            cv2.rectangle(page, (left, 285 - int(height)), (left + 24, 285), colour, cv2.FILLED)
    corners = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]], np.float32)
    moved = corners + rng.uniform(-35, 35, (4, 2)).astype(np.float32)
    view = cv2.getPerspectiveTransform(corners, moved)
    table = tuple(int(value) for value in rng.integers(20, 160, 3))
    return cv2.warpPerspective(page, view, (SIDE, SIDE), borderValue=table)


def photographs() -> list[np.ndarray]:
    """Sample photographs of the packages that are installed: uint8 (h, w, 3) RGB each."""
    import matplotlib
    from sklearn.datasets import load_sample_images

    person = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return [*load_sample_images().images, *([read_image(person).pixels] if person.exists() else ())]


def _cutting(pictures: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    picture = pictures[int(rng.integers(len(pictures)))]
    side = int(rng.uniform(0.3, 1.0) * min(picture.shape[:2]))
    top, left = (int(rng.integers(0, length - side + 1)) for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def _skins(data_set: DataSet, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Name and cutting of up to `count` pictures, selected by a hash of their ids."""
    for record in by_hash(data_set.records):
        if record.mask is None:
            continue
        try:
            picture = read_image(record.image).pixels
            mask = read_lesion_mask(record.mask, *picture.shape[:2])
        except ImageError:
            continue
        size = picture.shape[1::-1]
        plain = skin(picture, cv2.resize(mask.astype(np.uint8), size, interpolation=0) > 0)
        if plain is not None:
            yield record.id.replace("/", "_"), plain
            count -= 1
            if count == 0:
                return


def _drawn(
    draw: Callable[[np.random.Generator], np.ndarray], count: int
) -> Iterator[tuple[str, np.ndarray]]:
    for seed in range(count):
        yield f"{seed:04}", draw(np.random.default_rng(seed))


def main(argv: Sequence[str] | None = None) -> None:
    """Write the pictures that the arguments ask for; UserError where they cannot be followed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.corruptions.out_of_distribution", description=__doc__
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="data set with masks, to cut plain skin from; more than one may be given",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument(
        "--count", type=int, default=100, metavar="N", help="pictures a kind (default: 100)"
    )
    args = parser.parse_args(argv)
    if args.count < 1:
        raise UserError(f"--count must be 1 or more, got {args.count}")
    out = Path(args.out)
    if out.exists() and (not out.is_dir() or names_in(out)):
        raise UserError(f"{out} is not empty: choose another folder")
    data_sets = load_sources(args.data)
    samples = photographs()
    kinds: dict[str, Iterator[tuple[str, np.ndarray]]] = {
        f"skin-{key}": _skins(data_set, args.count) for key, data_set in keyed(data_sets).items()
    }
    for name, draw in (
        ("surface", surface),
        ("document", document),
        ("photograph", lambda rng: _cutting(samples, rng)),
    ):
        kinds[name] = _drawn(draw, args.count)
    for kind, pictures in kinds.items():
        (out / kind).mkdir(parents=True)
        written = 0
        for name, picture in tqdm(pictures, desc=kind, total=args.count, disable=None):
            write_png(out / kind / f"{name}.png", picture)
            written += 1
        print(f"{printable(out / kind)}: {written} pictures")


if __name__ == "__main__":
    sys.exit(call(main))
