"""What every data set is read into: one Record per picture, one DataSet per folder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dermedge import UserError

PARTS = ("train", "val", "test")
_NUMBER = re.compile(r"=?[\"']?([0-9]{1,30})(?:[.,]00?)?\"?")


class DataError(UserError):
    """A data set or split file that cannot be used; one line that says what was looked for."""

    def __init__(self, message: str, *, code: str = "", **values: object):
        # Cells and file names may hold anything.
        values = {k: v if isinstance(v, int) else printable(str(v)) for k, v in values.items()}
        super().__init__(printable(message), code=code, **values)


class RowErrors(DataError):
    """Rows that contradict themselves or each other; `lines` has one line for each of them."""

    def __init__(self, lines: tuple[str, ...]):
        self.lines = lines
        more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
        super().__init__(
            "{rows}",
            code="data_rows",
            count=len(lines),
            rows="; ".join(lines[:3]) + more,
        )


def printable(text: str) -> str:
    """Text from a table or file name on one line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def short(text: str, most: int = 80) -> str:
    """`printable`, and cut to `most` characters."""
    text = printable(text)
    return text if len(text) <= most else text[: most - 3] + "..."


def id_key(text: str) -> str:
    """What is the same for one lesion or patient: "p 01" and " P  01" are one.

    Hands differ in capitals and blanks, systems in how they put an "ü" together, and Arabic tables
    hold marks of direction that nobody sees. A number is one as "0012", ="0012", 12 and 12.0, as
    spreadsheets and scripts write it in tables that are put together later.
    """
    letters = unicodedata.normalize("NFC", text).lower()
    seen = " ".join("".join(c for c in letters if unicodedata.category(c) != "Cf").split())
    number = _NUMBER.fullmatch(seen)
    return str(int(number.group(1))) if number else seen


@dataclass(frozen=True)
class Record:
    """One picture and what its data set says about it. None: not stated.

    `id` is unique within the data set (it may contain '/'). `diagnosis` is the data set's own
    word or code, `label` one of `taxonomy.CLASSES`. `age` is in years, `sex` 'male' or 'female',
    `skin_type` Fitzpatrick 1 to 6, `skin_tone` MILK10k's 0 (very dark) to 5 (very light),
    `modality` 'dermoscopic' or 'clinical', `official` the publisher's part: 'train', 'val' or
    'test'. `second_mask` is what a second person drew of the lesion in `mask`. `outlines` holds
    what each of several people drew of it, to learn from, also where they agree too little for a
    `mask` to measure by. `source` is the set that a record of a joint one is of, see
    `dermedge.data.joint`.
    """

    id: str
    image: Path
    mask: Path | None = None
    second_mask: Path | None = None
    outlines: tuple[Path, ...] = ()
    diagnosis: str | None = None
    label: str | None = None
    malignant: bool | None = None
    lesion_id: str | None = None
    patient_id: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    skin_type: int | None = None
    skin_tone: int | None = None
    modality: str | None = None
    licence: str | None = None
    official: str | None = None
    source: str | None = None


def of_modality(records: Iterable[Record], modality: str | None) -> list[Record]:
    """Without those that are said to be of another kind; all where `modality` is '' or None."""
    return [one for one in records if not modality or one.modality in (modality, None)]


@dataclass(frozen=True)
class DataSet:
    """Records whose image file exists, and one line for everything that did not fit.

    `problems` are single rows and files that are amiss; `notes` count what is not used, or not
    understood: diagnoses that name no class, columns, files, pictures without a row. `ungrouped`
    says which table of the publisher is missing, so that pictures of one lesion cannot be known;
    '' where none is. `same` holds pairs of ids that the publisher states to show one lesion.
    `procedural` is True where the pictures are drawn by `dermedge.data.synthetic`; whatever is
    trained on them says so.
    """

    name: str
    root: Path
    records: tuple[Record, ...]
    problems: tuple[str, ...]
    licence: str
    procedural: bool = False
    same: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    ungrouped: str = ""
