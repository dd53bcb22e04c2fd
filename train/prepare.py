"""One picture and its mask, as a network learns from them.

Whatever decides about the pixels is in this module or imported by it: the cache of prepared
pictures is keyed on their code (see `train.data`).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dermedge.data.masks import read_lesion_mask, read_lesion_picture
from dermedge.data.records import Record
from dermedge.image.preprocess import Preprocessing, prepare

UNKNOWN = 128  # pixels of a mask that the data set does not have


def read_prepared(
    record: Record, preprocessing: Preprocessing, masks: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    pixels = read_lesion_picture(record.image).pixels
    mask = None
    if record.mask is not None and (masks or preprocessing.crop):
        mask = _mask(record.mask, pixels.shape[:2])
    # The device crops by the mask that its segmenter finds; here the drawn one stands for it.
    box = None
    if mask is not None and preprocessing.crop and mask.any():
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        box = x, y, width, height
    image, placement = prepare(pixels, preprocessing, box)
    if not masks:
        return image, None
    if mask is None:
        return image, np.full(image.shape[:2], UNKNOWN, np.uint8)
    return image, placement.place_mask(mask).astype(np.uint8) * 255


def _mask(drawn: Path, shape: tuple[int, int]) -> np.ndarray:
    """The drawn mask, bool, at the picture's working size (height, width)."""
    height, width = shape
    mask = read_lesion_mask(drawn, height, width)
    if mask.shape == shape:
        return mask
    smooth = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return smooth >= 0.5
