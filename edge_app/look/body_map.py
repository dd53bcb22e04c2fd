"""The body map: a figure from the front and from the back, and the names of its regions.

A place is (view, x, y): x and y are 0..1 from the left and the top of a map that is half as wide as
it is high. Left and right in names are the person's own: from the front, the person's left side is
on the right of the picture. No Kivy in it.
"""

from __future__ import annotations

from functools import cache, lru_cache

import cv2
import numpy as np

ASPECT = 0.5  # width by height of the map
ROWS = 800  # px, height of the table in which regions are looked up
MASTER = 2400  # px, height of the picture that all others are made from

# All lengths below are shares of the map's width: x from the figure's middle, to the person's left;
# y from the map's top, 0..2. A limb is a line of joints, each with the half-width there: towards
# the body, and away from it.
_HEAD = [
    (0.050, 0.000), (0.058, 0.034), (0.085, 0.064), (0.125, 0.078), (0.165, 0.079),
    (0.205, 0.074), (0.240, 0.062), (0.268, 0.042), (0.284, 0.018), (0.286, 0.000),
]  # fmt: skip
_TRUNK = [
    (0.250, 0.000), (0.255, 0.048), (0.305, 0.050), (0.345, 0.060), (0.372, 0.100),
    (0.392, 0.160), (0.418, 0.205), (0.462, 0.226), (0.515, 0.205), (0.565, 0.172),
    (0.640, 0.154), (0.715, 0.138), (0.780, 0.132), (0.845, 0.140), (0.910, 0.160),
    (0.970, 0.174), (1.030, 0.176), (1.060, 0.120), (1.072, 0.000),
]  # fmt: skip
_ARM = [
    (0.182, 0.425, 0.036, 0.036), (0.196, 0.470, 0.046, 0.042), (0.222, 0.560, 0.045, 0.043),
    (0.250, 0.660, 0.039, 0.040), (0.271, 0.740, 0.036, 0.035), (0.286, 0.800, 0.037, 0.039),
    (0.306, 0.880, 0.033, 0.037), (0.328, 0.965, 0.026, 0.028), (0.341, 1.015, 0.023, 0.024),
    (0.350, 1.050, 0.026, 0.028), (0.362, 1.100, 0.035, 0.033), (0.371, 1.135, 0.034, 0.030),
]  # fmt: skip
_FINGERS = [  # from the knuckle to the tip, and the half-width
    ((0.343, 1.125), (0.348, 1.205), 0.0105),
    ((0.362, 1.130), (0.371, 1.226), 0.0110),
    ((0.381, 1.128), (0.394, 1.216), 0.0108),
    ((0.394, 1.115), (0.414, 1.186), 0.0098),
]
_THUMB = ((0.338, 1.065), (0.306, 1.135), 0.0125)
_LEG = [
    (0.092, 0.960, 0.078, 0.078), (0.092, 1.040, 0.085, 0.084), (0.093, 1.130, 0.080, 0.078),
    (0.096, 1.230, 0.066, 0.068), (0.099, 1.330, 0.054, 0.055), (0.101, 1.390, 0.048, 0.047),
    (0.103, 1.440, 0.046, 0.046), (0.105, 1.500, 0.048, 0.052), (0.108, 1.560, 0.047, 0.052),
    (0.111, 1.640, 0.038, 0.040), (0.114, 1.720, 0.029, 0.030), (0.116, 1.780, 0.026, 0.027),
    (0.117, 1.815, 0.030, 0.029),
]  # fmt: skip
_FOOT = [
    (0.116, 1.790, 0.026, 0.026), (0.120, 1.840, 0.032, 0.030), (0.127, 1.885, 0.040, 0.040),
    (0.131, 1.915, 0.040, 0.042), (0.133, 1.932, 0.034, 0.038),
]  # fmt: skip
_TOES = [((0.104 + 0.0145 * n, 1.920), (0.104 + 0.0155 * n, 1.946 - 0.005 * n), r)
         for n, r in enumerate((0.0125, 0.0088, 0.0085, 0.0080, 0.0078))]  # fmt: skip
_EAR = (0.081, 0.180, 0.011, 0.026)  # its middle and its half axes

