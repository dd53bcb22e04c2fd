"""Groups of people that figures and training are looked at by: one notion for both.

A scale is one column of a `Record`. MILK10k's skin tone (a look at a picture, 0 very dark to 5 very
light) and Fitzpatrick's skin type (what the sun does to skin, I to VI) are two scales: neither can
be worked out from the other, and they are never put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dermedge.data.records import Record

NOT_STATED = "not stated"
_TYPES = {1: "I-II", 2: "I-II", 3: "III-IV", 4: "III-IV", 5: "V-VI", 6: "V-VI"}
_AGES = ((40, "under 40"), (60, "40-59"), (80, "60-79"))
_OLDEST = "80 and over"


@dataclass(frozen=True)
class Scale:
    """One way to group people; `groups` are in order, of skin the light ones first."""

    field: str  # of a Record
    title: str  # as in "by skin type (Fitzpatrick)"
    name: str  # before a group: "skin type I-II"
    groups: tuple[str, ...]
    _read: Callable[[Record], str | None]

    def group_of(self, record: Record) -> str | None:
        """The group of a record; None: not stated."""
        return self._read(record)


def _skin_type(record: Record) -> str | None:
    return None if record.skin_type is None else _TYPES[record.skin_type]


def _skin_tone(record: Record) -> str | None:
    return None if record.skin_tone is None else str(record.skin_tone)


def _age(record: Record) -> str | None:
    if record.age is None:
        return None
    return next((name for end, name in _AGES if record.age < end), _OLDEST)


def _sex(record: Record) -> str | None:
    return record.sex


SCALES = {
    scale.field: scale
    for scale in (
        Scale(
            "skin_type",
            "skin type (Fitzpatrick)",
            "skin type",
            tuple(dict.fromkeys(_TYPES.values())),
            _skin_type,
        ),
        Scale(
            "skin_tone",
            "skin tone (MILK10k, 5 very light to 0 very dark)",
            "skin tone",
            ("5", "4", "3", "2", "1", "0"),
            _skin_tone,
        ),
        Scale("age", "age in years", "age", (*(name for _, name in _AGES), _OLDEST), _age),
        Scale("sex", "sex", "sex", ("female", "male"), _sex),
    )
}


def members(records: Sequence[Record], scale: Scale) -> dict[str, list[int]]:
    """Places in `records` by group, in the scale's order, NOT_STATED last; {} where all are so.

    A group without a record is left out.
    """
    found: dict[str, list[int]] = {name: [] for name in (*scale.groups, NOT_STATED)}
    for place, record in enumerate(records):
        found[scale.group_of(record) or NOT_STATED].append(place)
    if len(found[NOT_STATED]) == len(records):
        return {}
    return {name: places for name, places in found.items() if places}
