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

from edge_app.referral.collector import Collector
from edge_app.referral.dispatch import dispatch, options
from edge_app.referral.outbox import Outbox
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
