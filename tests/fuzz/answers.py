"""Answers of a receiver: FHIR JSON, or a DICOM file that lies in our study.

A file with DICM at its place is read as DICOM, all else as JSON.
"""

from __future__ import annotations

import io
import json

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset

from dermedge import UserError
from edge_app.referral.answers import Sent, assigned, from_fhir
from edge_app.referral.answers_dicom import from_dicom
from edge_app.referral.form import Identifier

MINE = Sent(
    referral="r",
    study_uid="2.25.7",
    patient_id="P",
    request=Identifier("s", "r.request"),
    task=Identifier("s", "r.task"),
    patients=(Identifier("s", "P"),),
    references=frozenset({"Patient/1", "ServiceRequest/2", "Task/3"}),
)
_OURS = {
    "basedOn": [{"reference": "ServiceRequest/2"}],
    "subject": {"identifier": {"system": "s", "value": "P"}},
    "note": [{"text": "n"}],
}
_REPORT = {
    "resourceType": "DiagnosticReport",
    "id": "4",
    "status": "final",
    "conclusion": "benign",
    "conclusionCode": [{"coding": [{"system": "x", "code": "110531", "display": "d"}]}],
    "performer": [{"display": "Dr."}],
    "presentedForm": [{"contentType": "application/pdf", "data": "JVBERi0xLjQ=", "size": 8}],
    **_OURS,
}
_MESSAGE = {
    "resourceType": "Communication",
    "id": "5",
    "status": "completed",
    "payload": [{"contentString": "c"}, {"contentAttachment": {"url": "u"}}],
    **_OURS,
}
_TASK = {
    "resourceType": "Task",
    "id": "3",
    "status": "rejected",
    "for": {"reference": "Patient/1"},
    "statusReason": {"text": "no"},
    "output": [{"type": {"text": "t"}, "valueString": "v"}],
}


def _document() -> bytes:
    ds, item, concept = Dataset(), Dataset(), Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = "1", "99X", "m"
    item.ValueType, item.ConceptNameCodeSequence, item.TextValue = "TEXT", [concept], "benign"
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3"
    ds.StudyInstanceUID, ds.PatientID, ds.ContentSequence = MINE.study_uid, MINE.patient_id, [item]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


SEEDS = [
    *(json.dumps(it).encode() for it in (_REPORT, _MESSAGE, _TASK)),
    json.dumps(
        {"resourceType": "Bundle", "entry": [{"fullUrl": "u", "resource": it}
                                             for it in (_REPORT, _MESSAGE, _TASK)]}
    ).encode(),
    _document(),
]  # fmt: skip


def one(data: bytes) -> None:
    """Whatever it is: answers to our referral, or one line."""
    answers, refused = [], []
    try:
        if data[128:132] == b"DICM":
            answers = [from_dicom(data, [MINE])]
        else:
            answers, refused = map(list, from_fhir(data, [MINE]))
            assigned(SEEDS[3], data)
    except UserError as error:
        refused.append(error)
    assert all("\n" not in str(it) for it in refused)
    for answer in answers:
        assert answer.referral == MINE.referral
        assert len(answer.text) <= 20_000
