"""Answers come home once, to their own referral, and nobody else's are taken."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from store.store_cases import FOREIGN, PASSPHRASE

from edge_app.referral import collector, timeline, uids
from edge_app.referral.answers import OTHER_PERSON, Sent
from edge_app.referral.carriers import connect, dicomweb, fhir_rest
from edge_app.referral.collector import Collector
from edge_app.referral.form import Identifier
from edge_app.referral.outbox import Outbox
from edge_app.referral.sender import Sender
from edge_app.store.records import StoreError
from edge_app.store.store import Store
from sending.mail_cases import destination, queue
from sending.receivers import DicomWebHandler, DicomWebReceiver, FhirHandler, FhirReceiver

A, B, C = "a" * 32, "b" * 32, "c" * 32
SYSTEM = "urn:oid:2.25.1"


def sent(id: str) -> dict:
    return Sent(
        referral=id, study_uid="2.25.9", patient_id="CODE",
        request=Identifier(SYSTEM, f"{id}.ServiceRequest"), task=Identifier(SYSTEM, f"{id}.Task"),
        patients=(Identifier(SYSTEM, f"{id}.Patient"),),
    ).to_json()  # fmt: skip


@pytest.fixture
def clinic():
    made = FhirReceiver()
    yield made
    made.close()


@pytest.fixture
def archive():
    made = DicomWebReceiver()
    yield made
    made.close()


def received(cases, archive, clinic, *ids: str, meanwhile=lambda: None):
    to = destination(cases, archive.endpoint(), clinic and clinic.endpoint())
    for id in ids:
        queue(cases, to, pictures=1, fhir=bool(clinic), id=id)
        referral = cases.mail.referral(id)
        with cases._file.writing() as connection:
            cases._rows.put(
                connection, "referral", replace(referral, sent=sent(id)), "resume referral"
            )
    meanwhile()
    Sender(cases).run()


def report(clinic: FhirReceiver, id: str, number: int, text: str, patient: str = "", **more):
    """A dermatologist writes one."""
    name = {kind: clinic.by_identifier[kind, SYSTEM, f"{id}.{kind}"]
            for kind in ("ServiceRequest", "Patient")}  # fmt: skip
    clinic.held[f"DiagnosticReport/r{number}"] = {
        "resourceType": "DiagnosticReport", "id": f"r{number}", "status": "final",
        "basedOn": [{"reference": name["ServiceRequest"]}],
        "subject": {"reference": patient or name["Patient"]},
        "resultsInterpreter": [{"display": "Dr. Bea"}], "conclusion": text,
        "issued": "2026-11-29T10:00:00Z", **more,
    }  # fmt: skip


@pytest.mark.parametrize("way", ["fhir", "dicomweb", "another device"])
def test_a_receiver_that_is_entered_again_is_asked_for_its_answers(
    cases, archive, clinic, tmp_path, way
):
    received(cases, archive, None if way == "dicomweb" else clinic, A)
    (old,) = cases.mail.destinations()
    link = Archive(opinion("benign", "2.25.600"))
    ask = {"connect": lambda _: link} if way == "dicomweb" else {}
    if way != "dicomweb":
        report(clinic, A, 1, "benign")
    cases.mail.delete_destination(old.id)
    if way == "another device":
        cases.export(tmp_path / "out", FOREIGN)
        cases = Store.create(tmp_path / "new", PASSPHRASE)
        cases.merge(tmp_path / "out", FOREIGN)
    elsewhere = replace(old.dicom, address="https://other.example")
    cases.mail.add_destination(replace(old, dicom=elsewhere, fhir=None))
    assert Collector(cases, **ask).run().new == []
    cases.mail.add_destination(old)
    assert [one.text for one in Collector(cases, **ask).run().new] == ["benign"]
    assert Collector(cases, **ask).run().new == []
    cases.close()


def test_answers_come_home_once_and_those_of_others_are_refused(cases, archive, clinic):
    ids = [f"{number:032x}" for number in range(25)]
    received(cases, archive, clinic, *ids)
    for number, id in enumerate(ids):
        report(clinic, id, number, f"benign {number}")
    first = Collector(cases).run()
    assert len(first.new) == 25
    for number, id in enumerate(ids):
        (answer,) = cases.mail.answers(id)
        assert (answer.text, answer.author) == (f"benign {number}", "Dr. Bea")
        assert Outbox(cases).status(cases.mail.referral(id)).state == "answered"
    # Moved to another computer, where all of it is stored again.
    clinic.held["DiagnosticReport/r1"]["meta"] = {"lastUpdated": "2026-11-30T10:00:00Z"}
    report(clinic, ids[0], 90, "", status="registered")  # nobody has written it yet
    found = Collector(cases).run()
    assert (found.new, "answer-not-final" in {one.code for one in found.refused}) == ([], False)
    report(clinic, ids[0], 0, "not benign after all", status="amended")
    assert [one.text for one in Collector(cases).run().new] == ["not benign after all"]
    answers = cases.mail.answers(ids[0])
    assert timeline.standing_of(answers[0], answers).startswith("Replaced")
    assert timeline.standing_of(answers[1], answers) == ""
    # Its author is elsewhere on the server.
    name = [{"given": ["Lee"], "family": "Ray"}]
    clinic.held["Practitioner/5"] = {"resourceType": "Practitioner", "id": "5", "name": name}
    by = [{"reference": "Practitioner/5"}]
    report(clinic, ids[3], 80, "a nevus", resultsInterpreter=by)
    assert [one.author for one in Collector(cases).run().new] == ["Lee Ray"]
    # Another's patient under our request.
    other = clinic.by_identifier["Patient", SYSTEM, f"{ids[1]}.Patient"]
    report(clinic, ids[2], 99, "of another person", patient=other)
    found = Collector(cases).run()
    assert (found.new, [one.code for one in found.refused][:1]) == ([], ["answer-other-person"])
    # The screens say so, as long as it is so.
    line = cases.mail.faults()[0]
    assert (str(line), line.message) == (str(found.refused[0]), OTHER_PERSON)
    cases.check()
    del clinic.held["DiagnosticReport/r99"]
    Collector(cases).run()
    assert line not in cases.mail.faults()


def test_a_question_for_answers_is_no_longer_than_iis_takes(cases, archive, clinic, monkeypatch):
    monkeypatch.setitem(globals(), "SYSTEM", uids.SYSTEM)
    received(cases, archive, clinic, *(f"{number:032x}" for number in range(25)))
    asked, given = [], FhirHandler.do_GET

    def answer(self):
        asked.append(urlsplit(self.path).query)
        return given(self)

    monkeypatch.setattr(FhirHandler, "do_GET", answer)
    Collector(cases).run()
    assert sum("identifier=" in it for it in asked) == 2
    assert max(map(len, asked)) < 2048


def test_answers_are_asked_for_a_year_from_the_receipt_however_long_it_waited(
    tmp_path, archive, clinic, at
):
    at("2025-06-01T09:00:00.000Z")
    cases = Store.create(tmp_path / "store", PASSPHRASE)
    received(cases, archive, clinic, A, meanwhile=lambda: at("2026-05-30T09:00:00.000Z"))
    at("2026-06-10T09:00:00.000Z")
    report(clinic, A, 1, "benign")
    assert [one.text for one in Collector(cases).run().new] == ["benign"]
    at("2027-06-10T09:00:00.000Z")
    report(clinic, A, 1, "not benign", status="amended")
    assert Collector(cases).run().new == []
    cases.close()


@pytest.mark.parametrize("entered", ["once", "again"])
def test_a_receiver_that_gives_few_answers_at_once_is_asked_for_fewer(
    cases, archive, clinic, entered
):
    received(cases, archive, clinic, A, B)
    if entered == "again":
        (old,) = cases.mail.destinations()
        cases.mail.delete_destination(old.id)
        cases.mail.add_destination(old)
    report(clinic, A, 1, "benign")
    report(clinic, B, 2, "benign, too")
    clinic.page = 1
    found = Collector(cases).run()
    assert [one.text for one in found.new] == ["benign", "benign, too"]
    report(clinic, B, 3, "one more")
    assert "answer-more" in {one.code for one in Collector(cases).run().refused}


def test_answers_that_are_too_much_at_once_are_asked_for_in_parts(
    cases, archive, clinic, monkeypatch
):
    received(cases, archive, clinic, A, B, C)
    report(clinic, A, 1, "benign" * 400)
    report(clinic, B, 2, "long" * 2000)  # by itself, too
    report(clinic, C, 3, "benign, too" * 200)
    monkeypatch.setattr(fhir_rest, "MOST", 4000)
    found = Collector(cases).run()
    assert {one.referral for one in found.new} == {A, C}
    assert "answer-large" in {one.code for one in found.refused}
    assert found.failed == []


def test_what_nobody_foresaw_ends_no_poll(cases, archive, clinic, capfd):
    received(cases, archive, clinic, A)
    report(clinic, A, 1, "benign")

    def connected(endpoint):
        if endpoint.carrier == "dicomweb":
            raise KeyError("name of a person")
        return connect(endpoint)

    found = Collector(cases, connect=connected).run()
    assert [one.text for one in found.new] == ["benign"]
    assert [one.code for one in found.failed] == ["unforeseen"]
    assert "name of a person" not in "".join(capfd.readouterr())


def test_an_answer_that_its_author_takes_back_does_not_stand(cases, archive, clinic):
    received(cases, archive, clinic, A, B)
    report(clinic, A, 1, "benign", status="preliminary")
    (answer,) = Collector(cases).run().new
    assert timeline.standing_of(answer, [answer]).startswith("Not final")
    report(clinic, A, 1, "benign", status="entered-in-error")
    report(clinic, B, 2, "never seen here", status="entered-in-error")
    found = Collector(cases).run()
    assert [(one.referral, one.text) for one in found.new] == [(A, "")]
    assert [one.code for one in found.refused][:1] == ["answer-not-final"]
    again = Collector(cases).run()  # that of A was taken: it is refused at no later poll either
    assert (again.new, list(map(str, again.refused))) == ([], list(map(str, found.refused)))
    status = Outbox(cases).status(cases.mail.referral(A))
    assert (status.state, timeline.headline(status)) == ("received", "Received")
    for one in status.answers:
        assert "took this answer back" in timeline.standing_of(one, status.answers)
    assert timeline.timeline(status)[-1].title == "Answer taken back"


def test_a_server_that_does_not_know_what_belongs_to_an_answer_is_asked_without(
    cases, archive, clinic, monkeypatch
):
    received(cases, archive, clinic, A)
    report(clinic, A, 1, "benign")
    asked = FhirHandler.do_GET

    def answer(self):
        return self.say(400) if "interpreter" in self.path else asked(self)

    monkeypatch.setattr(FhirHandler, "do_GET", answer)
    found = Collector(cases).run()
    assert [one.text for one in found.new] == ["benign"]
    assert "400" not in {one.code for one in found.refused}


@pytest.mark.parametrize("includes", [True, False])
def test_a_receiver_that_gives_a_number_again_answers_nobody_elses_request(
    cases, archive, clinic, includes
):
    clinic.includes = includes
    received(cases, archive, clinic, A)
    clinic.held.clear()  # set up again, at the same address
    clinic.by_identifier.clear()
    received(cases, archive, clinic, B)
    assert [cases.mail.parcels(id)[-1].references for id in (A, B)] == [
        tuple(clinic.by_identifier.values())
    ] * 2
    report(clinic, B, 1, "melanoma")
    task = clinic.held[clinic.by_identifier["Task", SYSTEM, f"{B}.Task"]]
    patient = clinic.by_identifier["Patient", SYSTEM, f"{B}.Patient"]
    task |= {"status": "rejected", "for": {"reference": patient}}
    assert [one.referral for one in Collector(cases).run().new] == [B, B]
    address = clinic.by_identifier["ServiceRequest", SYSTEM, f"{B}.ServiceRequest"]
    del clinic.held[address]["identifier"]  # one that was written there
    report(clinic, B, 2, "of what was written there")
    found = Collector(cases).run()
    assert (found.new, found.refused[0].code) == ([], "answer-foreign")
    del clinic.held[address]
    report(clinic, B, 2, "nobody knows of what")
    found = Collector(cases).run()
    assert (found.new, found.refused[0].code) == ([], "answer-foreign")


def test_a_server_that_was_set_up_again_with_other_addresses_still_answers(cases, archive, clinic):
    received(cases, archive, clinic, A, B)
    report(clinic, A, 1, "nevus")
    report(clinic, B, 2, "benign")
    for id in (A, B):
        patient = clinic.by_identifier["Patient", SYSTEM, f"{id}.Patient"]
        task = clinic.held[clinic.by_identifier["Task", SYSTEM, f"{id}.Task"]]
        task |= {"for": {"reference": patient}}
    assert len(Collector(cases).run().new) == 2
    clinic.set_up_again()
    found = Collector(cases).run()
    assert (found.new, found.refused) == ([], [])
    report(clinic, A, 3, "melanoma")
    clinic.held[clinic.by_identifier["Task", SYSTEM, f"{B}.Task"]] |= {"status": "rejected"}
    found = Collector(cases).run()
    assert [(one.referral, one.text) for one in found.new] == [(A, "melanoma"), (B, "")]
    assert found.refused == []
    clinic.held[clinic.by_identifier["Patient", SYSTEM, f"{A}.Patient"]]["identifier"] = []
    report(clinic, A, 4, "of whom nobody knows")
    found = Collector(cases).run()
    assert (found.new, {one.code for one in found.refused}) == ([], {"answer-other-person"})


def test_a_referral_that_its_receiver_has_lost_is_not_waited_for_in_silence(cases, archive, clinic):
    received(cases, archive, clinic, A, B)
    report(clinic, B, 1, "benign")
    assert Collector(cases).run().failed == []
    clinic.held.clear()
    clinic.by_identifier.clear()
    for _ in range(2):
        (lost,) = Collector(cases).run().failed
        assert str(lost).startswith("Clinic does not have the referral of 20")
    assert cases.mail.faults() == [str(lost)]
    lesion = cases.lesion(cases.mail.referral(A).lesion)
    found = cases.person(lesion.person), lesion, cases.captures(lesion.id)[0]
    (to,) = cases.mail.destinations()
    queue(cases, to, pictures=1, id=C, found=found)  # another one was made
    assert Collector(cases).run().failed == []


def test_a_receiver_is_not_asked_about_what_went_to_another_on_its_host(cases, archive, clinic):
    received(cases, archive, clinic, A)
    (old,) = cases.mail.destinations()
    cases.mail.delete_destination(old.id)
    cases.mail.add_destination(replace(old, name="Its neighbour", dicom=None))
    clinic.held.clear()
    clinic.by_identifier.clear()
    received(cases, archive, clinic, B)
    report(clinic, B, 1, "melanoma")
    found = Collector(cases).run()
    assert [one.referral for one in found.new] == [B]
    assert "answer-foreign" not in {one.code for one in found.refused}


def test_a_rejection_that_is_not_meant_any_more_does_not_stand(cases, archive, clinic):
    received(cases, archive, clinic, A)
    task = clinic.held[clinic.by_identifier["Task", SYSTEM, f"{A}.Task"]]
    task |= {"for": {"reference": clinic.by_identifier["Patient", SYSTEM, f"{A}.Patient"]}}
    found = Collector(cases).run()
    assert (found.new, found.refused) == ([], [])
    task |= {"status": "rejected", "statusReason": {"text": "no capacity"}}
    assert [one.text for one in Collector(cases).run().new] == ["no capacity"]
    for number in range(2):  # said once, however often the Task moves on
        task.pop("statusReason", None)
        task |= {"status": "accepted", "lastModified": f"2026-11-29T1{number}:00:00Z"}
        assert len(Collector(cases).run().new) == 1 - number
    status = Outbox(cases).status(cases.mail.referral(A))
    assert status.state == "received"
    assert "took this answer back" in timeline.standing_of(status.answers[0], status.answers)
    task |= {"status": "rejected"}
    assert [one.status for one in Collector(cases).run().new] == ["rejected"]
    assert Outbox(cases).status(cases.mail.referral(A)).state == "answered"


@pytest.mark.parametrize("status", [404, 403])  # 403: no right to read such
def test_a_server_that_knows_no_communication_is_asked_for_all_others(
    cases, archive, clinic, monkeypatch, status
):
    monkeypatch.setattr(collector, "AT_ONCE", 1)
    received(cases, archive, clinic, A, B)
    task = clinic.held[clinic.by_identifier["Task", SYSTEM, f"{A}.Task"]]
    patient = clinic.by_identifier["Patient", SYSTEM, f"{A}.Patient"]
    task |= {"status": "rejected", "for": {"reference": patient}}
    report(clinic, B, 1, "benign")
    asked = FhirHandler.do_GET

    def answer(self):
        if not self.path.startswith("/fhir/Communication"):
            return asked(self)
        issue = [{"diagnostics": "Unknown resource type 'Communication'"}]
        return self.say(status, json.dumps({"issue": issue}).encode())

    monkeypatch.setattr(FhirHandler, "do_GET", answer)
    found = Collector(cases).run()
    assert {(one.referral, one.text) for one in found.new} == {(A, ""), (B, "benign")}
    assert found.failed == []
    (said,) = {str(it) for it in found.refused if it.code == str(status)}
    words = {404: "again: Unknown resource type 'Communication'", 403: "not let this device in"}
    assert words[status] in said


def test_a_server_that_lets_this_device_in_no_more_is_one_that_could_not_be_asked(
    cases, archive, clinic, monkeypatch
):
    received(cases, archive, clinic, A)
    monkeypatch.setattr(FhirHandler, "do_GET", lambda self: self.say(403))
    found = Collector(cases).run()
    assert ([one.code for one in found.failed], found.refused) == (["403"], [])


def test_a_server_that_asks_to_wait_is_not_asked_before(cases, archive, clinic, monkeypatch):
    received(cases, archive, clinic, A)
    report(clinic, A, 1, "benign")
    now, asked, given = [0.0], [], FhirHandler.do_GET
    monkeypatch.setattr(collector, "monotonic", lambda: now[0])

    def busy(self):
        asked.append(self.path)
        self.say(503, Retry_After="1000")

    monkeypatch.setattr(FhirHandler, "do_GET", busy)
    asking = Collector(cases)
    for now[0] in (0.0, 999.0):
        assert [one.code for one in asking.run().failed] == ["503"]
    assert len(asked) == 1
    monkeypatch.setattr(FhirHandler, "do_GET", given)
    now[0] = 1000.0
    found = asking.run()
    assert ([one.text for one in found.new], found.failed) == (["benign"], [])


def test_a_study_that_an_archive_shows_nobody_keeps_no_other_from_being_asked(
    cases, archive, monkeypatch
):
    received(cases, archive, None, A, B)
    for id in (A, B):
        with cases._file.writing() as connection:
            item = cases.mail.referral(id)
            item = replace(item, sent=sent(id) | {"study_uid": f"2.25.{'12'[id == B]}"})
            cases._rows.put(connection, "referral", item, "resume referral")
    asked = []

    def listed(handler, study):
        asked.append(study)
        handler.say(403 if study == "2.25.1" else 204)

    monkeypatch.setattr(DicomWebHandler, "listed", listed)
    found = Collector(cases).run()
    assert asked == ["2.25.1", "2.25.2"]
    assert [one.code for one in (*found.refused, *found.failed)] == ["403"]


def test_better_picture_please_is_a_reminder_for_today(cases, archive, clinic, monkeypatch):
    received(cases, archive, clinic, A)
    from edge_app.referral.codes import BETTER_PICTURE, SYSTEMS

    code = {"system": SYSTEMS[BETTER_PICTURE[1]], "code": BETTER_PICTURE[0]}
    report(clinic, A, 1, "blurred", conclusionCode=[{"coding": [code]}])
    lesion = cases.lesion(cases.mail.referral(A).lesion)
    with monkeypatch.context() as full:  # as by a disk

        def fails(_lesion):
            raise StoreError("there is no room")

        full.setattr(cases, "update_lesion", fails)
        with pytest.raises(StoreError):
            Collector(cases).run()
    (answer,) = Collector(cases).run().new
    assert answer.wants_better_picture
    assert [one.id for one in cases.reminders("2999-01-01")] == [lesion.id]
    cases.update_lesion(lesion)  # a nurse took the picture
    assert Collector(cases).run().new == []
    assert cases.reminders("2999-01-01") == []


@pytest.mark.parametrize("fhir", ["without", "with", "refused", "put off"])
def test_a_report_in_our_study_comes_home_whatever_became_of_the_form(
    cases, archive, clinic, fhir, monkeypatch
):
    from io import BytesIO

    import pydicom

    from sending.receivers import number

    if status := {"refused": 422, "put off": 500}.get(fhir):
        clinic.lie = lambda handler, content: handler.say(status) or True
    received(cases, archive, None if fhir == "without" else clinic, A)
    if status:
        state = {"refused": "stopped", "put off": "sending"}[fhir]
        assert Outbox(cases).status(cases.mail.referral(A)).state == state
        clinic.lie = None
    study = number(A)
    with cases._file.writing() as connection:
        item = replace(cases.mail.referral(A), sent=sent(A) | {"study_uid": study})
        cases._rows.put(connection, "referral", item, "resume referral")

    def document(uid: str, patient: str = "CODE", size: int = 0, modality: str = "DOC") -> None:
        ds = pydicom.Dataset()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
        ds.file_meta.MediaStorageSOPInstanceUID = uid
        ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.104.1", uid
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, "2.25.77"
        ds.PatientID, ds.Modality, ds.DocumentTitle = patient, modality, "Opinion"
        ds.EncapsulatedDocument = b"%PDF-1.4 opinion" + bytes(size)
        file = BytesIO()
        pydicom.dcmwrite(file, ds, enforce_file_format=True)
        archive.held[uid] = file.getvalue()

    monkeypatch.setattr(dicomweb, "LARGEST", 10_000)
    document("2.25.499")  # may be read by others alone
    document("2.25.500", size=10_000)  # these keep none away that comes after them
    document("2.25.501")
    document("2.25.502", "SOMEBODY")
    document("2.25.503", modality="OT")  # as some of what makes them writes
    given = DicomWebHandler.do_GET

    def shown(handler):
        return handler.say(403) if handler.path.endswith("/2.25.499") else given(handler)

    monkeypatch.setattr(DicomWebHandler, "do_GET", shown)
    found = Collector(cases).run()
    assert [one.source for one in found.new] == ["2.25.501", "2.25.503"]
    # The Task that this receiver made is of nobody, too.
    refused = [one.code for one in found.refused if one.code != "answer-other-person"]
    assert sorted(refused) == ["403", "long"]
    assert len(found.refused) == 3 + (fhir == "with")
    assert Collector(cases).run().new == []


class Archive:
    """Gives what is asked for of these files."""

    def __init__(self, *files: tuple[str, bytes]):
        self._files, self.given = files, 0

    def foreign(self, _study, ours, most):
        found = [(uid, data) for uid, data in self._files if uid not in ours][:most]
        self.given += len(found)
        return found

    def close(self):
        pass


def opinion(text: str, uid: str, earlier: str = "") -> tuple[str, bytes]:
    """A structured report in the study of `received`."""
    import io

    import pydicom

    ds, item = pydicom.Dataset(), pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", uid
    ds.StudyInstanceUID, ds.PatientID, ds.VerificationFlag = "2.25.9", "CODE", "VERIFIED"
    item.ValueType, item.TextValue = "TEXT", text
    ds.ContentSequence = [item]
    if earlier:
        study, series, report = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        report.ReferencedSOPInstanceUID = earlier
        series.ReferencedSOPSequence = [report]
        study.StudyInstanceUID, study.ReferencedSeriesSequence = "2.25.9", [series]
        ds.PredecessorDocumentsSequence = [study]
    file = io.BytesIO()
    pydicom.dcmwrite(file, ds, enforce_file_format=True)
    return uid, file.getvalue()


@pytest.mark.parametrize("polls", [(1, 2, 3), (3,)])
def test_a_structured_report_that_is_amended_is_said_to_be_replaced(cases, archive, polls):
    received(cases, archive, None, A)
    own = cases.mail.parcels(A)[0].uid
    files = [
        opinion("benign", "2.25.600", own),  # our measures are nobody's answer
        opinion("melanoma", "2.25.601", "2.25.600"),
        opinion("nevus", "2.25.602", "2.25.601"),
        opinion("another doctor's", "2.25.603", own),
    ]
    for number in polls:  # in whatever order they are listed
        link = Archive(*reversed([*files[:number], *files[3:]]))
        Collector(cases, connect=lambda _, link=link: link).run()
    assert Collector(cases, connect=lambda _: link).run().new == []
    answers = cases.mail.answers(A)
    stand = [one.text for one in answers if not timeline.standing_of(one, answers)]
    assert sorted(stand) == ["another doctor's", "nevus"]
    assert len(answers) == 4
    assert link.foreign("", {it for one in answers for it in (one.source, one.version)}, 9) == []


def test_files_that_hold_no_answer_keep_none_away_that_stands_behind_them(cases, archive):
    received(cases, archive, None, A)
    own = cases.mail.parcels(A)[0].uid
    bad = [(f"2.25.7{number:02}", b"no DICOM") for number in range(25)]
    link = Archive(*bad, opinion("nevus", "2.25.601", own))
    collector = Collector(cases, connect=lambda _: link)
    found = collector.run()
    assert ([one.text for one in found.new], len(found.refused)) == (["nevus"], 25)
    found = collector.run()
    assert (found.new, len(found.refused)) == ([], 25)
    assert link.given == 26  # each once


@pytest.mark.parametrize(("page", "failed"), [(b"<html>Log in</html>", ["no-dicomweb"]), (b"", [])])
def test_a_page_to_log_in_is_no_empty_list_of_answers(cases, archive, monkeypatch, page, failed):
    received(cases, archive, None, A)
    monkeypatch.setattr(DicomWebHandler, "listed", lambda self, _study: self.say(200, page))
    found = Collector(cases).run()
    assert (found.new, [one.code for one in found.failed]) == ([], failed)


def test_a_receiver_that_is_down_keeps_no_other_from_being_asked(cases, archive, clinic):
    received(cases, archive, clinic, A)
    (to,) = cases.mail.destinations()
    gone = replace(to.fhir, address="http://localhost:1/fhir")
    cases.mail.update_destination(replace(to, fhir=gone))
    found = Collector(cases).run()
    assert [one.code for one in found.failed] == ["unreachable"]
    assert found.new == []
