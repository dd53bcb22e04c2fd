"""What a store holds, as values; what of it makes sense; and in which order pictures were taken.

One validator serves what is typed in and what comes from a file of another device.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from functools import cache
from pathlib import Path
from typing import TypeVar

import dermedge
from dermedge import UserError
from dermedge.taxonomy import CLASSES
from edge_app.cases import clock
from edge_app.look.language import N_, Said

SEXES = (N_("female"), N_("male"))
VIEWS = (N_("front"), N_("back"))
RISK_FACTORS = (
    N_("own melanoma"),
    N_("own skin cancer"),
    N_("melanoma in the family"),
    N_("more than 50 moles"),
    N_("atypical moles"),
    N_("sunburns in childhood"),
    N_("sunbeds"),
    N_("work outdoors"),
    N_("weak immune system"),
)
# How the date of a capture is known.
BY_CLOCK = ""  # of the device, which was right as far as one could tell
GIVEN = "given"  # by who added it
CLOCK_WRONG = "clock wrong"  # by the device's clock, which was not right: the date does not hold
CORRECTED = "corrected"  # by hand; `clock` keeps what the clock said
DATINGS = (BY_CLOCK, GIVEN, CLOCK_WRONG, CORRECTED)
RECORD = N_("a record holds what this dermedge does not know")
OTHER_VERSION = "other version"  # stands for the triage of an analysis that cannot be read here
OLDEST = 130  # years

NAME, NOTES = 1000, 100_000  # characters
MAX_SIDE = 100_000  # px
MAX_SCALE = 100_000.0  # px per mm


class StoreError(UserError):
    """The store cannot be read or written; one line that says why and what to do."""

    def __init__(self, message: str, *, code: str = "store", **values: object):
        values = {
            name: value.args[0] if isinstance(value, StoreError) else value
            for name, value in values.items()
        }
        line = message if isinstance(message, Said) else Said(message, **values)
        super().__init__(line, code=code)
        self.message, self.values = line.message, line.values


class WrongKey(StoreError):
    """The passphrase does not open the store."""


class NotWiped(StoreError):
    """What was asked for is done, but sealed traces of what it removed are still in the store's
    log: another program reads the store. They go as soon as it ends.
    """


@dataclass(frozen=True)
class Person:
    """A person whose lesions are followed. `id` and `created` are empty before it is added."""

    id: str
    name: str  # or a code
    year_of_birth: int | None = None
    sex: str | None = None  # one of SEXES
    skin_type: int | None = None  # Fitzpatrick 1..6
    risk_factors: tuple[str, ...] = ()  # of RISK_FACTORS
    notes: str = ""
    created: str = ""  # ISO 8601, UTC


@dataclass(frozen=True)
class Lesion:
    """A place on a person's skin."""

    id: str
    person: str
    title: str
    view: str = "front"  # one of VIEWS, of the body map
    x: float = 0.5  # place on the map, 0..1 from its left
    y: float = 0.5  # and from its top
    notes: str = ""
    remind: str | None = None  # ISO date
    created: str = ""


@dataclass(frozen=True)
class Capture:
    """A picture of a lesion and what was found in it. The store fills in what follows `notes`."""

    id: str
    lesion: str
    taken: str  # ISO 8601, UTC; empty: now, when it is added
    analysis: Mapping  # as `analysis.schema.json` describes it, or an OtherAnalysis
    size: tuple[int, int]  # width, height, px
    px_per_mm: float | None = None
    notes: str = ""
    dating: str = BY_CLOCK  # of DATINGS
    clock: str = ""  # what the clock said of a CORRECTED one, else empty
    origin: str = ""  # the store that it was added to first
    sequence: int = 0  # it grows with each picture that is added there, whatever the clock says
    version: int = 1  # of the analysis' schema

    @property
    def readable(self) -> bool:
        """Whether its analysis can be read here."""
        return not isinstance(self.analysis, OtherAnalysis)

    @property
    def triage(self) -> str:
        """That of its analysis, or OTHER_VERSION."""
        try:
            return self.analysis["triage"] if self.readable else OTHER_VERSION
        except (KeyError, TypeError):
            raise StoreError(RECORD, code="record") from None

    @property
    def dated(self) -> bool:
        """Whether `taken` holds."""
        return self.dating != CLOCK_WRONG


