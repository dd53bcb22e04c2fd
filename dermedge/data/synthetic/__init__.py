"""Procedural lesions: drawn pictures with exact masks and labels, for demos and tests.

Nothing here was learned from or copied from photographs. A model trained on these pictures shows
that the pipeline works; it knows nothing of real skin.
"""

from __future__ import annotations

from dermedge.data.synthetic.artefacts import ARTEFACTS
from dermedge.data.synthetic.data_set import LICENCE, MARKER, VERSION, write_data_set
from dermedge.data.synthetic.looks import LOOKS
from dermedge.data.synthetic.picture import STYLES, Sample, draw
from dermedge.data.synthetic.skin import ITA_RANGE, skin_type

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
