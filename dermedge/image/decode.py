"""A picture's file to samples: header checks, limits, then the decoder of its kind.

simplejpeg (libjpeg-turbo) decodes JPEG, OpenCV PNG, pillow-heif HEIC, Pillow the rest; what any of
them warns of is an error here. Any thread may call the functions.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np

from dermedge.image import header as headers
from dermedge.image.header import ImageError, boxes
from dermedge.image.header.colours import Colours, near_srgb
from dermedge.image.header.jpeg import read_jpeg
from dermedge.image.header.png import read_png
from dermedge.image.header.tiff import Tiff, read_exif, read_tiff, xmp_orientation
from dermedge.image.jpeg import check_jpeg_part, decode_jpeg
from dermedge.image.pixels import NO_PROFILE, of_8_bits, profile_of_picture, strips, upright

if TYPE_CHECKING:
    from PIL import Image, ImageFile
    from PIL.TiffImagePlugin import TiffImageFile

MAX_PIXELS = 120_000_000
MAX_SIDE = 65_535  # px, as JPEG's
MIN_SIDE = 16  # px; below this there is nothing to judge

Reader = TypeVar("Reader")


@dataclass(frozen=True)
class Opened:
    """A file whose header was read, and how to decode it.

    width, height : px as stored, before `orientation` (EXIF 1..8) is applied.
    decode : of the reduction (1, 2, 4, 8, for which only JPEG has use) gives uint8 or uint16
        (h, w), uint8 (h, w, 3) RGB, or uint8 (h, w, 4), which is CMYK where `cmyk`, else RGBA.
    pixel_bytes : memory that a decoded px takes before it is RGB; extra_bytes : of the decoder.
    profile : ICC; None: sRGB.
    """

    kind: str
    width: int
    height: int
    decode: Callable[[int], np.ndarray]
    pixel_bytes: int
    extra_bytes: int = 0
    orientation: int = 1
    profile: bytes | None = None
    cmyk: bool = False


def open_picture(data: bytes) -> Opened:
    """Read the header of a file's bytes; nothing is decoded yet. Raises ImageError."""
    kind = headers.kind_of(data)
    openers = {
        "jpeg": _open_jpeg,
        "png": _open_png,
        "heic": _open_heic,
        "webp": _open_webp,
        "avif": _open_avif,
        "bmp": _open_bmp,
        "tiff": _open_tiff,
    }
    return openers[kind](data)


def check_size(kind: str, width: int, height: int) -> None:
    """Raises ImageError where a picture of so many px is too small or too large to be read."""
    if width <= 0 or height <= 0:
        raise headers.damaged(kind)
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            "{width}x{height} px is too small, each side needs {limit} px",
            code="image_too_small",
            width=width,
            height=height,
            limit=MIN_SIDE,
        )
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            "{width}x{height} px is too large, at most {limit} px a side are read: crop it",
            code="image_too_large",
            width=width,
            height=height,
            limit=MAX_SIDE,
        )
    if width * height > MAX_PIXELS:
        raise ImageError(
            "{width}x{height} px is too large, at most {limit} megapixels are read: "
            "save it smaller",
            code="image_too_large",
            width=width,
            height=height,
            limit=round(MAX_PIXELS / 1e6),
        )


def check_free(needed: int) -> None:
    """Raises MemoryError where so many bytes cannot be had, which some decoders call damage."""
    try:
        np.empty(needed, np.uint8)
    except MemoryError:
        raise MemoryError from None


def _open_jpeg(data: bytes) -> Opened:
    jpeg = read_jpeg(data)
    check_size("jpeg", jpeg.width, jpeg.height)
    profile = profile_of_picture(NO_PROFILE if jpeg.profile is None else jpeg.profile, ())
    if profile is None and jpeg.adobe_rgb and jpeg.channels == 3:
        from dermedge.image.colour import ADOBE_GAMMA, ADOBE_RGB, matrix_profile

        profile = matrix_profile(ADOBE_RGB, ADOBE_GAMMA)
    gray = profile is not None and jpeg.channels == 1
    return Opened(
        "jpeg",
        jpeg.width,
        jpeg.height,
        lambda factor: decode_jpeg(jpeg, factor, gray),
        {1: 1 if gray else 0, 3: 0, 4: 4}[jpeg.channels],  # decoded straight to RGB
        jpeg.extra_bytes,
        jpeg.orientation or 1,
        profile,
        jpeg.channels == 4,
    )


