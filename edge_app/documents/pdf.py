"""A case on one page of A4, as PDF: pictures, risk, measures, versions and the disclaimer.

In the app's language; where that runs from right to left the page is mirrored.

Of the person only those fields are printed that the operator chose. The pictures are drawn again,
so nothing of their metadata gets in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dermedge.analysis import lesion_outline
from dermedge.files import write_atomic
from edge_app.documents.page import (
    FOOT,
    GUTTER,
    HEIGHT,
    LEADING,
    MARGIN,
    MISSING,
    MM_PER_POINT,
    NOTE,
    PAPER,
    QUIET,
    RULE,
    WIDTH,
    Broken,
    Page,
)
from edge_app.documents.pictures import close_up, drawn, jpeg, outlined
from edge_app.follow_up.history import Comparison, compare
from edge_app.i18n import language
from edge_app.i18n.language import N_, _
from edge_app.presentation import comparison
from edge_app.presentation import messages as present
from edge_app.presentation.skin_type import NAMES as SKIN_TYPES
from edge_app.store import clock
from edge_app.store.records import CLOCK_WRONG, CORRECTED, GIVEN, UNKNOWN
from edge_app.store.store import Capture, Lesion, Person
from edge_app.ui import theme


class Size(NamedTuple):
    """How much room is given to what."""

    height: float  # mm of the pictures
    lines: int = 2  # of what was typed
    points: float = 9  # of what limits the estimate


# The first at which nothing is left out of what limits the estimate.
SIZES = (
    *(Size(height, 12) for height in (84.0, 64.0, 48.0)),
    Size(48.0, 4),
    *(Size(height) for height in (84.0, 64.0, 48.0, 34.0)),
    Size(34.0, 1),
    *(Size(height, 1, 7.5) for height in (34.0, 26.0, 18.0)),
)
SOFT_GRAY = 240  # where the earlier picture does not reach

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
    """Write a `case` to `path`, readable by its owner alone. Raises OSError, too."""
    write_atomic(path, case(shot, earlier, person, lesion, fields), private=True)


def case(
    shot: Shot,
    earlier: Shot | None = None,
    person: Person | None = None,
    lesion: Lesion | None = None,
    fields: Sequence[str] = (),
) -> bytes:
    """A case as a PDF.

    Parameters
    ----------
    shot : the capture that the page is about.
    earlier : another capture of the same lesion, which it is compared with.
    person, lesion : whose and which.
    fields : what of them is printed: of PERSON_FIELDS, and of LESION_FIELDS as 'lesion.title'.

    Raises
    ------
    StoreError : the analysis of `shot` cannot be read here.
    """
    facts = _facts(person, lesion, fields)
    both = [
        each.capture.readable and lesion_outline(each.capture.analysis)
        for each in (shot, earlier) if each
    ]  # fmt: skip
    change = None
    if earlier is not None and all(both):
        # The earlier one is laid onto this one, as the screen shows them.
        change = compare(shot.capture, shot.pixels, earlier.capture, earlier.pixels)
    broken: Broken = {}
    for size in SIZES:
        page = _CasePage(broken)
        page.head(shot.capture)
        page.known(facts, size.lines)
        page.pictures(shot, earlier, change, size.height)
        view = present.result(shot.capture.analysis)
        whole = page.below_pictures(view, shot, earlier, change, size.points)
        if whole:
            break
    return bytes(page.pdf.output())


def _facts(person: Person | None, lesion: Lesion | None, fields) -> list[tuple[str, str, bool]]:
    """Title and value of each; whether somebody typed it, who may have typed much."""
    found = []
    for item, titles, before in ((person, PERSON_FIELDS, ""), (lesion, LESION_FIELDS, "lesion.")):
        for name, title in titles.items():
            value = getattr(item, name, None) if before + name in fields else None
            if value not in (None, "", ()):
                if name == "skin_type":  # as the screens call it
                    value = SKIN_TYPES[value - 1]
                values = value if isinstance(value, tuple) else (str(value),)
                text = language.listed(_(one) if name in WORDS else one for one in values)
                found.append((_(title), " ".join(text.split()), name not in WORDS))
    return found


def _changes(change: Comparison) -> list[tuple[str, str]]:
    """What became different, in words. `change` has the earlier capture second."""
    return [*comparison.changes(change), *(("", message) for message in comparison.remarks(change))]


class _CasePage(Page):
    """Draws a case from the top; `y` is where the next block begins."""

    def head(self, capture: Capture) -> None:
        half = (WIDTH - 2 * MARGIN) / 2
        self.text(MARGIN, self.y, half, _("Spot on the skin: report"), 17, bold=True)
        taken = _when(capture)
        if capture.dating != UNKNOWN:
            taken = _("Picture taken {when}", when=taken)
        self.line(MARGIN + half, self.y + 2.2, half, taken, 9.5, color=QUIET, align="R")
        self.y += 11
        self.box(MARGIN, self.y, WIDTH - 2 * MARGIN, 8, NOTE)
        self.disclaimer(self.y + 1.7, 9.5)
        self.y += 8 + 4

    def known(self, facts: Sequence[tuple[str, str, bool]], lines: int) -> None:
        """Person and lesion, in two columns, and what is long across the page; so many lines of
        what was typed.
        """
        if not facts:
            return
        wide = WIDTH - 2 * MARGIN
        column = (wide - GUTTER) / 2
        room = column - self.first(column)
        long = [it for it in facts if it[2] and len(self.lines(it[1], 9, room, False)) > 2]
        short = [it for it in facts if it not in long]
        for first in range(0, len(short), 2):
            heights = [
                self.pair(MARGIN + n * (column + GUTTER), self.y, column, title, value, 99)
                for n, (title, value, _typed) in enumerate(short[first : first + 2])
            ]
            self.y += max(heights) + 0.8
        for title, value, _typed in long:
            self.y += self.pair(MARGIN, self.y, wide, title, value, lines) + 0.8
        self.y += 2.5

    def pictures(
        self, shot: Shot, earlier: Shot | None, change: Comparison | None, height: float
    ) -> None:
        """Side by side: now and before; or the whole picture and the lesion in it."""
        across = (WIDTH - 2 * MARGIN - GUTTER) / 2
        now, day = shot.capture, _when(shot.capture)
        views = [(*drawn(now, shot.pixels), _("Now: {when}", when=day) if earlier else day)]
        if earlier is not None:
            title = _("Before: {when}", when=_when(earlier.capture))
            if change is None:
                views.append((*drawn(earlier.capture, earlier.pixels), title))
            else:
                scale = now.px_per_mm if change.by == "scale" else None
                pixels = np.where(change.covered[..., None], change.warped, np.uint8(SOFT_GRAY))
                before = outlined(pixels, now.size, change.polygons, scale)
                rotated = _("Before: {when}, turned alike", when=_when(earlier.capture))
                views.append((*before, rotated))
        elif lesion_outline(now.analysis):
            views.append((*close_up(now, shot.pixels), _("The spot in it")))
        ratios = [image.shape[1] / image.shape[0] for image, *_ in views]
        tall = min(height, *(across / ratio for ratio in ratios))
        for number, ((image, bar, title), ratio) in enumerate(zip(views, ratios, strict=True)):
            x = MARGIN + number * (across + GUTTER)
            at = self.left(x, tall * ratio)
            self.pdf.image(jpeg(image), at, self.y, h=tall, w=tall * ratio)
            if bar:
                title = _("{title} (bar: 5 mm)", title=title)
            self.line(x, self.y + tall + 1, across, title, 8.5, color=QUIET)
        self.y += tall + 7.5

    def below_pictures(
        self,
        view: present.ResultView,
        shot: Shot,
        earlier: Shot | None,
        change: Comparison | None,
        points: float,
    ) -> bool:
        """All below the pictures. Returns whether there was room for everything."""
        self.band(view)
        self.columns(view)
        if earlier is not None:
            self.changes(_changes(change) if change else [])
        whole = self.remarks(view, points)
        self.foot(view, shot.capture)
        return whole

    def band(self, view: present.ResultView) -> None:
        band, wide = view.band, WIDTH - 2 * MARGIN
        ink, x = theme.hex_color(PAPER[band.style].text), MARGIN + 24
        lines = [(band.title, 15, True), (view.estimate, 10.5, True), (band.advice, 9.5, False)]
        lines = [(text, size, bold) for text, size, bold in lines if text]
        heights = [self.height(text, size, wide - 28, bold) for text, size, bold in lines]
        tall = sum(heights) + 7 + (len(lines) - 1)
        self.box(MARGIN, self.y, wide, tall, theme.hex_color(PAPER[band.style].ground))
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
            self.y += self.pair(MARGIN, self.y, wide, title, value, lines=1 if title else 3) + 0.5
        self.y += 2.5

    def remarks(self, view: present.ResultView, points: float) -> bool:
        """Quality, and what limits the estimate; False where not all of it had room."""
        wide, whole = WIDTH - 2 * MARGIN, True
        good = _("Good enough to be judged.")
        rows = [(_("Picture quality"), " ".join(view.remarks) or good)]
        rows += [(_("Limits") if not n else "", text) for n, text in enumerate(view.limits)]
        for title, value in rows:
            left = int((FOOT - 1 - self.y) / (points * LEADING * MM_PER_POINT))
            room = wide - self.first(wide)
            whole &= left > 0 and len(self.lines(value, points, room, False)) <= left
            if left > 0:
                self.y += self.pair(MARGIN, self.y, wide, title, value, left, points) + 0.5
        return whole

    def foot(self, view: present.ResultView, capture: Capture) -> None:
        wide, y = WIDTH - 2 * MARGIN, FOOT
        self.pdf.set_draw_color(RULE)
        self.pdf.line(MARGIN, y, WIDTH - MARGIN, y)
        y += 2
        digest = capture.analysis["versions"]["bundle_sha256"]
        rows = [view.versions, f"{_('Bundle')} SHA-256 {digest}"]
        now = datetime.now(timezone.utc)
        written = _day(now.isoformat())
        if not clock.plausible(now.date()):
            written = _("{when} (the clock was wrong)", when=written)
        rows.append(_("Written {when}.", when=written))
        if self.lacks:
            message = _("{mark} stands for a character that this device has no font for.")
            rows.append(message.format(mark=MISSING))
        for row in rows:
            y += self.text(MARGIN, y, wide, row, 7.5, color=QUIET, lines=2) + 0.5
        self.disclaimer(HEIGHT - 14, 8.5, align="C")


def _when(capture: Capture) -> str:
    """When a picture was taken, and whether that holds."""
    if capture.dating == CLOCK_WRONG:
        return _("{when} (the clock was wrong)", when=_day(capture.taken))
    if capture.dating == CORRECTED:
        return _("{when} (date corrected)", when=_marked(clock.local_day(capture.taken)))
    if capture.dating == UNKNOWN:
        return _("Date not known (added {when})", when=_marked(clock.local_day(capture.taken)))
    if capture.dating == GIVEN:
        return _("{when} (from a file)", when=_marked(clock.local_day(capture.taken)))
    return _day(capture.taken)


def _day(stamp: str) -> str:
    """'2026-01-31T09:30:00Z' as '2026-01-31 09:30 UTC', in this order in every language."""
    return _marked(clock.shown(stamp))


def _marked(text: str) -> str:
    return f"{language.MARK}{text}{language.MARK}" if language.rtl() else text
