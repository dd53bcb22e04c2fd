"""Pictures that show no lesion: drawn, or cut from pictures of skin or from photographs.

Every function takes a generator alone, or with pictures, and gives uint8 (h, w, 3) RGB. The kinds
are drawn by other means than those of `benchmarks.corruptions.out_of_distribution`, which measure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

SIDE = 288  # px, of drawn pictures
MARGIN = 0.05  # of the long side, about an outline: outlines are tight, and lesions fade
SMALLEST = 0.22  # of the short side, of a cutting beside the lesion
ATTEMPTS = 40  # places that are tried for a cutting

Drawing = Callable[[np.random.Generator], np.ndarray]


def beside(picture: np.ndarray, lesion: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A square cut from beside the lesion, as large as a few random places allow.

    Parameters
    ----------
    picture : uint8 (h, w, 3) RGB.
    lesion : bool (h, w).

    Returns
    -------
    uint8 (s, s, 3); None where no place was free.
    """
    height, width = lesion.shape
    reach = round(MARGIN * max(height, width))
    near = cv2.dilate(lesion.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8))
    taken = cv2.integral(near)
    best: tuple[int, int, int] | None = None
    for _ in range(ATTEMPTS):
        side = int(rng.uniform(SMALLEST, 0.75) * min(height, width))
        top, left = (int(rng.integers(0, n - side + 1)) for n in (height, width))
        bottom, right = top + side, left + side
        inside = taken[bottom, right] - taken[top, right] - taken[bottom, left] + taken[top, left]
        if inside == 0 and (best is None or side > best[2]):
            best = top, left, side
    if best is None or best[2] < 24:
        return None
    top, left, side = best
    return picture[top : top + side, left : left + side]


