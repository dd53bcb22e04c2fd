"""The ISIC challenges of 2016 to 2020, as publisher, Dataverse and Kaggle hand them out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermedge.data.readers.gathering import Gathering, Reader, without_ending
from dermedge.data.readers.one_hot import ONE, ZERO, code_of
from dermedge.data.records import DataError, short
from dermedge.data.tables import Row, Table, columns_of
from dermedge.taxonomy import Diagnosis

_ISIC_ID = re.compile(r"isic_\d+(_downsampled)?$", re.IGNORECASE)
_FIRST_CELL = r"isic_\d+(_downsampled)?(\.jpe?g)?"
_IDS = ("image", "image_id", "image_name", "isic_id")
_ABOUT = (
    *("lesion_id", "patient_id", "sex", "age_approx", "age_approximate", "age", "localization"),
    *("anatom_site_general", "anatom_site_general_challenge"),
)


@dataclass(frozen=True)
class _Part:
    """The patterns of one official part: its picture folders, truth tables and metadata tables."""

    official: str
    folder: str
    truth: str = ""
    metadata: str = ""


# What a truth row says, as keywords of `Gathering.add`. DataError where the table cannot say it.
Understand = Callable[[Gathering, Table, Row], dict[str, Any]]


@dataclass(frozen=True)
class _Challenge:
    """`truth_columns`: what `understand` reads. `groups`: the table with lesions, in words, that
    the publisher hands out for the training part."""

    parts: tuple[_Part, ...]
    understand: Understand
    truth_columns: tuple[str, ...] = ()
    groups: str = ""


@dataclass(frozen=True)
class _Listed:
    table: Table
    row: Row


def _gather(g: Gathering, challenge: _Challenge) -> None:
    """Read a challenge: what `understand` makes of a picture's truth row, plus its metadata."""
    seen_folder = False
    folders = [part.folder for part in challenge.parts]
    for part in challenge.parts:
        pictures = {
            name: path
            for name, path in g.pictures(part.folder, folders).items()
            if _ISIC_ID.match(name)
        }
        seen_folder |= bool(pictures)
        truth = _by_image(g, part.truth, challenge.truth_columns)
        metadata = _by_image(g, part.metadata, ())
        if not pictures:
            for what, rows in (("truth", truth), ("metadata", metadata)):
                if rows:
                    g.problems.append(
                        f"{part.official}: {len(rows)} pictures listed ({what}), none is here"
                    )
            continue
        _note_gaps(g, part, challenge, pictures, truth, metadata)
        for name in sorted({*pictures, *truth}):
            listed = truth.get(name, [])
            about: dict[str, str] = {}
            for one in (*metadata.get(name, []), *listed):
                about.update({k: v for k, v in one.row.cells.items() if v})
            values: dict[str, Any] = {}
            for one in listed:
                more = challenge.understand(g, one.table, one.row)
                if values and more and values != more:
                    first = listed[0]
                    g.errors.append(
                        f"{one.table.where(one.row)}: {short(name)} has another diagnosis than in "
                        f"{first.table.where(first.row)}"
                    )
                values = values or more
            path = pictures.get(name)
            g.add(
                name,
                path,
                where=f"{name} ({listed[0].table.where(listed[0].row)})" if listed else name,
                mask=g.mask(f"{name}_segmentation", near=path.parent.parent) if path else None,
                lesion=about.get("lesion_id"),
                patient=about.get("patient_id"),
                age=about.get("age_approx") or about.get("age_approximate") or about.get("age"),
                sex=about.get("sex"),
                site=about.get("anatom_site_general")
                or about.get("anatom_site_general_challenge")
                or about.get("localization"),
                modality="dermoscopic",
                official=part.official,
                **values,
            )
    if not seen_folder:
        raise g.unfit("no folder with its pictures")


def _note_gaps(
    g: Gathering,
    part: _Part,
    challenge: _Challenge,
    pictures: dict[str, Path],
    truth: dict[str, list[_Listed]],
    metadata: dict[str, list[_Listed]],
) -> None:
    unlisted = len(pictures.keys() - truth.keys())
    if part.truth and unlisted:
        why = "without a row in the truth table" if truth else "without a truth table"
        g.notes.append(f"pictures of the {part.official} part {why}, not labelled: {unlisted}")
    elsewhere = len(metadata.keys() - pictures.keys())
    if elsewhere:
        g.notes.append(
            f"rows of the {part.official} part's metadata whose picture is not here: {elsewhere}"
        )
    if part.official == "train" and challenge.groups:
        grouped = {
            name
            for rows in (metadata, truth)
            for name, listed in rows.items()
            if any({"lesion_id", "patient_id"} & one.row.cells.keys() for one in listed)
        }
        alone = len(pictures.keys() - grouped)
        if alone:
            g.ungrouped = (
                f"{challenge.groups} is missing, or lacks {alone} of {len(pictures)} pictures: "
                "which of them show one lesion is not known"
            )


