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

KEPT_SHARE = 0.25  # of the largest part: smaller parts are taken for errors of the mask
MIN_SHARE = 2e-4  # of the picture, and never below 16 px: smaller is a speck
SIDE = 128  # px that the long side of the lesion gets before it is measured
ANGLES, RADII = 72, 40  # polar grid about the centroid

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
    mask: np.ndarray  # bool (h, w), cleaned, at the size of the map that was given
    polygons: tuple[np.ndarray, ...] = ()  # outer outlines, float (n >= 3, 2) of x, y
    box: tuple[int, int, int, int] | None = None  # x, y, width, height
    area_px: float = 0.0
    centroid: tuple[float, float] | None = None  # x, y
    asymmetry: int | None = None  # 0..2 axes
    border: int | None = None  # 0..8 segments
    color: int | None = None  # 1..6 colours
    diameter_mm: float | None = None  # longest extent; None where no scale is known
    asymmetry_index: float | None = None  # 0 (folds onto itself) .. 1
    border_irregularity: float | None = None  # 1 - 4 pi area / perimeter^2; 0 is a circle
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
    probability : float (h, w) in 0..1, or a bool mask.
    pixels : uint8 (h, w, 3) RGB, the picture at the same size.
    threshold : of the probability; at or above is lesion.
    scale : px of the whole picture per px of `pixels` (1 where it was not reduced).
    px_per_mm : px of the whole picture per millimetre, where known.

    Raises
    ------
    ValueError : shapes that do not fit, a scale that is not positive.
    """
    if probability.ndim != 2 or pixels.shape != (*probability.shape, 3):
        raise ValueError(f"a map of {probability.shape} does not fit a picture of {pixels.shape}")
    if not scale > 0 or (px_per_mm is not None and not px_per_mm > 0):
        raise ValueError(f"scale and px_per_mm must be positive, got {scale} and {px_per_mm}")
    mask, contours = clean(probability if probability.dtype == bool else probability >= threshold)
    if not contours:
        return Lesion(False, mask)
    # Between pixel centres at integers: the first px of `pixels` covers `scale` px of the whole.
    offset = (scale - 1) / 2
    points = np.concatenate(contours)[:, 0]
    x, y, width, height = cv2.boundingRect(points)
    inside = mask[y : y + height, x : x + width].astype(np.uint8)
    moments = cv2.moments(inside, binaryImage=True)
    area = moments["m00"]
    centroid = (moments["m10"] + x * area) / area, (moments["m01"] + y * area) / area
    near = _near(mask, pixels, (x, y, width, height))
    polar = _Polar(*near)
    hull = cv2.convexHull(points)[:, 0].astype(np.float64)
    # Each px reaches half a px beyond its centre on both sides.
    extent = np.sqrt(((hull[:, None] - hull[None]) ** 2).sum(axis=2)).max() + 1
    colors = _colors(*near)
    return Lesion(
        found=True,
        mask=mask,
        polygons=tuple(np.round(_outline(c) * scale + offset, 1) for c in contours),
        box=_scaled_box(x, y, width, height, scale),
        area_px=float(area) * scale * scale,
        centroid=(centroid[0] * scale + offset, centroid[1] * scale + offset),
        asymmetry=polar.unequal_axes,
        border=_abrupt_segments(*near, polar.axis),
        color=len(colors),
        diameter_mm=None if px_per_mm is None else float(extent * scale / px_per_mm),
        asymmetry_index=polar.index,
        border_irregularity=_irregularity(near[0]),
        colors=colors,
        axis=float(polar.axis),
    )


def clean(mask: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Keep the largest part and others of a quarter of its size or more; fill holes.

    Returns the bool (h, w) mask and the outer contours of its parts, int (n, 1, 2) of x, y.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    if not found:
        return filled.astype(bool), []
    areas = np.array([_pixels(contour) for contour in found])
    least = max(KEPT_SHARE * areas.max(), MIN_SHARE * mask.size, 16)
    contours = [contour for contour, area in zip(found, areas, strict=True) if area >= least]
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


def _near(mask: np.ndarray, pixels: np.ndarray, box) -> tuple[np.ndarray, np.ndarray]:
    """The lesion and its surroundings at a standard size: bool mask and float32 CIELAB."""
    x, y, width, height = box
    margin = round(0.25 * max(width, height)) + 1
    rows = slice(max(0, y - margin), y + height + margin)
    columns = slice(max(0, x - margin), x + width + margin)
    scale = SIDE / max(width, height)
    inside = mask[rows, columns].astype(np.float32)
    size = tuple(max(1, round(side * scale)) for side in inside.shape[::-1])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(inside, size, interpolation=how) >= 0.5
    colour = cv2.resize(pixels[rows, columns], size, interpolation=how)
    lab = cv2.cvtColor(colour.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return (small if small.any() else np.ones_like(small)), lab


class _Polar:
    """The lesion folded about every axis through its centroid, on a polar grid.

    The rule lays two axes at a right angle so that they give the lowest asymmetry.
    """

    def __init__(self, mask: np.ndarray, lab: np.ndarray):
        ys, xs = np.nonzero(mask)
        centre = xs.mean(), ys.mean()
        radius = np.hypot(xs - centre[0], ys - centre[1]).max() + 1
        angle = np.arange(ANGLES)[:, None] * (2 * np.pi / ANGLES)
        distance = (np.arange(RADII) + 0.5) * radius / RADII
        map_x = (centre[0] + np.cos(angle) * distance).astype(np.float32)
        map_y = (centre[1] + np.sin(angle) * distance).astype(np.float32)
        inside = cv2.remap(mask.astype(np.float32), map_x, map_y, cv2.INTER_LINEAR)
        smooth = cv2.GaussianBlur(lab, (0, 0), SIDE / 40)
        colour = cv2.remap(smooth, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        # Row k of `mirror`: where each angle comes to lie on folding about the axis k / 2.
        steps = np.arange(ANGLES)
        mirror = (steps[:, None] - steps[None]) % ANGLES
        weight = distance / radius  # of a cell of the grid, by its area
        folded = inside[mirror]
        both = np.minimum(inside, folded) * weight
        total = 2 * (inside * weight).sum()
        shape = (np.abs(inside - folded) * weight).sum(axis=(1, 2)) / total
        planes = np.ascontiguousarray(colour.transpose(2, 0, 1))
        apart = np.sqrt(sum((plane - plane[mirror]) ** 2 for plane in planes))
        tint = (apart * both).sum(axis=(1, 2)) / np.maximum(both.sum(axis=(1, 2)), 1e-6)
        cost = shape / SHAPE_UNEQUAL + tint / COLOR_UNEQUAL
        half = ANGLES // 2
        best = int(np.argmin(cost[:half] + cost[half:]))
        axes = [best, best + half]
        self.axis = best * np.pi / ANGLES  # rad
        self.index = float(np.clip(shape[axes].mean(), 0, 1))
        self.unequal_axes = int(
            ((shape[axes] > SHAPE_UNEQUAL) | (tint[axes] > COLOR_UNEQUAL)).sum()
        )


def _abrupt_segments(mask: np.ndarray, lab: np.ndarray, axis: float) -> int:
    """In how many of eight segments the pigment ends abruptly."""
    radius = np.sqrt(mask.sum() / np.pi)
    padded = np.pad(mask.astype(np.uint8), 1)
    # What lies outside of the picture is neither lesion nor skin.
    inner = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    outer = cv2.distanceTransform(1 - mask.astype(np.uint8), cv2.DIST_L2, 5)
    width = max(2.0, 0.1 * radius)
    bands = [(d > 0.5) & (d <= width) for d in (inner, outer)]
    ys, xs = np.nonzero(mask)
    rows, columns = np.indices(mask.shape)
    angle = np.arctan2(rows - ys.mean(), columns - xs.mean()) - axis
    segment = np.floor(angle / (np.pi / 4)).astype(int) % 8
    means = []
    for band in bands:
        counts = np.bincount(segment[band], minlength=8)
        sums = [np.bincount(segment[band], lab[..., c][band], minlength=8) for c in range(3)]
        means.append(np.stack(sums, 1) / np.where(counts, counts, np.nan)[:, None])
    change = np.sqrt(((means[0] - means[1]) ** 2).sum(axis=1))
    return int((change > ABRUPT).sum())  # a segment cut off by the frame is not a number


def _colors(mask: np.ndarray, lab: np.ndarray) -> tuple[str, ...]:
    """Which of the rule's six colours cover enough of the lesion.

    CIELAB bounds of our own, without a published source; only the six names are the rule's. The
    camera's colour cast is taken off by moving the skin around to `SKIN`; white is told against
    that skin, as the rule asks.
    """
    skin = np.median(lab[~mask], axis=0) if (~mask).sum() >= 50 else np.array([70.0, *SKIN])
    lightness = lab[..., 0][mask]
    a, b = (lab[..., channel][mask] - skin[channel] + SKIN[channel - 1] for channel in (1, 2))
    tests = {
        "black": lightness < 22,
        "blue-gray": (b < 4) & (a < 14) & (lightness < 65),
        "white": (lightness > skin[0] + 4) & (np.hypot(a, b) < np.hypot(*SKIN)),
        "red": (a > SKIN[0] + 10) & (a > 1.4 * b) & (lightness > 30),
        "dark brown": lightness < 42,
        "light brown": np.ones(lightness.shape, bool),
    }
    left = np.ones(lightness.shape, bool)
    shares = {}
    for name, test in tests.items():
        shares[name] = float((left & test).mean())
        left &= ~test
    return tuple(name for name in COLORS if shares[name] >= COLOR_SHARE)


def _irregularity(mask: np.ndarray) -> float:
    # A slight blur takes the steps of the pixel grid off the outline, which would lengthen it.
    padded = np.pad(mask.astype(np.float32), 8)
    smooth = (cv2.GaussianBlur(padded, (0, 0), 2) >= 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(smooth, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    area = perimeter = 0.0
    for contour in contours:
        # Chain code of the grid overestimates length; every fourth point follows the curve.
        points = contour[::4].copy() if len(contour) >= 24 else contour
        area += cv2.contourArea(contour)
        perimeter += cv2.arcLength(points, True)
    return float(np.clip(1 - 4 * np.pi * area / perimeter**2, 0, 1)) if perimeter else 0.0