def _open_png(data: bytes) -> Opened:
    png = read_png(data)
    check_size("png", png.width, png.height)

    def decode(factor: int) -> np.ndarray:
        with _decoding("png"):
            # Without what OpenCV could apply: animation, profile, EXIF.
            samples = cv2.imdecode(np.frombuffer(png.bare(), np.uint8), cv2.IMREAD_UNCHANGED)
        if samples is None or samples.shape[:2] != (png.height, png.width):
            raise headers.damaged("png")
        clear = None
        if png.key is not None:
            # OpenCV spreads samples of few bits over 0 to 255.
            spread = 255 // ((1 << png.bits) - 1) if png.bits < 8 else 1
            key = np.array(png.key[::-1], np.uint16) * spread
            clear = (samples.reshape(*samples.shape[:2], -1) == key).all(axis=2)
        if samples.ndim == 2 and clear is None:
            return samples
        if samples.dtype == np.uint16:
            samples = of_8_bits(samples)
        if clear is not None:
            colour = samples if samples.ndim == 3 else np.repeat(samples[..., None], 3, axis=2)
            samples = np.dstack([colour, np.where(clear, 0, 255).astype(np.uint8)])
        code = cv2.COLOR_BGR2RGB if samples.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        return cv2.cvtColor(samples, code, dst=samples)

    pixel_bytes = png.channels * (2 if png.bits > 8 else 1)
    profile = profile_of_picture(NO_PROFILE if png.profile is None else png.profile, png.colours)
    return Opened(
        "png", png.width, png.height, decode, pixel_bytes, 0, png.orientation or 1, profile
    )


def _open_heic(data: bytes) -> Opened:
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(
            "HEIC needs one more package: pip install 'dermedge[heic]'", code="image_needs_package"
        ) from None
    iso = boxes.read_iso(data, "heic")
    with _decoding("heic"):
        heif = pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
        picture = heif[heif.primary_index]
        width, height = picture.size
        info: dict[str, Any] = picture.info
    check_size("heic", width, height)
    if b"unci" not in data:  # pixels that are not coded
        # HEVC escapes all three zeros in a row.
        boxes.check_zeros(data, "heic", iso.media, 64)
    named = iso.colours
    if info.get("nclx_profile"):  # that of this picture, of all that the file holds
        nclx = info["nclx_profile"]
        named = frozenset({Colours(nclx["color_primaries"], nclx["transfer_characteristics"])})

    # By way of Pillow a px would take up to twelve bytes more.
    direct = picture.mode in ("L", "RGB", "RGBA")

    def decode(factor: int) -> np.ndarray:
        with _decoding("heic"):
            if not direct:
                return _samples(picture.to_pillow(), "heic")
            samples = np.asarray(picture)  # libheif's own, which nobody may write to
            return samples if factor > 1 else samples.copy()

    # libheif has rotated and cropped the picture. It holds two copies more of samples of more than
    # 8 bits, or where each px has colours of its own.
    small = direct and (info.get("bit_depth"), info.get("chroma")) == (8, 420)
    pixel_bytes, extra = (4, 3) if small else (8, 4)
    profile = profile_of_picture(info.get("icc_profile", NO_PROFILE), named)
    return Opened("heic", width, height, decode, pixel_bytes, extra * width * height, 1, profile)


# Core bytes a px of Pillow's modes, and what they become: gray, RGB, RGBA or CMYK.
_MODES = {
    **dict.fromkeys(("1", "L"), (1, "L")),
    **dict.fromkeys(("I;16", "I;16B"), (2, "I")),
    **dict.fromkeys(("RGB", "RGBX", "YCbCr"), (4, "RGB")),
    **dict.fromkeys(("LA", "PA", "RGBA", "RGBa"), (4, "RGBA")),
    "P": (1, "RGB"),
    "CMYK": (4, "CMYK"),
}


def _open_webp(data: bytes) -> Opened:
    from PIL.WebPImagePlugin import WebPImageFile

    webp = boxes.read_webp(data)
    check_size("webp", webp.width, webp.height)
    # The decoder's two canvases, and what it hands out.
    extra = 12 * webp.width * webp.height
    boxes.check_zeros(data, "webp", webp.media, 1024 if webp.lossless else 256)
    picture = _with_pillow(WebPImageFile, data, "webp", extra)
    return _from_pillow("webp", picture, picture.size, webp.orientation, extra)


