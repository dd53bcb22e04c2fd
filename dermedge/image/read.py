"""Safe picture reading: what a file claims is checked before anything of it is decoded.

The kind is found by the first bytes, never by the extension: `dermedge.image.decode` opens it.
This module adds limits, applies the orientation exactly once, and brings every mode and colour
profile to uint8 sRGB. Nothing of a picture's metadata leaves this module. All functions may be
called from several threads at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import index
from pathlib import Path

import cv2
import numpy as np

from dermedge.files import walk, write_atomic
from dermedge.image.decode import Opened, check_free, open_picture
from dermedge.image.header import ImageError as ImageError  # of those who read pictures, too
from dermedge.image.mask_values import lesion_pixels
from dermedge.image.pixels import coloured, on_white, upright
from dermedge.text import printable

WORKING_SIDE = 1024  # px; pictures twice as long or longer are halved until they are not
MAX_BYTES = 100_000_000  # of one file
# What the decoder holds plus the RGB copy. With the file itself, the interpreter and the runtime
# the process then stays below 1 GB.
MAX_DECODED_BYTES = 600_000_000

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "tif", "tiff"),
        *("bmp", "dib", "heic", "heif", "hif", "avif"),
    )
)
_HEADER = 33  # bytes of a PNG before the chunk that follows its IHDR
# Pictures, too, but none that is read here.
OTHER_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("dcm", "dicom", "gif", "jp2", "j2k", "jxl", "psd"),
        # What a sensor saw, by camera.
        *("3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "gpr", "iiq", "kdc"),
        *("mef", "mos", "mrw", "nef", "nrw", "orf", "pef", "raf", "rw2", "rwl", "sr2", "srf"),
        *("srw", "x3f"),
    )
)


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    pixels : uint8 (h, w, 3) RGB, upright (EXIF orientation applied), maybe reduced.
    height, width : full size in px after orientation, no smaller than `pixels`.

    Raises ValueError where they are not so. That the order is RGB, and not the BGR of OpenCV,
    cannot be checked.
    """

    pixels: np.ndarray
    height: int
    width: int

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f"expected uint8 (height, width, 3) RGB, got {dtype} {shape}")
        for side in ("height", "width"):  # numpy's own whole numbers are no JSON
            object.__setattr__(self, side, index(getattr(self, side)))
        if self.height < shape[0] or self.width < shape[1]:
            raise ValueError(
                f"pixels of {shape[0]}x{shape[1]} are of no picture of height {self.height} and "
                f"width {self.width}"
            )


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
    TypeError : `source` is neither a path nor bytes.
    """
    with _named(source):
        opened = open_picture(load(source))
        factor = reduction(max(opened.width, opened.height), working_side)
        _check_memory(opened, factor)
        samples = _decoded(opened, factor)
        if opened.kind == "jpeg":  # it was reduced in decoding
            factor = 1
        if samples.ndim == 3 and samples.shape[2] == 4 and not opened.cmyk:
            pixels = halved(on_white(samples, opened.profile), factor)
        else:
            pixels = coloured(halved(samples, factor), opened.profile)
        pixels = upright(pixels, opened.orientation)
        sides = opened.height, opened.width
        return Picture(pixels, *(sides[::-1] if opened.orientation >= 5 else sides))


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
        opened = open_picture(load(source))
        _check_memory(opened, 1)
        samples = _decoded(opened, 1)
        if opened.cmyk:
            samples = coloured(samples, None)
        lossy = opened.kind in ("jpeg", "webp", "heic", "avif")
        return upright(lesion_pixels(samples, lossy), opened.orientation)


def write_png(path: str | Path, image: np.ndarray, private: bool = False, about: str = "") -> None:
    """Write uint8 RGB (h, w, 3), or gray (h, w), as PNG without metadata, atomically.

    `private` leaves the file readable by its owner alone. `about`, ASCII, is written into it, for
    `is_about`.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(f"expected uint8 (h, w, 3) or (h, w), got {image.dtype} {image.shape}")
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".png", stored)[1].tobytes()
    comment = _comment(about) if about else b""
    write_atomic(path, encoded[:_HEADER] + comment + encoded[_HEADER:], private)


