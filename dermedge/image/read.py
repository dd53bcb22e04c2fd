"""Safe picture reading: what a file claims is checked before anything of it is decoded.

The kind is found by the first bytes, never by the extension. simplejpeg (libjpeg-turbo) decodes
JPEG, OpenCV PNG, pillow-heif HEIC, Pillow the rest; what any of them warns of is an error here.
This module adds limits, applies the orientation exactly once, and brings every mode and colour
profile to uint8 sRGB. Nothing of a picture's metadata leaves this module. All functions may be
called from several threads at once.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from dermedge.files import write_atomic
from dermedge.image import header as headers
from dermedge.image.header import ImageError as ImageError  # of those who read pictures, too
from dermedge.image.header import boxes
from dermedge.image.header.colours import Colours, near_srgb
from dermedge.image.header.jpeg import read_jpeg
from dermedge.image.header.png import read_png
from dermedge.image.header.tiff import Tiff, read_tiff
from dermedge.image.jpeg import check_jpeg_part, decode_jpeg
from dermedge.image.mask_values import lesion_pixels
from dermedge.text import printable

if TYPE_CHECKING:
    from PIL import Image, ImageFile
    from PIL.TiffImagePlugin import TiffImageFile

WORKING_SIDE = 1024  # px; pictures twice as long or longer are halved until they are not
MAX_BYTES = 100_000_000  # of one file
MAX_PIXELS = 120_000_000
MAX_SIDE = 65_535  # px, as JPEG's
# What the decoder holds plus the RGB copy. With the file itself, the interpreter and the runtime
# the process then stays below 1 GB.
MAX_DECODED_BYTES = 600_000_000
MIN_SIDE = 16  # px; below this there is nothing to judge

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff"),
        *("bmp", "dib", "heic", "heif", "avif"),
    )
)


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    pixels : uint8 (h, w, 3) RGB, upright (EXIF orientation applied), maybe reduced.
    height, width : full size in px after orientation.
    """

    pixels: np.ndarray
    height: int
    width: int


def read_image(source: str | Path | bytes, working_side: int | None = WORKING_SIDE) -> Picture:
    """Read a picture as upright uint8 sRGB.

    JPEG, PNG, WebP, TIFF, BMP, AVIF; HEIC where pillow-heif is installed. Of a file with several
    pictures the first is read that is no thumbnail. Colour profiles are converted to sRGB; where
    there is none, the colours are taken as sRGB, in a JPEG whose EXIF says so as Adobe RGB.
    Samples of 16 bits are divided by 257 and rounded, of a coloured TIFF the upper 8 bits count.
    Where an alpha channel or a palette says transparent, white shows. CMYK of a JPEG is taken as
    Adobe writes it (inverted).

    Parameters
    ----------
    source : path, or the bytes of a file.
    working_side : the picture is halved (1/2, 1/4, 1/8) while its long side is at least twice
        this many px, a JPEG already in decoding. None: full size.

    Raises
    ------
    ImageError : not a picture, raw, damaged, cut short, too large or too small, of colours that
        are not understood; one line that says what to do.
    """
    with _named(source):
        opened = _checked(load(source))
        factor = reduction(max(opened.width, opened.height), working_side)
        _check_memory(opened, factor)
        samples = opened.decode(factor)
        if samples.ndim == 3 and samples.shape[2] == 4 and not opened.cmyk:
            pixels = _on_white(samples, opened.profile)
            pixels = _halved(pixels, opened, factor)
        else:
            pixels = _coloured(_halved(samples, opened, factor), opened.profile)
        pixels = _upright(pixels, opened.orientation)
        height, width = opened.height, opened.width
        return Picture(pixels, *((width, height) if opened.orientation >= 5 else (height, width)))


def read_mask(source: str | Path | bytes) -> np.ndarray:
    """Read a mask: bool (height, width) at full size, upright.

    Of two values, whatever they are, the higher one is the lesion; see
    `dermedge.image.mask_values.lesion_pixels`. Transparency and colour profiles
    are ignored.

    Raises
    ------
    ImageError : as `read_image`; also where the file is no mask of two values.
    """
    with _named(source):
        opened = _checked(load(source))
        _check_memory(opened, 1)
        samples = opened.decode(1)
        if opened.cmyk:
            samples = _coloured(samples, None)
        lossy = opened.kind in ("jpeg", "webp", "heic", "avif")
        return _upright(lesion_pixels(samples, lossy), opened.orientation)


