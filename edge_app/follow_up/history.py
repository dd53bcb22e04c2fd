"""What changed between two captures of one lesion: registration, size, colour and shape.

Two pictures of one lesion differ in place, turn, size and light. The outlines bring them together
(centroids and areas); the turn is the one at which the pictures agree best, refined by the
enhanced correlation coefficient (Evangelidis & Psarakis, IEEE TPAMI 30(10), 2008). Marks on the
skin around the lesion (Lowe's SIFT, IJCV 60, 2004) give the relative size where enough of them
are found again: the lesion itself cannot, for it may have grown.

Two pictures of an unchanged lesion do not give the same numbers either; by how much they differ on
HAM10000, `tests/edge_app/follow_up/test_history.py` prints. Risk estimate for research, not a
diagnosis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dermedge import UserError
from dermedge.analysis import lesion_outline
from dermedge.image.preprocess import shades_of_gray
from edge_app.i18n.language import N_, Message
from edge_app.store import clock
from edge_app.store.store import Capture

WORK = 640  # px, long side of the copies that are compared
PATCH, RADIUS = 192, 48  # px: a patch in which a circle of the lesion's area has this radius
ANGLES = 72
# Marks of the skin that must be found again, what share of the matches they must be, and how much
# of the picture they must span.
MIN_MARKS, MARKS_SHARE, MARKS_SPAN = 12, 0.3, 0.05
MIN_OVERLAP = 0.3  # of the outlines under a transform that the skin's marks propose
BEYOND = (128, 128, 128)  # RGB, where the second picture does not reach
MAX_SCALE = 4.0  # between two pictures of one lesion

REMARKS = {
    "size_unknown": N_("Nothing gives a scale in both pictures: whether it grew is unknown."),
    "refused": N_(
        "One of the pictures cannot be judged: what seems to have changed may be the picture, not "
        "the lesion. Compare it with another one."
    ),
    "cut_off": N_(
        "The lesion is cut off in one of the pictures: its size and shape are not whole."
    ),
    "light": N_(
        "The skin around differs in colour, too: the light may have changed, not the lesion."
    ),
    "little_in_common": N_("The two outlines have little in common: is this the same lesion?"),
    "clock": N_(
        "When one of the pictures was taken is not known: it stands where it was added, and the "
        "time between them is unknown."
    ),
}
LIGHT = 6.0  # CIELAB distance of the skin around above which the light is doubted
LITTLE = 0.6  # overlap below which the lesion is doubted


@dataclass(frozen=True, eq=False)
class Comparison:
    """The second capture of a lesion seen against the first. Pairs are (first, second)."""

    warped: np.ndarray  # uint8 (h, w, 3) RGB: the second, laid onto the first's pixels
    covered: np.ndarray  # bool (h, w): where `warped` shows the second, not beyond its edge
    polygons: tuple[np.ndarray, ...]  # the second's outlines, float (n, 2) px of the whole first
    transform: np.ndarray  # float (2, 3): px of the whole second to px of the whole first
    by: str  # what gave the size of the second on the first: 'scale', 'skin' or 'outline'
    area_mm2: tuple[float | None, float | None]
    diameter_mm: tuple[float | None, float | None]
    area_change: float | None  # second / first - 1; None: unknown
    overlap: float  # 0..1, Jaccard index of the outlines, brought to one area
    color_change: float  # CIELAB distance between the lesions' means, after shades of gray
    color_shift: tuple[float, float, float]  # that as L (lighter), a (redder), b (yellower)
    skin_change: float  # as `color_change`, of the skin around: what the light alone does
    asymmetry: tuple[float | None, float | None]  # index, 0..1
    border: tuple[float | None, float | None]  # irregularity, 0..1
    remarks: tuple[str, ...]  # codes of REMARKS


@dataclass(frozen=True)
class Point:
    """One capture in a lesion's history. None: not known, or of a picture that was refused."""

    taken: str
    triage: str  # or records.OTHER_VERSION: then nothing below can be read here
    area_mm2: float | None
    diameter_mm: float | None
    asymmetry: float | None  # index, 0..1
    border: float | None  # irregularity, 0..1
    colors: float | None  # 1..6
    dating: str = ""  # how far `taken` holds, of records.DATINGS


def history(captures: Sequence[Capture]) -> list[Point]:
    """The measures of a lesion's captures over time, in their order."""
    return [_point(capture) for capture in captures]


