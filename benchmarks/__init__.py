"""How good and how fast a bundle is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from dermedge.cli import guarded

PROCEDURAL = "trained on generated pictures: not for real skin"


def call(main: Callable[[], int | None]) -> int:
    """The exit status of a script of this room (`python -m benchmarks.NAME`): `dermedge.cli`'s."""
    return guarded(lambda: main() or 0, Path(sys.argv[0]).stem)
