"""HAM10000, as the Harvard Dataverse and Kaggle hand it out."""

from __future__ import annotations

from dermedge.data.readers.gathering import Gathering, Reader, without_ending

_COLUMNS = ("image_id", "lesion_id", "dx", "age", "sex", "localization")


def _gather(g: Gathering) -> None:
    table = g.read_table(
        g.table(r"ham10000_metadata(\.csv|\.tab|\.tsv|\.txt)?", "HAM10000_metadata.csv"), _COLUMNS
    )
    table.need("image_id", "lesion_id", "dx")
    near = table.path.parent
    for row in table.rows:
        cells = row.cells
        name = without_ending(cells["image_id"])
        g.add(
            name,
            g.picture(name, near=near),
            where=f"{name} ({table.where(row)})",
            mask=g.mask(f"{name}_segmentation", near=near),
            diagnosis=cells["dx"],
            lesion=cells["lesion_id"],
            age=cells.get("age"),
            sex=cells.get("sex"),
            site=cells.get("localization"),
            modality="dermoscopic",
        )


HAM10000 = Reader(
    "ham10000",
    "HAM10000",
    "CC BY-NC 4.0",
    "HAM10000_metadata.csv beside HAM10000_images_part_1 and HAM10000_images_part_2",
    _gather,
)