def _point(capture: Capture) -> Point:
    if not capture.readable or capture.triage == "retake":
        return Point(capture.taken, capture.triage, *(None,) * 5, dating=capture.dating)
    abcd = capture.analysis["abcd"]
    return Point(
        taken=capture.taken,
        triage=capture.triage,
        area_mm2=area_mm2(capture),
        diameter_mm=abcd["diameter_mm"],
        asymmetry=abcd.get("asymmetry_index"),
        border=abcd.get("border_irregularity"),
        colors=abcd["color"],
        dating=capture.dating,
    )


def area_mm2(capture: Capture) -> float | None:
    """The lesion's area; None without a lesion or a scale, of a picture that was refused, or where
    it cannot be read here."""
    if not capture.readable or capture.triage == "retake" or capture.px_per_mm is None:
        return None
    if not lesion_outline(capture.analysis):
        return None
    area: float = capture.analysis["lesion"]["area_px"]
    return area / capture.px_per_mm**2


def compare(first: Capture, ours: np.ndarray, second: Capture, theirs: np.ndarray) -> Comparison:
    """Register the second capture onto the first and measure what changed.

    Parameters
    ----------
    first, second : captures of one lesion; px refer to the whole picture.
    ours, theirs : their pictures, uint8 (h, w, 3) RGB, maybe reduced.

    Raises
    ------
    UserError : no lesion was found in one of them, or its analysis cannot be read here.
    """
    a, b = _View(first, ours), _View(second, theirs)
    transform, overlap = _register(a, b)
    if first.px_per_mm and second.px_per_mm:
        by, size = "scale", (first.px_per_mm * a.scale) / (second.px_per_mm * b.scale)
    elif (skin := _by_skin(a, b)) is not None:
        by, size, transform = "skin", _size(skin), skin
    else:
        by, size = "outline", _size(transform)
    if by == "scale":  # the turn and the place of the outlines, at the known size
        transform = _about(a.centre, size / _size(transform)) @ transform
    cut = a.cut or b.cut
    change, refused = None, "retake" in (first.triage, second.triage)
    if by != "outline" and not cut and not refused:
        change = float(b.area / a.area * size**2 - 1)
    whole = np.linalg.inv(_to_work(a.scale)) @ transform @ _to_work(b.scale)
    warped, covered = _warp(ours, first.size[0], theirs, second.size[0], whole)
    colors = [_color(view, view.mask) for view in (a, b)]
    shift = colors[1] - colors[0]
    lighter, redder, yellower = (float(value) for value in shift)
    around = np.linalg.norm(_color(b, b.around) - _color(a, a.around))
    remarks = {
        "refused": refused,
        "size_unknown": by == "outline",
        "cut_off": cut,
        "light": around > LIGHT,
        "little_in_common": overlap < LITTLE,
        "clock": not (first.dated and second.dated),
    }
    captures = (first, second)
    return Comparison(
        warped=warped,
        covered=covered,
        polygons=tuple(_moved(polygon, whole) for polygon in b.polygons),
        transform=whole[:2],
        by=by,
        area_mm2=(None, None) if cut else (area_mm2(first), area_mm2(second)),
        diameter_mm=_pair(captures, "diameter_mm", refused),
        area_change=change,
        overlap=overlap,
        color_change=float(np.linalg.norm(shift)),
        color_shift=(lighter, redder, yellower),
        skin_change=float(around),
        asymmetry=_pair(captures, "asymmetry_index", refused),
        border=_pair(captures, "border_irregularity", refused),
        remarks=tuple(code for code, applies in remarks.items() if applies),
    )


def _pair(
    captures: tuple[Capture, Capture], key: str, refused: bool
) -> tuple[float | None, float | None]:
    if refused:  # beside the other's, it would look like a change of the spot
        return None, None
    first, second = (capture.analysis["abcd"].get(key) for capture in captures)
    return first, second


