"""What the screens about people show and take: the spots of a person, and a form that is filled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from edge_app.cases.store import Lesion, Person, Store
from edge_app.look.language import N_

# The graver, the later.
TRIAGE = ("retake", "low", "see a doctor", "urgent")
OLDEST = 120  # years


@dataclass(frozen=True)
class Spot:
    """A lesion and what its pictures say."""

    lesion: Lesion
    pictures: int
    triage: str | None  # of the newest that could be judged; 'retake': none could; None: no picture
    taken: str  # ISO 8601, UTC, of the newest; empty without one


@dataclass(frozen=True)
class Known:
    """A person as the list shows them."""

    person: Person
    spots: int
    triage: str | None  # the gravest of the spots', as `Spot.triage`


def spots(store: Store, person_id: str) -> list[Spot]:
    """A person's spots, in the order in which they were added; raises StoreError."""
    return [_spot(store, lesion) for lesion in store.lesions(person_id)]


def known(store: Store, people: Iterable[Person]) -> list[Known]:
    """What the list shows of these people; raises StoreError."""
    found = []
    for person in people:
        theirs = spots(store, person.id)
        said = [spot.triage for spot in theirs if spot.triage]
        found.append(Known(person, len(theirs), max(said, key=TRIAGE.index, default=None)))
    return found


def _spot(store: Store, lesion: Lesion) -> Spot:
    captures = store.captures(lesion.id)
    if not captures:
        return Spot(lesion, 0, None, "")
    said = [capture.analysis["triage"] for capture in captures]
    judged = [triage for triage in said if triage != "retake"]
    return Spot(lesion, len(captures), (judged or said)[-1], captures[-1].taken)


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
        if self.year.strip():
            try:
                right = today.year - OLDEST <= int(self.year) <= today.year
            except ValueError:
                right = False
            if not right:
                found["year"] = N_("Type a year of birth with four digits, or leave it empty.")
        return found

    def person(self) -> Person:
        """What to save; ValueError where `faults` names some."""
        return Person(
            id=self.before.id,
            name=self.name.strip(),
            year_of_birth=int(self.year) if self.year.strip() else None,
            sex=self.sex,
            skin_type=self.skin_type,
            risk_factors=self.risk_factors,
            notes=self.notes.strip(),
            created=self.before.created,
        )
