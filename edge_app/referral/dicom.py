"""Pictures and the report page as DICOM: Dermoscopic Photography (Supplement 221), VL Photographic
Image, Encapsulated PDF.

Each dataset is built from nothing by the referral's allow-list; no metadata of a file gets in.
Transfer syntax of pictures: JPEG-LS lossless, or JPEG Baseline that is marked lossy.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import dermedge
from edge_app.referral import codes
from edge_app.referral.form import KINDS, Identifier, Referral, ReferredPicture
from edge_app.referral.uids import IMPLEMENTATION, study_uid, uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

JPEG_QUALITY = 92
DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"
PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.4"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
EXPLICIT = "1.2.840.10008.1.2.1"
_JPEG_LS, _JPEG = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.50"
NOT_STATED = "not stated"  # Device Serial Number is required: this stands for it
_DEIDENTIFIED = (  # CID 7050; what was done, no more
    "BasicApplicationConfidentialityProfile",
    "CleanStructuredContentOption",
    "CleanDescriptorsOption",
    "RetainLongitudinalTemporalInformationFullDatesOption",
    "RetainPatientCharacteristicsOption",
)

logging.getLogger("pydicom").setLevel(logging.ERROR)  # it would log values of people


class Series(NamedTuple):
    """A series of the study: its number, modality and description."""

    number: int
    modality: str
    description: str


# A series has one frame of reference, and two pictures share none: each picture is a series, and
# so is each outline. Their numbers follow the pictures' order.
MEASURES = Series(201, "SR", "Measures by a model, for research")
REPORT = Series(202, "DOC", "Report: for research, not a diagnosis")


@dataclass(frozen=True)
class Instance:
    """A DICOM file, whole."""

    uid: str
    sop_class: str
    series: Series
    series_uid: str
    data: bytes


def series_of(picture: ReferredPicture, number: int) -> Series:
    """The series of a picture, the `number`th from 1."""
    modality = "DMS" if picture.kind == "dermoscopic" else "XC"
    return Series(number, modality, KINDS[picture.kind])


def picture_instance(
    referral: Referral, picture: ReferredPicture, number: int, lossy: bool = False
) -> tuple[Instance, Dataset]:
    """A picture as a file, and its dataset for what refers to it.

    Parameters
    ----------
    number : of the picture, from 1.
    lossy : JPEG Baseline of quality 92, marked as lossy, for bad lines.
    """
    from pydicom.dataset import Dataset

    pixels = np.ascontiguousarray(picture.pixels())
    scope = picture.kind == "dermoscopic"
    series = series_of(picture, number)
    ds = Dataset()
    ds.SOPClassUID = DERMOSCOPIC if scope else PHOTOGRAPHIC
    describe(ds, referral, series)
    _image(ds, referral, picture)
    if scope:
        _dermoscopic(ds, referral, picture)
    syntax = _encode(ds, pixels, lossy)
    return sealed(ds, referral, series, syntax, picture.id, picture.kind), ds


def report_instance(referral: Referral) -> Instance:
    """The report page as Encapsulated PDF."""
    from pydicom.dataset import Dataset

    ds = Dataset()
    ds.SOPClassUID = PDF
    describe(ds, referral, REPORT)
    ds.ConversionType = "SYN"
    ds.ContentDate, ds.ContentTime = _date(referral.created), _time(referral.created)
    ds.AcquisitionDateTime = ""
    ds.BurnedInAnnotation = "NO" if referral.pseudonymous else "YES"
    recognizable = any(picture.recognizable is not False for picture in referral.pictures)
    ds.RecognizableVisualFeatures = "YES" if recognizable else "NO"
    ds.ConceptNameCodeSequence = []
    ds.DocumentTitle = "Risk estimate for research, not a diagnosis"
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    ds.EncapsulatedDocumentLength = len(referral.report)
    ds.EncapsulatedDocument = referral.report + b"\0" * (len(referral.report) % 2)
    return sealed(ds, referral, REPORT, EXPLICIT)


# ---------------------------------------------------------------------------- for every instance


def describe(ds: Dataset, referral: Referral, series: Series) -> None:
    """Write person, study, series and equipment into a dataset: the same in each of a study."""
    ds.SpecificCharacterSet = "ISO_IR 192"
    _patient(ds, referral)
    ds.StudyInstanceUID = study_uid(referral)
    ds.StudyDate, ds.StudyTime = _date(referral.created), _time(referral.created)
    ds.TimezoneOffsetFromUTC = referral.created.strftime("%z")[:5]
    ds.ReferringPhysicianName = ""
    ds.StudyID = referral.id.replace("-", "")[:8].upper()
    ds.AccessionNumber = ""
    ds.StudyDescription = "Dermatology referral"
    ds.Modality = series.modality
    ds.SeriesInstanceUID = uid("series", referral.id, str(series.number))
    ds.SeriesNumber = series.number
    ds.InstanceNumber = 1
    ds.SeriesDescription = series.description
    ds.Manufacturer = "dermedge"
    ds.ManufacturerModelName = "dermedge edge_app"
    ds.DeviceSerialNumber = NOT_STATED
    ds.SoftwareVersions = dermedge.__version__
    ds.InstanceCreationDate = _date(referral.created)
    ds.InstanceCreationTime = _time(referral.created)
    for equipment in ds.get("ContributingEquipmentSequence", ()):
        equipment.pop("ContributionDateTime", None)  # this moment's, not the referral's
    if series is MEASURES:
        ds.CodingSchemeIdentificationSequence = [_scheme()]


def sealed(ds: Dataset, referral: Referral, series: Series, syntax: str, *names: str) -> Instance:
    """A dataset as the bytes of a file.

    Its SOP Instance UID is of `names` and of all of its content: no other bytes can carry it.
    """
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID

    if "SOPInstanceUID" in ds:
        del ds.SOPInstanceUID
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION)
    meta.ImplementationVersionName = "DERMEDGE"

    def written(plain: bool) -> bytes:
        whole = FileDataset("", ds, file_meta=meta, preamble=b"\0" * 128)
        out = io.BytesIO()
        pydicom.dcmwrite(out, whole, enforce_file_format=not plain)
        return out.getvalue()

    ds.SOPInstanceUID = uid(
        "instance", referral.id, str(series.number), *names, written(plain=True)
    )
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return Instance(
        str(ds.SOPInstanceUID),
        str(ds.SOPClassUID),
        series,
        str(ds.SeriesInstanceUID),
        written(plain=False),
    )


def coded(code: Code) -> Dataset:
    """A code as an item of a sequence."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def place(referral: Referral) -> Dataset:
    """The lesion's place as an item of Anatomic Region Sequence."""
    item = coded(codes.site(referral.lesion.site))
    side = codes.side(referral.lesion.site)
    if side is not None:
        item.AnatomicRegionModifierSequence = [coded(side)]
    return item


def _patient(ds: Dataset, referral: Referral) -> None:
    ds.PatientName = f"{referral.pseudonym}^" if referral.pseudonymous else ""
    ds.PatientID = referral.patient_id
    ds.PatientBirthDate = ""
    ds.PatientSex = {"female": "F", "male": "M", "other": "O"}.get(referral.sex or "", "")
    if referral.age is not None:
        ds.PatientAge = f"{referral.age:03d}Y"
    if referral.pseudonymous:
        ds.PatientIdentityRemoved = "YES"
        ds.DeidentificationMethod = "Allow-list; question as typed, checked for the name"
        ds.DeidentificationMethodCodeSequence = [
            coded(codes.standard(7050, name)) for name in _DEIDENTIFIED
        ]
        ds.LongitudinalTemporalInformationModified = "UNMODIFIED"
        return
    first, *others = referral.identifiers
    ds.IssuerOfPatientIDQualifiersSequence = [_issuer(first)]
    if others:
        ds.OtherPatientIDsSequence = [_other(identifier) for identifier in others]


def _other(identifier: Identifier) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.PatientID = identifier.value
    item.TypeOfPatientID = "TEXT"
    item.IssuerOfPatientIDQualifiersSequence = [_issuer(identifier)]
    return item


def _issuer(identifier: Identifier) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    scheme, _, rest = identifier.system.removeprefix("urn:").partition(":")
    known = {"oid": "ISO", "uuid": "UUID"}.get(scheme)
    item.UniversalEntityID = rest if known else identifier.system
    item.UniversalEntityIDType = known or "URI"
    return item


