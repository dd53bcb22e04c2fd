"""How large a picture's pixels are, by a known thing in it: printed card, coin or ruler.

The thing lies on the skin beside the lesion; its plane is taken for that of the lesion. A coin's
face lies its thickness above the skin, which makes it about 1 % too large at 15 cm. Where a thing
is not found beyond doubt nothing is said: a wrong size is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from dermedge import DISCLAIMER, UserError

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
REFERENCES = ("card", "ruler", *(f"coin-{kind}" for kind in COINS))

CARD = 64.0  # mm, side
HOLE = 15.0  # mm, radius about the card's middle
MARKER, MARGIN = 14.0, 3.0  # mm, side of a marker and its distance from the card's edge
IDS = (7, 19, 23, 41)  # of the markers, clockwise from the upper left
PAPERS = {"a4": (210.0, 297.0), "letter": (215.9, 279.4)}  # mm
MAX_TILT = 1.4  # longer by shorter side of what should be a square


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
        scale: float = 1 / np.sqrt(abs(np.linalg.det(_slope(self.to_mm, point))))
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


def find(pixels: np.ndarray, reference: str) -> Scale:
    """The scale of uint8 (h, w, 3) RGB by one of REFERENCES; ScaleError where it is not sure."""
    if reference not in REFERENCES:
        raise ScaleError(
            "no reference '{name}'; there are: {names}",
            code="reference",
            name=reference,
            names=", ".join(REFERENCES),
        )
    if reference == "card":
        return _find_card(pixels)
    if reference == "ruler":
        return _find_ruler(pixels)
    return _find_coin(pixels, reference, COINS[reference.removeprefix("coin-")])


# ------------------------------------------------------------------------------------------- card


def marker_corners() -> np.ndarray:
    """Float (4, 4, 2): corners of each marker in mm on the card, clockwise from the upper left."""
    near, far = MARGIN, CARD - MARGIN - MARKER
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * MARKER
    return np.array([square + at for at in ((near, near), (far, near), (far, far), (near, far))])


def marker_cells() -> list[tuple[float, float, float]]:
    """Black squares of the markers: left, top and side in mm on the card."""
    cell = MARKER / 6
    return [
        (corners[0][0] + column * cell, corners[0][1] + row * cell, cell)
        for number, corners in zip(IDS, marker_corners(), strict=True)
        for row, column in np.argwhere(
            cv2.aruco.generateImageMarker(_dictionary(), number, 6) == 0
        ).tolist()
    ]


def write_card(path: str | Path, paper: str = "a4") -> None:
    """Write the card as a PDF page of `paper` ('a4' or 'letter') in its true size; needs fpdf2."""
    from fpdf import FPDF, ViewerPreferences

    from dermedge.files import write_atomic

    width, height = PAPERS[paper]
    left, top = (width - CARD) / 2, 60.0
    pdf = FPDF(unit="mm", format=(width, height))
    # Printers shrink pages to their margins unless they are told not to.
    pdf.viewer_preferences = ViewerPreferences(print_scaling="None")
    pdf.set_title("dermedge size card")
    pdf.add_page()
    for x, y, side in marker_cells():
        # A hair wider than the cell, so that no white line shows between two of them.
        pdf.rect(left + x, top + y, side + 0.01, side + 0.01, style="F")
    pdf.set_line_width(0.1)
    pdf.set_dash_pattern(dash=1, gap=1)
    pdf.rect(left, top, CARD, CARD)
    pdf.circle(left + CARD / 2, top + CARD / 2, HOLE)
    pdf.set_dash_pattern()
    ruled = top + CARD + 14
    pdf.set_line_width(0.2)
    pdf.line(width / 2 - 25, ruled, width / 2 + 25, ruled)
    for x in (-25, 25):
        pdf.line(width / 2 + x, ruled - 2, width / 2 + x, ruled + 2)
    pdf.set_font("Helvetica", "B", 16)
    pdf.set_xy(25, 28)
    pdf.cell(width - 50, 8, "dermedge size card", align="C")
    pdf.set_font("Helvetica", "", 10)
    pdf.set_xy(25, ruled + 4)
    pdf.multi_cell(
        width - 50,
        5,
        "This line must be 50 mm long. If it is not, print again at 100 % (actual size).\n\n"
        "Cut along both dashed lines. Lay the card flat upon the skin, the lesion in the round "
        "hole, and take the picture from straight above with all four squares in it. Take a new "
        "card for each person.\n\n" + DISCLAIMER,
        align="C",
    )
    write_atomic(path, bytes(pdf.output()))


def _dictionary() -> cv2.aruco.Dictionary:
    return cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)


def _find_card(pixels: np.ndarray) -> Scale:
    options = cv2.aruco.DetectorParameters()
    options.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    detected, numbers, _ = cv2.aruco.ArucoDetector(_dictionary(), options).detectMarkers(gray)
    places = dict(zip(IDS, marker_corners(), strict=True))
    seen: dict[int, np.ndarray] = {}
    ids = [] if numbers is None else [int(number) for number in np.ravel(numbers)]
    for corners, number in zip(detected, ids):  # noqa: B905
        if number in seen:
            raise ScaleError("two size cards are in the picture: show one")
        if number in places:
            seen[number] = corners[0].astype(np.float64)
    if len(seen) < 3:
        raise ScaleError(
            "{seen} of the size card's four squares were found: lay the whole card flat about "
            "the lesion, in focus",
            code="card",
            seen=len(seen),
        )
    card = np.concatenate([places[number] for number in seen])
    image = np.concatenate(list(seen.values()))
    from_mm, _ = cv2.findHomography(card, image)
    projected = cv2.perspectiveTransform(card.reshape(-1, 1, 2), from_mm)[:, 0]
    side = np.sqrt(abs(np.linalg.det(_slope(from_mm, (CARD / 2, CARD / 2))))) * MARKER
    if np.sqrt(((projected - image) ** 2).sum(axis=1).mean()) > max(0.5, 0.02 * side):
        raise ScaleError("the size card is bent: lay it flat")
    _check_tilt(_slope(from_mm, (CARD / 2, CARD / 2)))
    outer = np.array([[0, 0], [CARD, 0], [CARD, CARD], [0, CARD]])
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    inner = CARD / 2 + HOLE * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    cover = np.zeros(gray.shape, np.uint8)
    for shape, value in ((outer, 1), (inner, 0)):
        points = cv2.perspectiveTransform(shape.reshape(-1, 1, 2).astype(np.float64), from_mm)
        cv2.fillPoly(cover, [np.rint(points).astype(np.int32)], value)
    return Scale("card", np.linalg.inv(from_mm), cover > 0)


def _slope(matrix: np.ndarray, point: Sequence[float] | np.ndarray) -> np.ndarray:
    """The (2, 2) derivative of a homography at a point."""
    x, y, w = matrix @ (point[0], point[1], 1.0)
    return np.array(
        [(matrix[0, :2] * w - x * matrix[2, :2]) / w**2,
         (matrix[1, :2] * w - y * matrix[2, :2]) / w**2]
    )  # fmt: skip


def _check_tilt(slope: np.ndarray) -> None:
    longer, shorter = np.linalg.svd(slope, compute_uv=False)
    if longer > MAX_TILT * shorter:
        raise ScaleError("the picture is taken from the side: hold the camera straight above")


# ------------------------------------------------------------------------------------------- coin

_WORK = 640  # px, long side of the copy on which coins and rulers are looked for
_RAYS = 120
_SUPPORT = 0.85  # share of a rim that must be seen
_DOUBT = 0.55  # share of a rim that makes another circle about the same middle a rival
_STEP = 5.0  # CIELAB distance over a rim that counts as seen
_SMALLEST = 16.0  # px of the copy, radius: a pixel's error would matter in smaller ones


def _find_coin(pixels: np.ndarray, reference: str, diameter: float) -> Scale:
    factor = min(1.0, _WORK / max(pixels.shape[:2]))
    small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    lab = cv2.GaussianBlur(lab, (0, 0), 1)
    rims = _distinct([_follow(lab, start) for start in _round_things(small)])
    sure = [rim for rim in rims if rim.support >= _SUPPORT and rim.minor >= _SMALLEST]
    if not sure:
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


def _follow(lab: np.ndarray, start: _Rim) -> _Rim | None:
    """Move an ellipse to the edge near it; None where it leaves the picture or loses the edge."""
    rim = start
    angle = np.arange(_RAYS) * 2 * np.pi / _RAYS
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for reach in (0.14, 0.07, 0.05):
        rotation = np.array([[np.cos(rim.angle), -np.sin(rim.angle)],
                         [np.sin(rim.angle), np.cos(rim.angle)]])  # fmt: skip
        rays = circle * (rim.major, rim.minor) @ rotation.T
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


# ------------------------------------------------------------------------------------------ ruler

_TICKS = 14  # least number of millimetres that must be seen
_LEAST = 4  # px of the copy, smallest spacing
_REGULAR = 0.4  # autocorrelation of a row of ticks at one and at two spacings
MAX_RANGE = 0.05  # by which the spacing may change along the ruler
_LONGER = 0.35  # autocorrelation of the ticks' lengths at five or ten


def _find_ruler(pixels: np.ndarray) -> Scale:
    """Ticks at one spacing, every fifth or tenth longer: nothing else on skin has both."""
    factor = min(1.0, _WORK / max(pixels.shape[:2]))
    small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    # Neither slow changes of the light nor its strength are ticks.
    detail = gray - cv2.GaussianBlur(gray, (0, 0), 12)
    detail /= np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 24) + 4)
    rows = [row for angle in range(0, 180, 3) for row in _regular_rows(detail, float(angle))]
    rows.sort(key=lambda row: -row.regular)
    pieces = [piece for row in rows[:16] if len(piece := _spacings(detail, row)) > 2]
    if len(pieces) < 2:  # one row alone may be a chance
        raise ScaleError(
            "no ruler was found: show 2 cm of it or more, its millimetre marks sharp and dark"
        )
    spacing = float(np.median(np.concatenate(pieces)[:, 1]))
    place, apart = max(pieces, key=len).T
    # A camera that leans sees the near marks farther apart; a line evens out the pieces' errors.
    trend = np.polyfit(place, apart, 1)[0] * np.ptp(place)
    if any(abs(np.median(piece[:, 1]) / spacing - 1) > 0.05 for piece in pieces):
        raise ScaleError("the ruler's marks are not clear: use more light, and come closer")
    if abs(trend) > MAX_RANGE * spacing:
        raise ScaleError("the ruler is seen from the side: hold the camera straight above")
    mm = factor / spacing  # of a px
    return Scale("ruler", np.diag([mm, mm, 1.0]), np.zeros(pixels.shape[:2], bool))


@dataclass(frozen=True)
class _Row:
    """A regular row of marks, in the picture rotated by `angle` degrees."""

    regular: float  # 0 to 1
    angle: float
    middle: int  # y
    high: int  # px
    start: int  # x
    length: int
    spacing: float  # px


def _rotated(image: np.ndarray, degrees: float) -> np.ndarray:
    """The picture rotated about its middle, nothing of it lost; 0 beyond it."""
    height, width = image.shape
    matrix: np.ndarray = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    box = np.abs(matrix[:, :2]) @ (width, height)
    matrix[:, 2] += (box - (width, height)) / 2
    return cv2.warpAffine(image, matrix, tuple(int(np.ceil(v)) for v in box))


def _regular_rows(detail: np.ndarray, angle: float) -> list[_Row]:
    """The most regular row of each height and length, at this angle."""
    rotated = _rotated(detail, angle)
    rows = []
    for high in (8, 24):
        strips = cv2.blur(rotated, (1, high))[high // 2 :: high // 2]
        for length in sorted({min(256, rotated.shape[1]), rotated.shape[1]}):
            for start in range(0, rotated.shape[1] - length + 1, 96):
                part = strips[:, start : start + length]
                part = part - part.mean(axis=1, keepdims=True)
                power = np.abs(np.fft.rfft(part, 2 * length, axis=1)) ** 2
                most = length // 6
                same = np.fft.irfft(power, axis=1)[:, : 2 * most + 2]
                # What is flat is regular by chance.
                same /= np.maximum(same[:, :1], 0.02 * length)
                same *= length / (length - np.arange(same.shape[1]))
                lag = np.arange(_LEAST, most)
                between = np.maximum(same[:, lag // 2], same[:, (lag + 1) // 2])
                regular = np.minimum(same[:, lag], same[:, 2 * lag]) - np.maximum(between, 0)
                top = (same[:, lag] >= same[:, lag - 1]) & (same[:, lag] >= same[:, lag + 1])
                regular = np.where(top, regular, 0)
                best = regular.max(axis=1)
                row = int(best.argmax())
                if best[row] < _REGULAR:
                    continue
                # Five spacings are regular, too: the least that is nearly as regular.
                first = int(np.argmax(regular[row] >= 0.7 * best[row]))
                middle = high // 2 + row * (high // 2)
                spacing = float(lag[first])
                rows.append(_Row(float(best[row]), angle, middle, high, start, length, spacing))
    return rows


def _spacings(detail: np.ndarray, row: _Row) -> np.ndarray:
    """Float (n, 2): place along the ruler and spacing there, px; none where it is no ruler."""
    none = np.empty((0, 2))
    around = row.middle + np.arange(-row.high // 2, row.high // 2 + 1)
    best = 0.0, row.spacing, row.angle
    for tilt in np.arange(-2, 2.1, 0.5):
        rotated = _rotated(detail, row.angle + tilt)
        line = rotated[np.clip(around, 0, rotated.shape[0] - 1)].mean(axis=0)
        line = line[row.start : row.start + row.length]
        tries = row.spacing * np.linspace(0.9, 1.1, 161)
        power = _power(line, tries)
        best = max(best, (float(power.max()), float(tries[power.argmax()]), row.angle + tilt))
    _, spacing, angle = best
    if row.length < _TICKS * spacing:
        return none
    rotated = _rotated(detail, angle)
    line = rotated[np.clip(around, 0, rotated.shape[0] - 1)].mean(axis=0)
    line = line[row.start : row.start + row.length]
    place = np.arange(len(line))
    wave = np.sum(line * np.exp(-2j * np.pi * place / spacing))
    # Dark marks lie where the wave is lowest.
    first = ((np.angle(-wave) / (-2 * np.pi)) % 1.0) * spacing
    at = np.arange(first, len(line) - spacing / 2, spacing)
    reach = round(8 * spacing)
    low, high = max(0, row.middle - reach), min(rotated.shape[0], row.middle + reach + 1)
    band = rotated[low:high, row.start : row.start + row.length]
    band = cv2.blur(band, (max(1, round(spacing / 4)), 1))
    on, off = (np.clip(np.rint(at + shift * spacing), 0, len(line) - 1).astype(int)
               for shift in (0, 0.5))  # fmt: skip
    lengths = np.clip(band[:, off] - band[:, on], 0, 2).sum(axis=0)
    present = np.clip(line[off] - line[on], 0, None)
    if len(at) < _TICKS or np.median(present) < 0.4:
        return none
    lengths = lengths - np.median(lengths)
    lengths = np.clip(lengths, *np.quantile(lengths, [0.02, 0.98]))
    lengths = lengths - lengths.mean()
    total = float((lengths**2).mean()) + 1e-9

    def alike(lag: int) -> float:
        return float((lengths[lag:] * lengths[:-lag]).mean()) / total

    fifth, tenth = alike(5), alike(10) if len(at) > 22 else 0.0
    others = max(alike(lag) for lag in (2, 3, 4, 6, 7, 8))
    if max(fifth, tenth) <= max(_LONGER, others + 0.15):
        return none
    # Beyond the piece where it was found, too: as far as the same marks go on.
    whole = rotated[np.clip(around, 0, rotated.shape[0] - 1)].mean(axis=0)
    piece = round(10 * spacing)
    tries = spacing * np.linspace(0.85, 1.15, 121)
    starts = np.arange(0, len(whole) - piece + 1, piece // 2)
    powers = np.array([_power(whole[start : start + piece], tries) for start in starts])
    best, peaks = powers.argmax(axis=1), powers.max(axis=1)
    clear = (best > 0) & (best < len(tries) - 1) & (peaks > 0.4 * peaks.max())
    spacings: np.ndarray = np.stack([starts + piece / 2, tries[best]], axis=1)[clear]
    return spacings


def _power(line: np.ndarray, spacings: np.ndarray) -> np.ndarray:
    """How much of a row repeats at each of the spacings: its wave and the next overtone."""
    place = np.arange(len(line)) - len(line) / 2
    window = np.hanning(len(line))
    waves = [np.exp(-2j * np.pi * k * place / spacings[:, None]) for k in (1, 2)]
    powers: np.ndarray = sum(np.abs((line * window * wave).sum(axis=1)) for wave in waves)
    return powers
