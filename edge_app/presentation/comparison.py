"""What became of a spot over time, in words and in numbers to draw; no Kivy in it."""

from __future__ import annotations

import calendar
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import accumulate

import numpy as np

from edge_app.follow_up.history import REMARKS, Comparison, Point, area_mm2
from edge_app.i18n import language
from edge_app.i18n.language import N_, Message, _
from edge_app.presentation import messages as present
from edge_app.store.audit import BEGIN
from edge_app.store.records import CLOCK_WRONG, CORRECTED, GIVEN, UNKNOWN
from edge_app.store.store import Capture, Entry

TONE = 2.0  # CIELAB lightness up to which a spot is as light as before
CLOSE = 0.8  # what a close-up shows of the spot's extent to each side of its middle
REMINDERS = (1, 3, 6)  # months
# What the audit trail's entries say.
AUDIT_EVENTS = {
    "create": N_("Store made"),
    "add person": N_("Person added"),
    "update person": N_("Person changed"),
    "add lesion": N_("Spot added"),
    "update lesion": N_("Spot changed"),
    "add capture": N_("Picture added"),
    "update capture": N_("Picture changed"),
    "date capture": N_("Date of a picture changed"),
    "migrate capture": N_("Picture's record brought to a newer form"),
    "restore person": N_("Damaged person put back from a file"),
    "restore lesion": N_("Damaged spot put back from a file"),
    "restore capture": N_("Damaged picture put back from a file"),
    "restore referral": N_("Damaged referral put back from a file"),
    "restore answer": N_("Damaged answer put back from a file"),
    "delete person": N_("Person deleted"),
    "begin delete person": N_("Deleting a person begun"),
    "done delete person": N_("Deleted person overwritten"),
    "failed delete person": N_("Deleting a person failed"),
    "delete lesion": N_("Spot deleted"),
    "begin delete lesion": N_("Deleting a spot begun"),
    "done delete lesion": N_("Deleted spot overwritten"),
    "failed delete lesion": N_("Deleting a spot failed"),
    "delete capture": N_("Picture deleted"),
    "begin delete capture": N_("Deleting a picture begun"),
    "done delete capture": N_("Deleted picture overwritten"),
    "failed delete capture": N_("Deleting a picture failed"),
    "add referral": N_("Referral queued"),
    "stop referral": N_("Sending a referral stopped"),
    "resume referral": N_("Sending a referral taken up again"),
    "delete referral": N_("Referral deleted"),
    "begin delete referral": N_("Deleting a referral begun"),
    "done delete referral": N_("Deleted referral overwritten"),
    "failed delete referral": N_("Deleting a referral failed"),
    "add parcel": N_("Part of a referral queued"),
    "send parcel": N_("Sending a part of a referral begun"),
    "receive parcel": N_("Part of a referral received"),
    "date parcel": N_("Time of a receipt marked as not known"),
    "delete parcel": N_("Part of a referral deleted"),
    "add answer": N_("Answer received"),
    "date answer": N_("Time of an answer marked as not known"),
    "delete answer": N_("Answer deleted"),
    "add destination": N_("Destination added"),
    "update destination": N_("Destination changed"),
    "delete destination": N_("Destination deleted"),
    "begin delete destination": N_("Deleting a destination begun"),
    "done delete destination": N_("Deleted destination overwritten"),
    "failed delete destination": N_("Deleting a destination failed"),
    "allow training": N_("Use of a person's pictures for training allowed"),
    "forbid training": N_("Use of a person's pictures for training forbidden"),
    "add-label": N_("Picture labelled"),
    "undo-label": N_("Label of a picture taken back"),
    "begin export labels": N_("Export of labelled pictures begun"),
    "done export labels": N_("Labelled pictures exported"),
    "failed export labels": N_("Export of labelled pictures failed"),
    "set dermoscope": N_("Dermoscope of this device changed"),
    "export": N_("Cases exported"),  # of dermedge 0.1.0
    "begin export": N_("Export of cases begun"),
    "done export": N_("Cases exported"),
    "failed export": N_("Export of cases failed"),
    "import": N_("Cases imported"),  # of dermedge 0.1.0
    "begin import": N_("Import of cases begun"),
    "done import": N_("Cases imported"),
    "failed import": N_("Import of cases failed"),
    "begin report": N_("Writing a report begun"),
    "done report": N_("Report written"),
    "failed report": N_("Writing a report failed"),
    "change key": N_("Passphrase changed"),
    "begin change key": N_("Change of the passphrase begun"),
    "done change key": N_("Old passphrase overwritten"),
    "failed change key": N_("Change of the passphrase failed"),
    "wrong passphrase": N_("Wrong passphrase typed"),
    "begin change PIN": N_("Change of the operator's PIN begun"),
    "done change PIN": N_("Operator's PIN changed"),
    "failed change PIN": N_("Change of the operator's PIN failed"),
    "clock wrong": N_("The clock of this device was found to be wrong"),
    "clock set back": N_("The clock of this device was found to be behind"),
    "confirm clock": N_("The clock of this device was confirmed"),
}


