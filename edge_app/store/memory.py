"""Overwriting what Python has let go of: it does not by itself.

Keys lie in bytearrays, which their owner overwrites. What is immutable in Python cannot be: names
and notes that were read, pictures as bytes, a passphrase as it was typed. They are freed when
nobody refers to them any more, and `overwrite_freed` then fills the place where they lay. It does
not reach parts of a page (4 KiB) in the C library's heap, what a library keeps for itself, what
the system has swapped out, and what somebody still refers to.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

SMALLEST, LARGEST, STEP = 48, 512, 16  # bytes: blocks of CPython's own allocator
HEAD = sys.getsizeof(b"")
ARENA = 20  # bits of an address within one of its arenas
WHOLE = 0.9  # of an arena: it was empty before
MOST = 64 * 2**20  # bytes to fill, whatever is found


def wipe(buffer: bytearray) -> None:
    """Overwrite with zeros."""
    buffer[:] = bytes(len(buffer))


def overwrite_freed() -> None:
    """Overwrite free memory of Python's allocator and give the C library's free pages back.

    It takes some ten milliseconds. Where Python or the C library is another, it does what it can.
    """
    kept: list[list[bytes]] = []
    fresh: set[int] = set()  # arenas that were made for what is kept here
    left = MOST
    for size in range(LARGEST, SMALLEST - 1, -STEP):
        blocks: list[bytes] = []
        seen: dict[int, int] = {}
        whole = WHOLE * 2**ARENA / size
        for _ in range(left // size):
            block = bytes(size - HEAD)
            blocks.append(block)
            arena = id(block) >> ARENA
            if arena in fresh:
                break  # no block of this size was free in an older one
            seen[arena] = seen.get(arena, 0) + 1
            if seen[arena] > whole:
                fresh.add(arena)
                break
        left -= len(blocks) * size
        kept.append(blocks)
    kept.clear()
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)