def is_about(path: str | Path, about: str) -> bool:
    """Whether `write_png` wrote a file with these words. OSError where it cannot be read."""
    comment = _comment(about)
    with open(path, "rb") as file:
        return file.read(_HEADER + len(comment))[_HEADER:] == comment


def _comment(text: str) -> bytes:
    """A tEXt chunk of a PNG."""
    body = b"tEXtComment\0" + text.encode("ascii")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Expand folders, recursively, to the pictures in them, in natural order (2 before 10).

    In folders only files with a picture's extension count, and hidden files and folders do not;
    links to folders are followed. A file given by name, or a path that does not exist, stays in
    the list, as does a folder that may not be read: whoever reads it gets the line that says what
    is wrong with it. Each path comes once.
    """
    images: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            images.setdefault(path)
            continue
        inside: list[Path] = []
        unreadable: list[OSError] = []
        for folder, names in walk(path, unreadable.append):
            inside += [Path(folder, name) for name in names if looks_like_picture(name)]
        inside += [Path(error.filename) for error in unreadable]
        images.update(dict.fromkeys(sorted(inside, key=_natural)))
    return list(images)


def find_other_pictures(paths: Iterable[str | Path]) -> list[Path]:
    """What `find_images` leaves out of folders, though it is a picture by its extension."""
    return [
        Path(folder, name)
        for path in map(Path, paths)
        for folder, names in walk(path)
        for name in sorted(names)
        if looks_like_picture(name, OTHER_EXTENSIONS)
    ]


def looks_like_picture(name: str, extensions: frozenset[str] = EXTENSIONS) -> bool:
    """Whether a file's name, without its folder, is of one of these extensions and not hidden."""
    return not name.startswith(".") and Path(name).suffix.lower() in extensions


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
    """The bytes of a file, no more than `MAX_BYTES`. Raises ImageError, or TypeError."""
    data = source if isinstance(source, bytes) else _content(source)
    if not data:
        raise ImageError("the file is empty", code="image_unreadable")
    check_bytes(len(data))
    return data


def _content(source: str | Path) -> bytes:
    # An array's or a buffer's content would be taken for a path, a number for an open file.
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            "expected the path of a picture or the bytes of its file, got "
            f"{type(source).__name__}: pixels go into a dermedge.image.read.Picture"
        )
    try:
        status = os.stat(source)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("is a folder, not a picture", code="image_unreadable")
        # Reading a pipe or a device could wait for ever.
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file", code="image_unreadable")
        check_bytes(status.st_size)
        with open(source, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(
            "{reason}", code="image_unreadable", reason=error.strerror or "cannot be read"
        ) from None
    except ValueError as error:  # a null byte in the path
        raise ImageError("{reason}", code="image_unreadable", reason=error) from None


def check_bytes(count: int) -> None:
    """Raise ImageError where a file has more bytes than are read."""
    if count > MAX_BYTES:
        raise ImageError(
            "the file has {size} MB, at most {limit} MB are read: save it smaller",
            code="image_too_large",
            size=round(count / 1e6),
            limit=round(MAX_BYTES / 1e6),
        )


def reduction(side: int, working_side: int | None) -> int:
    """1, 2, 4 or 8, by which a picture whose long side is `side` px is halved in reading."""
    factor = 1
    while working_side is not None and factor < 8 and side >= 2 * working_side * factor:
        factor *= 2
    return factor


def _memory(opened: Opened, factor: int) -> int:
    """Bytes that the decoder needs, and the RGB copy."""
    pixels = opened.width * opened.height
    if opened.kind == "jpeg":
        pixels //= factor * factor
    return pixels * (opened.pixel_bytes + 3) + opened.extra_bytes


def _decoded(opened: Opened, factor: int) -> np.ndarray:
    try:
        return opened.decode(factor)
    except ImageError:
        check_free(_memory(opened, factor))
        raise


def _check_memory(opened: Opened, factor: int) -> None:
    needed = _memory(opened, factor)
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


def halved(samples: np.ndarray, factor: int) -> np.ndarray:
    """Samples (h, w, ...) reduced by what `reduction` gives, each side rounded up."""
    if factor == 1:
        return samples
    sides = [-(-side // factor) for side in samples.shape[1::-1]]
    return cv2.resize(samples, sides, interpolation=cv2.INTER_AREA)
