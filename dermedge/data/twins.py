"""Pictures of one lesion in two data sets, found by local features whatever they are called.

A publisher may have cropped, recoloured and renamed what another one published before, so that
neither numbers nor bytes nor the look of the whole (`dermedge.data.fingerprint`) are the same.
Hairs, dots and edges are. SIFT finds them (Lowe, IJCV 60(2), 2004; square-rooted as by Arandjelović
and Zisserman, CVPR 2012); two pictures are of one lesion where at least `LEAST` of them lie alike
but for shift, turn and size. Each picture is compared with those few alone that share rare features
with it. A lesion without any structure is not found, nor is a mirrored picture.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dermedge.code_hash import code_hash
from dermedge.data.each import of_each
from dermedge.data.records import Record
from dermedge.files import make_private, write_atomic
from dermedge.image.header import ImageError
from dermedge.image.read import read_image

LEAST = 8  # features that lie alike; fewer are chance
_SIDE = 192  # px, the long side on which features are looked for
_MOST = 200  # features of a picture; 27 kB of memory
_STRONGEST = 48  # of them that choose candidates
_AXES = 24  # of the descriptors' principal components that choose candidates
_CANDIDATES = 8  # pictures that are compared with each
_NEIGHBOURS = 5
_RATIO = 0.85  # of the distances of the nearest and the next feature (Lowe)
_NEAR = 2.0  # px; how far a feature may lie from where shift, turn and size put it
_SIZES = (0.3, 3.3)  # of one picture in the other


@dataclass(frozen=True)
class Twin:
    """Two records that show one lesion."""

    one: str  # id in the first set
    other: str  # id in the second set
    shared: int  # features that lie alike


@dataclass(frozen=True, eq=False)
class Features:
    """The local features of a picture, the strongest first."""

    places: np.ndarray  # float32 (n, 2), px at the working size
    descriptors: np.ndarray  # uint8 (n, 128)

    def __len__(self) -> int:
        return len(self.places)


def features(pixels: np.ndarray) -> Features:
    """Those of uint8 (H, W, 3) RGB."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    scale = _SIDE / max(gray.shape)
    size = [max(1, round(side * scale)) for side in gray.shape[::-1]]
    gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    # Skin has little contrast: what is weak in a street is a feature here.
    finder = cv2.SIFT.create(nfeatures=_MOST, contrastThreshold=0.01, edgeThreshold=15)
    points, found = finder.detectAndCompute(gray, None)
    if found is None or not len(points):
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    order = np.argsort([-point.response for point in points], kind="stable")[:_MOST]
    places = np.array([points[i].pt for i in order], np.float32)
    rows = found[order] / np.maximum(found[order].sum(axis=1, keepdims=True), 1e-6)
    return Features(places, np.rint(255 * np.sqrt(rows)).astype(np.uint8))


def shared(one: Features, other: Features) -> int:
    """How many features of two pictures lie alike; 0 where it is fewer than `LEAST`."""
    if min(len(one), len(other)) < LEAST:
        return 0
    left, right = one.descriptors.astype(np.float32), other.descriptors.astype(np.float32)
    squares = np.square(left).sum(1)[:, None] + np.square(right).sum(1)[None] - 2 * left @ right.T
    nearest = squares.argmin(axis=1)
    both = np.sqrt(np.maximum(np.partition(squares, 1, axis=1)[:, :2], 0))
    good = both[:, 0] < _RATIO * both[:, 1]
    if np.count_nonzero(good) < LEAST:
        return 0
    source, target = one.places[good], other.places[nearest[good]]
    cv2.setRNGSeed(0)  # RANSAC draws; the same pictures always get the same answer
    matrix, kept = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=_NEAR, maxIters=500
    )
    if matrix is None or not _SIZES[0] < float(np.hypot(matrix[0, 0], matrix[1, 0])) < _SIZES[1]:
        return 0
    inside = kept.ravel() > 0
    # One strong edge gives many features in one place: places count, not features.
    count = min(len(np.unique(np.round(side[inside] / 2), axis=0)) for side in (source, target))
    return count if count >= LEAST else 0


