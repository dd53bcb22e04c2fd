"""What is asked of a picture file before a decoder gets it: kind, orientation, colours, and limits.

Decoders are maintained libraries; what stands here is what they lack. Every walk is bounded, so
that a hostile file costs little time: by `MAX_PARTS` steps, each over a length that the file gives.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dermedge import UserError

MAX_JPEG_SCANS = 200  # real ones have about ten; each costs a pass over the whole picture
MAX_PARTS = 20_000  # segments, chunks or boxes of one file; real ones have tens
MAX_ENTRIES = 2_000  # of one TIFF directory
MAX_DIRECTORIES = 100  # of one TIFF file

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

    exit_status = 1  # the command was right, a file of it is not


def damaged(kind: str) -> ImageError:
    """The error about data that cannot be decoded, for raising."""
    return ImageError(
        "the {kind} data is damaged: copy the file again or take a new picture",
        code="image_damaged",
        kind=TITLES[kind],
    )


def cut_short(kind: str) -> ImageError:
    """The error about a file whose end is missing, for raising."""
    return ImageError(
        "the {kind} is cut short: copy the file again or take a new picture",
        code="image_cut_short",
        kind=TITLES[kind],
    )


def unusual(kind: str) -> ImageError:
    """The error about a variant of the format that is not read, for raising."""
    return ImageError(
        "this kind of {kind} is not supported: save it as RGB with 8 bits per channel",
        code="image_unsupported",
        kind=TITLES[kind],
    )


def _raw() -> ImageError:
    return ImageError("this is a raw picture: save it as JPEG or PNG", code="image_raw")


# What cameras write that is neither a picture for the screen nor plain TIFF: Fujifilm, Panasonic
# and Leica, Olympus (three), Canon, Sigma, Minolta, Phase One (two).
_RAW_STARTS = (
    *(b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"II\x1a\0\0\0HEAPCCDR"),
    *(b"FOVb", b"\0MRM", b"IIII", b"MMMM"),
)


def kind_of(data: bytes) -> str:
    """A key of TITLES, by the first bytes. Raises ImageError."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    canon = data[8:10] == b"CR" and data[:2] in (b"II", b"MM")
    if canon or data.startswith(_RAW_STARTS):
        raise _raw()
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if data[:2] == b"BM" and data[6:10] == bytes(4):
        return "bmp"
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4], "big"), 1000)]
        names = {brands[at : at + 4] for at in range(0, len(brands), 4)}
        if b"crx " in names:
            raise _raw()
        if names & {b"avif", b"avis"}:
            return "avif"
        if names & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
            return "heic"
    raise ImageError(
        "this is not a JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF picture", code="image_unsupported"
    )


# ---------------------------------------------------------------------------- EXIF, TIFF


@dataclass(frozen=True)
class _Directory:
    """One directory of a TIFF file or EXIF block: tag to its values, of whole numbers alone."""

    numbers: dict[int, tuple[int, ...]] = field(default_factory=dict)
    following: int = 0  # where the next one starts; 0: none does

    def one(self, tag: int, default: int) -> int:
        return self.numbers.get(tag, (default,))[0]


_ORIENTATION, _EXIF, _INTEROPERABILITY, _COLOUR_SPACE = 274, 34665, 40965, 40961
_NEW_SUBFILE, _SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 258, 259, 262
_WIDTH, _HEIGHT, _SAMPLES, _PLANAR, _SAMPLE_FORMAT = 256, 257, 277, 284, 339
_SUBDIRECTORIES, _PROFILE, _DNG_VERSION = 330, 34675, 50706
_WANTED = {
    *(_ORIENTATION, _EXIF, _INTEROPERABILITY, _COLOUR_SPACE, _NEW_SUBFILE, _SUBFILE, _BITS),
    *(_COMPRESSION, _PHOTOMETRIC, _SUBDIRECTORIES, _DNG_VERSION, _WIDTH, _HEIGHT, _PLANAR),
    *(_SAMPLE_FORMAT, _SAMPLES),
}
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # the whole numbers


