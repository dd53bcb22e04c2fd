"""Labelled training cases that travel with a bundle, so that similar ones can be shown."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dermedge.bundle import BundleError
from dermedge.image import read_image

THUMBNAIL = 64  # px, side of a thumbnail
MAX_BYTES = 4 << 20  # of all arrays, unpacked


@dataclass(frozen=True)
class Case:
    """A training case that is similar to a picture."""

    id: str  # of the picture in its data set
    label: str  # one of the bundle's labels
    similarity: float  # cosine of the angle between the embeddings, -1 to 1


@dataclass(frozen=True, eq=False)
class Cases:
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
    ) -> Cases:
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
    def from_bytes(cls, content: bytes, labels: int) -> Cases:
        """Raises BundleError where the part is damaged or names more than `labels` labels."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                    raise ValueError("too large")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                embeddings, numbers = arrays["embeddings"], arrays["labels"]
                ids, thumbnails = arrays["ids"].tolist(), arrays["thumbnails"].tolist()
            if embeddings.ndim != 2 or not np.isfinite(embeddings).all():
                raise ValueError("embeddings")
            if not {len(numbers), len(ids), len(thumbnails) or len(ids)} == {len(embeddings)}:
                raise ValueError("lengths")
            if numbers.ndim != 1 or not ((numbers >= 0) & (numbers < labels)).all():
                raise ValueError("labels")
        # NumPy and zipfile raise many kinds on damaged files.
        except Exception:
            raise BundleError("its labelled cases are damaged: export the bundle again") from None
        return cls(embeddings, numbers, tuple(map(str, ids)), tuple(thumbnails))

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
        """The thumbnail of the case `name`, uint8 (h, w, 3) RGB; None where pictures do not travel.

        ImageError where it is damaged.
        """
        if not self.thumbnails:
            return None
        return read_image(self.thumbnails[self.ids.index(name)]).pixels


def _thumbnail(picture: np.ndarray) -> bytes:
    small = cv2.resize(picture, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