def write_png(path: str | Path, image: np.ndarray, private: bool = False) -> None:
    """Write uint8 RGB (h, w, 3), or gray (h, w), as PNG without metadata, atomically.

    `private` leaves the file readable by its owner alone.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(f"expected uint8 (h, w, 3) or (h, w), got {image.dtype} {image.shape}")
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    write_atomic(path, cv2.imencode(".png", stored)[1].tobytes(), private)


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Expand folders, recursively, to the pictures in them, in natural order (2 before 10).

    In folders only files with a picture's extension count, and hidden ones do not. A file given
    by name, or a path that does not exist, stays in the list, as does a folder that may not be
    read: whoever reads it gets the line that says what is wrong with it. Each path comes once.
    """
    images: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            images.setdefault(path)
            continue
        inside: list[Path] = []
        unreadable: list[OSError] = []
        for folder, _, names in os.walk(path, onerror=unreadable.append):
            inside += [Path(folder, name) for name in names if _looks_like_picture(name)]
        inside += [Path(error.filename) for error in unreadable]
        images.update(dict.fromkeys(sorted(inside, key=_natural)))
    return list(images)


def _looks_like_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def _natural(path: Path) -> list[list[int | str]]:
    # The group keeps the numbers, at the odd places, so that like is compared with like.
    cuts = (re.split(r"([0-9]+)", name.lower()) for name in path.parts)
    return [[int(part) if index % 2 else part for index, part in enumerate(cut)] for cut in cuts]


@contextlib.contextmanager
def _named(source: str | Path | bytes) -> Iterator[None]:
    """Put the file's name before an ImageError's message."""
    try:
        yield
    except ImageError as error:
        if isinstance(source, bytes):
            raise
        name = printable(source)
        raise ImageError("{path}: {reason}", code=error.code, path=name, reason=error) from None


