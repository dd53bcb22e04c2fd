"""Procedural lesions: drawn pictures with exact masks and labels, for demos and tests.

Nothing here was learned from or copied from photographs. A model trained on these pictures shows
that the pipeline works; it knows nothing of real skin.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dermedge import UserError
from dermedge.files import write_atomic
from dermedge.taxonomy import MALIGNANT

STYLES = ("dermoscopy", "phone")
ITA_RANGE = (-50.0, 70.0)
LICENCE = "procedural, Apache-2.0"
MARKER = "procedural.json"
VERSION = 1  # raised when the same seed draws another picture

# How often each artefact is met: (dermoscopy, phone). The order is the order of drawing.
ARTEFACTS = {
    "freckles": (0.10, 0.45),
    "background": (0.0, 0.35),
    "bubbles": (0.20, 0.0),
    "ruler": (0.15, 0.08),
    "hair": (0.45, 0.40),
    "uneven_light": (0.60, 0.95),
    "color_cast": (0.50, 0.80),
    "vignette": (0.35, 0.12),
    "blur": (0.30, 0.40),
    "motion_blur": (0.0, 0.30),
    "noise": (0.80, 1.0),
}


@dataclass(frozen=True)
class Sample:
    """One drawn picture and all that is known of it.

    image uint8 (h, w, 3) RGB; mask bool (h, w); ita in degrees, of the skin under neutral light;
    asymmetry and border_irregularity 0 to 1, as drawn; colors the number of lesion colours;
    diameter_mm the greatest extent of the lesion; artefacts names out of `ARTEFACTS`.
    """

    image: np.ndarray
    mask: np.ndarray
    label: str
    style: str
    ita: float
    asymmetry: float
    border_irregularity: float
    colors: int
    diameter_mm: float
    px_per_mm: float
    artefacts: tuple[str, ...]


@dataclass(frozen=True)
class _Look:
    """What a class tends to look like; ranges overlap on purpose, as they do in clinics."""

    share: float  # of the lesions in a data set
    asymmetry: tuple[float, float]
    border: tuple[float, float]
    colors: tuple[int, int]
    diameter: tuple[float, float]  # mm
    edge: tuple[float, float]  # width of the fading rim, mm
    palettes: tuple[tuple[str, ...], ...]  # base colour first, then accents in order of use
    structures: dict[str, float]  # name -> probability
    ages: tuple[float, float]
    ita: float = 0.0  # lesions of sun-damaged skin are met more on light skin


_BROWNS = ("light_brown", "dark_brown", "black", "pink", "blue_gray", "white")
_DARKS = ("dark_brown", "light_brown", "black", "blue_gray", "red", "white")

LOOKS = {
    "akiec": _Look(
        0.08, (0.1, 0.7), (0.2, 0.8), (1, 3), (5, 16), (0.7, 1.8),
        (("pink", "red", "light_brown", "yellow", "white", "dark_brown"),
         ("red", "pink", "yellow", "white", "light_brown", "dark_brown"),
         ("light_brown", "pink", "red", "gray_brown", "white", "yellow")),
        {"strawberry": 0.65, "scales": 0.7, "dot_vessels": 0.3, "network": 0.1}, (52, 88), 10.0,
    ),
    "bcc": _Look(
        0.11, (0.1, 0.7), (0.1, 0.6), (1, 4), (4, 14), (0.5, 1.4),
        (("pink", "blue_gray", "red", "white", "light_brown", "black"),
         ("pearl", "pink", "blue_gray", "red", "dark_brown", "white"),
         ("light_brown", "pink", "blue_gray", "black", "red", "white")),
        {"arborizing_vessels": 0.75, "ovoid_nests": 0.55, "ulcer": 0.3, "pearl_rim": 0.5,
         "scales": 0.1}, (45, 88), 10.0,
    ),
    "bkl": _Look(
        0.14, (0.05, 0.65), (0.1, 0.65), (1, 3), (4, 16), (0.12, 0.6),
        (("gray_brown", "dark_brown", "yellow", "light_brown", "black", "white"),
         ("light_brown", "gray_brown", "dark_brown", "yellow", "black", "pink"),
         ("dark_brown", "gray_brown", "black", "light_brown", "blue_gray", "yellow"),
         ("pink", "light_brown", "gray_brown", "yellow", "white", "dark_brown")),
        {"milia_cysts": 0.7, "comedones": 0.45, "fissures": 0.5, "network": 0.15, "scales": 0.2},
        (40, 88),
    ),
    "df": _Look(
        0.06, (0.0, 0.35), (0.0, 0.35), (1, 3), (3, 10), (0.6, 1.5),
        (("light_brown", "pink", "white", "dark_brown", "red", "gray_brown"),
         ("pink", "light_brown", "white", "gray_brown", "red", "dark_brown")),
        {"peripheral_network": 0.8, "pale_centre": 0.85}, (22, 65),
    ),
    "mel": _Look(
        0.16, (0.25, 1.0), (0.25, 1.0), (2, 5), (4, 17), (0.25, 1.0),
        (_DARKS, _DARKS, _BROWNS,
         ("black", "dark_brown", "blue_gray", "light_brown", "red", "white"),
         ("pink", "red", "light_brown", "blue_gray", "dark_brown", "white")),
        {"network": 0.4, "veil": 0.5, "streaks": 0.45, "globules": 0.25, "dark_dots": 0.5,
         "regression": 0.3, "dot_vessels": 0.12}, (28, 86), 4.0,
    ),
    "nv": _Look(
        0.34, (0.0, 0.5), (0.0, 0.5), (1, 3), (2.5, 10), (0.3, 1.3),
        (_BROWNS, _BROWNS, _DARKS,
         ("pink", "light_brown", "dark_brown", "red", "gray_brown", "white"),
         ("dark_brown", "black", "light_brown", "blue_gray", "gray_brown", "pink")),
        {"network": 0.5, "globules": 0.35, "dark_dots": 0.12, "milia_cysts": 0.06,
         "veil": 0.04}, (8, 70),
    ),
    "scc": _Look(
        0.05, (0.15, 0.75), (0.2, 0.8), (1, 4), (6, 18), (0.3, 1.1),
        (("pink", "red", "yellow", "white", "dark_brown", "gray_brown"),
         ("red", "yellow", "pink", "white", "dark_brown", "black")),
        {"keratin": 0.75, "ulcer": 0.5, "dot_vessels": 0.6, "scales": 0.5}, (52, 90), 8.0,
    ),
    "vasc": _Look(
        0.06, (0.0, 0.5), (0.0, 0.45), (1, 3), (2, 9), (0.12, 0.6),
        (("red", "purple", "pink", "blue_gray", "black", "white"),
         ("purple", "red", "blue_gray", "black", "pink", "white"),
         ("pink", "red", "purple", "blue_gray", "white", "black")),
        {"lacunae": 0.85}, (15, 80),
    ),
}  # fmt: skip

# Lesion colours as (factor on the skin's L*, shift of a*, shift of b*), before the shade of the
# skin is taken into account. A pigment is darker than the skin that it lies in, whatever the skin.
_TONES = {
    "light_brown": (0.76, 4.5, 5.0),
    "dark_brown": (0.53, 4.0, 0.0),
    "black": (0.29, -5.0, -11.0),
    "gray_brown": (0.64, -2.0, -4.0),
    "blue_gray": (0.58, -6.0, -16.0),
    "pink": (0.92, 10.0, -2.5),
    "red": (0.74, 20.0, 3.0),
    "purple": (0.44, 13.0, -15.0),
    "pearl": (1.06, 4.0, -6.0),
    "white": (1.16, -3.0, -8.0),
    "yellow": (1.04, -1.0, 9.0),
}


def draw(
    seed: int,
    style: str = "dermoscopy",
    size: tuple[int, int] = (384, 512),
    label: str | None = None,
    *,
    view: int = 0,
    ita: float | None = None,
    asymmetry: float | None = None,
    border_irregularity: float | None = None,
    colors: int | None = None,
    diameter_mm: float | None = None,
    artefacts: tuple[str, ...] | None = None,
) -> Sample:
    """Draw one lesion. The same arguments give the same picture, bit for bit.

    What is not asked for is chosen by `seed`, and does not change with what is asked for.

    Parameters
    ----------
    seed : 0 or more; decides the lesion.
    style : 'dermoscopy' (about 8 to 25 mm wide) or 'phone' (about 25 to 90 mm wide).
    size : (height, width) in px, 64 to 4096 each.
    label : one of `LOOKS`; None: chosen.
    view : 0 or more; other rotation, scale, light, hair and noise of the same lesion.
    ita : individual typology angle of the skin in degrees, -50 (very dark) to 70 (very light);
        Chardon et al., Int. J. Cosmet. Sci. 13, 1991.
    asymmetry, border_irregularity : 0 to 1.
    colors : 1 to 6, as the colours of the ABCD rule (Stolz et al., Eur. J. Dermatol. 4, 1994).
        Structures typical of the class (vessels, cysts, veil) may add theirs.
    diameter_mm : 1 to 40.
    artefacts : names out of `ARTEFACTS`, exactly these; None: chosen, typical of the style.

    Raises
    ------
    ValueError
        In one line, when a value is out of its range.
    """
    _check(seed, style, size, label, view, artefacts)
    _check_range("ita", ita, *ITA_RANGE)
    _check_range("asymmetry", asymmetry, 0, 1)
    _check_range("border_irregularity", border_irregularity, 0, 1)
    _check_range("colors", colors, 1, 6)
    _check_range("diameter_mm", diameter_mm, 1, 40)
    if colors is not None and colors != int(colors):
        raise ValueError(f"colors must be a whole number, got {colors!r}")

    traits = np.random.default_rng([seed, 0])
    names = list(LOOKS)
    chosen = str(traits.choice(names, p=_shares()))
    label = chosen if label is None else label
    look = LOOKS[label]
    # A draw for every trait, asked for or not: a control then changes nothing but itself.
    drawn_ita = _random_ita(traits, look)
    ita = drawn_ita if ita is None else float(ita)
    drawn = [traits.uniform(*look.asymmetry), traits.uniform(*look.border)]
    asymmetry = float(drawn[0] if asymmetry is None else asymmetry)
    border_irregularity = float(drawn[1] if border_irregularity is None else border_irregularity)
    drawn_colors = int(traits.integers(look.colors[0], look.colors[1] + 1))
    colors = drawn_colors if colors is None else int(colors)
    drawn_diameter = look.diameter[0] + np.ptp(look.diameter) * traits.beta(1.6, 2.4)
    diameter_mm = float(drawn_diameter if diameter_mm is None else diameter_mm)
    edge = traits.uniform(*look.edge) * min(1.0, diameter_mm / 5)
    contrast = traits.uniform(0.6, 1.1)
    palette = look.palettes[traits.integers(len(look.palettes))]
    structures = [name for name, share in look.structures.items() if traits.random() < share]

    seen = np.random.default_rng([seed, 1, view, STYLES.index(style)])
    odds = {name: pair[STYLES.index(style)] for name, pair in ARTEFACTS.items()}
    met = [name for name, share in odds.items() if seen.random() < share]
    if artefacts is not None:
        met = [name for name in ARTEFACTS if name in artefacts]

    height, width = size
    skin = _skin_lab(ita, traits)
    radius = _outline(np.random.default_rng([seed, 2]), asymmetry, border_irregularity)
    field = seen.uniform(8, 19) if style == "dermoscopy" else seen.uniform(18, 60)
    field = max(field, diameter_mm * (1.15 if style == "dermoscopy" else 1.9) * width / min(size))
    px_per_mm = width / field
    spare = 0.5 - 0.5 * diameter_mm * px_per_mm / np.array([height, width])
    off = seen.uniform(-1, 1, 2) * np.clip(spare, 0, None) * (0.5 if style == "phone" else 0.7)
    centre = (0.5 + off[::-1]) * [width, height]
    angle = seen.uniform(0, 2 * np.pi)

    lab = _draw_skin(seen, skin, size, px_per_mm)
    lesion = _Lesion(seed, lab, skin, radius * diameter_mm, centre, angle, px_per_mm, diameter_mm)
    lesion.color(palette[:colors], contrast)
    for name in structures:
        _STRUCTURES[name](lesion, np.random.default_rng([seed, 3, list(_STRUCTURES).index(name)]))
    mask = lesion.blend(edge)

    scene = _Scene(seen, lab, mask, centre, px_per_mm, style)
    if "freckles" in met:
        _draw_freckles(scene, skin)
    scene.rgb = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    for name in met:
        if name in _DRAWN_OVER:
            _DRAWN_OVER[name](scene)
    image = cv2.convertScaleAbs(np.clip(scene.rgb, 0, 1), alpha=255)
    return Sample(
        image, mask, label, style, ita, asymmetry, border_irregularity, colors, diameter_mm,
        px_per_mm, tuple(met),
    )  # fmt: skip


def _check(seed, style, size, label, view, artefacts) -> None:
    for name, value in (("seed", seed), ("view", view)):
        if not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"{name} must be a whole number, 0 or more, got {value!r}")
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, got {style!r}")
    if label is not None and label not in LOOKS:
        raise ValueError(f"label must be one of {', '.join(LOOKS)}, got {label!r}")
    if len(size) != 2 or not all(64 <= side <= 4096 for side in size):
        raise ValueError(f"size must be (height, width) of 64 to 4096 px each, got {size!r}")
    unknown = sorted(set(artefacts or ()) - set(ARTEFACTS))
    if unknown:
        raise ValueError(
            f"no artefact {', '.join(map(repr, unknown))}; there are: {', '.join(ARTEFACTS)}"
        )


def _check_range(name: str, value, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} must be {low:g} to {high:g}, got {value!r}")


def _shares() -> np.ndarray:
    shares = np.array([look.share for look in LOOKS.values()])
    return shares / shares.sum()


# ---------------------------------------------------------------------------------------- colour


def _skin_lab(ita: float, rng: np.random.Generator) -> np.ndarray:
    """CIELAB (3,) of skin with this angle: ITA = atan((L* - 50) / b*)."""
    yellow = np.interp(ita, [-50, -30, 10, 28, 41, 55, 70], [13, 17, 20, 19, 17.5, 15, 10.5])
    yellow *= rng.uniform(0.92, 1.08)
    red = np.interp(ita, [-50, -20, 15, 45, 70], [9, 12, 12.5, 10, 7.5]) + rng.uniform(-1.5, 1.5)
    return np.array([50 + yellow * np.tan(np.radians(ita)), red, yellow], np.float32)


def _random_ita(rng: np.random.Generator, look: _Look) -> float:
    return float(np.clip(rng.normal(22 + look.ita, 30), *ITA_RANGE))


def skin_type(ita: float) -> int:
    """Skin type 1 to 6 from ITA, limits of Del Bino & Bernerd, Br. J. Dermatol. 169, 2013."""
    return 1 + sum(ita <= limit for limit in (55, 41, 28, 10, -30))


def _tone(name: str, skin: np.ndarray) -> np.ndarray:
    factor, red, yellow = _TONES[name]
    # Dark skin hides redness and keeps less room below it.
    shade = np.clip(skin[0] / 65, 0.5, 1.1)
    return np.array(
        [min(skin[0] * factor, 96), skin[1] + red * shade, skin[2] + yellow * shade], np.float32
    )


# ----------------------------------------------------------------------------------- fields, tiles


def _smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((values - low) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def _clouds(rng: np.random.Generator, cells: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Smooth noise of mean 0 and deviation of about 1: float32 `size`, from a `cells` grid."""
    grid = rng.standard_normal((cells[0] + 2, cells[1] + 2), dtype=np.float32)
    grid -= grid.mean()
    return cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC)


