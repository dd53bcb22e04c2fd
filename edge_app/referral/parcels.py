"""The parcels of a referral: bytes that are frozen when it is queued, and sent as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_app.referral import review
from edge_app.referral.form import Referral

if TYPE_CHECKING:
    from edge_app.referral.dicom import Instance


@dataclass(frozen=True)
class Parcel:
    """One thing to be sent, whole: a DICOM file or a FHIR transaction."""

    uid: str  # SOP Instance UID, or the bundle's identifier
    kind: str  # "dicom" or "fhir"
    referral: str  # the referral's id
    sequence: int  # from 0; sent in this order, so that no referral comes before its pictures
    sha256: str  # of `data`, in hexadecimal
    data: bytes


@dataclass(frozen=True)
class Options:
    """What a receiver takes, and what must not reach it."""

    dicom: bool = True  # pictures as DICOM; else within the FHIR transaction
    fhir: bool = True  # a FHIR transaction; without it the study is all
    lossy: bool = False  # JPEG instead of JPEG-LS, for bad lines
    private: tuple[str, ...] = ()  # words that must not leave pseudonymously, as the name

    def __post_init__(self):
        if not (self.dicom or self.fhir):
            raise ValueError("a receiver takes DICOM or FHIR")


def build(referral: Referral, options: Options | None = None) -> tuple[Parcel, ...]:
    """All that leaves, in the order of sending: pictures, outlines, measures, report, FHIR.

    The same referral and options give the same bytes with the same versions of the libraries;
    build once, when it is queued. Takes about a second for a picture of 12 megapixels. Any thread.

    Raises
    ------
    UserError : something is missing without which nothing may be sent (`review.require`), or a
        picture cannot be read.
    """
    options = options or Options()
    review.require(referral, options.private)
    instances = _instances(referral, options) if options.dicom else []
    parcels = [
        _parcel(it.uid, "dicom", referral, number, it.data) for number, it in enumerate(instances)
    ]
    if options.fhir:
        from edge_app.referral import fhir

        uid, transaction = fhir.transaction(referral, instances, options.lossy)
        parcels.append(_parcel(uid, "fhir", referral, len(parcels), transaction))
    return tuple(parcels)


def _instances(referral: Referral, options: Options) -> Sequence[Instance]:
    from edge_app.referral import dicom, dicom_findings

    pictures, outlines, sources = [], [], []
    for number, picture in enumerate(referral.pictures, 1):
        instance, dataset = dicom.picture_instance(referral, picture, number, options.lossy)
        pictures.append(instance)
        del dataset.PixelData  # what refers to it needs no pixels, and there may be many
        sources.append((picture, dataset))
        if picture.findings is not None and picture.findings.outlines:
            outlines.append(dicom_findings.outline_instance(referral, picture, dataset, number))
    measures = dicom_findings.measures_instance(referral, sources)
    report = [dicom.report_instance(referral)] if referral.report else []
    return [*pictures, *outlines, measures, *report]


def _parcel(uid: str, kind: str, referral: Referral, sequence: int, data: bytes) -> Parcel:
    return Parcel(uid, kind, referral.id, sequence, hashlib.sha256(data).hexdigest(), data)
