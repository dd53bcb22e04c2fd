"""What every data set is read into: one Record per picture, one DataSet per folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dermedge import UserError

PARTS = ("train", "val", "test")


class DataError(UserError):
    """A data set or split file that cannot be used; one line that says what was looked for."""


@dataclass(frozen=True)
class Record:
    """One picture and what its data set says about it. None: not stated.

    `id` is unique within the data set (it may contain '/'). `diagnosis` is the data set's own
    word or code, `label` one of `taxonomy.CLASSES`. `age` is in years, `sex` 'male' or 'female',
    `skin_type` Fitzpatrick 1 to 6, `official` the publisher's part: 'train', 'val' or 'test'.
    """

    id: str
    image: Path
    mask: Path | None = None
    diagnosis: str | None = None
    label: str | None = None
    malignant: bool | None = None
    lesion_id: str | None = None
    patient_id: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    skin_type: int | None = None
    licence: str | None = None
    official: str | None = None


@dataclass(frozen=True)
class DataSet:
    """Records whose image file exists, and one line for everything that did not fit.

    `same` holds pairs of ids that the publisher states to show one lesion. `procedural` is True
    where the pictures are drawn by `dermedge.procedural`; whatever is trained on them says so.
    """

    name: str
    root: Path
    records: tuple[Record, ...]
    problems: tuple[str, ...]
    licence: str
    procedural: bool = False
    same: tuple[tuple[str, str], ...] = ()
