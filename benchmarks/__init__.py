"""How good and how fast a bundle is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from dermedge import UserError

PROCEDURAL = "trained on generated pictures: not for real skin"


def call(main: Callable[[Sequence[str] | None], None]) -> int:
    """Run a script of this room (`python -m benchmarks.NAME`); mistakes get one line, and 2."""
    try:
        main(None)
    except (UserError, OSError) as error:
        name = f"{error.filename}: " if getattr(error, "filename", None) else ""
        print(f"{name}{getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 2
    return 0
