"""PAD-UFES-20, as its publisher hands it out; masks that students drew lie in student_masks.

Those of a second student lie in student_masks_second, under the same names.
"""

from __future__ import annotations

from pathlib import Path

from dermedge.data.readers.gathering import Gathering, Reader, without_ending
from dermedge.data.tables import columns_of

_COLUMNS = (
    *("patient_id", "lesion_id", "img_id", "diagnostic", "age", "gender", "region"),
    *("fitspatrick", "fitzpatrick", "iou_best_other"),
)


def _gather(g: Gathering) -> None:
    tables = g.tables(r"metadata\.csv")
    path = next((t for t in tables if {"img_id", "diagnostic"} <= columns_of(t)), None)
    if path is None:
        raise g.unfit("no metadata.csv with the columns img_id and diagnostic")
    table = g.read_table(path, _COLUMNS)
    table.need("patient_id", "lesion_id")
    second_masks = g.pictures("student_masks_second")
    for row in table.rows:
        cells = row.cells
        name = without_ending(cells["img_id"])
        mask = g.mask(f"{name}_mask", near=path.parent)
        second_mask = second_masks.get(f"{name}_mask")
        if mask == second_mask:  # there is no other one to compare it with
            mask = None
        outlines: tuple[Path, ...] = ()
        # Students drew several masks for most pictures; where they agreed little, none is kept.
        if mask and "iou_best_other" in cells:
            agreement = cells["iou_best_other"]
            if second_mask and _at_least(agreement, 0.5):
                outlines = (mask, second_mask)
            if not _at_least(agreement, 0.7):
                g.count(
                    "masks on which two students agreed too little (IoU below 0.7), not measured by"
                )
                mask = None
        g.add(
            name,
            g.picture(name, near=path.parent),
            where=f"{name} ({table.where(row)})",
            mask=mask,
            second_mask=second_mask if mask else None,
            outlines=outlines,
            diagnosis=cells["diagnostic"],
            # Lesion numbers may repeat from patient to patient.
            lesion=f"{cells['patient_id']}/{cells['lesion_id']}" if cells["lesion_id"] else None,
            patient=cells["patient_id"],
            age=cells.get("age"),
            sex=cells.get("gender"),
            site=cells.get("region"),
            skin_type=cells.get("fitspatrick") or cells.get("fitzpatrick"),
            modality="clinical",
        )


def _at_least(text: str, least: float) -> bool:
    try:
        return float(text.replace(",", ".")) >= least
    except ValueError:
        return False


PAD_UFES_20 = Reader(
    "pad_ufes_20",
    "PAD-UFES-20",
    "CC BY 4.0",
    "metadata.csv (columns img_id, diagnostic) and images/imgs_part_1",
    _gather,
)
