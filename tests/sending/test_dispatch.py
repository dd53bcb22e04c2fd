"""From the nurse's form to a real archive, and the answer back."""

from __future__ import annotations

import sys
import uuid
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from store.store_cases import fill

from edge_app.referral.carriers import Refused, connect
from edge_app.referral.collector import Collector
from edge_app.referral.dispatch import dispatch, options
from edge_app.referral.form import Identifier
from edge_app.referral.outbox import Outbox
from edge_app.referral.parcels import Options, build
from edge_app.referral.sender import Sender
from edge_app.referral.uids import SYSTEM
from sending.mail_cases import destination
from sending.receivers import DicomWebReceiver, FhirReceiver, Orthanc

sys.path.append(str(Path(__file__).resolve().parents[1] / "referral"))
pytest.importorskip("highdicom")
from referrals import referral


def confirmed(cases):
    """What the screens hand over: a referral of pictures of the store."""
    person, lesion, first = fill(cases)
    captures = [first, *(cases.add_capture(replace(first, taken=""), b"x") for _ in range(2))]
    made = referral()
    pictures = tuple(
        replace(picture, id=capture.id)
        for picture, capture in zip(made.pictures, captures, strict=True)
    )
    return person, lesion, replace(made, id=uuid.UUID(int=77).hex, pictures=pictures)


@pytest.mark.parametrize("real", [True, False], ids=["Orthanc", "stand-in"])
def test_a_referral_goes_the_whole_way_and_its_answer_comes_back(cases, tmp_path, real):
    if real and (missing := Orthanc.missing()):
        pytest.skip(missing)
    archive = Orthanc(tmp_path / "orthanc", wait=60) if real else DicomWebReceiver()
    clinic = FhirReceiver()
    endpoint = archive.web() if real else archive.endpoint()
    to = destination(cases, endpoint, clinic.endpoint())
    _person, lesion, asked = confirmed(cases)
    stored = dispatch(cases, asked, lesion.id, to, options(to))
    assert dispatch(cases, asked, lesion.id, to, options(to)) == stored
    frozen = {one.uid: cases.mail.payload(one) for one in cases.mail.parcels(stored.id)}
    Sender(cases).run()
    status = Outbox(cases).status(cases.mail.referral(stored.id))
    assert status.state == "received", status.attempt.why or status.referral.why
    held = archive.held() if real else archive.held
    dicom = {one.uid for one in status.parcels if one.kind == "dicom"}
    assert set(held) == dicom
    assert all(held[uid] == frozen[uid] for uid in dicom)
    kinds = {pydicom.dcmread(BytesIO(data)).Modality for data in held.values()}
    assert kinds == {"DMS", "XC", "SEG", "SR", "DOC"}
    request = next(it for it in status.parcels[-1].references if it.startswith("ServiceRequest"))
    patient = next(it for it in status.parcels[-1].references if it.startswith("Patient"))
    clinic.held["DiagnosticReport/r1"] = {
        "resourceType": "DiagnosticReport", "id": "r1", "status": "final",
        "basedOn": [{"reference": request}], "subject": {"reference": patient},
        "resultsInterpreter": [{"display": "Dr. Bea"}], "conclusion": "benign",
    }  # fmt: skip
    (answer,) = Collector(cases).run().new
    assert (answer.text, answer.author, answer.referral) == ("benign", "Dr. Bea", stored.id)
    assert SYSTEM in str(stored.sent)
    cases.check()
    archive.close()
    clinic.close()


@pytest.mark.parametrize(
    ("known", "sex", "said"),
    [
        ({}, "female", ""),  # as the first referral left it
        ({"gender": "female", "birthDate": "1971-05-03"}, "female", ""),
        ({"gender": "unknown", "birthDate": "1971"}, None, ""),
        ({"gender": "male"}, "female", "another sex or year of birth"),
        ({"birthDate": "1917-05-03"}, "female", "another sex or year of birth"),
    ],
)
def test_who_is_at_the_receiver_already_is_referred_to_as_they_are_there(known, sex, said):
    clinic, number = FhirReceiver(), Identifier("urn:oid:1.2.3", "77")
    clinic.held["Patient/900"] = {
        "resourceType": "Patient", "id": "900", "name": [{"family": "Doe"}],
        "identifier": [{"system": "urn:oid:9", "value": "1"},
                       {"system": number.system, "value": number.value, "use": "usual"}],
        **known,
    }  # fmt: skip
    clinic.by_identifier["Patient", number.system, number.value] = "Patient/900"
    wanted = referral(sex=sex, identifiers=(number,))
    (item,) = build(wanted, Options(dicom=False))
    link = connect(clinic.endpoint())
    if said:
        with pytest.raises(Refused, match=said):
            link.deliver(item, again=False)
    else:
        assert "Patient/900" in link.deliver(item, again=False).references
        for kind in ("ServiceRequest", "Consent"):  # worked on before our receipt came
            name = next(it for it in clinic.held if it.startswith(f"{kind}/"))
            clinic.held[name]["status"] = "completed"
        assert link.deliver(item, again=True).place
    link.close()
    clinic.close()
