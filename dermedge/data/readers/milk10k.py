"""MILK10k (ISIC 2025): two pictures of each lesion, a dermoscopic one and a clinical close-up."""

from __future__ import annotations

from dermedge.data.readers.gathering import Gathering, Reader
from dermedge.data.readers.one_hot import code_of
from dermedge.data.records import DataError, short
from dermedge.data.tables import Row, Table
from dermedge.taxonomy import Diagnosis

# Its own classes. SCCKA, squamous cell carcinoma and keratoacanthoma, is not AKIEC; three have no
# class in the list of this project, but their malignancy is known.
_CODES = {
    **dict.fromkeys(("AKIEC", "BCC", "BKL", "DF", "MEL", "NV", "SCCKA", "VASC")),
    "BEN_OTH": Diagnosis("other", "other", False),
    "INF": Diagnosis("other", "other", False),  # inflammatory and infectious
    "MAL_OTH": Diagnosis("other", "other", True),
}
_MODALITIES = {"dermoscopic": "dermoscopic", "clinical: close-up": "clinical"}
_METADATA = (
    *("lesion_id", "isic_id", "image_type", "age_approx", "sex", "site", "skin_tone_class"),
    "copyright_license",
)


def _gather(g: Gathering) -> None:
    if not g.tables(r"milk10k_(training|test)_metadata\.csv"):
        raise g.unfit("no MILK10k_Training_Metadata.csv")
    for official, name in (("train", "training"), ("test", "test")):
        truth = _truth(g, rf"milk10k_{name}_groundtruth\.csv")
        listed: set[str] = set()
        for path in g.tables(rf"milk10k_{name}_metadata\.csv")[:1]:
            table = g.read_table(path, _METADATA)
            table.need("lesion_id", "isic_id", "image_type")
            for row in table.rows:
                listed.add(row.cells["lesion_id"])
                _add(g, table, row, truth, official)
        unlisted = len(truth.keys() - listed)
        if unlisted:
            g.notes.append(f"lesions of the truth table without a picture: {unlisted}")
        unlabelled = len(listed - truth.keys())
        if unlabelled:
            g.notes.append(
                f"lesions of the {official} part without a row in a truth table, not labelled: "
                f"{unlabelled}"
            )


def _truth(g: Gathering, pattern: str) -> dict[str, str | None]:
    """The code of each lesion."""
    truth: dict[str, str | None] = {}
    for path in g.tables(pattern)[:1]:
        columns = tuple(code.lower() for code in _CODES)
        table = g.read_table(path, ("lesion_id", *columns))
        missing = [code for code in ("lesion_id", *_CODES) if code.lower() not in table.columns]
        if missing:
            raise DataError(
                "{path}: no column {missing}; it has: {columns}",
                code="table_classes_missing",
                path=path,
                missing=", ".join(missing),
                columns=short(", ".join(table.columns), 300),
            )
        for row in table.rows:
            lesion = row.cells["lesion_id"]
            if lesion in truth:
                g.errors.append(f"{table.where(row)}: {short(lesion)} is listed more than once")
            truth[lesion] = code_of(g, table, row, _CODES)
    return truth


def _add(g: Gathering, table: Table, row: Row, truth: dict[str, str | None], official: str) -> None:
    cells = row.cells
    name, lesion = cells["isic_id"], cells["lesion_id"]
    where = f"{name} ({table.where(row)})"
    code = truth.get(lesion)
    modality = _MODALITIES.get(cells["image_type"].lower())
    if modality is None:
        g.problems.append(f"{where}: image_type '{short(cells['image_type'])}' is not known")
    tone = cells.get("skin_tone_class", "").replace(",", ".").removesuffix(".0")
    if tone and tone not in tuple("012345"):
        g.problems.append(f"{where}: skin_tone_class '{short(tone)}' is not 0 to 5")
        tone = ""
    g.add(
        name,
        g.picture(name, near=table.path.parent),
        where=where,
        diagnosis=code,
        reading=_CODES[code] if code else None,
        lesion=lesion,
        age=cells.get("age_approx"),
        sex=cells.get("sex"),
        site=cells.get("site"),
        skin_tone=int(tone) if tone else None,
        modality=modality,
        licence=cells.get("copyright_license"),
        official=official,
    )


MILK10K = Reader(
    "milk10k",
    "MILK10k (ISIC 2025)",
    "CC BY-NC 4.0",
    "MILK10k_Training_Input/LESION/PICTURE.jpg, MILK10k_Training_GroundTruth.csv and "
    "MILK10k_Training_Metadata.csv",
    _gather,
)
