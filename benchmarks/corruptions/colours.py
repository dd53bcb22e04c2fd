"""Whether a picture is judged alike in whatever colour space its file is written.

`python -m benchmarks.corruptions.colours --data NAME=PATH --bundle FILE --out FILE.csv` writes real
pictures as PNG of 8 bits in Display P3, Adobe RGB and ProPhoto RGB, with the profile inside, and
compares what the bundle says of them with what it says of the pictures themselves. A network that
saw the numbers of such a file as sRGB would see paler skin.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from tqdm import tqdm

from benchmarks.accuracy.subset import by_hash
from dermedge import DISCLAIMER, UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import open_bundle
from dermedge.cli import call
from dermedge.data import load, parse_source
from dermedge.files import check_writable, read_text, write_atomic
from dermedge.image.colour import ADOBE_GAMMA, ADOBE_RGB, DISPLAY_P3, PROPHOTO, matrix_profile
from dermedge.image.read import ImageError, Picture, read_image
from dermedge.text import printable

SPACES = {
    "Display P3": matrix_profile(DISPLAY_P3),
    "Adobe RGB": matrix_profile(ADOBE_RGB, ADOBE_GAMMA),
    "ProPhoto RGB": matrix_profile(PROPHOTO, 1.8),
}
COLUMNS = (
    *("data", "bundle", "sha256", "space", "pictures"),
    *("advice_unchanged", "malignancy_median"),
    *("malignancy_95", "malignancy_largest", "pixel_mean"),
)


def in_space(pixels: np.ndarray, profile: bytes) -> bytes:
    """uint8 (h, w, 3) sRGB as a PNG of 8 bits in another space, the profile inside."""
    picture = ImageCms.profileToProfile(
        Image.fromarray(pixels),
        ImageCms.createProfile("sRGB"),
        io.BytesIO(profile),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    assert picture is not None  # None is returned where a picture is changed in place
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", icc_profile=profile)
    return buffer.getvalue()


def compare(
    analyzer: Analyzer, paths: Sequence[Path]
) -> dict[str, list[tuple[bool, float, float]]]:
    """Space: of each picture that can be read whether the advice is the same, and by how much
    malignancy and, in the mean, pixels differ. UserError where none can be read."""
    found: dict[str, list[tuple[bool, float, float]]] = {name: [] for name in SPACES}
    for path in tqdm(paths, unit="picture", file=sys.stderr):
        try:
            pixels = read_image(path).pixels
        except ImageError as error:
            print(f"not read: {printable(error)}", file=sys.stderr)
            continue
        plain = analyzer.analyze(Picture(pixels, *pixels.shape[:2]))
        for name, profile in SPACES.items():
            read = read_image(in_space(pixels, profile))
            other = analyzer.analyze(read)
            found[name].append(
                (
                    other.triage == plain.triage,
                    abs(other.malignancy - plain.malignancy),
                    float(np.abs(read.pixels.astype(int) - pixels).mean()),
                )
            )
    if not all(found.values()):
        raise UserError(f"none of {len(paths)} pictures can be read: there is nothing to compare")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table; 1 where a picture was not read. UserError where the arguments cannot be
    followed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.corruptions.colours", description=__doc__, epilog=DISCLAIMER
    )
    parser.add_argument("--data", required=True, metavar="NAME=PATH", help="the data set")
    parser.add_argument(
        "--bundle", required=True, metavar="FILE", help="a file, or the name of a shipped one"
    )
    parser.add_argument(
        "--count", type=int, default=100, metavar="N", help="pictures (default: 100)"
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE.csv",
        help="rows are added, in place of those of the same data set and bundle",
    )
    args = parser.parse_args(argv)
    if args.count < 1:
        raise UserError(f"--count must be 1 or more, got {args.count}")
    check_table(Path(args.out), COLUMNS)
    name, path = parse_source(args.data)
    bundle = open_bundle(args.bundle)
    paths = [record.image for record in by_hash(load(name, path).records)[: args.count]]
    rows = []
    for space, values in compare(Analyzer(bundle, threads=1), paths).items():
        unread = len(values) < len(paths)
        same, malignancy, pixels = map(np.array, zip(*values, strict=True))
        rows.append(
            {
                "data": name,
                "bundle": bundle.manifest.name,
                "sha256": bundle.sha256[:16],
                "space": space,
                "pictures": len(values),
                "advice_unchanged": round(float(same.mean()), 4),
                "malignancy_median": round(float(np.median(malignancy)), 5),
                "malignancy_95": round(float(np.percentile(malignancy, 95)), 5),
                "malignancy_largest": round(float(malignancy.max()), 5),
                "pixel_mean": round(float(pixels.mean()), 3),
            }
        )
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()))
    append_rows(Path(args.out), rows, same=3)
    return int(unread)


def check_table(path: Path, columns: Sequence[str]) -> None:
    """Say before all the work, and not after it, why rows cannot be added; as `read_rows`."""
    read_rows(path, columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    check_writable(path)


def read_rows(path: Path, columns: Sequence[str]) -> list[dict]:
    """The rows of a table; [] where there is no such file. UserError: it has other columns."""
    if not path.exists():
        return []
    try:
        table = csv.DictReader(io.StringIO(read_text(path), newline=""))
        names, rows = list(table.fieldnames or ()), list(table)
    except csv.Error:
        names = []
    if names != list(columns):
        raise UserError(f"{path} is no table with the columns {', '.join(columns)}: give another")
    return rows


def append_rows(path: Path, rows: Sequence[dict], same: int) -> None:
    """Add rows to a CSV file, in place of those whose first `same` cells are alike.

    UserError as `read_rows`.
    """
    keys = list(rows[0])[:same]
    kept = read_rows(path, list(rows[0]))
    taken = {tuple(str(row[key]) for key in keys) for row in rows}
    kept = [row for row in kept if tuple(row[key] for key in keys) not in taken]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([*kept, *rows])
    write_atomic(path, buffer.getvalue())


if __name__ == "__main__":
    sys.exit(call(main))
