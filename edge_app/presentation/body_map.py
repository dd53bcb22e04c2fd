"""The body map: a figure from the front and from the back, and the names of its regions.

A place is (view, x, y): x and y are 0..1 from the left and the top of a map that is half as wide as
it is high. Left and right in names are the person's own: from the front, the person's left side is
on the right of the picture. No Kivy in it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise

import cv2
import numpy as np

from edge_app.i18n.language import N_

ASPECT = 0.5  # width by height of the map
ROWS = 600  # px, height of the table in which regions are looked up
MASTER = 2000  # px, height of the picture that all others are made from
_preparing = threading.Lock()

# All lengths below are shares of the map's width: x from the figure's middle, to the person's left;
# y from the map's top, 0..2. A limb is a line of joints, each with the half-width there: towards
# the body, and away from it.
_HEAD = [
    (0.050, 0.000), (0.056, 0.030), (0.080, 0.062), (0.118, 0.077), (0.160, 0.079),
    (0.200, 0.075), (0.236, 0.062), (0.266, 0.042), (0.281, 0.019), (0.284, 0.000),
]  # fmt: skip
_TRUNK = [
    (0.240, 0.000), (0.245, 0.049), (0.300, 0.049), (0.338, 0.056), (0.362, 0.086),
    (0.382, 0.140), (0.404, 0.188), (0.440, 0.217), (0.500, 0.214), (0.560, 0.176),
    (0.630, 0.158), (0.710, 0.141), (0.780, 0.134), (0.845, 0.141), (0.910, 0.157),
    (0.970, 0.169), (1.030, 0.172), (1.060, 0.120), (1.072, 0.000),
]  # fmt: skip
_ARM = [
    (0.176, 0.452, 0.046, 0.046), (0.194, 0.500, 0.048, 0.048), (0.222, 0.580, 0.045, 0.044),
    (0.250, 0.670, 0.039, 0.039), (0.271, 0.745, 0.035, 0.034), (0.286, 0.800, 0.036, 0.039),
    (0.306, 0.875, 0.033, 0.038), (0.329, 0.960, 0.025, 0.028), (0.343, 1.015, 0.021, 0.022),
    (0.352, 1.050, 0.025, 0.026), (0.363, 1.100, 0.035, 0.033), (0.371, 1.135, 0.034, 0.030),
]  # fmt: skip
_FINGERS = [  # from the knuckle to the tip, and the half-width
    ((0.342, 1.120), (0.338, 1.216), 0.0098),
    ((0.361, 1.125), (0.366, 1.244), 0.0102),
    ((0.380, 1.122), (0.395, 1.232), 0.0100),
    ((0.393, 1.108), (0.421, 1.194), 0.0092),
]
_THUMB = ((0.336, 1.062), (0.300, 1.140), 0.0125)
_LEG = [
    (0.096, 0.960, 0.074, 0.074), (0.096, 1.040, 0.082, 0.080), (0.098, 1.120, 0.078, 0.075),
    (0.101, 1.220, 0.066, 0.064), (0.104, 1.320, 0.053, 0.051), (0.106, 1.390, 0.045, 0.043),
    (0.107, 1.440, 0.044, 0.043), (0.109, 1.500, 0.047, 0.049), (0.111, 1.560, 0.046, 0.050),
    (0.113, 1.640, 0.037, 0.038), (0.115, 1.720, 0.028, 0.028), (0.117, 1.780, 0.025, 0.025),
    (0.118, 1.815, 0.029, 0.028),
]  # fmt: skip
_FOOT = [
    (0.117, 1.790, 0.025, 0.025), (0.122, 1.840, 0.030, 0.028), (0.131, 1.885, 0.038, 0.037),
    (0.136, 1.914, 0.040, 0.040), (0.137, 1.924, 0.037, 0.038),
]  # fmt: skip
_TOES = [
    ((0.112, 1.912), (0.109, 1.942), 0.0130), ((0.129, 1.916), (0.129, 1.944), 0.0086),
    ((0.144, 1.916), (0.145, 1.939), 0.0080), ((0.156, 1.914), (0.159, 1.932), 0.0076),
    ((0.166, 1.908), (0.171, 1.922), 0.0074),
]  # fmt: skip
_EAR = (0.081, 0.180, 0.011, 0.026)  # its middle and its half axes

_SHOULDER, _ELBOW, _WRIST, _KNUCKLES = (0.196, 0.470), (0.278, 0.770), (0.343, 1.025), (0.369, 1.13)

# In the person's own left and right where there are two; all are words that
# `dermedge.metadata.region` knows.
_NAMES = {
    "front": {
        "top": (N_("top of the head"),),
        "forehead": (N_("forehead"),),
        "nose": (N_("nose"),),
        "lips": (N_("lips"),),
        "chin": (N_("chin"),),
        "eye": (N_("left eye"), N_("right eye")),
        "cheek": (N_("left cheek"), N_("right cheek")),
        "ear": (N_("left ear"), N_("right ear")),
        "neck": (N_("neck, front"),),
        "breastbone": (N_("breastbone"),),
        "shoulder": (N_("left shoulder, front"), N_("right shoulder, front")),
        "chest": (N_("left side of the chest"), N_("right side of the chest")),
        "upper abdomen": (N_("left upper abdomen"), N_("right upper abdomen")),
        "lower abdomen": (N_("left lower abdomen"), N_("right lower abdomen")),
        "flank": (N_("left flank"), N_("right flank")),
        "genitals": (N_("genital area"),),
        "upper arm": (N_("left upper arm, front"), N_("right upper arm, front")),
        "elbow": (N_("left elbow, front"), N_("right elbow, front")),
        "forearm": (N_("left forearm, front"), N_("right forearm, front")),
        "hand": (N_("left palm"), N_("right palm")),
        "fingers": (N_("left fingers, front"), N_("right fingers, front")),
        "thigh": (N_("left thigh, front"), N_("right thigh, front")),
        "knee": (N_("left knee"), N_("right knee")),
        "lower leg": (N_("left lower leg, front"), N_("right lower leg, front")),
        "foot": (N_("left foot"), N_("right foot")),
        "toes": (N_("left toes"), N_("right toes")),
    },
    "back": {
        "head": (N_("back of the head"),),
        "ear": (N_("back of the left ear"), N_("back of the right ear")),
        "neck": (N_("neck, back"),),
        "shoulder": (N_("left shoulder, back"), N_("right shoulder, back")),
        "upper back": (N_("left upper back"), N_("right upper back")),
        "upper spine": (N_("upper back, along the spine"),),
        "lower back": (N_("left lower back"), N_("right lower back")),
        "lower spine": (N_("lower back, along the spine"),),
        "buttock": (N_("left buttock"), N_("right buttock")),
        "upper arm": (N_("left upper arm, back"), N_("right upper arm, back")),
        "elbow": (N_("left elbow, back"), N_("right elbow, back")),
        "forearm": (N_("left forearm, back"), N_("right forearm, back")),
        "hand": (N_("back of the left hand"), N_("back of the right hand")),
        "fingers": (N_("left fingers, back"), N_("right fingers, back")),
        "thigh": (N_("left thigh, back"), N_("right thigh, back")),
        "knee": (N_("hollow of the left knee"), N_("hollow of the right knee")),
        "lower leg": (N_("left calf"), N_("right calf")),
        "foot": (N_("left heel"), N_("right heel")),
        "toes": (N_("left sole"), N_("right sole")),
    },
}
# Every name that `region` gives.
REGIONS = tuple(
    dict.fromkeys(n for view in _NAMES.values() for names in view.values() for n in names)
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
    known, table = list(_NAMES[view].values()), _table(view)
    if not (0 <= x <= 1 and 0 <= y <= 1):
        return None
    rows, columns = table.shape
    number = int(table[min(int(y * rows), rows - 1), min(int(x * columns), columns - 1)])
    if not number:
        return None
    names = known[number - 1]
    of_the_right = (x < 0.5) == (view == "front")
    return names[-1] if of_the_right else names[0]


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
    body, ink = (_windowed(layers, size, window) for layers in _master(view))
    line, ground = (np.array(color[:3], np.float32) * 255 for color in colors)
    share = ink[..., None].astype(np.float32) / 255
    rgba = np.empty((size[1], size[0], 4), np.uint8)
    rgba[..., :3] = np.round(ground + (line - ground) * share)
    rgba[..., 3] = body
    return rgba


def prepare() -> None:
    """Draw what is kept between calls: it takes too long for the screen's own thread."""
    with _preparing:
        for view in _NAMES:
            _table(view)
            _master(view)


