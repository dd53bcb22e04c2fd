"""A page of A4 to draw upon: text that is wrapped and shaped, boxes, lines, the shapes of bands."""

from __future__ import annotations

import logging
import math
import re
from typing import Any

from dermedge import DISCLAIMER
from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.presentation.messages import Band
from edge_app.ui import fonts, theme

WIDTH, HEIGHT, MARGIN, GUTTER = 210.0, 297.0, 15.0, 6.0  # mm
MM_PER_POINT = 25.4 / 72
FOOT = HEIGHT - 37.0  # mm, where it begins
LEADING = 1.35  # line height by size of type
PAPER = theme.STYLES["light"]
INK, QUIET, RULE, NOTE = "#10222B", "#465A64", "#C9D5D9", "#FFE4A3"
MISSING = "\N{WHITE SQUARE}"  # for a character that no font here has

# Text, family, style, size and width: its lines. Breaking them takes most of a page's time.
Broken = dict[tuple[str, str, str, float, float], list[str]]

# Neither tells the reader of a log anything; fontTools names the glyphs of each document.
for name in ("fpdf", "fontTools"):
    logging.getLogger(name).setLevel(logging.ERROR)


class Page:
    """Draws from the top; `y` is where the next block begins. Lengths in mm, type in points.

    Where the language runs from right to left, an `x` is counted from the right. One thread.
    """

    def __init__(
        self, broken: Broken | None = None, paper: tuple[float, float] = (WIDTH, HEIGHT)
    ) -> None:
        """`broken` : lines that were broken for an earlier page; more are added."""
        from fpdf import FPDF  # it takes half a second

        self.pdf = FPDF(format=paper)
        self.pdf.set_auto_page_break(False)
        self.pdf.set_margin(0)
        self.pdf.add_page()
        for family, style in fonts.FONTS:
            self.pdf.add_font(family, style, fonts.path(family, style))
        if not language.missing():
            self.pdf.set_text_shaping(True, direction="rtl" if language.rtl() else "ltr")
        self.pdf.set_lang(language.current())
        self.pdf.set_title(_("Case"))
        self.pdf.set_creator("dermedge")
        self.y = MARGIN
        self.lacks = False  # a character was replaced
        self._broken: Broken = {} if broken is None else broken

    def left(self, x: float, wide: float) -> float:
        """Where something begins that is `wide` and lies `x` from the side where lines begin."""
        return WIDTH - x - wide if language.rtl() else x

    def disclaimer(self, y: float, size: float, align: str = "L") -> None:
        wide = WIDTH - 2 * MARGIN - 6
        self.line(MARGIN + 3, y, wide, _(DISCLAIMER), size, bold=True, align=align)

    def line(
        self, x: float, y: float, wide: float, text: str, size: float, bold: bool = False,
        **style: Any,
    ) -> None:  # fmt: skip
        """Write in one line, as large as that allows."""
        while len(self.lines(text, size, wide, bold)) > 1:
            size -= 0.25
        self.text(x, y, wide, text, size, bold=bold, **style)

    def title(self, x: float, wide: float, text: str) -> None:
        self.text(x, self.y, wide, text, 10.5, bold=True)
        self.y += 5.6
        self.pdf.set_draw_color(RULE)
        x = self.left(x, wide)
        self.pdf.line(x, self.y, x + wide, self.y)
        self.y += 1.5

    def pair(
        self, x: float, y: float, wide: float, title: str, value: str, lines: int, size: float = 9
    ) -> float:
        """A title and its value beside it; returns the height."""
        first = self.first(wide)
        self.text(x, y, first, title, size, color=QUIET, lines=1)
        return self.text(x + first, y, wide - first, value, size, lines=lines)

    @staticmethod
    def first(wide: float) -> float:
        """Of a pair so wide, what its title gets."""
        return 30 if wide < WIDTH / 2 else 36

    def box(self, x: float, y: float, wide: float, tall: float, color: str) -> None:
        self.pdf.set_fill_color(color)
        x = self.left(x, wide)
        self.pdf.rect(x, y, wide, tall, style="F", round_corners=True, corner_radius=1.5)

    def height(self, text: str, size: float, wide: float, bold: bool = False) -> float:
        return len(self.lines(text, size, wide, bold)) * size * LEADING * MM_PER_POINT

    def text(
        self,
        x: float,
        y: float,
        wide: float,
        text: str,
        size: float,
        *,
        bold: bool = False,
        color: str = INK,
        align: str = "L",
        lines: int = 99,
    ) -> float:
        """Write within `wide` mm and at most so many `lines`; returns the height."""
        found = self.lines(text, size, wide, bold)
        if len(found) > lines:
            found = found[:lines]
            found[-1] = found[-1].rstrip() + "…"
            while self.pdf.get_string_width(found[-1]) > wide - 0.5 and len(found[-1]) > 1:
                found[-1] = found[-1][:-2].rstrip() + "…"
        self.pdf.set_text_color(color)
        step = size * LEADING * MM_PER_POINT
        if language.rtl():
            align = {"L": "R", "R": "L"}.get(align, align)
        for number, line in enumerate(found):
            self.pdf.set_xy(self.left(x, wide), y + number * step)
            self.pdf.cell(wide, step, line, align=align)
        return len(found) * step

    def lines(self, text: str, size: float, wide: float, bold: bool) -> list[str]:
        """The text as it is broken into lines; its font is the page's from now on."""
        text = self._printable(text)
        family = fonts.family(text)
        style = "B" if bold and family == "Roboto" else ""
        self.pdf.set_font(family, style, size)
        self.pdf.c_margin = 0
        key = (text, family, style, size, wide)
        if key not in self._broken:
            lines = self.pdf.multi_cell(wide, text=text, dry_run=True, output="LINES")
            assert isinstance(lines, list)
            self._broken[key] = lines
        return list(self._broken[key])

    def _printable(self, text: str) -> str:
        text = re.sub(r"[\x00-\x1f\x7f]", " ", text)
        known = fonts.glyphs("DejaVu")
        # Marks of direction have no glyph: they are laid out by, and not drawn.
        marks = (language.ISOLATE, language.END)
        shown = "".join(c if ord(c) in known or c in marks else MISSING for c in text)
        if language.missing():
            shown = "".join(MISSING if language.from_right(c) else c for c in shown)
        self.lacks |= shown != text
        return shown

    def shape(self, band: Band, x: float, y: float, radius: float) -> None:
        start = x - radius
        x = self.left(start, 2 * radius) + radius
        self.pdf.set_fill_color(theme.hex_color(PAPER[band.style].text))
        if band.shape == "circle":
            self.pdf.circle(x, y, radius, style="F")
        else:
            corners = {"triangle": 3, "square": 4, "octagon": 8}[band.shape]
            start_angle = {3: -math.pi / 2, 4: math.pi / 4, 8: math.pi / 8}[corners]
            angles = [start_angle + 2 * math.pi * k / corners for k in range(corners)]
            points = [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]
            self.pdf.polygon(points, style="F")
        size = 19.0 if band.shape != "triangle" else 15.0
        self.text(
            start, y - size * MM_PER_POINT * LEADING / 2, 2 * radius, band.mark, size,
            bold=True, color=theme.hex_color(PAPER[band.style].ground), align="C",
        )  # fmt: skip
