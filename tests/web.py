"""What the tests of the page need, or why they are skipped."""

from __future__ import annotations

import os
import shutil
import tarfile
from functools import cache
from pathlib import Path

import pytest

from dermedge import UserError
from dermedge.files import cache_folder
from edge_app.web.packages import fetch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@cache
def archives() -> Path:
    """A folder with the packages of npm; the test is skipped where they cannot be had."""
    folder = Path(os.environ.get("DERMEDGE_WEB_VENDOR", cache_folder() / "npm"))
    try:
        fetch(folder)
    except (UserError, OSError) as error:
        pytest.skip(f"no packages for the page: {error}")
    return folder


@cache
def numpy_wheel() -> Path:
    """numpy for Pyodide; the test is skipped where it is absent."""
    wheels = sorted((SHARED / "vendor").glob("numpy-*pyodide*.whl"))
    given = os.environ.get("DERMEDGE_NUMPY_WHEEL")
    if given is None and not wheels:
        pytest.skip("no numpy for Pyodide here; set DERMEDGE_NUMPY_WHEEL to its wheel")
    return Path(given or wheels[0])


def node() -> str:
    """The program; the test is skipped where it is absent."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("Node is not installed (Debian package nodejs)")
    return program


def unpacked(folder: Path, target: Path) -> Path:
    """The packages in `folder`, each in a folder of its name."""
    for archive in folder.glob("*.tgz"):
        with tarfile.open(archive) as tar:
            tar.extractall(target / archive.stem, filter="data")
    return target
