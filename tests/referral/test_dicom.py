"""What is sent as DICOM: valid, exact, and no byte of it by chance."""

from __future__ import annotations

import io
import itertools
import re
import shutil
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("jpeg_ls")
import referrals  # noqa: E402

from edge_app.presentation.body_map import REGIONS  # noqa: E402
from edge_app.referral import codes  # noqa: E402
from edge_app.referral.dicom import picture_instance  # noqa: E402
from edge_app.referral.dicom_findings import filled, outline_instance  # noqa: E402
from edge_app.referral.form import Dermoscope, Identifier  # noqa: E402
from edge_app.referral.parcels import Options, build  # noqa: E402

DICOM = Options(fhir=False)
IDENTIFIED = (Identifier("urn:oid:1.2.3.4", "MRN-77"), Identifier("https://x.example/id", "9"))
WARNINGS = (  # of dciodvfy and dcentvfy, all that there may be
    # Supplement 221's modality, which its table does not know.
    "Unrecognized defined term <DMS> for value 1 of attribute <Modality>",
    # Our private scheme, which is declared in Coding Scheme Identification Sequence.
    "Unrecognized defined term <99DERMEDGE> for value 1 of attribute <Coding Scheme Designator>",
    # A photograph's frame of reference, by which viewers lay the outline onto it.
    "Attribute is not present in standard DICOM IOD - (0x0020,0x0052) UI Frame of Reference UID",
    "Attribute is not present in standard DICOM IOD - (0x0020,0x1040) LO Position Reference",
    "Dicom dataset contains attributes not present in standard DICOM IOD - this is a Standard",
    # Encapsulated documents have it elsewhere in its tables.
    "Different information entities for attribute - Element=<AccessionNumber>",
)
KINDS = {  # SOP class: what its tags may be
    "photographs": "1.2.840.10008.5.1.4.1.1.77.1.4",
    "dermoscopy": "1.2.840.10008.5.1.4.1.1.77.1.7",
    "outline": "1.2.840.10008.5.1.4.1.1.66.4",
    "measures": "1.2.840.10008.5.1.4.1.1.88.33",
    "report": "1.2.840.10008.5.1.4.1.1.104.1",
}


def program(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (dicom3tools)")
    return found


def read(parcel) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(parcel.data))


def complaints(parcels, folder: Path) -> list[str]:
    """Every line of dciodvfy and dcentvfy that is no expected warning."""
    files = []
    for parcel in parcels:
        files.append(folder / f"{parcel.sequence}.dcm")
        files[-1].write_bytes(parcel.data)
    runs = [[program("dciodvfy"), file] for file in files] + [[program("dcentvfy"), *files]]
    found = []
    for run in runs:
        done = subprocess.run(run, capture_output=True, text=True)
        lines = (done.stdout + done.stderr).splitlines()
        found += [line for line in lines if line.startswith(("Error", "Warning"))]
        if done.returncode and not any(line.startswith("Error") for line in lines):
            found.append(f"{run} ended with {done.returncode}")
    return [line for line in found if not any(known in line for known in WARNINGS)]