class _View:
    """A capture at the size at which it is compared."""

    def __init__(self, capture: Capture, pixels: np.ndarray):
        lesion = capture.analysis["lesion"]
        if not lesion_outline(capture.analysis):
            day = clock.local_day(capture.taken)
            raise UserError(Message("no lesion was found in the picture of {day}", day=day))
        width, height = capture.size
        self.scale = min(1.0, WORK / max(width, height))  # px here by px of the whole picture
        size = max(1, round(width * self.scale)), max(1, round(height * self.scale))
        how = cv2.INTER_AREA if pixels.shape[1] > size[0] else cv2.INTER_LINEAR
        self.pixels = cv2.resize(pixels, size, interpolation=how)
        self.polygons = [np.asarray(polygon, np.float64) for polygon in lesion["polygons"]]
        moved = [_moved(polygon, _to_work(self.scale)) for polygon in self.polygons]
        self.mask = _filled(moved, size[::-1])
        self.area = lesion["area_px"] * self.scale**2
        moments = cv2.moments(self.mask.view(np.uint8), binaryImage=True)
        if not moments["m00"]:
            day = clock.local_day(capture.taken)
            raise UserError(Message("the lesion in the picture of {day} is too small", day=day))
        self.centre = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
        self.radius = float(np.sqrt(moments["m00"] / np.pi))
        # A plain frame is no skin, and cuts a lesion off as the picture's edge does.
        left, top, columns, rows = capture.analysis.get("inner") or (0, 0, width, height)
        x, y, across, down = lesion["box"]
        self.cut = (
            x <= left + 1
            or y <= top + 1
            or x + across >= left + columns - 1
            or y + down >= top + rows - 1
        )
        start = np.ceil(np.multiply((top, left), self.scale)).astype(int)
        end = np.multiply((top + rows, left + columns), self.scale).astype(int)
        self.inner = tuple(slice(*ends) for ends in zip(start, end, strict=True))
        framed = np.ones(self.mask.shape, bool)
        framed[self.inner] = False
        near, far = (_grown(self.mask, share * self.radius) for share in (0.25, 1.0))
        self.near, self.around = near | framed, far & ~near & ~framed

    def patch(self) -> np.ndarray:
        """The transform (3, 3) that brings the lesion to the middle of a patch, at RADIUS."""
        return _about((0, 0), RADIUS / self.radius, PATCH / 2, self.centre)


def _register(a: _View, b: _View) -> tuple[np.ndarray, float]:
    """The transform (3, 3) of b onto a that brings the outlines to one area; their overlap."""
    ours, theirs = a.patch(), b.patch()
    patches = [_patch(view, to) for view, to in ((a, ours), (b, theirs))]
    middle = (PATCH / 2, PATCH / 2)

    def agreement(transform: np.ndarray) -> float:
        mask = cv2.warpAffine(patches[1][1], transform[:2], (PATCH, PATCH))
        light = cv2.warpAffine(patches[1][0], transform[:2], (PATCH, PATCH))
        weight = np.maximum(cv2.GaussianBlur(np.maximum(mask, patches[0][1]), (0, 0), 6), 1e-6)
        return _correlation(patches[0][0], light, weight) + _jaccard(patches[0][1], mask)

    rotations = [_about(middle, 1, angle=2 * np.pi * k / ANGLES) for k in range(ANGLES)]
    best = max(rotations, key=agreement)
    refined = _refined(*patches[0], patches[1][0], best)
    if agreement(refined) > agreement(best):
        best = refined
    mask = cv2.warpAffine(patches[1][1], best[:2], (PATCH, PATCH))
    return np.linalg.inv(ours) @ best @ theirs, _jaccard(patches[0][1], mask)


