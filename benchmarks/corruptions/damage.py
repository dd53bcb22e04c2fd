"""Whether a damaged JPEG is refused, and what becomes of those that are not.

`python -m benchmarks.corruptions.damage FOLDER --bundle FILE --out FILE.csv` damages the JPEG
pictures of a folder in many ways and reads them. A flipped bit often gives a valid file of nearly
the same picture, which no reader can tell from a good one: how far such pictures differ, and
whether they are judged differently, is in the table.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.corruptions.colours import append_rows, check_table
from dermedge import DISCLAIMER, UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import open_bundle
from dermedge.cli import call
from dermedge.image.read import ImageError, read_image


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Code and place of each segment up to the coded data; a thumbnail within one has its own."""
    at, code = 2, 0
    while code != 0xDA and at < len(data):
        at = data.index(b"\xff", at)
        while data[at + 1] == 0xFF:  # filled up
            at += 1
        code = data[at + 1]
        yield code, at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _coded(data: bytes) -> int:
    """Where the coded data begin."""
    *_, (_, at) = _segments(data)
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _place(data: bytes, rng: np.random.Generator, length: int) -> int:
    return int(rng.integers(_coded(data), len(data) - 2 - length))


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: _place(data, rng, 0)]


def _stretch(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    """Place and length; within the coded data, which may be less than the header."""
    length = min(int(rng.integers(64, len(data) // 4)), (len(data) - 2 - _coded(data)) // 2)
    return _place(data, rng, length), length


def _hole(data: bytes, rng: np.random.Generator) -> bytes:
    at, length = _stretch(data, rng)
    return data[:at] + data[at + length :]


def _zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    at, length = _stretch(data, rng)
    return data[:at] + bytes(length) + data[at + length :]


def _flipped(count: int) -> Callable[[bytes, np.random.Generator], bytes]:
    def flip(data: bytes, rng: np.random.Generator) -> bytes:
        broken = bytearray(data)
        for _ in range(count):
            broken[_place(data, rng, 0)] ^= 1 << int(rng.integers(8))
        return bytes(broken)

    return flip


def _restart_lost(data: bytes, rng: np.random.Generator) -> bytes:
    start = _coded(data)
    view = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(
        (view[start:-1] == 0xFF) & (view[start + 1 :] >= 0xD0) & (view[start + 1 :] <= 0xD7)
    )
    at = start + int(rng.choice(places))
    return data[:at] + data[at + 2 :]


def _wrong_table(data: bytes, rng: np.random.Generator) -> bytes:
    """Two values of a Huffman table change places, as where another table was sent."""
    places = [at for code, at in _segments(data) if code == 0xC4]
    at = int(rng.choice(places)) + 5
    count = sum(data[at : at + 16])
    first, second = rng.choice(min(count, 12), 2, replace=False) + at + 16
    broken = bytearray(data)
    broken[first], broken[second] = broken[second], broken[first]
    return bytes(broken)


KINDS: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "cut": _cut,
    "hole": _hole,
    "zeroed": _zeroed,
    "1 bit flipped": _flipped(1),
    "3 bits flipped": _flipped(3),
    "30 bits flipped": _flipped(30),
    "restart marker lost": _restart_lost,
    "wrong Huffman table": _wrong_table,
}
COLUMNS = (
    *("bundle", "sha256", "damage", "seeds"),
    *("files", "refused", "identical", "slightly_different"),
    *("largest_mean_difference", "largest_malignancy_difference", "judged_differently"),
)


def _with_restarts(data: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).save(buffer, "JPEG", quality=90, restart_marker_rows=1)
    return buffer.getvalue()


def measure(name: str, paths: Sequence[Path], seeds: int, analyzer: Analyzer) -> dict[str, object]:
    """One row of the table."""
    refused = same = slight = advice = 0
    largest = drift = 0.0
    for path in tqdm(paths, name, unit="picture", disable=None, file=sys.stderr):
        data = path.read_bytes()
        if name == "restart marker lost":
            data = _with_restarts(data)
        whole = read_image(data)
        plain = analyzer.analyze(whole)
        for seed in range(seeds):
            broken = KINDS[name](data, np.random.default_rng([seed, len(data)]))
            try:
                read = read_image(broken)
            except ImageError:
                refused += 1
                continue
            if np.array_equal(read.pixels, whole.pixels):
                same += 1
                continue
            slight += 1
            largest = max(largest, float(np.abs(read.pixels.astype(int) - whole.pixels).mean()))
            found = analyzer.analyze(read)
            advice += found.triage != plain.triage
            drift = max(drift, abs(found.malignancy - plain.malignancy))
    return {
        "bundle": analyzer.bundle.manifest.name,
        "sha256": analyzer.bundle.sha256[:16],
        "damage": name,
        "seeds": seeds,
        "files": len(paths) * seeds,
        "refused": refused,
        "identical": same,
        "slightly_different": slight,
        "largest_mean_difference": round(largest, 3),
        "largest_malignancy_difference": round(drift, 5),
        "judged_differently": advice,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table; UserError where the arguments cannot be followed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.corruptions.damage", description=__doc__, epilog=DISCLAIMER
    )
    parser.add_argument("folder", metavar="FOLDER", help="with JPEG pictures")
    parser.add_argument(
        "--bundle", required=True, metavar="FILE", help="a file, or the name of a shipped one"
    )
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="files a picture and kind (default: 5)"
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        metavar="KIND",
        choices=list(KINDS),
        default=list(KINDS),
        help=f"{', '.join(KINDS)} (default: all)",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE.csv",
        help="rows are added, in place of those of the same bundle, damage and number",
    )
    args = parser.parse_args(argv)
    if args.seeds < 1:
        raise UserError(f"--seeds must be 1 or more, got {args.seeds}")
    check_table(Path(args.out), COLUMNS)
    paths = sorted(
        path for path in Path(args.folder).iterdir() if path.suffix.lower() in (".jpg", ".jpeg")
    )
    if not paths:
        raise UserError(f"no JPEG pictures in {args.folder}")
    for path in paths:
        if not path.read_bytes().startswith(b"\xff\xd8"):
            raise UserError(f"{path} is no JPEG, whatever its name says: take it out")
        read_image(path)  # one that is damaged already is said before all the work
    analyzer = Analyzer(open_bundle(args.bundle), threads=1)
    for name in args.kinds:
        row = measure(name, paths, args.seeds, analyzer)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        append_rows(Path(args.out), [row], same=4)


if __name__ == "__main__":
    sys.exit(call(main))
