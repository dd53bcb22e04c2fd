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
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dermedge.files import write_atomic

WORKING_SIDE = 1024  # px; pictures twice as long or longer are halved until they are not
MAX_BYTES = 100_000_000  # of one file
MAX_PIXELS = 120_000_000
# Decoded samples plus the RGB copy. With the file itself, the interpreter and the runtime the
# process then stays below 1 GB.
MAX_DECODED_BYTES = 480_000_000
MIN_SIDE = 16  # px; below this there is nothing to judge
MAX_JPEG_SCANS = 200  # real ones have about ten; each costs a pass over the whole picture

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff"),
        *("bmp", "dib", "heic", "heif", "avif"),
    )
)


class ImageError(ValueError):
    """A picture that cannot be used; the message is one line that says why."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    pixels : uint8 (h, w, 3) RGB, upright (EXIF orientation applied), maybe reduced.
    height, width : full size in px after orientation.
    """

    pixels: np.ndarray
    height: int
    width: int


@dataclass(frozen=True)
class Header:
    """What a file says about its picture, read without decoding it.

    kind : 'jpeg', 'png', 'webp', 'tiff', 'bmp', 'heic' or 'avif'.
    width, height : px as stored, before `orientation` is applied.
    channels : samples per px after a palette is expanded; bits : per sample, as stored.
    orientation : EXIF 1..8 (1: upright); where a file has none, or a broken one, 1.
    extra_bytes : working memory of the decoder beside the decoded picture.
    """

    kind: str
    width: int
    height: int
    channels: int
    bits: int
    orientation: int = 1
    extra_bytes: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in px after orientation."""
        turned = self.orientation >= 5
        return (self.width, self.height) if turned else (self.height, self.width)


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

    A pixel is set where its brightest colour channel is above half of the range, or above zero
    in a file that holds only 0 and 1. Transparency is ignored.

    Raises
    ------
    ImageError : as `read_image`.
    """
    with _named(source):
        data = _load(source)
        header = _checked_header(data)
        _check_memory(header, 1)
        samples = _decode(data, header, 1)
        if samples.ndim == 3:
            samples = samples[..., :3].max(axis=2)
        half = 0 if samples.max() <= 1 else np.iinfo(samples.dtype).max // 2
        return _upright(samples > half, header)


def read_header(source: str | Path | bytes) -> Header:
    """Read what a file says about its picture, without decoding. Raises ImageError."""
    with _named(source):
        return _parse(_load(source))


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write uint8 RGB (h, w, 3), or gray (h, w), as PNG without metadata, atomically."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(f"expected uint8 (h, w, 3) or (h, w), got {image.dtype} {image.shape}")
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    write_atomic(path, cv2.imencode(".png", stored)[1].tobytes())


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
    header = _parse(data)
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
            data = _bare_png(data)
        elif header.kind == "tiff":
            data = _bare_tiff(data)
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
        raise ImageError(f"the {_TITLES[header.kind]} data is damaged or of an unusual kind")
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


# ---------------------------------------------------------------------------- headers

_TITLES = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WebP",
    "tiff": "TIFF",
    "bmp": "BMP",
    "heic": "HEIC",
    "avif": "AVIF",
}