_SHOULDER, _ELBOW, _WRIST, _KNUCKLES = (0.196, 0.470), (0.278, 0.770), (0.343, 1.025), (0.369, 1.13)

# What is to the person's left and right bears 'left' for {}; all are words that
# `dermedge.metadata.region` knows.
_NAMES = {
    "front": (
        "top of the head", "forehead", "nose", "lips", "chin", "{} eye", "{} cheek", "{} ear",
        "neck, front", "breastbone", "{} shoulder, front", "{} side of the chest",
        "{} upper abdomen", "{} lower abdomen", "{} flank", "genital area",
        "{} upper arm, front", "{} elbow, front", "{} forearm, front", "{} palm",
        "{} fingers, front", "{} thigh, front", "{} knee", "{} lower leg, front", "{} foot",
        "{} toes",
    ),
    "back": (
        "back of the head", "back of the {} ear", "neck, back", "{} shoulder, back",
        "{} upper back", "upper back, along the spine", "{} lower back",
        "lower back, along the spine", "{} buttock", "{} upper arm, back", "{} elbow, back",
        "{} forearm, back", "back of the {} hand", "{} fingers, back", "{} thigh, back",
        "hollow of the {} knee", "{} calf", "{} heel", "{} sole",
    ),
}  # fmt: skip
SIDES = ("left", "right")
# Every name that `region` gives.
REGIONS = tuple(
    dict.fromkeys(
        name.format(side) for names in _NAMES.values() for name in names for side in SIDES
    )
)


def region(view: str, x: float, y: float) -> str | None:
    """The region, one of REGIONS, at a place of the map; None beside the figure.

    Parameters
    ----------
    view : 'front' or 'back'. x, y : 0..1 from the map's left and top.

    Raises
    ------
    KeyError : another view.
    """
    names, table = _NAMES[view], _table(view)
    if not (0 <= x <= 1 and 0 <= y <= 1):
        return None
    rows, columns = table.shape
    number = int(table[min(int(y * rows), rows - 1), min(int(x * columns), columns - 1)])
    if not number:
        return None
    of_the_right = (x < 0.5) == (view == "front")
    return names[number - 1].format(SIDES[of_the_right])


def nearest(view: str, x: float, y: float) -> tuple[float, float]:
    """The place on the figure next to (x, y), which may lie beside it."""
    rows, columns = _table(view).shape
    at = np.array([min(max(x, 0), 1) * columns, min(max(y, 0), 1) * rows])
    if region(view, x, y):
        return x, y
    down, across = np.nonzero(_table(view))
    centres = np.stack([across + 0.5, down + 0.5], axis=1)
    best = centres[((centres - at) ** 2).sum(axis=1).argmin()]
    return float(best[0] / columns), float(best[1] / rows)


@lru_cache(maxsize=12)
def paint(
    view: str,
    size: tuple[int, int],
    colors: tuple[tuple[float, ...], tuple[float, ...]],
    window: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
) -> np.ndarray:
    """The figure as uint8 (height, width, 4) RGBA, straight alpha; clear beside it.

    Parameters
    ----------
    view : 'front' or 'back'. size : (width, height), px.
    colors : of the lines and of the figure, each (r, g, b, ...) in 0..1.
    window : the part of the map that is shown: left, top, right, bottom, 0..1; it may reach over
        the map's edges.
    """
    body, ink = (_windowed(layer, size, window) for layer in _master(view))
    line, ground = (np.array(color[:3], np.float32) * 255 for color in colors)
    share = ink[..., None].astype(np.float32) / 255
    rgba = np.empty((size[1], size[0], 4), np.uint8)
    rgba[..., :3] = np.round(ground + (line - ground) * share)
    rgba[..., 3] = body
    return rgba


def prepare() -> None:
    """Draw what is kept between calls, in a fifth of a second: better not on the screen's thread."""
    for view in _NAMES:
        _table(view)
        _master(view)


