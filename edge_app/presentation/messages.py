"""What the screens say, as plain values: an analysis in, words, styles and shapes out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from dermedge.analysis import lesion_outline
from dermedge.bundle.manifest import Manifest
from edge_app.capture.shots import Snapshot
from edge_app.follow_up import people
from edge_app.follow_up.people import Known, Spot
from edge_app.i18n import language
from edge_app.i18n.language import N_, _, n_
from edge_app.presentation import skin_type
from edge_app.presentation.estimate import (
    BANDS,
    DEMO,
    TERMS,
    Band,
    Outline,
    ResultView,
    millimetres,
    percent,
    reference,
    remarks,
    result,
    rule,
    spoken,
)
from edge_app.self_check import TITLES as CHECKS
from edge_app.self_check import Check
from edge_app.store.damage import id_of
from edge_app.store.records import OTHER_VERSION
from edge_app.store.referrals import Elsewhere
from edge_app.store.store import Lesion, Person

# The words of one estimate are among those of the screens.
__all__ = ["Band", "ResultView", "millimetres", "percent", "reference", "result", "rule"]
SEPARATOR = "  ·  "  # between facts on one line
NAME = 32  # characters of a name where there is little room
NAME_END = 12  # of them, from its end
LEFT_OUT = 3  # names of what is damaged, on one line
# Of a text that is drawn as one: small devices draw nothing that is higher than 4096 px.
BLOCK, BLOCK_LINES = 600, 20


TERMS_KIOSK = N_(
    "A picture is kept only if the operator of this device keeps it for you. When nobody touches "
    "the screen for a while, everything on it is cleared."
)


@dataclass(frozen=True)
class LiveView:
    """The live screen's words."""

    guidance: str = ""
    style: str = "guide_wait"
    outline: Outline = field(default_factory=list)
    extent: tuple[int, int] = (1, 1)  # (width, height), px, that the outline refers to
    can_capture: bool = False
    source: str = ""


def terms(kiosk: bool) -> list[str]:
    """What a person agrees to before the first picture."""
    return [_(text) for text in (*TERMS, *([TERMS_KIOSK] if kiosk else []))]


def demonstration(manifest: Manifest) -> str:
    """What to say of a bundle that was trained on drawn pictures; empty for others."""
    return _(DEMO) if manifest.procedural else ""


def error_line(error: BaseException) -> str:
    """An error as one line for the screen."""
    return language.sentence(_(language.error_message(error)))


def left_out(names: Sequence[str]) -> str:
    """What a screen lacks because it is damaged."""
    some = [*map(_, names[:LEFT_OUT]), *(["…"] if len(names) > LEFT_OUT else [])]
    what = SEPARATOR.join(some)
    if all(id_of("destination", name) for name in names):  # no export holds one
        return _("Damaged, and left out here: {what}. Delete it among the receivers.", what=what)
    return _("Damaged, and left out here: {what}. Restore it from an export.", what=what)


def erased(error: BaseException | None, found: Sequence[Elsewhere]) -> str:
    """What to say of something that was deleted: what of it is still anywhere; mostly nothing."""
    lines = [error_line(error)] if error is not None else []
    if found:
        lines += [_("Deleted here."), *(language.sentence(_(one.words)) for one in found)]
    return " ".join(lines)


def imported(pictures: int) -> str:
    """What to say of a file of cases that was taken in; people and answers are not counted."""
    if pictures:
        return n_("{count} new picture", "{count} new pictures", pictures)
    return _("No new picture. What else is new in it, as an answer, is here now.")


def faults(checks: Sequence[Check], snapshot: Snapshot) -> str:
    """What the self-check found wrong, for the operator; empty where all is well.

    A camera that came later is no fault any more.
    """
    seen = not snapshot.fault  # nor waited for, then
    lines = [
        _("{part}: {words}", part=_(CHECKS[check.name]), words=language.sentence(_(check.message)))
        for check in checks
        if not check.ok and not (check.name == "camera" and seen)
    ]
    return "\n".join([_("For the operator of this device"), *lines]) if lines else ""


