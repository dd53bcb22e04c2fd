"""The drawn mask of a record, checked against its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dermedge.image.header import ImageError
from dermedge.image.mask_values import looks_inverted
from dermedge.image.read import read_mask

_SHAPE = 0.03  # by which width / height may differ: rounding of small copies


def read_lesion_mask(path: Path, height: int, width: int) -> np.ndarray:
    """Read the mask of a picture of `height` x `width` px: bool, of the mask's own size.

    Raises
    ------
    ImageError : as `dermedge.image.read.read_mask`; also where the mask has another shape than the
        picture, or lesion and skin look swapped.
    """
    mask = read_mask(path)
    if abs(mask.shape[1] / mask.shape[0] / (width / height) - 1) > _SHAPE:
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