@cache
def _master(view: str) -> tuple[np.ndarray, np.ndarray]:
    """Coverage by the figure and by its lines, uint8 (MASTER, MASTER / 2), for all sizes."""
    shape, scale = (MASTER, MASTER // 2), MASTER / 2

    def placed(points: np.ndarray) -> np.ndarray:
        return np.round((points * scale - 0.5) * 16).astype(np.int32)

    body, lines = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    cv2.fillPoly(body, [placed(polygon) for polygon in _outline()], 255, cv2.LINE_AA, 4)
    curves = [placed(line) for line in _lines(view)]
    cv2.polylines(lines, curves, False, 255, round(0.006 * scale), cv2.LINE_AA, 4)
    # Darker towards the edge: a body is round.
    small = cv2.resize(body, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    depth = cv2.distanceTransform((small > 127).astype(np.uint8), cv2.DIST_L2, 5)
    rim = np.clip(1 - depth / (0.030 * scale / 4), 0, 1) ** 2
    rim = cv2.resize(rim, shape[::-1], interpolation=cv2.INTER_LINEAR) * 0.20
    return body, np.round(255 * np.maximum(rim, lines * (0.34 / 255))).astype(np.uint8)


def _windowed(layer: np.ndarray, size: tuple[int, int], window) -> np.ndarray:
    rows, columns = layer.shape
    left, top, right, bottom = window
    across, down = size[0] / ((right - left) * columns), size[1] / ((bottom - top) * rows)
    if across < 1:  # blurred first, or the small picture would flicker with each size
        layer = cv2.GaussianBlur(layer, (0, 0), 0.45 / across)
    turn = np.array([[across, 0, -left * columns * across], [0, down, -top * rows * down]])
    turn[:, 2] += (np.array([across, down]) - 1) / 2
    return cv2.warpAffine(layer, turn, size, flags=cv2.INTER_LINEAR)


# ---------------------------------------------------------------------------- the figure


@cache
def _outline() -> tuple[np.ndarray, ...]:
    """The silhouette: closed polygons, float (n, 2), x from the map's left, in map widths."""
    scale = 600  # px by unit
    shape = (round(2 * scale), round(scale))
    mask = np.zeros(shape, np.uint8)
    for polygon in (*_halves(), *(_limb(joints) for joints in (_ARM, _LEG))):
        _fill(mask, polygon, scale)
    mask |= mask[:, ::-1]
    # Rounds off where limbs meet the trunk, before there are fingers that it would web.
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (round(0.05 * scale) | 1,) * 2)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, disc)
    _fill(mask, _limb(_FOOT), scale)
    for start, end, radius in (*_FINGERS, _THUMB, *_TOES):
        _fill(mask, _limb([(*start, radius * 1.05, radius * 1.05), (*end, radius, radius)]), scale)
    x, y, across, down = _EAR
    angles = np.linspace(0, 2 * np.pi, 48)
    _fill(mask, np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1), scale)
    mask |= mask[:, ::-1]
    soft = cv2.GaussianBlur(mask, (0, 0), 0.004 * scale)
    contours, _ = cv2.findContours((soft > 127).astype(np.uint8), cv2.RETR_CCOMP,
                                   cv2.CHAIN_APPROX_NONE)  # fmt: skip
    return tuple(_smooth(contour[:, 0] + 0.5) / scale for contour in contours if len(contour) > 20)


def _smooth(points: np.ndarray) -> np.ndarray:
    """A closed line without the steps of the pixels that it was found on."""
    kernel = cv2.getGaussianKernel(9, 2).ravel()
    padded = np.concatenate([points[-4:], points, points[:4]])
    smooth = [np.convolve(padded[:, axis], kernel, "valid") for axis in (0, 1)]
    return np.stack(smooth, axis=1)[::2]


def _halves() -> list[np.ndarray]:
    """Head and trunk, both sides, from the middle."""
    found = []
    for profile in (_HEAD, _TRUNK):
        half = _curve(np.array(profile))[:, ::-1]  # (x, y)
        found.append(np.concatenate([half, half[::-1] * (-1, 1)]))
    return found