class _Directories:
    """The directories of a TIFF file or EXIF block (TIFF 6.0, BigTIFF)."""

    def __init__(self, data: bytes):
        """Raises struct.error where `data` is too short, ValueError where it is none."""
        if data[:2] not in (b"II", b"MM"):
            raise ValueError("no TIFF")
        self.data, self.order = data, "<" if data[:2] == b"II" else ">"
        self.big = 43 in data[2:4]
        self.first = self._unpack("Q" if self.big else "I", 8 if self.big else 4)[0]

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        if at > len(self.data):  # struct takes no offset of 64 bits
            raise struct.error("beyond the end")
        return struct.unpack_from(self.order + form, self.data, at)

    def directory(self, at: int) -> _Directory:
        """That which starts at byte `at`. Raises struct.error or ValueError where there is none."""
        (count,) = self._unpack("Q" if self.big else "H", at)
        if count > MAX_ENTRIES:
            raise ValueError("too many entries")
        at += 8 if self.big else 2
        size, room, word = (20, 8, "Q") if self.big else (12, 4, "I")
        numbers: dict[int, tuple[int, ...]] = {}
        for entry in range(at, at + count * size, size):
            tag, kind = self._unpack("HH", entry)
            if tag == _PROFILE:
                numbers[tag] = (1,)
            if tag not in _WANTED or kind not in _TYPES:
                continue
            (length,) = self._unpack(word, entry + 4)
            form = f"{min(length, MAX_DIRECTORIES)}{_TYPES[kind]}"
            where = entry + size - room
            if length * struct.calcsize("=" + _TYPES[kind]) > room:
                (where,) = self._unpack(word, where)
            if length and tag not in numbers:
                numbers[tag] = self._unpack(form, where)
        try:
            (following,) = self._unpack(word, at + count * size)
        except struct.error:  # some writers end the block with the last entry
            following = 0
        return _Directory(numbers, following)


def read_exif(exif: bytes) -> tuple[int | None, bool]:
    """Orientation 1..8, None where none is given, and whether the colours are Adobe RGB (DCF).

    A broken EXIF block is no reason to refuse a good picture.
    """
    orientation, adobe = None, False
    try:
        tiff = _Directories(exif.removeprefix(b"Exif\0\0"))
        main = tiff.directory(tiff.first)
        value = main.one(_ORIENTATION, 0)
        orientation = value if 1 <= value <= 8 else None
        if _EXIF in main.numbers:
            photo = tiff.directory(main.one(_EXIF, 0))
            space = photo.one(_COLOUR_SPACE, 1)
            adobe = space == 2
            if space == 0xFFFF and _INTEROPERABILITY in photo.numbers:
                at = photo.one(_INTEROPERABILITY, 0)
                # Its first entry is the index: tag 1, text of four bytes.
                adobe = tiff.data[at + 2 : at + 4] in (b"\1\0", b"\0\1") and (
                    tiff.data[at + 10 : at + 13] == b"R03"
                )
    except (ValueError, struct.error):
        pass
    return orientation, adobe


def xmp_orientation(xmp: bytes) -> int | None:
    """What XMP says of the orientation; it counts where EXIF says nothing."""
    match = re.search(rb'tiff:Orientation(?:="|>)([1-8])', xmp)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class Tiff:
    """The first page of a TIFF file that is a full picture, and its number."""

    page: int
    width: int
    height: int
    compression: int
    profile: bool  # whether it names one


def read_tiff(data: bytes) -> Tiff:
    """Raises ImageError."""
    page, directory = _full_page(data)
    bits = set(directory.numbers.get(_BITS, (1,)))
    deep = max(bits) > 8
    compression, photometric = directory.one(_COMPRESSION, 1), directory.one(_PHOTOMETRIC, 0)
    # What Pillow would read wrongly without a word: signed samples as unsigned, 12 bits and
    # inverted 16 bits as plain ones, planes of 16 bits as of 8; and JPEG of the first kind.
    if (
        directory.one(_SAMPLE_FORMAT, 1) != 1
        or not bits <= {1, 2, 4, 8, 16}
        or (deep and (photometric == 0 or (directory.one(_PLANAR, 1) == 2 and compression == 1)))
        or directory.one(_SAMPLES, 1) > 8
        or photometric not in (0, 1, 2, 3, 5, 6)
        or compression == 6
    ):
        raise unusual("tiff")
    width, height = directory.one(_WIDTH, 0), directory.one(_HEIGHT, 0)
    return Tiff(page, width, height, compression, _PROFILE in directory.numbers)


