"""JPEG decoding that takes no damage: whatever libjpeg-turbo warns of is an error."""

from __future__ import annotations

import re
from types import ModuleType

import cv2
import numpy as np

from dermedge.image.header import ImageError, cut_short, damaged, unusual
from dermedge.image.header.jpeg import Jpeg


def decode_jpeg(jpeg: Jpeg, factor: int, gray: bool) -> np.ndarray:
    """Decode a JPEG at 1/`factor` (1, 2, 4, 8) of its size, each side rounded up.

    Returns uint8 (h, w, 3) RGB, (h, w) where `gray`, or (h, w, 4) CMYK for four channels.
    Raises ImageError.
    """
    form = "CMYK" if jpeg.channels == 4 else "GRAY" if gray else "RGB"
    samples = _decode(jpeg.data, form, factor, (jpeg.height, jpeg.width))
    if is_shifted(samples, *(max(1, side // factor) for side in jpeg.block)):
        raise damaged("jpeg")
    if form == "CMYK":  # Adobe writes it inverted, and so does everybody after it
        np.subtract(255, samples, out=samples)
    return samples[..., 0] if gray else samples


def check_jpeg_part(tables: bytes, data: bytes) -> None:
    """Raises ImageError where a strip of a TIFF, with its `tables`, is no whole JPEG."""
    simplejpeg = _decoder()

    whole = tables[:-2] + data[2:] if tables else data
    try:
        simplejpeg.decode_jpeg(whole, "GRAY", min_height=1, min_width=1, min_factor=8)
    except ValueError:
        raise damaged("tiff") from None


_PADDING = re.compile(r"([0-9]+) extraneous bytes before marker 0xd9")


def _decoder() -> ModuleType:
    try:
        import simplejpeg
    except ModuleNotFoundError:  # on Android, unless somebody builds it
        # Other decoders show what is left of a damaged picture as if it were whole.
        raise ImageError(
            "JPEG cannot be read here: the package simplejpeg is missing. Use the camera, or save "
            "the picture as PNG",
            code="image_needs_package",
        ) from None
    return simplejpeg  # type: ignore[no-any-return]


def _decode(data: bytes, form: str, factor: int, size: tuple[int, int]) -> np.ndarray:
    simplejpeg = _decoder()

    height, width = (-(-side // factor) for side in size)
    least = {"min_height": height, "min_width": width, "min_factor": factor} if factor > 1 else {}
    try:
        samples: np.ndarray = simplejpeg.decode_jpeg(data, form, **least)
    except ValueError as error:
        padding = _PADDING.search(str(error))
        if padding:
            # Some cameras fill the coded data up with zeros.
            end = data.rfind(b"\xff\xd9")
            start = end - int(padding[1])
            if not any(data[start:end]):
                return _decode(data[:start] + b"\xff\xd9", form, factor, size)
        raise _refusal(str(error)) from None
    if samples.shape[:2] != (height, width):
        raise unusual("jpeg")
    return samples


def _refusal(words: str) -> ImageError:
    if "remature end of JPEG file" in words:
        return cut_short("jpeg")
    if "nsupported" in words or "not supported" in words or "subsampling" in words:
        return unusual("jpeg")
    return damaged("jpeg")


def is_shifted(samples: np.ndarray, height: int, width: int) -> bool:
    """Whether all that is coded after some block is brighter or darker, or of another tint.

    Blocks are coded by their difference from the one before, row by row, so a bit that flips, of
    which a decoder sees nothing, shifts the rest of the picture. That leaves a step along one
    whole row of blocks: it begins in the middle of a row's upper edge, runs to the right end, and
    goes on from the left, a row further down, to below its beginning. None of 13,426 real
    pictures shows the like; of shifts by more than 2 of 255 few are missed in a large picture.

    height, width : px of a unit of coding in `samples`, uint8 (h, w, channels).
    """
    across = samples.shape[1] // width
    edges = np.arange(max(height, 2), len(samples) - 1, height)
    if across < 17 or len(edges) < 3:  # too few to tell
        return False
    # Two lines above and two below each row's upper edge, a mean for each block.
    lines = samples[np.add.outer(edges, (-2, -1, 0, 1)).ravel(), : across * width]
    if width > 1:
        lines = cv2.resize(lines, (across, len(lines)), interpolation=cv2.INTER_AREA)
    a, b, c, d = lines.reshape(len(edges), 4, -1).astype(np.float32).swapaxes(0, 1)
    # How much more than its neighbours' the step is at each block's upper edge.
    steps = (1.5 * (c - b) + 0.5 * (a - d)).reshape(len(edges) * across, -1)
    # Of normal noise, a quarter is beyond 1.15 standard deviations; half may be a plain bar.
    quarter = 3 * len(steps) // 4
    usual = np.maximum(0.5, np.partition(np.abs(steps), quarter, axis=0)[quarter] / 1.15)
    # Chance makes means over few blocks larger. Nearly all pictures end here.
    many = _sums(steps / usual, 1)
    whole = (many[across:] - many[:-across]) / across
    shifted = np.abs(whole) > 0.45 + 2.2 / across**0.5
    if not shifted.any():
        return False
    count, short, large = len(whole), max(6, across // 16), _sums(steps / usual, 4)
    sign = np.sign(whole)
    size = sign * (large[across:] - large[:count]) / across
    # Lines of a video or of a scan make steps everywhere.
    shifted &= size >= 5 * np.median(np.abs(size), axis=0)
    ends = (large[short:] - large[:-short]) / short
    none = np.zeros((2 * short, whole.shape[1]), np.float32)
    ends = np.concatenate([none, ends, none])

    def part(start: int) -> np.ndarray:
        """Mean of as many steps as `short`, from so many blocks after each beginning on."""
        mean: np.ndarray = sign * ends[start + 2 * short :][:count]
        return mean

    least = np.maximum(0.75 * size, 2 / short**0.5)
    shifted &= (part(0) >= least) & (part(across - short) >= least)
    # Before the beginning and after the end there is none, but for a few blocks of noise.
    shifted &= np.minimum(part(-short), part(-2 * short)) <= 0.5 * size
    shifted &= np.minimum(part(across), part(across + short)) <= 0.5 * size
    # A step along one edge alone, from left to right, may be a horizon.
    column = np.arange(count) % across
    shifted &= ((column > short - 2) & (column < across - short + 2))[:, None]
    rows = (len(edges), across, -1)
    alike = _alike(b.reshape(rows), c.reshape(rows))
    shifted[::across] |= alike & _constant(steps.reshape(rows), usual)
    # No bar, be it within the row where the shift begins or in the next.
    bars = np.repeat(~alike, across, axis=0)
    shifted &= ~(bars[:count] | np.concatenate([bars[across:], bars[:1] & False])[:count])
    # Nothing of it in the rows before and after, where a smooth ramp would have it, too.
    calm = np.zeros((across, whole.shape[1]), np.float32)
    for other in (np.concatenate([calm, whole[:-across]]), np.concatenate([whole[across:], calm])):
        shifted &= sign * other <= 0.3
    return bool(shifted.any())


def _alike(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Where the lines above and below an edge show one rough thing: bool (rows, 1).

    A plain bar is smoother than skin, and a drawing smooth.
    """
    rough = [np.median(np.abs(np.diff(line, axis=1)), axis=1) for line in (above, below)]
    least, most = np.minimum(*rough), np.maximum(*rough)
    alike: np.ndarray = ((least > 0.2) & (most <= 2 * least)).any(axis=1, keepdims=True)
    return alike


def _constant(steps: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Where a row's steps are large and all alike, as no horizon's are: bool (rows, channels).

    That is a shift which begins near the left or right end.
    """
    middle = np.median(steps, axis=1)
    spread = 1.4826 * np.median(np.abs(steps - middle[:, None]), axis=1)
    even = (spread <= 1.5 * usual).all(axis=1, keepdims=True)
    constant: np.ndarray = (np.abs(middle) >= 3 * usual) & even
    return constant


def _sums(steps: np.ndarray, most: float) -> np.ndarray:
    sums = np.zeros((len(steps) + 1, steps.shape[1]), np.float32)
    np.cumsum(np.clip(steps, -most, most), 0, out=sums[1:])
    return sums
