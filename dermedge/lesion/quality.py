"""Can this picture be judged, and what would make it better? Codes, with advice in plain words.

Every measure is taken on a copy whose long side is 256 px, so that the camera's resolution does
not matter. A score is 0 at what a good picture usually has and 1 where its reason is reported; some
reasons refuse the picture from a higher score on, the others are advice.

The limits were set on validation pictures of HAM10000 and training and validation pictures of
PAD-UFES-20, as they are and corrupted by `benchmarks.corruptions`; `dermedge quality` measures
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dermedge.image.opencv import compare_number
from dermedge.image.preprocess import thumbnail

# The gravest first: what hides the rest, then what the person can change most easily.
TITLES = {
    "too_dark": "The picture is too dark: use more light, or the flash.",
    "too_bright": "Parts of the picture are blinded by light: avoid glare and direct flash.",
    "too_blurred": "The picture is blurred: hold still, wait for the focus, clean the lens.",
    "not_skin": "This does not look like skin: point the camera at the skin.",
    "no_lesion": "No lesion was found: put the spot in the middle of the picture.",
    "cut_off": "The lesion is cut off: move until skin shows all around it.",
    "too_near": "The lesion fills the picture: move back.",
    "too_far": "The lesion is too small in the picture: move closer.",
    "several_lesions": "There are several lesions: show one at a time.",
    "hair": "Hair lies over the lesion: push it aside.",
}
UNSURE = "The outline of the spot is unsure: put the spot in the middle of the picture."

SIDE = 256  # px


@dataclass(frozen=True)
class Limit:
    """Of a measure: what good pictures usually have, where it is reported, and where it refuses."""

    usual: float
    reported: float
    refused: float | None = None  # None: never

    def score(self, value: float) -> float:
        """0 at `usual`, 1 at `reported`; worse is higher, whichever way the measure goes."""
        return (value - self.usual) / (self.reported - self.usual)


LIMITS = {
    # 99th percentile of the brightest channel. Not the mean: a well lit picture of dark skin has
    # a low one, and still some light in it.
    "too_dark": Limit(215.0, 82.0, 72.0),
    # Share that is burnt out to white, of the picture or of the lesion and its surroundings.
    "too_bright": Limit(0.0, 0.015, 0.06),
    # Bend of the grey values over 2 px by that over 6 px, in the direction where it is least: of
    # a blur by motion all others show little. Contrast divides out.
    "too_blurred": Limit(0.33, 0.245, 0.222),
    # Share of pixels that are not as warm as skin of any tone or a lesion is.
    "not_skin": Limit(0.0, 0.8, 0.8),
    # How unsure the segmenter is within its own outline; 1 where it drew none.
    "no_lesion": Limit(0.02, 0.09, 0.14),
    "cut_off": Limit(0.0, 0.1, 0.25),  # length on the frame, of the outline within the picture
    "too_near": Limit(0.15, 0.6),  # share of the picture that is lesion
    "too_far": Limit(0.5, 0.15, 0.05),  # extent of the lesion, of the picture's short side
    "several_lesions": Limit(0.0, 0.3),  # area of the second largest, of the largest
    "hair": Limit(0.02, 0.2),  # share of the lesion and its surroundings under dark lines
}


@dataclass(frozen=True)
class Quality:
    """ok : nothing speaks against the picture. usable : nothing so bad that it must be refused.

    reasons : keys of TITLES that are reported: those that refuse first, then in TITLES' order.
    refused : how many of `reasons` refuse.
    scores : of every reason that could be measured, 0 usual, from 1 on it is reported.
    """

    ok: bool
    reasons: tuple[str, ...]
    scores: dict[str, float]
    refused: int = 0

    @property
    def usable(self) -> bool:
        """Whether nothing is so bad that the picture must be refused."""
        return self.refused == 0


def assess(
    pixels: np.ndarray,
    mask: np.ndarray | None = None,
    probability: np.ndarray | None = None,
    hidden: np.ndarray | None = None,
) -> Quality:
    """Judge a picture.

    Parameters
    ----------
    pixels : uint8 (h, w, 3) RGB.
    mask : bool (h, w), the lesion; None: nothing is said about a lesion.
    probability : float32 (any size) 0 to 1, the segmenter's map of the same view; None: the mask
        is taken for certain, and `several_lesions` is counted in it.
    hidden : bool (h, w), where something lies upon the skin, which may cut the lesion off.

    Raises
    ------
    ValueError : a mask that does not fit the picture.
    """
    if mask is not None and mask.shape != pixels.shape[:2]:
        raise ValueError(f"a mask of {mask.shape} does not fit a picture of {pixels.shape}")
    height, width = reduced(pixels.shape)
    size = width, height
    pixels = thumbnail(pixels, height, width)
    # Detail is measured on the mean over the area, which colours do not need.
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    red, green, blue = cv2.split(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR))
    brightest, white = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    white = compare_number(white, 250, cv2.CMP_GE)
    measures = {
        "too_dark": _percentile(brightest, 0.99),
        "too_bright": cv2.countNonZero(white) / white.size,
        "too_blurred": _sharpness(gray),
    }
    if mask is not None:
        lesion = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        if hidden is not None:
            hidden = cv2.resize(hidden.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        measures |= _framing(lesion, mask, probability, hidden)
        around = _around(lesion)
        if around is not None:
            area = cv2.countNonZero(around)
            near = cv2.countNonZero(cv2.bitwise_and(white, around)) / area
            measures["too_bright"] = max(measures["too_bright"], near)
            lines = cv2.bitwise_and(_lines(gray), around)
            measures["hair"] = cv2.countNonZero(lines) / area
    scores = {name: LIMITS[name].score(value) for name, value in measures.items()}
    # Without fair light the colours say nothing.
    if scores["too_dark"] < 1 and scores["too_bright"] < 1:
        warm = cv2.bitwise_and(
            compare_number(cv2.subtract(red, green), 4, cv2.CMP_GT),
            compare_number(cv2.subtract(blue, red), 12, cv2.CMP_LT),
        )
        measures["not_skin"] = 1 - cv2.countNonZero(warm) / warm.size
        scores["not_skin"] = LIMITS["not_skin"].score(measures["not_skin"])
    scores = {name: scores[name] for name in TITLES if name in scores}
    refusing = [name for name in scores if _refuses(name, scores[name])]
    warnings = [name for name in scores if scores[name] >= 1 and name not in refusing]
    return Quality(not refusing and not warnings, (*refusing, *warnings), scores, len(refusing))


def titles(outlined: bool) -> dict[str, str]:
    """TITLES, for a picture on which a lesion is outlined, or none.

    The check asks how sure the outline is: where there is one, "no lesion" would contradict it.
    """
    return {**TITLES, "no_lesion": UNSURE} if outlined else TITLES


def reduced(shape: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of the copy on which a picture of `shape` (h, w, ...) is judged."""
    scale = min(1.0, SIDE / max(shape[:2]))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _refuses(name: str, score: float) -> bool:
    limit = LIMITS[name]
    return limit.refused is not None and score >= limit.score(limit.refused)