@dataclass(frozen=True)
class Entry:
    """One line of the audit trail.

    What leaves a trace outside or destroys has two: 'begin X' before, and 'done X' or 'failed X'
    after it. One that was begun and has no end was cut off.
    """

    number: int  # from 1, without a gap
    when: str  # ISO 8601, UTC
    what: str  # as 'add capture'
    which: str  # id of what it was done to
    ends: int = 0  # number of the entry that began it


@dataclass(frozen=True)
class Brief:
    """Of a capture what the order and the summary of a lesion need; see Capture."""

    id: str
    taken: str
    triage: str
    dating: str
    origin: str
    sequence: int
    version: int

    @property
    def dated(self) -> bool:
        return self.dating != CLOCK_WRONG

    @classmethod
    def of(cls, capture: Capture) -> Brief:
        return cls(*(getattr(capture, field.name) for field in fields(cls)))


@dataclass(frozen=True)
class Summary:
    """What the pictures of a lesion say, for lists."""

    pictures: int = 0
    # Of the newest that could be judged; 'retake': none could; OTHER_VERSION: the newest cannot
    # be read here; None: no picture.
    triage: str | None = None
    taken: str = ""  # ISO 8601, UTC, of the newest; empty without one
    dated: bool = True  # whether that holds
    version: int = 1  # of the analysis that gave the triage

    @classmethod
    def of(cls, captures: Iterable[Brief]) -> Summary:
        """Of a lesion's captures, in whatever order."""
        captures = in_order(captures)
        if not captures:
            return cls()
        judged = [capture for capture in captures if capture.triage != "retake"]
        said, newest = (judged or captures)[-1], captures[-1]
        return cls(len(captures), said.triage, newest.taken, newest.dated, said.version)


Dated = TypeVar("Dated", Capture, Brief)


class OtherAnalysis(Mapping):
    """An analysis whose schema this version of dermedge does not know. Whoever reads from it gets
    a StoreError; it is kept and exported as it is.
    """

    def __init__(self, stored: dict, version: int):
        self.stored, self.version = stored, version

    def _refuse(self, *_args):
        raise StoreError(
            "this analysis is of version {version}, which this dermedge cannot read: update "
            "dermedge",
            code="analysis-version",
            version=self.version,
        )

    __getitem__ = __iter__ = __len__ = __contains__ = get = _refuse

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OtherAnalysis) and vars(other) == vars(self)

    __hash__ = None


def analysis_version() -> int:
    """Of the analyses that this dermedge makes."""
    return _schema()["version"]