def _parse(data: bytes) -> Header:
    try:
        if data[:3] == b"\xff\xd8\xff":
            return _jpeg_header(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _png_header(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_header(data)
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff_header(data)
        if data[:2] == b"BM" and len(data) > 6 and data[6:10] == bytes(4):
            return _bmp_header(data)
        if data[4:8] == b"ftyp":
            kind = _iso_kind(data)
            if kind:
                return _iso_header(data, kind)
    except (struct.error, IndexError):
        raise ImageError("the file is cut short") from None
    raise ImageError("this is not a JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF picture")


def _jpeg_header(data: bytes) -> Header:
    # ITU-T T.81, annex B.
    frame: tuple[int, ...] | None = None
    orientation = 1
    position = 2
    while True:
        while data[position] != 0xFF:
            position += 1
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            continue
        if marker == 0xD9:
            raise ImageError("this JPEG holds no picture")
        (length,) = struct.unpack_from(">H", data, position)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame is not None:
                raise ImageError("the JPEG data is damaged: two frames")
            frame = (marker, *struct.unpack_from(">BHHB", data, position + 2))
            factors = data[position + 9 : position + length : 3]
        elif marker == 0xE1 and data[position + 2 : position + 8] == b"Exif\0\0":
            orientation = _exif_orientation(data[position + 8 : position + length])
        elif marker == 0xDA:
            break
        position += length
    if frame is None:
        raise ImageError("the JPEG data is damaged: no frame before its first scan")
    # In coded data 0xFF is followed by 0 or a restart marker, so the end marker cannot be missed.
    # What follows it (motion photos, further pictures) is no concern.
    end = data.find(b"\xff\xd9", position)
    if end < 0:
        raise ImageError("the JPEG is cut short: its end marker is missing")
    if data.count(b"\xff\xda", position, end) > MAX_JPEG_SCANS:
        raise ImageError(f"the JPEG has more than {MAX_JPEG_SCANS} scans")
    marker, bits, height, width, channels = frame
    if bits != 8:
        raise ImageError(f"{bits}-bit JPEG is not supported: save it with 8 bits per channel")
    if channels not in (1, 3, 4) or len(factors) < channels or not all(factors):
        raise ImageError("the JPEG data is damaged: odd colour channels")
    if not width or not height:
        raise ImageError("the JPEG says that its picture is empty")
    extra = 0
    if marker not in (0xC0, 0xC1, 0xC9):  # progressive: all coefficients are kept, 16 bits each
        each = [(factor >> 4) * (factor & 15) for factor in factors[:channels]]
        extra = 2 * width * height * sum(each) // max(1, *each)
    # OpenCV hands out three channels whatever is stored.
    return Header("jpeg", width, height, 3, bits, orientation, extra)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk, its length and checksum included; checks the CRCs."""
    position = 8
    while True:
        if position + 12 > len(data):
            raise ImageError("the PNG is cut short: its end chunk is missing")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ImageError("the PNG is cut short")
        # Only a fault in what is needed for the pixels refuses the picture.
        if kind in _PNG_NEEDED:
            (stored,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != stored:
                raise ImageError(f"the PNG is damaged: wrong checksum in {kind.decode()}")
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end


_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def _png_header(data: bytes) -> Header:
    # W3C PNG specification, third edition, section 11.
    if data[12:16] != b"IHDR":
        raise ImageError("the PNG is damaged: it does not start with its header")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    channels = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}.get(colour)  # OpenCV makes BGRA of gray + alpha
    if channels is None or bits not in (1, 2, 4, 8, 16) or not width or not height:
        raise ImageError("the PNG is damaged: odd header")
    orientation = 1
    for kind, start, end in _png_chunks(data):
        if kind == b"eXIf":
            orientation = _exif_orientation(data[start + 8 : end - 4])
        elif kind == b"tRNS":
            channels = 4
    return Header("png", width, height, channels, bits, orientation)


def _bare_png(data: bytes) -> bytes:
    """Only the chunks that make the first picture: no animation, profile, text or EXIF."""
    kept = [data[start:end] for kind, start, end in _png_chunks(data) if kind in _PNG_NEEDED]
    return b"".join([data[:8], *kept])


def _webp_header(data: bytes) -> Header:
    # RFC 9649.
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ImageError("the WebP is cut short")
    width = height = 0
    orientation = 1
    position = 12
    while position + 8 <= size + 8:
        kind, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        if kind == b"VP8X":
            width = 1 + int.from_bytes(data[body + 4 : body + 7], "little")
            height = 1 + int.from_bytes(data[body + 7 : body + 10], "little")
        elif kind == b"VP8 " and not width:
            width, height = (v & 0x3FFF for v in struct.unpack_from("<HH", data, body + 6))
        elif kind == b"VP8L" and not width:
            (packed,) = struct.unpack_from("<I", data, body + 1)
            width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        elif kind == b"EXIF":
            orientation = _exif_orientation(data[body : body + length].removeprefix(b"Exif\0\0"))
        position = body + length + (length & 1)
    if not width or not height:
        raise ImageError("the WebP is damaged: it holds no picture")
    # The decoder works in 32 bits a pixel beside the picture that it hands out.
    return Header("webp", width, height, 4, 8, orientation, 4 * width * height)


_TIFF_SIZES = {1: 1, 3: 2, 4: 4, 16: 8}  # BYTE, SHORT, LONG, LONG8: the only types needed here
_TIFF_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}


def _tiff_fields(data: bytes, wanted: frozenset[int]) -> dict[int, tuple[int, int, np.ndarray]]:
    """Tag -> (type, position of the values, values) of the first directory (TIFF 6.0, BigTIFF)."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    big = 43 in data[2:4]
    if big:
        (start,) = struct.unpack_from(order + "Q", data, 8)
        (count,) = struct.unpack_from(order + "Q", data, start)
        entry, first, room = 20, start + 8, 8
    else:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        entry, first, room = 12, start + 2, 4
    if first + count * entry > len(data):
        raise ImageError("the TIFF is cut short: its directory lies behind its end")
    fields: dict[int, tuple[int, int, np.ndarray]] = {}
    for position in range(first, first + count * entry, entry):
        tag, kind = struct.unpack_from(order + "HH", data, position)
        if tag not in wanted:
            continue
        (number,) = struct.unpack_from(order + ("Q" if big else "I"), data, position + 4)
        if tag in fields or kind not in _TIFF_SIZES or number == 0:
            raise ImageError("the TIFF is damaged: odd directory")
        at = position + entry - room
        if number * _TIFF_SIZES[kind] > room:
            (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, at)
        if at + number * _TIFF_SIZES[kind] > len(data):
            raise ImageError("the TIFF is cut short")
        values = np.frombuffer(data, np.dtype(_TIFF_CODES[kind]).newbyteorder(order), number, at)
        fields[tag] = (kind, at, values)
    return fields


_ORIENTATION = 274
_TIFF_WANTED = frozenset(
    {256, 257, 258, 262, _ORIENTATION, 277, 273, 279, 278, 322, 323, 324, 325, 339}
)


def _exif_orientation(exif: bytes) -> int:
    """1..8; a broken EXIF block is no reason to refuse a good picture."""
    try:
        value = int(_tiff_fields(exif, frozenset({_ORIENTATION}))[_ORIENTATION][2][0])
    except (ImageError, struct.error, KeyError):
        return 1
    return value if 1 <= value <= 8 else 1


def _tiff_header(data: bytes) -> Header:
    fields = _tiff_fields(data, _TIFF_WANTED)

    def one(tag: int, default: int = 0) -> int:
        return int(fields[tag][2][0]) if tag in fields else default

    width, height, channels, bits = one(256), one(257), one(277, 1), one(258, 1)
    photometric = one(262, 1)
    if not width or not height or not 1 <= channels <= 16:
        raise ImageError("the TIFF is damaged: odd size or channels")
    if one(339, 1) != 1:
        raise ImageError("TIFF with float or signed samples: save it with 8 or 16 bits per channel")
    if bits not in (1, 2, 4, 8, 16) or (bits == 16 and photometric not in (1, 2)):
        raise ImageError(f"{bits}-bit TIFF of this kind: save it with 8 bits per channel, RGB")
    if photometric not in (0, 1, 2, 3, 5, 6) or (photometric == 2 and channels < 3):
        raise ImageError("TIFF of an unusual colour model: save it as RGB")
    for offsets, counts in ((273, 279), (324, 325)):
        if offsets in fields and counts in fields:
            starts, sizes = fields[offsets][2], fields[counts][2]
            common = min(len(starts), len(sizes))
            ends = starts[:common].astype(np.float64) + sizes[:common]
            if ends.max() > len(data):
                raise ImageError("the TIFF is cut short: its picture data is missing")
    block = one(322, width) * one(323, min(height, one(278, height)))
    orientation = one(_ORIENTATION, 1)
    return Header(
        "tiff",
        width,
        height,
        max(3 if photometric in (3, 6) else 1, min(channels, 4)),
        bits,
        orientation if 1 <= orientation <= 8 else 1,
        block * max(4, channels * (bits + 7) // 8),
    )


def _bare_tiff(data: bytes) -> bytes:
    """With the orientation set to 1: OpenCV's own treatment of it depends on the sample type."""
    fields = _tiff_fields(data, frozenset({_ORIENTATION}))
    if _ORIENTATION not in fields:
        return data
    kind, at, _ = fields[_ORIENTATION]
    order = "little" if data[:2] == b"II" else "big"
    size = _TIFF_SIZES[kind]
    return data[:at] + (1).to_bytes(size, order) + data[at + size :]


def _bmp_header(data: bytes) -> Header:
    offset, size = struct.unpack_from("<II", data, 10)
    compression = image_bytes = 0
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits, compression, image_bytes = struct.unpack_from("<iiHHII", data, 18)
    height = abs(height)  # negative: stored from the top
    if width <= 0 or not height or bits not in (1, 4, 8, 16, 24, 32):
        raise ImageError("the BMP is damaged: odd header")
    if compression in (0, 3):
        image_bytes = (width * bits + 31) // 32 * 4 * height
    if offset + image_bytes > len(data):
        raise ImageError("the BMP is cut short")
    return Header("bmp", width, height, 3, 8)


def _iso_kind(data: bytes) -> str | None:
    (size,) = struct.unpack_from(">I", data, 0)
    brands = data[8:size]
    if b"avif" in brands or b"avis" in brands:
        return "avif"
    if any(brand in brands for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1")):
        return "heic"
    return None


def _iso_header(data: bytes, kind: str) -> Header:
    # ISO/IEC 23008-12 (HEIF): sizes and turns are item properties inside the 'meta' box.
    meta = b""
    position = 0
    while position < len(data):
        size, box = struct.unpack_from(">I4s", data, position)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, position + 8)
        end = len(data) if size == 0 else position + size
        if end > len(data) or end < position + 8:
            raise ImageError(f"the {_TITLES[kind]} is cut short")
        if box == b"meta":
            meta = data[position:end]
        position = end
    # The largest is the picture; others are its tiles, thumbnail and depth map.
    sizes = [
        struct.unpack_from(">II", meta, match.end() + 4) for match in re.finditer(b"ispe", meta)
    ]
    if not sizes:
        raise ImageError(f"the {_TITLES[kind]} is damaged: it holds no picture")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    if not width or not height:
        raise ImageError(f"the {_TITLES[kind]} says that its picture is empty")
    return Header(kind, width, height, 4, 8, _iso_orientation(meta), 4 * width * height)


def _iso_orientation(meta: bytes) -> int:
    """EXIF orientation that equals the HEIF properties 'irot' (first), then 'imir'."""
    turn = re.search(rb"\0\0\0\x09irot(.)", meta, re.DOTALL)
    mirror = re.search(rb"\0\0\0\x09imir(.)", meta, re.DOTALL)
    quarter = turn[1][0] & 3 if turn else 0  # anti-clockwise
    if mirror is None:
        return (1, 8, 3, 6)[quarter]
    upside_down = (mirror[1][0] & 1) == 0
    return ((4, 5, 2, 7) if upside_down else (2, 7, 4, 5))[quarter]