def _limb(joints: list[tuple[float, ...]]) -> np.ndarray:
    """A line of joints with its widths as a closed polygon, round at both ends."""
    path = _curve(np.array(joints))
    middle, widths = path[:, :2], path[:, 2:]
    along = np.gradient(middle, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.stack([along[:, 1], -along[:, 0]], axis=1)  # away from the body
    inner, outer = middle - across * widths[:, :1], middle + across * widths[:, 1:]
    turn = np.linspace(0, np.pi, 16)[1:-1, None]
    caps = [
        end + (side * np.cos(turn) * radius + ahead * np.sin(turn) * radius)
        for end, side, ahead, radius in (
            (middle[-1], across[-1], along[-1], widths[-1].mean()),
            (middle[0], -across[0], -along[0], widths[0].mean()),
        )
    ]
    return np.concatenate([outer, caps[0], inner[::-1], caps[1]])


def _curve(points: np.ndarray, steps: int = 10) -> np.ndarray:
    """A Catmull-Rom spline through all of the points."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        parts.append(
            0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
                   + (3 * b - a - 3 * c + d) * t**3)
        )  # fmt: skip
    return np.concatenate([*parts, points[-1:]])


def _fill(mask: np.ndarray, polygon: np.ndarray, scale: float) -> None:
    placed = (polygon + (0.5, 0)) * scale - 0.5
    cv2.fillPoly(mask, [np.round(placed * 16).astype(np.int32)], 255, shift=4)


@cache
def _lines(view: str) -> tuple[np.ndarray, ...]:
    """What tells front from back: lines within the figure, float (n, 2), x from the map's left."""
    one_side = {
        "front": [
            [(0.018, 0.372), (0.070, 0.364), (0.150, 0.388)],  # collarbone
            [(0.150, 0.560), (0.120, 0.598), (0.060, 0.606), (0.020, 0.590)],  # chest
            [(0.128, 0.960), (0.075, 1.005), (0.034, 1.040)],  # groin
            [(0.066, 1.392), (0.078, 1.424), (0.104, 1.434), (0.130, 1.420)],  # knee
        ],
        "back": [
            [(0.062, 0.470), (0.074, 0.540), (0.110, 0.590), (0.136, 0.560)],  # shoulder blade
            [(0.006, 1.060), (0.050, 1.082), (0.110, 1.070), (0.150, 1.036)],  # buttock
            [(0.068, 1.414), (0.100, 1.420), (0.134, 1.410)],  # hollow of the knee
            [(0.104, 1.880), (0.130, 1.872), (0.152, 1.880)],  # heel
        ],
    }[view]
    middle = {
        "front": [[(0.0, 0.420), (0.0, 0.590)], [(-0.004, 0.842), (0.0, 0.852), (0.004, 0.842)]],
        "back": [[(0.0, 0.330), (0.0, 0.620), (0.0, 0.870)], [(0.0, 0.960), (0.0, 1.062)]],
    }[view]
    curves = [_curve(np.array(line)) for line in (*one_side, *middle)]
    mirrored = [curve * (-1, 1) for curve in curves[: len(one_side)]]
    return tuple(curve + (0.5, 0) for curve in (*curves, *mirrored))


# ---------------------------------------------------------------------------- regions


@cache
def _table(view: str) -> np.ndarray:
    """Number of the region's name from 1, 0 beside the figure: uint8 (ROWS, ROWS / 2)."""
    shape = (ROWS, ROWS // 2)
    inside = np.zeros(shape, np.uint8)
    placed = [np.round((p * shape[1] - 0.5) * 16).astype(np.int32) for p in _outline()]
    cv2.fillPoly(inside, placed, 1, shift=4)
    inside |= inside[:, ::-1]
    y, x = np.mgrid[: shape[0], : shape[1]]
    x, y = np.abs((x + 0.5) / shape[1] - 0.5), (y + 0.5) / shape[1]
    return np.where(inside > 0, _numbers(view, x, y), 0).astype(np.uint8)


def _numbers(view: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The same for each place, x from the middle, as if all of the map were figure."""
    number = {name: n for n, name in enumerate(_NAMES[view], 1)}
    front = view == "front"
    found = np.zeros(x.shape, np.uint8)

    def mark(name: str, where: np.ndarray) -> None:
        found[where] = number[name]

    # The trunk is all that is neither head nor limb.
    arm = (x > 0.13) & (_right_of(x, y, (0.165, 0.36), (0.168, 0.52)) | (y > 0.52))
    arm &= _right_of(x, y, (0.168, 0.52), (0.20, 0.72)) | (y < 0.52)
    arm &= _right_of(x, y, (0.20, 0.72), (0.27, 1.25)) | (y < 0.72)
    leg = ~arm & (y > np.interp(x, [0.0, 0.04, 0.18], [1.05, 1.035, 0.955]))
    if not front:
        leg = ~arm & (y > np.interp(x, [0.0, 0.05, 0.18], [1.075, 1.085, 1.03]))
    head = ~arm & (y < 0.345)

    if front:
        mark("{} lower abdomen", y > 0)
        mark("{} upper abdomen", y < 0.84)
        mark("{} flank", (y > 0.62) & (y < 0.90) & (x > np.interp(y, [0.62, 0.9], [0.105, 0.105])))
        mark("genital area", (y > 0.985) & (x < 0.045))
        mark("{} side of the chest", y < 0.62)
        mark("breastbone", (y < 0.60) & (x < 0.028))
        mark("neck, front", head)
        mark("chin", head & (y < 0.286))
        mark("{} cheek", head & (y < 0.258))
        mark("lips", head & (y > 0.232) & (y < 0.256) & (x < 0.032))
        mark("{} eye", head & (y > 0.155) & (y < 0.190) & (x < 0.066))
        mark("nose", head & (y > 0.160) & (y < 0.232) & (x < 0.018))
        mark("forehead", head & (y < 0.155))
        mark("top of the head", head & (y < 0.105))
        mark("{} ear", head & (x > 0.073) & (y > 0.145) & (y < 0.215))
    else:
        mark("{} buttock", y > 0)
        mark("{} lower back", y < 0.90)
        mark("lower back, along the spine", (y < 0.90) & (x < 0.028))
        mark("{} upper back", y < 0.66)
        mark("upper back, along the spine", (y < 0.66) & (x < 0.028))
        mark("neck, back", head)
        mark("back of the head", head & (y < 0.255))
        mark("back of the {} ear", head & (x > 0.073) & (y > 0.145) & (y < 0.215))

    down = _along(x, y, _SHOULDER, _ELBOW, _WRIST, _KNUCKLES)  # 0 shoulder, 1 elbow, 2 wrist ...
    way = "front" if front else "back"
    mark(f"{{}} shoulder, {way}", arm)
    mark(f"{{}} upper arm, {way}", arm & (down > 0.22))
    mark(f"{{}} elbow, {way}", arm & (down > 0.88))
    mark(f"{{}} forearm, {way}", arm & (down > 1.14))
    mark("{} palm" if front else "back of the {} hand", arm & (down > 2))
    mark(f"{{}} fingers, {way}", arm & ((down > 3) | ((down > 2.5) & (x < 0.322))))

    mark(f"{{}} thigh, {way}", leg)
    mark("{} knee" if front else "hollow of the {} knee", leg & (y > 1.355))
    mark("{} lower leg, front" if front else "{} calf", leg & (y > 1.465))
    mark("{} foot" if front else "{} heel", leg & (y > 1.800))
    mark("{} toes" if front else "{} sole", leg & (y > (1.912 if front else 1.885)))
    return found


def _right_of(x: np.ndarray, y: np.ndarray, top, bottom) -> np.ndarray:
    """Whether a place lies on the outer side of a line."""
    share = (y - top[1]) / (bottom[1] - top[1])
    return x > top[0] + share * (bottom[0] - top[0])


def _along(x: np.ndarray, y: np.ndarray, *joints) -> np.ndarray:
    """How far down a limb a place lies: n at the n-th joint, beyond the last one above that."""
    points = np.stack([x, y], axis=-1)
    best, found = np.full(x.shape, np.inf), np.zeros(x.shape)
    for n, (start, end) in enumerate(zip(joints, joints[1:], strict=False)):
        start, end = np.array(start), np.array(end)
        share = (points - start) @ (end - start) / ((end - start) @ (end - start))
        last = n == len(joints) - 2
        held = np.clip(share, -np.inf if n == 0 else 0, np.inf if last else 1)
        apart = np.linalg.norm(points - (start + held[..., None] * (end - start)), axis=-1)
        nearer = apart < best
        best, found = np.where(nearer, apart, best), np.where(nearer, n + held, found)
    return found
