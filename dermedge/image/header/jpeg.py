"""The segments of a JPEG before its first scan."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from dermedge.image.header import MAX_PARTS, ImageError, cut_short, damaged, unusual
from dermedge.image.header.tiff import read_exif, xmp_orientation

MAX_JPEG_SCANS = 200  # real ones have about ten; each costs a pass over the whole picture


@dataclass(frozen=True)
class Jpeg:
    """What the segments before the first scan say (ITU-T T.81, annex B).

    channels : 1, 3 or 4. block : (height, width) in px of a unit of coding. profile : ICC; empty
    where a part of it is missing. exif : the block, maybe empty. extra_bytes : for the
        coefficients of a progressive picture.
    data : the picture without what follows its end (a gain map, a motion photo's film), mended
        where a sequential scan names a range of coefficients, which it must not and which decoders
        ignore. whole : whether its end is there.
    """

    width: int
    height: int
    channels: int
    block: tuple[int, int]
    orientation: int | None
    adobe_rgb: bool
    profile: bytes | None
    exif: bytes
    extra_bytes: int
    data: bytes
    whole: bool


_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # a marker among coded data
_MOST_TABLES = 8 * (17 + 256)  # bytes of a segment that holds all that there may be
_FILL = re.compile(rb"\xff+")
# The Huffman tables of ITU-T T.81, K.3.3, which nearly all cameras use: code lengths to values.
_USUAL_TABLES = {
    bytes.fromhex("00010501010101010100000000000000"): bytes(range(12)),
    bytes.fromhex("00030101010101010101010000000000"): bytes(range(12)),
    bytes.fromhex("0002010303020403050504040000017d"): bytes.fromhex(
        "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a16"
        "1718191a25262728292a3435363738393a434445464748494a535455565758595a63646566676869"
        "6a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6"
        "b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8"
        "f9fa"
    ),
    bytes.fromhex("00020102040403040705040400010277"): bytes.fromhex(
        "000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434"
        "e125f11718191a262728292a35363738393a434445464748494a535455565758595a636465666768"
        "696a737475767778797a82838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4"
        "b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8"
        "f9fa"
    ),
}


def read_jpeg(data: bytes) -> Jpeg:
    """Raises ImageError."""
    try:
        return _read_jpeg(data)
    except (struct.error, IndexError):
        raise cut_short("jpeg") from None


def _read_jpeg(data: bytes) -> Jpeg:
    frame: tuple[int, ...] | None = None
    xmp = b""
    notes: list[bytes] = []
    profile: list[bytes] = []
    usual: list[bool] = []
    position = 2
    for _ in range(MAX_PARTS):
        fill = _FILL.match(data, position)
        if fill is None:
            raise cut_short("jpeg") if position >= len(data) else damaged("jpeg")
        marker, position = data[fill.end()], fill.end() + 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        if marker in (0x00, 0xD9):
            raise damaged("jpeg")
        (length,) = struct.unpack_from(">H", data, position)
        body, end = position + 2, position + length
        if marker == 0xF7:  # JPEG-LS
            raise unusual("jpeg")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame is not None:
                raise damaged("jpeg")
            frame = (marker, *struct.unpack_from(">BHHB", data, body))
            factors = data[body + 7 : end : 3]
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", body):
            notes.append(data[body + 6 : end])
        elif marker == 0xE1 and data.startswith(b"http://ns.adobe.com/xap/1.0/\0", body):
            xmp = data[body:end]
        elif marker == 0xE2 and data.startswith(b"ICC_PROFILE\0", body):
            profile.append(data[body + 12 : end])
        elif marker == 0xC4:
            usual += _usual(data[body : min(end, body + _MOST_TABLES)])
        elif marker == 0xDA:
            break
        position = end
    else:
        raise damaged("jpeg")
    if frame is None:
        raise damaged("jpeg")
    # Tables made for one picture may have the lengths of the usual ones, but then none is usual.
    if any(usual) and not all(usual):
        raise damaged("jpeg")
    marker, bits, height, width, channels = frame
    # A height of 0 is stated behind the first scan.
    if bits != 8 or not height or marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
        raise unusual("jpeg")
    across, down = ([f >> 4 for f in factors], [f & 15 for f in factors])
    if len(factors) < channels or not all(across) or not all(down) or not width:
        raise damaged("jpeg")
    if channels not in (1, 3, 4):
        raise unusual("jpeg")
    each = [a * b for a, b in zip(across[:channels], down[:channels], strict=True)]
    progressive = marker in (0xC2, 0xCA)  # all coefficients are kept, 16 bits each
    finish = _end_of_picture(data, end, progressive)
    if not progressive and data[end - 3 : end] != b"\0\x3f\0":
        data = b"".join([data[: end - 3], b"\0\x3f\0", data[end:finish]])
    parts = sorted(profile)
    whole = parts and all(len(p) > 2 and p[1] == len(parts) for p in parts)
    exif = b"".join(notes)
    orientation, adobe_rgb = read_exif(exif)
    return Jpeg(
        width,
        height,
        channels,
        (8 * max(down[:channels]), 8 * max(across[:channels])) if channels > 1 else (8, 8),
        orientation or xmp_orientation(xmp),
        adobe_rgb,
        b"".join(p[2:] for p in parts) if whole else b"" if parts else None,
        exif,
        2 * width * height * sum(each) // max(each) if progressive else 0,
        data[:finish],
        finish is not None,
    )


def _end_of_picture(data: bytes, position: int, progressive: bool) -> int | None:
    """The byte behind the end of a picture whose first scan begins here; None: it has none.

    Raises ImageError for too many scans.
    """
    scans = 1
    for _ in range(MAX_PARTS):
        found = _IN_SCAN.search(data, position)
        if found is None or data[found.end() - 1] == 0xD8:  # the next picture
            return None
        marker, position = data[found.end() - 1], found.end()
        if marker == 0xD9:
            return position
        if marker == 0x01:
            continue
        scans += marker == 0xDA
        if progressive and scans > MAX_JPEG_SCANS:
            raise ImageError(
                "the JPEG has too many scans (the limit is {limit}): save it again",
                code="image_too_large",
                limit=MAX_JPEG_SCANS,
            )
        position += int.from_bytes(data[position : position + 2], "big")
    return None


def _usual(segment: bytes) -> list[bool]:
    """Of each Huffman table with the lengths of a usual one, whether it has its values, too.

    A table of which two values changed places often gives a picture without any warning.
    """
    usual = []
    while len(segment) >= 17:
        lengths = segment[1:17]
        values, segment = segment[17 : 17 + sum(lengths)], segment[17 + sum(lengths) :]
        if lengths in _USUAL_TABLES:
            usual.append(values == _USUAL_TABLES[lengths])
    return usual