def _percentile(channel: np.ndarray, share: float) -> float:
    counts = np.cumsum(cv2.calcHist([channel], [0], None, [256], [0, 256]))
    return float(np.searchsorted(counts, share * counts[-1]))


def _sharpness(gray: np.ndarray) -> float:
    """Of uint8 (h, w); 0 of a picture too small to measure, which shows no detail either."""
    if min(gray.shape) < 32:
        return 0.0
    # In float: rounding would look like detail where a blur left none.
    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 1)
    least = np.inf
    for x, y in ((1, 0), (0, 1), (1, 1), (1, -1)):
        fine, coarse = (_bend(smooth[::2], x * step, y * step // 2) for step in (2, 6))
        least = min(least, fine / (coarse + 0.05))
    return float(least)


def _bend(image: np.ndarray, x: int, y: int) -> float:
    """Standard deviation of the second difference over (x, y) px, no more than (6, 3)."""
    height, width = image.shape

    def moved(times: int) -> np.ndarray:
        top, left = 3 + times * y, 6 + times * x
        return image[top : top + height - 6, left : left + width - 12]

    bend = cv2.scaleAdd(moved(0), -2, cv2.add(moved(1), moved(-1)))
    return float(np.sqrt(max(cv2.norm(bend) ** 2 / bend.size - cv2.mean(bend)[0] ** 2, 0)))


def _framing(
    lesion: np.ndarray,
    mask: np.ndarray,
    probability: np.ndarray | None,
    hidden: np.ndarray | None,
) -> dict[str, float]:
    """Measures of where the lesion lies; `lesion` and `hidden` uint8 (h, w) at the reduced size."""
    area = cv2.countNonZero(lesion)
    if not area:
        # A speck may vanish in the reduced copy.
        return {"too_far": 0.0} if mask.any() else {"no_lesion": 1.0}
    *_, width, height = cv2.boundingRect(lesion)
    measures = {
        "cut_off": _cut(lesion, area, hidden),
        "too_near": area / lesion.size,
        "too_far": max(width, height) / min(lesion.shape),
        "no_lesion": 0.0,
        "several_lesions": 0.0,
    }
    parts = lesion
    if probability is not None:
        size = lesion.shape[::-1]
        sure = probability
        if sure.shape != lesion.shape:
            sure = cv2.resize(sure, size, interpolation=cv2.INTER_LINEAR)
        measures["no_lesion"] = 1 - cv2.mean(sure, lesion)[0]
        parts = compare_number(sure, 0.5, cv2.CMP_GE)
    outlines, _ = cv2.findContours(parts, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    if len(outlines) > 1:
        *_, stats, _ = cv2.connectedComponentsWithStats(parts)
        areas = np.sort(stats[1:, cv2.CC_STAT_AREA])[::-1]
        if len(areas) > 1:  # a hole has an outline, too
            measures["several_lesions"] = float(areas[1] / areas[0])
    return measures


def _cut(lesion: np.ndarray, area: int, hidden: np.ndarray | None) -> float:
    frame = sum(int(line.sum()) for line in (lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]))
    inner = cv2.erode(lesion, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT)
    outline = area - cv2.countNonZero(inner)
    if hidden is not None:
        wide = cv2.dilate(hidden, np.ones((5, 5), np.uint8))
        frame += cv2.countNonZero(cv2.bitwise_and(lesion - inner, wide))
    return min(1.0, frame / max(1, outline))


def _around(lesion: np.ndarray) -> np.ndarray | None:
    """The lesion and a quarter of its size about it; None where there is none."""
    area = cv2.countNonZero(lesion)
    if not area:
        return None
    reach = 2 * max(2, round(0.25 * area**0.5)) + 1
    return cv2.dilate(lesion, np.ones((reach, reach), np.uint8)) * np.uint8(255)


def _lines(gray: np.ndarray) -> np.ndarray:
    """Thin lines darker than what is beside them, uint8 (h, w) 0 or 255."""
    depth = cv2.morphologyEx(gray, cv2.MORPH_BLACKHAT, np.ones((5, 5), np.uint8))
    return compare_number(depth, float(0.08 * cv2.mean(gray)[0] + 2), cv2.CMP_GT)