@cache  # one tile for each jitter in use
def _mesh(jitter: float) -> np.ndarray:
    """A periodic tile of polygonal mesh, float32 (512, 512), 1 on the lines; 16 cells a side."""
    rng = np.random.default_rng(7)
    side, count = 512, 16
    step = side / count
    rows, columns = np.mgrid[0:count, 0:count].astype(np.float64)
    points = np.stack([columns + 0.5 * (rows % 2), rows], -1).reshape(-1, 2) * step
    points = (points + rng.uniform(-jitter, jitter, points.shape) * step) % side
    seeds = np.full((2 * side, 2 * side), 255, np.uint8)
    for shift in np.array([[0, 0], [side, 0], [0, side], [side, side]]):
        x, y = (points + shift).astype(int).T
        seeds[y, x] = 0
    _, cells = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    cells = cells.astype(np.float32)
    lines = cv2.morphologyEx(cells, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
    distance = cv2.distanceTransform((~lines).astype(np.uint8), cv2.DIST_L2, 5)
    middle = slice(side // 2, side // 2 + side)
    return np.exp(-((distance[middle, middle] / (0.16 * step)) ** 2)).astype(np.float32)


def _sample_mesh(
    size: tuple[int, int],
    matrix: np.ndarray,
    cell: float,
    jitter: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Lay the mesh over a picture: `matrix` (2, 3) maps px to units, a cell is `cell` units."""
    to_tile = matrix * (512 / 16 / cell)
    to_tile[:, 2] += rng.uniform(0, 512, 2)
    return cv2.warpAffine(
        _mesh(jitter), to_tile, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ shape


def _outline(rng: np.random.Generator, asymmetry: float, border: float) -> np.ndarray:
    """Distance of the border from the middle for 1024 angles, for a lesion of diameter 1."""
    angles = np.arange(1024) * (2 * np.pi / 1024)
    radius = np.ones(1024) + rng.uniform(0.02, 0.16) * np.cos(2 * angles)
    bent = np.zeros(1024)
    for k, weight in ((1, 0.3), (2, 0.4), (3, 1.0), (4, 0.5), (5, 0.5)):
        bent += weight * rng.uniform(0.6, 1) * np.sin(k * angles + rng.uniform(0, 2 * np.pi))
    ragged = np.zeros(1024)
    for k in range(5, 44):
        ragged += rng.standard_normal() * k**-1.1 * np.cos(k * angles + rng.uniform(0, 2 * np.pi))
    radius += 0.24 * asymmetry * bent / np.abs(bent).max() * 1.3
    radius += (0.006 + 0.16 * border) * ragged / np.abs(ragged).max()
    radius = np.maximum(radius, 0.3)
    points = radius[::4] * np.exp(1j * angles[::4])
    extent = np.abs(points[:, None] - points[None, :]).max()
    return (radius / extent).astype(np.float32)


class _Lesion:
    """The lesion on the canvas: everything is placed in mm from its middle, then seen by a view."""

    def __init__(self, seed, lab, skin, radius, centre, angle, scale, diameter):
        self.seed, self.skin, self.scale, self.diameter = seed, skin, scale, diameter
        self.size = diameter / 2
        reach = (float(radius.max()) + 0.6) * scale
        height, width = lab.shape[:2]
        left, top = (int(max(0, np.floor(value - reach))) for value in centre)
        right, bottom = (
            int(min(limit, np.ceil(value + reach)))
            for value, limit in zip(centre, (width, height), strict=True)
        )
        self.canvas = (slice(top, bottom), slice(left, right))
        self.under = lab
        self.shape = (bottom - top, right - left)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        self.turn = turn
        self.middle = centre - [left, top]
        # px (integer at the pixel centre) -> mm
        self.to_mm = np.hstack(
            [turn / scale, (turn @ (np.array([0.5, 0.5]) - self.middle) / scale)[:, None]]
        )
        x = np.arange(self.shape[1], dtype=np.float32)[None, :]
        y = np.arange(self.shape[0], dtype=np.float32)[:, None]
        m = self.to_mm.astype(np.float32)
        self.x = m[0, 0] * x + m[0, 1] * y + m[0, 2]
        self.y = m[1, 0] * x + m[1, 1] * y + m[1, 2]
        distance, angles = cv2.cartToPolar(self.x, self.y)
        index = (angles * np.float32(1024 / (2 * np.pi))).astype(np.int32) & 1023
        limit = radius[index]
        self.radius = radius
        self.depth = limit - distance  # mm inside of the border
        self.rho = distance / limit  # 0 in the middle, 1 on the border
        self.lab = np.empty((*self.shape, 3), np.float32)

    def clouds(self, rng: np.random.Generator, cells: int) -> np.ndarray:
        """Smooth noise fixed to the lesion, `cells` over its diameter, float32 like `rho`."""
        count = cells * 2 + 4
        grid = rng.standard_normal((count, count), dtype=np.float32)
        matrix = self.to_mm * (cells / self.diameter)
        matrix[:, 2] += count / 2
        # Cells of a few pixels show no difference, at a third of the time.
        smooth = cv2.INTER_CUBIC if cells < 12 else cv2.INTER_LINEAR
        return cv2.warpAffine(
            grid, matrix, self.shape[::-1], flags=smooth | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip

    def mesh(self, rng: np.random.Generator, cell: float, jitter: float) -> np.ndarray:
        """Polygonal mesh, 0 to 1, cells of `cell` mm; even gray where it is too fine to be seen."""
        mesh = _sample_mesh(self.shape, self.to_mm.copy(), cell, jitter, rng)
        seen = float(np.clip(cell * self.scale / 4, 0, 1))
        return mesh * seen + 0.4 * (1 - seen)

    def spots(self, rng, count: int, size: tuple[float, float], where=(0.0, 0.9), long=1.0):
        """Soft ellipses inside the lesion: float32 0 to 1. `size` in mm, `where` in rho."""
        at = self.places(rng, count, where)
        radii = rng.uniform(*size, count) * self.scale
        stretch, turns = rng.uniform(1, long, count), rng.uniform(0, 180, count)
        layer = np.zeros(self.shape, np.uint8)
        for (x, y), radius, ratio, angle in zip(at, radii, stretch, turns, strict=True):
            axes = (max(radius * ratio, 0.5), max(radius / ratio, 0.5))
            cv2.ellipse(
                layer, _fixed((x, y)), _fixed(axes), angle + np.degrees(self._angle()), 0, 360,
                255, -1, cv2.LINE_AA, 4,
            )  # fmt: skip
        return self._soft(layer, 0.3 * float(radii.mean()))

    def places(self, rng, count: int, where=(0.0, 0.9)) -> np.ndarray:
        """Random places inside the lesion as px (count, 2), even over the area."""
        angles = rng.uniform(0, 2 * np.pi, count)
        share = np.sqrt(rng.uniform(where[0] ** 2, where[1] ** 2, count))
        return self.polar(angles, share)

    def polar(self, angles, share) -> np.ndarray:
        """px (n, 2) of the points at these angles and shares of the way to the border."""
        index = (np.asarray(angles) * (1024 / (2 * np.pi))).astype(int) & 1023
        reach = self.radius[index] * share
        points = np.stack([np.cos(angles) * reach, np.sin(angles) * reach], -1)
        return points @ self.turn * self.scale + self.middle - 0.5

    def lines(self, paths: list[np.ndarray], widths: list[float]) -> np.ndarray:
        """Curves through px points, `widths` in mm: float32 0 to 1."""
        layer = np.zeros(self.shape, np.uint8)
        for path, width in zip(paths, widths, strict=True):
            pixels = width * self.scale
            # Below one px a line cannot get thinner, only fainter.
            cv2.polylines(
                layer, [np.round(path * 16).astype(np.int32)], False,
                int(np.clip(255 * pixels, 60, 255)), max(1, round(pixels)), cv2.LINE_AA, 4,
            )  # fmt: skip
        return self._soft(layer, 0.5)

    def blob(self, rng, where=(0.0, 0.6), size=(0.35, 0.6), ragged=0.35) -> np.ndarray:
        """One soft-edged patch with a ragged border, `size` as share of the lesion's radius."""
        angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(*where)
        reach = self.radius[int(angle * 1024 / (2 * np.pi)) & 1023] * share
        x, y = reach * np.cos(angle), reach * np.sin(angle)
        away = np.sqrt((self.x - x) ** 2 + (self.y - y) ** 2) / (self.size * rng.uniform(*size))
        return 1 - _smoothstep(away + ragged * self.clouds(rng, 5), 0.5, 1.3)

    def tone(self, name: str, light: float = 0, red: float = 0, yellow: float = 0) -> np.ndarray:
        """A lesion colour on this skin, or 'skin', moved by so much in L*, a*, b*: (3,)."""
        base = self.skin if name == "skin" else _tone(name, self.skin)
        return base + np.array([light, red, yellow], np.float32)

    def paint(self, alpha: np.ndarray, color: np.ndarray) -> None:
        """Mix a Lab colour (3,) into the lesion by alpha (h, w)."""
        keep = 1 - alpha
        for channel in range(3):
            part = self.lab[..., channel]
            part *= keep
            part += alpha * np.float32(color[channel])

    def darken(self, amount: np.ndarray) -> None:
        """Lower L* by a share 0 to 1 (h, w), as more pigment does."""
        self.lab[..., 0] *= 1 - amount

    def color(self, palette: tuple[str, ...], contrast: float) -> None:
        """Lay the base colour and one patch or rim for each further colour."""
        rng = np.random.default_rng([self.seed, 4])
        shift = rng.normal(0, 1, (6, 3)).astype(np.float32) * [4.0, 2.5, 2.5]
        spread = [self.clouds(rng, 4), self.clouds(rng, 16), self.clouds(rng, 6)]
        fine = self.clouds(rng, 40)
        tones = [_tone(name, self.skin) + shift[i] for i, name in enumerate(palette)]
        # A faint lesion is mostly skin; strong accents keep their own colour.
        self.lab[:] = self.skin + (tones[0] - self.skin) * contrast
        for tone in tones[1:]:
            patchy = 0.85 + 0.1 * (spread[1] + fine)
            patch = patchy * self.blob(rng, (0.1, 0.75), (0.35, 0.75), rng.uniform(0.2, 0.5))
            self.paint(np.clip(patch, 0, 1), tone)
        depth = abs(float(self.skin[0] - tones[0][0]))
        self.lab[..., 0] += spread[0] * (1 + 0.10 * depth) + spread[1] * (0.7 + 0.07 * depth)
        self.lab[..., 0] += fine * (0.4 + 0.05 * depth)
        self.lab[..., 1] += spread[2] * 1.2

    def blend(self, edge: float) -> np.ndarray:
        """Put the lesion into the skin, faded over `edge` mm; returns its mask, bool (h, w)."""
        edge = max(edge, 1.5 / self.scale)
        rng = np.random.default_rng([self.seed, 5])
        fray = 0.1 * edge * (self.clouds(rng, 14) + self.clouds(rng, 34))
        alpha = _smoothstep(self.depth + fray, -0.5 * edge, 0.5 * edge)[..., None]
        np.clip(self.lab[..., 0], 4, 98, out=self.lab[..., 0])
        skin = self.under[self.canvas]
        # The skin's own relief goes on over the lesion.
        skin += alpha * (self.lab - self.skin - 0.4 * (skin - self.skin))
        mask = np.zeros(self.under.shape[:2], bool)
        mask[self.canvas] = self.depth > 0
        return mask

    def _angle(self) -> float:
        return float(np.arctan2(self.turn[0, 1], self.turn[0, 0]))

    def _soft(self, layer: np.ndarray, sigma: float) -> np.ndarray:
        if sigma >= 0.3:
            layer = cv2.GaussianBlur(layer, (0, 0), min(sigma, 4.0))
        return layer.astype(np.float32) * np.float32(1 / 255)


def _fixed(values) -> tuple[int, int]:
    """To OpenCV's fixed point with 4 fractional bits."""
    return round(float(values[0]) * 16), round(float(values[1]) * 16)


# ------------------------------------------------------------------------------------- structures


def _network(lesion: _Lesion, rng) -> None:
    mesh = lesion.mesh(rng, rng.uniform(0.28, 0.45), 0.3)
    patchy = _smoothstep(lesion.clouds(rng, 4), -1.3, 0.6)
    fade = 1 - _smoothstep(lesion.rho, 0.7, 1.0)
    lesion.darken(rng.uniform(0.22, 0.42) * mesh * patchy * fade)


def _peripheral_network(lesion: _Lesion, rng) -> None:
    mesh = lesion.mesh(rng, rng.uniform(0.28, 0.4), 0.15)
    ring = _smoothstep(lesion.rho, 0.4, 0.65) * (1 - _smoothstep(lesion.rho, 0.85, 1.0))
    lesion.darken(rng.uniform(0.18, 0.32) * mesh * ring)


def _globules(lesion: _Lesion, rng) -> None:
    count = int(np.clip(lesion.diameter**2 * rng.uniform(0.8, 2.2), 12, 110))
    lesion.darken(rng.uniform(0.25, 0.45) * lesion.spots(rng, count, (0.09, 0.2), (0, 0.88), 1.3))


def _dark_dots(lesion: _Lesion, rng) -> None:
    spots = lesion.spots(rng, int(rng.integers(6, 30)), (0.06, 0.18), (0.3, 0.95))
    lesion.darken(rng.uniform(0.45, 0.7) * spots)


def _streaks(lesion: _Lesion, rng) -> None:
    start = rng.uniform(0, 2 * np.pi)
    angles = start + np.sort(rng.uniform(0, rng.uniform(1.2, 4.5), int(rng.integers(8, 26))))
    paths = []
    for angle in angles:
        inner, outer = rng.uniform(0.6, 0.8), rng.uniform(0.9, 1.0)
        bend = np.linspace(0, rng.uniform(-0.06, 0.06), 5)
        paths.append(lesion.polar(angle + bend, np.linspace(inner, outer, 5)))
    widths = list(rng.uniform(0.07, 0.2, len(paths)))
    lesion.darken(0.5 * lesion.lines(paths, widths))


def _veil(lesion: _Lesion, rng) -> None:
    color = lesion.tone("blue_gray", rng.uniform(0, 14), 0, 0)
    lesion.paint(rng.uniform(0.5, 0.85) * lesion.blob(rng, (0, 0.5), (0.4, 0.75)), color)


def _regression(lesion: _Lesion, rng) -> None:
    area = lesion.blob(rng, (0.2, 0.7), (0.25, 0.5))
    lesion.paint(0.7 * area, lesion.tone("skin", 9, -1, -5))
    pepper = lesion.spots(rng, 60, (0.04, 0.08))
    lesion.paint(0.6 * pepper * area, lesion.tone("blue_gray"))


def _milia_cysts(lesion: _Lesion, rng) -> None:
    spots = lesion.spots(rng, int(rng.integers(5, 26)), (0.07, 0.2))
    lesion.paint(rng.uniform(0.5, 0.85) * spots, lesion.tone("skin", 16, -3, -4))


def _comedones(lesion: _Lesion, rng) -> None:
    spots = lesion.spots(rng, int(rng.integers(5, 20)), (0.1, 0.3), (0, 0.85), 1.4)
    lesion.paint(rng.uniform(0.55, 0.8) * spots, lesion.tone("dark_brown", -5))


def _fissures(lesion: _Lesion, rng) -> None:
    mesh = lesion.mesh(rng, rng.uniform(0.7, 1.3), 0.45)
    broken = _smoothstep(lesion.clouds(rng, 6), -0.8, 0.5)
    lesion.darken(rng.uniform(0.2, 0.45) * mesh * broken)


def _arborizing_vessels(lesion: _Lesion, rng) -> None:
    paths, widths = [], []
    step = lesion.size * 0.11
    for _ in range(int(rng.integers(2, 6))):
        angle = rng.uniform(0, 2 * np.pi)
        at = 0.85 * lesion.size * np.array([np.cos(angle), np.sin(angle)])
        todo = [(at, angle + np.pi + rng.normal(0, 0.5), rng.uniform(0.09, 0.18), 9)]
        while todo and len(paths) < 40:
            start, heading, width, steps = todo.pop()
            points = [start]
            for number in range(steps):
                heading += rng.normal(0, 0.32)
                points.append(points[-1] + step * np.array([np.cos(heading), np.sin(heading)]))
                if number > 0 and width > 0.05 and rng.random() < 0.38:
                    side = heading + rng.choice([-1, 1]) * rng.uniform(0.4, 1.0)
                    todo.append((points[-1], side, width * 0.62, max(3, steps - 3)))
            paths.append(np.array(points) @ lesion.turn * lesion.scale + lesion.middle - 0.5)
            widths.append(width)
    color = lesion.tone("red", -8, 8, 3)
    fade = 1 - _smoothstep(lesion.rho, 0.85, 1.1)
    lesion.paint(rng.uniform(0.55, 0.9) * lesion.lines(paths, widths) * fade, color)


def _ovoid_nests(lesion: _Lesion, rng) -> None:
    spots = lesion.spots(rng, int(rng.integers(3, 12)), (0.2, 0.55), (0.1, 0.85), 1.5)
    lesion.paint(rng.uniform(0.55, 0.9) * spots, lesion.tone("blue_gray"))


def _ulcer(lesion: _Lesion, rng) -> None:
    area = lesion.blob(rng, (0, 0.5), (0.2, 0.4), 0.5)
    lesion.paint(0.85 * area, lesion.tone("red", -14, -4, 4))
    crust = area * _smoothstep(lesion.clouds(rng, 12), 0.1, 0.9)
    lesion.paint(0.7 * crust, lesion.tone("dark_brown"))


def _pearl_rim(lesion: _Lesion, rng) -> None:
    rim = _smoothstep(lesion.rho, 0.66, 0.84) * (1 - _smoothstep(lesion.rho, 0.88, 1.0))
    broken = _smoothstep(lesion.clouds(rng, 5), -0.9, 0.6)
    lesion.paint(0.55 * rim * broken, lesion.tone("skin", 9, 2, -5))


def _strawberry(lesion: _Lesion, rng) -> None:
    mesh = lesion.mesh(rng, rng.uniform(0.5, 0.8), 0.35)
    lesion.lab[..., 1] += rng.uniform(5, 10) * (mesh - 0.25)
    lesion.lab[..., 0] += rng.uniform(4, 8) * (0.3 - mesh)
    follicles = lesion.spots(rng, int(rng.integers(15, 45)), (0.09, 0.17))
    lesion.paint(0.45 * follicles, lesion.tone("skin", 9, -2, 3))


def _scales(lesion: _Lesion, rng) -> None:
    flakes = _smoothstep(lesion.clouds(rng, 16) + 0.7 * lesion.clouds(rng, 5), 0.3, 1.9)
    color = lesion.tone("skin", rng.uniform(8, 16), -4, rng.uniform(-6, 3))
    lesion.paint(rng.uniform(0.4, 0.75) * flakes * (lesion.rho < 0.95), color)


def _dot_vessels(lesion: _Lesion, rng) -> None:
    spots = lesion.spots(rng, int(rng.integers(25, 80)), (0.04, 0.1), (0.2, 0.95), 1.8)
    lesion.paint(rng.uniform(0.5, 0.8) * spots, lesion.tone("red", -8, 6, 2))


def _pale_centre(lesion: _Lesion, rng) -> None:
    pale = 1 - _smoothstep(lesion.rho + 0.12 * lesion.clouds(rng, 5), 0.15, rng.uniform(0.5, 0.7))
    lesion.paint(rng.uniform(0.6, 0.9) * pale, lesion.tone("skin", 9, 0, -6))


def _keratin(lesion: _Lesion, rng) -> None:
    area = lesion.blob(rng, (0, 0.3), (0.3, 0.65), 0.45)
    color = lesion.tone("skin", rng.uniform(2, 12), -5, rng.uniform(-1, 7))
    lesion.paint(0.9 * area, color)
    lesion.lab[..., 0] += area * 5 * lesion.clouds(rng, 14)


def _lacunae(lesion: _Lesion, rng) -> None:
    for name in ("red", "purple"):
        spots = lesion.spots(rng, int(rng.integers(5, 18)), (0.2, 0.5), (0, 0.8), 1.4)
        color = lesion.tone(name, rng.uniform(-14, 0), rng.uniform(-2, 6), 0)
        lesion.paint(rng.uniform(0.6, 0.9) * spots, color)


_STRUCTURES = {
    "network": _network,
    "peripheral_network": _peripheral_network,
    "globules": _globules,
    "dark_dots": _dark_dots,
    "streaks": _streaks,
    "veil": _veil,
    "regression": _regression,
    "milia_cysts": _milia_cysts,
    "comedones": _comedones,
    "fissures": _fissures,
    "arborizing_vessels": _arborizing_vessels,
    "ovoid_nests": _ovoid_nests,
    "ulcer": _ulcer,
    "pearl_rim": _pearl_rim,
    "strawberry": _strawberry,
    "scales": _scales,
    "dot_vessels": _dot_vessels,
    "pale_centre": _pale_centre,
    "keratin": _keratin,
    "lacunae": _lacunae,
}


# ------------------------------------------------------------------------------ skin and artefacts


def _draw_skin(rng, skin: np.ndarray, size: tuple[int, int], px_per_mm: float) -> np.ndarray:
    """Bare skin: float32 (h, w, 3) CIELAB whose mean is `skin`."""
    height, width = size
    lab = np.empty((height, width, 3), np.float32)
    strength = rng.uniform(0.5, 1.3)
    light = strength * (0.9 * _clouds(rng, (3, 4), size) + 0.9 * _clouds(rng, (18, 24), size))
    angle, cell = rng.uniform(0, np.pi), rng.uniform(0.45, 0.8)
    stretch = np.diag([1.0, rng.uniform(1.0, 1.6)])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.hstack([stretch @ turn / px_per_mm, np.zeros((2, 1))])
    # Where furrows are finer than two pixels they only alias.
    seen = float(np.clip(cell * px_per_mm / 5, 0.0, 1.0))
    furrows = _sample_mesh(size, matrix, max(cell, 3 / px_per_mm), 0.45, rng)
    broken = _smoothstep(_clouds(rng, (7, 9), size), -1.2, 1.2)
    light -= rng.uniform(0.6, 3.0) * seen * broken * (furrows - 0.28)
    grain = rng.standard_normal((height // 2 + 1, width // 2 + 1), dtype=np.float32)
    light += rng.uniform(0.4, 1.1) * cv2.resize(grain, (width, height))
    lab[..., 0] = skin[0] + light
    lab[..., 1] = skin[1] + strength * 1.1 * _clouds(rng, (5, 7), size) - 0.15 * light
    lab[..., 2] = skin[2] + strength * 0.7 * _clouds(rng, (4, 5), size)
    return lab


class _Scene:
    """What the artefacts are drawn on: `rgb` float32 (h, w, 3), 0 to 1."""

    def __init__(self, rng, lab, mask, centre, px_per_mm, style):
        self.rng, self.lab, self.mask, self.centre = rng, lab, mask, centre
        self.px_per_mm, self.style = px_per_mm, style
        self.height, self.width = mask.shape
        self.unit = max(mask.shape) / 512  # artefacts of the lens grow with the picture
        self.rgb = lab

    def lay(self, layer: np.ndarray, color, strength: float = 1.0) -> None:
        """Mix an RGB colour in, by a uint8 layer of alpha."""
        x, y, width, height = cv2.boundingRect(layer)
        if width == 0:
            return
        part = self.rgb[y : y + height, x : x + width]
        alpha = layer[y : y + height, x : x + width, None] * np.float32(strength / 255)
        part += alpha * (np.asarray(color, np.float32) - part)


def _draw_freckles(scene: _Scene, skin: np.ndarray) -> None:
    rng = scene.rng
    count = int(rng.integers(2, 7) if scene.style == "dermoscopy" else rng.integers(4, 45))
    layer = np.zeros(scene.mask.shape, np.uint8)
    for _ in range(count):
        at = rng.uniform(0, 1, 2) * [scene.width, scene.height]
        radius = max(0.8, rng.uniform(0.25, 1.1) * scene.px_per_mm)
        axes = (radius, radius * rng.uniform(0.6, 1))
        cv2.ellipse(
            layer, _fixed(at), _fixed(axes), rng.uniform(0, 180), 0, 360,
            int(rng.integers(70, 200)), -1, cv2.LINE_AA, 4,
        )  # fmt: skip
    layer = cv2.GaussianBlur(layer, (0, 0), max(0.8, 0.25 * scene.px_per_mm))
    layer[scene.mask] = 0
    alpha = layer[..., None] * np.float32(rng.uniform(0.4, 0.9) / 255)
    scene.lab += alpha * (_tone("light_brown", skin) - skin)


def _draw_background(scene: _Scene) -> None:
    """A limb's edge: the skin turns away into shade, and cloth or wall is seen behind it."""
    rng = scene.rng
    angle = rng.uniform(0, 2 * np.pi)
    x = np.arange(scene.width, dtype=np.float32)[None, :] - scene.centre[0]
    y = np.arange(scene.height, dtype=np.float32)[:, None] - scene.centre[1]
    along, across = np.cos(angle), np.sin(angle)
    way = (x * along + y * across) / np.float32(max(scene.width, scene.height))
    side = (y * along - x * across) / np.float32(max(scene.width, scene.height))
    lesion = float(way[scene.mask].max()) if scene.mask.any() else 0.0
    edge = lesion + rng.uniform(0.12, 0.3)
    way = way + rng.uniform(-0.5, 0.5) * side * side
    behind = _smoothstep(way, edge, edge + 0.012)[..., None]
    shade = 1 - 0.55 * _smoothstep(way, edge - 0.3, edge + 0.02)
    scene.rgb *= shade[..., None]
    tone = rng.uniform(0.15, 0.9) + rng.normal(0, 0.05, 3)
    folds = 0.03 * _clouds(rng, (4, 6), scene.mask.shape)
    behind[scene.mask] = 0
    scene.rgb += behind * (
        np.clip(tone, 0.03, 0.97).astype(np.float32) + folds[..., None] - scene.rgb
    )


def _draw_bubbles(scene: _Scene) -> None:
    rng = scene.rng
    rim, inner, glint = (np.zeros(scene.mask.shape, np.uint8) for _ in range(3))
    middle = rng.uniform(0.1, 0.9, 2) * [scene.width, scene.height]
    for _ in range(int(rng.integers(3, 22))):
        at = middle + rng.normal(0, 0.18, 2) * [scene.width, scene.height]
        radius = (3 + rng.gamma(1.6, 6)) * scene.unit
        line = max(1, round(0.14 * radius))
        cv2.circle(inner, _fixed(at), round(radius * 16), 255, -1, cv2.LINE_AA, 4)
        cv2.circle(rim, _fixed(at), round(radius * 16), 190, line, cv2.LINE_AA, 4)
        spot = at + radius * np.array([-0.45, -0.45])
        cv2.circle(glint, _fixed(spot), round(radius * 2.6), 255, -1, cv2.LINE_AA, 4)
    scene.lay(inner, (1.0, 0.97, 0.94), 0.07)
    scene.lay(cv2.GaussianBlur(rim, (0, 0), 1.0 * scene.unit), (0.12, 0.08, 0.07), 0.35)
    scene.lay(cv2.GaussianBlur(glint, (0, 0), 0.8 * scene.unit), (1.0, 1.0, 0.98), 0.85)


def _draw_ruler(scene: _Scene) -> None:
    """Millimetre marks along one side; true to scale."""
    rng = scene.rng
    side = int(rng.integers(4))
    length = scene.width if side < 2 else scene.height
    inset = rng.uniform(4, 18) * scene.unit
    layer = np.zeros(scene.mask.shape, np.uint8)
    start = rng.uniform(0.02, 0.3) * length
    for number in range(int(rng.integers(6, 30))):
        at = start + number * scene.px_per_mm
        if at >= length:
            break
        tall = (16 if number % 10 == 0 else 11 if number % 5 == 0 else 7) * scene.unit
        near, far = inset, inset + tall
        if side in (1, 3):
            limit = scene.height if side == 1 else scene.width
            near, far = limit - near, limit - far
        ends = [(at, near), (at, far)] if side < 2 else [(near, at), (far, at)]
        cv2.line(
            layer, _fixed(ends[0]), _fixed(ends[1]), 255, max(1, round(1.4 * scene.unit)),
            cv2.LINE_AA, 4,
        )  # fmt: skip
    scene.lay(layer, (0.08, 0.08, 0.1), 0.85)


def _draw_hair(scene: _Scene) -> None:
    rng = scene.rng
    layer = np.zeros(scene.mask.shape, np.uint8)
    heading, reach = rng.uniform(0, 2 * np.pi), max(scene.width, scene.height)
    width = rng.uniform(0.03, 0.07) * scene.px_per_mm
    steps = np.linspace(0, 1, 12)
    for _ in range(int(min(3 + rng.gamma(1.1, 9), 60))):
        at = rng.uniform(-0.1, 1.1, 2) * [scene.width, scene.height]
        length = rng.uniform(0.15, 0.8) * reach
        turn = heading + rng.normal(0, 0.5) + rng.normal(0, 0.9) * steps
        path = at + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], -1), 0) * length / 12
        thick = width * rng.uniform(0.6, 1.3)
        cv2.polylines(
            layer, [np.round(path * 16).astype(np.int32)], False,
            int(np.clip(255 * thick, 90, 255)), max(1, round(thick)), cv2.LINE_AA, 4,
        )  # fmt: skip
    color = [(0.07, 0.05, 0.04), (0.16, 0.1, 0.06), (0.36, 0.25, 0.15), (0.75, 0.72, 0.68)]
    pick = rng.choice(4, p=[0.4, 0.35, 0.18, 0.07])
    scene.lay(layer, color[pick], rng.uniform(0.6, 0.92))


def _draw_uneven_light(scene: _Scene) -> None:
    rng = scene.rng
    strength = rng.uniform(0.03, 0.12) if scene.style == "dermoscopy" else rng.uniform(0.08, 0.3)
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, 48, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, 36, dtype=np.float32)[:, None]
    slope = np.cos(angle) * x + np.sin(angle) * y
    bend = _clouds(rng, (2, 3), (36, 48))
    light = 1 + strength * (0.8 * slope + 0.18 * bend)
    light /= np.median(light)
    light = cv2.resize(light.astype(np.float32), (scene.width, scene.height))
    scene.rgb *= light[..., None]


def _draw_color_cast(scene: _Scene) -> None:
    spread = 0.035 if scene.style == "dermoscopy" else 0.06
    # Lamps differ from warm to cool far more than from green to magenta.
    warm, green, bright = scene.rng.normal(0, 1, 3) * [spread, 0.35 * spread, 0.05]
    cast = np.exp(bright + np.array([warm, green, -warm]))
    scene.rgb *= cast.astype(np.float32)


def _draw_vignette(scene: _Scene) -> None:
    """The dark corners of a lens, or the black rim of a dermoscope's round opening."""
    rng = scene.rng
    middle = np.array([scene.width, scene.height]) * (0.5 + rng.uniform(-0.03, 0.03, 2))
    x = np.arange(scene.width, dtype=np.float32)[None, :] - middle[0]
    y = np.arange(scene.height, dtype=np.float32)[:, None] - middle[1]
    away = np.sqrt(x * x + y * y) / np.float32(np.hypot(scene.width, scene.height) / 2)
    if scene.style == "dermoscopy" and rng.random() < 0.4:
        outside = _smoothstep(away, *(rng.uniform(0.84, 0.97) + np.array([0, 0.03])))
        scene.rgb *= (1 - 0.97 * outside)[..., None]
    else:
        scene.rgb *= (1 - rng.uniform(0.2, 0.65) * _smoothstep(away, 0.45, 1.1))[..., None]


def _draw_blur(scene: _Scene) -> None:
    sigma = scene.rng.uniform(0.5, 1.5) * scene.unit
    scene.rgb = cv2.GaussianBlur(scene.rgb, (0, 0), sigma)


def _draw_motion_blur(scene: _Scene) -> None:
    length = max(3, round(scene.rng.uniform(3, 8) * scene.unit)) | 1
    angle = scene.rng.uniform(0, np.pi)
    kernel = np.zeros((length, length), np.uint8)
    half = length // 2
    reach = np.array([np.cos(angle), np.sin(angle)]) * half
    cv2.line(kernel, _fixed(half - reach), _fixed(half + reach), 255, 1, cv2.LINE_AA, 4)
    weights = kernel.astype(np.float32) / kernel.sum()
    scene.rgb = cv2.filter2D(scene.rgb, -1, weights)


def _draw_noise(scene: _Scene) -> None:
    rng = scene.rng
    sigma = rng.uniform(0.004, 0.014) if scene.style == "dermoscopy" else rng.uniform(0.006, 0.024)
    # One field, read at three offsets: as good as three, at a third of the time.
    field = rng.standard_normal((scene.height + 7, scene.width + 7), dtype=np.float32)
    field *= np.float32(sigma)
    for channel, shift in enumerate((0, 3, 7)):
        scene.rgb[..., channel] += field[
            shift : shift + scene.height, 7 - shift : 7 - shift + scene.width
        ]


_DRAWN_OVER = {
    "background": _draw_background,
    "bubbles": _draw_bubbles,
    "ruler": _draw_ruler,
    "hair": _draw_hair,
    "uneven_light": _draw_uneven_light,
    "color_cast": _draw_color_cast,
    "vignette": _draw_vignette,
    "blur": _draw_blur,
    "motion_blur": _draw_motion_blur,
    "noise": _draw_noise,
}


# ---------------------------------------------------------------------------------------- data set

_SITES = ("face", "scalp", "neck", "chest", "abdomen", "back", "upper extremity", "lower extremity")
_COLUMNS = (
    "id", "image", "mask", "diagnosis", "lesion_id", "patient_id", "age", "sex", "site",
    "skin_type", "licence", "malignant", "split",
)  # fmt: skip


def write_data_set(
    root: str | Path,
    count: int,
    seed: int = 0,
    styles: tuple[str, ...] = ("dermoscopy",),
    size: tuple[int, int] = (384, 512),
) -> None:
    """Write `count` drawn pictures as a data set in the layout that the reader 'csv' takes.

    `root` gets images/*.jpg, masks/*.png, data.csv and `MARKER`, which says that the pictures are
    drawn. About three lesions in ten have two or three pictures, some patients several lesions.
    A run that was stopped goes on where it stopped; all classes are there from `count` 8 on.

    Raises
    ------
    UserError
        In one line, when `root` holds something else or pictures made with other settings.
    ValueError
        When a setting is out of its range.
    """
    root = Path(root)
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}")
    if not styles:
        raise ValueError(f"styles must name at least one of {', '.join(STYLES)}")
    for style in styles:
        _check(seed, style, size, None, 0, None)
    settings = {"version": VERSION, "count": count, "seed": seed, "styles": list(styles),
                "size": list(size)}  # fmt: skip
    _claim(root, settings)
    rows = _plan(count, seed, styles)
    for row in tqdm(rows, desc="drawing lesions", unit="picture", disable=None):
        image, mask = root / row["image"], root / row["mask"]
        # Files are written atomically, the mask last: where it is, both are whole.
        if mask.is_file() and image.is_file():
            continue
        sample = draw(
            row["seed"], row["style"], size, row["diagnosis"], view=row["view"], ita=row["ita"]
        )
        jpeg = [cv2.IMWRITE_JPEG_QUALITY, 92]
        write_atomic(image, cv2.imencode(".jpg", sample.image[..., ::-1], jpeg)[1].tobytes())
        mask_image = sample.mask.astype(np.uint8) * 255
        write_atomic(mask, cv2.imencode(".png", mask_image)[1].tobytes())
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(root / "data.csv", table.getvalue())


