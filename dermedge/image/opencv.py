"""What OpenCV does and its published types leave out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np


@contextmanager
def short_of_memory() -> Iterator[None]:
    """Raise MemoryError where OpenCV could not have the memory that it asked for."""
    try:
        yield
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise
        raise MemoryError from None


def compare_number(image: np.ndarray, number: float, operation: int) -> np.ndarray:
    """`cv2.compare` of one channel with a number: uint8 (h, w), 255 where it holds, else 0.

    Parameters
    ----------
    image : (h, w), any type of number.
    operation : `cv2.CMP_GE`, `cv2.CMP_LT` ...
    """
    # OpenCV's types know arrays alone here.
    return cv2.compare(image, number, operation)  # type: ignore[call-overload, no-any-return]
