"""Bare skin, and the noise, mesh and fixed point that lesions and artefacts are drawn with too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

ITA_RANGE = (-50.0, 70.0)


def skin_lab(ita: float, rng: np.random.Generator) -> np.ndarray:
    """CIELAB (3,) of skin with this angle: ITA = atan((L* - 50) / b*)."""
    yellow = np.interp(ita, [-50, -30, 10, 28, 41, 55, 70], [13, 17, 20, 19, 17.5, 15, 10.5])
    yellow *= rng.uniform(0.92, 1.08)
    red = np.interp(ita, [-50, -20, 15, 45, 70], [9, 12, 12.5, 10, 7.5]) + rng.uniform(-1.5, 1.5)
    return np.array([50 + yellow * np.tan(np.radians(ita)), red, yellow], np.float32)


def skin_type(ita: float) -> int:
    """Skin type 1 to 6 from ITA, limits of Del Bino & Bernerd, Br. J. Dermatol. 169, 2013."""
    return 1 + sum(ita <= limit for limit in (55, 41, 28, 10, -30))


def draw_skin(
    rng: np.random.Generator, skin: np.ndarray, size: tuple[int, int], px_per_mm: float
) -> np.ndarray:
    """Bare skin: float32 (h, w, 3) CIELAB whose mean is `skin`."""
    height, width = size
    lab = np.empty((height, width, 3), np.float32)
    strength = rng.uniform(0.5, 1.3)
    light = strength * (0.9 * clouds(rng, (3, 4), size) + 0.9 * clouds(rng, (18, 24), size))
    angle, cell = rng.uniform(0, np.pi), rng.uniform(0.45, 0.8)
    stretch = np.diag([1.0, rng.uniform(1.0, 1.6)])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.hstack([stretch @ turn / px_per_mm, np.zeros((2, 1))])
    # Where furrows are finer than two pixels they only alias.
    seen = float(np.clip(cell * px_per_mm / 5, 0.0, 1.0))
    furrows = sample_mesh(size, matrix, max(cell, 3 / px_per_mm), 0.45, rng)
    broken = smoothstep(clouds(rng, (7, 9), size), -1.2, 1.2)
    light -= rng.uniform(0.6, 3.0) * seen * broken * (furrows - 0.28)
    grain = rng.standard_normal((height // 2 + 1, width // 2 + 1), dtype=np.float32)
    light += rng.uniform(0.4, 1.1) * cv2.resize(grain, (width, height))
    lab[..., 0] = skin[0] + light
    lab[..., 1] = skin[1] + strength * 1.1 * clouds(rng, (5, 7), size) - 0.15 * light
    lab[..., 2] = skin[2] + strength * 0.7 * clouds(rng, (4, 5), size)
    return lab


# ------------------------------------------------------------------------------------ fields, tiles


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 at `low` and below, 1 at `high` and above, smooth between (cubic); float32."""
    t = np.clip((values - low) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def clouds(rng: np.random.Generator, cells: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
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
    mesh: np.ndarray = np.exp(-((distance[middle, middle] / (0.16 * step)) ** 2)).astype(np.float32)
    return mesh


def sample_mesh(
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


def fixed(values: Sequence[float] | np.ndarray) -> tuple[int, int]:
    """To OpenCV's fixed point with 4 fractional bits."""
    return round(float(values[0]) * 16), round(float(values[1]) * 16)