def _open_avif(data: bytes) -> Opened:
    from PIL.AvifImagePlugin import SUPPORTED, AvifImageFile

    iso = boxes.read_iso(data, "avif")
    if not SUPPORTED:
        raise ImageError(
            "this AVIF picture cannot be decoded here: save it as JPEG or PNG",
            code="image_unsupported",
        )
    picture = _with_pillow(AvifImageFile, data, "avif")
    boxes.check_zeros(data, "avif", iso.media, 256)
    # Pillow never crops, and takes each turn for one before each mirroring.
    last = max((n for n, (name, _) in enumerate(iso.turns, 1) if name == b"clap"), default=0)
    crops, turns = iso.turns[:last], iso.turns[last:]  # what comes last is left to the reader
    exif, xmp = picture.info.get("exif", b""), picture.info.get("xmp", b"")
    with _decoding("avif"):
        height, width = _turned(np.broadcast_to(np.uint8(0), picture.size[::-1]), crops).shape
        said = _orientation(turns) if iso.turns else read_exif(exif)[0] or xmp_orientation(xmp)
    extra = (12 if crops else 8) * picture.width * picture.height
    stored = _from_pillow("avif", picture, picture.size, said, extra, iso.colours)
    check_size("avif", width, height)

    def decode(factor: int) -> np.ndarray:
        return np.ascontiguousarray(_turned(stored.decode(factor), crops))

    return replace(stored, width=width, height=height, decode=decode)


def _orientation(turns: Iterable[tuple[bytes, bytes]]) -> int:
    """What EXIF would say of them."""
    corners = np.arange(4).reshape(2, 2)
    turned = _turned(corners, turns)
    return next(n for n in range(1, 9) if (upright(corners, n) == turned).all())


def _turned(samples: np.ndarray, turns: Iterable[tuple[bytes, bytes]]) -> np.ndarray:
    """A view of samples, turned and cropped as the boxes `turns` say (ISO/IEC 23008-12, 6.5)."""
    for name, content in turns:
        if name == b"irot":
            samples = np.rot90(samples, content[0] & 3)
        elif name == b"imir":
            samples = samples[:, ::-1] if content[0] & 1 else samples[::-1]
        else:
            w, per_w, h, per_h, x, per_x, y, per_y = struct.unpack(">IIIIiIiI", content)
            # Offsets are between the middles of both.
            top = math.floor((samples.shape[0] - h / per_h) / 2 + y / per_y)
            left = math.floor((samples.shape[1] - w / per_w) / 2 + x / per_x)
            bottom, right = top + round(h / per_h), left + round(w / per_w)
            if min(top, left) < 0 or bottom > samples.shape[0] or right > samples.shape[1]:
                raise headers.damaged("avif")
            samples = samples[top:bottom, left:right]
    return samples


def _open_bmp(data: bytes) -> Opened:
    from PIL.BmpImagePlugin import BmpImageFile

    boxes.check_bmp(data)
    picture = _with_pillow(BmpImageFile, data, "bmp")
    return _from_pillow("bmp", picture, picture.size)


def _open_tiff(data: bytes) -> Opened:
    from PIL.TiffImagePlugin import TiffImageFile

    tiff = read_tiff(data)
    check_size("tiff", tiff.width, tiff.height)
    page = _with_pillow(TiffImageFile, data, "tiff")
    orientation = None
    with _decoding("tiff"):
        page.seek(tiff.page)
        width, height = page.size
        _check_tiff(data, page, tiff)
        _widen_palette(page)
        # Pillow rotates a TIFF by itself. By XMP, too, but for some of the ways in which that may
        # be written, and states the size without it.
        if 274 not in page.tag_v2:
            turned = page.getexif().get(274, 1)
            if turned in range(5, 9):
                width, height = height, width
            elif turned == 1:
                orientation = xmp_orientation(page.info.get("xmp", b""))
    if tiff.profile:  # Pillow leaves out one that is cut short
        page.info.setdefault("icc_profile", None)
    else:  # and keeps that of a page before
        page.info.pop("icc_profile", None)
    return _from_pillow("tiff", page, (width, height), orientation)


def _with_pillow(
    reader: Callable[[io.BytesIO], Reader], data: bytes, kind: str, needed: int = 0
) -> Reader:
    """A file by Pillow's reader of its kind: `PIL.Image.open` would load and try others."""
    _quiet_pillow()
    with _decoding(kind, needed):
        return reader(io.BytesIO(data))


def _from_pillow(
    kind: str,
    picture: ImageFile.ImageFile,
    size: tuple[int, int],
    orientation: int | None = None,
    extra: int = 0,
    named: Iterable[Colours] = (),
) -> Opened:
    """What Pillow opened; `size` is (width, height), `named` are colours that the file names."""
    check_size(kind, *size)
    if picture.mode not in _MODES:
        raise headers.unusual(kind)
    core, form = _MODES[picture.mode]
    clear = form == "RGBA" or "transparency" in picture.info

    def decode(factor: int) -> np.ndarray:
        with _decoding(kind):
            picture.load()
            return _samples(picture, kind)

    return Opened(
        kind,
        *size,
        decode,
        core + (4 if clear else 0 if form == "RGB" else 1),
        extra,
        orientation or 1,
        profile_of_picture(picture.info.get("icc_profile", NO_PROFILE), named),
        form == "CMYK",
    )


