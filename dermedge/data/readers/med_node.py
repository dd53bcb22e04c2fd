"""MED-NODE, as its publisher hands it out."""

from __future__ import annotations

from dermedge.data.readers.gathering import Gathering, Reader


def _gather(g: Gathering) -> None:
    folders = ("melanoma", "naevus")
    for folder in folders:
        pictures = g.pictures(folder, folders)
        if not pictures:
            raise g.unfit(f"no pictures in a folder '{folder}'")
        for stem in sorted(pictures):
            g.add(f"{folder}_{stem}", pictures[stem], diagnosis=folder, modality="clinical")


MED_NODE = Reader(
    "med_node",
    "MED-NODE",
    "none stated; ask its publisher",
    "the folders melanoma and naevus",
    _gather,
)
