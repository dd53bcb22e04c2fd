"""Formats made of boxes: HEIF and AVIF, WebP; and BMP."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from dermedge.image.header import MAX_PARTS, TITLES, ImageError, cut_short, damaged
from dermedge.image.header.colours import Colours
from dermedge.image.header.tiff import read_exif, xmp_orientation


@dataclass(frozen=True)
class Iso:
    """Of a HEIF or AVIF file.

    colours : that 'nclx' boxes name. media : where coded pixels lie. turns : name and content of
    the boxes by which the decoded picture is turned ('irot', 'imir') and cropped ('clap'), in
    their order.
    """

    colours: frozenset[Colours]
    media: tuple[tuple[int, int], ...]
    turns: tuple[tuple[bytes, bytes], ...]


def read_iso(data: bytes, kind: str) -> Iso:
    """Raises ImageError where the file is cut short (ISO/IEC 14496-12, 23008-12)."""
    colours: set[Colours] = set()
    media: list[tuple[int, int]] = []
    coded: list[tuple[int, int]] = []
    turns: tuple[tuple[bytes, bytes], ...] = ()
    described = False
    position = 0
    for _ in range(MAX_PARTS):
        if position >= len(data):
            break
        try:
            box, body, end = _box(data, position, len(data))
        except (struct.error, ValueError):
            # What follows a picture is no part of it, be it a film or what a phone notes there.
            if described and media and data[position + 4 : position + 8] not in (b"meta", b"mdat"):
                break
            raise cut_short(kind) from None
        if box == b"meta":
            own = _properties(data, body + 4, end)
            colours |= _colours(own, data[body + 4 : end])
            if not described:
                coded = _coded(data, body + 4, end)
                turns = tuple(part for part in own if part[0] in (b"irot", b"imir", b"clap"))
            described = True
        elif box == b"mdat":
            media.append((body, end))
        position = end
    else:
        raise damaged(kind)
    return Iso(frozenset(colours), tuple(coded or media), turns)


def _box(data: bytes, at: int, most: int) -> tuple[bytes, int, int]:
    """Name of the box at a byte, where its content begins, and its end.

    Raises struct.error or ValueError where there is none that ends by `most`.
    """
    size, name = struct.unpack_from(">I4s", data, at)
    body = at + 8
    if size == 1:
        (size,) = struct.unpack_from(">Q", data, body)
        body += 8
    end = most if size == 0 else at + size
    if not body <= end <= most:
        raise ValueError("no box")
    return name, body, end


def _boxes(data: bytes, at: int, end: int) -> list[tuple[bytes, int, int]]:
    found: list[tuple[bytes, int, int]] = []
    while at < end and len(found) < MAX_PARTS:
        found.append(_box(data, at, end))
        at = found[-1][2]
    return found


def _properties(data: bytes, start: int, end: int) -> list[tuple[bytes, bytes]]:
    """Name and content of what a 'meta' box gives its primary picture; nothing if it is broken."""
    try:
        inside = {name: place for name, *place in _boxes(data, start, end)}
        properties = {name: place for name, *place in _boxes(data, *inside[b"iprp"])}
        listed = [
            (name, data[slice(*place)]) for name, *place in _boxes(data, *properties[b"ipco"])
        ]
        at = inside[b"pitm"][0]
        (primary,) = struct.unpack_from(">I" if data[at] else ">H", data, at + 4)
        given = _associated(data[slice(*properties[b"ipma"])], primary)
        return [listed[index - 1] for index in given]
    except (KeyError, IndexError, ValueError, struct.error):
        return []


def _colours(own: list[tuple[bytes, bytes]], meta: bytes) -> set[Colours]:
    """What a 'meta' box names for its primary picture: a gain map has colours of its own.

    Where nothing is named for that one, all that is.
    """
    named = [v[4:8] for name, v in own if (name, v[:4]) == (b"colr", b"nclx") and len(v) >= 8]
    named = named or re.findall(rb"colrnclx(....)", meta, re.DOTALL)
    return {Colours(*struct.unpack(">HH", numbers)) for numbers in named}


def _associated(data: bytes, item: int) -> list[int]:
    """Numbers, from 1 on, of the properties that an 'ipma' box's content gives to an item."""
    wide = data[3] & 1
    number, size = (">I", 4) if data[0] else (">H", 2)
    (count,) = struct.unpack_from(">I", data, 4)
    at = 8
    for _ in range(min(count, MAX_PARTS)):
        (owner,) = struct.unpack_from(number, data, at)
        form = f">{data[at + size]}{'H' if wide else 'B'}"
        # The highest bit says whether a reader must know the property.
        values = [
            v & (0x7FFF if wide else 0x7F) for v in struct.unpack_from(form, data, at + size + 1)
        ]
        if owner == item:
            return [value for value in values if value]
        at += size + 1 + struct.calcsize(form)
    return []


