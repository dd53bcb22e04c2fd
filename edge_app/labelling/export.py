"""The labelled pictures as a folder that `dermedge train --data csv=DIR` takes as it is."""

from __future__ import annotations

import csv
import io
import os
import random
from pathlib import Path

import cv2
import numpy as np

from dermedge import UserError
from dermedge.files import write_atomic
from dermedge.image.read import read_image, write_png
from edge_app.labelling.queue import allowed, named, shown
from edge_app.store.damage import LeaveOut, stop, without_damage
from edge_app.store.database import sweep, workshop
from edge_app.store.labels import BAD_PICTURE, CONFIRMED, Label
from edge_app.store.records import Capture
from edge_app.store.store import Store

COLUMNS = (
    *("id", "image", "mask", "diagnosis", "lesion_id", "patient_id", "modality"),
    *("confirmed_by", "confirmed_as", "confirmed_at", "proposed_by"),
)
# Of a capture's kind; of what nobody said the table says nothing.
MODALITIES = {"dermoscopic": "dermoscopic", "close_up": "clinical", "overview": "clinical"}


def export(store: Store, folder: Path, leave_out: LeaveOut = stop) -> tuple[int, int]:
    """Write data.csv, images and masks into a new folder; (labelled, unlabelled) pictures in it.

    Of allowed cases alone, under pseudonyms that are new each time. What nobody labelled, or
    nobody could tell, has an empty diagnosis: `distillation.unlabelled` learns from those. A bad
    picture stays out, and what is damaged, which `leave_out` names. It is entered into the audit
    trail; whole or not at all.

    Raises
    ------
    UserError : the folder is there already, or there is nothing to write.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(
            "{path} is there already: choose another name", code="label.exists", path=folder
        )
    captures: list[tuple[str, Capture, Label | None]] = []
    for person, capture in allowed(store, leave_out):
        with without_damage(named(person, capture), leave_out):
            label = store.labels.of(capture.id)
            if label is None or label.verdict != BAD_PICTURE:
                captures.append((person, capture, label))
    if not any(label for _person, _capture, label in captures):
        raise _none()
    # A pseudonym must not tell in which order people came.
    random.SystemRandom().shuffle(captures)
    with store.act("export labels"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)  # unsealed pictures of an export that was killed, too
        with workshop(folder.parent, ".labels-") as made:
            rows, labels = _write(store, captures, made, leave_out)
            if not labels:
                raise _none()
            os.rename(made, folder)
    labelled = sum(bool(row["diagnosis"]) for row in rows)
    return labelled, len(rows) - labelled


def _none() -> UserError:
    return UserError("no picture is labelled yet: run `dermedge label ask`", code="label.none")


def _write(
    store: Store,
    captures: list[tuple[str, Capture, Label | None]],
    folder: Path,
    leave_out: LeaveOut,
) -> tuple[list[dict[str, str]], int]:
    """The rows of data.csv, and how many of them somebody labelled."""
    people: dict[str, str] = {}
    lesions: dict[str, str] = {}
    rows: list[dict[str, str]] = []
    labels = 0
    for person, capture, label in captures:
        picture = None
        with without_damage(named(person, capture), leave_out):
            picture = shown(store.picture(capture.id))
        if picture is None:
            continue
        name = f"c{len(rows) + 1:05}"
        row = dict.fromkeys(COLUMNS, "") | {
            "id": name,
            "image": f"{name}.jpg",
            "patient_id": people.setdefault(person, f"p{len(people) + 1:05}"),
            "lesion_id": lesions.setdefault(capture.lesion, f"l{len(lesions) + 1:05}"),
            "modality": MODALITIES.get(capture.kind, ""),
        }
        write_atomic(folder / row["image"], picture, private=True)
        if label is not None and label.verdict == CONFIRMED:
            row |= {
                "diagnosis": label.diagnosis,
                "confirmed_by": label.by,
                "confirmed_as": label.role,
                "confirmed_at": label.when,
                "proposed_by": label.model,
            }
            if label.outline:
                row["mask"] = f"{name}_mask.png"
                mask = _mask(label, capture.size, read_image(picture).pixels.shape[:2])
                write_png(folder / row["mask"], mask, private=True)
        rows.append(row)
        labels += label is not None
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / "data.csv", text.getvalue(), private=True)
    return rows, labels


def _mask(label: Label, size: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """uint8 (h, w), 255 in the outline; `size` is that of the whole picture, width and height."""
    mask = np.zeros(shape, np.uint8)
    scale = np.array([shape[1] / size[0], shape[0] / size[1]])
    for polygon in label.outline:
        points = (np.array(polygon) + 0.5) * scale - 0.5
        cv2.fillPoly(mask, [np.round(points).astype(np.int32)], (255,))
    return mask
