"""Of pydicom, which has 6 MB, what the page needs for a referral by FHIR."""

from __future__ import annotations

import json
from pathlib import Path

from edge_app.referral import codes
from edge_app.referral.codes import SITES
from edge_app.web.packages import PackageError


def members() -> dict[str, bytes]:
    """Files that stand for pydicom in the page, by their names.

    Raises PackageError where pydicom is not installed.
    """
    stand_in = Path(__file__).with_name("python") / "codedict.py"
    return {
        "pydicom/__init__.py": b"",
        "pydicom/sr/__init__.py": b"",
        "pydicom/sr/codedict.py": stand_in.read_bytes(),
        "pydicom/sr/coding.py": b"from pydicom.sr.codedict import Code\n",
        "pydicom/sr/codes.json": json.dumps(_table()).encode(),
    }


def _table() -> dict[str, dict[str, list[str]]]:
    """Context group or scheme: keyword: value, scheme and meaning."""
    wanted: set[tuple[int | str, str]] = {
        ("SCT", "SkinLesion"),
        ("DCM", "SubjectAge"),
        (244, "Left"),
        (244, "Right"),
    }
    wanted |= {(4029, keyword) for keyword in SITES.values()}
    table: dict[str, dict[str, list[str]]] = {}
    try:
        for group, keyword in sorted(wanted, key=str):
            code = codes.standard(group, keyword)
            name = f"cid{group}" if isinstance(group, int) else group
            found = [code.value, code.scheme_designator, code.meaning]
            table.setdefault(name, {})[keyword] = found
    except ImportError:
        raise PackageError(
            "the codes of a referral are read from pydicom: pip install 'dermedge[send]'",
            code="web.pydicom",
        ) from None
    return table