def prepared() -> bool:
    return not _preparing.locked() and _master.cache_info().currsize == len(_NAMES)


@cache
def _master(view: str) -> tuple[tuple[np.ndarray, ...], ...]:
    """Coverage by the figure and by its lines, uint8 (MASTER, MASTER / 2), then halved and halved
    again for small sizes."""
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
    ink = np.round(255 * np.maximum(rim, lines * (0.34 / 255))).astype(np.uint8)
    return _downsampled(body), _downsampled(ink)


def _downsampled(layer: np.ndarray) -> tuple[np.ndarray, ...]:
    layers = [layer]
    while layers[-1].shape[0] > 100:
        layers.append(cv2.pyrDown(layers[-1]))
    return tuple(layers)


def _windowed(
    layers: tuple[np.ndarray, ...], size: tuple[int, int], window: tuple[float, float, float, float]
) -> np.ndarray:
    left, top, right, bottom = window
    widest = size[0] / (right - left)  # of the whole map at this size
    # The smallest layer that is not smaller: a larger one would flicker with each size.
    layer = next((it for it in reversed(layers) if it.shape[1] >= widest), layers[0])
    rows, columns = layer.shape
    across, down = widest / columns, size[1] / ((bottom - top) * rows)
    transform = np.array([[across, 0, -left * columns * across], [0, down, -top * rows * down]])
    transform[:, 2] += (np.array([across, down]) - 1) / 2
    return cv2.warpAffine(layer, transform, size, flags=cv2.INTER_LINEAR)


