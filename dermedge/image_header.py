"""What a picture file says of itself, read without decoding: kind, size, samples, orientation.

Every kind's header is parsed here, and so is what must be true of the whole file: that it is not
cut short, and what its decoder will need.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dermedge import UserError

MAX_JPEG_SCANS = 200  # real ones have about ten; each costs a pass over the whole picture

TITLES = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WebP",
    "tiff": "TIFF",
    "bmp": "BMP",
    "heic": "HEIC",
    "avif": "AVIF",
}


class ImageError(UserError, ValueError):
    """A picture that cannot be used; the message is one line that says why."""


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


def parse_header(data: bytes) -> Header:
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
    except (struct.error, IndexError, OverflowError):  # an offset beyond the end, or beyond 63 bits
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


def bare_png(data: bytes) -> bytes:
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
        if start > len(data):  # struct takes no offset of 64 bits
            raise ImageError("the TIFF is cut short: its directory lies behind its end")
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


def bare_tiff(data: bytes) -> bytes:
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
            raise ImageError(f"the {TITLES[kind]} is cut short")
        if box == b"meta":
            meta = data[position:end]
        position = end
    # The largest is the picture; others are its tiles, thumbnail and depth map.
    sizes = [
        struct.unpack_from(">II", meta, match.end() + 4) for match in re.finditer(b"ispe", meta)
    ]
    if not sizes:
        raise ImageError(f"the {TITLES[kind]} is damaged: it holds no picture")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    if not width or not height:
        raise ImageError(f"the {TITLES[kind]} says that its picture is empty")
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
