"""The lesion: its outline, its body, and the structures that are typical of its class."""

from __future__ import annotations

import cv2
import numpy as np

from dermedge.data.synthetic.looks import tone_on
from dermedge.data.synthetic.skin import fixed, sample_mesh, smoothstep


def outline(rng: np.random.Generator, asymmetry: float, border: float) -> np.ndarray:
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
    distances: np.ndarray = (radius / extent).astype(np.float32)
    return distances


class Lesion:
    """The lesion on the canvas: everything is placed in mm from its middle, then seen by a view."""

    def __init__(
        self,
        seed: int,
        lab: np.ndarray,
        skin: np.ndarray,
        radius: np.ndarray,
        centre: np.ndarray,
        angle: float,
        scale: float,
        diameter: float,
    ) -> None:
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
        mesh = sample_mesh(self.shape, self.to_mm.copy(), cell, jitter, rng)
        seen = float(np.clip(cell * self.scale / 4, 0, 1))
        return mesh * seen + 0.4 * (1 - seen)

    def spots(
        self,
        rng: np.random.Generator,
        count: int,
        size: tuple[float, float],
        where: tuple[float, float] = (0.0, 0.9),
        long: float = 1.0,
    ) -> np.ndarray:
        """Soft ellipses inside the lesion: float32 0 to 1. `size` in mm, `where` in rho."""
        at = self.places(rng, count, where)
        radii = rng.uniform(*size, count) * self.scale
        stretch, turns = rng.uniform(1, long, count), rng.uniform(0, 180, count)
        layer = np.zeros(self.shape, np.uint8)
        for (x, y), radius, ratio, angle in zip(at, radii, stretch, turns, strict=True):
            axes = (max(radius * ratio, 0.5), max(radius / ratio, 0.5))
            cv2.ellipse(
                layer, fixed((x, y)), fixed(axes), angle + np.degrees(self._angle()), 0, 360,
                255, -1, cv2.LINE_AA, 4,
            )  # fmt: skip
        return self._soft(layer, 0.3 * float(radii.mean()))

    def places(
        self, rng: np.random.Generator, count: int, where: tuple[float, float] = (0.0, 0.9)
    ) -> np.ndarray:
        """Random places inside the lesion as px (count, 2), even over the area."""
        angles = rng.uniform(0, 2 * np.pi, count)
        share = np.sqrt(rng.uniform(where[0] ** 2, where[1] ** 2, count))
        return self.polar(angles, share)

    def polar(self, angles: np.ndarray, share: np.ndarray | float) -> np.ndarray:
        """px (n, 2) of the points at these angles and shares of the way to the border."""
        index = (np.asarray(angles) * (1024 / (2 * np.pi))).astype(int) & 1023
        reach = self.radius[index] * share
        points = np.stack([np.cos(angles) * reach, np.sin(angles) * reach], -1)
        pixels: np.ndarray = points @ self.turn * self.scale + self.middle - 0.5
        return pixels

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

    def blob(
        self,
        rng: np.random.Generator,
        where: tuple[float, float] = (0.0, 0.6),
        size: tuple[float, float] = (0.35, 0.6),
        ragged: float = 0.35,
    ) -> np.ndarray:
        """One soft-edged patch with a ragged border, `size` as share of the lesion's radius."""
        angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(*where)
        reach = self.radius[int(angle * 1024 / (2 * np.pi)) & 1023] * share
        x, y = reach * np.cos(angle), reach * np.sin(angle)
        away = np.sqrt((self.x - x) ** 2 + (self.y - y) ** 2) / (self.size * rng.uniform(*size))
        return 1 - smoothstep(away + ragged * self.clouds(rng, 5), 0.5, 1.3)

    def tone(self, name: str, light: float = 0, red: float = 0, yellow: float = 0) -> np.ndarray:
        """A lesion colour on this skin, or 'skin', moved by so much in L*, a*, b*: (3,)."""
        base = self.skin if name == "skin" else tone_on(name, self.skin)
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
        tones = [tone_on(name, self.skin) + shift[i] for i, name in enumerate(palette)]
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
        alpha = smoothstep(self.depth + fray, -0.5 * edge, 0.5 * edge)[..., None]
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


