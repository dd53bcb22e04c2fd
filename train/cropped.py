"""Pictures as a device crops them: about the lesion that a bundle's segmenter outlines.

Whatever decides about these pixels is in this module or imported by it: the cache of prepared
pictures is keyed on their code (see `train.data`).
"""

from __future__ import annotations

import threading

import numpy as np

from dermedge import UserError
from dermedge.analyzer import Scaled, crop_frame, outline, prepare_lesion, prepare_whole
from dermedge.bundle.bundle import open_bundle
from dermedge.data.masks import read_lesion_picture
from dermedge.data.records import Record
from dermedge.image.preprocess import Preprocessing
from dermedge.lesion.quality import SIDE
from dermedge.metadata import FIELDS
from dermedge.network import Network


class Cropper:
    """Prepares pictures by the segmenter of a bundle. Any thread may call; each has its own."""

    def __init__(self, path: str):
        """Open the bundle of that name or at that path. UserError where it cannot be used."""
        self._bundle = open_bundle(path)
        models = self._bundle.manifest.models
        if "segmenter" not in models:
            raise UserError(f"{path} has no segmenter to find the lesions: set another crop_by")
        if "classifier" in models and models["classifier"].part == models["segmenter"].part:
            raise UserError(
                f"one network of {path} plays both roles, so that export cannot put its segmenter "
                "beside a classifier: set another crop_by"
            )
        self._own = threading.local()
        self.sha256 = self._bundle.sha256

    def read(self, record: Record, preprocessing: Preprocessing) -> np.ndarray:
        """uint8 (size, size, 3) RGB: the lesion and its surroundings, or all where none is found.

        ImageError where the picture cannot be read.
        """
        if not hasattr(self._own, "segmenter"):
            self._own.segmenter = Network(self._bundle, ("segmenter",), threads=1)
        segmenter: Network = self._own.segmenter
        cropped = crop_frame(read_lesion_picture(record.image))
        scaled = Scaled(cropped.pixels)
        whole = prepare_whole(scaled.pixels, SIDE, segmenter.model.preprocessing)
        known = {name: getattr(record, name) for name in FIELDS}
        outputs, limits = segmenter.run(whole.square, known), self._bundle.manifest.thresholds
        found = outline(outputs, whole, scaled, cropped.width, limits, None)
        return prepare_lesion(scaled, whole, found.lesion, preprocessing).square