def twins(
    left: Sequence[Record],
    right: Sequence[Record],
    cache: Path | None = None,
    title: str = "comparing lesions",
) -> list[Twin]:
    """Which records of `left` and of `right` show one lesion, sorted.

    Takes some 30 ms of one core for each picture and 27 kB of memory. Pictures that cannot be read,
    and pairs of a dermoscopic and a clinical picture, are no twins. `cache` is a folder where
    answers are kept, by the files and the code that gave them.
    """
    if not left or not right:
        return []
    place = None if cache is None else cache / f"twins-{_key(left, right)}.npz"
    known = _cached(place, left, right)
    if known is not None:
        return known
    # Not the close-ups of a set whose other half alone can be the same.
    rows = _comparable(left, right)
    there = list(of_each(_features, right, f"{title}: features", bar=len(right) > 50))
    chooser = _Chooser(there)
    found = []
    work = of_each(_features, [left[row] for row in rows], title, bar=len(rows) > 50)
    for index, own in zip(rows, work, strict=True):
        for other in chooser.candidates(own):
            kinds = {left[index].modality, right[other].modality} - {None}
            if len(kinds) < 2 and (count := shared(own, there[other])):
                found.append((index, other, count))
    if place is not None:
        buffer = io.BytesIO()
        np.savez(buffer, pairs=np.array(found, np.int64).reshape(-1, 3))
        make_private(place.parent)
        write_atomic(place, buffer.getvalue(), private=True)
    return _named(found, left, right)


def _comparable(left: Sequence[Record], right: Sequence[Record]) -> list[int]:
    kinds = {record.modality for record in right}
    return [
        row
        for row, record in enumerate(left)
        if None in kinds or record.modality is None or record.modality in kinds
    ]


class _Chooser:
    """Which of many pictures share rare features with one."""

    def __init__(self, known: Sequence[Features]):
        strongest = [item.descriptors[:_STRONGEST] for item in known]
        self._owner = np.repeat(np.arange(len(known)), [len(rows) for rows in strongest])
        rows = np.concatenate([np.zeros((0, 128), np.uint8), *strongest]).astype(np.float32)
        self._count = len(known)
        self._index = None
        if len(rows) <= _NEIGHBOURS:
            return
        self._mean = rows.mean(axis=0)
        _, axes = np.linalg.eigh(np.cov((rows - self._mean).T))
        self._axes = axes[:, -_AXES:].astype(np.float32)
        cv2.setRNGSeed(0)
        self._index = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 4}, {"checks": 48})
        self._index.add([(rows - self._mean) @ self._axes])
        self._index.train()

    def candidates(self, one: Features) -> list[int]:
        """Those most alike, at most `_CANDIDATES`, the likeliest first."""
        if self._index is None:
            return list(range(self._count)) if self._count <= _CANDIDATES else []
        if not len(one):
            return []
        rows = (one.descriptors[:_STRONGEST].astype(np.float32) - self._mean) @ self._axes
        votes = np.zeros(self._count)
        for matches in self._index.knnMatch(rows, k=_NEIGHBOURS):
            # A feature that many pictures have says little of each.
            far = matches[-1].distance + 1e-6
            for match in matches[:-1]:
                votes[self._owner[match.trainIdx]] += 1 - match.distance / far
        best = np.argsort(-votes, kind="stable")[:_CANDIDATES]
        return [int(place) for place in best if votes[place] > 0]


def _features(record: Record) -> Features:
    try:
        return features(read_image(record.image).pixels)
    except (ImageError, OSError):
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))


def _key(left: Sequence[Record], right: Sequence[Record]) -> str:
    digest = hashlib.sha256(code_hash("dermedge.data.twins").encode())
    for records in (left, right):
        for record in records:
            try:
                status = record.image.stat()
                line = f"{record.image.resolve()}\n{status.st_size}\n{status.st_mtime_ns}\n"
            except OSError:
                line = f"{record.image}\n"
            # Of two kinds they are not compared.
            digest.update(f"{line}{record.modality}\n".encode())
        digest.update(b"and\n")
    return digest.hexdigest()[:20]


def _cached(
    place: Path | None, left: Sequence[Record], right: Sequence[Record]
) -> list[Twin] | None:
    if place is None:
        return None
    try:
        with np.load(place, allow_pickle=False) as arrays:
            pairs = arrays["pairs"]
        return _named([(int(i), int(j), int(n)) for i, j, n in pairs], left, right)
    except Exception:  # NumPy and zipfile raise many kinds; what is not there is made again
        return None


def _named(
    found: list[tuple[int, int, int]], left: Sequence[Record], right: Sequence[Record]
) -> list[Twin]:
    return sorted(
        (Twin(left[i].id, right[j].id, count) for i, j, count in found),
        key=lambda twin: (twin.one, twin.other),
    )
