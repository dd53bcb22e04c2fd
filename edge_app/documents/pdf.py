"""A case on one page of A4, as PDF: pictures, risk, measures, versions and the disclaimer.

In the app's language; where that runs from right to left the page is mirrored.

Of the person only those fields are printed that the operator chose. The pictures are drawn anew,
so nothing of their metadata gets in.
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from dermedge import DISCLAIMER
from dermedge.files import write_atomic
from edge_app.follow_up.history import Comparison, compare
from edge_app.i18n import language
from edge_app.i18n.language import N_, _
from edge_app.presentation import comparison
from edge_app.presentation import messages as present
from edge_app.store import clock
from edge_app.store.records import CLOCK_WRONG, CORRECTED
from edge_app.store.store import Capture, Lesion, Person
from edge_app.ui import fonts, theme

WIDTH, HEIGHT, MARGIN, GUTTER = 210.0, 297.0, 15.0, 6.0  # mm
PICTURE_HEIGHTS = (84.0, 66.0, 54.0, 44.0, 34.0)  # mm; the first at which all else has room
PICTURE_SIDE = 1400  # px; about 400 dpi at the size at which it is printed
MM_PER_POINT = 25.4 / 72
FOOT = HEIGHT - 37.0  # mm, where it begins
LEADING = 1.35  # line height by size of type

PERSON_FIELDS = {
    "name": N_("Name"),
    "year_of_birth": N_("Year of birth"),
    "sex": N_("Sex"),
    "skin_type": N_("Skin type"),
    "risk_factors": N_("Risk factors"),
    "notes": N_("Notes"),
}
LESION_FIELDS = {"title": N_("Spot"), "view": N_("Side"), "notes": N_("Notes on the spot")}
WORDS = ("sex", "risk_factors", "view")  # fields that hold words of the app, not what was typed

PAPER = theme.STYLES["light"]
INK, QUIET, RULE, NOTE = "#10222B", "#465A64", "#C9D5D9", "#FFE4A3"
SOFT_GRAY = 240  # where the earlier picture does not reach
MISSING = "\N{WHITE SQUARE}"  # for a character that no font here has

# Neither tells the reader of a log anything; fontTools names the glyphs of each document.
for name in ("fpdf", "fontTools"):
    logging.getLogger(name).setLevel(logging.ERROR)


@dataclass(frozen=True, eq=False)
class Shot:
    """A capture and its picture, uint8 (h, w, 3) RGB."""

    capture: Capture
    pixels: np.ndarray


def write_case(
    path: Path,
    shot: Shot,
    earlier: Shot | None = None,
    person: Person | None = None,
    lesion: Lesion | None = None,
    fields: Sequence[str] = (),
) -> None:
    """Write a case to `path`, readable by its owner alone.

    Parameters
    ----------
    shot : the capture that the page is about.
    earlier : another capture of the same lesion, which it is compared with.
    person, lesion : whose and which.
    fields : what of them is printed: of PERSON_FIELDS, and of LESION_FIELDS as 'lesion.title'.

    Raises
    ------
    OSError : `path` cannot be written.
    StoreError : the analysis of `shot` cannot be read here.
    """
    facts = _facts(person, lesion, fields)
    both = [
        each.capture.readable and each.capture.analysis["lesion"]["found"]
        for each in (shot, earlier) if each
    ]  # fmt: skip
    change = None
    if earlier is not None and all(both):
        # The earlier one is laid onto this one, as the screen shows them.
        change = compare(shot.capture, shot.pixels, earlier.capture, earlier.pixels)
    for height in PICTURE_HEIGHTS:
        page = _Page()
        page.head(shot.capture)
        page.known(facts)
        page.pictures(shot, earlier, change, height)
        whole = page.below_pictures(present.result(shot.capture.analysis), shot, earlier, change)
        if whole:
            break
    write_atomic(path, bytes(page.pdf.output()), private=True)


def _facts(person: Person | None, lesion: Lesion | None, fields) -> list[tuple[str, str]]:
    found = []
    for item, titles, before in ((person, PERSON_FIELDS, ""), (lesion, LESION_FIELDS, "lesion.")):
        for name, title in titles.items():
            value = getattr(item, name, None) if before + name in fields else None
            if value not in (None, "", ()):
                values = value if isinstance(value, tuple) else (str(value),)
                text = ", ".join(_(one) if name in WORDS else one for one in values)
                found.append((_(title), " ".join(text.split())))
    return found


def _changes(change: Comparison) -> list[tuple[str, str]]:
    """What became different, in words. `change` has the earlier capture second."""
    return [*comparison.changes(change), *(("", message) for message in comparison.remarks(change))]


class _Page:
    """Draws from the top; `y` is where the next block begins."""

    def __init__(self):
        from fpdf import FPDF  # it takes half a second

        self.pdf = FPDF(format="A4")
        self.pdf.set_auto_page_break(False)
        self.pdf.set_margin(0)
        self.pdf.add_page()
        for family, style in fonts.FONTS:
            self.pdf.add_font(family, style, fonts.path(family, style))
        self.pdf.set_text_shaping(True, direction="rtl" if language.rtl() else "ltr")
        self.pdf.set_title(_("Case"))
        self.pdf.set_creator("dermedge")
        self.y = MARGIN
        self.lacks = False  # a character was replaced

    # ------------------------------------------------------------------------ blocks

    def head(self, capture: Capture) -> None:
        half = (WIDTH - 2 * MARGIN) / 2
        self.text(MARGIN, self.y, half, _("Spot on the skin: report"), 17, bold=True)
        taken = _("Picture taken {when}", when=_when(capture))
        self.text(MARGIN + half, self.y + 2.2, half, taken, 9.5, color=QUIET, align="R")
        self.y += 11
        self.box(MARGIN, self.y, WIDTH - 2 * MARGIN, 8, NOTE)
        self.disclaimer(self.y + 1.7, 9.5)
        self.y += 8 + 4

    def known(self, facts: Sequence[tuple[str, str]]) -> None:
        """Person and lesion, in two columns."""
        if not facts:
            return
        column = (WIDTH - 2 * MARGIN - GUTTER) / 2
        for first in range(0, len(facts), 2):
            heights = [
                self.pair(MARGIN + n * (column + GUTTER), self.y, column, *fact, lines=2)
                for n, fact in enumerate(facts[first : first + 2])
            ]
            self.y += max(heights) + 0.8
        self.y += 2.5

    def pictures(
        self, shot: Shot, earlier: Shot | None, change: Comparison | None, height: float
    ) -> None:
        """Side by side: now and before; or the whole picture and the lesion in it."""
        across = (WIDTH - 2 * MARGIN - GUTTER) / 2
        now, day = shot.capture, _when(shot.capture)
        views = [(*_drawn(now, shot.pixels), _("Now: {when}", when=day) if earlier else day)]
        if earlier is not None:
            title = _("Before: {when}", when=_when(earlier.capture))
            if change is None:
                views.append((*_drawn(earlier.capture, earlier.pixels), title))
            else:
                scale = now.px_per_mm if change.by == "scale" else None
                pixels = np.where(change.covered[..., None], change.warped, np.uint8(SOFT_GRAY))
                drawn = _outlined(pixels, now.size, change.polygons, scale)
                turned = _("Before: {when}, turned alike", when=_when(earlier.capture))
                views.append((*drawn, turned))
        elif now.analysis["lesion"]["found"]:
            views.append((*_close(now, shot.pixels), _("The spot in it")))
        ratios = [image.shape[1] / image.shape[0] for image, *_ in views]
        tall = min(height, *(across / ratio for ratio in ratios))
        for number, ((image, bar, title), ratio) in enumerate(zip(views, ratios, strict=True)):
            x = MARGIN + number * (across + GUTTER)
            at = self.left(x, tall * ratio)
            self.pdf.image(_jpeg(image), at, self.y, h=tall, w=tall * ratio)
            if bar:
                title = _("{title} (bar: 5 mm)", title=title)
            self.text(x, self.y + tall + 1, across, title, 8.5, color=QUIET, lines=1)
        self.y += tall + 7.5

    def below_pictures(
        self,
        view: present.ResultView,
        shot: Shot,
        earlier: Shot | None,
        change: Comparison | None,
    ) -> bool:
        """All below the pictures. Returns whether there was room for everything."""
        self.band(view)
        self.columns(view)
        if earlier is not None:
            self.changes(_changes(change) if change else [])
        whole = self.remarks(view)
        self.foot(view, shot.capture)
        return whole

    def band(self, view: present.ResultView) -> None:
        band, wide = view.band, WIDTH - 2 * MARGIN
        ink, x = _hex(PAPER[band.style].text), MARGIN + 24
        lines = [(band.title, 15, True), (view.estimate, 10.5, True), (band.advice, 9.5, False)]
        lines = [(text, size, bold) for text, size, bold in lines if text]
        heights = [self.height(text, size, wide - 28, bold) for text, size, bold in lines]
        tall = sum(heights) + 7 + (len(lines) - 1)
        self.box(MARGIN, self.y, wide, tall, _hex(PAPER[band.style].ground))
        self.shape(band, MARGIN + 12, self.y + tall / 2, 7.0)
        y = self.y + 3.5
        for (text, size, bold), step in zip(lines, heights, strict=True):
            self.text(x, y, wide - 28, text, size, bold=bold, color=ink)
            y += step + 1
        self.y += tall + 4
        if view.demonstration:
            self.box(MARGIN, self.y, wide, 7, NOTE)
            self.text(MARGIN + 3, self.y + 1.5, wide - 6, view.demonstration, 9, lines=1)
            self.y += 10

    def shape(self, band: present.Band, x: float, y: float, radius: float) -> None:
        start = x - radius
        x = self.left(start, 2 * radius) + radius
        self.pdf.set_fill_color(_hex(PAPER[band.style].text))
        if band.shape == "circle":
            self.pdf.circle(x, y, radius, style="F")
        else:
            corners = {"triangle": 3, "square": 4, "octagon": 8}[band.shape]
            turn = {3: -math.pi / 2, 4: math.pi / 4, 8: math.pi / 8}[corners]
            angles = [turn + 2 * math.pi * k / corners for k in range(corners)]
            points = [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]
            self.pdf.polygon(points, style="F")
        size = 19.0 if band.shape != "triangle" else 15.0
        self.text(
            start, y - size * MM_PER_POINT * LEADING / 2, 2 * radius, band.mark, size,
            bold=True, color=_hex(PAPER[band.style].ground), align="C",
        )  # fmt: skip

    def columns(self, view: present.ResultView) -> None:
        """ABCD measures beside the likely classes."""
        if not (view.measures or view.classes):
            return
        column = (WIDTH - 2 * MARGIN - GUTTER) / 2
        right, top = MARGIN + column + GUTTER, self.y
        self.title(MARGIN, column, _("ABCD measures"))
        below = self.y
        for title, value in view.measures:
            self.text(MARGIN, below, column * 0.6, title, 9.5, lines=1)
            self.text(MARGIN, below, column, value, 9.5, bold=True, align="R", lines=1)
            below += 5.2
        self.y = top
        self.title(right, column, _("Likely classes, as the model sees them"))
        for title, value in view.classes[:4]:
            self.text(right, self.y, column - 22, title, 9.5, lines=1)
            self.text(right, self.y, column, value, 9.5, bold=True, align="R", lines=1)
            self.y += 5.2
        self.y = max(self.y, below) + 3

    def changes(self, rows: Sequence[tuple[str, str]]) -> None:
        wide = WIDTH - 2 * MARGIN
        self.title(MARGIN, wide, _("Since the earlier picture"))
        rows = rows or [("", _("No spot was found in one of the pictures: not compared."))]
        for title, value in rows:
            self.y += self.pair(MARGIN, self.y, wide, title, value, lines=1) + 0.5
        self.y += 2.5

    def remarks(self, view: present.ResultView) -> bool:
        """Quality, and what limits the estimate; False where not all of it had room."""
        wide, whole = WIDTH - 2 * MARGIN, True
        good = _("Good enough to be judged.")
        rows = [(_("Picture quality"), " ".join(view.remarks) or good)]
        rows += [(_("Limits") if not n else "", text) for n, text in enumerate(view.limits)]
        for title, value in rows:
            left = int((FOOT - 1 - self.y) / (9 * LEADING * MM_PER_POINT))
            room = wide - self.first(wide)
            whole &= left > 0 and len(self._lines(value, 9, room, False)) <= left
            if left > 0:
                self.y += self.pair(MARGIN, self.y, wide, title, value, lines=left) + 0.5
        return whole

    def foot(self, view: present.ResultView, capture: Capture) -> None:
        wide, y = WIDTH - 2 * MARGIN, FOOT
        self.pdf.set_draw_color(RULE)
        self.pdf.line(MARGIN, y, WIDTH - MARGIN, y)
        y += 2
        rows = [view.versions, f"Bundle SHA-256 {capture.analysis['versions']['bundle_sha256']}"]
        now = datetime.now(timezone.utc)
        written = _day(now.isoformat())
        if not clock.plausible(now.date()):
            written = _("{when} (the clock was wrong)", when=written)
        rows.append(_("Written {when}.", when=written))
        if self.lacks:
            message = _("{mark} stands for a character that this device has no font for.")
            rows.append(message.format(mark=MISSING))
        for row in rows:
            self.text(MARGIN, y, wide, row, 7.5, color=QUIET, lines=2)
            y += self.height(row, 7.5, wide) + 0.5
        self.disclaimer(HEIGHT - 14, 8.5, align="C")

    # ------------------------------------------------------------------------ pieces

    def left(self, x: float, wide: float) -> float:
        """Where something begins that is `wide` and lies `x` from the side where lines begin."""
        return WIDTH - x - wide if language.rtl() else x

    def disclaimer(self, y: float, size: float, align: str = "L") -> None:
        """In one line, as large as that allows."""
        wide, message = WIDTH - 2 * MARGIN - 6, _(DISCLAIMER)
        while len(self._lines(message, size, wide, True)) > 1:
            size -= 0.25
        self.text(MARGIN + 3, y, wide, message, size, bold=True, align=align)

    def title(self, x: float, wide: float, text: str) -> None:
        self.text(x, self.y, wide, text, 10.5, bold=True)
        self.y += 5.6
        self.pdf.set_draw_color(RULE)
        x = self.left(x, wide)
        self.pdf.line(x, self.y, x + wide, self.y)
        self.y += 1.5

    def pair(self, x, y, wide, title: str, value: str, lines: int) -> float:
        """A title and its value beside it; returns the height."""
        first = self.first(wide)
        self.text(x, y, first, title, 9, color=QUIET, lines=1)
        return self.text(x + first, y, wide - first, value, 9, lines=lines)

    @staticmethod
    def first(wide: float) -> float:
        """Of a pair so wide, what its title gets."""
        return 30 if wide < WIDTH / 2 else 36

    def box(self, x, y, wide, tall, color: str) -> None:
        self.pdf.set_fill_color(color)
        x = self.left(x, wide)
        self.pdf.rect(x, y, wide, tall, style="F", round_corners=True, corner_radius=1.5)

    def height(self, text: str, size: float, wide: float, bold: bool = False) -> float:
        return len(self._lines(text, size, wide, bold)) * size * LEADING * MM_PER_POINT

    def text(
        self, x, y, wide, text: str, size: float, *, bold=False, color=INK, align="L", lines=99
    ) -> float:
        """Write within `wide` mm and at most so many `lines`; returns the height."""
        found = self._lines(text, size, wide, bold)
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

    def _lines(self, text: str, size: float, wide: float, bold: bool) -> list[str]:
        text = self._printable(text)
        family = fonts.family(text)
        self.pdf.set_font(family, "B" if bold and family == "Roboto" else "", size)
        self.pdf.c_margin = 0
        return self.pdf.multi_cell(wide, text=text, dry_run=True, output="LINES")

    def _printable(self, text: str) -> str:
        text = re.sub(r"[\x00-\x1f\x7f]", " ", text)
        known = fonts.glyphs("DejaVu")
        shown = "".join(c if ord(c) in known else MISSING for c in text)
        self.lacks |= shown != text
        return shown


# ---------------------------------------------------------------------------- pictures


def _drawn(capture: Capture, pixels: np.ndarray) -> tuple[np.ndarray, bool]:
    outlines = capture.analysis["lesion"]["polygons"] if capture.readable else []
    polygons = [np.asarray(p, float) for p in outlines]
    return _outlined(pixels, capture.size, polygons, capture.px_per_mm)


def _close(capture: Capture, pixels: np.ndarray) -> tuple[np.ndarray, bool]:
    """The lesion and some of the skin around it, without the outline; as high as wide."""
    scale = pixels.shape[1] / capture.size[0]
    x, y, across, down = (value * scale for value in capture.analysis["lesion"]["box"])
    side = min(1.5 * max(across, down), *pixels.shape[:2])
    left = round(min(max(x + across / 2 - side / 2, 0), pixels.shape[1] - side))
    top = round(min(max(y + down / 2 - side / 2, 0), pixels.shape[0] - side))
    part = pixels[top : top + max(1, round(side)), left : left + max(1, round(side))]
    return _outlined(part, part.shape[1::-1], [], (capture.px_per_mm or 0) * scale)


def _outlined(pixels, size: tuple[int, int], polygons, px_per_mm: float | None):
    """The picture with outlines (px of the whole picture, of `size`) and, where the scale is known,
    a bar of 5 mm; and whether it is there.
    """
    shrink = min(1.0, PICTURE_SIDE / max(pixels.shape[:2]))
    if shrink < 1:
        pixels = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    elif max(pixels.shape[:2]) < PICTURE_SIDE / 2:  # else the outline would be steps
        pixels = cv2.resize(pixels, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    image = np.ascontiguousarray(pixels).copy()
    scale = image.shape[1] / size[0]
    fine = max(1, round(max(image.shape[:2]) / 450))
    for color, thick in (((13, 26, 32), 3 * fine), ((255, 255, 255), fine)):
        for polygon in polygons:
            points = np.round((polygon * scale + (scale - 1) / 2) * 16).astype(np.int32)
            cv2.polylines(image, [points], True, color, thick, cv2.LINE_AA, 4)
    length = 5 * (px_per_mm or 0) * scale
    if not 0 < length < 0.6 * image.shape[1]:
        return image, False
    y, x = image.shape[0] - 8 * fine, 8 * fine
    for color, thick in (((13, 26, 32), 4 * fine), ((255, 255, 255), 2 * fine)):
        cv2.line(image, (x, y), (x + round(length), y), color, thick, cv2.LINE_AA)
    return image, True


def _jpeg(image: np.ndarray) -> io.BytesIO:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return io.BytesIO(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())


def _hex(color: theme.Color) -> str:
    return "#" + "".join(f"{round(255 * value):02X}" for value in color[:3])


def _when(capture: Capture) -> str:
    """When a picture was taken, and whether that holds."""
    if capture.dating == CLOCK_WRONG:
        return _("{when} (the clock was wrong)", when=_day(capture.taken))
    if capture.dating == CORRECTED:
        return _("{when} (date corrected)", when=_day(capture.taken, time=False))
    return _day(capture.taken)


def _day(stamp: str, time: bool = True) -> str:
    """'2026-01-31T09:30:00Z' as '2026-01-31 09:30 UTC', in this order in every language."""
    text = f"{stamp[:10]} {stamp[11:16]} UTC" if time else stamp[:10]
    return f"{language.MARK}{text}{language.MARK}" if language.rtl() else text
