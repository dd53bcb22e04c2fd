"""Graded ways in which a picture gets worse, for `dermedge robustness` and `dermedge quality`.

The word and the grading are those of Hendrycks & Dietterich, ICLR 2019.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from benchmarks.corruptions import out_of_distribution
from dermedge.data.synthetic.artefacts import hair
from dermedge.image.read import Picture

Corrupted = tuple[np.ndarray, "np.ndarray | None"]  # pixels, true mask
# Takes uint8 (h, w, 3) RGB, the true mask bool (H, W) or None, a level and a generator; returns
# new ones of both. The mask may have another size than the pixels, but shows the same view.
Apply = Callable[[np.ndarray, "np.ndarray | None", float, np.random.Generator], Corrupted]


@dataclass(frozen=True)
class Corruption:
    """One way in which a picture gets worse, at each of its `levels`."""

    title: str
    levels: tuple[float, ...]
    apply: Apply


def _jpeg(pixels, mask, quality, _):
    options = [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], options)
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]), mask


def _blur(pixels, mask, share, _):
    sigma = share / 1000 * max(pixels.shape[:2])
    return cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), mask


def _gains(pixels: np.ndarray, gains: Sequence[float]) -> np.ndarray:
    """Multiply the light of each channel; 2.2 is near enough to sRGB's curve."""
    linear = (np.arange(256) / 255) ** 2.2
    curves = [np.clip(linear * gain, 0, 1) ** (1 / 2.2) * 255 for gain in gains]
    table = np.stack(curves, axis=-1).round().astype(np.uint8)[None]
    return cv2.LUT(pixels, table)


def _light(pixels, mask, stops, _):
    return _gains(pixels, [2.0**stops] * 3), mask


def _cast(pixels, mask, warmth, _):
    return _gains(pixels, [warmth, 1.0, 1 / warmth]), mask


def _noise(pixels, mask, deviation, rng):
    noise = rng.normal(0, deviation, pixels.shape)
    return np.clip(pixels + noise, 0, 255).round().astype(np.uint8), mask


def _rotation(pixels, mask, degrees, _):
    def rotated(image, border):
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
        return cv2.warpAffine(image, matrix, (width, height), borderMode=border)

    if mask is not None:
        mask = rotated(mask.astype(np.uint8), cv2.BORDER_CONSTANT) > 0
    return rotated(pixels, cv2.BORDER_REPLICATE), mask


def _crop(pixels, mask, share, _):
    def middle(image):
        edges = [round(side * (1 - share) / 2) for side in image.shape[:2]]
        height, width = image.shape[:2]
        return image[edges[0] : height - edges[0], edges[1] : width - edges[1]]

    return np.ascontiguousarray(middle(pixels)), None if mask is None else middle(mask)


CORRUPTIONS = {
    "jpeg": Corruption("JPEG quality", (90, 70, 50, 30, 15, 8), _jpeg),
    "blur": Corruption("blur, sigma in 1/1000 of the long side", (1, 2, 4, 8, 16), _blur),
    "light": Corruption("light, stops", (-2, -1, -0.5, 0.5, 1), _light),
    "cast": Corruption("colour cast, red times and blue over", (0.7, 0.85, 1.15, 1.4), _cast),
    "noise": Corruption("noise, standard deviation of 255", (5, 10, 20, 40), _noise),
    "rotation": Corruption("rotation, degrees", (15, 45, 90, 180), _rotation),
    "crop": Corruption("side that is left of the picture", (0.9, 0.8, 0.7, 0.6, 0.5), _crop),
}


def applied(
    name: str,
    corruption: Corruption,
    level: float,
    picture: Picture,
    truth: np.ndarray | None,
    record_id: str,
) -> tuple[Picture, np.ndarray | None]:
    """A picture and its true mask, corrupted; the same at every call, whatever the order."""
    rng = np.random.default_rng(zlib.crc32(f"{record_id} {name} {level}".encode()))
    pixels, truth = corruption.apply(picture.pixels, truth, level, rng)
    scale = picture.height / picture.pixels.shape[0]
    height, width = (round(side * scale) for side in pixels.shape[:2])
    return Picture(pixels, height, width), truth


# ------------------------------------------------- what the quality check must notice


class NotApplicable(ValueError):
    """The picture leaves no room for this corruption, such as no skin beside the lesion."""