# ---------------------------------------------------------------------------- the figure


@cache
def _outline() -> tuple[np.ndarray, ...]:
    """The silhouette: closed polygons, float (n, 2), x from the map's left, in map widths."""
    scale = 640  # px by unit
    shape = (2 * scale, scale)
    mask: np.ndarray = np.zeros(shape, np.uint8)
    for polygon in (*_halves(), *(_limb(joints) for joints in (_ARM, _LEG))):
        _fill(mask, polygon, scale)
    mask = np.maximum(mask, mask[:, ::-1])
    # Rounds off where limbs meet the trunk, before there are fingers that it would web.
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (round(0.034 * scale) | 1,) * 2)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, disc)
    _fill(mask, _limb(_FOOT), scale)
    for start, end, radius in (*_FINGERS, _THUMB, *_TOES):
        _fill(mask, _limb([(*start, radius * 1.05, radius * 1.05), (*end, radius, radius)]), scale)
    x, y, across, down = _EAR
    angles = np.linspace(0, 2 * np.pi, 48)
    _fill(mask, np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1), scale)
    mask = np.maximum(mask, mask[:, ::-1])
    soft = cv2.GaussianBlur(mask, (0, 0), 0.0022 * scale)
    contours, _ = cv2.findContours((soft > 127).astype(np.uint8), cv2.RETR_CCOMP,
                                   cv2.CHAIN_APPROX_NONE)  # fmt: skip
    return tuple(_smooth(contour[:, 0] + 0.5) / scale for contour in contours if len(contour) > 20)


def _smooth(points: np.ndarray) -> np.ndarray:
    """A closed line without the steps of the pixels that it was found on."""
    kernel = cv2.getGaussianKernel(13, 2.5).ravel()
    padded = np.concatenate([points[-6:], points, points[:6]])
    smooth = [np.convolve(padded[:, axis], kernel, "valid") for axis in (0, 1)]
    return np.stack(smooth, axis=1)[::2]


def _halves() -> list[np.ndarray]:
    """Head and trunk, both sides, from the middle."""
    found = []
    for profile in (_HEAD, _TRUNK):
        half = _curve(np.array(profile))[:, ::-1]  # (x, y)
        found.append(np.concatenate([half, half[::-1] * (-1, 1)]))
    return found


