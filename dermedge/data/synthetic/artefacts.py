"""What lies over skin and lesion: hair, bubbles and a ruler, the light, the lens and its noise."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dermedge.data.synthetic.looks import tone_on
from dermedge.data.synthetic.skin import clouds, fixed, smoothstep

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


class Scene:
    """What the artefacts are drawn on: `rgb` float32 (h, w, 3), 0 to 1."""

    def __init__(
        self,
        rng: np.random.Generator,
        lab: np.ndarray,
        mask: np.ndarray,
        centre: np.ndarray,
        px_per_mm: float,
        style: str,
    ) -> None:
        self.rng, self.lab, self.mask, self.centre = rng, lab, mask, centre
        self.px_per_mm, self.style = px_per_mm, style
        self.height, self.width = mask.shape
        self.unit = max(mask.shape) / 512  # artefacts of the lens grow with the picture
        self.rgb = lab

    def lay(
        self, layer: np.ndarray, color: Sequence[float] | np.ndarray, strength: float = 1.0
    ) -> None:
        """Mix an RGB colour in, by a uint8 layer of alpha."""
        x, y, width, height = cv2.boundingRect(layer)
        if width == 0:
            return
        part = self.rgb[y : y + height, x : x + width]
        alpha = layer[y : y + height, x : x + width, None] * np.float32(strength / 255)
        part += alpha * (np.asarray(color, np.float32) - part)


def draw_freckles(scene: Scene, skin: np.ndarray) -> None:
    """Draw freckles into CIELAB `scene.lab`, outside the lesion; `skin` is the mean, (3,)."""
    rng = scene.rng
    count = int(rng.integers(2, 7) if scene.style == "dermoscopy" else rng.integers(4, 45))
    layer: np.ndarray = np.zeros(scene.mask.shape, np.uint8)
    for _ in range(count):
        at = rng.uniform(0, 1, 2) * [scene.width, scene.height]
        radius = max(0.8, rng.uniform(0.25, 1.1) * scene.px_per_mm)
        axes = (radius, radius * rng.uniform(0.6, 1))
        cv2.ellipse(
            layer, fixed(at), fixed(axes), rng.uniform(0, 180), 0, 360,
            int(rng.integers(70, 200)), -1, cv2.LINE_AA, 4,
        )  # fmt: skip
    layer = cv2.GaussianBlur(layer, (0, 0), max(0.8, 0.25 * scene.px_per_mm))
    layer[scene.mask] = 0
    alpha = layer[..., None] * np.float32(rng.uniform(0.4, 0.9) / 255)
    scene.lab += alpha * (tone_on("light_brown", skin) - skin)


def _draw_background(scene: Scene) -> None:
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
    behind = smoothstep(way, edge, edge + 0.012)[..., None]
    shade = 1 - 0.55 * smoothstep(way, edge - 0.3, edge + 0.02)
    scene.rgb *= shade[..., None]
    tone = rng.uniform(0.15, 0.9) + rng.normal(0, 0.05, 3)
    folds = 0.03 * clouds(rng, (4, 6), scene.mask.shape)
    behind[scene.mask] = 0
    scene.rgb += behind * (
        np.clip(tone, 0.03, 0.97).astype(np.float32) + folds[..., None] - scene.rgb
    )


def _draw_bubbles(scene: Scene) -> None:
    rng = scene.rng
    rim, inner, glint = (np.zeros(scene.mask.shape, np.uint8) for _ in range(3))
    middle = rng.uniform(0.1, 0.9, 2) * [scene.width, scene.height]
    for _ in range(int(rng.integers(3, 22))):
        at = middle + rng.normal(0, 0.18, 2) * [scene.width, scene.height]
        radius = (3 + rng.gamma(1.6, 6)) * scene.unit
        line = max(1, round(0.14 * radius))
        cv2.circle(inner, fixed(at), round(radius * 16), 255, -1, cv2.LINE_AA, 4)
        cv2.circle(rim, fixed(at), round(radius * 16), 190, line, cv2.LINE_AA, 4)
        spot = at + radius * np.array([-0.45, -0.45])
        cv2.circle(glint, fixed(spot), round(radius * 2.6), 255, -1, cv2.LINE_AA, 4)
    scene.lay(inner, (1.0, 0.97, 0.94), 0.07)
    scene.lay(cv2.GaussianBlur(rim, (0, 0), 1.0 * scene.unit), (0.12, 0.08, 0.07), 0.35)
    scene.lay(cv2.GaussianBlur(glint, (0, 0), 0.8 * scene.unit), (1.0, 1.0, 0.98), 0.85)


def _draw_ruler(scene: Scene) -> None:
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
            layer, fixed(ends[0]), fixed(ends[1]), 255, max(1, round(1.4 * scene.unit)),
            cv2.LINE_AA, 4,
        )  # fmt: skip
    scene.lay(layer, (0.08, 0.08, 0.1), 0.85)


def hair(
    rng: np.random.Generator, size: tuple[int, int], px_per_mm: float
) -> tuple[np.ndarray, tuple[float, float, float], float]:
    """Hair for a picture of `size` (height, width) px.

    Returns
    -------
    Where it lies, uint8 (height, width) of alpha; its RGB colour, 0 to 1; its strength, 0 to 1.
    """
    height, width = size
    layer = np.zeros(size, np.uint8)
    heading, reach = rng.uniform(0, 2 * np.pi), max(size)
    thickness = rng.uniform(0.03, 0.07) * px_per_mm
    steps = np.linspace(0, 1, 12)
    for _ in range(int(min(3 + rng.gamma(1.1, 9), 60))):
        at = rng.uniform(-0.1, 1.1, 2) * [width, height]
        length = rng.uniform(0.15, 0.8) * reach
        turn = heading + rng.normal(0, 0.5) + rng.normal(0, 0.9) * steps
        path = at + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], -1), 0) * length / 12
        thick = thickness * rng.uniform(0.6, 1.3)
        cv2.polylines(
            layer, [np.round(path * 16).astype(np.int32)], False,
            int(np.clip(255 * thick, 90, 255)), max(1, round(thick)), cv2.LINE_AA, 4,
        )  # fmt: skip
    colors = [(0.07, 0.05, 0.04), (0.16, 0.1, 0.06), (0.36, 0.25, 0.15), (0.75, 0.72, 0.68)]
    pick = rng.choice(4, p=[0.4, 0.35, 0.18, 0.07])
    return layer, colors[pick], rng.uniform(0.6, 0.92)


def _draw_hair(scene: Scene) -> None:
    scene.lay(*hair(scene.rng, scene.mask.shape, scene.px_per_mm))


def _draw_uneven_light(scene: Scene) -> None:
    rng = scene.rng
    strength = rng.uniform(0.03, 0.12) if scene.style == "dermoscopy" else rng.uniform(0.08, 0.3)
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, 48, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, 36, dtype=np.float32)[:, None]
    slope = np.cos(angle) * x + np.sin(angle) * y
    bend = clouds(rng, (2, 3), (36, 48))
    light = 1 + strength * (0.8 * slope + 0.18 * bend)
    light /= np.median(light)
    light = cv2.resize(light.astype(np.float32), (scene.width, scene.height))
    scene.rgb *= light[..., None]


def _draw_color_cast(scene: Scene) -> None:
    spread = 0.035 if scene.style == "dermoscopy" else 0.06
    # Lamps differ from warm to cool far more than from green to magenta.
    warm, green, bright = scene.rng.normal(0, 1, 3) * [spread, 0.35 * spread, 0.05]
    cast = np.exp(bright + np.array([warm, green, -warm]))
    scene.rgb *= cast.astype(np.float32)


def _draw_vignette(scene: Scene) -> None:
    """The dark corners of a lens, or the black rim of a dermoscope's round opening."""
    rng = scene.rng
    middle = np.array([scene.width, scene.height]) * (0.5 + rng.uniform(-0.03, 0.03, 2))
    x = np.arange(scene.width, dtype=np.float32)[None, :] - middle[0]
    y = np.arange(scene.height, dtype=np.float32)[:, None] - middle[1]
    away = np.sqrt(x * x + y * y) / np.float32(np.hypot(scene.width, scene.height) / 2)
    if scene.style == "dermoscopy" and rng.random() < 0.4:
        outside = smoothstep(away, *(rng.uniform(0.84, 0.97) + np.array([0, 0.03])))
        scene.rgb *= (1 - 0.97 * outside)[..., None]
    else:
        scene.rgb *= (1 - rng.uniform(0.2, 0.65) * smoothstep(away, 0.45, 1.1))[..., None]


