"""Procedural lesions: drawn pictures with exact masks and labels, for demos and tests.

Nothing here was learned from or copied from photographs. A model trained on these pictures shows
that the pipeline works; it knows nothing of real skin.
"""

from __future__ import annotations

from dermedge.procedural.artefacts import ARTEFACTS
from dermedge.procedural.data_set import LICENCE, MARKER, VERSION, write_data_set
from dermedge.procedural.looks import LOOKS
from dermedge.procedural.picture import STYLES, Sample, draw
from dermedge.procedural.skin import ITA_RANGE, skin_type

__all__ = [
    "ARTEFACTS",
    "ITA_RANGE",
    "LICENCE",
    "LOOKS",
    "MARKER",
    "STYLES",
    "VERSION",
    "Sample",
    "draw",
    "skin_type",
    "write_data_set",
]
