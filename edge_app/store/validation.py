"""What makes sense in a store: one validator for what is typed in and what comes from a file of
another device. Functions alone; any thread may call them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from edge_app.i18n.language import N_, Message
from edge_app.store import clock, schema, validation_mail
from edge_app.store.basics import is_date, stamp, text
from edge_app.store.records import (
    CAPTURE_KINDS,
    CORRECTED,
    DATINGS,
    IMMERSIONS,
    RISK_FACTORS,
    SEXES,
    VIEWS,
    Capture,
    DermoscopeSettings,
    Lesion,
    Person,
    StoreError,
)
from edge_app.store.schema import is_number

OLDEST = 130  # years
NAME, NOTES = 1000, 100_000  # characters
IDENTIFIER, MOST_IDENTIFIERS = 64, 10  # characters, as DICOM's LO; of one person
ADDRESS = 2000  # characters
MAX_SIDE = 100_000  # px
MAX_SCALE = 100_000.0  # px per mm


def validate(item, now: str, seen: str = "") -> None:
    """Raises StoreError with the first thing that is wrong.

    Parameters
    ----------
    now : what the clock of this device says, ISO 8601.
    seen : the latest time at which it was right, empty where that is not known.
    """
    faults = FAULTS[type(item)]
    for words in faults(item, now, seen):
        raise words if isinstance(words, StoreError) else StoreError(words, code="invalid")


def birth_years(now: str, seen: str = "") -> tuple[range, bool]:
    """Years of birth that can be, and whether the clock may be why another is not among them."""
    wrong = bool(clock.fault(now, seen))
    year = int((max(seen, clock.EARLIEST) if wrong else now)[:4])
    return range(year - OLDEST, year + 1), wrong


CLOCK_FIRST = N_("the clock of this device is wrong: set it, or leave the year of birth empty")


def _of_person(person: Person, now: str, seen: str) -> Iterator[str]:
    yield from text(person.name, NAME, N_("a person needs a name or a code"))
    yield from text(person.notes, NOTES)
    year = person.year_of_birth
    if year is not None:
        known, wrong = birth_years(now, seen)
        if type(year) is not int or year not in known:
            soon = type(year) is int and known.stop <= year < int(clock.LATEST[:4])
            yield CLOCK_FIRST if wrong and soon else N_("no such birth year")
    if person.sex not in (None, *SEXES):
        yield Message(N_("sex is one of {choices}"), choices=", ".join(SEXES))
    if person.skin_type is not None and not (
        type(person.skin_type) is int and 1 <= person.skin_type <= 6
    ):
        yield N_("skin types are 1 to 6")
    risks = person.risk_factors
    if not isinstance(risks, tuple) or not all(isinstance(risk, str) for risk in risks) or (
        not set(risks) <= set(RISK_FACTORS) or len(set(risks)) < len(risks)
    ):  # fmt: skip
        yield N_("an unknown risk factor")
    yield from stamp(person.created)
    pairs = person.identifiers
    if not isinstance(pairs, tuple) or len(pairs) > MOST_IDENTIFIERS or not all(
        isinstance(pair, tuple) and len(pair) == 2 for pair in pairs
    ):  # fmt: skip
        yield N_("an identifier has a system and a number")
        return
    for system, value in pairs:
        yield from text(system, ADDRESS, N_("an identifier has a system and a number"))
        yield from text(value, IDENTIFIER, N_("an identifier has a system and a number"))


def _of_lesion(lesion: Lesion, _now: str, _seen: str) -> Iterator[str]:
    yield from text(lesion.title, NAME, N_("a lesion needs a title"))
    yield from text(lesion.notes, NOTES)
    if lesion.view not in VIEWS:
        yield Message(N_("a view is one of {choices}"), choices=", ".join(VIEWS))
    if not all(is_number(side) and 0 <= side <= 1 for side in (lesion.x, lesion.y)):
        yield N_("the place lies off the body map")
    if lesion.remind is not None and not is_date(lesion.remind):
        yield N_("a reminder needs a date")
    yield from stamp(lesion.created)


def _of_capture(capture: Capture, _now: str, _seen: str) -> Iterator[str | StoreError]:
    size = capture.size
    if not isinstance(size, tuple) or len(size) != 2 or not all(
        type(side) is int and 1 <= side <= MAX_SIDE for side in size
    ):  # fmt: skip
        yield N_("a picture has at least one px")
    scale = capture.px_per_mm
    if scale is not None and not (is_number(scale) and 0 < scale <= MAX_SCALE):
        yield N_("a scale is above zero")
    yield from text(capture.notes, NOTES)
    if not capture.taken:
        yield N_("a picture needs the time at which it was taken")
    for moment in (capture.taken, capture.clock):
        yield from stamp(moment)
    if capture.kind not in CAPTURE_KINDS:
        yield N_("a picture of an unknown kind")
    if capture.dating not in DATINGS or bool(capture.clock) != (capture.dating == CORRECTED):
        yield N_("it is unknown how a picture was dated")
    origin, sequence = capture.origin, capture.sequence
    if not isinstance(origin, str) or not re.fullmatch("([0-9a-f]{16})?", origin):
        yield N_("a picture of an unknown store")
    if type(sequence) is not int or not 0 <= sequence < 2**53:
        yield N_("a picture without its number")
    if type(capture.version) is not int or not capture.readable:
        yield StoreError(
            "its analysis is of version {version}, which this dermedge cannot read: update "
            "dermedge",
            code="analysis-version",
            version=capture.version,
        )
    elif fault := schema.analysis_fault(capture.analysis, size):
        yield StoreError("its analysis is none: {fault}", code="analysis", fault=fault)


def _of_dermoscope(settings: DermoscopeSettings, _now: str, _seen: str) -> Iterator[str]:
    for part in (settings.manufacturer, settings.model, settings.serial):
        yield from text(part, IDENTIFIER)
    if settings.contact not in (None, True, False) or settings.polarized not in (None, True, False):
        yield N_("a dermoscope touches the skin or not, its light is polarized or not")
    if settings.immersion is not None and not (
        settings.immersion in IMMERSIONS and settings.contact
    ):
        yield N_("an immersion fluid is one of DICOM's, and only with contact")
    for value in (settings.magnification, settings.colour_temperature):
        if value is not None and not (is_number(value) and 0 < value <= MAX_SIDE):
            yield N_("a magnification and a colour temperature are above zero")


FAULTS: dict[type, Callable[..., Iterator[Any]]] = {
    Person: _of_person,
    Lesion: _of_lesion,
    Capture: _of_capture,
    DermoscopeSettings: _of_dermoscope,
    **validation_mail.FAULTS,
}
