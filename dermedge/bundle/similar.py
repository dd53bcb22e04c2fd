"""Labelled training cases that travel with a bundle, so that similar ones can be shown."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dermedge.bundle.archive import ArchiveError
from dermedge.bundle.manifest import CASES, BundleError
from dermedge.bundle.npz import Field, read_npz
from dermedge.image.header import ImageError, kind_of
from dermedge.image.header.jpeg import read_jpeg
from dermedge.image.read import read_image
from dermedge.text import printable

THUMBNAIL = 64  # px, side of a thumbnail
MAX_THUMBNAIL = 256  # px
MAX_BYTES = 4 << 20  # of all arrays, unpacked
MAX_ITEMS = 4096  # cases, or numbers of an embedding
MAX_ID = 256  # characters
_FIELDS = {
    "embeddings": Field("f", 2),
    "labels": Field("iu", 1),
    "ids": Field("U", 1),
    "thumbnails": Field("S", 1),
}


@dataclass(frozen=True)
class Case:
    """A training case that is similar to a picture."""

    id: str  # of the picture in its data set
    label: str  # one of the bundle's labels
    similarity: float  # cosine of the angle between the embeddings, -1 to 1


@dataclass(frozen=True, eq=False)
class SimilarCases:
    """The part `cases.npz` of a bundle."""

    embeddings: np.ndarray  # float16 (n, E), as the classifier's output `embedding`
    labels: np.ndarray  # int (n,), positions in the manifest's labels
    ids: tuple[str, ...]
    thumbnails: tuple[bytes, ...]  # JPEG, THUMBNAIL x THUMBNAIL px; (): pictures stay at home

    @classmethod
    def make(
        cls,
        embeddings: np.ndarray,
        labels: Sequence[int],
        ids: Sequence[str],
        pictures: Sequence[np.ndarray] = (),
    ) -> SimilarCases:
        """From float (n, E) embeddings and square uint8 (S, S, 3) RGB pictures, or none of them."""
        return cls(
            np.asarray(embeddings, np.float16),
            np.asarray(labels, np.int16),
            tuple(ids),
            tuple(map(_thumbnail, pictures)),
        )

    def to_bytes(self) -> bytes:
        """The part's content; equal cases give equal bytes."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            embeddings=self.embeddings,
            labels=self.labels,
            ids=np.array(self.ids, np.str_),
            # Fixed-length strings lose zeros at their end; a JPEG ends with FF D9.
            thumbnails=np.array(self.thumbnails, np.bytes_),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, labels: int) -> SimilarCases:
        """Raises BundleError where the part is damaged or names more than `labels` labels."""
        try:
            return cls._from_arrays(read_npz(content, _FIELDS, MAX_BYTES, MAX_ITEMS), labels)
        except ArchiveError as error:
            raise BundleError(
                "its labelled cases are refused ({part} {reason}): export the bundle again",
                code="bundle.cases",
                part=CASES,
                reason=error,
            ) from None

    @classmethod
    def _from_arrays(cls, arrays: dict[str, np.ndarray], labels: int) -> SimilarCases:
        embeddings, numbers = arrays["embeddings"], arrays["labels"]
        thumbnails = tuple(arrays["thumbnails"].tolist())
        ids = tuple(arrays["ids"].tolist())
        if not len(embeddings) == len(numbers) == len(ids) == len(thumbnails or ids):
            raise ArchiveError("has arrays of different lengths")
        if not ((numbers >= 0) & (numbers < labels)).all():
            raise ArchiveError(f"names a label beyond the {labels} there are")
        if not embeddings.shape[1]:
            raise ArchiveError("has embeddings of no numbers")
        if len(set(ids)) < len(ids):
            raise ArchiveError("has one case twice")
        if not all(0 < len(name) <= MAX_ID and printable(name) == name for name in ids):
            raise ArchiveError("names a case by what cannot be shown")
        for content in thumbnails:
            _check_thumbnail(content)
        return cls(embeddings, numbers, ids, thumbnails)

    def nearest(self, embedding: np.ndarray, labels: Sequence[str], count: int) -> tuple[Case, ...]:
        """The `count` cases most similar to a float (E,) embedding, the most similar first."""
        known = self.embeddings.astype(np.float64)
        lengths = np.linalg.norm(known, axis=1) * np.linalg.norm(embedding)
        cosines = known @ embedding / np.maximum(lengths, 1e-12)
        order = np.argsort(-cosines, kind="stable")[:count]
        return tuple(
            Case(self.ids[i], labels[self.labels[i]], float(np.clip(cosines[i], -1, 1)))
            for i in order
        )

    def picture(self, name: str) -> np.ndarray | None:
        """The thumbnail of the case `name`, uint8 (h, w, 3) RGB; None: pictures do not travel."""
        if not self.thumbnails:
            return None
        return read_image(self.thumbnails[self.ids.index(name)]).pixels


def _check_thumbnail(content: bytes) -> None:
    """Now, not when a person waits for a result. Raises ArchiveError."""
    try:
        header = read_jpeg(content) if kind_of(content) == "jpeg" else None
        if header is None or max(header.width, header.height) > MAX_THUMBNAIL:
            raise ArchiveError(f"has a picture of a case, no JPEG of up to {MAX_THUMBNAIL} px")
        read_image(content)
    except ImageError:
        raise ArchiveError("has a picture of a case that cannot be read") from None


def _thumbnail(picture: np.ndarray) -> bytes:
    small = cv2.resize(picture, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