@dataclass(frozen=True)
class Trend:
    """One measure over time, to be drawn as a line."""

    title: str
    # Since the first picture, of those in which the value is known; where a date does not hold,
    # pictures are counted instead.
    days: tuple[float, ...]
    values: tuple[float, ...]  # then
    span: float  # from the first picture to the last
    ticks: tuple[tuple[float, str], ...]  # values along the axis and their words, from 0 up
    ends: tuple[str, str]  # dates, or numbers, of the first and of the last picture
    now: str  # the last value in words, or that it is not known


@dataclass(frozen=True)
class Shown:
    """A capture in the list of a spot's pictures."""

    when: str
    band: present.Band
    size: str


def shown(capture: Capture) -> Shown:
    band = present.estimated(capture.triage)
    return Shown(when(capture), band, area(area_mm2(capture)) if capture.readable else "")


def when(capture: Capture) -> str:
    """The time of a capture, and whether it holds."""
    if capture.dating == GIVEN:  # of another clock, or by hand: the hour means little
        return _("{when} (from a file)", when=Message(language.day(capture.taken)))
    if capture.dating in (CORRECTED, UNKNOWN):
        return _marked(capture, language.day(capture.taken))
    return _marked(capture, language.moment(capture.taken))


def _marked(capture: Capture, message: str) -> str:
    when = Message(message)  # in the language already; its strokes are none of a path
    if capture.dating == CLOCK_WRONG:
        return _("{when} (the clock was wrong)", when=when)
    if capture.dating == UNKNOWN:
        return _("Date not known (added {when})", when=when)
    return _("{when} (date corrected)", when=when) if capture.dating == CORRECTED else message


def pair(captures: Sequence[Capture], one: Capture, other: Capture) -> list[Capture]:
    """Two captures of a spot in the order of all of its captures, as the history shows it: by
    themselves, one whose date does not hold may have no place."""
    places = {capture.id: place for place, capture in enumerate(captures)}
    return sorted((one, other), key=lambda capture: places.get(capture.id, 0))


def labels(captures: Sequence[Capture]) -> list[str]:
    """The day of each capture; with the time where they share it."""
    days = [language.day(capture.taken) for capture in captures]
    return [
        _marked(capture, day if days.count(day) == 1 else language.moment(capture.taken))
        for day, capture in zip(days, captures, strict=True)
    ]


def clock_remark(captures: Sequence[Capture]) -> str:
    """What to say of a history in which a date does not hold; empty where all do."""
    if all(capture.dated for capture in captures):
        return ""
    if all(capture.dating != CLOCK_WRONG for capture in captures):
        return _(
            "Some of these pictures do not say when they were taken: they stand where they were "
            "added, and may be older. How much time lies between them is unknown."
        )
    return _(
        "The clock of the device was wrong when some of these pictures were taken. They are in the "
        "order in which they were added; how much time lies between them is unknown."
    )