def _full_page(data: bytes) -> tuple[int, _Directory]:
    full: tuple[int, _Directory] | None = None
    try:
        tiff = _Directories(data)
        at, page = tiff.first, 0
        seen: set[int] = set()
        waiting: list[int] = []
        while at and at not in seen and len(seen) < MAX_DIRECTORIES:
            seen.add(at)
            directory = tiff.directory(at)
            _check_raw(directory)
            reduced = directory.one(_NEW_SUBFILE, 0) & 5 or directory.one(_SUBFILE, 1) == 2
            if full is None and not reduced:
                full = page, directory
            waiting += directory.numbers.get(_SUBDIRECTORIES, ())
            at, page = directory.following, page + 1
        for at in waiting[:MAX_DIRECTORIES]:
            _check_raw(tiff.directory(at))
    except struct.error:
        raise cut_short("tiff") from None
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        raise damaged("tiff") from None
    if not seen:
        raise damaged("tiff")
    if full is None:
        raise ImageError(
            "this TIFF holds a preview alone: save the picture itself as JPEG or PNG",
            code="image_raw",
        )
    return full


def _check_raw(directory: _Directory) -> None:
    # Colour filter array, linear raw: what the sensor saw, whichever camera wrote it.
    if directory.one(_PHOTOMETRIC, 0) in (32803, 34892) or _DNG_VERSION in directory.numbers:
        raise _raw()


# ---------------------------------------------------------------------------- JPEG


@dataclass(frozen=True)
class Jpeg:
    """What the segments before the first scan say (ITU-T T.81, annex B).

    channels : 1, 3 or 4. block : (height, width) in px of a unit of coding. profile : ICC; empty
    where a part of it is missing. extra_bytes : for the coefficients of a progressive picture.
    data : the file, mended where a sequential scan names a range of coefficients, which it must
        not and which decoders ignore.
    """

    width: int
    height: int
    channels: int
    block: tuple[int, int]
    orientation: int | None
    adobe_rgb: bool
    profile: bytes | None
    extra_bytes: int
    data: bytes


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
    exif = xmp = b""
    profile: list[bytes] = []
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
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame is not None:
                raise damaged("jpeg")
            frame = (marker, *struct.unpack_from(">BHHB", data, body))
            factors = data[body + 7 : end : 3]
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", body):
            exif += data[body + 6 : end]
        elif marker == 0xE1 and data.startswith(b"http://ns.adobe.com/xap/1.0/\0", body):
            xmp = data[body:end]
        elif marker == 0xE2 and data.startswith(b"ICC_PROFILE\0", body):
            profile.append(data[body + 12 : end])
        elif marker == 0xC4:
            _check_tables(data[body:end])
        elif marker == 0xDA:
            break
        position = end
    else:
        raise damaged("jpeg")
    if frame is None:
        raise damaged("jpeg")
    marker, bits, height, width, channels = frame
    if bits != 8 or marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
        raise unusual("jpeg")
    across, down = ([f >> 4 for f in factors], [f & 15 for f in factors])
    if len(factors) < channels or not all(across) or not all(down) or not width or not height:
        raise damaged("jpeg")
    if channels not in (1, 3, 4):
        raise unusual("jpeg")
    each = [a * b for a, b in zip(across[:channels], down[:channels], strict=True)]
    progressive = marker in (0xC2, 0xCA)  # all coefficients are kept, 16 bits each
    if progressive and data.count(b"\xff\xda", end) > MAX_JPEG_SCANS:
        raise ImageError(
            "the JPEG has too many scans (the limit is {limit}): save it again",
            code="image_too_large",
            limit=MAX_JPEG_SCANS,
        )
    if not progressive and data[end - 3 : end] != b"\0\x3f\0":
        data = b"".join([data[: end - 3], b"\0\x3f\0", data[end:]])
    parts = sorted(profile)
    whole = parts and all(len(p) > 2 and p[1] == len(parts) for p in parts)
    orientation, adobe_rgb = read_exif(exif)
    return Jpeg(
        width,
        height,
        channels,
        (8 * max(down[:channels]), 8 * max(across[:channels])) if channels > 1 else (8, 8),
        orientation or xmp_orientation(xmp),
        adobe_rgb,
        b"".join(p[2:] for p in parts) if whole else b"" if parts else None,
        2 * width * height * sum(each) // max(each) if progressive else 0,
        data,
    )


def _check_tables(segment: bytes) -> None:
    """That Huffman tables with the lengths of the usual ones have their values, too.

    A table of which two values changed places often gives a picture without any warning.
    """
    while len(segment) >= 17:
        lengths = segment[1:17]
        values, rest = segment[17 : 17 + sum(lengths)], segment[17 + sum(lengths) :]
        if values != _USUAL_TABLES.get(lengths, values):
            raise damaged("jpeg")
        segment = rest


# ---------------------------------------------------------------------------- PNG


