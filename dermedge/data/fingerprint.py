"""What identifies a picture without showing it: archive number, bytes, lesion, and its look.

The look is a perceptual hash that flips, quarter turns, another size or format and a slight change
of brightness or colour leave as it is: the signs of the 255 lowest frequencies of a gray 32 x 32
thumbnail (after Zauner, "Implementation and benchmarking of perceptual image hash functions",
2010).
A flip changes the sign of every second frequency and a quarter turn also swaps the axes, so that
all eight views are compared by their signs alone. Frequencies that are mere noise do not count.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from dermedge.code_hash import code_hash
from dermedge.data.each import of_each
from dermedge.data.masks import read_lesion_picture
from dermedge.data.records import Record
from dermedge.files import make_private, write_atomic
from dermedge.image.header import ImageError
from dermedge.image.read import MAX_BYTES

SIDE = 16  # frequencies of each axis
LOOK_BYTES = SIDE * SIDE // 4  # two bits a frequency: whether it is clear, whether it is positive
NO_NUMBER = 2**32 - 1  # of a picture that is not of the ISIC archive

# Measured on HAM10000, ISIC 2017 and PAD-UFES-20, see benchmarks/results/README.md.
_CLEAR = 1.0  # gray levels: a frequency below it is noise
_LEAST_CLIP = 6.0  # gray levels
_MOST_DIFFERENT = 0.085  # share of the frequencies clear in both whose signs differ
_MOST_OF_ALL = 0.16  # or of all frequencies, the weak ones too
_LEAST_COMMON = 100  # frequencies clear in both; with fewer there is nothing to compare
_CANDIDATE = 0.18  # share of the even frequencies clear in both, before all are compared
_FREQUENCIES = SIDE * SIDE - 1
_THUMBNAIL = 32  # px
_BLOCK = 512  # pictures compared at once

# The archive's numbers have seven digits; other digits are somebody else's numbers.
_NUMBER = re.compile(r"(?<![A-Za-z0-9])ISIC[_-]?(\d{7})(?!\d)", re.IGNORECASE)
# Lesions of the archive and of the sets that went into it, as their publishers number them.
_LESION = re.compile(r"(?<![A-Za-z0-9])(HAM|BCN|IL|MSK\d?)_(\d{7})(?!\d)", re.IGNORECASE)
_PUBLISHERS = ("HAM", "BCN", "IL", "MSK", *(f"MSK{digit}" for digit in range(10)))


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Those of n pictures. Nothing of it names a picture, but for numbers that are public."""

    numbers: np.ndarray  # uint32 (n,), of the ISIC archive; NO_NUMBER
    lesions: np.ndarray  # uint32 (n,), as `lesion_number` gives it; 0: none
    files: np.ndarray  # uint64 (n,), the first eight bytes of the file's SHA-256; 0: not known
    looks: np.ndarray  # uint8 (n, LOOK_BYTES), as `look` gives it; 0: none

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: np.ndarray) -> Fingerprints:
        return Fingerprints(*(getattr(self, item.name)[rows] for item in fields(Fingerprints)))

    @classmethod
    def joined(cls, parts: Sequence[Fingerprints]) -> Fingerprints:
        """Those of all parts, in their order."""
        return cls(
            *(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Fingerprints))
        )


def isic_number(*names: str) -> int | None:
    """The archive's number in the first of `names` that has one, whatever stands around it."""
    for name in names:
        if digits := _NUMBER.findall(name):
            return int(digits[-1])
    return None


def lesion_number(lesion_id: str | None) -> int:
    """A number for a lesion id that is public, the same in every set that shows it; 0: private."""
    match = _LESION.search(lesion_id or "")
    return (1 + _PUBLISHERS.index(match[1].upper())) * 10**7 + int(match[2]) if match else 0


def of_names(ids: Sequence[str]) -> Fingerprints:
    """What ids alone say: numbers of the archive."""
    count = len(ids)
    return Fingerprints(
        _numbers((name,) for name in ids),
        np.zeros(count, np.uint32),
        np.zeros(count, np.uint64),
        np.zeros((count, LOOK_BYTES), np.uint8),
    )


