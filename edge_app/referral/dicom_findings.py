"""What the model found as DICOM: the outline as SEG, measures and history as Comprehensive SR.

SEG: BINARY, one segment, of the outlines filled. Three functional groups are added that a colour
photograph has no values for, because OHIF 3.13 shows none of the study without them.
SR: TID 1500 with a group after TID 1410 for each outline, its region as SCOORD, not verified and
preliminary. History and question follow as containers of their own (TID 1500 is extensible).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from dermedge import DISCLAIMER, __version__
from edge_app.presentation.estimate import OUT_OF_DISTRIBUTION
from edge_app.referral import codes
from edge_app.referral.dicom import (
    EXPLICIT,
    MEASURES,
    NOT_STATED,
    Instance,
    Series,
    describe,
    place,
    sealed,
    spacing,
    tracking_id,
)
from edge_app.referral.form import (
    DARK_SKIN,
    DEMONSTRATION,
    Findings,
    Outline,
    Referral,
    ReferredPicture,
)
from edge_app.referral.history import GROUPS, QUESTIONS
from edge_app.referral.uids import uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    Source = tuple[ReferredPicture, Dataset]

_SUBPIXEL = 4  # bits after the point of coordinates that OpenCV fills by
_EQUIPMENT: dict[str, Any] = {
    "manufacturer": "dermedge",
    "manufacturer_model_name": "dermedge edge_app",
    "software_versions": __version__,
    "device_serial_number": NOT_STATED,
}


def filled(outlines: Sequence[Outline], shape: tuple[int, int]) -> np.ndarray:
    """bool (h, w): the pixels within any of the outlines, those on them included."""
    mask = np.zeros(shape, np.uint8)
    for outline in outlines:
        points = np.round(np.array(outline) * (1 << _SUBPIXEL)).astype(np.int32)
        cv2.fillPoly(mask, [points], 1, shift=_SUBPIXEL)
    return mask > 0


# ---------------------------------------------------------------------------- the outline


def outline_instance(
    referral: Referral, picture: ReferredPicture, source: Dataset, number: int
) -> Instance:
    """The outlines of a picture as SEG; the picture must have some.

    Parameters
    ----------
    source : the picture's dataset, sealed. number : of the picture, from 1.
    """
    import highdicom

    series = Series(100 + number, "SEG", "Outline by a model, for research")

    found = picture.findings
    assert found is not None
    known = picture.px_per_mm is not None
    apart = float(spacing(picture)) if known else 1.0
    segmentation = highdicom.seg.Segmentation(
        source_images=[source],
        pixel_array=filled(found.outlines, (source.Rows, source.Columns)).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[_segment(referral, found)],
        series_instance_uid=source.SeriesInstanceUID,
        series_number=series.number,
        sop_instance_uid=uid("unsealed", referral.id, picture.id),
        instance_number=1,
        content_label="LESION",
        content_description="Outline of the lesion by a model"
        if known
        else "Outline; size of a pixel not known, 1 mm stands for it",
        pixel_measures=highdicom.PixelMeasuresSequence((apart, apart), slice_thickness=1.0),
        omit_empty_frames=False,
        **_EQUIPMENT,
    )
    if not segmentation.LossyImageCompression:  # it must say so of itself
        segmentation.LossyImageCompression = "00"
    _place_in_space(segmentation)
    describe(segmentation, referral, series)
    segmentation.ContentDate = segmentation.InstanceCreationDate
    segmentation.ContentTime = segmentation.InstanceCreationTime
    organization = uid("dimensions", referral.id, picture.id)
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in segmentation.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    return sealed(segmentation, referral, series, EXPLICIT, picture.id)


def _segment(referral: Referral, found: Findings) -> Any:
    import highdicom

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=found.bundle[:64],
        family=codes.standard(7162, "ArtificialIntelligence"),
        version=found.bundle_sha256[:16],
        source="dermedge",
    )
    description: Dataset = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Skin lesion",
        segmented_property_category=codes.standard("SCT", "MorphologicallyAbnormalStructure"),
        segmented_property_type=codes.standard("SCT", "SkinLesion"),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=referral.lesion.tracking_uid,
        tracking_id=tracking_id(referral),
    )
    description.AnatomicRegionSequence = [place(referral)]
    return description


def _place_in_space(segmentation: Dataset) -> None:
    """The functional groups without which OHIF fails; a photograph lies in a plane of its own."""
    from pydicom.dataset import Dataset

    orientation, position = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    position.ImagePositionPatient = [0, 0, 0]
    segmentation.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [orientation]
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence = [position]
    segmentation.PatientOrientation = ""


# ---------------------------------------------------------------------------- measures and history


def measures_instance(referral: Referral, sources: Sequence[Source]) -> Instance:
    """Measures of all pictures, history, question and priority as Comprehensive SR.

    Parameters
    ----------
    sources : each picture and its dataset, sealed.
    """
    import highdicom
    from highdicom import sr

    observer = sr.ObserverContext(
        observer_type=sr.CodedConcept.from_code(codes.standard("DCM", "Device")),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid("software", __version__), name="dermedge", manufacturer_name="dermedge"
        ),
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.standard("SCT", "ImagingProcedure"),
        imaging_measurements=[
            group
            for number, source in enumerate(sources, 1)
            for group in _groups(referral, number, *source)
        ],
    )
    report[0].ContentSequence.extend(_clinical(referral))
    document = highdicom.sr.ComprehensiveSR(
        evidence=[dataset for _, dataset in sources],
        content=report[0],
        series_instance_uid=uid("unsealed", referral.id),
        series_number=MEASURES.number,
        sop_instance_uid=uid("unsealed", referral.id),
        instance_number=1,
        manufacturer="dermedge",
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    describe(document, referral, MEASURES)
    document.ContentDate = document.InstanceCreationDate
    document.ContentTime = document.InstanceCreationTime
    return sealed(document, referral, MEASURES, EXPLICIT)


def _groups(
    referral: Referral, number: int, picture: ReferredPicture, source: Dataset
) -> Iterator[Any]:
    """A measurement group for each outline, or for the picture where there is none.

    The measures are of all outlines together; they stand with the first, the largest.
    """
    from highdicom import sr

    found = picture.findings
    common: dict[str, Any] = {
        "finding_type": codes.standard("SCT", "SkinLesion"),
        "finding_sites": [_site(referral)],
    }
    if found is not None:
        common["algorithm_id"] = sr.AlgorithmIdentification(
            found.bundle[:64], found.bundle_sha256, manufacturer="dermedge"
        )
    outlines = () if found is None else found.outlines
    largest = sorted(outlines, key=lambda it: -cv2.contourArea(np.array(it, np.float32)))
    origin = (source.SOPClassUID, source.SOPInstanceUID)
    for count in range(max(len(largest), 1)):
        of_all = {}
        if count == 0 and found is not None:
            of_all["measurements"] = _measurements(found, picture) or None
            of_all["qualitative_evaluations"] = _evaluations(found)
        name = tracking_id(referral) + (f", part {count + 1}" if count else "")
        parts = {"tracking_identifier": _tracking(referral, name, count), **common, **of_all}
        if largest:
            # In DICOM a pixel's centre lies half a pixel from where it begins.
            points = np.array([*largest[count], largest[count][0]]) + 0.5
            region = sr.ImageRegion("POLYLINE", points, sr.SourceImageForRegion(*origin))
            group: Any = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                referenced_region=region, **parts
            )
        else:
            group = sr.MeasurementsAndQualitativeEvaluations(
                source_images=[sr.SourceImageForMeasurementGroup(*origin)], **parts
            )
        group[0].ContentSequence.extend(_comments(found, number, picture) if not count else [])
        yield group


def _tracking(referral: Referral, name: str, part: int) -> Any:
    from highdicom import sr

    whole = referral.lesion.tracking_uid
    return sr.TrackingIdentifier(whole if not part else uid("part", whole, str(part)), name)


def _site(referral: Referral) -> Any:
    from highdicom import sr

    return sr.FindingSite(codes.site(referral.lesion.site), codes.side(referral.lesion.site))


def _measurements(found: Findings, picture: ReferredPicture) -> list[Any]:
    from highdicom import sr

    one = codes.standard("UCUM", "NoUnits")
    items = [
        sr.Measurement(codes.private(name), round(float(value), 6), one)
        for name, value in codes.measures(found).items()
    ]
    if found.judged and found.diameter_mm is not None:
        name, unit = codes.standard("SCT", "LongAxis"), codes.standard("UCUM", "Millimeter")
        items.append(sr.Measurement(name, round(float(found.diameter_mm), 3), unit))
    if found.judged and found.outlines and picture.px_per_mm is not None:
        area = found.area_px / picture.px_per_mm**2
        name, unit = codes.standard("SCT", "Area"), codes.standard("UCUM", "SquareMillimeter")
        items.append(sr.Measurement(name, round(area, 3), unit))
    return items


def _evaluations(found: Findings) -> list[Any]:
    from highdicom import sr

    items = [sr.QualitativeEvaluation(codes.private("advice"), codes.private(found.triage))]
    if found.judged:
        name = codes.standard("DCM", "SkinLesionColor")
        values = dict.fromkeys(codes.color(color) for color in found.colors)
        items += [sr.QualitativeEvaluation(name, value) for value in values]
    return items


def _comments(found: Findings | None, number: int, picture: ReferredPicture) -> Iterator[Any]:
    """What the numbers must not be read without, in English."""
    lines = [f"Picture {number}: {picture.kind.replace('_', '-')}.", DISCLAIMER]
    if found is None:
        lines[1:] = ["No estimate was made."]
    else:
        lines.append(f"Rule: {found.rule}.")
        if found.remarks:
            lines.append(f"Picture quality: {' '.join(found.remarks)}")
        if found.unfamiliar:
            lines.append(OUT_OF_DISTRIBUTION)
        if found.demonstration:
            lines.append(DEMONSTRATION)
    for line in lines:
        yield _text(codes.standard("DCM", "Comment"), line)


def _clinical(referral: Referral) -> Iterator[Any]:
    """History, question and priority."""
    answers = dict(referral.answers)
    for group in GROUPS:
        keys = [key for key, question in QUESTIONS.items() if question.group == group]
        items = [_code(codes.question(k), codes.yes_no(answers[k])) for k in keys if k in answers]
        if group == "lesion" and referral.onset:
            items.append(_code(codes.private("onset"), codes.private(f"onset-{referral.onset}")))
        if group == "own" and referral.skin_type:
            value = codes.private(f"skin-type-{referral.skin_type}")
            items.append(_code(codes.private("skin-type"), value))
            if referral.skin_type in (5, 6):
                items.append(_text(codes.standard("DCM", "Comment"), DARK_SKIN))
        if items:
            yield _container(codes.private(f"history-{group}"), items)
    request = [_code(codes.private("priority"), codes.private(f"priority-{referral.priority}"))]
    if referral.question.strip():
        request.append(_text(codes.standard("DCM", "Comment"), referral.question))
    yield _container(codes.standard("LN", "Request"), request)


def _container(name: Any, items: list[Any]) -> Any:
    from highdicom import sr

    container = sr.ContainerContentItem(name=name, relationship_type="CONTAINS")
    container.ContentSequence = sr.ContentSequence(items)
    return container


def _code(name: Any, value: Any) -> Any:
    from highdicom import sr

    return sr.CodeContentItem(name=name, value=value, relationship_type="CONTAINS")


def _text(name: Any, value: str) -> Any:
    from highdicom import sr

    return sr.TextContentItem(name=name, value=value, relationship_type="CONTAINS")
