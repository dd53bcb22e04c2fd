"""JPEG decoding that takes no damage: whatever libjpeg-turbo warns of is an error."""

from __future__ import annotations

import re

import numpy as np

from dermedge.image_header import ImageError, Jpeg, cut_short, damaged, unusual


def decode_jpeg(jpeg: Jpeg, factor: int, gray: bool) -> np.ndarray:
    """Decode a JPEG at 1/`factor` (1, 2, 4, 8) of its size, each side rounded up.

    Returns uint8 (h, w, 3) RGB, (h, w) where `gray`, or (h, w, 4) CMYK for four channels.
    Raises ImageError.
    """
    form = "CMYK" if jpeg.channels == 4 else "GRAY" if gray else "RGB"
    samples = _decode(jpeg.data, form, factor, (jpeg.height, jpeg.width))
    if form == "CMYK":  # Adobe writes it inverted, and so does everybody after it
        np.subtract(255, samples, out=samples)
    return samples[..., 0] if gray else samples


def check_jpeg_part(tables: bytes, data: bytes) -> None:
    """Raises ImageError where a strip of a TIFF, with its `tables`, is no whole JPEG."""
    import simplejpeg

    whole = tables[:-2] + data[2:] if tables else data
    try:
        simplejpeg.decode_jpeg(whole, "GRAY", min_height=1, min_width=1, min_factor=8)
    except ValueError:
        raise damaged("tiff") from None


_PADDING = re.compile(r"([0-9]+) extraneous bytes before marker 0xd9")


def _decode(data: bytes, form: str, factor: int, size: tuple[int, int]) -> np.ndarray:
    import simplejpeg

    height, width = (-(-side // factor) for side in size)
    least = {"min_height": height, "min_width": width, "min_factor": factor} if factor > 1 else {}
    try:
        samples = simplejpeg.decode_jpeg(data, form, **least)
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
    if "nsupported" in words or "not supported" in words:
        return unusual("jpeg")
    return damaged("jpeg")
