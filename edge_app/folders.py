"""Where the app keeps its files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dermedge import UserError

CASES = "cases.db"  # the store, within


def data_folder() -> Path:
    """The folder of encrypted cases and settings, where no other is given.

    UserError where this user has no home folder, as a service's or a container's may have none.
    """
    try:
        if sys.platform == "win32":
            base = _given("LOCALAPPDATA") or Path.home()
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Application Support"
        else:
            base = _given("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError:
        raise UserError(
            "this user has no home folder: say with --home where the cases are kept",
            code="no-home",
        ) from None
    return base / "dermedge"


def in_words() -> str:
    """The same, for the help of commands, where argparse takes a lone % for a value of its own."""
    try:
        return str(data_folder()).replace("%", "%%")
    except UserError:
        return "none, as this user has no home folder"


def _given(variable: str) -> Path | None:
    # One that is not absolute would be another folder wherever the app is started.
    folder = os.environ.get(variable, "")
    return Path(folder) if os.path.isabs(folder) else None
