"""Colour profiles: from what a picture file says of its colours to sRGB.

Little CMS converts, through Pillow; it is loaded for pictures that carry a profile, and those of
sRGB stay as they are, bit for bit.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from dermedge.image.header import ImageError, odd_colours
from dermedge.image.header.colours import Colours

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

MAX_PROFILE_BYTES = 16_000_000  # those of printing presses have two or three million
_ROWS = 256  # converted at a time

# x and y of white, red, green and blue.
DISPLAY_P3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE_RGB = (0.3127, 0.3290, 0.6400, 0.3300, 0.2100, 0.7100, 0.1500, 0.0600)
PROPHOTO = (0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)
BT_2020 = (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
PAL = (0.3127, 0.3290, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060)
NTSC = (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
ADOBE_GAMMA = 563 / 256

# Code points of ITU-T H.273 that name a colour space for still pictures.
_PRIMARIES = {5: PAL, 6: NTSC, 7: NTSC, 9: BT_2020}
_PRIMARIES |= {11: (0.314, 0.351, *DISPLAY_P3[2:]), 12: DISPLAY_P3}
_AS_SRGB = {1, 2}  # BT.709, unspecified
_CURVES = {1, 2, 4, 6, 13, 14, 15}  # near that of sRGB; not linear, PQ or HLG


def broken_profile() -> ImageError:
    """The error about a colour profile that cannot be read, for raising."""
    return ImageError(
        "the colour profile of this picture is damaged or of an unusual kind: save it as sRGB",
        code="image_colours",
    )


def profile_of(colours: Colours) -> bytes | None:
    """An ICC profile for a named colour space; None where that is sRGB.

    Raises ImageError for a space that is not known, such as those of HDR pictures.
    """
    if colours.transfer not in _CURVES:
        raise odd_colours()
    if colours.primaries in _AS_SRGB:
        return None
    if colours.primaries not in _PRIMARIES:
        raise odd_colours()
    return matrix_profile(_PRIMARIES[colours.primaries])


def to_srgb(samples: np.ndarray, profile: bytes) -> np.ndarray:
    """Convert colours to sRGB.

    Parameters
    ----------
    samples : uint8 (h, w) gray, (h, w, 3) RGB or (h, w, 4) CMYK, none of it inverted. RGB of an
        RGB profile is overwritten.
    profile : an ICC profile. Gray samples are taken as equal red, green and blue where it is of
        RGB, as browsers do.

    Returns
    -------
    uint8 (h, w, 3) RGB.

    Raises
    ------
    ImageError : a profile that is damaged, or of another number of channels.
    """
    from PIL import Image

    mode = {2: "L", 3: "RGB"}.get(samples.ndim + (samples.shape[2:] == (4,)), "CMYK")
    space = _space(profile)
    if mode == "L" and space == "RGB":
        samples, mode = np.repeat(samples[..., None], 3, axis=2), "RGB"
    if mode == "RGB" and space == "L" and (samples == samples[..., :1]).all():
        samples, mode = samples[..., 0], "L"  # gray with alpha
    if mode != space:
        raise broken_profile()
    transform = _transform(profile, mode)
    if transform is None:
        return samples if mode == "RGB" else np.repeat(samples[..., None], 3, axis=2)
    rgb = samples if mode == "RGB" else np.empty((*samples.shape[:2], 3), np.uint8)
    for top in range(0, len(samples), _ROWS):
        strip = Image.fromarray(np.ascontiguousarray(samples[top : top + _ROWS]), mode)
        rgb[top : top + _ROWS] = np.asarray(transform.apply(strip))
    return rgb


def _space(profile: bytes) -> str:
    """Mode of the pictures that a profile is for. Raises ImageError."""
    if not 128 <= len(profile) <= MAX_PROFILE_BYTES or profile[36:40] != b"acsp":
        raise broken_profile()
    # Screens, cameras, printers and colour spaces; not links between devices.
    space = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}.get(profile[16:20])
    if space is None or profile[12:16] not in (b"mntr", b"scnr", b"prtr", b"spac"):
        raise broken_profile()
    return space


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """Pillow's transform to sRGB, None where it changes nothing by more than rounding."""
    from PIL import Image, ImageCms

    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            # Without it a transform remembers the last pixel, which threads must not share.
            flags=ImageCms.Flags.NOCACHE,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        raise broken_profile() from None
    ramp = np.arange(256, dtype=np.uint8)[None]
    if mode == "L":
        probe = ramp
    elif mode == "RGB":
        steps = np.linspace(0, 255, 17).astype(np.uint8)
        cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
        probe = np.concatenate([cube, np.repeat(ramp[..., None], 3, 2)], 1)
    else:
        return transform
    shown = np.asarray(transform.apply(Image.fromarray(probe, mode))).astype(int)
    same = probe[..., None] if mode == "L" else probe
    return None if np.abs(shown - same).max() <= 1 else transform


def matrix_profile(corners: Sequence[float], gamma: float | None = None) -> bytes:
    """An ICC profile (version 2.4, ICC.1:2001-04) of three primaries and one curve.

    Parameters
    ----------
    corners : x and y of white, red, green and blue.
    gamma : of the curve; None: that of sRGB (IEC 61966-2-1).
    """
    xyz = np.array(
        [(x / y, 1.0, (1 - x - y) / y) for x, y in zip(*[iter(corners)] * 2, strict=True)]
    )
    white, primaries = xyz[0], xyz[1:].T
    matrix = primaries * np.linalg.solve(primaries, white)
    # A profile's white is D50; Bradford's cones bring the colours there.
    cones = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    d50 = np.array([0.9642, 1.0, 0.8249])
    adapt = np.linalg.inv(cones) @ np.diag((cones @ d50) / (cones @ white)) @ cones
    columns = (adapt @ matrix).T

    def place(values: Iterable[float]) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    if gamma is None:
        x = np.linspace(0, 1, 1024)
        linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
        curve = (
            struct.pack(">4s4xI", b"curv", len(x)) + np.rint(linear * 65535).astype(">u2").tobytes()
        )
    else:
        curve = struct.pack(">4s4xIHxx", b"curv", 1, round(gamma * 256))
    name = b"dermedge"
    described = b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(79)
    text = b"text" + bytes(4) + b"no copyright\0"
    parts = {b"desc": described + bytes(-len(described) % 4), b"cprt": text + bytes(-len(text) % 4)}
    parts |= {b"wtpt": place(d50)}
    parts |= {tag: place(v) for tag, v in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    parts |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body = [], b""
    start = 128 + 4 + 12 * len(parts)
    for tag, part in parts.items():
        at = body.find(part)
        if at < 0:
            at = len(body)
            body += part
        table.append(struct.pack(">4sII", tag, start + at, len(part)))
    header = struct.pack(
        ">I4sI4s4s4s6H4s4sIIIQI3i4s44x",
        *(start + len(body), bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ "),
        *(2026, 1, 1, 0, 0, 0, b"acsp", bytes(4), 0, 0, 0, 0, 0),
        *(round(v * 65536) for v in d50),
        bytes(4),
    )
    return header + struct.pack(">I", len(parts)) + b"".join(table) + body