def varied(site: str, number: int):
    """Of one region: every kind with the scale known and not, and the rest in turn."""
    scopes = (None, Dermoscope(True, True, "WATER"), Dermoscope(True, False), Dermoscope(False))
    pictures = tuple(
        referrals.picture(
            kind,
            seed,
            px_per_mm=scale,
            taken=None if (seed + number) % 3 == 0 else referrals.WHEN,
            dermoscope=scopes[(seed + number) % 4] if kind == "dermoscopic" else None,
            recognizable=(None, True, False)[(seed + number) % 3],
            findings=(
                referrals.findings(),
                None,
                referrals.findings(triage="retake"),
                referrals.findings(outlines=(), area_px=0.0, diameter_mm=None, colors=()),
            )[(seed + number // 2) % 4],
        )
        for seed, (kind, scale) in enumerate(
            itertools.product(("overview", "close_up", "dermoscopic"), (12.5, None)), 1
        )
    )
    return referrals.referral(
        number + 1,
        lesion=replace(referrals.referral().lesion, site=site),
        pictures=pictures,
        identifiers=IDENTIFIED if number % 2 else (),
        birth_year=(1900, None, 2020, 1971)[number % 4],
        sex=("female", "male", "other", None)[number % 4],
        skin_type=(None, 1, 6)[number % 3],
        answers=referrals.referral().answers if number % 3 else (),
        onset=None if number % 2 else "years",
        question="" if number % 5 == 0 else "Größe?",
        report=b"" if number % 4 == 3 else referrals.PDF,
    )


@pytest.mark.parametrize(
    ("site", "lossy"), [("left palm", False), ("genital area", True), ("right calf", False)]
)
def test_validators_find_nothing(site, lossy, tmp_path):
    parcels = build(varied(site, REGIONS.index(site)), Options(fhir=False, lossy=lossy))
    assert complaints(parcels, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(REGIONS)))
def test_validators_find_nothing_in_any_region(number, tmp_path):
    parcels = build(varied(REGIONS[number], number), DICOM)
    assert len(parcels) >= 8
    assert complaints(parcels, tmp_path) == []


def test_the_validators_would_find_something(tmp_path):
    first = build(referrals.referral(), DICOM)[2]
    broken = read(first)
    del broken.RecognizableVisualFeatures
    out = io.BytesIO()
    broken.save_as(out)
    assert complaints([replace(first, data=out.getvalue())], tmp_path)


def test_every_region_has_a_code_of_cid_4029():
    assert set(codes.SITES) == set(REGIONS)
    for region in REGIONS:
        code = codes.site(region)
        assert code.scheme_designator in ("SCT", "DCM")
        side = codes.laterality(region)
        assert (side == "L") == ("left" in region)
        assert (side == "R") == ("right" in region)


def test_private_codes_fit_their_elements():
    for private in codes.PRIVATE.values():
        assert 0 < len(private.value) <= 16
        assert 0 < len(private.meaning) <= 64
    assert len({it.value for it in codes.PRIVATE.values()}) == len(codes.PRIVATE)


@settings(max_examples=15)
@given(st.integers(16, 90), st.integers(16, 90), st.integers(0, 2**32 - 1), st.booleans())
def test_lossless_pixels_are_the_stored_ones(height, width, seed, stored):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = pixels
    if stored:
        image = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
    picture = referrals.picture("close_up", image=image, findings=None)
    instance, _ = picture_instance(referrals.referral(pictures=(picture,)), picture, 1)
    ds = read(instance)
    assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.80"
    assert (ds.pixel_array == pixels).all()
    assert ds.LossyImageCompression == ""  # a camera's own coding may have lost some


def test_lossy_pixels_say_so():
    picture = referrals.picture("close_up", findings=None)
    ds = read(build(referrals.referral(pictures=(picture,)), Options(fhir=False, lossy=True))[0])
    assert ds.LossyImageCompression == "01"
    assert ds.LossyImageCompressionMethod == "ISO_10918_1"
    assert float(ds.LossyImageCompressionRatio) > 1
    frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(frame, np.uint8), 1), cv2.COLOR_BGR2RGB)
    assert decoded.shape == (96, 128, 3)
    # 4:2:2 of noise loses colour, not brightness.
    gray = [cv2.cvtColor(it, cv2.COLOR_RGB2GRAY).astype(int) for it in (decoded, picture.pixels())]
    assert abs(gray[0] - gray[1]).mean() < 12


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@example(315, 3)
def test_the_outline_is_the_mask_pixel_for_pixel(seed, count):
    """Outlines that were found on a mask give it back; SEG holds just that."""
    random = np.random.default_rng(seed)
    mask = np.zeros((70, 90), np.uint8)
    for _ in range(count):
        center, axes = random.integers(0, 90, 2), random.integers(1, 25, 2)
        angle = int(random.integers(0, 180))
        cv2.ellipse(mask, center.tolist(), axes.tolist(), angle, 0, 360, 1, -1)
    # An outer outline has no holes: what the surroundings do not reach is inside. Pixels of the
    # lesion touch by corners, so those of the surroundings do not.
    around = np.pad(mask, 1)
    cv2.floodFill(around, None, (0, 0), 2, flags=4)
    mask = (around[1:-1, 1:-1] != 2).astype(np.uint8)
    contours = referrals.outlines(mask > 0)
    assert (filled(contours, mask.shape) == (mask > 0)).all()
    picture = referrals.picture(
        "close_up",
        image=referrals.drawn(1, mask.shape),
        findings=referrals.findings(outlines=contours),
    )
    referral = referrals.referral(pictures=(picture,))
    _, source = picture_instance(referral, picture, 1)
    ds = read(outline_instance(referral, picture, source, 1))
    assert (ds.pixel_array.reshape(mask.shape) == mask).all()


