"""What a store holds, as values, and in which order pictures were taken."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from dermedge import UserError
from edge_app.i18n.language import N_, Message
from edge_app.store import clock, schema

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
UNKNOWN = "unknown"  # a file that does not say it: `taken` is when that was added
# PS3.3 C.8.12.13, Immersion Media (0016,1004).
IMMERSIONS = ("ULTRASOUND_GEL", "ALCOHOL", "WATER", "MINERAL_OIL", "PLASTIC_CAP")
CAPTURE_KINDS = ("", "overview", "close_up", "dermoscopic")  # the first: nobody said
DATINGS = (BY_CLOCK, GIVEN, CLOCK_WRONG, CORRECTED, UNKNOWN)
RECORD = N_("a record holds what this dermedge does not know")
OTHER_VERSION = "other version"  # stands for the triage of an analysis that cannot be read here


class StoreError(UserError):
    """The store cannot be read or written; one line that says why and what to do."""

    def __init__(self, message: str, *, code: str = "store", **values: object):
        values = {
            name: value.args[0] if isinstance(value, StoreError) else value
            for name, value in values.items()
        }
        line = message if isinstance(message, Message) else Message(message, **values)
        super().__init__(line, code=code)
        self.message, self.values = line.message, line.values


class WrongKey(StoreError):
    """The passphrase does not open the store."""


class NotWiped(StoreError):
    """What was asked for is done, but sealed traces of what it removed are still in the store's
    log: another program reads the store. They go as soon as it ends.
    """

    elsewhere: tuple = ()  # of what was deleted, what is with a receiver


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
    # What receivers call this person: a system (a URI) and a number of it.
    identifiers: tuple[tuple[str, str], ...] = ()


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
    """A picture of a lesion and what was found in it.

    The store fills in what stands between `notes` and `kind`; it is given BY_CLOCK or UNKNOWN.
    """

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
    kind: str = ""  # of CAPTURE_KINDS

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
        return self.dating not in (CLOCK_WRONG, UNKNOWN)


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
        return self.dating not in (CLOCK_WRONG, UNKNOWN)

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

    @classmethod
    def packed(cls, captures: Sequence[Brief]) -> list:
        """Of a lesion's captures as it is sealed, with them."""
        return [list(vars(cls.of(captures)).values()), [list(vars(it).values()) for it in captures]]


Dated = TypeVar("Dated", Capture, Brief)


@dataclass(frozen=True)
class DermoscopeSettings:
    """What the dermoscope of this device is; None and empty: nobody said."""

    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    contact: bool | None = None
    polarized: bool | None = None
    immersion: str | None = None  # of IMMERSIONS; only with contact
    magnification: float | None = None
    colour_temperature: int | None = None  # K


class OtherAnalysis(Mapping):
    """An analysis whose schema this version of dermedge does not know. Whoever reads from it gets
    a StoreError; it is kept and exported as it is.
    """

    def __init__(self, stored: Any, version: int):
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

    __hash__ = None  # type: ignore[assignment]  # as Python does where only __eq__ is given


def seconds(stamp: Any) -> float:
    """Since 1970, of ISO 8601 in UTC; minus infinity where it is none."""
    try:
        return clock.moment(stamp).timestamp() if stamp.endswith("Z") else -math.inf
    except (ValueError, TypeError, AttributeError, OverflowError):
        return -math.inf


# ---------------------------------------------------------------------------- as JSON

TUPLES = frozenset({"risk_factors", "size", "identifiers", "captures", "references"})


def unpacked(kind: type, id: str, parent: str | None, record: object):
    """A record as it was sealed, as a value of `kind`; raises StoreError."""
    names = [field.name for field in fields(kind)]
    above = names[1] if parent is not None else ""
    if not isinstance(record, dict) or not set(record) <= set(names) - {"id", above}:
        raise StoreError(RECORD, code="record")
    for name in TUPLES & set(record):
        if not isinstance(record[name], list):
            raise StoreError(RECORD, code="record")
        record[name] = tuple(tuple(it) if isinstance(it, list) else it for it in record[name])
    if kind is Capture:
        version = record.get("version", 1)
        if version != schema.analysis_version():
            record["analysis"] = OtherAnalysis(record.get("analysis"), version)
    try:
        return kind(id, *([parent] if above else []), **record)
    except TypeError:
        raise StoreError("a record lacks a part", code="record") from None


def packed(item) -> dict:
    """As it is sealed: without its id and that of the row above it."""
    analysis = getattr(item, "analysis", None)
    if analysis is None:
        record = asdict(item)
    else:
        record = {field.name: getattr(item, field.name) for field in fields(item)}
        record["analysis"] = analysis.stored if isinstance(analysis, OtherAnalysis) else analysis
    del record["id"]
    for above in ("person", "lesion", "referral"):
        record.pop(above, None)
    return record


# ---------------------------------------------------------------------------- order


def in_order(captures: Iterable[Dated]) -> list[Dated]:
    """As they were taken, the oldest first.

    Of one store the pictures stay in the order in which they were added there, whatever its clock
    said. Those of several, and those whose date was given, are sorted in between by their dates.
    A picture that the clock dated wrongly stands right after the one before it.
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
            if capture.dating != CLOCK_WRONG:  # an UNKNOWN one was taken before it was added
                last = max(last, seconds(capture.taken))
            at.append(last)
        # What comes before the first date that holds stands right before it.
        first = next((moment for moment in at if moment > -math.inf), -math.inf)
        placed += [(max(moment, first), one) for moment, one in zip(at, chain, strict=True)]
    placed.sort(key=lambda pair: (pair[0], pair[1].origin, pair[1].sequence))
    return [capture for _moment, capture in placed]