def of_bytes(records: Sequence[Record]) -> Fingerprints:
    """What can be said without decoding a picture: all but the look."""
    contents = (_bytes(record) for record in records)
    digests = [hashlib.sha256(content).digest() if content else b"" for content in contents]
    return described(records, digests, np.zeros((len(records), LOOK_BYTES), np.uint8))


def of_pictures(
    records: Sequence[Record], cache: Path | None = None, title: str = "comparing pictures"
) -> tuple[Fingerprints, dict[str, str]]:
    """The fingerprints of all records, and by id why a picture could not be read.

    What cannot be read has no look. `cache` is a folder where looks are kept, by the SHA-256 of the
    files and the code that made them.
    """
    known = _cached(cache)
    fresh: dict[bytes, np.ndarray] = {}

    def one(record: Record) -> tuple[bytes, np.ndarray, str | None]:
        nothing = np.zeros(LOOK_BYTES, np.uint8)
        content = _bytes(record)
        digest = hashlib.sha256(content).digest() if content else b""
        if digest in known:
            return digest, known[digest], None
        try:
            # By path where it could not be read here: the message is then that of any other use.
            code = look(read_lesion_picture(record.image, content).pixels)
        except (ImageError, OSError) as error:
            return digest, nothing, " ".join(str(error).split())
        fresh[digest] = code
        return digest, code, None

    try:
        prints = list(of_each(one, records, title, bar=len(records) > 50))
    finally:
        if cache is not None and fresh:
            _keep(cache, {**known, **fresh})
    errors = {r.id: why for r, (_, _, why) in zip(records, prints, strict=True) if why}
    digests, looks, _ = zip(*prints, strict=True) if prints else ((), (), ())
    return described(records, digests, looks), errors


def described(
    records: Sequence[Record], digests: Sequence[bytes], looks: Sequence[np.ndarray] | np.ndarray
) -> Fingerprints:
    """The fingerprints of records whose files' SHA-256 (b"": unread) and looks are known."""
    return Fingerprints(
        _numbers((record.id, record.image.name) for record in records),
        np.array([lesion_number(record.lesion_id) for record in records], np.uint32),
        np.array([_short(digest) for digest in digests], np.uint64),
        np.array(looks, np.uint8).reshape(-1, LOOK_BYTES),
    )


