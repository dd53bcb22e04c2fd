"""Answers from outside: ours are taken, all else is refused in one line."""

from __future__ import annotations

import base64
import codecs
import io
import json
import random
from functools import cache

import pytest

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from referrals import PDF, picture, referral  # noqa: E402

from dermedge import UserError  # noqa: E402
from edge_app.referral import fhir, timeline  # noqa: E402
from edge_app.referral.answers import TEXT, SaysNothing, Sent, assigned, from_fhir  # noqa: E402
from edge_app.referral.answers_dicom import from_dicom  # noqa: E402
from edge_app.referral.codes import SYSTEMS  # noqa: E402
from edge_app.referral.form import Identifier  # noqa: E402
from edge_app.referral.parcels import Options, build  # noqa: E402
from edge_app.referral.uids import SYSTEM  # noqa: E402
from edge_app.store.referrals import StoredAnswer  # noqa: E402

BASE = "https://clinic.example/fhir"
SR, DOC = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.104.1"
LATIN = ("DICOM", "Größe")


@cache
def sent(number: int) -> Sent:
    asked = referral(number)
    references = [f"{kind}/{number}" for kind in ("Patient", "ServiceRequest", "Task")]
    return Sent.of(asked, (), references, BASE)


def named(identifier: Identifier) -> dict:
    return {"identifier": {"system": identifier.system, "value": identifier.value}}


def diagnostic(mine: Sent, number: int = 1, **changes) -> dict:
    """A report that names referral and person by identifiers or by the server's ids."""
    by_id = number % 2
    base = f"{BASE}/" if number % 4 == 3 else ""
    own = {ref.split("/")[0]: base + ref for ref in mine.references}
    found = {
        "resourceType": "DiagnosticReport",
        "id": f"r{number}",
        "status": "final",
        "code": {"text": "Teledermatology"},
        "basedOn": [{"reference": own["ServiceRequest"]} if by_id else named(mine.request)],
        "subject": {"reference": own["Patient"]} if by_id else named(mine.patients[0]),
        "issued": "2026-11-29T08:00:00Z",
        "performer": [{"display": f"Dr. No {number}"}],
        "conclusion": f"Answer {number}",
    }
    return {**found, **changes}


def communication(mine: Sent, number: int, **changes) -> dict:
    found = {
        "resourceType": "Communication",
        "id": f"c{number}",
        "status": "completed",
        "basedOn": [named(mine.request)],
        "subject": named(mine.patients[0]),
        "sent": "2026-11-29T08:00:00+01:00",
        "payload": [{"contentString": f"Answer {number}"}],
    }
    return {**found, **changes}


def searchset(*resources: dict) -> bytes:
    entries = [{"fullUrl": f"{BASE}/{it['resourceType']}/{it.get('id')}", "resource": it}
               for it in resources]  # fmt: skip
    return json.dumps({"resourceType": "Bundle", "type": "searchset", "entry": entries}).encode()


