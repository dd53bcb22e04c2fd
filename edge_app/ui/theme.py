"""How the app is drawn, light and dark: colours, text styles and sizes. No Kivy in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

Color = tuple[float, float, float, float]

TOUCH = 56  # dp, height of anything that is pressed; 48 is the least that a finger finds safely
GAP = 12  # dp
COLUMN = 620  # dp, the widest that a column of text gets: longer lines are hard to follow
THEMES = ("light", "dark")
TEXT_SIZES = {"normal": 1.0, "large": 1.2, "very large": 1.4}


def rgb(code: str) -> Color:
    """'#RRGGBB' as four floats in 0..1, opaque."""
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue, 1.0


def hex_color(color: Color) -> str:
    """'#RRGGBB', as `rgb` takes it."""
    return "#" + "".join(f"{round(255 * value):02X}" for value in color[:3])


@dataclass(frozen=True)
class Style:
    """Text of one colour on a ground of another: the only way that the screens colour text."""

    text: Color
    ground: Color


def css(styles: Mapping[str, Style]) -> str:
    """Styles as the variables of a page's style sheet."""
    return " ".join(
        f"--{name}: {hex_color(style.ground)}; --{name}-text: {hex_color(style.text)};"
        for name, style in styles.items()
    )


def _styles(**styles: tuple[str, str]) -> Mapping[str, Style]:
    return MappingProxyType(
        {name: Style(rgb(text), rgb(ground)) for name, (text, ground) in styles.items()}
    )


# The live picture's surroundings and the risk bands are alike in both.
_SAME = {
    "stage": ("#F4F8F9", "#0D1A20"),
    "stage_quiet": ("#A9BDC5", "#0D1A20"),
    "guide_good": ("#FFFFFF", "#0E6B4F"),
    "guide_wait": ("#1B1400", "#F2C14E"),
    "guide_bad": ("#FFFFFF", "#A3262F"),
    "button_off": ("#A9BDC5", "#1D3038"),
    "stage_plain": ("#E4F1F5", "#27424D"),
    "low": ("#FFFFFF", "#3F5661"),  # not green: a low risk is no all-clear
    "doctor": ("#2B1A00", "#F5B83D"),
    "urgent": ("#FFFFFF", "#A3262F"),
    "retake": ("#FFFFFF", "#34508C"),
    "danger": ("#FFFFFF", "#A3262F"),
}
STYLES: Mapping[str, Mapping[str, Style]] = {
    "light": _styles(
        **_SAME,
        page=("#10222B", "#F1F5F6"),
        card=("#10222B", "#FFFFFF"),
        quiet=("#465A64", "#FFFFFF"),
        page_quiet=("#465A64", "#F1F5F6"),
        head=("#10222B", "#FFFFFF"),
        footer=("#33474F", "#E2EAEC"),
        field=("#10222B", "#FFFFFF"),
        button=("#FFFFFF", "#0B5D73"),
        button_down=("#FFFFFF", "#084557"),
        plain=("#0B5D73", "#E3EFF2"),
        chosen=("#FFFFFF", "#0B5D73"),
        off=("#4E5F67", "#DCE4E7"),
        warning=("#8A1420", "#FFFFFF"),
        demo=("#3B2A00", "#FFE4A3"),
        line=("#10222B", "#C9D5D9"),
        accent=("#FFFFFF", "#0B5D73"),
    ),
    "dark": _styles(
        **_SAME,
        page=("#E7EEF0", "#0F191E"),
        card=("#E7EEF0", "#1A282F"),
        quiet=("#A6B8C0", "#1A282F"),
        page_quiet=("#A6B8C0", "#0F191E"),
        head=("#E7EEF0", "#16232A"),
        footer=("#C2D0D6", "#0A1216"),
        field=("#E7EEF0", "#0F191E"),
        button=("#04222B", "#5CC1DA"),
        button_down=("#04222B", "#3FA6C0"),
        plain=("#8FD8EA", "#20343D"),
        chosen=("#04222B", "#5CC1DA"),
        off=("#93A5AD", "#22323A"),
        warning=("#FFB0B3", "#1A282F"),
        demo=("#FFE4A3", "#3B2A00"),
        line=("#E7EEF0", "#33464F"),
        accent=("#04222B", "#5CC1DA"),
    ),
}

OUTLINE = rgb("#FFFFFF")  # drawn over a dark line, so that it shows on any skin
OUTLINE_EDGE = rgb("#08141A")  # opaque: Kivy's lines that are not show through a scroll's edge


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
