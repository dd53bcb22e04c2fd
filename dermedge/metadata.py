"""What is known of a person beside the picture, as numbers for a classifier that takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from dermedge import UserError

FIELDS = ("age", "sex", "site")
SEXES = ("male", "female")
REGIONS = (
    "head/neck",
    "trunk",
    "upper extremity",
    "lower extremity",
    "palms/soles",
    "oral/genital",
)

OLDEST = 120  # years

_AGES = np.array([0.0, 20.0, 40.0, 60.0, 80.0])  # years
_WIDTHS = {"age": len(_AGES), "sex": len(SEXES), "site": len(REGIONS)}

# In this order: "palms/soles" before "hand", "lower extremity" before "extremity". Some words look
# like others': French "face interne du bras" is a side, German "Backe" a cheek, "vorhanden"
# that it is there.
_WORDS = tuple(
    (re.compile(pattern), region)
    for pattern, region in (
        (r"\bpalm|hand(?:palm|fl|teller|innen)|\bsoles?\b|\bacral", "palms/soles"),
        (r"\boral\b|\bmouth|(?<!con)genital|mucos|perineal|vulva|penis|\banal\b", "oral/genital"),
        (
            r"head|\bneck|\bface(?! (?:ant|post|int|ext|lat|m[eé]d|dors|sup|inf|vent|plant))"
            r"|facial|scalp|\bears?\b|\bnose|\blips?\b|cheek|\bchin\b|\beye|\btemple",
            "head/neck",
        ),
        (
            r"lower (extremity|limb)|thigh|\blegs?\b|\bfoot|\bfeet\b|knee|calf|ankle|\bheel|\btoe"
            r"|\bshin\b",
            "lower extremity",
        ),
        (
            r"upper (extremity|limb)|fore ?arm|\barms?\b|\bhand(?!y)|hand\b|finger|elbow"
            r"|shoulder|wrist",
            "upper extremity",
        ),
        (r"trunk|torso|chest|back(?!e)|abdom|buttock|flank|breast|belly", "trunk"),
    )
)

_WANTED = {
    "age": f"0 to {OLDEST} years",
    "sex": " or ".join(SEXES),
    "site": f"one of {', '.join(REGIONS)}, or a part of the body within them",
}


def region(site: str | None) -> str | None:
    """The body region, one of `REGIONS`, that a data set's own word for a site means, or None."""
    for pattern, name in _WORDS:
        if site and pattern.search(site.lower().replace("_", " ")):
            return name
    return None


def checked(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is known of a person, as `encode` takes it; None, NaN and "" say nothing.

    Raises
    ------
    UserError : a name that is none of `FIELDS`, an age that is not 0 to 120 years, a sex that is
        none of `SEXES`, a site that is no part of the body that is known.
    """
    known = {}
    for name, value in dict(metadata or {}).items():
        if name not in FIELDS:
            raise UserError(
                "metadata {name} is not known: there are {names}",
                code="metadata",
                name=repr(name),
                names=", ".join(FIELDS),
            )
        if value is None or (isinstance(value, str) and not value):
            continue
        if _is_number(value) and value != value:  # how tables say that a cell is empty
            continue
        if not _understood(name, value):
            raise UserError(
                "metadata {name} {value} is not understood: give {wanted}, or leave it out",
                code="metadata",
                name=name,
                value=repr(value),
                wanted=_WANTED[name],
            )
        known[name] = value
    return known


def understood(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The same without what is not understood: of data sets, whose readers have counted it, and
    of sites that people name as they like."""
    return {name: value for name, value in metadata.items() if _understood(name, value)}


def _understood(name: str, value: object) -> bool:
    if name == "age":
        return _is_number(value) and 0 <= value <= OLDEST
    if not isinstance(value, str):
        return False
    return value in SEXES if name == "sex" else region(value) is not None


def _is_number(value: object) -> TypeGuard[float]:
    numbers = (int, float, np.integer, np.floating)
    return isinstance(value, numbers) and not isinstance(value, bool)


def width(fields: Sequence[str]) -> int:
    """How many numbers `encode` gives for these fields."""
    return sum(_WIDTHS[field] for field in fields)


def encode(
    fields: Sequence[str],
    age: float | None = None,
    sex: str | None = None,
    site: str | None = None,
) -> np.ndarray:
    """Numbers for a classifier: float32 (width(fields),), 0 to 1.

    A value that is absent or unknown gives zeros, which add nothing to the classifier's scores.

    Parameters
    ----------
    fields : those of `FIELDS` that the classifier takes, in its order.
    age : years.
    sex : 'male' or 'female'.
    site : a body site in words; see `region`.
    """
    parts = {name: np.zeros(_WIDTHS[name], np.float32) for name in FIELDS}
    if age is not None and np.isfinite(age):
        # Hat functions: neighbouring ages share a weight, and no age is far from a number.
        parts["age"][:] = [np.interp(age, _AGES, row) for row in np.eye(len(_AGES))]
    if sex in SEXES:
        parts["sex"][SEXES.index(sex)] = 1
    if region(site):
        parts["site"][REGIONS.index(region(site))] = 1
    return np.concatenate([np.zeros(0, np.float32), *(parts[field] for field in fields)])