# ------------------------------------------------------------------------------------- structures


def _network(lesion: Lesion, rng: np.random.Generator) -> None:
    mesh = lesion.mesh(rng, rng.uniform(0.28, 0.45), 0.3)
    patchy = smoothstep(lesion.clouds(rng, 4), -1.3, 0.6)
    fade = 1 - smoothstep(lesion.rho, 0.7, 1.0)
    lesion.darken(rng.uniform(0.22, 0.42) * mesh * patchy * fade)


def _peripheral_network(lesion: Lesion, rng: np.random.Generator) -> None:
    mesh = lesion.mesh(rng, rng.uniform(0.28, 0.4), 0.15)
    ring = smoothstep(lesion.rho, 0.4, 0.65) * (1 - smoothstep(lesion.rho, 0.85, 1.0))
    lesion.darken(rng.uniform(0.18, 0.32) * mesh * ring)


def _globules(lesion: Lesion, rng: np.random.Generator) -> None:
    count = int(np.clip(lesion.diameter**2 * rng.uniform(0.8, 2.2), 12, 110))
    lesion.darken(rng.uniform(0.25, 0.45) * lesion.spots(rng, count, (0.09, 0.2), (0, 0.88), 1.3))


def _dark_dots(lesion: Lesion, rng: np.random.Generator) -> None:
    spots = lesion.spots(rng, int(rng.integers(6, 30)), (0.06, 0.18), (0.3, 0.95))
    lesion.darken(rng.uniform(0.45, 0.7) * spots)


def _streaks(lesion: Lesion, rng: np.random.Generator) -> None:
    start = rng.uniform(0, 2 * np.pi)
    angles = start + np.sort(rng.uniform(0, rng.uniform(1.2, 4.5), int(rng.integers(8, 26))))
    paths = []
    for angle in angles:
        inner, outer = rng.uniform(0.6, 0.8), rng.uniform(0.9, 1.0)
        bend = np.linspace(0, rng.uniform(-0.06, 0.06), 5)
        paths.append(lesion.polar(angle + bend, np.linspace(inner, outer, 5)))
    widths = list(rng.uniform(0.07, 0.2, len(paths)))
    lesion.darken(0.5 * lesion.lines(paths, widths))


def _veil(lesion: Lesion, rng: np.random.Generator) -> None:
    color = lesion.tone("blue_gray", rng.uniform(0, 14), 0, 0)
    lesion.paint(rng.uniform(0.5, 0.85) * lesion.blob(rng, (0, 0.5), (0.4, 0.75)), color)


def _regression(lesion: Lesion, rng: np.random.Generator) -> None:
    area = lesion.blob(rng, (0.2, 0.7), (0.25, 0.5))
    lesion.paint(0.7 * area, lesion.tone("skin", 9, -1, -5))
    pepper = lesion.spots(rng, 60, (0.04, 0.08))
    lesion.paint(0.6 * pepper * area, lesion.tone("blue_gray"))


def _milia_cysts(lesion: Lesion, rng: np.random.Generator) -> None:
    spots = lesion.spots(rng, int(rng.integers(5, 26)), (0.07, 0.2))
    lesion.paint(rng.uniform(0.5, 0.85) * spots, lesion.tone("skin", 16, -3, -4))


def _comedones(lesion: Lesion, rng: np.random.Generator) -> None:
    spots = lesion.spots(rng, int(rng.integers(5, 20)), (0.1, 0.3), (0, 0.85), 1.4)
    lesion.paint(rng.uniform(0.55, 0.8) * spots, lesion.tone("dark_brown", -5))


def _fissures(lesion: Lesion, rng: np.random.Generator) -> None:
    mesh = lesion.mesh(rng, rng.uniform(0.7, 1.3), 0.45)
    broken = smoothstep(lesion.clouds(rng, 6), -0.8, 0.5)
    lesion.darken(rng.uniform(0.2, 0.45) * mesh * broken)


