"""Derm7pt, as its publisher hands it out."""

from __future__ import annotations

from dermedge.data.readers.gathering import Gathering, Reader
from dermedge.data.records import DataError, short
from dermedge.data.tables import Table

_COLUMNS = ("case_num", "diagnosis", "clinic", "derm", "sex", "location")


def _gather(g: Gathering) -> None:
    path = g.table(r"meta\.csv", "meta/meta.csv")
    table = g.read_table(path, _COLUMNS)
    table.need("diagnosis", "clinic", "derm")
    official = _official(g, table)
    images = next(
        (folder for folder in (path.parent.parent, path.parent) if (folder / "images").is_dir()),
        path.parent,
    )
    for number, row in enumerate(table.rows):
        cells = row.cells
        case = cells.get("case_num") or str(number + 1)
        # The close-up photograph and the dermoscopy picture of one lesion.
        for view, modality in (("derm", "dermoscopic"), ("clinic", "clinical")):
            if not cells[view]:
                continue
            where = f"case {case}, {view} ({table.where(row)})"
            image = g.written_path(images / "images", cells[view], where)
            if image is None:
                continue
            g.add(
                f"{case}_{view}",
                image,
                where=where,
                diagnosis=cells["diagnosis"],
                lesion=case,
                sex=cells.get("sex"),
                site=cells.get("location"),
                modality=modality,
                official=official.get(number),
            )


def _official(g: Gathering, table: Table) -> dict[int, str]:
    """The part of each row, by its number among the rows that are not empty.

    The index files count rows from 0. Where meta.csv has empty rows, they either count or do not:
    the way in which every index meets a row of its own, and every row an index, is taken.
    """
    listed: list[tuple[int, str]] = []
    for part, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        for path in g.tables(rf"{name}_indexes\.csv")[:1]:
            index = g.read_table(path, ("indexes",), ("indexes",), r"[0-9]+")
            for row in index.rows:
                cell = row.cells.get("indexes") or next(iter(row.cells.values()), "")
                if cell.isdecimal():
                    listed.append((int(cell), part))
                else:
                    g.problems.append(f"{index.where(row)}: '{short(cell)}' is no row of meta.csv")
    numbers = [number for number, _ in listed]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise DataError(
            "{path}: row {row} of meta.csv is in two parts, or listed twice",
            code="derm7pt_indexes",
            path=table.path,
            row=twice[0],
        )
    counted = {position: number for number, position in enumerate(table.positions)}
    plain = {number: number for number in range(len(table.rows))}
    place = plain
    if table.blank and listed:
        fits = [way for way in (counted, plain) if way.keys() == set(numbers)]
        if len(fits) != 1:
            raise DataError(
                "{path}: it has empty rows, and whether the index files count them is not "
                "certain; take the publisher's file",
                code="derm7pt_indexes",
                path=table.path,
            )
        place = fits[0]
    outside = [number for number in numbers if number not in place]
    g.problems.extend(f"the index files: '{number}' is no row of meta.csv" for number in outside)
    return {place[number]: part for number, part in listed if number in place}


DERM7PT = Reader(
    "derm7pt",
    "Derm7pt",
    "research only, by agreement with its publisher",
    "meta/meta.csv, meta/train_indexes.csv and images",
    _gather,
)
