"""What is known of a person beside the picture, as numbers for a classifier that takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

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

_AGES = np.array([0.0, 20.0, 40.0, 60.0, 80.0])  # years
_WIDTHS = {"age": len(_AGES), "sex": len(SEXES), "site": len(REGIONS)}

# In this order: "palms/soles" before "hand", "lower extremity" before "extremity".
_WORDS = tuple(
    (re.compile(pattern), region)
    for pattern, region in (
        (r"\bpalm|\bsoles?\b|\bacral", "palms/soles"),
        (r"\boral\b|\bmouth|genital|mucos|perineal|vulva|penis|\banal\b", "oral/genital"),
        (
            r"head|\bneck|\bface|facial|scalp|\bears?\b|\bnose|\blips?\b|cheek|\bchin\b|\beye"
            r"|\btemple",
            "head/neck",
        ),
        (
            r"lower (extremity|limb)|thigh|\blegs?\b|\bfoot|\bfeet\b|knee|calf|ankle|\bheel|\btoe"
            r"|\bshin\b",
            "lower extremity",
        ),
        (
            r"upper (extremity|limb)|fore ?arm|\barms?\b|hand|finger|elbow|shoulder|wrist",
            "upper extremity",
        ),
        (r"trunk|torso|chest|back|abdom|buttock|flank|breast|belly", "trunk"),
    )
)


def region(site: str | None) -> str | None:
    """The body region, one of `REGIONS`, that a data set's own word for a site means, or None."""
    for pattern, name in _WORDS:
        if site and pattern.search(site.lower().replace("_", " ")):
            return name
    return None


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