def document(mine: Sent, number: int, kind: str = SR, **changes) -> bytes:
    """A report that lies in our study."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = kind, f"1.2.3.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = mine.study_uid, f"1.2.4.{number}"
    ds.PatientID = mine.patient_id
    ds.ContentDate, ds.ContentTime, ds.TimezoneOffsetFromUTC = "20261129", "081500", "+0100"
    ds.InstitutionName = "Clinic"
    if kind == DOC:
        ds.DocumentTitle = f"Answer {number}"
        ds.EncapsulatedDocument, ds.EncapsulatedDocumentLength = PDF + b"\0", len(PDF)
    else:
        ds.VerificationFlag = "VERIFIED"
        observer = Dataset()
        observer.VerifyingObserverName = "Ärztin^Anna^^Dr."
        ds.VerifyingObserverSequence = [observer]
        ds.ContentSequence = [text_item("Conclusion", f"Answer {number}")]
    for name, value in changes.items():
        setattr(ds, name, value)
    return written(ds)


def text_item(name: str, text: str) -> Dataset:
    item, concept = Dataset(), Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = "1", "99X", name
    item.ValueType, item.ConceptNameCodeSequence, item.TextValue = "TEXT", [concept], text
    return item


def written(ds: Dataset, syntax: str = "1.2.840.10008.1.2.1") -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def taken(data: bytes, mine) -> list:
    """Answers of FHIR or DICOM bytes; a refusal is one line."""
    try:
        if data[128:132] == b"DICM":
            return [from_dicom(data, mine)]
        answers, refused = from_fhir(data, mine)
    except UserError as error:
        refused, answers = (error,), ()
    assert all("\n" not in str(it) and it.code for it in refused)
    return list(answers)


def test_a_hundred_of_ours_come_home():
    mine = [sent(number) for number in range(1, 101)]
    count = 0
    for number, one in enumerate(mine, 1):
        data = (
            searchset(diagnostic(one, number)),
            json.dumps(communication(one, number)).encode(),
            document(one, number),
            document(one, number, DOC),
        )[number % 4]
        found = taken(data, mine)
        assert [it.referral for it in found] == [one.referral]
        assert f"Answer {number}" in found[0].text
        assert found[0].issued.startswith("2026-11-29")
        count += len(found)
    assert count == 100


def foreign() -> list[bytes]:
    ours, other, unknown = sent(1), sent(2), sent(99)
    alien = Identifier("urn:oid:9.9", ours.request.value)
    own = build(referral(1, pictures=(picture(findings=None),)), Options(fhir=False))
    return [
        # Of another referral, or of none.
        searchset(diagnostic(unknown)),
        searchset(diagnostic(unknown, 2)),
        searchset(diagnostic(ours, basedOn=[])),
        searchset(diagnostic(ours, basedOn=[named(alien)])),
        searchset(diagnostic(ours, basedOn=[{"reference": "ServiceRequest/100"}])),
        searchset(
            diagnostic(ours, basedOn=[{"reference": "https://evil.example/ServiceRequest/1"}])
        ),
        searchset(diagnostic(ours, basedOn=[named(ours.request), named(unknown.request)])),
        searchset(diagnostic(ours, basedOn=[{"display": "your referral"}])),
        # Of another person.
        searchset(diagnostic(ours, 2, subject=named(other.patients[0]))),
        searchset(diagnostic(ours, 1, subject={"reference": "Patient/2"})),
        searchset(diagnostic(ours, 2, subject={})),
        searchset(
            diagnostic(ours, 2, subject={**named(ours.patients[0]), "reference": "Patient/2"}),
            {"resourceType": "Patient", "id": "2", **other_patient(other)},
        ),
        searchset(communication(ours, 1, subject=named(other.patients[0]))),
        searchset(
            {
                "resourceType": "Task",
                "id": "1",
                "status": "rejected",
                "note": [{"text": "x"}],
                "for": named(other.patients[0]),
            }
        ),
        # Taken back.
        searchset(diagnostic(ours, status="entered-in-error")),
        # In DICOM.
        document(unknown, 1),
        document(ours, 1, PatientID=other.patient_id),
        document(ours, 1, StudyInstanceUID=other.study_uid),
        document(ours, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.4"),
        next(it.data for it in own if b"Measurement Report" in it.data or it.sequence == 1),
    ]


def other_patient(other: Sent) -> dict:
    return {"identifier": [{"system": SYSTEM, "value": other.patients[0].value}]}


def test_twenty_foreign_ones_are_refused():
    own = build(referral(1, pictures=(picture(findings=None),)), Options(fhir=False))
    mine = [
        Sent.of(referral(1), [it.uid for it in own], sent(1).references, BASE),
        sent(2),
    ]
    assert taken(searchset(diagnostic(mine[0])), mine)
    cases = foreign()
    assert len(cases) == 20
    for number, data in enumerate(cases):
        assert taken(data, mine) == [], number
    # Ours, of a kind that is not read: nobody is to think that it is another's.
    with pytest.raises(UserError) as refused:
        from_dicom(document(mine[0], 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.2"), mine)
    assert refused.value.code == "answer-kind"


def test_an_answer_is_shown_as_its_author_wrote_it():
    mine = [sent(1)]
    doctor = {"resourceType": "Practitioner", "id": "9",
              "name": [{"given": ["Anna"], "family": "Muster"}]}  # fmt: skip
    report = diagnostic(
        mine[0],
        conclusion="Benign\u202e look\x00 here\r\nSecond line",
        conclusionCode=[{"text": "Nevus"}],
        performer=[{"reference": "Practitioner/9"}],
        presentedForm=[
            {"contentType": "application/pdf", "data": base64.encodebytes(3 * PDF).decode(),
             "size": 3 * len(PDF)},
            {"contentType": "application/pdf", "url": "https://evil.example/x.pdf"},
        ],
    )  # fmt: skip
    (answer,) = taken(searchset(report, doctor), mine)
    assert answer.author == "Anna Muster"
    assert answer.text == "Benign\ufffd look\ufffd here\nSecond line\n\nNevus"
    assert answer.report == 3 * PDF
    assert answer.more  # the address is told of, never followed
    assert not answer.wants_better_picture
    assert (answer.uid, answer.status) == ("DiagnosticReport/r1", "final")
    pasted = diagnostic(mine[0], conclusion="Nevus\vof a word processor\rof HL7 v2")
    marked = codecs.BOM_UTF8 + searchset(pasted)  # as some servers begin JSON
    assert taken(marked, mine)[0].text == "Nevus\nof a word processor\nof HL7 v2"
    alone = {**report, "contained": [doctor], "performer": [{"reference": "#9"}]}
    assert taken(searchset(alone), mine)[0].author == "Anna Muster"
    amended = taken(searchset({**report, "status": "amended"}, doctor), mine)[0]
    assert amended.uid == answer.uid
    assert amended.version != answer.version


@pytest.mark.parametrize(
    "attachment",
    [
        {"contentType": "application/pdf", "data": base64.b64encode(b"no PDF").decode()},
        {"contentType": "application/pdf", "data": "not base64"},
        {"contentType": "application/pdf", "data": base64.b64encode(PDF).decode(), "size": 1},
        {"contentType": "image/jpeg", "data": "/9j/"},
        {"contentType": "application/pdf", "url": "https://evil.example/x.pdf"},
    ],
)
@pytest.mark.parametrize("words", ["Melanoma suspected: see her this week.", ""])
def test_an_attachment_that_cannot_be_read_hides_no_answer(attachment, words):
    mine = [sent(1)]
    report = diagnostic(mine[0], conclusion=words, presentedForm=[attachment])
    (answer,) = taken(searchset(report), mine)
    assert (answer.text, answer.report, answer.more) == (words, b"", True)


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        ("text/plain; charset=iso-8859-1", "latin-1"),
        ('Text/Plain;format=flowed; charset="windows-1252"', "cp1252"),
        ("text/plain; charset=UTF-16", "utf-16"),
        ("text/plain", "utf-8-sig"),
        ("text/plain; charset=nobody-knows", "utf-8"),
        ("text/plain; charset=base64", "utf-8"),
    ],
)
def test_a_text_is_read_by_its_charset(kind, codec):
    data = base64.b64encode("Größe geändert".encode(codec)).decode()
    report = diagnostic(sent(1), conclusion="", presentedForm=[{"contentType": kind, "data": data}])
    (answer,) = taken(searchset(report), [sent(1)])
    assert answer.text == "Größe geändert"


PAGE = {"contentType": "application/pdf", "data": base64.b64encode(PDF).decode()}


@pytest.mark.parametrize(
    ("output", "text", "more", "report"),
    [
        ({"valueCodeableConcept": {"text": "Nevus"}}, "Nevus", False, b""),
        ({"valueMarkdown": "Nevus"}, "Nevus", False, b""),
        ({"valueAttachment": PAGE}, "", False, PDF),
        ({"valueReference": {"reference": "Observation/7"}}, "", True, b""),
        ({"valueBoolean": False}, "", True, b""),
        ({"valueReference": {"reference": f"{BASE}/DiagnosticReport/7"}}, None, False, b""),
    ],
)
def test_an_output_of_our_task_is_an_answer_of_whatever_kind_it_is(output, text, more, report):
    task = {"resourceType": "Task", "id": "1", "status": "completed",
            "for": named(sent(1).patients[0]), "output": [{"type": {"text": "Answer"}} | output]
            }  # fmt: skip
    answers, _refused = from_fhir(searchset(task), [sent(1)])
    expected = [] if text is None else [(text, more, report)]
    assert [(one.text, one.more, one.report) for one in answers] == expected


@pytest.mark.parametrize(
    "where",
    [
        {"result": [{"reference": "Observation/7"}]},
        {"text": {"status": "additional", "div": "<div>Melanoma</div>"}},
    ],
)
def test_a_report_whose_findings_lie_elsewhere_comes_home_without_them(where):
    report = diagnostic(sent(1), conclusion="", **where)
    (answer,) = taken(searchset(report), [sent(1)])
    assert (answer.text, answer.more) == ("", True)


def test_a_document_names_who_signed_it():
    mine = [sent(1)]
    (answer,) = taken(document(mine[0], 5), mine)
    assert answer.author == "Dr. Anna Ärztin, Clinic"
    assert answer.text == "Conclusion: Answer 5"
    assert answer.issued == "2026-11-29T08:15:00+01:00"
    (page,) = taken(document(mine[0], 6, DOC), mine)
    assert page.report == PDF
    observer = Dataset()
    for name, author in (
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Tarou Yamada"),
        ("=山田^太郎", "太郎 山田"),
    ):
        observer.VerifyingObserverName = name
        (answer,) = taken(document(mine[0], 7, VerifyingObserverSequence=[observer]), mine)
        assert answer.author == f"{author}, Clinic"


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        ("DATETIME", "20270115093000", "2027-01-15 09:30:00"),
        ("DATETIME", "20270115093000.5000+0100", "2027-01-15 09:30:00 +01:00"),
        ("DATETIME", "20270115", "2027-01-15"),
        ("DATETIME", "2027", "2027"),
        ("DATE", "20270115", "2027-01-15"),
        ("TIME", "0930", "09:30"),
        ("TIME", "093000.123456", "09:30:00"),
        ("PNAME", "Huber^Eva^^Dr.", "Dr. Eva Huber"),
    ],
)
def test_a_value_in_a_structured_report_is_shown_as_people_write_it(kind, value, written):
    names = {"DATETIME": "DateTime", "DATE": "Date", "TIME": "Time", "PNAME": "PersonName"}
    item = text_item("Seen", "")
    del item.TextValue
    item.ValueType = kind
    setattr(item, names[kind], value)
    (answer,) = taken(document(sent(1), 8, ContentSequence=[item]), [sent(1)])
    assert answer.text == f"Seen: {written}"


def test_a_report_that_only_its_content_names_an_author_of_has_their_name():
    observer = text_item("Person Observer Name", "")
    del observer.TextValue
    concept = observer.ConceptNameCodeSequence[0]
    concept.CodeValue, concept.CodingSchemeDesignator = "121008", "DCM"
    observer.ValueType, observer.PersonName = "PNAME", "Huber^Eva^^Dr."
    content = [observer, text_item("Conclusion", "Nevus")]
    for signed, author in (([], "Dr. Eva Huber"), (None, "Dr. Anna Ärztin")):
        changes = {} if signed is None else {"VerifyingObserverSequence": signed}
        data = document(sent(1), 9, ContentSequence=content, **changes)
        assert taken(data, [sent(1)])[0].author == f"{author}, Clinic"


@pytest.mark.parametrize(("flag", "status"), [("PRELIMINARY", "preliminary"), ("FINAL", "final")])
def test_a_preliminary_report_is_not_final_although_it_is_verified(flag, status):
    (answer,) = taken(document(sent(1), 10, PreliminaryFlag=flag), [sent(1)])
    assert answer.status == status


def test_a_better_picture_is_asked_for_by_a_code():
    mine = [sent(1)]
    code = {"coding": [{"system": SYSTEMS["DCM"], "code": "110531"}]}
    own = {"coding": [{"system": f"{SYSTEM}.1", "code": "better-picture"}]}
    task = {
        "resourceType": "Task", "id": "1", "status": "on-hold", "statusReason": code,
        "identifier": [{"system": SYSTEM, "value": mine[0].task.value}],
        "for": named(mine[0].patients[0]),
    }  # fmt: skip
    item, concept = text_item("Quality", ""), Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator = "110531", "DCM"
    concept.CodeMeaning = "Insufficient quality for interpretation"
    del item.TextValue
    item.ValueType, item.ConceptCodeSequence = "CODE", [concept]
    for data in (
        searchset(diagnostic(mine[0], conclusionCode=[code])),
        searchset(communication(mine[0], 1, reasonCode=[own])),
        searchset(task),
        document(mine[0], 1, ContentSequence=[item]),
    ):
        (answer,) = taken(data, mine)
        assert answer.wants_better_picture


def test_our_task_says_nothing_until_it_has_words():
    mine = [sent(1)]
    task = {"resourceType": "Task", "id": "1", "status": "in-progress",
            "for": named(mine[0].patients[0])}  # fmt: skip
    for status in ("in-progress", "completed"):
        answers, refused = from_fhir(searchset({**task, "status": status}), mine)
        assert answers == ()
        assert [type(it) for it in refused] == [SaysNothing]
    (answer,) = taken(searchset({**task, "status": "rejected",
                                 "statusReason": {"text": "no capacity"}}), mine)  # fmt: skip
    assert answer.text == "no capacity"
    for status in ("rejected", "failed", "cancelled"):  # without a word: nobody will look at it
        (answer,) = taken(searchset({**task, "status": status}), mine)
        assert (answer.text, answer.status) == ("", status)
        kept = StoredAnswer("", "r", answer.uid, "1", "", status=status)
        assert "does not take this referral" in timeline.standing_of(kept, [kept])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe{}",
        b'{"resourceType":"Bundle","resourceType":"Task"}',
        b'{"a":NaN}',
        b'{"a":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b" " * 33_000_000,
        json.dumps({"resourceType": "Bundle", "entry": [{}] * 501}).encode(),
    ],
)
def test_what_is_no_fhir_is_refused_in_one_line(data):
    with pytest.raises(UserError) as refused:
        from_fhir(data, [sent(1)])
    assert "\n" not in str(refused.value)


def test_sizes_are_bounded():
    mine = [sent(1)]
    (answer,) = taken(searchset(diagnostic(mine[0], conclusion="x" * 50_000)), mine)
    assert len(answer.text) == TEXT
    assert answer.more
    deep = text_item("a", "b")
    for _ in range(60):
        deep = dataset(ContentSequence=[deep], ValueType="CONTAINER")
    assert taken(document(mine[0], 1, ContentSequence=[deep]), mine) == []
    # A deflated file of a few bytes may unfold to any size: it is not read.
    squeezed = document(mine[0], 1).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    assert taken(squeezed, mine) == []


def dataset(**fields) -> Dataset:
    ds = Dataset()
    for name, value in fields.items():
        setattr(ds, name, value)
    return ds


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.data())
def test_a_response_with_anything_anywhere_is_read_or_refused(data):
    mine = [sent(1)]
    report = data.draw(st.sampled_from([diagnostic(mine[0]), communication(mine[0], 1)]))
    report = json.loads(json.dumps(report))
    for name in data.draw(st.lists(st.sampled_from(sorted(report)), max_size=3)):
        report[name] = data.draw(VALUES)
    extra = data.draw(st.sampled_from(["presentedForm", "payload", "note", "performer", "output"]))
    report[extra] = data.draw(
        VALUES
        | st.lists(
            st.dictionaries(
                st.sampled_from(["data", "contentType", "size", "reference", "text", "display"]),
                VALUES,
            )
        )
    )
    taken(json.dumps({"resourceType": "Bundle", "entry": [{"resource": report}, data.draw(VALUES)]}
                     ).encode(), mine)  # fmt: skip


@settings(max_examples=40)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data):
    mine = [sent(1)]
    assert taken(data, mine) == []
    with pytest.raises(UserError):
        from_dicom(b"\0" * 128 + b"DICM" + data, mine)


def test_a_changed_file_is_read_or_refused():
    mine, chance = [sent(1)], random.Random(5)
    seeds = [document(mine[0], 1), document(mine[0], 2, DOC)]
    for _ in range(300):
        data = bytearray(chance.choice(seeds))
        for _change in range(chance.choice((1, 1, 3, 20))):
            data[chance.randrange(132, len(data))] = chance.randrange(256)
        whole = bytes(data[: chance.choice((len(data), chance.randrange(140, len(data))))])
        for answer in taken(whole, mine):
            assert answer.referral == mine[0].referral


def test_a_receipt_names_each_resource():
    _, transaction = fhir.transaction(referral())
    kinds = [it["request"]["url"] for it in json.loads(transaction)["entry"]]

    def response(**changes) -> bytes:
        entries = [
            {"response": {"status": "201 Created", "location": f"{BASE}/{kind}/{n}/_history/1"}}
            for n, kind in enumerate(kinds)
        ]
        whole = {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}
        return json.dumps({**whole, **changes}).encode()

    found = assigned(transaction, response())
    assert list(found) == [f"{kind}/{n}" for n, kind in enumerate(kinds)]
    whole = json.loads(response())["entry"]
    for wrong in (
        response(type="batch-response"),
        response(entry=whole[:-1]),
        response(entry=[*whole[:-1], {"response": {"status": "400 Bad"}}]),
        response(entry=[*whole[:-1], {"response": {"status": "201 Created"}}]),
        response(entry=[*whole[:-1], {"response": {"status": "201", "location": "Patient/7"}}]),
        b"{}",
    ):
        with pytest.raises(UserError) as refused:
            assigned(transaction, wrong)
        assert refused.value.code == "referral-not-received"


def test_what_was_sent_is_kept_and_read_again():
    mine = sent(3)
    assert Sent.from_json(json.loads(json.dumps(mine.to_json()))) == mine