def _patch(view: _View, to: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lightness and outline, float32 (PATCH, PATCH), of the lesion in its patch."""
    gray: np.ndarray = cv2.cvtColor(view.pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    sigma = max(0.0, 0.5 * view.radius / RADIUS)
    if sigma > 0.5:  # what the patch cannot show would only make steps in it
        gray = cv2.GaussianBlur(gray, (0, 0), sigma)
    light = cv2.warpAffine(gray, to[:2], (PATCH, PATCH), borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(view.mask.astype(np.float32), to[:2], (PATCH, PATCH))
    return cv2.GaussianBlur(light, (0, 0), 1.5), mask


def _refined(light: np.ndarray, mask: np.ndarray, other: np.ndarray, transform: np.ndarray):
    """Rotation and shift near `turn` that correlate best; `turn` where that does not converge."""
    region = (cv2.GaussianBlur(mask, (0, 0), 8) > 0.02).astype(np.uint8)
    start = np.linalg.inv(transform)[:2].astype(np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
    try:
        _, found = cv2.findTransformECC(
            light, other, start, cv2.MOTION_EUCLIDEAN, criteria, region, 5
        )
    except cv2.error:
        return transform
    return np.linalg.inv(np.vstack([found, [0, 0, 1]]).astype(np.float64))


def _by_skin(a: _View, b: _View) -> np.ndarray | None:
    """The transform (3, 3) of b onto a that marks of the skin around the lesions agree on."""
    sift = cv2.SIFT.create(2000, contrastThreshold=0.005)
    found = [
        sift.detectAndCompute(
            cv2.cvtColor(view.pixels, cv2.COLOR_RGB2GRAY), (~view.near).astype(np.uint8)
        )
        for view in (a, b)
    ]
    (keys_a, a_features), (keys_b, b_features) = found
    if min(len(keys_a), len(keys_b)) < MIN_MARKS:
        return None
    pairs = cv2.BFMatcher().knnMatch(b_features, a_features, k=2)
    good = [best for best, other in pairs if best.distance < 0.75 * other.distance]
    if len(good) < MIN_MARKS:
        return None
    source = np.asarray([keys_b[match.queryIdx].pt for match in good], np.float32)
    target = np.asarray([keys_a[match.trainIdx].pt for match in good], np.float32)
    matrix, inliers = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=3.0)
    if matrix is None:
        return None
    kept = target[inliers.ravel() > 0]
    spot = np.unique(np.round(kept), axis=0).astype(np.float32)
    if len(spot) < max(MIN_MARKS, MARKS_SHARE * len(good)):
        return None
    if cv2.contourArea(cv2.convexHull(spot)) < MARKS_SPAN * a.mask.size:
        return None
    transform = np.vstack([matrix, [0, 0, 1]])
    if not 1 / MAX_SCALE < _size(transform) < MAX_SCALE:
        return None
    moved = cv2.warpAffine(b.mask.astype(np.uint8), transform[:2], a.mask.shape[::-1])
    return transform if _jaccard(a.mask, moved) >= MIN_OVERLAP else None


def _warp(ours, our_width, theirs, their_width, whole) -> tuple[np.ndarray, np.ndarray]:
    height, width = ours.shape[:2]
    transform = (
        _to_work(width / our_width) @ whole @ np.linalg.inv(_to_work(theirs.shape[1] / their_width))
    )
    shrink = _size(transform)
    if shrink < 0.7:  # else it flickers
        theirs = cv2.GaussianBlur(theirs, (0, 0), 0.4 / shrink)
    warped = cv2.warpAffine(
        theirs, transform[:2], (width, height), flags=cv2.INTER_LINEAR, borderValue=BEYOND
    )
    inside = np.full(theirs.shape[:2], 255, np.uint8)
    return warped, cv2.warpAffine(inside, transform[:2], (width, height)) > 127


def _color(view: _View, where: np.ndarray) -> np.ndarray:
    """Mean CIELAB (3,) after shades of gray; of the whole picture where nothing is in `where`."""
    even = shades_of_gray(view.pixels[view.inner]).astype(np.float32) / 255
    lab, where = cv2.cvtColor(even, cv2.COLOR_RGB2Lab), where[view.inner]
    return lab[where].mean(axis=0) if where.any() else lab.mean(axis=(0, 1))


def _filled(polygons, shape) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for polygon in polygons:  # one by one: those that touch must not cut each other out
        cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 1, shift=4)
    return mask.astype(bool)


def _grown(mask: np.ndarray, reach: float) -> np.ndarray:
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) <= reach


def _moved(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    return points @ transform[:2, :2].T + transform[:2, 2]


def _to_work(scale: float) -> np.ndarray:
    """Px of a picture to px of its copy at `scale`; pixel centres at integers."""
    offset = (scale - 1) / 2
    return np.array([[scale, 0, offset], [0, scale, offset], [0, 0, 1.0]])


def _about(centre, size: float, move: float = 0.0, at=(0.0, 0.0), angle: float = 0.0) -> np.ndarray:
    """Scale and turn about `centre`; `at` comes to lie on (`move`, `move`)."""
    cos, sin = size * np.cos(angle), size * np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    shift = np.asarray(centre) - linear @ np.asarray(centre)
    if move:
        shift = np.array([move, move]) - linear @ np.asarray(at)
    return np.vstack([np.column_stack([linear, shift]), [0, 0, 1.0]])


def _size(transform: np.ndarray) -> float:
    return float(np.sqrt(abs(np.linalg.det(transform[:2, :2]))))


def _correlation(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    total = weight.sum()
    a, b = a - (a * weight).sum() / total, b - (b * weight).sum() / total
    norm = np.sqrt((a * a * weight).sum() * (b * b * weight).sum())
    return float((a * b * weight).sum() / norm) if norm > 0 else 0.0


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (a > 0.5, b > 0.5)
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 0.0
