"""Where the app keeps its files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CASES = "cases.db"  # the store, within


def data_folder() -> Path:
    """The folder of encrypted cases and settings, where no other is given."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "dermedge"