def test_measures_hold_the_outline_and_what_must_be_read_with_them():
    referral = referrals.referral()
    parcels = build(referral, DICOM)
    ds = next(it for it in map(read, parcels) if it.SOPClassUID == KINDS["measures"])
    assert ds.VerificationFlag == "UNVERIFIED"
    assert ds.PreliminaryFlag == "PRELIMINARY"
    assert ds.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99DERMEDGE"
    dump = "\n".join(it.TextValue for it in _items(ds, "TEXT"))
    assert "not a diagnosis" in dump
    assert "Demonstration model" in dump
    assert referral.question.splitlines()[0] in dump
    images = {it.SOPInstanceUID for it in map(read, parcels[:3])}
    regions = list(_items(ds, "SCOORD"))
    assert len(regions) == 4  # two pictures with two outlines each
    outline = max(referral.pictures[1].findings.outlines, key=len)
    points = np.array(regions[0].GraphicData).reshape(-1, 2)
    assert np.allclose(points, np.array([*outline, outline[0]]) + 0.5)
    for region in regions:
        assert region.GraphicType == "POLYLINE"
        source = region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        assert source in images
    numbers = {
        it.ConceptNameCodeSequence[0].CodeValue: float(it.MeasuredValueSequence[0].NumericValue)
        for it in _items(ds, "NUM")
    }
    assert numbers["risk"] == pytest.approx(0.372)
    assert numbers["class-mel"] == pytest.approx(0.372)
    assert numbers["103339001"] == pytest.approx(6.25)
    answers = {
        (it.ConceptNameCodeSequence[0].CodeValue, it.ConceptCodeSequence[0].CodeMeaning)
        for it in _items(ds, "CODE")
    }
    assert ("418363000", "No") in answers  # itching: the sixth question
    assert ("priority", "Urgent") in answers


def test_a_picture_that_cannot_be_judged_sends_no_numbers():
    picture = referrals.picture(findings=referrals.findings(triage="retake"))
    parcels = build(referrals.referral(pictures=(picture,)), DICOM)
    ds = next(it for it in map(read, parcels) if it.SOPClassUID == KINDS["measures"])
    assert list(_items(ds, "NUM")) == []
    assert "cannot be judged" in str(ds)


def _items(ds, kind):
    for item in ds.get("ContentSequence", []):
        if item.ValueType == kind:
            yield item
        yield from _items(item, kind)


def test_the_same_referral_gives_the_same_bytes_and_another_other_names():
    first, again = build(referrals.referral(), DICOM), build(referrals.referral(), DICOM)
    assert first == again
    assert [it.sequence for it in first] == list(range(len(first)))
    for parcel in first:
        assert read(parcel).SOPInstanceUID == parcel.uid
        assert re.fullmatch(r"2\.25\.\d{1,39}", parcel.uid)
        assert uuid.UUID(int=int(parcel.uid[5:]))
    changed = referrals.picture("close_up", 2, image=referrals.drawn(9))
    pictures = (referrals.referral().pictures[0], changed, referrals.referral().pictures[2])
    other = build(referrals.referral(pictures=pictures), DICOM)
    same = {it.uid for it in first} & {it.uid for it in other}
    assert same == {it.uid for it in first if it in other}
    assert first[1].uid not in same
    assert read(first[0]).StudyInstanceUID == read(other[0]).StudyInstanceUID
    lossy = build(referrals.referral(), Options(fhir=False, lossy=True))
    assert not {it.uid for it in first[:3]} & {it.uid for it in lossy}


