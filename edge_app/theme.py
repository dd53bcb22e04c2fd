"""The one look of the app: colours, text styles and sizes. No Kivy in it."""

from __future__ import annotations

from dataclasses import dataclass

Color = tuple[float, float, float, float]

TOUCH = 56  # dp, height of anything that is pressed; 48 is the least that a finger finds safely
GAP = 12  # dp


def rgb(code: str) -> Color:
    """'#RRGGBB' as four floats in 0..1, opaque."""
    return (*(int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)


@dataclass(frozen=True)
class Style:
    """Text of one colour on a ground of another: the only way that the screens colour text."""

    text: Color
    ground: Color


PAGE = Style(rgb("#10222B"), rgb("#F1F5F6"))
CARD = Style(rgb("#10222B"), rgb("#FFFFFF"))
QUIET = Style(rgb("#465A64"), rgb("#FFFFFF"))
FOOTER = Style(rgb("#33474F"), rgb("#E2EAEC"))
STAGE = Style(rgb("#F4F8F9"), rgb("#0D1A20"))
STAGE_QUIET = Style(rgb("#A9BDC5"), rgb("#0D1A20"))
GUIDE_GOOD = Style(rgb("#FFFFFF"), rgb("#0E6B4F"))
GUIDE_WAIT = Style(rgb("#1B1400"), rgb("#F2C14E"))
GUIDE_BAD = Style(rgb("#FFFFFF"), rgb("#A3262F"))
BUTTON = Style(rgb("#FFFFFF"), rgb("#0B5D73"))
BUTTON_DOWN = Style(rgb("#FFFFFF"), rgb("#084557"))
BUTTON_PLAIN = Style(rgb("#0B5D73"), rgb("#E3EFF2"))
BUTTON_OFF = Style(rgb("#A9BDC5"), rgb("#1D3038"))
DEMO = Style(rgb("#3B2A00"), rgb("#FFE4A3"))

LOW = Style(rgb("#FFFFFF"), rgb("#0E6B4F"))
DOCTOR = Style(rgb("#2B1A00"), rgb("#F5B83D"))
URGENT = Style(rgb("#FFFFFF"), rgb("#A3262F"))
RETAKE = Style(rgb("#FFFFFF"), rgb("#34508C"))

OUTLINE = rgb("#FFFFFF")  # drawn over a dark line, so that it shows on any skin
OUTLINE_EDGE = (0.03, 0.08, 0.1, 0.85)
LINE = rgb("#C9D5D9")


def contrast(first: Color, second: Color) -> float:
    """Contrast ratio of two opaque colours, 1 to 21 (WCAG 2.2, section 1.4.3)."""
    bright, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def unit(width: float, height: float) -> float:
    """How much larger than on a phone everything is drawn on a window of `width` x `height` dp."""
    return min(max(min(width, height) / 640, 1.0), 1.6)


def _luminance(color: Color) -> float:
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