def area(value: float | None) -> str:
    if value is None:
        return _("size unknown")
    return _("{value} mm²", value=language.number(value, 1))


def trends(points: Sequence[Point]) -> list[Trend]:
    """Area, colours, asymmetry and border of one capture or more, the oldest first."""
    return [
        _trend(points, _("Area, mm²"), lambda p: p.area_mm2, area),
        _trend(points, _("Colours"), lambda p: p.colors, _count, 6.0),
        _trend(points, _("Asymmetry (0 to 1)"), lambda p: p.asymmetry, _hundredths),
        _trend(points, _("Border (0 to 1)"), lambda p: p.border, _hundredths),
    ]


def _trend(
    points: Sequence[Point],
    title: str,
    value: Callable[[Point], float | None],
    text: Callable[[float | None], str],
    most: float | None = None,
) -> Trend:
    dated = all(point.dating not in (CLOCK_WRONG, UNKNOWN) for point in points)
    days = [_day(p.taken) for p in points] if dated else range(len(points))
    places = [float(day) for day in accumulate(days, max)]  # a clock may be minutes behind
    known = [
        (place, float(number))
        for place, point in zip(places, points, strict=True)
        if (number := value(point)) is not None
    ]
    high, digits = _axis(most or max((v for _when, v in known), default=0.0))
    if dated:
        ends = language.day(points[0].taken), language.day(points[-1].taken)
    else:
        first, last = (language.number(n) for n in (1, len(points)))
        ends = _("picture {number}", number=first), _("picture {number}", number=last)
    return Trend(
        title=title,
        days=tuple(place - places[0] for place, _value in known),
        values=tuple(v for _when, v in known),
        span=places[-1] - places[0],
        ticks=tuple((v, language.number(v, digits)) for v in (0.0, high / 2, high)),
        ends=ends,
        now=text(value(points[-1])),
    )


def _axis(most: float) -> tuple[float, int]:
    """Where an axis from 0 ends that holds `most`, and the digits of its half."""
    if most < 1e-6:  # rounding, no measure
        return 1.0, 1
    power = 10.0 ** math.floor(math.log10(most))
    high = power * next(
        step for step in (1, 2, 3, 4, 6, 8, 10) if most <= step * power * (1 + 1e-9)
    )
    half = high / 2
    digits = next(n for n in range(9) if abs(round(half, n) - half) < 1e-9 * half)
    return high, digits


def _signed(share: float) -> str:
    """A change in percent; it says so where something grew."""
    rounded = round(share, 2)
    message = language.percent(rounded or 0.0)  # not "-0 %"
    return f"+{message}" if rounded > 0 else message


def _hundredths(value: float | None) -> str:
    return _("not known") if value is None else language.number(value, 2)


def _count(value: float | None) -> str:
    return _("not known") if value is None else language.number(value)


