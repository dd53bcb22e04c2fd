"""The part `reference.npz` of a bundle: what a device has to compute from drawn pictures.

Export writes it and `dermedge.verify` reads it. It holds the pictures, and for each network what
it was fed with and what it gave. Of images and masks it keeps every `STRIDE`-th row and column:
enough to see that a device prepares and computes alike.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermedge.bundle.archive import ArchiveError
from dermedge.bundle.npz import Field, read_npz

REFERENCE = "reference.npz"
STRIDE = 8  # px
NETWORKS = ("segmenter", "classifier", "multitask")
MAX_PICTURES, MAX_SIDE = 16, 2048
MAX_BYTES = 16 << 20  # of all arrays
_PICTURES = "pictures"
_IMAGE = "image"
# The outputs that a bundle's graphs may have, with their axes.
OUTPUTS = {"mask": 3, "probabilities": 2, "activation": 4, "embedding": 2, "distance": 2}
_FIELDS = {
    _PICTURES: Field("u", 4),
    **{f"{network}_{_IMAGE}": Field("u", 4, optional=True) for network in NETWORKS},
    **{
        f"{network}_{name}": Field("f", axes, optional=True)
        for network in NETWORKS
        for name, axes in OUTPUTS.items()
    },
}


def network_of(part: str) -> str:
    """Which of `NETWORKS` a part's graph is: "classifier-int8-x86.onnx" is the classifier."""
    return part.split(".")[0].split("-")[0]


def strided(name: str, values: np.ndarray) -> np.ndarray:
    """What the reference keeps of (N, ...) inputs or outputs called `name`."""
    return values[:, ::STRIDE, ::STRIDE] if name in (_IMAGE, "mask") else values


@dataclass(frozen=True, eq=False)
class Expected:
    """What one network was fed with, and what it gave; as `strided` keeps it."""

    image: np.ndarray  # uint8 (N, s, s, 3), the prepared pictures
    outputs: dict[str, np.ndarray]  # name, one of `OUTPUTS`: float32 (N, ...)

    @classmethod
    def of(cls, squares: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Expected:
        """From uint8 (N, S, S, 3) inputs and whole float32 (N, ...) outputs."""
        kept = {name: strided(name, values) for name, values in outputs.items()}
        return cls(strided(_IMAGE, squares), kept)


@dataclass(frozen=True, eq=False)
class Reference:
    """The whole part."""

    pictures: np.ndarray  # uint8 (N, H, W, 3) RGB
    networks: dict[str, Expected]  # by name, some of `NETWORKS`

    def to_bytes(self) -> bytes:
        """The content of the part, an .npz file, that `from_bytes` reads."""
        arrays: dict[str, Any] = {_PICTURES: self.pictures}
        for network, expected in self.networks.items():
            arrays[f"{network}_{_IMAGE}"] = expected.image
            arrays |= {f"{network}_{name}": v for name, v in expected.outputs.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Reference:
        """Raises ArchiveError where it is damaged or contradicts itself; see `read_npz`."""
        arrays = read_npz(content, _FIELDS, MAX_BYTES, MAX_SIDE)
        pictures = arrays.pop(_PICTURES)
        count = len(pictures)
        if not 1 <= count <= MAX_PICTURES or pictures.shape[3] != 3 or not pictures.size:
            raise ArchiveError("has no pictures, or too many")
        networks = {}
        for network in NETWORKS:
            stored = {name: arrays.get(f"{network}_{name}") for name in (_IMAGE, *OUTPUTS)}
            image = stored.pop(_IMAGE)
            outputs = {name: values for name, values in stored.items() if values is not None}
            if image is None and not outputs:
                continue
            if image is None or image.dtype.itemsize != 1 or image.shape[3] != 3:
                raise ArchiveError(f"does not say what the {network} is fed with")
            if any(len(values) != count for values in (image, *outputs.values())):
                raise ArchiveError(f"says of the {network} something else than {count} pictures")
            networks[network] = Expected(image, outputs)
        if pictures.dtype.itemsize != 1:
            raise ArchiveError("has pictures of another type than uint8")
        return cls(pictures, networks)
