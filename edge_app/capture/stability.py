"""When to take the picture by itself: it is good, and neither hand nor lesion has moved."""

from __future__ import annotations

import cv2
import numpy as np

HOLD_SECONDS = 1.0  # good and still for so long
OVERLAP = 0.75  # intersection over union of the lesion's box with the one before
MOTION = 4.0  # grey levels, mean change from one analysed frame to the next
SIDE = (64, 48)  # px; noise averages out, a moving hand does not


class StabilityTracker:
    """Looks at the analysed frames of a live picture, one after the other."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._since: float | None = None
        self._gray: np.ndarray | None = None
        self._box: list[float] | None = None

    def update(self, analysis: dict, pixels: np.ndarray, now: float) -> float:
        """How far the wait for a good and still picture has come, 0 to 1.

        Parameters
        ----------
        analysis : of the frame, as `analysis.schema.json` describes it.
        pixels : the frame, uint8 (h, w, 3) RGB, of any size.
        now : seconds of a clock that never goes back.
        """
        gray = cv2.cvtColor(
            cv2.resize(pixels, SIDE, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
        )
        gray = gray.astype(np.float32)
        gray -= gray.mean()  # a camera that sets its exposure again does not move
        box = analysis["lesion"]["box"]
        still = (
            self._gray is not None
            and float(np.abs(gray - self._gray).mean()) <= MOTION
            and overlap(box, self._box) >= OVERLAP
        )
        self._gray, self._box = gray, box
        if not still or not analysis["quality"]["ok"] or analysis["triage"] == "retake":
            self._since = None
            return 0.0
        if self._since is None:
            self._since = now
        return min(1.0, (now - self._since) / HOLD_SECONDS)


def overlap(first: list[float] | None, second: list[float] | None) -> float:
    """Intersection over union of two boxes [x, y, width, height]; 0 where one is missing."""
    if first is None or second is None:
        return 0.0
    (x, y, w, h), (u, v, p, q) = first, second
    inner = max(0.0, min(x + w, u + p) - max(x, u)) * max(0.0, min(y + h, v + q) - max(y, v))
    union = w * h + p * q - inner
    return inner / union if union else 0.0