def _limb(joints: Sequence[tuple[float, ...]]) -> np.ndarray:
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
            [(0.020, 0.392), (0.070, 0.384), (0.140, 0.404)],  # collarbone
            [(0.150, 0.560), (0.120, 0.598), (0.060, 0.606), (0.020, 0.590)],  # chest
            [(0.132, 0.955), (0.080, 1.005), (0.036, 1.052)],  # groin
            [(0.076, 1.400), (0.086, 1.424), (0.108, 1.432), (0.130, 1.420)],  # knee
        ],
        "back": [
            [(0.062, 0.470), (0.074, 0.540), (0.110, 0.590), (0.136, 0.560)],  # shoulder blade
            [(0.006, 1.060), (0.050, 1.082), (0.110, 1.070), (0.150, 1.036)],  # buttock
            [(0.068, 1.414), (0.100, 1.420), (0.134, 1.410)],  # hollow of the knee
            [(0.106, 1.876), (0.130, 1.868), (0.150, 1.876)],  # heel
        ],
    }[view]
    middle = {
        "front": [[(0.0, 0.440), (0.0, 0.580)], [(0.0, 0.838), (0.0, 0.850)]],
        "back": [[(0.0, 0.350), (0.0, 0.620), (0.0, 0.860)], [(0.0, 0.960), (0.0, 1.062)]],
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
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    # Whole numbers first: both halves are rounded alike.
    x, y = np.abs(2 * x + 1 - shape[1]) / (2 * shape[1]), (y + 0.5) / shape[1]
    return np.where(inside > 0, _numbers(view, x, y), 0).astype(np.uint8)


def _numbers(view: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The same for each place, x from the middle, as if all of the map were figure."""
    number = {part: n for n, part in enumerate(_NAMES[view], 1)}
    front = view == "front"
    found = np.zeros(x.shape, np.uint8)

    def mark(part: str, where: np.ndarray) -> None:
        found[where] = number[part]

    # The trunk is all that is neither head nor limb.
    arm = (x > 0.13) & (_right_of(x, y, (0.165, 0.36), (0.168, 0.52)) | (y > 0.52))
    arm &= _right_of(x, y, (0.168, 0.52), (0.20, 0.72)) | (y < 0.52)
    arm &= _right_of(x, y, (0.20, 0.72), (0.27, 1.25)) | (y < 0.72)
    groin, crease = [1.05, 1.045, 0.935], [1.085, 1.085, 1.02]
    leg = ~arm & (y > np.interp(x, [0.0, 0.036, 0.18], groin if front else crease))
    head = ~arm & (y < 0.345)

    if front:
        mark("lower abdomen", y > 0)
        mark("upper abdomen", y < 0.84)
        mark("flank", (y > 0.62) & (y < 0.90) & (x > 0.105))
        mark("genitals", (y > 0.985) & (x < 0.045))
        mark("chest", y < 0.62)
        mark("breastbone", (y < 0.60) & (x < 0.028))
        mark("neck", head)
        mark("chin", head & (y < 0.286))
        mark("cheek", head & (y < 0.258))
        mark("lips", head & (y > 0.232) & (y < 0.256) & (x < 0.032))
        mark("eye", head & (y > 0.155) & (y < 0.190) & (x < 0.066))
        mark("nose", head & (y > 0.160) & (y < 0.232) & (x < 0.018))
        mark("forehead", head & (y < 0.155))
        mark("top", head & (y < 0.105))
        mark("ear", head & (x > 0.073) & (y > 0.145) & (y < 0.215))
    else:
        mark("buttock", y > 0)
        mark("lower back", y < 0.90)
        mark("lower spine", (y < 0.90) & (x < 0.028))
        mark("upper back", y < 0.66)
        mark("upper spine", (y < 0.66) & (x < 0.028))
        mark("neck", head)
        mark("head", head & (y < 0.255))
        mark("ear", head & (x > 0.073) & (y > 0.145) & (y < 0.215))

    down = _along(x, y, _SHOULDER, _ELBOW, _WRIST, _KNUCKLES)  # 0 shoulder, 1 elbow, 2 wrist ...
    mark("shoulder", arm)
    mark("upper arm", arm & (down > 0.22))
    mark("elbow", arm & (down > 0.88))
    mark("forearm", arm & (down > 1.14))
    mark("hand", arm & (down > 2))
    mark("fingers", arm & ((down > 3) | ((down > 2.5) & (x < 0.322))))

    mark("thigh", leg)
    mark("knee", leg & (y > 1.355))
    mark("lower leg", leg & (y > 1.465))
    mark("foot", leg & (y > 1.800))
    mark("toes", leg & (y > (1.912 if front else 1.885)))
    return found


def _right_of(x: np.ndarray, y: np.ndarray, top, bottom) -> np.ndarray:
    """Whether a place lies on the outer side of a line."""
    share = (y - top[1]) / (bottom[1] - top[1])
    return x > top[0] + share * (bottom[0] - top[0])


def _along(x: np.ndarray, y: np.ndarray, *joints) -> np.ndarray:
    """How far down a limb a place lies: n at the n-th joint, beyond the last one above that."""
    best, found = np.full_like(x, np.inf), np.zeros_like(x)
    for n, ((left, top), (right, bottom)) in enumerate(pairwise(joints)):
        across, down = right - left, bottom - top
        share = ((x - left) * across + (y - top) * down) / (across**2 + down**2)
        last = n == len(joints) - 2
        held = np.clip(share, -np.inf if n == 0 else 0, np.inf if last else 1)
        apart = (x - left - held * across) ** 2 + (y - top - held * down) ** 2
        nearer = apart < best
        best[nearer], found[nearer] = apart[nearer], n + held[nearer]
    return found