def load(source: str | Path | bytes) -> bytes:
    """The bytes of a file, no more than `MAX_BYTES`. Raises ImageError."""
    if isinstance(source, bytes):
        data = source
    else:
        try:
            status = os.stat(source)
            if stat.S_ISDIR(status.st_mode):
                raise ImageError("is a folder, not a picture", code="image_unreadable")
            # Reading a pipe or a device could wait for ever.
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("is not a regular file", code="image_unreadable")
            _check_bytes(status.st_size)
            with open(source, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ImageError(
                "{reason}", code="image_unreadable", reason=error.strerror or "cannot be read"
            ) from None
        except ValueError as error:  # a null byte in the path
            if isinstance(error, ImageError):
                raise
            raise ImageError("{reason}", code="image_unreadable", reason=error) from None
    if not data:
        raise ImageError("the file is empty", code="image_unreadable")
    _check_bytes(len(data))
    return data


def _check_bytes(count: int) -> None:
    if count > MAX_BYTES:
        raise ImageError(
            "the file has {size} MB, at most {limit} MB are read: save it smaller",
            code="image_too_large",
            size=round(count / 1e6),
            limit=round(MAX_BYTES / 1e6),
        )


@dataclass(frozen=True)
class _Opened:
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


def _checked(data: bytes) -> _Opened:
    kind = headers.kind_of(data)
    if kind == "jpeg":
        opened = _open_jpeg(data)
    elif kind == "png":
        opened = _open_png(data)
    elif kind == "heic":
        opened = _open_heic(data)
    else:
        opened = _open_by_pillow(data, kind)
    return opened


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


def reduction(side: int, working_side: int | None) -> int:
    """1, 2, 4 or 8, by which a picture whose long side is `side` px is halved in reading."""
    factor = 1
    while working_side is not None and factor < 8 and side >= 2 * working_side * factor:
        factor *= 2
    return factor


def _check_memory(opened: _Opened, factor: int) -> None:
    pixels = opened.width * opened.height
    if opened.kind == "jpeg":
        pixels //= factor * factor
    needed = pixels * (opened.pixel_bytes + 3) + opened.extra_bytes
    if needed > MAX_DECODED_BYTES:
        raise ImageError(
            "decoding {width}x{height} px needs {size} MB, at most {limit} MB are given; "
            "save it smaller or as JPEG",
            code="image_too_large",
            width=opened.width,
            height=opened.height,
            size=round(needed / 1e6),
            limit=round(MAX_DECODED_BYTES / 1e6),
        )


# ---------------------------------------------------------------------------- decoding


def _open_jpeg(data: bytes) -> _Opened:
    jpeg = read_jpeg(data)
    check_size("jpeg", jpeg.width, jpeg.height)
    profile = _profile(_NONE if jpeg.profile is None else jpeg.profile, ())
    if profile is None and jpeg.adobe_rgb and jpeg.channels == 3:
        from dermedge.image.colour import ADOBE_GAMMA, ADOBE_RGB, matrix_profile

        profile = matrix_profile(ADOBE_RGB, ADOBE_GAMMA)
    gray = profile is not None and jpeg.channels == 1
    return _Opened(
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


def _open_png(data: bytes) -> _Opened:
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
            samples = _of_8_bits(samples)
        if clear is not None:
            colour = samples if samples.ndim == 3 else np.repeat(samples[..., None], 3, axis=2)
            samples = np.dstack([colour, np.where(clear, 0, 255).astype(np.uint8)])
        code = cv2.COLOR_BGR2RGB if samples.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        return cv2.cvtColor(samples, code, dst=samples)

    pixel_bytes = png.channels * (2 if png.bits > 8 else 1)
    profile = _profile(_NONE if png.profile is None else png.profile, png.colours)
    return _Opened(
        "png", png.width, png.height, decode, pixel_bytes, 0, png.orientation or 1, profile
    )


def _open_heic(data: bytes) -> _Opened:
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
        boxes.check_zeros(data, "heic", iso.media, 64, (info.get("exif"), info.get("xmp")))
    named = iso.colours
    if info.get("nclx_profile"):  # that of this picture, of all that the file holds
        nclx = info["nclx_profile"]
        named = frozenset({Colours(nclx["color_primaries"], nclx["transfer_characteristics"])})

    def decode(factor: int) -> np.ndarray:
        with _decoding("heic"):
            return _samples(picture.to_pillow(), "heic")

    # libheif has rotated and cropped the picture. Its own copy is there beside Pillow's.
    profile = _profile(info.get("icc_profile", _NONE), named)
    return _Opened("heic", width, height, decode, 8, 4 * width * height, 1, profile)


# Core bytes a px of Pillow's modes, and what they become: gray, RGB, RGBA or CMYK.
_MODES = {
    **dict.fromkeys(("1", "L"), (1, "L")),
    **dict.fromkeys(("I;16", "I;16B"), (2, "I")),
    **dict.fromkeys(("RGB", "RGBX", "YCbCr"), (4, "RGB")),
    **dict.fromkeys(("LA", "PA", "RGBA", "RGBa"), (4, "RGBA")),
    "P": (1, "RGB"),
    "CMYK": (4, "CMYK"),
}


def _open_by_pillow(data: bytes, kind: str) -> _Opened:
    named: Iterable[Colours] = ()
    extra = 0
    tiff = webp = iso = None
    if kind == "tiff":
        tiff = read_tiff(data)
        check_size(kind, tiff.width, tiff.height)
    elif kind == "webp":
        webp = boxes.read_webp(data)
        check_size(kind, webp.width, webp.height)
        # The decoder's two canvases, and what it hands out.
        extra = 12 * webp.width * webp.height
        boxes.check_zeros(data, kind, webp.media, 1024 if webp.lossless else 256)
    elif kind == "avif":
        iso = boxes.read_iso(data, kind)
        named = iso.colours
    else:
        boxes.check_bmp(data)
    with _decoding(kind):
        picture = _plugin(kind)(io.BytesIO(data))
        if tiff:
            picture.seek(tiff.page)
        info = picture.info
        # Pillow rotates a TIFF by itself.
        orientation = picture.getexif().get(274, 1) if kind in ("webp", "avif") else 1
    width, height = picture.size
    check_size(kind, width, height)
    if iso:
        extra = 8 * width * height
        boxes.check_zeros(data, kind, iso.media, 256, (info.get("exif"), info.get("xmp")))
    if tiff:
        with _decoding(kind):
            _check_tiff(data, cast("TiffImageFile", picture), tiff)
        if tiff.profile:  # Pillow leaves out one that is cut short
            info.setdefault("icc_profile", None)
    if picture.mode not in _MODES:
        raise headers.unusual(kind)
    core, form = _MODES[picture.mode]
    clear = form == "RGBA" or "transparency" in info

    def decode(factor: int) -> np.ndarray:
        with _decoding(kind):
            picture.load()
            return _samples(picture, kind)

    return _Opened(
        kind,
        width,
        height,
        decode,
        core + (4 if clear else 0 if form == "RGB" else 1),
        extra,
        orientation if orientation in range(1, 9) else 1,
        _profile(info.get("icc_profile", _NONE), named),
        form == "CMYK",
    )


def _plugin(kind: str) -> type[ImageFile.ImageFile]:
    """Pillow's reader of one kind: `PIL.Image.open` would load and try others."""
    reader: type[ImageFile.ImageFile]
    if kind == "tiff":
        from PIL.TiffImagePlugin import TiffImageFile

        reader = TiffImageFile
    elif kind == "webp":
        from PIL.WebPImagePlugin import WebPImageFile

        reader = WebPImageFile
    elif kind == "bmp":
        from PIL.BmpImagePlugin import BmpImageFile

        reader = BmpImageFile
    else:
        from PIL.AvifImagePlugin import SUPPORTED, AvifImageFile

        reader = AvifImageFile
        if not SUPPORTED:
            raise ImageError(
                "this AVIF picture cannot be decoded here: save it as JPEG or PNG",
                code="image_unsupported",
            )
    _quiet_pillow()
    return reader


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
def _decoding(kind: str) -> Iterator[None]:
    """Make an ImageError of whatever a decoder raises: none documents its errors."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
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
    """The pixels of a loaded Pillow picture, as `_Opened.decode` gives them."""
    if picture.mode not in _MODES:
        raise headers.unusual(kind)
    form = _MODES[picture.mode][1]
    key = picture.info.get("transparency")
    width, height = picture.size
    if form == "I":
        samples = np.asarray(picture).astype(np.uint16)
        if key is None:
            return samples
        gray = _of_8_bits(samples)
        return np.dstack([gray, gray, gray, np.where(samples == key, 0, 255).astype(np.uint8)])
    if key is not None and form in ("L", "RGB"):
        form = "RGBA"
    samples = np.empty((height, width, *(() if form == "L" else (len(form),))), np.uint8)
    for rows in _strips(height):
        strip = picture.crop((0, rows.start, width, min(rows.stop, height)))
        if strip.mode != form:
            strip = strip.convert(form)
        samples[rows] = np.asarray(strip)
    # The fourth byte of a 32-bit BMP is mostly unused, and then zero.
    if kind == "bmp" and form == "RGBA" and not samples[..., 3].any():
        samples = np.ascontiguousarray(samples[..., :3])
    return samples


# ---------------------------------------------------------------------------- colours, orientation


_NONE: tuple[()] = ()  # no profile, as opposed to one that could not be read


def _profile(icc: bytes | tuple[()] | None, named: Iterable[Colours]) -> bytes | None:
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
        raise headers.odd_colours()
    return profiles.pop()


def _coloured(samples: np.ndarray, profile: bytes | None) -> np.ndarray:
    """uint8 (h, w, 3) sRGB of gray (8 or 16 bits), RGB or CMYK samples; RGB is overwritten."""
    if samples.dtype == np.uint16:
        samples = _of_8_bits(samples)
    if profile is not None:
        from dermedge.image.colour import to_srgb

        return to_srgb(samples, profile)
    if samples.ndim == 2:
        return np.repeat(samples[..., None], 3, axis=2)
    if samples.shape[2] == 3:
        return samples
    from PIL import Image

    rgb = np.empty((*samples.shape[:2], 3), np.uint8)
    for rows in _strips(len(samples)):
        strip = Image.fromarray(np.ascontiguousarray(samples[rows]), "CMYK")
        rgb[rows] = np.asarray(strip.convert("RGB"))
    return rgb


def _of_8_bits(samples: np.ndarray) -> np.ndarray:
    small = np.empty(samples.shape, np.uint8)
    for rows in _strips(len(samples)):
        small[rows] = (samples[rows].astype(np.uint32) + 128) // 257
    return small


def _on_white(samples: np.ndarray, profile: bytes | None) -> np.ndarray:
    """uint8 (h, w, 3) sRGB of RGBA samples."""
    rgb = np.empty((*samples.shape[:2], 3), np.uint8)
    for rows in _strips(len(samples)):
        colours = _coloured(np.ascontiguousarray(samples[rows, :, :3]), profile)
        alpha = samples[rows, :, 3:].astype(np.uint16)
        rgb[rows] = (colours * alpha + 255 * (255 - alpha) + 127) // 255
    return rgb


def _halved(samples: np.ndarray, opened: _Opened, factor: int) -> np.ndarray:
    if opened.kind == "jpeg" or factor == 1:
        return samples
    sides = [-(-side // factor) for side in samples.shape[1::-1]]
    return cv2.resize(samples, sides, interpolation=cv2.INTER_AREA)


def _strips(height: int, rows: int = 128) -> Iterator[slice]:
    """Wide intermediates are made a strip at a time, to keep the peak of memory low."""
    return (slice(top, top + rows) for top in range(0, height, rows))


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
