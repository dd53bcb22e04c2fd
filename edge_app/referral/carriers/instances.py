"""Comparing a DICOM file with what a receiver shows of it."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """Under which numbers a file lies."""

    study: str
    series: str
    instance: str
    sop_class: str
    transfer_syntax: str


def names(data: bytes) -> Names:
    """Of our own file."""
    import pydicom

    found = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    return Names(
        str(found.StudyInstanceUID),
        str(found.SeriesInstanceUID),
        str(found.SOPInstanceUID),
        str(found.SOPClassUID),
        str(found.file_meta.TransferSyntaxUID),
    )


def same(ours: bytes, theirs: bytes) -> bool:
    """Whether two files hold the same: byte for byte, or each element in the same encoding.

    Only the head of a file (group 0002) may differ: a receiver writes its own name there.
    """
    if ours == theirs:
        return True
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = pydicom.dcmread(io.BytesIO(theirs))
            own = pydicom.dcmread(io.BytesIO(ours))
            return bool(
                own.file_meta.TransferSyntaxUID == other.file_meta.TransferSyntaxUID
                and own == other
            )
    # What comes from outside may make pydicom raise anything.
    except Exception:
        return False
