"""A data set of drawn pictures on disk, in the layout that the reader 'csv' takes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from dermedge import UserError
from dermedge.data.synthetic.looks import LOOKS, class_shares, random_ita
from dermedge.data.synthetic.picture import STYLES, check_arguments, draw
from dermedge.data.synthetic.skin import skin_type
from dermedge.files import names_in, write_atomic
from dermedge.taxonomy import MALIGNANT

LICENCE = "procedural, Apache-2.0"
MARKER = "procedural.json"
VERSION = 1  # raised when the same seed draws another picture

_SITES = ("face", "scalp", "neck", "chest", "abdomen", "back", "upper extremity", "lower extremity")
_COLUMNS = (
    "id", "image", "mask", "diagnosis", "lesion_id", "patient_id", "age", "sex", "site",
    "skin_type", "licence", "malignant", "split",
)  # fmt: skip


def write_data_set(
    root: str | Path,
    count: int,
    seed: int = 0,
    styles: tuple[str, ...] = ("dermoscopy",),
    size: tuple[int, int] = (384, 512),
) -> None:
    """Write `count` drawn pictures as a data set in the layout that the reader 'csv' takes.

    `root` gets images/*.jpg, masks/*.png, data.csv and `MARKER`, which says that the pictures are
    drawn. About three lesions in ten have two or three pictures, some patients several lesions.
    A run that was stopped goes on where it stopped; all classes are there from `count` 8 on.

    Raises
    ------
    UserError
        In one line, when `root` holds something else or pictures made with other settings.
    ValueError
        When a setting is out of its range.
    """
    root = Path(root)
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}")
    if not styles:
        raise ValueError(f"styles must name at least one of {', '.join(STYLES)}")
    for style in styles:
        check_arguments(seed, style, size, None, 0, None)
    settings = {"version": VERSION, "count": count, "seed": seed, "styles": list(styles),
                "size": list(size)}  # fmt: skip
    _claim(root, settings)
    rows = _plan(count, seed, styles)
    for row in tqdm(rows, desc="drawing lesions", unit="picture", disable=None):
        image, mask = root / row["image"], root / row["mask"]
        # Files are written atomically, the mask last: where it is, both are whole.
        if mask.is_file() and image.is_file():
            continue
        sample = draw(
            row["seed"], row["style"], size, row["diagnosis"], view=row["view"], ita=row["ita"]
        )
        jpeg = [cv2.IMWRITE_JPEG_QUALITY, 92]
        write_atomic(image, cv2.imencode(".jpg", sample.image[..., ::-1], jpeg)[1].tobytes())
        mask_image = sample.mask.astype(np.uint8) * 255
        write_atomic(mask, cv2.imencode(".png", mask_image)[1].tobytes())
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(root / "data.csv", table.getvalue())


def _claim(root: Path, settings: dict[str, Any]) -> None:
    """Make the folders and the marker, or make sure that what is there is the same data set."""
    marker = root / MARKER
    try:
        stored = json.loads(marker.read_text())["settings"]
    except FileNotFoundError:
        if root.is_dir() and names_in(root):
            raise UserError(
                f"{root} is not empty and holds no drawn pictures; choose another folder"
            ) from None
        stored = None
    except (ValueError, KeyError, TypeError):
        stored = {}
    if stored is not None and stored != settings:
        raise UserError(
            f"{root} holds pictures drawn with other settings ({json.dumps(stored)}, asked for "
            f"{json.dumps(settings)}); delete it or choose another folder"
        )
    for folder in (root / "images", root / "masks"):
        folder.mkdir(parents=True, exist_ok=True)
    if stored is None:
        note = "Drawn by dermedge.data.synthetic; not photographs. Not for use on real skin."
        content = {"procedural": True, "note": note, "settings": settings}
        write_atomic(marker, json.dumps(content, indent=2) + "\n")


def _plan(count: int, seed: int, styles: tuple[str, ...]) -> list[dict[str, Any]]:
    """What each picture shows: one dict a picture, a function of the arguments alone."""
    rng = np.random.default_rng([seed, 6])
    names, shares = list(LOOKS), class_shares()
    made = np.zeros(len(names))
    rows: list[dict[str, Any]] = []
    patients: list[dict[str, Any]] = []
    lesion = 0
    while len(rows) < count:
        # Each class once, then whichever is furthest behind its share.
        behind = np.where(made == 0, np.inf, shares * (made.sum() + 1) - made)
        pick = int(np.argmax(behind))
        made[pick] += 1
        label = names[pick]
        if patients and rng.random() < 0.25:
            patient = patients[rng.integers(len(patients))]
        else:
            look = LOOKS[label]
            ita = random_ita(rng, look)
            patient = {
                "patient_id": f"patient_{len(patients):05d}",
                "age": round(float(np.clip(rng.normal(np.mean(look.ages), np.ptp(look.ages) / 4),
                                           3, 95))),
                "sex": str(rng.choice(["female", "male"])),
                "skin_type": skin_type(ita),
                "ita": round(ita, 1),
            }  # fmt: skip
            patients.append(patient)
        site, style = str(rng.choice(_SITES)), str(rng.choice(styles))
        views = int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1])) if lesion >= len(names) else 1
        for view in range(min(views, count - len(rows))):
            name = f"drawn_{len(rows):05d}"
            rows.append({
                **patient, "id": name, "image": f"images/{name}.jpg", "mask": f"masks/{name}.png",
                "diagnosis": label, "lesion_id": f"lesion_{lesion:05d}", "site": site,
                "licence": LICENCE, "malignant": label in MALIGNANT, "split": "",
                "style": style, "view": view, "seed": seed * 1_000_003 + lesion,
            })  # fmt: skip
        lesion += 1
    return rows
