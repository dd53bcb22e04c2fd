"""A coin: the outermost ellipse whose rim is seen all around."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dermedge.lesion.scale.plane import MAX_TILT, Scale, ScaleError, copy_to_search

# Diameters, mm, as the mints state them. Coins that are not round are left out.
COINS = {
    "1-cent": 16.25,
    "2-cent": 18.75,
    "5-cent": 21.25,
    "10-cent": 19.75,
    "20-cent": 22.25,
    "50-cent": 24.25,
    "1-euro": 23.25,
    "2-euro": 25.75,
    "us-penny": 19.05,
    "us-nickel": 21.21,
    "us-dime": 17.91,
    "us-quarter": 24.26,
    "uk-1p": 20.3,
    "uk-2p": 25.9,
    "uk-5p": 18.0,
    "uk-10p": 24.5,
}

_RAYS = 120
_SUPPORT = 0.85  # share of a rim that must be seen
_DOUBT = 0.55  # share of a rim that makes another circle about the same middle a rival
_STEP = 5.0  # CIELAB distance over a rim that counts as seen
_DARK = 12.0  # CIELAB lightness
_SMALLEST = 16.0  # px of the copy, radius: a pixel's error would matter in smaller ones


def find_coin(pixels: np.ndarray, reference: str, diameter: float) -> Scale:
    small, factor = copy_to_search(pixels)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    lab = cv2.GaussianBlur(lab, (0, 0), 1)
    rims = _distinct([_follow(lab, start) for start in _round_things(small)])
    sure = [rim for rim in rims if rim.support >= _SUPPORT and rim.minor >= _SMALLEST]
    # What lies in the dark is a dermoscope's round view: around a coin lies skin.
    if not sure or _dark_around(lab, max(sure, key=lambda rim: rim.major)):
        raise ScaleError("no coin was found: lay it beside the lesion, wholly in the picture")
    # A coin has circles within its rim: the outermost counts.
    coin = max(sure, key=lambda rim: rim.major)
    wider = (
        _follow(lab, replace(coin, major=coin.major * by, minor=coin.minor * by))
        for by in (1.08, 1.16, 1.26, 1.38, 1.5)
    )
    rims = _distinct([*rims, *wider])
    sure = [rim for rim in rims if rim.support >= _SUPPORT and rim.minor >= _SMALLEST]
    about = [rim for rim in rims if np.hypot(*(rim.centre - coin.centre)) < 0.35 * coin.major]
    coin = max((rim for rim in about if rim in sure), key=lambda rim: rim.major)
    if any(rim.major > 1.04 * coin.major and rim.support >= _DOUBT for rim in about):
        raise ScaleError("the coin's rim is not clear: use more light, or another ground")
    # A shadow's edge is round, too, but beside the coin; the circles upon it share its middle.
    beside = [rim for rim in about if np.hypot(*(rim.centre - coin.centre)) > 0.02 * coin.major]
    if any(rim in sure and rim.major > 0.85 * coin.major for rim in beside):
        raise ScaleError("the coin's shadow hides its rim: use softer light")
    if any(rim not in about for rim in sure):
        raise ScaleError("several round things are in the picture: show one coin")
    if coin.major > MAX_TILT * coin.minor:
        raise ScaleError("the picture is taken from the side: hold the camera straight above")
    # Px of the copy to those of the picture; pixel centres are at integers in both.
    centre = (coin.centre + 0.5) / factor - 0.5
    rotation = np.array([[np.cos(coin.angle), np.sin(coin.angle)],
                     [-np.sin(coin.angle), np.cos(coin.angle)]])  # fmt: skip
    axes = np.array([coin.major, coin.minor]) / factor
    to_mm = np.eye(3)
    to_mm[:2, :2] = np.diag(diameter / 2 / axes) @ rotation
    to_mm[:2, 2] = -to_mm[:2, :2] @ centre
    cover = np.zeros(pixels.shape[:2], np.uint8)
    ellipse = (tuple(centre), tuple(2.04 * axes), float(np.degrees(coin.angle)))
    cv2.ellipse(cover, ellipse, 1, cv2.FILLED)
    return Scale(reference, to_mm, cover > 0)


@dataclass(frozen=True, eq=False)
class _Rim:
    centre: np.ndarray  # x, y
    major: float  # semi-axes, px
    minor: float
    angle: float  # of the major axis, rad
    support: float = 0.0  # share of the rays on which the edge was seen where it should be


def _distinct(rims: list[_Rim | None]) -> list[_Rim]:
    """Of those that are one edge, the best supported."""
    kept: list[_Rim] = []
    for rim in sorted(filter(None, rims), key=lambda rim: -rim.support):
        if not any(
            np.hypot(*(rim.centre - other.centre)) < 0.1 * other.major
            and abs(rim.major / other.major - 1) < 0.03
            for other in kept
        ):
            kept.append(rim)
    return kept


def _round_things(small: np.ndarray) -> list[_Rim]:
    """Ellipses to start from: by Hough's circles, and by pieces of edges."""
    gray = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), (0, 0), 1.5)
    short = min(gray.shape)
    least, most = max(_SMALLEST, 0.05 * short), 0.32 * short
    rims = []
    for strictness in (0.85, 0.6):
        circles = cv2.HoughCircles(
            gray, cv2.HOUGH_GRADIENT_ALT, 1.5, 8, param1=120, param2=strictness,
            minRadius=round(least), maxRadius=round(most),
        )  # fmt: skip
        for x, y, radius in circles[0][:12] if circles is not None else ():
            rims.append(_Rim(np.array([x, y], np.float64), float(radius), float(radius), 0.0))
    for high in (40, 100):
        edges = cv2.Canny(gray, high / 2, high)
        pieces, _ = cv2.findContours(edges, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        for piece in sorted(pieces, key=len, reverse=True)[:40]:
            if len(piece) < 3 * least:
                break
            (x, y), (first, second), degrees = cv2.fitEllipseDirect(piece)
            rim = _rim(x, y, first, second, degrees)
            if least <= rim.major <= most and rim.minor >= rim.major / 2:
                rims.append(rim)
    return rims


def _rim(x: float, y: float, first: float, second: float, degrees: float) -> _Rim:
    """From what OpenCV calls an ellipse: the full axes and the first one's direction."""
    if first < second:
        first, second, degrees = second, first, degrees + 90
    return _Rim(np.array([x, y]), first / 2, second / 2, float(np.radians(degrees)))


def _rays(rim: _Rim) -> np.ndarray:
    """From an ellipse's centre to its rim, all around: px, float (_RAYS, 2) of x, y."""
    angle = np.arange(_RAYS) * 2 * np.pi / _RAYS
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rotation = np.array([[np.cos(rim.angle), -np.sin(rim.angle)],
                     [np.sin(rim.angle), np.cos(rim.angle)]])  # fmt: skip
    return circle * (rim.major, rim.minor) @ rotation.T  # type: ignore[no-any-return]


def _dark_around(lab: np.ndarray, rim: _Rim) -> bool:
    """Whether nearly all that lies about it is black."""
    x, y = (rim.centre + 1.25 * _rays(rim)).astype(np.float32).T[:, None]
    lightness = cv2.remap(lab, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[..., 0]
    return float(np.percentile(lightness, 80)) < _DARK


def _follow(lab: np.ndarray, start: _Rim) -> _Rim | None:
    """Move an ellipse to the edge near it; None where it leaves the picture or loses the edge."""
    rim = start
    for reach in (0.14, 0.07, 0.05):
        rays = _rays(rim)
        reach = max(reach, 4 / rim.minor)  # of a small coin some px, too
        share = np.linspace(1 - reach, 1 + reach, 57)
        x, y = (rim.centre[k] + rays[:, k, None] * share for k in (0, 1))
        margin = 1
        if (
            min(x.min(), y.min()) < margin
            or x.max() > lab.shape[1] - 1 - margin
            or y.max() > lab.shape[0] - 1 - margin
        ):
            return None
        values = cv2.remap(lab, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
        # Colour step over about three px of the copy.
        half = max(1, round(1.5 / rim.minor / (share[1] - share[0])))
        step = np.linalg.norm(values[:, 2 * half :] - values[:, : -2 * half], axis=2)
        best = step.argmax(axis=1)
        rows = np.arange(_RAYS)
        seen = step[rows, best] > _STEP
        if seen.sum() < _RAYS / 3:
            return None
        at = share[half : half + step.shape[1]][best]
        points = (rim.centre + rays * at[:, None])[seen].astype(np.float32)
        ellipse = _rim_of(points)
        if ellipse is None:
            return None
        off = _off(ellipse, points)
        close = np.abs(off) < max(0.03, 2.5 * np.median(np.abs(off)))
        if close.sum() < _RAYS / 3:
            return None
        fitted = _rim_of(points[close])
        if fitted is None or fitted.minor < 0.5 * fitted.major:
            return None
        rim = fitted
    off = np.abs(_off(rim, points))
    support = (off < max(0.012, 0.6 / rim.major)).sum() / _RAYS
    return _Rim(rim.centre, rim.major, rim.minor, rim.angle, float(support))


def _rim_of(points: np.ndarray) -> _Rim | None:
    (x, y), (first, second), degrees = cv2.fitEllipseDirect(points)
    if not np.isfinite([x, y, first, second]).all() or min(first, second) < 4:
        return None
    return _rim(x, y, first, second, degrees)


def _off(rim: _Rim, points: np.ndarray) -> np.ndarray:
    """How far points lie from an ellipse, in shares of its radius; outside is positive."""
    way = points - rim.centre
    along = way @ (np.cos(rim.angle), np.sin(rim.angle)) / rim.major
    across = way @ (-np.sin(rim.angle), np.cos(rim.angle)) / rim.minor
    distances: np.ndarray = np.hypot(along, across) - 1
    return distances