@dataclass(frozen=True)
class QualityCorruption(Corruption):
    """A corruption that `dermedge.lesion.quality` must notice.

    group : 'blur', 'light', 'framing' or 'other'.
    reasons : codes of `dermedge.lesion.quality.TITLES` that name it.
    unusable : the first of `levels` at which a picture has to be taken again.
    """

    group: str = ""
    reasons: tuple[str, ...] = ()
    unusable: float = 0.0


def _defocus(pixels, mask, share, _):
    """Out of focus: a disc, as an open lens makes it, `share` its radius."""
    radius = share / 1000 * max(pixels.shape[:2])
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    return cv2.filter2D(pixels, -1, disc / disc.sum(), borderType=cv2.BORDER_REPLICATE), mask


def _motion(pixels, mask, share, rng):
    """The camera moved along a line of length `share` while the shutter was open."""
    length, angle = share / 1000 * max(pixels.shape[:2]), rng.uniform(0, np.pi)
    reach = int(np.ceil(length / 2)) + 1
    line = np.zeros((2 * reach + 1,) * 2, np.float32)
    half = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    ends = [tuple(int(v) for v in np.rint((reach + way * half) * 256)) for way in (-1, 1)]
    cv2.line(line, *ends, 1.0, 1, cv2.LINE_8, 8)
    line = cv2.GaussianBlur(line, (0, 0), 0.5)
    return cv2.filter2D(pixels, -1, line / line.sum(), borderType=cv2.BORDER_REPLICATE), mask


def _glare(pixels, mask, share, rng):
    """A light mirrored in the skin blinds `share` of the lesion's area, somewhere upon it."""
    small = _resized(mask, pixels)
    rows, columns = np.nonzero(small)
    at = rng.integers(len(rows))
    radius = np.sqrt(share * len(rows) / np.pi)
    y, x = np.indices(small.shape, np.float32)
    stretch = rng.uniform(1, 1.6)
    far = np.hypot((x - columns[at]) / stretch, (y - rows[at]) * stretch) / radius
    light = np.clip(2.2 - 1.2 * far, 0, 1)[..., None]  # blinded within, fading to 1.8 radii
    return np.rint(pixels + light * (255.0 - pixels)).astype(np.uint8), mask


def _shifted(pixels, mask, share, rng):
    """The picture cut so that `share` of the lesion's area lies beyond one of its sides."""
    small = _resized(mask, pixels)
    if share >= 1:
        skin = out_of_distribution.skin(pixels, small)
        if skin is None:
            raise NotApplicable("no skin beside the lesion")
        return np.ascontiguousarray(skin), np.zeros(skin.shape[:2], bool)
    for quarter in rng.permutation(4):
        turned = np.rot90(small, quarter)
        right = np.cumsum(turned.sum(axis=0)[::-1])[::-1] / turned.sum()  # of each column
        start = int(np.argmin(np.abs(right - (1 - share))))
        # What is left must be a picture, not a strip.
        if turned.shape[1] - start >= 0.4 * turned.shape[0]:
            cut = [np.ascontiguousarray(np.rot90(np.rot90(image, quarter)[:, start:], -quarter))
                   for image in (pixels, small)]  # fmt: skip
            return cut[0], cut[1]
    raise NotApplicable("no side leaves a picture")


def _near(pixels, mask, share, _):
    """The middle of the lesion, `share` of its extent: its outline lies beyond the picture."""
    small = _resized(mask, pixels)
    x, y, width, height = cv2.boundingRect(small.astype(np.uint8))
    aspect = pixels.shape[1] / pixels.shape[0]
    tall = share * min(height, width / aspect)
    wide = tall * aspect
    if min(tall, wide) < out_of_distribution.LEAST / 2:
        raise NotApplicable("the lesion is too small to be cut out of")
    top, left = (round(v) for v in (y + (height - tall) / 2, x + (width - wide) / 2))
    window = slice(top, top + round(tall)), slice(left, left + round(wide))
    return np.ascontiguousarray(pixels[window]), small[window]


