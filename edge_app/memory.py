"""Giving memory back at the end of a visit, so that what was freed there cannot be read from it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

from edge_app.store.memory import overwrite_freed

M_ARENA_MAX = -8  # of glibc's malloc.h


def prepare() -> None:
    """Before the app's threads start: let `forget` reach what they free, too.

    glibc gives the free pages of its main arena back in full, but keeps the end of each thread's.
    Pictures lie there. With one arena for all nothing of theirs is kept; Python's own lock makes
    threads wait for each other anyway.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def forget() -> None:
    """Free what nobody refers to any more, and overwrite where it lay, as far as that goes."""
    gc.collect()
    overwrite_freed()
