"""The FHIR transaction: valid in two validators, refused by our own check where it is not."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import replace
from datetime import timedelta
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pydicom", reason="codes are read from its tables")
from referrals import WHEN, findings, picture, referral

from dermedge.taxonomy import CLASSES
from dermedge.triage import TRIAGE
from edge_app.presentation.body_map import REGIONS
from edge_app.referral import consent, fhir
from edge_app.referral.dicom import Instance, Series
from edge_app.referral.fhir_check import CODES, REQUIRED, faults
from edge_app.referral.form import (
    AGE_GROUPS,
    KINDS,
    PRIORITIES,
    SEXES,
    Identifier,
    ReferredLesion,
)
from edge_app.referral.history import ONSETS, QUESTIONS
from edge_app.referral.parcels import Options, build
from edge_app.referral.uids import tracking_uid

TINY = np.full((16, 16, 3), 90, np.uint8)
words = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40)
shares = st.floats(0, 1)


@st.composite
def found(draw):
    return findings(
        triage=draw(st.sampled_from(TRIAGE)),
        malignancy=draw(shares),
        probabilities=tuple(
            (name, draw(shares)) for name in draw(st.sets(st.sampled_from(CLASSES)))
        ),
        unfamiliar=draw(st.booleans()),
        demonstration=draw(st.booleans()),
    )


@st.composite
def pictures(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4))
    return tuple(
        picture(
            kind,
            seed,
            image=TINY,
            px_per_mm=draw(st.none() | st.floats(0.01, 5000)),
            taken=draw(st.none() | st.just(WHEN)),
            findings=draw(st.none() | found()),
        )
        for seed, kind in enumerate(kinds, 1)
    )


@st.composite
def cases(draw):
    """Referrals of every form that may be sent."""
    year = draw(st.none() | st.integers(1900, 2026))
    value = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=64)
    identifier = st.builds(
        Identifier,
        st.sampled_from(("urn:oid:1.2.3", "https://clinic.example/mrn")),
        value.filter(lambda it: it == it.strip() and "\\" not in it and it.isprintable()),
    )
    zone = timedelta(minutes=15 * draw(st.integers(-48, 56)))
    return referral(
        draw(st.integers(1, 2**64)),
        created=WHEN.astimezone(type(WHEN.tzinfo)(zone)),
        lesion=ReferredLesion(draw(st.sampled_from(REGIONS)), tracking_uid("x")),
        pictures=draw(pictures()),
        consent=consent.Consent.to("2026-11", draw(st.sampled_from(("en", "de", "ar"))), WHEN),
        identifiers=tuple(draw(st.lists(identifier, max_size=2))),
        birth_year=year,
        age_group=None if year else draw(st.none() | st.sampled_from(AGE_GROUPS)),
        sex=draw(st.none() | st.sampled_from(SEXES)),
        skin_type=draw(st.none() | st.integers(1, 6)),
        onset=draw(st.none() | st.sampled_from(sorted(ONSETS))),
        answers=tuple(
            (key, draw(st.booleans()))
            for key in draw(st.lists(st.sampled_from(sorted(QUESTIONS)), unique=True))
        ),
        priority=draw(st.sampled_from(sorted(PRIORITIES))),
        question=draw(words),
        report=draw(st.sampled_from((b"", b"%PDF-1.4 x"))),
    )


@pytest.fixture(scope="module")
def validators():
    pyfhircheck = pytest.importorskip("pyfhircheck")
    models = pytest.importorskip("fhir.resources.R4B.bundle")
    return pyfhircheck.Validator(), models.Bundle


def check(bundle: dict, validators) -> list[str]:
    """What the two validators find."""
    checker, model = validators
    issues = [str(it) for it in checker.validate_resource(copy.deepcopy(bundle)).issues]
    try:
        model.model_validate(bundle)
    except ValueError as error:
        issues.append(str(error))
    return issues


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(cases(), st.booleans())
def test_validators_find_nothing(validators, case, lossy):
    uid, data = fhir.transaction(case, (), lossy)
    bundle = json.loads(data)
    assert bundle["identifier"]["value"] == uid
    assert check(bundle, validators) == []
    assert faults(bundle) == []


@pytest.mark.slow
@settings(max_examples=1000, suppress_health_check=list(HealthCheck))
@given(cases(), st.booleans())
def test_validators_find_nothing_in_a_thousand(validators, case, lossy):
    assert check(json.loads(fhir.transaction(case, (), lossy)[1]), validators) == []


def test_validators_find_nothing_beside_a_study(validators):
    pytest.importorskip("highdicom")
    parcels = build(referral())
    bundle = json.loads(parcels[-1].data)
    assert check(bundle, validators) == []
    study = next(it["resource"] for it in bundle["entry"] if "Study" in it["request"]["url"])
    uids = [instance["uid"] for series in study["series"] for instance in series["instance"]]
    assert uids == [parcel.uid for parcel in parcels[:-1]]
    assert parcels[-1].kind == "fhir"


@pytest.fixture
def bundle() -> dict:
    return json.loads(fhir.transaction(referral())[1])


def with_study() -> dict:
    series = Series(1, "DMS", "Dermoscopic picture")
    instance = Instance("2.25.7", "1.2.840.10008.5.1.4.1.1.77.1.7", series, "2.25.8", b"")
    return json.loads(fhir.transaction(referral(), [instance])[1])


def resource(bundle: dict, kind: str) -> dict:
    return next(it["resource"] for it in bundle["entry"] if it["request"]["url"] == kind)


@pytest.mark.parametrize(("kind", "name"), sorted(CODES))
@pytest.mark.parametrize("code", ["sent", "", None, "Active", 7])
def test_a_wrong_code_is_refused(bundle, kind, name, code):
    bundle = with_study() if kind == "ImagingStudy" else bundle
    assert not faults(bundle)
    resource(bundle, kind)[name] = code
    assert faults(bundle)


@pytest.mark.parametrize(
    ("kind", "name"),
    sorted((kind, name) for kind, names in REQUIRED.items() for name in names),
)
def test_a_missing_element_is_refused(bundle, kind, name):
    bundle = with_study() if kind == "ImagingStudy" else bundle
    for part in name.split("|"):
        resource(bundle, kind).pop(part, None)
    assert faults(bundle)


def test_a_subject_that_is_nobody_is_refused(bundle):
    device = next(it["fullUrl"] for it in bundle["entry"] if it["request"]["url"] == "Device")
    count = 0
    for kind, name in (
        ("ServiceRequest", "subject"), ("Task", "for"), ("RiskAssessment", "subject"),
        ("BodyStructure", "patient"), ("Consent", "patient"), ("Observation", "subject"),
        ("DocumentReference", "subject"),
    ):  # fmt: skip
        for wrong in (device, "urn:uuid:00000000-0000-0000-0000-000000000000", "Patient/1", ""):
            broken = copy.deepcopy(bundle)
            resource(broken, kind)[name] = {"reference": wrong}
            assert faults(broken), (kind, wrong)
            count += 1
    assert count == 28


def test_what_would_be_made_twice_or_lost_is_refused(bundle):
    def broken(change) -> bool:
        copied = copy.deepcopy(bundle)
        change(copied["entry"][0])
        return bool(faults(copied))

    assert not broken(lambda entry: None)
    assert broken(lambda entry: entry["request"].pop("ifNoneExist"))
    assert broken(lambda entry: entry["request"].update(method="PUT"))
    # The server rewrites an identifier that equals the entry's own address.
    address = bundle["entry"][0]["fullUrl"]
    assert broken(lambda entry: entry["resource"]["identifier"][0].update(value=address))
    assert broken(lambda entry: entry["resource"]["identifier"][0].pop("system"))
    assert broken(lambda entry: entry["resource"].update(resourceType="Media"))
    assert broken(lambda entry: entry["resource"].update(name=[]))
    assert broken(lambda entry: entry["resource"].update(maritalStatus={"coding": [{"code": "M"}]}))
    copied = copy.deepcopy(bundle)
    copied["entry"].append(copied["entry"][-1])
    assert faults(copied)


def test_pictures_within_are_exact_and_carry_nothing_else():
    photo = picture("close_up")
    bundle = json.loads(fhir.transaction(referral(pictures=(photo,)))[1])
    attachment = resource(bundle, "DocumentReference")["content"][0]["attachment"]
    data = base64.b64decode(attachment["data"])
    assert len(data) == attachment["size"]
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)
    assert (decoded == photo.pixels()).all()


def test_the_risk_is_a_percentage_and_none_where_the_picture_cannot_be_judged(bundle):
    assert resource(bundle, "RiskAssessment")["prediction"][0]["probabilityDecimal"] == 37.2
    refused = picture(findings=findings(triage="retake"))
    bundle = json.loads(fhir.transaction(referral(pictures=(refused,)))[1])
    risk = resource(bundle, "RiskAssessment")
    assert "prediction" not in risk
    assert "cannot be judged" in risk["note"][0]["text"]


def test_a_birth_date_goes_only_to_whom_the_person_is_known(bundle):
    assert "birthDate" not in resource(bundle, "Patient")
    known = referral(identifiers=(Identifier("urn:oid:1.2.3", "A 7"),))
    bundle = json.loads(fhir.transaction(known)[1])
    patient = resource(bundle, "Patient")
    assert patient["birthDate"] == "1971"
    assert patient["identifier"] == [{"system": "urn:oid:1.2.3", "value": "A 7"}]
    request = next(it["request"] for it in bundle["entry"] if it["request"]["url"] == "Patient")
    assert request["ifNoneExist"] == "identifier=urn:oid:1.2.3|A%207"
    # Bare, a comma would ask for whoever has the number 8 anywhere.
    known = replace(known, identifiers=(Identifier("urn:oid:1.2.3", "7,8|$"),))
    bundle = json.loads(fhir.transaction(known)[1])
    request = next(it["request"] for it in bundle["entry"] if it["request"]["url"] == "Patient")
    assert unquote(request["ifNoneExist"]) == r"identifier=urn:oid:1.2.3|7\,8\|\$"


def test_the_consent_is_the_text_that_was_read(bundle):
    attachment = resource(bundle, "Consent")["sourceAttachment"]
    assert base64.b64decode(attachment["data"]).decode() == consent.TEXTS["2026-11"]["en"]


def test_fhir_alone_is_one_parcel():
    parcels = build(referral(), Options(dicom=False))
    assert [it.kind for it in parcels] == ["fhir"]
    assert parcels == build(referral(), Options(dicom=False))
    assert parcels[0].uid.startswith(referral().id)