def _by_image(g: Gathering, pattern: str, columns: tuple[str, ...]) -> dict[str, list[_Listed]]:
    """Rows of all tables that match, by picture. A picture listed twice in one table is an error
    where the rows differ."""
    rows: dict[str, list[_Listed]] = {}
    for path in g.tables(pattern) if pattern else ():
        # Other data sets below the same folder have a train.csv, too.
        if not path.name.lower().startswith("is") and not {*_IDS} & columns_of(path):
            continue
        table = g.read_table(
            path, (*_IDS, *_ABOUT, *columns), header=("image", "class"), first_cell=_FIRST_CELL
        )
        key = next((column for column in _IDS if column in table.columns), None)
        if key is None:
            raise DataError(
                "{path}: no column 'image', 'image_id' or 'image_name'; it has: {columns}",
                code="table_column_missing",
                path=path,
                columns=short(", ".join(table.columns), 300),
            )
        seen: dict[str, Row] = {}
        for row in table.rows:
            name = without_ending(row.cells[key])
            if not name:
                raise DataError(
                    "{where}: the name of the picture is empty",
                    code="table_name_empty",
                    where=table.where(row),
                )
            first = seen.setdefault(name, row)
            if first is row:
                rows.setdefault(name, []).append(_Listed(table, row))
            elif first.cells == row.cells:
                g.problems.append(f"{table.where(row)}: {short(name)} is listed more than once")
            else:
                g.errors.append(
                    f"{table.where(row)}: {short(name)} is listed more than once (first: line "
                    f"{first.line}), and the rows differ"
                )
    return rows


def _no_label(g: Gathering, table: Table, row: Row) -> dict[str, Any]:
    return {}


def _one_hot(codes: tuple[str, ...], also: dict[str, str] | None = None) -> Understand:
    """The column that holds the 1, or HAM10000's column dx; `also`: other names of a column."""

    def understand(g: Gathering, table: Table, row: Row) -> dict[str, Any]:
        if "dx" in table.columns:
            return {"diagnosis": row.cells["dx"]}
        named = [
            next((c for c in (code, (also or {}).get(code)) if c and c.lower() in row.cells), code)
            for code in codes
        ]
        absent = [code for code in named if code.lower() not in row.cells and code != "UNK"]
        if absent:
            raise DataError(
                "{path}: no column for the class {missing}; it has: {columns}; a table with the "
                "columns {wanted} is expected",
                code="table_classes_missing",
                path=table.path,
                missing=", ".join(absent),
                columns=short(", ".join(table.columns), 300),
                wanted=", ".join(codes),
            )
        code = code_of(g, table, row, named)
        if code is None:
            return {}
        if code == "UNK":
            return {"diagnosis": None, "reading": Diagnosis("other", "other")}
        return {"diagnosis": code}

    return understand


def _understand_2016(g: Gathering, table: Table, row: Row) -> dict[str, Any]:
    table.need("class")
    # "malignant" means melanoma here; "benign" is not all nevi, so it names no class.
    cell = row.cells["class"].lower()
    if cell in ("malignant", *ONE):
        return {"diagnosis": "malignant", "reading": Diagnosis("class", "mel", True)}
    if cell not in ("benign", *ZERO):
        g.errors.append(
            f"{table.where(row)}: '{short(cell)}' is neither benign nor malignant (0 or 1)"
        )
    return {"malignant": False}


def _understand_2017(g: Gathering, table: Table, row: Row) -> dict[str, Any]:
    columns = ("melanoma", "seborrheic_keratosis")
    table.need(*columns)
    code = code_of(g, table, row, columns, otherwise="nevus")
    return {"diagnosis": code.replace("_", " ")} if code else {}


def _understand_2020(g: Gathering, table: Table, row: Row) -> dict[str, Any]:
    if not {"benign_malignant", "target"} & {*table.columns}:
        table.need("benign_malignant")
    flag, target = row.cells.get("benign_malignant", ""), row.cells.get("target", "")
    if target and flag and (target in ONE) != (flag.lower() == "malignant"):
        g.errors.append(f"{table.where(row)}: target {short(target)} contradicts '{short(flag)}'")
    return {"diagnosis": row.cells.get("diagnosis"), "malignant": flag or target}


_CODES_2018 = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
_CODES_2019 = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
_THREE = (("train", "training"), ("val", "validation"), ("test", "test"))


def _columns(*codes: str) -> tuple[str, ...]:
    return ("dx", *(code.lower() for code in codes))