def _day(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() / 86400


def changes(change: Comparison) -> list[tuple[str, str]]:
    """What became different, as names and values. `change` has the earlier capture second."""
    rows = [
        (_("Area"), _area_change(change)),
        (_("Shape"), _("outlines agree by {share}", share=language.percent(change.overlap))),
        (_("Colour"), _color_change(change)),
        (
            _("Colour difference"),
            _(
                "{spot}; of the skin around {skin} (CIELAB)",
                spot=language.number(change.color_change, 1),
                skin=language.number(change.skin_change, 1),
            ),
        ),
    ]
    for title, (after, before) in (
        (_("Asymmetry (0 to 1)"), change.asymmetry),
        (_("Border (0 to 1)"), change.border),
    ):
        if after is not None and before is not None:
            message = _("{before} to {after}",
                     before=_hundredths(before), after=_hundredths(after))  # fmt: skip
            rows.append((title, message))
    return rows


@dataclass(frozen=True, eq=False)
class Side:
    """A picture to show beside another, or upon it."""

    pixels: np.ndarray  # uint8 (h, w, 3) RGB
    outline: present.Outline
    extent: tuple[int, int]  # (width, height), px, that the outline refers to


def sides(
    later: Capture, pixels: np.ndarray, change: Comparison, close: bool, beyond: Sequence[int]
) -> tuple[Side, Side, Side]:
    """The earlier and the later picture on the same pixels, and the earlier one to fade in.

    Parameters
    ----------
    later, pixels : a capture and its picture, uint8 (h, w, 3) RGB, maybe reduced.
    change : the earlier capture against it.
    close : only the spot and some of the skin around it.
    beyond : RGB where the earlier picture does not reach. The one to fade in shows the later there.
    """
    scale = pixels.shape[1] / later.size[0]
    outlines = [np.asarray(p, float) for p in later.analysis["lesion"]["polygons"]]
    top, left, bottom, right = 0, 0, *pixels.shape[:2]
    if close:
        points = np.concatenate([*outlines, *change.polygons]) * scale
        middle, reach = (points.max(0) + points.min(0)) / 2, CLOSE * np.ptp(points, axis=0).max()
        left, top = np.clip(middle - reach, 0, (right - 1, bottom - 1)).astype(int)
        right, bottom = np.clip(middle + reach, (left + 1, top + 1), (right, bottom)).astype(int)
    part = np.s_[top:bottom, left:right]
    extent = (right - left) / scale, (bottom - top) / scale
    corner = np.array([left, top]) / scale

    def side(picture: np.ndarray, polygons) -> Side:
        return Side(
            np.ascontiguousarray(picture[part]), [(p - corner).tolist() for p in polygons], extent
        )

    covered, edge = change.covered[..., None], np.array(beyond, np.uint8)
    return (
        side(np.where(covered, change.warped, edge), change.polygons),
        side(pixels, outlines),
        side(np.where(covered, change.warped, pixels), change.polygons),
    )


def remarks(change: Comparison) -> list[str]:
    """What limits the comparison."""
    return [_(REMARKS[code]) for code in change.remarks]


def _area_change(change: Comparison) -> str:
    after, before = change.area_mm2
    if after is not None and before is not None:
        return _(
            "{before} to {after} mm² ({change})",
            before=language.number(before, 1),
            after=language.number(after, 1),
            change=_signed(after / before - 1),
        )
    if change.area_change is not None:
        grown = _signed(1 / (1 + change.area_change) - 1)
        return _("{change}, by marks on the skin around", change=grown)
    if "refused" in change.remarks:
        return _("unknown: one of the pictures cannot be judged")
    if "cut_off" in change.remarks:
        return _("unknown: the lesion is cut off")
    return _("unknown: no scale in both pictures")


def _color_change(change: Comparison) -> str:
    lighter = -change.color_shift[0]
    if abs(lighter) <= TONE:
        return _("as light as before")
    return _("lighter") if lighter > 0 else _("darker")


def months_on(today: date, months: int) -> date:
    """The same day so many months later, or the last day of that month."""
    year, month = divmod(today.month - 1 + months, 12)
    last = calendar.monthrange(today.year + year, month + 1)[1]
    return date(today.year + year, month + 1, min(today.day, last))


def audit_rows(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """The audit trail in words, the newest first. What was begun and has no end is marked."""
    ended = {entry.ends for entry in entries}
    rows = []
    for entry in reversed(entries):
        what, when = audit_row(entry)
        if entry.what.startswith(BEGIN) and entry.number not in ended:
            what = _("{deed}: its end was not noted", deed=what)
        rows.append((what, when))
    return rows


def audit_row(entry: Entry) -> tuple[str, str]:
    """An entry of the audit trail: what was done, to what and when."""
    what = _(AUDIT_EVENTS[entry.what]) if entry.what in AUDIT_EVENTS else entry.what
    when = language.moment(entry.when)
    return what, f"{when} · {entry.which[:8]}" if entry.which else when
