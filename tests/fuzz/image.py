"""Fuzz target: any bytes give a picture or an ImageError, from both readers."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dermedge.image.colour import DISPLAY_P3, matrix_profile
from dermedge.image.read import ImageError, read_image, read_mask


def _seeds() -> list[bytes]:
    y, x = np.mgrid[:36, :44]
    pixels = np.stack([60 + 4 * x, 40 + 5 * y, 220 - x * y // 9], 2).astype(np.uint8)
    rgb = Image.fromarray(pixels)
    rgba = rgb.convert("RGBA")
    rgba.putalpha(Image.fromarray(pixels[..., 0]))
    exif = Image.Exif()
    exif[274] = 6
    profile = matrix_profile(DISPLAY_P3, 2.2)
    wide = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    small = Image.fromarray(pixels[:20, :20])
    made = [
        (rgb, "JPEG", {"icc_profile": profile, "exif": exif.tobytes()}),
        (rgb, "JPEG", {"progressive": True}),
        (rgb, "JPEG", {"restart_marker_rows": 1, "subsampling": 0}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "PNG", {"icc_profile": profile, "exif": exif.tobytes()}),
        (rgb.quantize(9), "PNG", {"transparency": 3}),
        (rgba, "PNG", {}),
        (wide, "PNG", {}),
        (rgb, "PNG", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb, "WEBP", {"icc_profile": profile, "exif": exif.tobytes()}),
        (rgba, "WEBP", {"lossless": True}),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb, "TIFF", {"icc_profile": profile}),
        (rgba, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (rgb, "TIFF", {"save_all": True, "append_images": [small], "big_tiff": True}),
        (wide, "TIFF", {}),
        (rgb, "BMP", {}),
        (rgb.quantize(9), "BMP", {}),
        (rgb, "AVIF", {"icc_profile": profile, "exif": exif.tobytes()}),
        (rgba, "AVIF", {}),
    ]
    seeds = []
    for picture, kind, options in made:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        seeds.append(buffer.getvalue())
    try:
        import pillow_heif
    except ImportError:
        return seeds
    buffer = io.BytesIO()
    pillow_heif.from_pillow(rgb.crop((0, 0, 43, 35))).save(buffer, quality=60)
    return [*seeds, buffer.getvalue()]


SEEDS: list[bytes] = _seeds()


def one(data: bytes) -> None:
    """Read `data` as a picture and as a mask. Raises what neither documents."""
    for read in (read_image, read_mask):
        try:
            read(data)
        except ImageError as error:
            if "\n" in str(error) or not error.code:
                raise AssertionError(f"not one line with a code: {error!r}") from error
