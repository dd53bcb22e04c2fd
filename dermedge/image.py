"""Safe picture reading: what a file claims is checked before anything of it is decoded.

The kind is told by the first bytes, never by the extension. OpenCV decodes; this module adds the
checks that it lacks (limits, cut-short files), applies the EXIF orientation exactly once, and
brings every mode to uint8 RGB. Nothing of a picture's metadata leaves this module.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dermedge.files import write_atomic
from dermedge.image_header import TITLES, Header, ImageError, bare_png, bare_tiff, parse_header
from dermedge.mask_values import lesion_pixels

WORKING_SIDE = 1024  # px; pictures twice as long or longer are halved until they are not
MAX_BYTES = 100_000_000  # of one file
MAX_PIXELS = 120_000_000
# Decoded samples plus the RGB copy. With the file itself, the interpreter and the runtime the
# process then stays below 1 GB.
MAX_DECODED_BYTES = 480_000_000
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
    """Read a picture as upright uint8 RGB.

    JPEG, PNG, WebP, TIFF, BMP; AVIF where OpenCV has it; HEIC where pillow-heif is installed.
    Of a file with several pictures the first is read. 16-bit samples are divided by 257 and
    rounded. Where an alpha channel or a palette says transparent, white shows. CMYK
    is taken as Adobe writes it (inverted).

    Parameters
    ----------
    source : path, or the bytes of a file.
    working_side : the picture is halved (1/2, 1/4, 1/8) while its long side is at least twice
        this many px, a JPEG already in decoding. None: full size.

    Raises
    ------
    ImageError : not a picture, damaged, cut short, too large or too small; one line.
    """
    with _named(source):
        data = _load(source)
        header = _checked_header(data)
        factor = _reduction(max(header.width, header.height), working_side)
        _check_memory(header, factor)
        pixels = _to_rgb(_decode(data, header, factor))
        if header.kind != "jpeg" and factor > 1:
            sides = (-(-side // factor) for side in pixels.shape[1::-1])
            pixels = cv2.resize(pixels, tuple(sides), interpolation=cv2.INTER_AREA)
        return Picture(_upright(pixels, header), *header.size)


def read_mask(source: str | Path | bytes) -> np.ndarray:
    """Read a mask: bool (height, width) at full size, upright.

    Of two values, whatever they are, the higher one is the lesion; see
    `dermedge.mask_values.lesion_pixels`.

    Raises
    ------
    ImageError : as `read_image`; also where the file is no mask of two values.
    """
    with _named(source):
        data = _load(source)
        header = _checked_header(data)
        _check_memory(header, 1)
        samples = _decode(data, header, 1)
        lossy = header.kind in ("jpeg", "webp", "heic", "avif")
        return _upright(lesion_pixels(samples, lossy), header)


def read_header(source: str | Path | bytes) -> Header:
    """Read what a file says about its picture, without decoding. Raises ImageError."""
    with _named(source):
        return parse_header(_load(source))


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
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found.setdefault(path)
            continue
        inside: list[Path] = []
        unreadable: list[OSError] = []
        for folder, _, names in os.walk(path, onerror=unreadable.append):
            inside += [Path(folder, name) for name in names if _looks_like_picture(name)]
        inside += [Path(error.filename) for error in unreadable]
        found.update(dict.fromkeys(sorted(inside, key=_natural)))
    return list(found)


def _looks_like_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def _natural(path: Path) -> list[list]:
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
        raise ImageError(f"{_printable(source)}: {error}") from None


def _printable(source: str | Path) -> str:
    # A file name may hold line ends; the message is one line.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(source))


def _load(source: str | Path | bytes) -> bytes:
    if isinstance(source, bytes):
        data = source
    else:
        try:
            status = os.stat(source)
            if stat.S_ISDIR(status.st_mode):
                raise ImageError("is a folder, not a picture")
            # Reading a pipe or a device could wait for ever.
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("is not a regular file")
            _check_bytes(status.st_size)
            with open(source, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ImageError(error.strerror or "cannot be read") from None
        except ValueError as error:  # a null byte in the path
            raise ImageError(str(error)) from None
    if not data:
        raise ImageError("the file is empty")
    _check_bytes(len(data))
    return data


def _check_bytes(count: int) -> None:
    if count > MAX_BYTES:
        raise ImageError(
            f"the file has {count / 1e6:.0f} MB, at most {MAX_BYTES / 1e6:.0f} MB are read"
        )


def _checked_header(data: bytes) -> Header:
    header = parse_header(data)
    width, height = header.width, header.height
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width}x{height} px is too small, each side needs {MIN_SIDE} px")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{width}x{height} px is too large, at most {MAX_PIXELS / 1e6:.0f} megapixels are read"
        )
    return header


def _reduction(side: int, working_side: int | None) -> int:
    factor = 1
    while working_side is not None and factor < 8 and side >= 2 * working_side * factor:
        factor *= 2
    return factor


def _check_memory(header: Header, factor: int) -> None:
    pixels = header.width * header.height
    if header.kind == "jpeg":
        pixels //= factor * factor
    needed = pixels * (header.channels * (2 if header.bits > 8 else 1) + 3) + header.extra_bytes
    if needed > MAX_DECODED_BYTES:
        raise ImageError(
            f"decoding {header.width}x{header.height} px needs {needed / 1e6:.0f} MB, "
            f"at most {MAX_DECODED_BYTES / 1e6:.0f} MB are given; save it smaller or as JPEG"
        )


# ---------------------------------------------------------------------------- decoding


def _decode(data: bytes, header: Header, factor: int) -> np.ndarray:
    """Stored samples, not yet upright: uint8 or uint16, gray, BGR or BGRA."""
    if header.kind == "heic":
        return _decode_heic(data, header)
    flags = cv2.IMREAD_UNCHANGED  # never turns the picture
    if header.kind == "jpeg":
        flags = (
            cv2.IMREAD_IGNORE_ORIENTATION
            | {
                1: cv2.IMREAD_COLOR,
                2: cv2.IMREAD_REDUCED_COLOR_2,
                4: cv2.IMREAD_REDUCED_COLOR_4,
                8: cv2.IMREAD_REDUCED_COLOR_8,
            }[factor]
        )
        expected = (-(-header.height // factor), -(-header.width // factor))
    else:
        expected = (header.height, header.width)
        if header.kind == "bmp":
            # The fourth byte of a 32-bit BMP is mostly unused, and then zero.
            flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        elif header.kind == "png":
            data = bare_png(data)
        elif header.kind == "tiff":
            data = bare_tiff(data)
    with _silent():
        try:
            samples = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            samples = None
    if samples is None and header.kind == "avif":
        raise ImageError("this AVIF picture cannot be decoded here: save it as JPEG or PNG")
    if (
        samples is None
        or samples.shape[:2] != expected
        or samples.dtype not in (np.uint8, np.uint16)
    ):
        raise ImageError(f"the {TITLES[header.kind]} data is damaged or of an unusual kind")
    if header.kind == "tiff" and samples.shape[2:] == (4,) and samples.dtype == np.uint8:
        samples = _straight_alpha(samples)
    return samples


def _decode_heic(data: bytes, header: Header) -> np.ndarray:
    try:
        import pillow_heif
    except ImportError:
        raise ImageError("HEIC needs one more package: pip install 'dermedge[heic]'") from None
    with _silent():
        try:
            opened = pillow_heif.open_heif(data, convert_hdr_to_8bit=True, bgr_mode=True)
            samples = np.array(opened[opened.primary_index])
        except Exception as error:  # the library documents no narrower class
            raise ImageError(f"the HEIC data is damaged ({_one_line(error)})") from None
    if samples.dtype != np.uint8 or samples.shape[:2] != header.size:
        raise ImageError("the HEIC data is damaged or of an unusual kind")
    return samples


def _straight_alpha(samples: np.ndarray) -> np.ndarray:
    """Undo libtiff's multiplication of colour by alpha, so that all kinds are alike here."""
    for rows in _strips(len(samples)):
        strip = samples[rows]
        alpha = np.maximum(strip[..., 3:], 1).astype(np.uint16)
        colours = (strip[..., :3].astype(np.uint16) * 255 + alpha // 2) // alpha
        strip[..., :3] = np.minimum(colours, 255)
    return samples


def _to_rgb(samples: np.ndarray) -> np.ndarray:
    if samples.dtype == np.uint8 and samples.shape[2:] == (3,):
        return cv2.cvtColor(samples, cv2.COLOR_BGR2RGB, dst=samples)
    rgb = np.empty((*samples.shape[:2], 3), np.uint8)
    for rows in _strips(len(samples)):
        strip = samples[rows]
        if strip.dtype == np.uint16:
            strip = ((strip.astype(np.uint32) + 128) // 257).astype(np.uint8)
        if strip.ndim == 2:
            rgb[rows] = strip[..., None]
        elif strip.shape[2] == 3:
            rgb[rows] = strip[..., ::-1]
        else:
            alpha = strip[..., 3:].astype(np.uint16)
            rgb[rows] = (strip[..., 2::-1] * alpha + 255 * (255 - alpha) + 127) // 255
    return rgb


def _strips(height: int, rows: int = 128) -> Iterator[slice]:
    """Wide intermediates are made a strip at a time, to keep the peak of memory low."""
    return (slice(top, top + rows) for top in range(0, height, rows))


def _upright(image: np.ndarray, header: Header) -> np.ndarray:
    # libheif has turned the picture already.
    orientation = 1 if header.kind == "heic" else header.orientation
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_saved: int | None = None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what libjpeg, libpng and libtiff print away from the user's terminal.

    They write to file descriptor 2 past Python and past OpenCV's log level. Threads may overlap:
    the first one in turns it away, the last one out turns it back.
    """
    global _quiet_users, _quiet_saved
    with _quiet_lock:
        if _quiet_users == 0:
            try:
                _quiet_saved = os.dup(2)
            except OSError:  # a service without standard error
                _quiet_saved = None
            else:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0 and _quiet_saved is not None:
                os.dup2(_quiet_saved, 2)
                os.close(_quiet_saved)
                _quiet_saved = None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:100]
