"""PH2, as its publisher hands it out."""

from __future__ import annotations

import re

from dermedge.data.readers.gathering import Gathering, Reader
from dermedge.data.records import short

_WORDS = {"0": "common nevus", "1": "atypical nevus", "2": "melanoma"}


def _gather(g: Gathering) -> None:
    path = g.table(r"ph2_dataset\.txt", "PH2_dataset.txt (its .xlsx twin is not read)")
    near = path.parent
    for number, line in enumerate(g.read_text(path).splitlines(), start=1):
        cells = [cell.strip() for cell in line.split("||")]
        if not any(re.fullmatch(r"IMD\d+", cell, re.IGNORECASE) for cell in cells):
            continue  # the header and the legend
        where = f"{path.name} line {number}"
        if len(cells) < 4 or not re.fullmatch(r"IMD\d+", cells[1], re.IGNORECASE):
            g.errors.append(f"{where}: name and clinical diagnosis are not where they belong")
            continue
        name, code = cells[1].upper(), cells[3]
        if code not in _WORDS:
            g.problems.append(f"{where}: clinical diagnosis '{short(code)}' is not 0, 1 or 2")
        g.add(
            name,
            g.picture(name, near=near),
            where=f"{name} ({where})",
            mask=g.mask(f"{name}_lesion", near=near),
            diagnosis=_WORDS.get(code),
            modality="dermoscopic",
        )


PH2 = Reader(
    "ph2",
    "PH2",
    "research and education only, by agreement with its publisher",
    "PH2_dataset.txt and IMDxxx/IMDxxx_Dermoscopic_Image/IMDxxx.bmp",
    _gather,
)
