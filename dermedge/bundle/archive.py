"""Reads ZIP archives that may be hostile: bundles, and the .npz parts inside them.

Nothing is unpacked to disk. An archive has to be tiled by its members: every byte before the
directory belongs to exactly one of them, so that nothing can hide before, between or behind them,
and two readers cannot disagree on what it holds.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping

_END = struct.Struct("<4s4H2LH")  # end of central directory
_LOCAL = struct.Struct("<4s5H3L2H")
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HARMLESS_FLAGS = 0x2 | 0x4 | 0x800  # how well it was packed, and that its name is UTF-8
# Weights hardly shrink and text shrinks tenfold; a bomb shrinks a thousandfold.
MAX_RATIO, FREE_BYTES = 32, 64 << 20


class ArchiveError(ValueError):
    """The archive is not read; the message says why in one line, as what follows "it"."""


class DamagedError(ArchiveError):
    """It is cut short, was changed, or never was an archive."""

    def __init__(self) -> None:
        super().__init__("is truncated, damaged or no archive of its kind")


class Archive(Mapping[str, zipfile.ZipInfo]):
    """The members of an archive by name, none inflated yet."""

    def __init__(self, content: bytes, names: re.Pattern[str], members: int, size: int) -> None:
        """Check the directory.

        Parameters
        ----------
        content : the whole file.
        names : what a member's name has to match in full.
        members, size : greatest number of members, and of their bytes together when inflated.

        Raises
        ------
        ArchiveError
            Where the archive is damaged, or is not a plain one of one disk whose members tile it.
        """
        directory, count = _directory(content)
        if count > members:
            raise ArchiveError(f"holds {count} parts, more than {members}")
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(content))
            entries = self._archive.infolist()
        # zipfile raises many kinds on broken archives, struct.error and NotImplementedError too.
        except Exception:
            raise DamagedError from None
        for entry in entries:
            _check_entry(entry, names)
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) < len(entries):
            raise ArchiveError("holds a part twice")
        if len(entries) != count:
            raise DamagedError
        _check_tiling(content, entries, directory)
        total = sum(entry.file_size for entry in entries)
        if total > min(size, FREE_BYTES + MAX_RATIO * len(content)):
            raise ArchiveError(f"would inflate to {total} bytes, more than it may")

    def __getitem__(self, name: str) -> zipfile.ZipInfo:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, name: str) -> bytes:
        """The content of a member, of exactly the size that the directory says.

        ArchiveError where it is damaged. KeyError where there is none.
        """
        entry = self._entries[name]
        try:
            # With a count, no more is inflated than the entry said it holds.
            with self._archive.open(entry) as file:
                content = file.read(entry.file_size)
        except Exception:
            raise DamagedError from None
        if len(content) != entry.file_size:
            raise DamagedError
        return content


def _directory(content: bytes) -> tuple[int, int]:
    """Offset and number of entries of the only central directory."""
    if len(content) < _END.size:
        raise DamagedError
    end = len(content) - _END.size
    mark, disk, first, here, count, size, offset, comment = _END.unpack_from(content, end)
    if mark != b"PK\5\6" or comment:
        if content.rfind(b"PK\5\6", max(0, end - 0xFFFF)) < 0:
            raise DamagedError
        raise ArchiveError("is cut short, or carries a comment or other data behind its end")
    if disk or first or here != count:
        raise ArchiveError("is one of several disks")
    if count == 0xFFFF or 0xFFFFFFFF in (size, offset):
        raise ArchiveError("is a ZIP64 archive, larger than any of its kind")
    if offset + size != end:
        raise ArchiveError("holds other data before or behind its parts")
    return offset, count


def _check_entry(entry: zipfile.ZipInfo, names: re.Pattern[str]) -> None:
    # `orig_filename` still has what zipfile cuts off at a zero byte or swaps for a slash.
    if not names.fullmatch(entry.orig_filename) or entry.filename != entry.orig_filename:
        raise ArchiveError(f"names {entry.orig_filename[:80]!r}, outside of what it may hold")
    if entry.compress_type not in _COMPRESSIONS or entry.flag_bits & ~_HARMLESS_FLAGS:
        raise ArchiveError(f"has its part {entry.filename} encrypted or packed strangely")
    if entry.comment or entry.volume:
        raise ArchiveError(f"has a comment on its part {entry.filename}, or it on another disk")
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise ArchiveError(f"has its part {entry.filename} as a link or folder")


def _check_tiling(content: bytes, entries: list[zipfile.ZipInfo], directory: int) -> None:
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < position:
            raise ArchiveError("has parts that overlap")
        if entry.header_offset > position or position + _LOCAL.size > directory:
            raise ArchiveError("holds other data before or behind its parts")
        mark, *_, name, extra = _LOCAL.unpack_from(content, position)
        if mark != b"PK\3\4":
            raise DamagedError
        position += _LOCAL.size + name + extra + entry.compress_size
    if position > directory:
        raise ArchiveError("has parts that overlap")
    if position < directory:
        raise ArchiveError("holds other data before or behind its parts")