def _scheme() -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodingSchemeDesignator = codes.SCHEME
    item.CodingSchemeName = codes.SCHEME_NAME
    item.CodingSchemeResponsibleOrganization = "dermedge"
    return item


# ---------------------------------------------------------------------------- pictures


def _image(ds: Dataset, referral: Referral, picture: ReferredPicture) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.PatientOrientation = ""
    taken = None if picture.taken is None else picture.taken.astimezone(referral.created.tzinfo)
    if taken is not None:
        ds.ContentDate, ds.ContentTime = _date(taken), _time(taken)
        ds.AcquisitionDateTime = taken.strftime("%Y%m%d%H%M%S%z")[:19]
    ds.ImageComments = KINDS[picture.kind]
    ds.AnatomicRegionSequence = [place(referral)]
    ds.ImageLaterality = codes.laterality(referral.lesion.site)
    ds.AcquisitionContextSequence = []
    ds.RecognizableVisualFeatures = "NO" if picture.recognizable is False else "YES"
    # Not in today's tables of these IODs, but dciodvfy misses them.
    ds.FrameOfReferenceUID = uid("frame of reference", referral.id, picture.id)
    ds.PositionReferenceIndicator = ""
    if picture.px_per_mm is not None:
        ds.PixelSpacing = [spacing(picture), spacing(picture)]


def _dermoscopic(ds: Dataset, referral: Referral, picture: ReferredPicture) -> None:
    scope = picture.dermoscope
    contact = None if scope is None else scope.contact
    polarized = None if scope is None else scope.polarized
    words = {None: "", True: "POLARIZED", False: "NON_POLARIZED"}
    ds.LightSourcePolarization = words[polarized]
    ds.EmitterColorTemperature = None
    ds.ContactMethod = {None: "", True: "CONTACT", False: "NON_CONTACT"}[contact]
    if contact and scope is not None:
        ds.ImmersionMedia = scope.immersion or ""
    ds.OpticalMagnificationFactor = None
    ds.TrackingID = tracking_id(referral)
    ds.TrackingUID = referral.lesion.tracking_uid


def tracking_id(referral: Referral) -> str:
    """What people may call the lesion: the end of its tracking UID."""
    return f"lesion {referral.lesion.tracking_uid[-8:]}"


def spacing(picture: ReferredPicture) -> str:
    """Millimetres for a pixel, as DICOM's Decimal String (at most 16 characters)."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(1 / float(picture.px_per_mm or 1))


def _encode(ds: Dataset, pixels: np.ndarray, lossy: bool) -> str:
    """Put the pixels in; returns the transfer syntax."""
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel, ds.PlanarConfiguration = 3, 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    frame = _jpeg(pixels) if lossy else _jpeg_ls(pixels)
    if lossy:
        ds.PhotometricInterpretation = "YBR_FULL_422"
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionRatio = f"{pixels.nbytes / len(frame):.2f}"
        ds.LossyImageCompressionMethod = "ISO_10918_1"
    else:
        ds.PhotometricInterpretation = "RGB"
        ds.LossyImageCompression = ""  # a camera or a JPEG may have lost some before: not known
    from pydicom.encaps import encapsulate

    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return _JPEG if lossy else _JPEG_LS


def _jpeg_ls(pixels: np.ndarray) -> bytes:
    import jpeg_ls

    return bytes(jpeg_ls.encode_array(pixels, interleave_mode=2))


def _jpeg(pixels: np.ndarray) -> bytes:
    import simplejpeg

    return simplejpeg.encode_jpeg(
        pixels, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="422"
    )


def _date(when: datetime) -> str:
    return when.strftime("%Y%m%d")


def _time(when: datetime) -> str:
    return when.strftime("%H%M%S")
