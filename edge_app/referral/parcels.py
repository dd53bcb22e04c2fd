"""The parcels of a referral: bytes that are frozen when it is queued, and sent as they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parcel:
    """One thing to be sent, whole: a DICOM file or a FHIR transaction."""

    uid: str  # SOP Instance UID, or the bundle's identifier
    kind: str  # "dicom" or "fhir"
    referral: str  # the referral's id
    sequence: int  # from 0; sent in this order, so that no referral comes before its pictures
    sha256: str  # of `data`, in hexadecimal
    data: bytes
