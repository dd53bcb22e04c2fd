"""Giving memory back at the end of a visit, so that what was freed there cannot be read from it."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress


def wipe() -> None:
    """Free what nobody refers to any more, and give free pages back to the system.

    glibc alone can do the second: their content is gone then. It does so for pictures and other
    large things; short strings share pages with what is still in use, and Python cannot overwrite
    them.
    """
    gc.collect()
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