def look(pixels: np.ndarray) -> np.ndarray:
    """The perceptual hash of uint8 (H, W, 3) RGB, uint8 (LOOK_BYTES,); 0 without any contrast."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(gray, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    # A small dark spot on plain skin would decide about all frequencies, and all spots are alike:
    # what is far from the median counts no more than the mean deviation from it.
    middle = np.median(small)
    most = max(_LEAST_CLIP, float(np.abs(small - middle).mean()))
    low = cv2.dct(np.clip(small, middle - most, middle + most))[:SIDE, :SIDE]
    low[0, 0] = 0  # the mean brightness
    if np.count_nonzero(np.abs(low) > _CLEAR) < _LEAST_COMMON:
        return np.zeros(LOOK_BYTES, np.uint8)
    return np.packbits([np.abs(low) > _CLEAR, low > 0])


def alike(one: np.ndarray, other: np.ndarray | None = None) -> Iterator[tuple[int, int]]:
    """Pairs (i, j) of looks, uint8 (n, LOOK_BYTES), that show one picture in any of eight views.

    Without `other` the pairs are within `one`, and i < j.
    """
    within = other is None
    if not one.any() or (other is not None and not other.any()):
        return
    left = _Looks(one)
    right = left if other is None else _Looks(other)
    # Flips leave alone the signs of frequencies that are even along both axes: two comparisons of
    # a quarter of the frequencies find what is worth comparing in four views each.
    weight = 1 - 2 * _CANDIDATE
    few = _even(left.clear)
    few = np.concatenate([few, -weight * np.abs(few)], axis=1)
    halves = []
    for turned in (False, True):
        part = _even(right.clear.swapaxes(1, 2) if turned else right.clear)
        part = np.concatenate([part, np.abs(part)], axis=1).T.copy()
        views = list(zip(right.views(turned), right.views(turned, all_=True), strict=True))
        halves.append((part, views))
    flat, every = left.clear.reshape(len(one), -1), left.every.reshape(len(one), -1)
    for start in range(0, len(one), _BLOCK):
        rows = slice(start, start + _BLOCK)
        first = start if within else 0
        pairs: set[tuple[int, int]] = set()
        for part, views in halves:
            # Above 0: few enough of the clear signs differ.
            candidates = few[rows] @ part[:, first:] > 1e-3
            if within:
                candidates = np.triu(candidates, 1)
            i, j = np.nonzero(candidates)
            for at in range(0, len(i), 1 << 14):
                a, b = i[at : at + (1 << 14)] + start, j[at : at + (1 << 14)] + first
                for clear, signs in views:
                    shared = _products(np.abs(flat[a]), np.abs(clear[b]))
                    differ = (shared - _products(flat[a], clear[b])) / 2
                    same = differ <= _MOST_DIFFERENT * shared
                    # Slightly another cut of one photograph moves many of the weak signs of few.
                    same |= _products(every[a], signs[b]) >= _FREQUENCIES * (1 - 2 * _MOST_OF_ALL)
                    same &= shared >= _LEAST_COMMON
                    pairs.update(zip(a[same].tolist(), b[same].tolist(), strict=True))
        yield from sorted(pairs)


class _Looks:
    """Signs of frequencies, float32 (n, SIDE, SIDE): -1, 1, and in `clear` 0 where it is noise."""

    def __init__(self, looks: np.ndarray):
        bits = np.unpackbits(looks, axis=1).reshape(-1, 2, SIDE, SIDE).astype(np.float32)
        self.every = 2 * bits[:, 1] - 1
        self.every[:, 0, 0] = 0
        self.clear = bits[:, 0] * self.every

    def views(self, turned: bool, all_: bool = False) -> Iterator[np.ndarray]:
        """Four flips of the pictures, or of the pictures transposed, float32 (n, SIDE * SIDE)."""
        signs = self.every if all_ else self.clear
        signs = signs.swapaxes(1, 2) if turned else signs
        odd = np.where(np.arange(SIDE) % 2, -1, 1).astype(np.float32)
        for rows in (1, odd[:, None]):
            for columns in (1, odd[None]):
                yield (signs * rows * columns).reshape(len(signs), -1)


def _even(signs: np.ndarray) -> np.ndarray:
    return signs[:, ::2, ::2].reshape(len(signs), -1)


def _products(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    products: np.ndarray = np.einsum("ij,ij->i", one, other)
    return products


def _numbers(names: Iterable[Sequence[str]]) -> np.ndarray:
    numbers = (isic_number(*some) for some in names)
    return np.array([NO_NUMBER if one is None else one for one in numbers], np.uint32)


def _short(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def _bytes(record: Record) -> bytes:
    """The file; b"" where it cannot be read, or is larger than any picture that is read."""
    try:
        if not record.image.is_file() or record.image.stat().st_size > MAX_BYTES:
            return b""
        return record.image.read_bytes()
    except OSError:
        return b""


# --- the cache of looks --------------------------------------------------------------------


def _place(cache: Path) -> Path:
    return cache / f"looks-{code_hash('dermedge.data.fingerprint')[:16]}.npz"


def _cached(cache: Path | None) -> dict[bytes, np.ndarray]:
    if cache is None:
        return {}
    try:
        with np.load(_place(cache), allow_pickle=False) as arrays:
            digests, looks = arrays["digests"], arrays["looks"]
        if digests.shape != (len(looks), 32) or looks.shape != (len(looks), LOOK_BYTES):
            return {}
    except Exception:  # NumPy and zipfile raise many kinds; what is not there is made again
        return {}
    return {digest.tobytes(): item for digest, item in zip(digests, looks, strict=True)}


def _keep(cache: Path, known: dict[bytes, np.ndarray]) -> None:
    buffer = io.BytesIO()
    digests = np.frombuffer(b"".join(known), np.uint8).reshape(-1, 32)
    np.savez(buffer, digests=digests, looks=np.array(list(known.values()), np.uint8))
    make_private(cache)
    write_atomic(_place(cache), buffer.getvalue(), private=True)
