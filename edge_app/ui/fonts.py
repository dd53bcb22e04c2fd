"""The fonts of the screens and of the documents, and which characters they have.

Those that Kivy brings: Roboto (Apache-2.0), and DejaVu Sans (free) for other scripts.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

FONTS = {
    ("Roboto", ""): "Roboto-Regular.ttf",
    ("Roboto", "B"): "Roboto-Bold.ttf",
    ("DejaVu", ""): "DejaVuSans.ttf",
}


def path(family: str, style: str = "") -> Path:
    """The file of a font of FONTS. It is found without starting Kivy."""
    kivy = importlib.util.find_spec("kivy")
    if kivy is None or kivy.origin is None:
        raise ModuleNotFoundError("kivy is not installed")
    folder = Path(kivy.origin).parent / "data" / "fonts"
    return folder / FONTS[family, style]


@cache
def glyphs(family: str) -> frozenset[int]:
    """Code points that the family has."""
    from fontTools.ttLib import TTFont

    with TTFont(path(family), lazy=True) as font:
        return frozenset(font.getBestCmap())


def family(text: str) -> str:
    """Roboto where it has all of the text, else DejaVu."""
    if text.isascii():
        return "Roboto"
    known = glyphs("Roboto")
    return "Roboto" if all(ord(it) in known for it in text.replace("\n", "")) else "DejaVu"
