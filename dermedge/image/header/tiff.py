"""Directories of a TIFF file or of an EXIF block: orientation, colours, time, the full page."""

from __future__ import annotations

import contextlib
import re
import struct
from dataclasses import dataclass, field
from datetime import datetime

from dermedge.image.header import ImageError, cut_short, damaged, raw, unusual

MAX_ENTRIES = 2_000  # of one TIFF directory
MAX_DIRECTORIES = 100  # of one TIFF file


@dataclass(frozen=True)
class _Directory:
    """One directory of a TIFF file or EXIF block: tag to its values, whole numbers (or bytes)."""

    numbers: dict[int, tuple[int, ...]] = field(default_factory=dict)
    following: int = 0  # where the next one starts; 0: none does

    def one(self, tag: int, default: int) -> int:
        return self.numbers.get(tag, (default,))[0]


_ORIENTATION, _EXIF, _INTEROPERABILITY, _COLOUR_SPACE = 274, 34665, 40965, 40961
_NEW_SUBFILE, _SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 258, 259, 262
_WIDTH, _HEIGHT, _SAMPLES, _PLANAR, _SAMPLE_FORMAT = 256, 257, 277, 284, 339
_EXTRA_SAMPLES, _SUBSAMPLING = 338, 530
_SUBDIRECTORIES, _PROFILE, _DNG_VERSION = 330, 34675, 50706
_TEXTS = _TAKEN, _ZONE = 36867, 36881  # DateTimeOriginal, OffsetTimeOriginal
_WANTED = {
    *(_ORIENTATION, _EXIF, _INTEROPERABILITY, _COLOUR_SPACE, _NEW_SUBFILE, _SUBFILE, _BITS),
    *(_COMPRESSION, _PHOTOMETRIC, _SUBDIRECTORIES, _DNG_VERSION, _WIDTH, _HEIGHT, _PLANAR),
    *(_SAMPLE_FORMAT, _SAMPLES, _EXTRA_SAMPLES, _SUBSAMPLING, *_TEXTS),
}
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # the whole numbers
_TEXT_TYPES = {2: "s"}

# None, CCITT (three), LZW, JPEG, deflate (two), PackBits, LZMA, Zstandard.
_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32946, 32773, 34925, 50000}


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
            types = _TEXT_TYPES if tag in _TEXTS else _TYPES
            if tag not in _WANTED or kind not in types:
                continue
            (length,) = self._unpack(word, entry + 4)
            form = f"{min(length, MAX_DIRECTORIES)}{types[kind]}"
            where = entry + size - room
            if length * struct.calcsize("=" + types[kind]) > room:
                (where,) = self._unpack(word, where)
            if tag in _TEXTS:  # one that is broken is no reason to refuse the rest
                numbers[tag] = tuple(self.data[where : where + min(length, MAX_DIRECTORIES)])
            elif length and tag not in numbers:
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


def taken_on(exif: bytes) -> datetime | None:
    """When an EXIF block says that the picture was taken; None where it does not."""
    try:
        tiff = _Directories(exif.removeprefix(b"Exif\0\0"))
        photo = tiff.directory(tiff.directory(tiff.first).one(_EXIF, 0)).numbers
        texts = (bytes(photo.get(tag, ())).decode("latin-1") for tag in _TEXTS)
        return stated_time(*texts)
    except (ValueError, struct.error):
        return None


def stated_time(when: str, zone: str) -> datetime | None:
    """DateTimeOriginal and OffsetTimeOriginal as a time; None where they are none.

    Where no time zone is named, that of this device is meant.
    """
    # One that is not known is written "   :  "; Python 3.10 reads no "Z".
    for offset in (zone.strip("\0 ").replace("Z", "+00:00"), ""):
        # The last two are of days that no clock here can say.
        with contextlib.suppress(ValueError, OverflowError, OSError):
            day, hour = when.strip("\0 ").split()
            stated = f"{day.replace(':', '-')}T{hour}{offset}"
            return datetime.fromisoformat(stated).astimezone()
    return None


def xmp_orientation(xmp: bytes) -> int | None:
    """What XMP says of the orientation; it counts where EXIF says nothing."""
    match = re.search(rb"tiff:Orientation(?:\s*=\s*[\"']|\s*>)\s*([1-8])", xmp)
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
    planes = directory.one(_PLANAR, 1) == 2 and compression == 1
    # What Pillow would read wrongly without a word: signed samples as unsigned, 12 bits and
    # inverted 16 bits as plain ones, planes of 16 bits as of 8, planes of gray and alpha as px by
    # turns, colours of fewer px, where they are not compressed, as of each px. And what it takes
    # for damage: other codings, BigTIFF of the other byte order, planes that are neither colour
    # nor alpha.
    gray_alpha = directory.one(_SAMPLES, 1) == 2 and directory.one(_EXTRA_SAMPLES, 0) == 2
    sparse = photometric == 6 and directory.numbers.get(_SUBSAMPLING, (2, 2)) != (1, 1)
    if (
        directory.one(_SAMPLE_FORMAT, 1) != 1
        or (sparse and compression == 1)
        or (gray_alpha and directory.one(_PLANAR, 1) == 2)
        or not bits <= {1, 2, 4, 8, 16}
        or (deep and (photometric == 0 or planes))
        or directory.one(_SAMPLES, 1) > 8
        or photometric not in (0, 1, 2, 3, 5, 6)
        or compression not in _COMPRESSIONS
        or data.startswith(b"MM\0+")
        or (planes and directory.one(_EXTRA_SAMPLES, 2) != 2)
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
        raise raw()
