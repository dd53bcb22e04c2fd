"""Giving memory back at the end of a visit, so that what was freed there cannot be read from it."""

from __future__ import annotations

import gc

from edge_app.cases.memory import overwrite_freed


def forget() -> None:
    """Free what nobody refers to any more, and overwrite where it lay, as far as that goes."""
    gc.collect()
    overwrite_freed()