def _claim(root: Path, settings: dict) -> None:
    """Make the folders and the marker, or make sure that what is there is the same data set."""
    marker = root / MARKER
    try:
        found = json.loads(marker.read_text())["settings"]
    except FileNotFoundError:
        if root.is_dir() and any(root.iterdir()):
            raise UserError(
                f"{root} is not empty and holds no drawn pictures; choose another folder"
            ) from None
        found = None
    except (ValueError, KeyError, TypeError):
        found = {}
    if found is not None and found != settings:
        raise UserError(
            f"{root} holds pictures drawn with other settings ({json.dumps(found)}, asked for "
            f"{json.dumps(settings)}); delete it or choose another folder"
        )
    for folder in (root / "images", root / "masks"):
        folder.mkdir(parents=True, exist_ok=True)
    if found is None:
        note = "Drawn by dermedge.procedural; not photographs. Not for use on real skin."
        content = {"procedural": True, "note": note, "settings": settings}
        write_atomic(marker, json.dumps(content, indent=2) + "\n")


def _plan(count: int, seed: int, styles: tuple[str, ...]) -> list[dict]:
    """What each picture shows: one dict a picture, a function of the arguments alone."""
    rng = np.random.default_rng([seed, 6])
    names, shares = list(LOOKS), _shares()
    made = np.zeros(len(names))
    rows: list[dict] = []
    patients: list[dict] = []
    lesion = 0
    while len(rows) < count:
        # Each class once, then whichever is furthest behind its share.
        behind = np.where(made == 0, np.inf, shares * (made.sum() + 1) - made)
        pick = int(np.argmax(behind))
        made[pick] += 1
        label = names[pick]
        if patients and rng.random() < 0.25:
            patient = patients[rng.integers(len(patients))]
        else:
            look = LOOKS[label]
            ita = _random_ita(rng, look)
            patient = {
                "patient_id": f"patient_{len(patients):05d}",
                "age": round(float(np.clip(rng.normal(np.mean(look.ages), np.ptp(look.ages) / 4),
                                           3, 95))),
                "sex": str(rng.choice(["female", "male"])),
                "skin_type": skin_type(ita),
                "ita": round(ita, 1),
            }  # fmt: skip
            patients.append(patient)
        site, style = str(rng.choice(_SITES)), str(rng.choice(styles))
        views = int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1])) if lesion >= len(names) else 1
        for view in range(min(views, count - len(rows))):
            name = f"drawn_{len(rows):05d}"
            rows.append({
                **patient, "id": name, "image": f"images/{name}.jpg", "mask": f"masks/{name}.png",
                "diagnosis": label, "lesion_id": f"lesion_{lesion:05d}", "site": site,
                "licence": LICENCE, "malignant": label in MALIGNANT, "split": "",
                "style": style, "view": view, "seed": seed * 1_000_003 + lesion,
            })  # fmt: skip
        lesion += 1
    return rows
