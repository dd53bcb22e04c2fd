"""The picture of a record, and its drawn mask, checked against the picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import cv2
import numpy as np

from dermedge.image.header import ImageError
from dermedge.image.mask_values import lesion_pixels, looks_inverted
from dermedge.image.read import Picture, read_image, read_mask

_SHAPE = 0.03  # by which width / height may differ: rounding of small copies
_SAMPLES = 256  # of the longer side, at which most photographs show that they are no mask
_LABELS = 3  # lesion, hair, ruler
_SPARSE = 101
_BASE = np.array([1 << 16, 1 << 8, 1])
_SAME = 2  # values by which a flat colour varies in a JPEG
_EDGES = 0.15  # share of pixels where it is not flat: edges, and the noise of a JPEG beside them
_EDGES_WITHIN = 0.5  # of those that are not of the commonest colour
_VIVID = 120  # by which the channels of skin do not differ
_END = 25  # values this close to the darkest or brightest one are that one: JPEG noise


def read_lesion_picture(path: Path, content: bytes = b"") -> Picture:
    """Read the picture of a record, as `read_image` does. ImageError also where it is a mask.

    `content` is that of the file where it was read before.
    """
    picture = read_image(content or path)
    if _is_mask(picture.pixels):
        raise ImageError(
            "{path}: a mask of few values, no picture of skin; move it into a folder called masks, "
            "or leave it out",
            code="picture_is_mask",
            path=path.name,
        )
    return picture


def _is_mask(pixels: np.ndarray) -> bool:
    step = max(1, max(pixels.shape) // _SAMPLES)
    channels = cv2.split(pixels[::step, ::step])  # by channel: numpy is slow along an axis of 3
    gray, least = reduce(cv2.max, channels), reduce(cv2.min, channels)
    if int((gray - least).max()) > _END:
        return _is_flat(channels)  # skin has a colour, also where it is drawn in two
    low, high = int(gray.min()), int(gray.max())
    ends = (gray <= low + _END) | (gray >= high - _END)
    if high - low <= 2 * _END or ends.mean() < 0.8:
        return False
    for lossy in (False, True):
        try:
            lesion_pixels(pixels, lossy)
        except ImageError:
            continue
        return True
    return False


def _is_flat(channels: Sequence[np.ndarray]) -> bool:
    """Whether nothing but black and at most `_LABELS` colours is there, as tools export labels, or
    little but so many colours, one of them none of skin, as plots draw a mask."""
    for step in (_SPARSE, 1):  # a few pixels tell nearly each photograph
        left = np.stack([channel.ravel()[::step] for channel in channels], axis=1).astype(np.int32)
        sizes, black, vivid = [len(left)], False, False
        while len(left) and len(sizes) <= 1 + _LABELS:
            colours, counts = np.unique(left @ _BASE, return_counts=True)
            colour = colours[counts.argmax()] // _BASE % 256
            left = left[(abs(left - colour) > _SAME).any(axis=1)]
            sizes.append(len(left))
            black |= not colour.any()
            vivid |= int(np.ptp(colour)) > _VIVID
        # A photograph may have a flat surround, but then is not flat within it.
        if len(left) > min(_EDGES * sizes[0], _EDGES_WITHIN * sizes[1]):
            return False
    return len(sizes) > 2 and (vivid or (black and not len(left)))


def has_shape(mask: np.ndarray, height: int, width: int) -> bool:
    """Whether a mask may be of a picture of `height` x `width` px, at this or another size."""
    return bool(abs(mask.shape[1] / mask.shape[0] / (width / height) - 1) <= _SHAPE)


def read_lesion_mask(path: Path, height: int, width: int) -> np.ndarray:
    """Read the mask of a picture of `height` x `width` px: bool, of the mask's own size.

    Raises
    ------
    ImageError : as `dermedge.image.read.read_mask`; also where the mask has another shape than the
        picture, or lesion and skin look swapped.
    """
    mask = read_mask(path)
    if not has_shape(mask, height, width):
        raise ImageError(
            "{path}: the mask ({mask_width}x{mask_height}) has another shape than the picture "
            "({width}x{height})",
            code="mask_shape",
            path=path.name,
            mask_width=mask.shape[1],
            mask_height=mask.shape[0],
            width=width,
            height=height,
        )
    if looks_inverted(mask):
        raise ImageError(
            "{path}: the mask looks inverted: it covers more of the frame's border than of the "
            "frame; swap its values, or leave it out",
            code="mask_inverted",
            path=path.name,
        )
    return mask
