"""From a lesion probability map to an outline and to measures after the ABCD rule of dermoscopy.

The rule: Stolz et al., Eur. J. Dermatol. 4, 1994; Nachbar et al., J. Am. Acad. Dermatol. 30,
1994. Asymmetry 0..2 axes, border 0..8 segments, colour 1..6 colours. What a trained eye judges
is here reduced to numbers. The thresholds are our own, those of border and colour set by eye on
HAM10000; none was checked against points given by dermatologists. The points describe the
picture and do not replace the eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dermedge.image.opencv import compare_number
from dermedge.image.preprocess import resized

KEPT_SHARE = 0.25  # of the largest part: smaller parts are taken for errors of the mask
MIN_SHARE = 2e-4  # of the picture, and never below 16 px: smaller is a speck
SIDE = 128  # px that the long side of the lesion gets before it is measured
ANGLES, RADII = 72, 20  # polar grid about the centroid

# An axis divides unequal halves where folding leaves this much: in shape, share of the lesion's
# area; in colour, mean CIELAB distance of the points that come to lie on each other.
SHAPE_UNEQUAL = 0.12
COLOR_UNEQUAL = 10.0
# A segment ends abruptly where CIELAB changes this much within a fifth of the lesion's radius.
ABRUPT = 12.0
COLOR_SHARE = 0.05  # of the lesion that a colour must cover to be counted
SKIN = (14.0, 16.0)  # a, b of CIELAB that the skin around the lesion is moved to
COLORS = ("white", "red", "light brown", "dark brown", "blue-gray", "black")


@dataclass(frozen=True, eq=False)
class Lesion:
    """What was measured. Coordinates are px of the whole picture, pixel centres at integers.

    Where nothing was found: `found` False, an empty mask, no polygons, area 0, the rest None.
    """

    found: bool
    mask: np.ndarray  # bool (h, w), cleaned, at the size of the pixels that were given
    polygons: tuple[np.ndarray, ...] = ()  # outer outlines, float (n >= 3, 2) of x, y
    box: tuple[int, int, int, int] | None = None  # x, y, width, height
    area_px: float = 0.0
    centroid: tuple[float, float] | None = None  # x, y
    asymmetry: int | None = None  # 0..2 axes
    border: int | None = None  # 0..8 segments; of several outlines their mean, weighted by area
    color: int | None = None  # 1..6 colours
    diameter_mm: float | None = None  # longest extent of all outlines; None: no scale is known
    asymmetry_index: float | None = None  # 0 (folds onto itself) .. 1, of all outlines together
    border_irregularity: float | None = None  # 1 - 4 pi area / perimeter^2; 0 is a circle; of
    # several outlines their mean, weighted by area
    colors: tuple[str, ...] = ()  # those counted in `color`
    axis: float | None = None  # rad, x towards y: of the two axes at a right angle, modulo pi / 2


def measure(
    probability: np.ndarray,
    pixels: np.ndarray,
    threshold: float = 0.5,
    scale: float = 1.0,
    px_per_mm: float | None = None,
) -> Lesion:
    """Clean a lesion map and measure the lesion.

    Parameters
    ----------
    probability : float32 (any size) in 0..1, a map of the same view, or a bool mask (h, w).
    pixels : uint8 (h, w, 3) RGB, the picture.
    threshold : of the probability; at or above is lesion.
    scale : px of the whole picture per px of `pixels` (1 where it was not reduced).
    px_per_mm : px of the whole picture per millimetre, where known.

    Raises
    ------
    ValueError : shapes that do not fit, a scale that is not positive.
    """
    fits = probability.dtype != bool or pixels.shape == (*probability.shape, 3)
    if probability.ndim != 2 or not fits:
        raise ValueError(f"a map of {probability.shape} does not fit a picture of {pixels.shape}")
    if not scale > 0 or (px_per_mm is not None and not px_per_mm > 0):
        raise ValueError(f"scale and px_per_mm must be positive, got {scale} and {px_per_mm}")
    rows, columns = pixels.shape[:2]
    mask = np.zeros((rows, columns), bool)
    part, inside = _found(probability, threshold, (rows, columns))
    mask[part], contours = clean(inside, mask.size)
    if not contours:
        return Lesion(False, mask)
    contours = [
        contour + np.array((part[1].start, part[0].start), np.int32) for contour in contours
    ]
    # Between pixel centres at integers: the first px of `pixels` covers `scale` px of the whole.
    offset = (scale - 1) / 2
    points = np.concatenate(contours)[:, 0]
    x, y, width, height = cv2.boundingRect(points)
    area = np.count_nonzero(mask[part])
    near = _Near(mask, pixels, (x, y, width, height))
    unequal, index, axis = near.folded()
    colors = near.colors()
    border, irregularity = _border(near, mask, pixels, contours, axis)
    return Lesion(
        found=True,
        mask=mask,
        polygons=tuple(np.round(_outline(c) * scale + offset, 1) for c in contours),
        box=_scaled_box(x, y, width, height, scale),
        area_px=float(area) * scale * scale,
        centroid=(
            float(near.centroid[0] * scale + offset),
            float(near.centroid[1] * scale + offset),
        ),
        asymmetry=unequal,
        border=border,
        color=len(colors),
        diameter_mm=None if px_per_mm is None else _extent(points) * scale / px_per_mm,
        asymmetry_index=index,
        border_irregularity=irregularity,
        colors=colors,
        axis=axis,
    )


def _border(
    near: _Near,
    mask: np.ndarray,
    pixels: np.ndarray,
    contours: list[np.ndarray],
    axis: float,
) -> tuple[int, float]:
    """Segments that end abruptly (0 to 8) and irregularity (0 to 1), outline by outline.

    Both are of one outline by their definition: eight segments about its own centre, its own
    perimeter. Of several, each is measured alone and counts by its area.
    """
    if len(contours) == 1:
        return near.abrupt_segments(axis), near.irregularity()
    areas, measured = [], []
    for contour in contours:
        part = np.zeros(mask.shape, np.uint8)
        cv2.drawContours(part, [contour], -1, 1, cv2.FILLED)
        x, y, width, height = cv2.boundingRect(contour)
        own = _Near(part.view(bool), pixels, (x, y, width, height), mask)
        areas.append(np.count_nonzero(part))
        measured.append((own.abrupt_segments(axis), own.irregularity()))
    segments, irregularity = np.average(measured, axis=0, weights=areas)
    return int(np.floor(segments + 0.5)), float(irregularity)


def _found(
    probability: np.ndarray, threshold: float, shape: tuple[int, int]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Which part of a picture of `shape` holds all that is found, and what is, bool of that part.

    A map of another size is enlarged there alone, as `Placement.restore` would do it.
    """
    inside = probability if probability.dtype == bool else probability >= threshold
    x, y, width, height = cv2.boundingRect(inside.view(np.uint8))
    across, down = shape[1] / inside.shape[1], shape[0] / inside.shape[0]

    # Between a px of the map and its neighbours the values change evenly.
    def enlarge(first: int, last: int, scale: float, side: int) -> slice:
        return slice(int(max(0, first - 1) * scale), min(side, int(np.ceil((last + 1) * scale))))

    part = enlarge(y, y + height, down, shape[0]), enlarge(x, x + width, across, shape[1])
    if inside.shape == shape:
        return part, inside[part]
    left, top = part[1].start + 0.5, part[0].start + 0.5
    enlarged = cv2.warpAffine(
        probability,
        np.array([[1 / across, 0, left / across - 0.5], [0, 1 / down, top / down - 0.5]]),
        (part[1].stop - part[1].start, part[0].stop - part[0].start),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return part, enlarged >= threshold


def clean(mask: np.ndarray, whole: int | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Keep the largest part and others of a quarter of its size or more; fill holes.

    Returns the bool (h, w) mask and the outer contours of its parts, int (n, 1, 2) of x, y.
    `whole`: px of the picture, where the mask is of a part of it.
    """
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    if not outlines:
        return filled.astype(bool), []
    areas = np.array([_pixels(contour) for contour in outlines])
    least = max(KEPT_SHARE * areas.max(), MIN_SHARE * (whole or mask.size), 16)
    contours = [contour for contour, area in zip(outlines, areas, strict=True) if area >= least]
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return filled.view(bool), contours


def _pixels(contour: np.ndarray) -> float:
    """How many px a filled outline covers, after Pick's theorem: no image is walked through."""
    steps = len(contour) if len(contour) > 1 else 0
    return cv2.contourArea(contour) + steps / 2 + 1


def _outline(contour: np.ndarray) -> np.ndarray:
    epsilon = max(0.5, 0.001 * cv2.arcLength(contour, True))
    outline = cv2.approxPolyDP(contour, epsilon, True)[:, 0]
    if len(outline) < 3:  # a straight line of pixels
        x, y, width, height = cv2.boundingRect(contour)
        right, bottom = x + width - 1, y + height - 1
        outline = np.array([[x, y], [right, y], [right, bottom], [x, bottom]])
    return outline.astype(np.float64)


def _scaled_box(x: int, y: int, width: int, height: int, scale: float) -> tuple[int, int, int, int]:
    left, top = int(np.floor(x * scale)), int(np.floor(y * scale))
    right, bottom = int(np.ceil((x + width) * scale)), int(np.ceil((y + height) * scale))
    return left, top, right - left, bottom - top


def _extent(points: np.ndarray) -> float:
    hull = cv2.convexHull(points)[:, 0].astype(np.float64)
    # Each px reaches half a px beyond its centre on both sides.
    return float(np.sqrt(((hull[:, None] - hull[None]) ** 2).sum(axis=2)).max() + 1)


UNIT = np.arange(256, dtype=np.float32) * np.float32(1 / 255)  # of a byte, 0 to 1
# Polar grid: directions of its rays, weight of a cell by its area.
ANGLE = np.arange(ANGLES) * (2 * np.pi / ANGLES)
DISTANCE = ((np.arange(RADII) + 0.5) / RADII).astype(np.float32)
# Row k: where each angle comes to lie on folding about the axis k / 2.
MIRROR = (np.arange(ANGLES)[:, None] - np.arange(ANGLES)) % ANGLES


class _Near:
    """The lesion and its surroundings at a standard size.

    `centre` is that of the lesion in px of this size, `centroid` in px of what it was cut from;
    `mask` is uint8, 0 or 1, and `core` the part with all its 1; `half` is `rgb` at half the size.
    `others`, bool, are those beside it where `whole` is the mask of several outlines: no skin.
    """

    def __init__(
        self,
        mask: np.ndarray,
        pixels: np.ndarray,
        box: tuple[int, int, int, int],
        whole: np.ndarray | None = None,
    ):
        x, y, width, height = box
        margin = round(0.25 * max(width, height)) + 1
        part = (
            slice(max(0, y - margin), y + height + margin),
            slice(max(0, x - margin), x + width + margin),
        )
        scale = SIDE / max(width, height)
        size = tuple(max(1, round(side * scale)) for side in mask[part].shape)
        inside = resized(mask[part].view(np.uint8) * np.uint8(255), *size) > 127
        self.mask = (inside if inside.any() else np.ones_like(inside)).view(np.uint8)
        self.others = None
        if whole is not None:
            drawn = resized(whole[part].view(np.uint8) * np.uint8(255), *size) > 127
            self.others = drawn & (self.mask == 0)
        self.rgb = resized(pixels[part], *size)
        self.half = resized(pixels[part], *((side + 1) // 2 for side in size))
        x, y, width, height = cv2.boundingRect(self.mask)
        self.core = slice(y, y + height), slice(x, x + width)
        moments = cv2.moments(self.mask[self.core], binaryImage=True)
        self.area = moments["m00"]
        self.centre = x + moments["m10"] / self.area, y + moments["m01"] / self.area
        self.centroid = tuple(
            (centre + 0.5) * length / side - 0.5 + place.start
            for centre, length, side, place in zip(
                self.centre, mask[part].shape[::-1], size[::-1], part[::-1], strict=True
            )
        )

    def folded(self) -> tuple[int, float, float]:
        """Unequal axes (0 to 2), asymmetry of shape (0 to 1) and the first axis (rad).

        The lesion is folded about every axis through its centroid, on a polar grid. The rule lays
        two axes at a right angle so that they give the lowest asymmetry.
        """
        outlines, _ = cv2.findContours(
            self.mask[self.core], cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        corner = self.core[1].start - self.centre[0], self.core[0].start - self.centre[1]
        rim = np.concatenate(outlines)[:, 0] + np.array(corner, np.float32)
        reach = np.sqrt((rim**2).sum(axis=1).max()) + 1
        # At half the size, where pixel centres are at (x - 0.5) / 2.
        x, y = (
            ((middle - 0.5) / 2 + way * (reach / 2 * DISTANCE[:, None])).astype(np.float32)
            for middle, way in zip(self.centre, (np.cos(ANGLE), np.sin(ANGLE)), strict=True)
        )
        half = self.half.shape[1::-1]
        mask = cv2.resize(self.mask.astype(np.float32), half, interpolation=cv2.INTER_AREA)
        inside = cv2.remap(mask, x, y, cv2.INTER_LINEAR)
        smooth = cv2.GaussianBlur(_lab(self.half), (0, 0), SIDE / 80)
        colour = cv2.remap(smooth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

        # Every pair of angles lies on each other about one axis: all pairs at once, at each radius
        # as |a - b|^2 = -2 ab + a^2 + b^2, small numbers about their mean.
        colour -= np.array(cv2.mean(colour)[:3], np.float32)
        square = (colour**2).sum(axis=2, keepdims=True)
        one = np.ones_like(square)
        apart = np.concatenate([-2 * colour, square, one], axis=2) @ np.concatenate(
            [colour, one, square], axis=2
        ).transpose(0, 2, 1)
        np.sqrt(np.maximum(apart, 0, out=apart), out=apart)
        both = np.minimum(inside[:, :, None], inside[:, None])
        apart *= both
        steps = np.arange(ANGLES)
        shared, tint = (
            (DISTANCE @ cells.reshape(RADII, -1)).reshape(ANGLES, ANGLES)[steps, MIRROR].sum(axis=1)
            for cells in (both, apart)
        )
        shape = 1 - shared / (DISTANCE @ inside).sum()
        tint /= np.maximum(shared, 1e-6)
        cost = shape / SHAPE_UNEQUAL + tint / COLOR_UNEQUAL
        right = ANGLES // 2
        best = int(np.argmin(cost[:right] + cost[right:]))
        axes = [best, best + right]
        unequal = (shape[axes] > SHAPE_UNEQUAL) | (tint[axes] > COLOR_UNEQUAL)
        return int(unequal.sum()), float(shape[axes].mean().clip(0, 1)), best * np.pi / ANGLES

    def abrupt_segments(self, axis: float) -> int:
        """In how many of eight segments, the first from `axis` (rad) on, the pigment ends abruptly.

        Decided by the colours on both sides of the outline.
        """
        width = max(2.0, 0.1 * np.sqrt(self.area / np.pi))
        # What lies outside of the picture is neither lesion nor skin.
        reach = int(width) + 1
        rows, columns = (slice(max(0, s.start - reach), s.stop + reach) for s in self.core)
        mask = self.mask[rows, columns]
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        inner = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
        outer = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
        distance = inner + outer  # each is 0 where the other is not
        near = (distance > 0.5) & (distance <= width)
        if self.others is not None:
            near &= ~self.others[rows, columns]
        band = np.flatnonzero(near)
        y, x = np.divmod(band, mask.shape[1])
        angle = np.arctan2(y + (rows.start - self.centre[1]), x + (columns.start - self.centre[0]))
        segment = np.floor((angle - axis) / (np.pi / 4)).astype(int) % 8
        segment += 8 * mask.take(band)
        lab = _lab(self.rgb[rows, columns].reshape(-1, 3).take(band, axis=0)[None])[0]
        counts = np.bincount(segment, minlength=16)
        sums = np.stack([np.bincount(segment, values, minlength=16) for values in lab.T])
        outside, inside = np.split(sums / np.where(counts, counts, np.nan), 2, axis=1)
        change = np.sqrt(((inside - outside) ** 2).sum(axis=0))
        return int((change > ABRUPT).sum())  # a segment cut off by the frame is not a number

    def colors(self) -> tuple[str, ...]:
        """Which of the rule's six colours cover enough of the lesion.

        CIELAB bounds of our own, without a published source; only the six names are the rule's.
        The camera's colour cast is taken off by moving the skin around to `SKIN`; white is
        recognized against that skin, as the rule asks.
        """
        # Every second px each way is enough, but for a line between them.
        step = 2 if self.mask[::2, ::2].any() else 1
        inside = self.mask[::step, ::step].ravel()
        lab = _lab(self.rgb[::step, ::step]).reshape(-1, 3)
        around = lab.take(np.flatnonzero(inside == 0), axis=0)
        middle = len(around) // 2
        skin = np.partition(around, middle, axis=0)[middle] if middle > 5 else (70.0, *SKIN)
        lightness, a, b = lab.take(np.flatnonzero(inside), axis=0).T.copy()
        a, b = a + np.float32(SKIN[0] - skin[1]), b + np.float32(SKIN[1] - skin[2])
        tests = {
            "black": lightness < 22,
            "blue-gray": (b < 4) & (a < 14) & (lightness < 65),
            "white": (lightness > skin[0] + 4) & (a * a + b * b < SKIN[0] ** 2 + SKIN[1] ** 2),
            "red": (a > SKIN[0] + 10) & (a > 1.4 * b) & (lightness > 30),
            "dark brown": lightness < 42,
        }
        left = np.ones(lightness.shape, bool)
        shares = {}
        for name, test in tests.items():
            shares[name] = np.count_nonzero(left & test) / len(left)
            left &= ~test
        shares["light brown"] = np.count_nonzero(left) / len(left)
        return tuple(name for name in COLORS if shares[name] >= COLOR_SHARE)

    def irregularity(self) -> float:
        """1 - 4 pi area / perimeter^2, 0 to 1; 0 is a circle."""
        # A slight blur takes the steps of the pixel grid off the outline, which would lengthen it.
        mask = self.mask[self.core].astype(np.float32)
        padded = cv2.copyMakeBorder(mask, 8, 8, 8, 8, cv2.BORDER_CONSTANT)
        smooth = compare_number(cv2.GaussianBlur(padded, (0, 0), 2), 0.5, cv2.CMP_GE)
        contours, _ = cv2.findContours(smooth, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        area = perimeter = 0.0
        for contour in contours:
            # Chain code of the grid overestimates length; every fourth point follows the curve.
            points = contour[::4].copy() if len(contour) >= 24 else contour
            area += cv2.contourArea(contour)
            perimeter += cv2.arcLength(points, True)
        return float(np.clip(1 - 4 * np.pi * area / perimeter**2, 0, 1)) if perimeter else 0.0


def _lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB, float32, of uint8 (h, w, 3) RGB. The fewer px, the better: it is dear."""
    return cv2.cvtColor(cv2.LUT(rgb, UNIT), cv2.COLOR_RGB2Lab)