@functools.lru_cache(maxsize=1)
def _quiet_pillow() -> None:
    """Keep what Pillow and its libtiff print of odd files away: they raise as well."""
    import ctypes
    import warnings

    from PIL import _imaging

    warnings.filterwarnings("ignore", module=r"PIL\.")
    with contextlib.suppress(OSError, AttributeError):  # where libtiff is linked out of sight
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


@contextlib.contextmanager
def _decoding(kind: str, needed: int = 0) -> Iterator[None]:
    """Make an ImageError of whatever a decoder raises: none documents its errors.

    MemoryError where `needed` bytes are not there.
    """
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        check_free(needed)
        words = str(error).lower()
        if "truncated" in words or "end of file" in words or isinstance(error, EOFError):
            raise headers.cut_short(kind) from None
        if "unsupported" in words or "unknown pixel mode" in words or "cannot handle" in words:
            raise headers.unusual(kind) from None
        raise headers.damaged(kind) from None


def _check_tiff(data: bytes, picture: TiffImageFile, tiff: Tiff) -> None:
    """That no part of the pixels is missing, which Pillow would leave black, and JPEG is whole."""
    tags = picture.tag_v2
    tiled = 324 in tags
    offsets, counts = (tags.get(tag, ()) for tag in ((324, 325) if tiled else (273, 279)))
    down = tags.get(323, 0) if tiled else min(tags.get(278, tiff.height), tiff.height)
    across = tags.get(322, 0) if tiled else tiff.width
    if not all(isinstance(value, int) and value > 0 for value in (down, across)):
        raise headers.damaged("tiff")
    parts = -(-tiff.height // down) * -(-tiff.width // across)
    if tags.get(284, 1) == 2:
        parts *= tags.get(277, 1)
    if len(offsets) < parts or not all(offsets[:parts]):
        raise headers.damaged("tiff")
    corners = None
    if 318 in tags and 319 in tags:
        corners = [float(value) for value in (*tags[318], *tags[319])]
    if not picture.info.get("icc_profile") and not near_srgb(None, corners):
        raise headers.odd_colours()
    if tiff.compression not in (7, 8, 32946):
        return
    if len(counts) < parts:
        raise headers.damaged("tiff")
    tables = tags.get(347, b"")
    if not isinstance(tables, bytes):
        raise headers.damaged("tiff")
    for start, length in zip(offsets[:parts], counts, strict=False):
        part = data[start : start + length]
        if tiff.compression == 7:
            check_jpeg_part(tables, part)
        else:
            _check_deflated(part)


def _widen_palette(picture: TiffImageFile) -> None:
    """A palette of TIFF has 16 bits; of those that were written with 8, Pillow makes black."""
    from PIL import ImagePalette

    values = picture.tag_v2.get(320, ())
    if picture.mode in ("P", "PA") and max(values, default=256) < 256:
        picture.palette = ImagePalette.raw("RGB;L", bytes(values))


def _check_deflated(part: bytes) -> None:
    """That a part is whole by its checksum, which libtiff does not always reach."""
    unpack = zlib.decompressobj()
    try:
        while part and not unpack.eof:
            if not unpack.decompress(part, 1 << 20):
                break
            part = unpack.unconsumed_tail
    except zlib.error:
        raise headers.damaged("tiff") from None
    if not unpack.eof:
        raise headers.damaged("tiff")


def _samples(picture: Image.Image, kind: str) -> np.ndarray:
    """The pixels of a loaded Pillow picture, as `Opened.decode` gives them."""
    if picture.mode not in _MODES:
        raise headers.unusual(kind)
    form = _MODES[picture.mode][1]
    key = picture.info.get("transparency")
    width, height = picture.size
    if form == "I":
        samples = np.asarray(picture).astype(np.uint16)
        if key is None:
            return samples
        gray = of_8_bits(samples)
        return np.dstack([gray, gray, gray, np.where(samples == key, 0, 255).astype(np.uint8)])
    if key is not None and form in ("L", "RGB"):
        form = "RGBA"
    samples = np.empty((height, width, *(() if form == "L" else (len(form),))), np.uint8)
    for rows in strips(height):
        strip = picture.crop((0, rows.start, width, min(rows.stop, height)))
        if strip.mode != form:
            strip = strip.convert(form)
        samples[rows] = np.asarray(strip)
    # The fourth byte of a 32-bit BMP is mostly unused, and then zero.
    if kind == "bmp" and form == "RGBA" and not samples[..., 3].any():
        samples = np.ascontiguousarray(samples[..., :3])
    return samples
