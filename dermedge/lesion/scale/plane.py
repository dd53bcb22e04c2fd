"""A known thing in a picture as the plane of the skin: px to mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dermedge import UserError

MAX_TILT = 1.4  # longer by shorter side of what should be a square
WORK = 640  # px, long side of the copy on which coins and rulers are looked for


class ScaleError(UserError):
    """No scale can be measured in this picture; one line that says why."""


@dataclass(frozen=True, eq=False)
class Scale:
    """Where a reference lies. Coordinates are px of the picture that it was found in.

    to_mm : float (3, 3), homography to mm in the reference's plane.
    cover : bool (h, w), what the reference hides of the skin.
    """

    reference: str
    to_mm: np.ndarray
    cover: np.ndarray

    def millimetres(self, points: np.ndarray) -> np.ndarray:
        """Float (n, 2) of x, y in px to mm."""
        points = np.asarray(points, np.float64).reshape(-1, 1, 2)
        return cv2.perspectiveTransform(points, self.to_mm)[:, 0]

    def px_per_mm(self, point: tuple[float, float]) -> float:
        """At `point` (x, y); the geometric mean over the directions."""
        scale: float = 1 / np.sqrt(abs(np.linalg.det(slope(self.to_mm, point))))
        return scale

    def extent(self, outline: np.ndarray) -> float:
        """The longest distance between pixels of an outline, (n, 2) px of their centres, in mm."""
        hull = cv2.convexHull(np.asarray(outline, np.float32))[:, 0]
        points = self.millimetres(hull)
        longest = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2)).max()
        # Each px reaches half a px beyond its centre on both sides.
        return float(longest + 1 / self.px_per_mm(hull.mean(axis=0)))

    def inpainted(self, pixels: np.ndarray) -> np.ndarray:
        """A copy of uint8 (h, w, 3) with the colours of the skin around drawn over the reference.

        The networks have never seen one, and would take its black for a lesion.
        """
        if not self.cover.any():
            return pixels
        hidden = cv2.dilate(self.cover.astype(np.uint8), np.ones((5, 5), np.uint8))
        factor = 128 / max(pixels.shape[:2])
        small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        size = small.shape[1::-1]
        lost = cv2.resize(hidden.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
        skin = cv2.inpaint(small, lost.astype(np.uint8), 5, cv2.INPAINT_TELEA)
        skin = cv2.resize(skin, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return np.where(hidden[..., None] > 0, skin, pixels)


def copy_to_search(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """A copy of at most `WORK` px a side, and its px per px of the picture."""
    factor = min(1.0, WORK / max(pixels.shape[:2]))
    if factor * min(pixels.shape[:2]) < 1:  # OpenCV refuses a strip that loses its width
        height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), factor
    small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return small, factor


def slope(matrix: np.ndarray, point: Sequence[float] | np.ndarray) -> np.ndarray:
    """The (2, 2) derivative of a homography at a point."""
    x, y, w = matrix @ (point[0], point[1], 1.0)
    return np.array(
        [(matrix[0, :2] * w - x * matrix[2, :2]) / w**2,
         (matrix[1, :2] * w - y * matrix[2, :2]) / w**2]
    )  # fmt: skip


def check_tilt(slope: np.ndarray) -> None:
    longer, shorter = np.linalg.svd(slope, compute_uv=False)
    if longer > MAX_TILT * shorter:
        raise ScaleError("the picture is taken from the side: hold the camera straight above")
