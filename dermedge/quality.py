"""Can this picture be judged at all? Codes that say why not, with advice in plain words.

Every measure is taken on a copy whose long side is 256 px, so that the camera's resolution does
not matter. The brightest percentiles judge the light, not the mean: a well lit picture of dark
skin has a low mean.

Limits were set on HAM10000 and PAD-UFES-20 pictures, then measured once on 170 + 170 others (by
picture, not by patient): 8 of 340 as published were refused (2.4 %); of the same blurred by 1 %
of the long side 339 were called too blurred, and all at exposure x0.2 too dark, at x3 too bright.
How well pictures of other things, cut-off or too small lesions are caught was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

TITLES = {
    "too_blurred": "The picture is blurred: hold still, wait for the focus, clean the lens.",
    "too_dark": "The picture is too dark: use more light, or the flash.",
    "too_bright": "Parts of the picture are blinded by light: avoid glare and direct flash.",
    "not_skin": "This does not look like skin: point the camera at the skin.",
    "no_lesion": "No lesion was found: put the spot in the middle of the picture.",
    "cut_off": "The lesion is cut off: move back until skin shows all around it.",
    "too_small": "The lesion is too small in the picture: move closer.",
}

SIDE = 256  # px
# Detail at about 1.5 px over detail at about 3.5 px. Good pictures: 98 % have 0.38 or more; after
# a Gaussian blur of 1 % of the long side nearly all have less than 0.36. Contrast divides out.
MIN_SHARPNESS = 0.36
# 90th percentile of the brightest channel. Good: 144 or more; exposure x0.2: 51 or less. The limit
# is near the dark end, so that the darkest skin in good light passes.
MIN_LIGHT = 60.0
# Share of burnt-out pixels (green 250 or more). Good: 2 % or less; exposure x3: 29 % or more.
MAX_GLARE = 0.05
MIN_SKIN = 0.2  # share of pixels as warm as skin of any tone or a lesion is
MAX_CUT = 0.35  # share of the lesion's outline that lies on the picture's frame
MIN_LESION = 0.002  # share of the picture


@dataclass(frozen=True)
class Quality:
    """ok : nothing speaks against the picture. reasons : keys of TITLES, the gravest first.

    scores : 'sharpness', 'light' (0..255), 'glare', 'skin' (0..1), and with a mask also
    'lesion' and, where it is not empty, 'cut' (0..1).
    """

    ok: bool
    reasons: tuple[str, ...]
    scores: dict[str, float]


def assess(pixels: np.ndarray, mask: np.ndarray | None = None) -> Quality:
    """Judge a picture.

    Parameters
    ----------
    pixels : uint8 (h, w, 3) RGB.
    mask : bool (h, w), the lesion; None: nothing is said about a lesion.

    Raises
    ------
    ValueError : a mask that does not fit the picture.
    """
    if mask is not None and mask.shape != pixels.shape[:2]:
        raise ValueError(f"a mask of {mask.shape} does not fit a picture of {pixels.shape}")
    small = _shrunk(pixels)
    red, green, blue = (small[..., channel].astype(np.int16) for channel in range(3))
    scores = {
        "sharpness": _sharpness(small),
        "light": float(np.percentile(small.max(axis=2), 90)),
        "glare": float((green >= 250).mean()),
        "skin": float(((red > green + 4) & (red > blue - 12)).mean()),
    }
    blinded, dark = scores["glare"] > MAX_GLARE, scores["light"] < MIN_LIGHT
    found = {
        "too_dark": dark,
        "too_bright": blinded,
        "too_blurred": scores["sharpness"] < MIN_SHARPNESS,
        # Without fair light the colours say nothing.
        "not_skin": not dark and not blinded and scores["skin"] < MIN_SKIN,
    }
    if mask is not None:
        edge = mask.astype(np.uint8)
        area = cv2.countNonZero(edge)
        scores["lesion"] = area / edge.size
        found["no_lesion"] = not area
        if area:
            scores["cut"] = _cut(edge, area)
            found["cut_off"] = scores["cut"] > MAX_CUT
            found["too_small"] = scores["lesion"] < MIN_LESION
    reasons = tuple(code for code, holds in found.items() if holds)
    return Quality(not reasons, reasons, scores)


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    scale = SIDE / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _sharpness(small: np.ndarray) -> float:
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine, middle, coarse = (cv2.GaussianBlur(gray, (0, 0), sigma) for sigma in (1, 2, 5))
    return float(np.std(fine - middle) / (np.std(middle - coarse) + 0.01))


def _cut(edge: np.ndarray, area: int) -> float:
    frame = sum(int(line.sum()) for line in (edge[0], edge[-1], edge[:, 0], edge[:, -1]))
    inner = cv2.erode(edge, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT)
    outline = area - cv2.countNonZero(inner)
    return min(1.0, frame / max(1, outline))