def _draw_blur(scene: Scene) -> None:
    sigma = scene.rng.uniform(0.5, 1.5) * scene.unit
    scene.rgb = cv2.GaussianBlur(scene.rgb, (0, 0), sigma)


def _draw_motion_blur(scene: Scene) -> None:
    length = max(3, round(scene.rng.uniform(3, 8) * scene.unit)) | 1
    angle = scene.rng.uniform(0, np.pi)
    kernel = np.zeros((length, length), np.uint8)
    half = length // 2
    reach = np.array([np.cos(angle), np.sin(angle)]) * half
    cv2.line(kernel, fixed(half - reach), fixed(half + reach), 255, 1, cv2.LINE_AA, 4)
    weights = kernel.astype(np.float32) / kernel.sum()
    scene.rgb = cv2.filter2D(scene.rgb, -1, weights)


def _draw_noise(scene: Scene) -> None:
    rng = scene.rng
    sigma = rng.uniform(0.004, 0.014) if scene.style == "dermoscopy" else rng.uniform(0.006, 0.024)
    # One field, read at three offsets: as good as three, at a third of the time.
    field = rng.standard_normal((scene.height + 7, scene.width + 7), dtype=np.float32)
    field *= np.float32(sigma)
    for channel, shift in enumerate((0, 3, 7)):
        scene.rgb[..., channel] += field[
            shift : shift + scene.height, 7 - shift : 7 - shift + scene.width
        ]


DRAWN_OVER = {
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
