"""Tables of the ISIC Archive: what isic-cli downloads, and ISIC 2024 (SLICE-3D)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from dermedge.data.readers.gathering import Gathering, Reader, stated
from dermedge.data.readers.one_hot import ONE, ZERO
from dermedge.data.records import DataError, short
from dermedge.data.tables import Row, Table, columns_of
from dermedge.metadata import region
from dermedge.taxonomy import Diagnosis, interpret

_LEVELS = (5, 4, 3, 2, 1)
# Gray pictures of cells under the microscope, no photographs of a lesion.
_CONFOCAL = ("rcm: tile", "rcm: mosaic")
# The site from its body region to the place, today; anatom_site_general and _special before.
_SITES = tuple(f"anatom_site_{level}" for level in reversed(_LEVELS))
_ABOUT = (
    *("isic_id", "lesion_id", "patient_id", "age_approx", "sex", "copyright_license"),
    *("anatom_site_special", "anatom_site_general", "fitzpatrick_skin_type", "image_type", *_SITES),
)
_LABELS = (*(f"diagnosis_{level}" for level in _LEVELS), "diagnosis", "benign_malignant")
_LABELS_2024 = ("target", "malignant", "iddx_full", *(f"iddx_{level}" for level in _LEVELS))


def _finest(words: Iterable[str]) -> tuple[str | None, Diagnosis]:
    """The finest word, and what all of them say; `words` from the finest to the coarsest.

    The finest level may be no class of ours ("Blue") where the one above is ("Nevus").
    """
    known = [word for word in words if stated(word)]
    readings = [interpret(word) for word in known]
    malignant = next((r.malignant for r in readings if r.malignant is not None), None)
    for kind in ("class", "other", "flag", "number"):
        for reading in readings:
            if reading.kind == kind:
                label = reading.malignant if kind == "class" else malignant
                return known[0], Diagnosis(kind, reading.label, label)
    return (known[0] if known else None), Diagnosis("unclear", None, malignant)


def _modality(text: str | None) -> str | None:
    text = (text or "").lower()
    if text.startswith("dermoscop"):
        return "dermoscopic"
    return "clinical" if text.startswith(("clinical", "tbp", "overview")) else None


def _gather_cli(g: Gathering) -> None:
    tables = [path for path in g.tables(r".*\.csv") if "isic_id" in columns_of(path)]
    if not tables:
        raise g.unfit("no csv with a column isic_id")
    labelled = [path for path in tables if {*_LABELS} & columns_of(path)]
    if not labelled:
        columns = columns_of(tables[0])
        hint = "milk10k" if "lesion_id" in columns and "image_type" in columns else ""
        hint = "isic2024" if {*_LABELS_2024} & columns else hint
        raise DataError(
            "{path}: no column with a diagnosis ({wanted}); it has: {columns}{hint}",
            code="table_column_missing",
            path=tables[0],
            wanted="diagnosis_1 to diagnosis_5, diagnosis or benign_malignant",
            columns=short(", ".join(sorted(columns)), 300),
            hint=f"; read it as {hint}={g.root}" if hint else "",
        )
    for path in labelled:
        table = g.read_table(path, (*_ABOUT, *_LABELS))
        for row in table.rows:
            cells = row.cells
            if cells.get("image_type", "").lower() in _CONFOCAL:
                g.count("confocal microscopy (RCM: tile, RCM: mosaic), not used")
                continue
            name = cells["isic_id"]
            levels = (cells.get(f"diagnosis_{level}", "") for level in _LEVELS)
            word, reading = _finest([*levels, cells.get("diagnosis", "")])
            g.add(
                name,
                g.picture(name, near=path.parent),
                where=f"{name} ({table.where(row)})",
                diagnosis=word,
                reading=reading,
                malignant=cells.get("benign_malignant") or _coarse(cells.get("diagnosis_1")),
                licence=cells.get("copyright_license"),
                **_about(cells),
            )


def _about(cells: dict[str, str]) -> dict[str, Any]:
    return {
        "lesion": cells.get("lesion_id"),
        "patient": cells.get("patient_id"),
        "age": cells.get("age_approx"),
        "sex": cells.get("sex"),
        "site": _site(cells),
        "skin_type": cells.get("fitzpatrick_skin_type"),
        "modality": _modality(cells.get("image_type")),
    }


def _site(cells: dict[str, str]) -> str:
    """The most exact statement that names a body region: a special one may be "nail NOS"."""
    levels = ", ".join(filter(None, map(cells.get, _SITES)))
    stated = (cells.get("anatom_site_special"), levels, cells.get("anatom_site_general"))
    known = [site for site in stated if site]
    return next(filter(region, known), "".join(known[:1]))


def _coarse(text: str | None) -> str:
    """The coarsest level, where it says benign, malignant or indeterminate."""
    known = re.match(r"benign|malignant|indeterminate", text or "", re.IGNORECASE)
    return known.group().lower() if known else ""


def _gather_2024(g: Gathering) -> None:
    names = (
        r"(train|test)-metadata\.csv|metadata\.csv"
        r"|isic_2024_(permissive_)?(training|test)_(groundtruth|supplement|metadata|input)\.csv"
    )
    merged: dict[str, dict[str, str]] = {}
    first: dict[str, tuple[Table, Row]] = {}
    labelled = False
    for path in g.tables(names):
        truth = re.search("groundtruth", path.name, re.IGNORECASE)
        columns = columns_of(path)
        if "isic_id" not in columns and not truth:
            continue
        table = g.read_table(
            path, (*_ABOUT, *_LABELS_2024), ("isic_id", "malignant"), r"isic_\d+(\.jpg)?"
        )
        table.need("isic_id")
        labelled |= bool({*_LABELS_2024} & {*table.columns})
        part = "test" if re.search(r"(^|_)test[_-]", path.name, re.IGNORECASE) else "train"
        for row in table.rows:
            name = row.cells["isic_id"].removesuffix(".jpg")
            about = merged.setdefault(name, {"part": part})
            for column, cell in row.cells.items():
                kept = about.setdefault(column, cell) if cell and column != "isic_id" else cell
                # One table writes an age as 60, another as 60.0.
                if re.sub(r"[.,]0$", "", kept) != re.sub(r"[.,]0$", "", cell):
                    g.errors.append(
                        f"{table.where(row)}: {short(name)} has another {column} than in "
                        f"{first[name][0].where(first[name][1])}"
                    )
            first.setdefault(name, (table, row))
    if not merged:
        raise g.unfit("no table with a column isic_id")
    if not labelled:
        table = next(iter(first.values()))[0]
        raise DataError(
            "{path}: no column target, malignant or iddx_1; it has: {columns}",
            code="table_column_missing",
            path=table.path,
            columns=short(", ".join(table.columns), 300),
        )
    packed = g.tables(r".*\.hdf5")
    if packed and not g.images:
        raise g.unfit(f"the pictures are packed in {packed[0].name}: unpack them as JPEG files")
    near = next(iter(first.values()))[0].path.parent
    grouped = 0
    for name, cells in merged.items():
        table, row = first[name]
        where = f"{name} ({table.where(row)})"
        levels = [cells.get(f"iddx_{level}", "") for level in _LEVELS]
        if not any(levels):
            levels = cells.get("iddx_full", "").split("::")[::-1]
        word, reading = _finest(levels)
        flags = {cells[c] in ONE for c in ("target", "malignant") if cells.get(c)}
        known = all(cells.get(c, "0") in ONE | ZERO for c in ("target", "malignant"))
        if len(flags) > 1 or not known:
            g.errors.append(f"{where}: target and malignant must be 0 or 1, and the same")
            continue
        grouped += bool(cells.get("patient_id") or cells.get("lesion_id"))
        g.add(
            name,
            g.picture(name, near=near),
            where=where,
            diagnosis=word,
            reading=reading,
            malignant=next(iter(flags), None),
            licence=cells.get("copyright_license"),
            official=cells["part"],
            **_about(cells),
        )
    if not grouped:
        g.ungrouped = (
            "the table with patient_id (metadata.csv) is missing: which pictures show one person "
            "is not known"
        )


ISIC_CLI = Reader(
    "isic_cli",
    "what `isic image download` of isic-cli writes",
    "as its column copyright_license says",
    "metadata.csv with the columns isic_id and diagnosis_1, and the pictures",
    _gather_cli,
    licensed_by_row=True,
)
ISIC2024 = Reader(
    "isic2024",
    "ISIC 2024 (SLICE-3D)",
    "CC BY-NC 4.0, or as its column copyright_license says",
    "train-metadata.csv and train-image, or ISIC_2024_Training_GroundTruth.csv, "
    "ISIC_2024_Training_Supplement.csv and ISIC_2024_Training_Input with metadata.csv",
    _gather_2024,
    licensed_by_row=True,
)
