"""`pydicom.sr` in a browser: of its codes those that a referral by FHIR uses.

They are read from pydicom's own tables when the page is built; see `edge_app.web.codes`.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple


class Code(NamedTuple):
    value: str
    scheme_designator: str
    meaning: str


codes = SimpleNamespace(
    **{
        group: SimpleNamespace(**{keyword: Code(*code) for keyword, code in found.items()})
        for group, found in json.loads(
            Path(__file__).with_name("codes.json").read_text(encoding="utf-8")
        ).items()
    }
)