def _far(pixels, mask, share, _):
    """The picture made smaller until the lesion's extent is `share` of the short side.

    Around it lies the picture's own skin, mirrored, the lesion and the dark frame painted over.
    """
    small = _resized(mask, pixels)
    height, width = small.shape
    extent = max(cv2.boundingRect(small.astype(np.uint8))[2:])
    factor = share * min(height, width) / extent
    if factor > 0.8:
        raise NotApplicable("the lesion is that small already")
    size = max(8, round(width * factor)), max(8, round(height * factor))
    inner = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    lesion = cv2.resize(small.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    hidden = cv2.dilate((lesion > 0.1).astype(np.uint8), np.ones((5, 5), np.uint8))
    hidden |= (inner.max(axis=2) < out_of_distribution.DARK).astype(np.uint8)
    if hidden.mean() > 0.8:
        raise NotApplicable("no skin beside the lesion")
    skin = cv2.inpaint(inner, hidden, 5, cv2.INPAINT_TELEA)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    around = (top, height - size[1] - top), (left, width - size[0] - left)
    result = np.pad(skin, (*around, (0, 0)), mode="symmetric")
    result[top : top + size[1], left : left + size[0]] = inner
    return result, np.pad(lesion >= 0.5, around)


def _hairs(pixels, mask, number, rng):
    """Hair of `number` drawings of it, over the lesion as over the skin."""
    result = pixels.astype(np.float32)
    extent = max(cv2.boundingRect(_resized(mask, pixels).astype(np.uint8))[2:])
    for _ in range(int(number)):
        layer, colour, strength = hair(rng, pixels.shape[:2], extent / 8)  # a lesion of 8 mm
        alpha = layer[..., None] * np.float32(strength / 255)
        result += alpha * (np.multiply(colour, 255).astype(np.float32) - result)
    return np.rint(result).astype(np.uint8), mask


def _twins(pixels, mask, number, _):
    """The picture and its mirror image side by side: two lesions."""
    return tuple(
        np.ascontiguousarray(np.concatenate([image, image[:, ::-1]], axis=1))
        for image in (pixels, _resized(mask, pixels))
    )


def _resized(mask: np.ndarray | None, pixels: np.ndarray) -> np.ndarray:
    """The mask at the pixels' size; NotApplicable where there is no lesion to go by."""
    if mask is None or not mask.any():
        raise NotApplicable("no outline to go by")
    size = pixels.shape[1::-1]
    if mask.shape != size[::-1]:
        mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    if not mask.any():
        raise NotApplicable("no outline to go by")
    return mask


# Which level is unusable was set by eye on validation pictures, before the test parts were seen.
QUALITY_CORRUPTIONS = {
    name: QualityCorruption(title, levels, apply, group, reasons, unusable)
    for name, title, levels, unusable, apply, group, reasons in (
        (
            *("blur", "blur, sigma in 1/1000 of the long side", (2, 4, 8, 16), 8),
            *(_blur, "blur", ("too_blurred",)),
        ),
        (
            *("defocus", "out of focus, radius in 1/1000 of the long side", (4, 8, 16, 32), 16),
            *(_defocus, "blur", ("too_blurred",)),
        ),
        (
            *("motion", "motion, length in 1/1000 of the long side", (8, 16, 32, 64), 32),
            *(_motion, "blur", ("too_blurred",)),
        ),
        ("dark", "too dark, stops", (-1, -2, -3, -4), -3, _light, "light", ("too_dark",)),
        ("bright", "too bright, stops", (0.5, 1, 1.5, 2), 1.5, _light, "light", ("too_bright",)),
        (
            *("glare", "glare, share of the lesion's area", (0.1, 0.25, 0.5, 1), 0.5),
            *(_glare, "light", ("too_bright",)),
        ),
        (
            *("shifted", "share of the lesion beyond one side", (0.1, 0.25, 0.5, 0.75, 1), 0.5),
            *(_shifted, "framing", ("cut_off", "no_lesion")),
        ),
        (
            *("near", "share of the lesion's extent that shows", (1, 0.8, 0.6, 0.4), 0.8),
            *(_near, "framing", ("too_near", "cut_off", "no_lesion")),
        ),
        (
            *("far", "lesion's extent, share of the short side", (0.2, 0.1, 0.05, 0.025), 0.05),
            *(_far, "framing", ("too_far", "no_lesion")),
        ),
        ("hair", "drawings of hair laid over", (1, 3, 6), 6, _hairs, "other", ("hair",)),
        ("twins", "lesions", (2,), 2, _twins, "other", ("several_lesions",)),
    )
}