def cutting(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square of uint8 (h, w, 3) RGB, 0.3 to 1.0 of its short side, uint8 (s, s, 3)."""
    height, width = picture.shape[:2]
    side = max(1, int(rng.uniform(0.3, 1.0) * min(height, width)))
    top, left = (int(rng.integers(0, n - side + 1)) for n in (height, width))
    return picture[top : top + side, left : left + side]


def retaken(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture as another photograph of the same lesion might be: still a good one.

    Nearer by up to a quarter, lighter or darker, tinted, every second one less sharp.
    """
    height, width = picture.shape[:2]
    share = rng.uniform(0.75, 1.0)
    down, across = max(1, int(height * share)), max(1, int(width * share))
    top, left = (int(rng.integers(0, n)) for n in (height - down + 1, width - across + 1))
    light = rng.uniform(0.75, 1.25) * rng.uniform(0.93, 1.07, 3)
    view = _finished(picture[top : top + down, left : left + across] * light)
    if rng.random() < 0.5:
        # In proportion: the networks see all pictures at one size.
        view = cv2.GaussianBlur(view, (0, 0), rng.uniform(0.3, 1.2) * max(view.shape) / 300)
    return view


def _noise(rng: np.random.Generator, power: float, channels: int = 1) -> np.ndarray:
    """float (SIDE, SIDE, channels) of spectrum 1 / f^power, mean 0, deviation 1."""
    f = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    f[0, 0] = 1
    planes = []
    for _ in range(channels):
        spectrum = np.fft.rfft2(rng.normal(size=(SIDE, SIDE))) / f**power
        spectrum[0, 0] = 0
        plane = np.fft.irfft2(spectrum, (SIDE, SIDE))
        planes.append(plane / plane.std())
    return np.stack(planes, axis=2)


def _finished(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def blank(rng: np.random.Generator) -> np.ndarray:
    """One colour, with a gradient and a little noise, or noise alone."""
    ramp = np.linspace(-1, 1, SIDE)
    slope = rng.uniform(-50, 50, (2, 3)) * (rng.random() < 0.6)
    flat = rng.uniform(0, 256, 3) + ramp[:, None, None] * slope[0] + ramp[None, :, None] * slope[1]
    return _finished(flat + rng.normal(size=(SIDE, SIDE, 3)) * rng.choice([0, 2, 6, 60]))


def cloud(rng: np.random.Generator) -> np.ndarray:
    """Clouds of colour, coarse or fine."""
    planes = _noise(rng, rng.uniform(0.6, 2.0), 3) @ rng.normal(size=(3, 3))
    return _finished(rng.uniform(30, 226, 3) + planes * rng.uniform(10, 45))


def weave(rng: np.random.Generator) -> np.ndarray:
    """Threads, stripes, bricks and grids, a little bent."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    bend = _noise(rng, 2.0, 2) * rng.uniform(0, 5)
    angle = rng.uniform(0, np.pi)
    u = np.cos(angle) * rows + np.sin(angle) * columns + bend[..., 0]
    v = np.cos(angle) * columns - np.sin(angle) * rows + bend[..., 1]
    a, b = rng.uniform(4, 50, 2)
    kind = rng.integers(4)
    if kind == 0:
        wave = np.abs(((u / a) % 1) - 0.5) * 4 - 1
    elif kind == 1:
        wave = np.where(((u // a) + (v // b)) % 2 > 0, 1.0, -1.0)
    elif kind == 2:
        wave = np.where(((u % a) < a * 0.12) | (((v + (u // a % 2) * b) % (2 * b)) < 3), -1.0, 0.6)
    else:
        wave = np.cos(6.28 * u / a) + np.cos(6.28 * v / b)
    colours = rng.uniform(10, 246, (2, 3))
    share = np.clip(wave[..., None] / 2 + 0.5 + _noise(rng, 1.0) * 0.08, 0, 1)
    return _finished(colours[0] * share + colours[1] * (1 - share))


def _shape(rng: np.random.Generator, size: float) -> np.ndarray:
    """Corners, int32 (n, 1, 2), of an ellipse, a rectangle or a rough polygon."""
    centre, kind = rng.uniform(-0.1, 1.1, 2) * SIDE, rng.integers(3)
    corners = 4 if kind == 1 else int(rng.integers(12, 30)) if kind else 40
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(0, 6)
    radii = size * (rng.uniform(0.5, 1.2, corners) if kind == 2 else np.ones(corners))
    points = np.stack([np.cos(angles), np.sin(angles) * rng.uniform(0.3, 1)], 1) * radii[:, None]
    turn = rng.uniform(0, np.pi)
    turned = points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (turned + centre).astype(np.int32)[:, None]


def _textured(rng: np.random.Generator) -> np.ndarray:
    """float (SIDE, SIDE, 3): one colour with a texture and light from a side."""
    ramp = np.linspace(-1, 1, SIDE)
    light = ramp[:, None] * rng.normal() + ramp[None] * rng.normal()
    texture = _noise(rng, rng.uniform(0.5, 1.8))[..., 0] * rng.choice([0, 4, 12, 30])
    shade = light * rng.uniform(0, 35) + texture
    return rng.uniform(0, 256, 3) + shade[..., None] * rng.uniform(0.7, 1.3, 3)


def leaves(rng: np.random.Generator) -> np.ndarray:
    """Shapes of all sizes over each other, as things in photographs are (dead leaves)."""
    view = _textured(rng)
    fills = [_textured(rng) for _ in range(6)]
    sizes = np.sort(SIDE * 0.06 * rng.pareto(1.5, int(rng.integers(15, 120))) + 4)[::-1]
    for size in np.minimum(sizes, SIDE * 0.6):
        mask = cv2.fillPoly(np.zeros((SIDE, SIDE), np.uint8), [_shape(rng, float(size))], 1)
        inside = mask.view(bool)
        view[inside] = fills[rng.integers(6)][inside] + rng.uniform(-60, 60, 3)
    return cv2.GaussianBlur(_finished(view), (0, 0), rng.uniform(0.4, 1.2))


def thing(rng: np.random.Generator) -> np.ndarray:
    """One or a few things with shade and parts before a plain or textured ground."""
    view = _textured(rng)
    for _ in range(int(rng.integers(1, 4))):
        outline = _shape(rng, rng.uniform(0.15, 0.45) * SIDE)
        mask = cv2.fillPoly(np.zeros((SIDE, SIDE), np.uint8), [outline], 1).view(bool)
        shadow = np.roll(mask, tuple(rng.integers(3, 14, 2)), (0, 1))
        view[shadow] *= 0.6
        view[mask] = _textured(rng)[mask]
        for _ in range(int(rng.integers(0, 6))):
            part = cv2.fillPoly(np.zeros((SIDE, SIDE), np.uint8), [_shape(rng, 30)], 1).view(bool)
            view[part & mask] = rng.uniform(0, 256, 3)
    return cv2.GaussianBlur(_finished(view), (0, 0), 0.7)


def page(rng: np.random.Generator) -> np.ndarray:
    """Lines of strokes upon paper, as print or writing."""
    view = np.full((SIDE, SIDE, 3), rng.uniform(180, 256, 3))
    view += _noise(rng, 1.5) * rng.uniform(0, 6)
    ink, height = rng.uniform(0, 110, 3), int(rng.integers(4, 18))
    for y in range(
        int(rng.integers(4, 20)), SIDE - height, int(height * rng.uniform(1.3, 2.2)) + 1
    ):
        x, end = 10, int(rng.uniform(0.3, 1) * SIDE)
        while x < end:
            width = int(rng.integers(2, height + 3))
            if rng.random() < 0.8:
                ends = [
                    (int(x + rng.integers(0, width + 1)), int(y + rng.integers(0, height + 1)))
                    for _ in range(3)
                ]
                cv2.polylines(
                    view, [np.array(ends, np.int32)], False, ink.tolist(), 1 + height // 12
                )
            x += width + 2
    turned = cv2.getRotationMatrix2D(
        (SIDE / 2, SIDE / 2), rng.uniform(-30, 30), rng.uniform(0.8, 1.8)
    )
    border = rng.uniform(0, 256, 3).tolist()
    return _finished(cv2.warpAffine(view, turned, (SIDE, SIDE), borderValue=border))


def screen(rng: np.random.Generator) -> np.ndarray:
    """Panels, bars and buttons, as a screen shows them."""
    view = np.full((SIDE, SIDE, 3), rng.choice([20.0, 128.0, 245.0]))
    accents = rng.uniform(0, 256, (4, 3))
    for _ in range(int(rng.integers(6, 40))):
        x, y = (int(v) for v in rng.integers(0, SIDE, 2))
        w, h = (int(v) for v in rng.integers(4, SIDE // 2, 2) // rng.integers(1, 6, 2))
        grey = np.repeat(rng.uniform(0, 256), 3)
        colour = accents[rng.integers(4)] if rng.random() < 0.4 else grey
        cv2.rectangle(view, (x, y), (x + w, y + h), colour.tolist(), cv2.FILLED)
    return _finished(view)


def mosaic(pictures: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Cuttings of several pictures in other colours, beside and over each other."""
    view = _textured(rng)
    for _ in range(int(rng.integers(3, 14))):
        picture = pictures[int(rng.integers(len(pictures)))]
        side = max(8, int(rng.uniform(0.08, 0.3) * min(picture.shape[:2])))
        top, left = (int(rng.integers(0, n - side + 1)) for n in picture.shape[:2])
        piece = picture[top : top + side, left : left + side].astype(np.float64)
        mixing = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
        piece = (piece - piece.mean((0, 1))) @ mixing * rng.uniform(1, 3) + rng.uniform(20, 236, 3)
        w, h = (int(v) for v in rng.integers(SIDE // 6, SIDE, 2))
        y, x = (int(v) for v in rng.integers(-40, SIDE - 20, 2))
        piece = cv2.resize(piece, (w, h))
        ys, xs = max(0, y), max(0, x)
        part = piece[ys - y : SIDE - y, xs - x : SIDE - x]
        view[ys : ys + part.shape[0], xs : xs + part.shape[1]] = part
    return _finished(view)


DRAWN: dict[str, Drawing] = {
    "blank": blank,
    "cloud": cloud,
    "weave": weave,
    "leaves": leaves,
    "thing": thing,
    "page": page,
    "screen": screen,
}
