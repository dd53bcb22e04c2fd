"""What the screens about people show and take: the spots of a person, and a form that is filled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date

from edge_app.i18n.language import N_
from edge_app.store import clock
from edge_app.store.damage import LeaveOut, stop
from edge_app.store.records import OTHER_VERSION
from edge_app.store.store import Lesion, Person, Store, Summary
from edge_app.store.validation import NAME

# The graver, the later. What cannot be read here may be grave.
TRIAGE = ("retake", "low", OTHER_VERSION, "see a doctor", "urgent")
OLDEST = 120  # years


@dataclass(frozen=True)
class Spot:
    """A lesion and what its pictures say."""

    lesion: Lesion
    pictures: int
    # Of the newest that could be judged; 'retake': none could; OTHER_VERSION: it cannot be read by
    # this dermedge; None: no picture.
    triage: str | None
    taken: str  # ISO 8601, UTC, of the newest; empty without one
    dated: bool = True  # whether that holds: the clock was right


@dataclass(frozen=True)
class Known:
    """A person as the list shows them."""

    person: Person
    spots: int
    triage: str | None  # the gravest of the spots', as `Spot.triage`


def spots(store: Store, person_id: str, leave_out: LeaveOut = stop) -> list[Spot]:
    """A person's spots, in the order in which they were added; raises StoreError."""
    lesions = store.lesions(person_id, leave_out)
    summaries = store.summaries([person_id])[person_id]
    return [_spot(lesion, summaries.get(lesion.id, Summary())) for lesion in lesions]


def known(store: Store, people: Iterable[Person]) -> list[Known]:
    """What the list shows of these people; raises StoreError."""
    people = list(people)
    summaries = store.summaries([person.id for person in people])
    found = []
    for person in people:
        theirs = summaries[person.id]
        triages = [summary.triage for summary in theirs.values() if summary.triage]
        found.append(Known(person, len(theirs), max(triages, key=TRIAGE.index, default=None)))
    return found


def _spot(lesion: Lesion, summary: Summary) -> Spot:
    return Spot(lesion, summary.pictures, summary.triage, summary.taken, summary.dated)


def age(person: Person, day: date, by_clock: bool = True) -> int | None:
    """In years, to about one; None where it is not known, or the clock of this device is wrong.

    `by_clock` : whether that clock gave the day.
    """
    if person.year_of_birth is None or (by_clock and not clock.plausible(day)):
        return None
    years = day.year - person.year_of_birth
    return years if 0 <= years <= OLDEST + 10 else None


FOUR_DIGITS = N_("Type a year of birth with four digits, or leave it empty.")
CLOCK_FIRST = N_("The clock of this device is wrong: set it, or leave the year empty.")


@dataclass
class Draft:
    """A person's form while it is filled; `before` is what the store holds, or an empty one."""

    before: Person = field(default_factory=lambda: Person("", ""))
    name: str = ""
    year: str = ""  # of birth, as it is typed
    sex: str | None = None
    skin_type: int | None = None
    risk_factors: tuple[str, ...] = ()
    notes: str = ""

    @classmethod
    def of(cls, person: Person) -> Draft:
        year = str(person.year_of_birth or "")
        return cls(
            person, person.name, year, person.sex, person.skin_type, person.risk_factors,
            person.notes,
        )  # fmt: skip

    @property
    def changed(self) -> bool:
        """Whether something would be lost by leaving it."""
        return self != Draft.of(self.before)

    def faults(self, today: date) -> dict[str, str]:
        """What is wrong, by the name of the field: one line each, in English."""
        found = {}
        if not self.name.strip():
            found["name"] = N_("Type a name or a code.")
        elif len(self.name.strip()) > NAME:
            found["name"] = N_("This name is too long.")
        if self.year.strip():
            # A clock that was set back must not make a person unborn.
            sure = clock.plausible(today)
            last = today.year if sure else int(clock.EARLIEST[:4])
            try:
                year = int(self.year)
            except ValueError:
                year = 0
            if not last - OLDEST <= year <= last:
                soon = not sure and last < year < int(clock.LATEST[:4])
                found["year"] = CLOCK_FIRST if soon else FOUR_DIGITS
        return found

    def person(self) -> Person:
        """What to save; ValueError where `faults` names some. What the form lacks stays."""
        return replace(
            self.before,
            name=self.name.strip(),
            year_of_birth=int(self.year) if self.year.strip() else None,
            sex=self.sex,
            skin_type=self.skin_type,
            risk_factors=self.risk_factors,
            notes=self.notes.strip(),
        )
