"""The pictures of a document, drawn again: nothing of their metadata gets in."""

from __future__ import annotations

import io

import cv2
import numpy as np

from dermedge.analysis import lesion_outline
from edge_app.store.store import Capture

PICTURE_SIDE = 1400  # px; about 400 dpi at the size at which it is printed


def drawn(capture: Capture, pixels: np.ndarray) -> tuple[np.ndarray, bool]:
    outlines = lesion_outline(capture.analysis) if capture.readable else []
    polygons = [np.asarray(p, float) for p in outlines]
    return outlined(pixels, capture.size, polygons, capture.px_per_mm)


def close_up(capture: Capture, pixels: np.ndarray) -> tuple[np.ndarray, bool]:
    """The lesion and some of the skin around it, without the outline; as high as wide."""
    scale = pixels.shape[1] / capture.size[0]
    x, y, across, down = (value * scale for value in capture.analysis["lesion"]["box"])
    side = min(1.5 * max(across, down), *pixels.shape[:2])
    left = round(min(max(x + across / 2 - side / 2, 0), pixels.shape[1] - side))
    top = round(min(max(y + down / 2 - side / 2, 0), pixels.shape[0] - side))
    part = pixels[top : top + max(1, round(side)), left : left + max(1, round(side))]
    return outlined(part, part.shape[1::-1], [], (capture.px_per_mm or 0) * scale)


def outlined(pixels, size: tuple[int, int], polygons, px_per_mm: float | None):
    """The picture with outlines (px of the whole picture, of `size`) and, where the scale is known,
    a bar of 5 mm; and whether it is there.
    """
    shrink = min(1.0, PICTURE_SIDE / max(pixels.shape[:2]))
    if shrink < 1:
        pixels = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    elif max(pixels.shape[:2]) < PICTURE_SIDE / 2:  # else the outline would be steps
        pixels = cv2.resize(pixels, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    image = np.ascontiguousarray(pixels).copy()
    scale = image.shape[1] / size[0]
    fine = max(1, round(max(image.shape[:2]) / 450))
    for color, thick in (((13, 26, 32), 3 * fine), ((255, 255, 255), fine)):
        for polygon in polygons:
            points = np.round((polygon * scale + (scale - 1) / 2) * 16).astype(np.int32)
            cv2.polylines(image, [points], True, color, thick, cv2.LINE_AA, 4)
    length = 5 * (px_per_mm or 0) * scale
    if not 0 < length < 0.6 * image.shape[1]:
        return image, False
    y, x = image.shape[0] - 8 * fine, 8 * fine
    for color, thick in (((13, 26, 32), 4 * fine), ((255, 255, 255), 2 * fine)):
        cv2.line(image, (x, y), (x + round(length), y), color, thick, cv2.LINE_AA)
    return image, True


def jpeg(image: np.ndarray) -> io.BytesIO:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return io.BytesIO(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