_2016 = _Challenge(
    tuple(
        _Part(
            official,
            rf"isbi2016_isic_part(1|2|2b|3|3b)_{name}_data",
            rf"isbi2016_isic_part3b?_{name}_groundtruth\.csv",
        )
        for official, name in (("train", "training"), ("test", "test"))
    ),
    _understand_2016,
    ("class",),
)
_2017 = _Challenge(
    tuple(
        _Part(
            official,
            rf"isic-2017_{name}_data",
            rf"isic-2017_{name}_part3_groundtruth\.csv",
            rf"isic-2017_{name}_data_metadata\.csv",
        )
        for official, name in (("train", "training"), ("val", "validation"), ("test", "test(_v2)?"))
    ),
    _understand_2017,
    ("melanoma", "seborrheic_keratosis"),
)
_2018_TASK1 = _Challenge(
    tuple(_Part(official, rf"isic2018_task1(-2)?_{name}_input") for official, name in _THREE),
    _no_label,
)
_2018_TASK3 = _Challenge(
    tuple(
        _Part(
            official,
            rf"isic2018_task3_{name}_(input|images)",
            rf"isic2018_task3_{name}_groundtruth(\.csv|\.tab)?",
            rf"isic2018_task3_{name}_lesiongroupings\.csv",
        )
        for official, name in _THREE
    ),
    _one_hot(_CODES_2018),
    _columns(*_CODES_2018),
    "ISIC2018_Task3_Training_LesionGroupings.csv",
)
_2019 = _Challenge(
    tuple(
        _Part(
            official,
            rf"isic_2019_{name}_input",
            rf"isic_2019_{name}_groundtruth\.csv",
            rf"isic_2019_{name}_metadata\.csv",
        )
        for official, name in (("train", "training"), ("test", "test"))
    ),
    _one_hot(_CODES_2019, {"AK": "AKIEC"}),
    _columns(*_CODES_2019, "AKIEC"),
    "ISIC_2019_Training_Metadata.csv",
)
_2020 = _Challenge(
    # Left: the names of the challenge's own download; right: those on Kaggle.
    (
        _Part(
            "train",
            r"isic_2020_training_(jpeg|input|dicom)|train",
            r"isic_2020_training_groundtruth(_v2)?\.csv|train\.csv",
        ),
        _Part(
            "test",
            r"isic_2020_test_(jpeg|input)|test",
            "",
            r"isic_2020_test_metadata\.csv|test\.csv",
        ),
    ),
    _understand_2020,
    ("diagnosis", "benign_malignant", "target"),
    "ISIC_2020_Training_GroundTruth.csv with its column patient_id",
)


def _gather_2020(g: Gathering) -> None:
    _gather(g, _2020)
    for path in g.tables(r"isic_2020_training_duplicates\.csv"):
        table = g.read_table(path, ("image_name_1", "image_name_2"))
        table.need("image_name_1", "image_name_2")
        pairs = [
            (without_ending(row.cells["image_name_1"]), without_ending(row.cells["image_name_2"]))
            for row in table.rows
        ]
        g.same += pairs
        absent = sum(not g.records.keys() >= set(pair) for pair in pairs)
        if absent:
            g.notes.append(f"pairs of duplicates of which a picture is not here: {absent}")


def _reader(name: str, title: str, licence: str, layout: str, challenge: _Challenge) -> Reader:
    return Reader(name, title, licence, layout, lambda g: _gather(g, challenge))


ISIC2016 = _reader(
    "isic2016",
    "ISIC 2016",
    "CC0 1.0",
    "ISBI2016_ISIC_Part1_Training_Data, ISBI2016_ISIC_Part1_Training_GroundTruth and "
    "ISBI2016_ISIC_Part3_Training_GroundTruth.csv",
    _2016,
)
ISIC2017 = _reader(
    "isic2017",
    "ISIC 2017",
    "CC0 1.0",
    "ISIC-2017_Training_Data, ISIC-2017_Training_Part1_GroundTruth and "
    "ISIC-2017_Training_Part3_GroundTruth.csv",
    _2017,
)
ISIC2018_TASK1 = _reader(
    "isic2018_task1",
    "ISIC 2018, task 1 (segmentation)",
    "CC BY-NC 4.0",
    "ISIC2018_Task1-2_Training_Input and ISIC2018_Task1_Training_GroundTruth",
    _2018_TASK1,
)
ISIC2018_TASK3 = _reader(
    "isic2018_task3",
    "ISIC 2018, task 3 (classification)",
    "CC BY-NC 4.0",
    "ISIC2018_Task3_Training_Input, ISIC2018_Task3_Training_GroundTruth.csv and "
    "ISIC2018_Task3_Training_LesionGroupings.csv",
    _2018_TASK3,
)
ISIC2019 = _reader(
    "isic2019",
    "ISIC 2019",
    "CC BY-NC 4.0",
    "ISIC_2019_Training_Input, ISIC_2019_Training_GroundTruth.csv and "
    "ISIC_2019_Training_Metadata.csv",
    _2019,
)
ISIC2020 = Reader(
    "isic2020",
    "ISIC 2020",
    "CC BY-NC 4.0",
    "ISIC_2020_Training_JPEG and ISIC_2020_Training_GroundTruth.csv, or train and train.csv",
    _gather_2020,
)
