"""The part `reference.npz`: drawn pictures, and what each network must be fed and must answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dermedge.bundle.reference import Expected, Reference
from dermedge.data import synthetic
from dermedge.image.preprocess import Preprocessing, prepare
from dermedge.runtime import open_session
from export.validation.prepared import Crop

SEEDS = (1, 2)


@dataclass(frozen=True)
class ReferenceNetwork:
    """A network of the bundle in FP32."""

    kind: str  # of `dermedge.bundle.reference.NETWORKS`
    graph: bytes
    preprocessing: Preprocessing


def reference(networks: Sequence[ReferenceNetwork], crop: Crop | None) -> bytes:
    """The content of the part; what is known of the person is absent.

    crop : where the bundle's segmenter finds the lesion; None: no network is fed with crops.
    """
    pictures = np.stack([synthetic.draw(seed, size=(96, 128)).image for seed in SEEDS])
    expected = {network.kind: _expected(network, pictures, crop) for network in networks}
    return Reference(pictures, expected).to_bytes()


def _expected(network: ReferenceNetwork, pictures: np.ndarray, crop: Crop | None) -> Expected:
    session, spec = open_session(network.graph), network.preprocessing
    absent = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in session.inputs[1:]}
    squares = [
        prepare(picture, spec, crop(picture) if crop and spec.crop else None)[0]
        for picture in pictures
    ]
    every = [session.run({"image": square[None], **absent}) for square in squares]
    outputs = {name: np.concatenate([one[name] for one in every]) for name in every[0]}
    return Expected.of(np.stack(squares), outputs)