_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"iCCP", b"cICP")
_PNG_PIXELS = _PNG_NEEDED[:5]
_PNG_ALWAYS = (b"IHDR", b"IDAT", b"IEND")  # the others are of palettes, or told by `Png.key`
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
    exif = xmp = b""
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
        elif kind == b"iCCP":
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
            text = body[22:] if kind == b"tEXt" else _inflated(body[23:], _MAX_TEXT)
            exif = exif or _unhexed(text)
        elif kind == b"iTXt" and body.startswith(b"XML:com.adobe.xmp\0"):
            xmp = body if body[18:19] == b"\0" else _inflated(body[22:], _MAX_TEXT)
    if profile is None and not colours and not standard and not near_srgb(gamma, corners):
        raise odd_colours()
    orientation = read_exif(exif)[0] or xmp_orientation(xmp)
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


# ---------------------------------------------------------------------------- colours


@dataclass(frozen=True)
class Colours:
    """Code points of ITU-T H.273, as HEIF, AVIF and PNG (cICP) name a colour space."""

    primaries: int
    transfer: int


def odd_colours() -> ImageError:
    """The error about a colour space that is not understood, for raising."""
    return ImageError(
        "the colours of this picture are of an unusual kind: save it as sRGB", code="image_colours"
    )


_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # white, red, green, blue: x, y


def near_srgb(gamma: float | None, corners: list[float] | None) -> bool:
    """Whether an encoding gamma and chromaticities, None where not given, are those of sRGB."""
    if gamma is not None and not 0.95 < gamma * 2.2 < 1.05:
        return False
    if corners is None:
        return True
    return all(abs(a - b) <= 0.005 for a, b in zip(corners, _SRGB, strict=True))


@dataclass(frozen=True)
class Iso:
    """Of a HEIF or AVIF file: colour spaces that 'nclx' boxes name, and where media data lie."""

    colours: frozenset[Colours]
    media: tuple[tuple[int, int], ...]


def read_iso(data: bytes, kind: str) -> Iso:
    """Raises ImageError where the file is cut short (ISO/IEC 14496-12, 23008-12)."""
    colours: set[Colours] = set()
    media: list[tuple[int, int]] = []
    position = 0
    for _ in range(MAX_PARTS):
        if position >= len(data):
            return Iso(frozenset(colours), tuple(media))
        if position + 16 > len(data):
            raise cut_short(kind)
        size, box = struct.unpack_from(">I4s", data, position)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, position + 8)
        end = len(data) if size == 0 else position + size
        if end > len(data) or end < position + 8:
            raise cut_short(kind)
        if box == b"meta":
            for match in re.finditer(rb"colrnclx(....)", data[position:end], re.DOTALL):
                colours.add(Colours(*struct.unpack(">HH", match[1])))
        elif box == b"mdat":
            media.append((position + 8, end))
        position = end
    raise damaged(kind)


# ---------------------------------------------------------------------------- WebP, BMP


@dataclass(frozen=True)
class WebP:
    """Of a WebP file's header: size in px, and where its coded pixels lie."""

    width: int
    height: int
    lossless: bool
    media: tuple[tuple[int, int], ...]  # where coded pixels lie


def read_webp(data: bytes) -> WebP:
    """Raises ImageError (RFC 9649)."""
    if len(data) < 30:
        raise cut_short("webp")
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise cut_short("webp")
    width = height = 0
    lossless, media = False, []
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
        position = body + length + (length & 1)
    else:
        raise damaged("webp")
    return WebP(width, height, lossless, tuple(media))


def check_bmp(data: bytes) -> None:
    """Raises ImageError for a BMP with a colour profile inside, which Pillow ignores."""
    size = int.from_bytes(data[14:18], "little")
    if size < 12:
        raise damaged("bmp")
    if size >= 108 and data[70:74] in (b"DEBM", b"KNIL"):  # 'MBED', 'LINK'
        raise ImageError(
            "a BMP with a colour profile is not supported: save it as PNG", code="image_colours"
        )


def check_zeros(
    data: bytes,
    kind: str,
    media: Iterable[tuple[int, int]],
    longest: int,
    other: Iterable[bytes | None] = (),
) -> None:
    """Raises ImageError where coded pixels hold `longest` zero bytes in a row.

    Their coding makes no such rows, yet lost blocks of a disk or of a transfer read as zeros, and
    the decoders of these kinds take anything. `other` is what may lie between them: EXIF, XMP.
    """
    zeros = bytes(longest)
    if zeros not in data:
        return
    for start, end in media:
        coded = data[start:end]
        for block in other:
            coded = coded.replace(bytes(block), b"") if block else coded
        if zeros in coded:
            raise damaged(kind)
