"""The chunks of a PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from dermedge.image.header import MAX_PARTS, ImageError, cut_short, damaged, odd_colours
from dermedge.image.header.colours import Colours, near_srgb
from dermedge.image.header.tiff import read_exif, xmp_orientation

_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"iCCP", b"cICP")
_PNG_PIXELS = _PNG_NEEDED[:5]
_PNG_ALWAYS = (b"IHDR", b"IDAT", b"IEND")  # the others are of palettes, or in `Png.key`
_MAX_TEXT = 1_000_000  # bytes of a text chunk or so that are unpacked


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk, its length and checksum included; checks the CRCs."""
    position = 8
    for _ in range(MAX_PARTS):
        if position + 12 > len(data):
            raise cut_short("png")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise cut_short("png")
        # Only a fault in what is needed for the pixels refuses the picture.
        if kind in _PNG_NEEDED:
            (stored,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != stored:
                raise ImageError(
                    "the PNG is damaged, a checksum is wrong: copy the file again",
                    code="image_damaged",
                )
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise damaged("png")


@dataclass(frozen=True)
class Png:
    """What a PNG says of itself (W3C PNG specification, third edition).

    bits : a sample. channels : once a palette is expanded, alpha included. key : the gray or
    red, green and blue, as stored, that is transparent. profile : ICC; empty where it is broken.
    colours : what cICP names, at most one. pixels : chunks of the picture.
    """

    width: int
    height: int
    bits: int
    channels: int
    key: tuple[int, ...] | None
    orientation: int | None
    profile: bytes | None
    colours: frozenset[Colours]
    pixels: tuple[bytes, ...]

    def bare(self) -> bytes:
        """A PNG of the first picture alone. Raises ImageError where its pixels are not whole."""
        self._check_rows()
        return b"".join([b"\x89PNG\r\n\x1a\n", *self.pixels])

    def _check_rows(self) -> None:
        # What inflates to too few rows some decoders leave black, others report on standard error.
        _, _, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", self.pixels[0], 8)
        depth = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        passes = [(self.width, self.height)]
        if interlaced:  # Adam7
            passes = [
                (-(-(self.width - x) // across), -(-(self.height - y) // down))
                for x, y, across, down in (
                    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
                    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
                )
            ]
        lines = [(1 + -(-w * depth // 8), h) for w, h in passes if w > 0 and h > 0]
        expected = sum(line * count for line, count in lines)
        unpack = zlib.decompressobj()
        rows = bytearray()
        try:
            for chunk in self.pixels:
                if chunk[4:8] == b"IDAT" and len(rows) < expected:
                    rows += unpack.decompress(memoryview(chunk)[8:-4], expected - len(rows))
        except zlib.error:
            raise damaged("png") from None
        if len(rows) < expected:
            raise damaged("png")
        start = 0
        for line, count in lines:
            if max(memoryview(rows)[start : start + line * count : line]) > 4:  # filters
                raise damaged("png")
            start += line * count


def read_png(data: bytes) -> Png:
    """Raises ImageError."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise damaged("png")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    channels = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}.get(colour)
    allowed = {0: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8)}.get(colour, (8, 16))
    if channels is None or bits not in allowed or any(data[26:28]) or data[28] > 1:
        raise damaged("png")
    pixels: list[bytes] = []
    profile = gamma = corners = key = None
    colours: set[Colours] = set()
    standard = False
    exif: bytes | None = None
    xmp: bytes | None = None
    for number, (kind, start, end) in enumerate(_png_chunks(data)):
        if (kind == b"IHDR") != (number == 0):
            raise damaged("png")
        body = data[start + 8 : end - 4] if kind not in (b"IDAT", b"fdAT") else b""
        if kind == b"IDAT" and colour == 3 and len(pixels) < 2:
            raise damaged("png")  # no palette
        if kind in _PNG_PIXELS and (kind in _PNG_ALWAYS or colour == 3):
            _check_palette(kind, len(body), [part[4:8] for part in pixels[:3]])
            pixels.append(data[start:end])
        if kind == b"tRNS" and colour in (0, 2, 3):
            channels = 4
            if colour != 3:
                if len(body) != (2 if colour == 0 else 6):
                    raise damaged("png")
                # Of more bits than a sample has, the lower ones count.
                values = struct.unpack(f">{len(body) // 2}H", body)
                key = tuple(value & ((1 << bits) - 1) for value in values)
        elif kind == b"cICP" and len(body) == 4:
            colours = {Colours(body[0], body[1])}
        elif kind == b"iCCP" and profile is None:  # of what is unpacked, the first counts
            profile = _inflated(body.partition(b"\0")[2][1:], 16 * _MAX_TEXT)
        elif kind == b"sRGB":
            standard = True
        elif kind == b"gAMA" and len(body) == 4:
            gamma = int.from_bytes(body, "big") / 100_000
        elif kind == b"cHRM" and len(body) == 32:
            corners = [value / 100_000 for value in struct.unpack(">8I", body)]
        elif kind == b"eXIf":
            exif = body
        elif kind in (b"tEXt", b"zTXt") and body.startswith(b"Raw profile type exif\0"):
            if exif is None:
                exif = _unhexed(body[22:] if kind == b"tEXt" else _inflated(body[23:], _MAX_TEXT))
        elif xmp is None and kind == b"iTXt" and body.startswith(b"XML:com.adobe.xmp\0"):
            xmp = body if body[18:19] == b"\0" else _inflated(body[22:], _MAX_TEXT)
    if colours:
        profile = None  # which is for readers that do not know cICP
    elif profile is None and not standard and not near_srgb(gamma, corners):
        raise odd_colours()
    orientation = read_exif(exif or b"")[0] or xmp_orientation(xmp or b"")
    return Png(
        *(width, height, bits, channels, key, orientation, profile, frozenset(colours)),
        tuple(pixels),
    )


def _check_palette(kind: bytes, length: int, before: list[bytes]) -> None:
    """That a chunk which a palette has use for comes once, in its place, and is no longer."""
    if kind == b"PLTE" and (before != [b"IHDR"] or length % 3 or not 3 <= length <= 768):
        raise damaged("png")
    if kind == b"tRNS" and (before != [b"IHDR", b"PLTE"] or not 1 <= length <= 256):
        raise damaged("png")


def _inflated(data: bytes, most: int) -> bytes:
    """Unpacked bytes; none where they are broken, or more than `most`."""
    unpack = zlib.decompressobj()
    try:
        whole = unpack.decompress(data, most)
    except zlib.error:
        return b""
    return whole if unpack.eof else b""


def _unhexed(text: bytes) -> bytes:
    """What ImageMagick writes as lines of hexadecimal digits, after a name and a length."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode())
    except ValueError:
        return b""