def reminder(lesion: Lesion, person: Person) -> str:
    when = language.day(lesion.remind) if lesion.remind else ""
    return f"{person.name}: {lesion.title} ({when})"


def whose(person: Person | None, lesion: Lesion) -> str:
    """Beside the camera, in little room: of a name that is long, its begin and its end.

    The end tells a spot from its neighbour: "(2)", or "front" from "back".
    """
    names = ([] if person is None else [person.name]) + [lesion.title]
    return ": ".join(
        name if len(name) <= NAME else f"{name[: NAME - NAME_END - 1]}…{name[-NAME_END:]}"
        for name in names
    )


def kept(person: Person | None, lesion: Lesion) -> str:
    """That the series is on disk, and where."""
    if person is None:
        return _("Kept: {spot}", spot=lesion.title)
    return _("Kept: {person}, {spot}", person=person.name, spot=lesion.title)


def estimated(triage: str | None) -> Band:
    """The band of a triage result, in the language; of None, too: there is no picture; and of
    OTHER_VERSION: it cannot be read here."""
    if triage is None:
        return Band(_("No picture yet"), "", "plain", "circle", "")
    if triage == OTHER_VERSION:
        return Band(_("Result of another version of dermedge"), "", "retake", "square", "?")
    return spoken(BANDS[triage])


def facts(person: Person, today: date) -> str:
    """Age, sex and skin type, as far as they are known, on one line."""
    known = _age(person, today)
    if person.sex:
        known.append(_(person.sex))
    if person.skin_type:
        known.append(_("skin type {name}", name=skin_type.NAMES[person.skin_type - 1]))
    return language.capital(SEPARATOR.join(known))


def row(known: Known, today: date) -> str:
    """A person's line in the list: age and number of spots."""
    spots = n_("{count} spot", "{count} spots", known.spots)
    return language.capital(SEPARATOR.join([*_age(known.person, today), spots]))


def _age(person: Person, today: date) -> list[str]:
    """In words; nothing where it is not known."""
    age = people.age(person, today)
    return [] if age is None else [n_("about {count} year old", "about {count} years old", age)]


def spot(spot: Spot) -> str:
    """A spot's line in the list: how many pictures, the newest."""
    if not spot.pictures:
        return ""
    pictures = n_("{count} picture", "{count} pictures", spot.pictures)
    day = language.day(spot.taken) if spot.dated else _("date not known")
    return SEPARATOR.join((pictures, day))


def live(snapshot: Snapshot, notice: str = "") -> LiveView:
    """What the live screen shows for a snapshot; `notice` (a failed capture) goes before all."""
    analysis = snapshot.analysis if snapshot.frame is not None else None
    outline = lesion_outline(analysis) if analysis else []
    if snapshot.busy:
        text, style = _("Saving and analysing. You may move the camera away."), "guide_good"
    elif bad := notice or snapshot.fault or snapshot.failure:
        text, style = language.sentence(_(bad)), "guide_bad"
    elif analysis is None:
        text, style = _("Looking at the picture."), "guide_wait"
    elif not analysis["quality"]["ok"] or analysis["triage"] == "retake":
        # One thing at a time: the reasons come gravest first.
        text, style = remarks(analysis)[0], "guide_wait"
    else:
        text, style = _("Good picture. Hold still and press the button."), "guide_good"
    return LiveView(
        guidance=text,
        style=style,
        outline=outline,
        extent=tuple(analysis["size"]) if analysis else (1, 1),
        can_capture=snapshot.offered is not None and not snapshot.busy,
        source=_(snapshot.source) or _("no source"),
    )


def blocks(text: str) -> list[str]:
    """A text that people wrote, however long, in parts that can be drawn one below the other."""
    found: list[list[str]] = [[]]
    for line in text.split("\n"):
        for part in textwrap.wrap(line, BLOCK, replace_whitespace=False) or [""]:
            full = len("\n".join([*found[-1], part])) > BLOCK or len(found[-1]) == BLOCK_LINES
            if found[-1] and full:
                found.append([])
            found[-1].append(part)
    return ["\n".join(lines) for lines in found]
