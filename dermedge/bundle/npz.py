"""Reads .npz archives that may be hostile: nothing is allocated before its size is known."""

from __future__ import annotations

import ast
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dermedge.bundle.archive import Archive, ArchiveError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\.npy")
_MAGIC = b"\x93NUMPY"
MAX_HEADER = 1024  # bytes of an array's description
_DTYPE = re.compile(r"[<|]([biufSU])([1-9]\d{0,5})")


@dataclass(frozen=True)
class Field:
    """What an array has to be."""

    kinds: str  # of `numpy.dtype.kind`: "f" for floats, "iu" for whole numbers
    axes: int
    optional: bool = False


def read_npz(
    content: bytes, fields: Mapping[str, Field], size: int, items: int
) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz.

    Parameters
    ----------
    content : of the file.
    fields : what each array has to be, by name; all that are not optional must be there.
    size : greatest number of bytes of all arrays.
    items : greatest length of any axis.

    Returns
    -------
    Name to array, read-only, little-endian or of single bytes. Floats are finite.

    Raises
    ------
    ArchiveError
        In one line that names the array.
    """
    archive = Archive(content, _NAME, len(fields), size)
    arrays = {}
    for member in archive:
        name = member.removesuffix(".npy")
        if name not in fields:
            raise ArchiveError(f"holds an array {name!r}, which does not belong there")
        arrays[name] = _array(name, archive.read(member), fields[name], items)
    for name, field in fields.items():
        if name not in arrays and not field.optional:
            raise ArchiveError(f"lacks the array {name!r}")
    return arrays


def _array(name: str, content: bytes, field: Field, items: int) -> np.ndarray:
    """From the content of an .npy. The header is parsed here: numpy would allocate by it."""
    if content[:6] != _MAGIC or content[6:8] not in (b"\1\0", b"\2\0"):
        raise ArchiveError(f"has an array {name!r} that is damaged")
    width = 2 if content[6] == 1 else 4
    start = 8 + width + int.from_bytes(content[8 : 8 + width], "little")
    if start > min(len(content), MAX_HEADER):
        raise ArchiveError(f"has an array {name!r} that is damaged")
    try:
        header = ast.literal_eval(content[8 + width : start].decode("ascii").strip())
    # `literal_eval` names its own errors; deep nesting ends in a RecursionError or MemoryError.
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        header = None
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise ArchiveError(f"has an array {name!r} that is damaged")
    described = _DTYPE.fullmatch(header["descr"]) if isinstance(header["descr"], str) else None
    if described is None or described[1] not in field.kinds:
        raise ArchiveError(f"has an array {name!r} of a type that does not belong there")
    shape = header["shape"]
    whole = isinstance(shape, tuple) and all(type(side) is int for side in shape)
    if not whole or len(shape) != field.axes or not all(0 <= side <= items for side in shape):
        raise ArchiveError(f"has an array {name!r} of a shape that does not belong there")
    try:
        dtype = np.dtype(header["descr"])
    except TypeError:
        raise ArchiveError(f"has an array {name!r} of a type that does not belong there") from None
    if math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ArchiveError(f"has an array {name!r} whose size is not that of its shape")
    order: Literal["F", "C"] = "F" if header["fortran_order"] else "C"
    array: np.ndarray = np.frombuffer(content, dtype, offset=start).reshape(shape, order=order)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ArchiveError(f"has numbers in {name!r} that are not finite")
    # numpy takes any number for a character, until one is asked for.
    if dtype.kind == "U" and (np.frombuffer(content, "<u4", offset=start) > sys.maxunicode).any():
        raise ArchiveError(f"has an array {name!r} of what is no text")
    return array