def test_pictures_come_first_and_the_page_last():
    kinds = [read(it).SOPClassUID for it in build(referrals.referral(), DICOM)]
    names = {uid: name for name, uid in KINDS.items()}
    assert [names[it] for it in kinds] == [
        "photographs", "photographs", "dermoscopy", "outline", "outline", "measures", "report",
    ]  # fmt: skip


def test_a_pseudonymous_picture_has_these_elements_and_no_others():
    parcels = build(referrals.referral(), DICOM)
    common = [
        "SpecificCharacterSet",
        "ImageType",
        "InstanceCreationDate",
        "InstanceCreationTime",
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyDate",
        "ContentDate",
        "AcquisitionDateTime",
        "StudyTime",
        "ContentTime",
        "AccessionNumber",
        "Modality",
        "Manufacturer",
        "ReferringPhysicianName",
        "TimezoneOffsetFromUTC",
        "StudyDescription",
        "SeriesDescription",
        "ManufacturerModelName",
        "AnatomicRegionSequence",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "PatientAge",
        "PatientIdentityRemoved",
        "DeidentificationMethod",
        "DeidentificationMethodCodeSequence",
        "DeviceSerialNumber",
        "SoftwareVersions",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "StudyID",
        "SeriesNumber",
        "InstanceNumber",
        "PatientOrientation",
        "FrameOfReferenceUID",
        "ImageLaterality",
        "PositionReferenceIndicator",
        "ImageComments",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "PlanarConfiguration",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "RecognizableVisualFeatures",
        "LongitudinalTemporalInformationModified",
        "LossyImageCompression",
        "AcquisitionContextSequence",
        "PixelData",
    ]
    scope = [
        "LightSourcePolarization",
        "EmitterColorTemperature",
        "ContactMethod",
        "ImmersionMedia",
        "OpticalMagnificationFactor",
        "TrackingID",
        "TrackingUID",
        "PixelSpacing",
    ]
    for number, allowed in ((0, common), (2, common + scope)):
        assert {element.keyword for element in read(parcels[number])} == set(allowed)
    ds = read(parcels[2])
    assert ds.PatientID == referrals.referral().pseudonym
    assert ds.PatientAge == "055Y"
    assert ds.PatientBirthDate == ""
    assert ds.PatientIdentityRemoved == "YES"
    assert ds.DeviceSerialNumber == "not stated"
    assert [float(it) for it in ds.PixelSpacing] == pytest.approx([1 / 17.3] * 2)
    assert ds.TrackingUID == referrals.referral().lesion.tracking_uid


def test_identifiers_of_the_receiver_are_the_patient():
    ds = read(build(referrals.referral(identifiers=IDENTIFIED), DICOM)[0])
    assert ds.PatientID == "MRN-77"
    issuer = ds.IssuerOfPatientIDQualifiersSequence[0]
    assert (issuer.UniversalEntityID, issuer.UniversalEntityIDType) == ("1.2.3.4", "ISO")
    other = ds.OtherPatientIDsSequence[0]
    assert other.PatientID == "9"
    assert other.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityIDType == "URI"
    assert "PatientIdentityRemoved" not in ds
    assert referrals.referral().pseudonym not in str(ds)


def test_old_age_is_not_told():
    ds = read(build(referrals.referral(birth_year=1925), DICOM)[0])
    assert ds.PatientAge == "090Y"


def test_nothing_heavy_is_loaded_before_it_is_used():
    code = (
        "import sys, edge_app.referral.parcels, edge_app.referral.answers_dicom;"
        "print(sorted({'kivy','pydicom','highdicom','jpeg_ls','requests','pynetdicom','fpdf'}"
        " & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr
