"""What decoders give, brought to upright uint8 sRGB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from dermedge.image.header import odd_colours
from dermedge.image.header.colours import Colours

NO_PROFILE: tuple[()] = ()  # no profile, as opposed to one that could not be read


def profile_of_picture(icc: bytes | tuple[()] | None, named: Iterable[Colours]) -> bytes | None:
    """The profile to convert from: the ICC one, else that of the named colours; None: sRGB.

    Raises ImageError where a profile cannot be read, or the names are not understood.
    """
    if isinstance(icc, tuple) and not named:
        return None
    from dermedge.image.colour import broken_profile, profile_of

    if not isinstance(icc, tuple):
        if not icc:
            raise broken_profile()
        return icc
    profiles = {profile_of(colours) for colours in named}
    if len(profiles) > 1:
        raise odd_colours()
    return profiles.pop()


def coloured(samples: np.ndarray, profile: bytes | None) -> np.ndarray:
    """uint8 (h, w, 3) sRGB of gray (8 or 16 bits), RGB or CMYK samples; RGB is overwritten."""
    if samples.dtype == np.uint16:
        samples = of_8_bits(samples)
    if profile is not None:
        from dermedge.image.colour import to_srgb

        return to_srgb(samples, profile)
    if samples.ndim == 2:
        return np.repeat(samples[..., None], 3, axis=2)
    if samples.shape[2] == 3:
        return samples
    from PIL import Image

    rgb = np.empty((*samples.shape[:2], 3), np.uint8)
    for rows in strips(len(samples)):
        strip = Image.fromarray(np.ascontiguousarray(samples[rows]), "CMYK")
        rgb[rows] = np.asarray(strip.convert("RGB"))
    return rgb


def of_8_bits(samples: np.ndarray) -> np.ndarray:
    small = np.empty(samples.shape, np.uint8)
    for rows in strips(len(samples)):
        small[rows] = (samples[rows].astype(np.uint32) + 128) // 257
    return small


def on_white(samples: np.ndarray, profile: bytes | None) -> np.ndarray:
    """uint8 (h, w, 3) sRGB of RGBA samples."""
    rgb = np.empty((*samples.shape[:2], 3), np.uint8)
    for rows in strips(len(samples)):
        colours = coloured(np.ascontiguousarray(samples[rows, :, :3]), profile)
        alpha = samples[rows, :, 3:].astype(np.uint16)
        rgb[rows] = (colours * alpha + 255 * (255 - alpha) + 127) // 255
    return rgb


def strips(height: int) -> Iterator[slice]:
    """Wide intermediates are made a strip at a time, to keep the peak of memory low."""
    return (slice(top, top + 128) for top in range(0, height, 128))


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