def _coded(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Where the coded pixels that a 'meta' box names lie, each byte once; nothing if it is broken.

    EXIF, XMP and what else lies among them, or nobody names, may hold anything.
    """
    at = 0

    def number(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at], "big")

    try:
        inside = {name: place for name, *place in _boxes(data, start, end)}
        at, end = inside[b"iinf"]
        pictures = set()
        for _, body, _ in _boxes(data, at + (8 if data[at] else 6), end):
            at = body + 4
            item = number(4 if data[body] == 3 else 2)
            if data[at + 2 : at + 6] in (b"hvc1", b"hev1", b"av01"):
                pictures.add(item)
        at, end = inside[b"iloc"]
        end = min(end, at + 16 * MAX_PARTS)
        version = number(4) >> 24
        sizes = number(2)
        offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        wide = 4 if version == 2 else 2
        places: list[tuple[int, int]] = []
        for _ in range(min(number(wide), MAX_PARTS)):
            item = number(wide)
            in_file = not version or not number(2) & 15
            number(2)
            first = number(base)
            for _ in range(number(2)):
                if not length or at >= end:
                    return []
                number(index if version else 0)
                begin = first + number(offset)
                place = begin, begin + number(length)
                if item in pictures and in_file:
                    places.append(place)
    except (KeyError, IndexError, ValueError, struct.error):
        return []
    coded, most = [], 0
    for begin, end in sorted(places):
        coded.append((max(begin, most), end))
        most = max(most, end)
    return coded


@dataclass(frozen=True)
class WebP:
    """Of a WebP file's header: size in px, and where its coded pixels lie."""

    width: int
    height: int
    lossless: bool
    media: tuple[tuple[int, int], ...]  # where coded pixels lie
    orientation: int | None  # of EXIF or XMP
    exif: bytes  # the block, maybe empty


def read_webp(data: bytes) -> WebP:
    """Raises ImageError (RFC 9649)."""
    if len(data) < 30:
        raise cut_short("webp")
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise cut_short("webp")
    width = height = 0
    lossless, media = False, []
    exif = xmp = b""
    position = 12
    for _ in range(MAX_PARTS):
        if position + 8 > size + 8:
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        head = data[body : body + 10].ljust(10, b"\0")
        if kind == b"VP8X":
            width = 1 + int.from_bytes(head[4:7], "little")
            height = 1 + int.from_bytes(head[7:10], "little")
        elif kind in (b"VP8 ", b"VP8L"):
            media.append((body, body + length))
            lossless |= kind == b"VP8L"
            if not width and kind == b"VP8 ":
                width, height = (v & 0x3FFF for v in struct.unpack_from("<HH", head, 6))
            elif not width:
                (packed,) = struct.unpack_from("<I", head, 1)
                width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        elif kind == b"ANMF":
            media.append((body, body + length))
            lossless = True
        elif kind == b"EXIF":
            exif = data[body : body + length]
        elif kind == b"XMP ":
            xmp = data[body : body + length]
        position = body + length + (length & 1)
    else:
        raise damaged("webp")
    orientation = read_exif(exif)[0] or xmp_orientation(xmp)
    return WebP(width, height, lossless, tuple(media), orientation, exif)


def check_bmp(data: bytes) -> None:
    """Raises ImageError for a BMP with a colour profile inside, which Pillow ignores."""
    size = int.from_bytes(data[14:18], "little")
    if size >= 108 and data[70:74] in (b"DEBM", b"KNIL"):  # 'MBED', 'LINK'
        raise ImageError(
            "a BMP with a colour profile is not supported: save it as PNG", code="image_colours"
        )


def check_zeros(
    data: bytes,
    kind: str,
    media: Iterable[tuple[int, int]],
    longest: int,
) -> None:
    """Raises ImageError where coded pixels hold `longest` zero bytes in a row.

    Their coding makes no such rows of anything but large plain areas, yet lost blocks of a disk or
    of a transfer read as zeros, and the decoders of these kinds take anything: a lost block often
    shows as a plain area, too.
    """
    zeros = bytes(longest)
    if zeros not in data:
        return
    for start, end in media:
        if data.find(zeros, start, end) >= 0:
            raise ImageError(
                "the {kind} data is damaged, or shows a large plain area: copy the file again, or "
                "save it as PNG",
                code="image_damaged",
                kind=TITLES[kind],
            )