def _arborizing_vessels(lesion: Lesion, rng: np.random.Generator) -> None:
    paths: list[np.ndarray] = []
    widths: list[float] = []
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
    fade = 1 - smoothstep(lesion.rho, 0.85, 1.1)
    lesion.paint(rng.uniform(0.55, 0.9) * lesion.lines(paths, widths) * fade, color)


def _ovoid_nests(lesion: Lesion, rng: np.random.Generator) -> None:
    spots = lesion.spots(rng, int(rng.integers(3, 12)), (0.2, 0.55), (0.1, 0.85), 1.5)
    lesion.paint(rng.uniform(0.55, 0.9) * spots, lesion.tone("blue_gray"))


def _ulcer(lesion: Lesion, rng: np.random.Generator) -> None:
    area = lesion.blob(rng, (0, 0.5), (0.2, 0.4), 0.5)
    lesion.paint(0.85 * area, lesion.tone("red", -14, -4, 4))
    crust = area * smoothstep(lesion.clouds(rng, 12), 0.1, 0.9)
    lesion.paint(0.7 * crust, lesion.tone("dark_brown"))


def _pearl_rim(lesion: Lesion, rng: np.random.Generator) -> None:
    rim = smoothstep(lesion.rho, 0.66, 0.84) * (1 - smoothstep(lesion.rho, 0.88, 1.0))
    broken = smoothstep(lesion.clouds(rng, 5), -0.9, 0.6)
    lesion.paint(0.55 * rim * broken, lesion.tone("skin", 9, 2, -5))


def _strawberry(lesion: Lesion, rng: np.random.Generator) -> None:
    mesh = lesion.mesh(rng, rng.uniform(0.5, 0.8), 0.35)
    lesion.lab[..., 1] += rng.uniform(5, 10) * (mesh - 0.25)
    lesion.lab[..., 0] += rng.uniform(4, 8) * (0.3 - mesh)
    follicles = lesion.spots(rng, int(rng.integers(15, 45)), (0.09, 0.17))
    lesion.paint(0.45 * follicles, lesion.tone("skin", 9, -2, 3))


def _scales(lesion: Lesion, rng: np.random.Generator) -> None:
    flakes = smoothstep(lesion.clouds(rng, 16) + 0.7 * lesion.clouds(rng, 5), 0.3, 1.9)
    color = lesion.tone("skin", rng.uniform(8, 16), -4, rng.uniform(-6, 3))
    lesion.paint(rng.uniform(0.4, 0.75) * flakes * (lesion.rho < 0.95), color)


def _dot_vessels(lesion: Lesion, rng: np.random.Generator) -> None:
    spots = lesion.spots(rng, int(rng.integers(25, 80)), (0.04, 0.1), (0.2, 0.95), 1.8)
    lesion.paint(rng.uniform(0.5, 0.8) * spots, lesion.tone("red", -8, 6, 2))


def _pale_centre(lesion: Lesion, rng: np.random.Generator) -> None:
    pale = 1 - smoothstep(lesion.rho + 0.12 * lesion.clouds(rng, 5), 0.15, rng.uniform(0.5, 0.7))
    lesion.paint(rng.uniform(0.6, 0.9) * pale, lesion.tone("skin", 9, 0, -6))


def _keratin(lesion: Lesion, rng: np.random.Generator) -> None:
    area = lesion.blob(rng, (0, 0.3), (0.3, 0.65), 0.45)
    color = lesion.tone("skin", rng.uniform(2, 12), -5, rng.uniform(-1, 7))
    lesion.paint(0.9 * area, color)
    lesion.lab[..., 0] += area * 5 * lesion.clouds(rng, 14)


def _lacunae(lesion: Lesion, rng: np.random.Generator) -> None:
    for name in ("red", "purple"):
        spots = lesion.spots(rng, int(rng.integers(5, 18)), (0.2, 0.5), (0, 0.8), 1.4)
        color = lesion.tone(name, rng.uniform(-14, 0), rng.uniform(-2, 6), 0)
        lesion.paint(rng.uniform(0.6, 0.9) * spots, color)


STRUCTURES = {
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