@cache
def _schema() -> dict:
    path = Path(dermedge.__file__).with_name("analysis.schema.json")
    return json.loads(path.read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------- as JSON


def unpacked(kind: type, id: str, parent: str | None, record: object):
    """A record as it was sealed, as a Person, Lesion or Capture; raises StoreError."""
    names = [field.name for field in fields(kind)]
    above = names[1] if parent is not None else ""
    if not isinstance(record, dict) or not set(record) <= set(names) - {"id", above}:
        raise StoreError(RECORD, code="record")
    for name in ("risk_factors", "size"):
        if name in record:
            if not isinstance(record[name], list):
                raise StoreError(RECORD, code="record")
            record[name] = tuple(record[name])
    if kind is Capture:
        version = record.get("version", 1)
        if version != analysis_version():
            record["analysis"] = OtherAnalysis(record.get("analysis"), version)
    try:
        return kind(id, *([parent] if above else []), **record)
    except TypeError:
        raise StoreError("a record lacks a part", code="record") from None


def packed(item: Person | Lesion | Capture) -> dict:
    """As it is sealed: without its id and that of the row above it."""
    analysis = getattr(item, "analysis", None)
    if analysis is None:
        record = asdict(item)
    else:
        record = {field.name: getattr(item, field.name) for field in fields(item)}
        record["analysis"] = analysis.stored if isinstance(analysis, OtherAnalysis) else analysis
    del record["id"]
    for above in ("person", "lesion"):
        record.pop(above, None)
    return record


# ---------------------------------------------------------------------------- what makes sense


def validate(item: Person | Lesion | Capture, now: str, seen: str = "") -> None:
    """Raises StoreError with the first thing that is wrong.

    Parameters
    ----------
    now : what the clock of this device says, ISO 8601.
    seen : the latest time at which it was right, empty where that is not known.
    """
    faults = {Person: _of_person, Lesion: _of_lesion, Capture: _of_capture}[type(item)]
    for words in faults(item, now, seen):
        raise words if isinstance(words, StoreError) else StoreError(words, code="invalid")


def birth_years(now: str, seen: str = "") -> tuple[range, bool]:
    """Years of birth that can be, and whether the clock may be why another is not among them."""
    wrong = bool(clock.fault(now, seen))
    year = int((max(seen, clock.EARLIEST) if wrong else now)[:4])
    return range(year - OLDEST, year + 1), wrong


CLOCK_FIRST = N_("the clock of this device is wrong: set it, or leave the year of birth empty")


def _of_person(person: Person, now: str, seen: str) -> Iterator[str]:
    yield from _text(person.name, NAME, N_("a person needs a name or a code"))
    yield from _text(person.notes, NOTES)
    year = person.year_of_birth
    if year is not None:
        known, wrong = birth_years(now, seen)
        if type(year) is not int or year not in known:
            soon = type(year) is int and known.stop <= year < int(clock.LATEST[:4])
            yield CLOCK_FIRST if wrong and soon else N_("no such birth year")
    if person.sex not in (None, *SEXES):
        yield Said(N_("sex is one of {choices}"), choices=", ".join(SEXES))
    if person.skin_type is not None and not (
        type(person.skin_type) is int and 1 <= person.skin_type <= 6
    ):
        yield N_("skin types are 1 to 6")
    risks = person.risk_factors
    if not isinstance(risks, tuple) or not all(isinstance(risk, str) for risk in risks) or (
        not set(risks) <= set(RISK_FACTORS) or len(set(risks)) < len(risks)
    ):  # fmt: skip
        yield N_("an unknown risk factor")
    yield from _stamp(person.created)


def _of_lesion(lesion: Lesion, _now: str, _seen: str) -> Iterator[str]:
    yield from _text(lesion.title, NAME, N_("a lesion needs a title"))
    yield from _text(lesion.notes, NOTES)
    if lesion.view not in VIEWS:
        yield Said(N_("a view is one of {choices}"), choices=", ".join(VIEWS))
    if not all(_is_number(side) and 0 <= side <= 1 for side in (lesion.x, lesion.y)):
        yield N_("the place lies off the body map")
    if lesion.remind is not None and not is_date(lesion.remind):
        yield N_("a reminder needs a date")
    yield from _stamp(lesion.created)


def _of_capture(capture: Capture, _now: str, _seen: str) -> Iterator[str | StoreError]:
    size = capture.size
    if not isinstance(size, tuple) or len(size) != 2 or not all(
        type(side) is int and 1 <= side <= MAX_SIDE for side in size
    ):  # fmt: skip
        yield N_("a picture has at least one px")
    scale = capture.px_per_mm
    if scale is not None and not (_is_number(scale) and 0 < scale <= MAX_SCALE):
        yield N_("a scale is above zero")
    yield from _text(capture.notes, NOTES)
    if not capture.taken:
        yield N_("a picture needs the time at which it was taken")
    for stamp in (capture.taken, capture.clock):
        yield from _stamp(stamp)
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
    elif fault := analysis_fault(capture.analysis, size):
        yield StoreError("its analysis is none: {fault}", code="analysis", fault=fault)


def analysis_fault(analysis: object, size: tuple[int, int]) -> str:
    """What in an analysis does not fit `analysis.schema.json`, or its picture; empty if all does.

    Parts that the schema does not name are let through: a later version may have added them.
    """
    try:
        fault = _misfit(analysis, _schema()["$defs"]["analysis"], "")
    except RecursionError:
        return "nested too deeply"
    if fault:
        return fault
    if tuple(analysis["size"]) != tuple(size):
        return "size: of another picture"
    unknown = [name for name in (*analysis["probabilities"], analysis["likely"])
               if name not in CLASSES]  # fmt: skip
    if unknown:
        return "probabilities: an unknown class"
    lesion = analysis["lesion"]
    if lesion["found"] and not (lesion["box"] and lesion["polygons"] and lesion["area_px"] > 0):
        return "lesion: found, but without an outline"
    return ""


# Of JSON Schema (draft 2020-12) what `analysis.schema.json` uses; the package jsonschema is not
# on the device.
_TYPES = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: _is_number(value),
    "integer": lambda value: type(value) is int and _is_number(value),
    "null": lambda value: value is None,
}
_LEFT_ALONE = frozenset({"description", "additionalProperties", "prefixItems", "items"})


def _misfit(value: object, schema: dict, path: str) -> str:
    """Where and how a value does not fit; empty if it does."""
    if "$ref" in schema:
        schema = _schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    for word, wanted in schema.items():
        if word not in _LEFT_ALONE and not _RULES[word](value, wanted):
            return f"{path or 'analysis'}: {word} {json.dumps(wanted)[:60]}"
    if isinstance(value, dict):
        named, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, part in value.items():
            rule = named.get(name, others)
            where = f"{path}.{name}".lstrip(".")[:80]
            if isinstance(rule, dict) and (fault := _misfit(part, rule, where)):
                return fault
    elif isinstance(value, list):
        first, others = schema.get("prefixItems", []), schema.get("items")
        if others == {"type": "number"} and not first and all(map(_is_number, value)):
            return ""  # outlines are long
        for at, part in enumerate(value):
            rule = first[at] if at < len(first) else others
            if rule is not None and (fault := _misfit(part, rule, f"{path}[{at}]")):
                return fault
    return ""


def _is_type(value: object, wanted: str | list[str]) -> bool:
    return any(_TYPES[name](value) for name in ([wanted] if isinstance(wanted, str) else wanted))


def _of(kind: type, rule):
    """A rule that only binds values of that kind."""
    return lambda value, wanted: (
        not isinstance(value, kind) or isinstance(value, bool) or rule(value, wanted)
    )


_RULES = {
    "type": _is_type,
    "enum": lambda value, wanted: any(value == one and type(value) is type(one) for one in wanted),
    "required": _of(dict, lambda value, wanted: all(name in value for name in wanted)),
    "properties": lambda value, wanted: True,
    "propertyNames": _of(
        dict, lambda value, wanted: all(not _misfit(name, wanted, "") for name in value)
    ),
    "minProperties": _of(dict, lambda value, wanted: len(value) >= wanted),
    "minItems": _of(list, lambda value, wanted: len(value) >= wanted),
    "maxItems": _of(list, lambda value, wanted: len(value) <= wanted),
    "uniqueItems": _of(
        list, lambda value, wanted: not wanted or len({*map(repr, value)}) == len(value)
    ),
    "minimum": _of((int, float), lambda value, wanted: value >= wanted),
    "maximum": _of((int, float), lambda value, wanted: value <= wanted),
    "exclusiveMinimum": _of((int, float), lambda value, wanted: value > wanted),
    "pattern": _of(str, lambda value, wanted: bool(re.search(wanted, value))),
}


def _text(text: object, most: int, needed: str = "") -> Iterator[str]:
    if not isinstance(text, str):
        yield N_("a text is missing")
        return
    if needed and not text.strip():
        yield needed
    if len(text) > most:
        yield Said.plural(
            "a text is longer than {count} character",
            "a text is longer than {count} characters",
            most,
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        yield N_("a text holds half of a character")


def _stamp(stamp: object) -> Iterator[str]:
    if stamp != "" and seconds(stamp) == -math.inf:
        yield N_("a time is none")


def seconds(stamp: object) -> float:
    """Since 1970, of ISO 8601 in UTC; minus infinity where it is none."""
    try:
        return clock.moment(stamp).timestamp() if stamp.endswith("Z") else -math.inf
    except (ValueError, TypeError, AttributeError, OverflowError):
        return -math.inf


def _is_number(value: object) -> bool:
    if type(value) is int:
        return -(2**63) < value < 2**63
    return isinstance(value, float) and math.isfinite(value)


def is_date(text: object) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except (ValueError, TypeError):
        return False


# ---------------------------------------------------------------------------- order


def in_order(captures: Iterable[Dated]) -> list[Dated]:
    """As they were taken, the oldest first.

    Of one store the pictures stay in the order in which they were added there, whatever its clock
    said. Those of several, and those whose date was given, are sorted in between by their dates.
    A picture whose date does not hold stands right after the one before it.
    """
    chains, placed = defaultdict(list), []
    for capture in captures:
        if capture.dating == GIVEN or not capture.origin:
            placed.append((seconds(capture.taken), capture))
        else:
            chains[capture.origin].append(capture)
    for chain in chains.values():
        chain.sort(key=lambda capture: capture.sequence)
        at, last = [], -math.inf
        for capture in chain:
            if capture.dated:
                last = max(last, seconds(capture.taken))
            at.append(last)
        # What comes before the first date that holds stands right before it.
        first = next((moment for moment in at if moment > -math.inf), -math.inf)
        placed += [(max(moment, first), one) for moment, one in zip(at, chain, strict=True)]
    placed.sort(key=lambda pair: (pair[0], pair[1].origin, pair[1].sequence))
    return [capture for _moment, capture in placed]
