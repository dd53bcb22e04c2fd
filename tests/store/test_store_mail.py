"""What is queued is on disk, frozen, and goes with its person."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from edge_app.store import clock
from edge_app.store.referrals import (
    Attempt,
    Destination,
    Endpoint,
    StoredAnswer,
    StoredParcel,
    StoredReferral,
)
from edge_app.store.store import NotWiped, Store, StoreError
from store.store_cases import FOREIGN, PASSPHRASE, fill, raw, sealed_rows, traces


def clinic(cases: Store, name: str = "Clinic") -> Destination:
    endpoint = Endpoint("dicomweb", "https://clinic.example/dicom-web", password="of the clinic")
    return cases.mail.add_destination(Destination("", name, dicom=endpoint, fhir=endpoint))


def parcel(number: int, data: bytes, kind: str = "dicom") -> tuple[StoredParcel, bytes]:
    digest = hashlib.sha256(data).hexdigest()
    return StoredParcel("", "", f"2.25.{number}", kind, number, digest, len(data)), data


def queued(
    cases: Store, lesion, captures, id: str = "a" * 32, destination=None, count: int = 3, form=None
):
    to = destination or clinic(cases)
    referral = StoredReferral(
        id, lesion.id, to.id, to.name, "2.25.99", "CODE", captures=tuple(c.id for c in captures),
        consent="2026-11", form=form or {"question": "melanoma?"},
    )  # fmt: skip
    parcels = [parcel(n, b"secret pixels %d " % n * 500) for n in range(count)]
    return cases.mail.queue(referral, [*parcels, parcel(count, b"{}" * 20, "fhir")])


def test_what_was_queued_is_frozen_and_there_after_opening_again(cases):
    _, lesion, capture = fill(cases)
    referral = queued(cases, lesion, [capture])
    assert b"secret pixels" not in raw(cases.path)
    assert b"of the clinic" not in raw(cases.path)
    cases.check()
    cases.close()
    cases = Store.open(cases.path, PASSPHRASE)
    assert cases.mail.referrals() == [referral] == cases.mail.referrals(lesion.id)
    found = cases.mail.parcels(referral.id)
    assert [one.state for one in found] == ["waiting"] * 4
    assert cases.mail.payload(found[2]) == b"secret pixels 2 " * 500
    # A second press of the button queues nothing twice; other content needs another referral.
    (destination,) = cases.mail.destinations()
    assert queued(cases, lesion, [capture], destination=destination) == referral
    assert len(cases.mail.parcels(referral.id)) == 4
    with pytest.raises(StoreError, match="queued already with other content"):
        queued(cases, lesion, [capture], destination=destination, count=2)
    cases.check()
    cases.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"destination": "f" * 32}, "destination is not in the store"),
        ({"lesion": "f" * 32}, "needs its pictures|not in the store"),
        ({"captures": ()}, "needs its pictures"),
        ({"captures": ("e" * 32,)}, "capture is not in the store"),
        ({"form": {"x": "y" * 300_000}}, "form of a referral"),
        ({"patient_id": ""}, "lacks a number"),
    ],
)
def test_a_referral_that_makes_no_sense_is_not_queued(cases, changes, words):
    _, lesion, capture = fill(cases)
    to = clinic(cases)
    referral = StoredReferral("a" * 32, lesion.id, to.id, to.name, "2.25.9", "CODE",
                              captures=(capture.id,))  # fmt: skip
    with pytest.raises(StoreError, match=words):
        cases.mail.queue(replace(referral, **changes), [parcel(1, b"x")])
    wrong, data = parcel(1, b"x")
    with pytest.raises(StoreError, match="lacks its checksum"):
        cases.mail.queue(referral, [(wrong, data + b"y")])
    assert cases.mail.referrals() == []
    cases.check()


def test_bytes_are_kept_until_all_of_a_referral_was_received(cases):
    _, lesion, capture = fill(cases)
    referral = queued(cases, lesion, [capture])
    first, *rest = cases.mail.parcels(referral.id)
    assert cases.mail.mark_sent(first).state == "sent"
    cases.mail.note_attempt(referral.id, Attempt(2, clock.now(), 60.0))
    assert cases.mail.receive(first, "clinic.example").state == "received"
    assert cases.mail.mark_sent(first).state == "received"
    assert cases.mail.payload(first)
    assert cases.mail.attempt(referral.id).tries == 2
    for one in rest:
        cases.mail.receive(one, "clinic.example")
    with pytest.raises(StoreError, match="not kept here any more"):
        cases.mail.payload(first)
    assert [one.place for one in cases.mail.parcels(referral.id)] == ["clinic.example"] * 4
    assert cases.mail.attempt(referral.id) == Attempt()
    said = [entry.what for entry in cases.audit()]
    assert (said.count("add parcel"), said.count("send parcel")) == (4, 1)
    assert said.count("receive parcel") == 4
    cases.check()


def test_deleting_a_person_deletes_what_waits_and_says_what_is_elsewhere(cases):
    person, lesion, capture = fill(cases)
    referral = queued(cases, lesion, [capture])
    gone = sealed_rows(cases) + [r[0] for r in cases._file.select("SELECT data FROM payload")]
    first, second, *_ = cases.mail.parcels(referral.id)
    assert cases.mail.receive(first, "clinic.example").received
    (elsewhere,) = cases.delete_person(person.id)
    assert "already with Clinic, since 20" in elsewhere.words
    assert traces(cases, gone) == 0
    for action in (
        lambda: cases.mail.mark_sent(second),
        lambda: cases.mail.receive(second, "clinic.example"),
        lambda: cases.mail.payload(second),
    ):
        with pytest.raises(StoreError, match="not in the store any more"):
            action()
    cases.mail.note_attempt(referral.id, Attempt(1))
    assert cases._file.select("SELECT count(*) FROM attempt") == [(0,)]
    cases.check()


def test_what_was_being_sent_when_it_was_deleted_is_said_to_be_perhaps_there(cases, monkeypatch):
    person, lesion, capture = fill(cases)
    referral = queued(cases, lesion, [capture])
    assert cases.mail.mark_sent(cases.mail.parcels(referral.id)[0])
    monkeypatch.setattr(type(cases._erasing), "_wipe", lambda *_args: _raise(NotWiped("x")))
    with pytest.raises(NotWiped) as caught:
        cases.delete_person(person.id)
    (elsewhere,) = caught.value.elsewhere
    assert elsewhere.words == "perhaps already with Clinic: it was being sent"


def _raise(error):
    raise error


def test_a_picture_that_is_deleted_takes_what_waits_with_it_but_not_the_receipt(cases):
    _, lesion, capture = fill(cases)
    other = cases.add_capture(replace(capture, taken=""), b"another")
    to = clinic(cases)
    queued(cases, lesion, [capture], "a" * 32, to)
    queued(cases, lesion, [other], "b" * 32, to)
    queued(cases, lesion, [capture, other], "c" * 32, to)
    for one in cases.mail.parcels("c" * 32):
        cases.mail.receive(one, "clinic.example")
    (elsewhere,) = cases.delete_capture(capture.id)
    assert "already with Clinic, since 20" in elsewhere.words
    assert [one.id for one in cases.mail.referrals()] == ["b" * 32, "c" * 32]
    cases.check()


def test_a_stopped_referral_says_why_and_goes_on_when_somebody_says_so(cases):
    _, lesion, capture = fill(cases)
    referral = queued(cases, lesion, [capture])
    other = clinic(cases, "Hospital")
    try:
        raise StoreError("{place} wants a password", code="401", place="clinic.example")
    except StoreError as error:
        cases.mail.stop(referral.id, error.args[0], error.code)
    stopped = cases.mail.referral(referral.id)
    assert stopped.why == "clinic.example wants a password"
    assert stopped.stopped["code"] == "401"
    cases.mail.resume(referral.id, other.id)
    resumed = cases.mail.referral(referral.id)
    assert (resumed.stopped, resumed.receiver) == (None, "Hospital")
    with pytest.raises(StoreError, match="referrals still wait"):
        cases.mail.delete_destination(other.id)
    cases.mail.mark_sent(cases.mail.parcels(referral.id)[0])
    with pytest.raises(StoreError, match="a part of this referral is with Hospital"):
        cases.mail.resume(referral.id, referral.destination)
    cases.mail.delete_destination(referral.destination)
    cases.check()


def test_the_number_that_one_receiver_knows_a_person_by_goes_to_no_other(cases):
    _, lesion, capture = fill(cases)
    numbers = {"identifiers": [["urn:oid:1.2.3", "4711"]]}
    referral = queued(cases, lesion, [capture], form=numbers)
    other = clinic(cases, "Hospital")
    with pytest.raises(StoreError, match="the person's number at Clinic"):
        cases.mail.resume(referral.id, other.id)
    cases.mail.update_destination(replace(other, system="urn:oid:1.2.3"))
    cases.mail.resume(referral.id, other.id)  # it knows people by the same numbers
    assert cases.mail.referral(referral.id).receiver == "Hospital"


def test_a_code_that_one_receiver_knows_a_person_by_is_moved_to_no_other(cases):
    _, lesion, capture = fill(cases)
    earlier = queued(cases, lesion, [capture])
    to, other = cases.mail.destination(earlier.destination), clinic(cases, "Hospital")
    later = queued(cases, lesion, [capture], id="b" * 32, destination=to)
    cases.mail.resume(later.id, other.id)  # nothing has left to either
    cases.mail.resume(later.id, to.id)
    cases.mail.mark_sent(cases.mail.parcels(earlier.id)[0])
    with pytest.raises(StoreError, match="Clinic has other referrals under the same code"):
        cases.mail.resume(later.id, other.id)
    assert cases.mail.referral(later.id).receiver == "Clinic"
    cases.mail.resume(later.id, to.id)


def test_an_answer_is_kept_once(cases):
    person, lesion, capture = fill(cases)
    referral = queued(cases, lesion, [capture])
    answer = StoredAnswer("", referral.id, "DiagnosticReport/7", "v1", "benign", "Dr. B")
    kept = cases.mail.add_answer(answer)
    assert cases.mail.add_answer(answer) is None
    assert cases.mail.answers(referral.id) == [kept]
    amended = cases.mail.add_answer(replace(answer, version="v2", text="not benign"))
    assert cases.mail.answers(referral.id) == [kept, amended]
    with pytest.raises(StoreError, match="what an answer asks for"):
        cases.mail.add_answer(replace(answer, more=None, source="x"))
    with pytest.raises(StoreError, match="too large, or none"):
        cases.mail.add_answer(replace(answer, document="no base64!", source="x"))
    cases.check()
    cases.delete_person(person.id)
    cases.check()


def test_an_export_holds_the_mail_but_no_secrets_and_an_import_sends_nothing(tmp_path, cases):
    person, lesion, capture = fill(cases)
    other, *_ = fill(cases, "another")
    referral = queued(cases, lesion, [capture])
    first = cases.mail.parcels(referral.id)[0]
    cases.mail.receive(first, "clinic.example")
    cases.mail.add_answer(StoredAnswer("", referral.id, "D/7", "v1", "benign", "Dr. B"))
    for name, only in (("all", None), ("one", person.id), ("other", other.id)):
        cases.export(tmp_path / name, FOREIGN, only)
        there = Store.create(tmp_path / f"{name} there", PASSPHRASE)
        there.merge(tmp_path / name, FOREIGN)
        there.check()
        assert there.mail.destinations() == []
        if name == "other":
            assert there.mail.referrals() == []
        else:
            (found,) = there.mail.referrals()
            assert "send it from the device that it was queued on" in found.why
            states = [one.state for one in there.mail.parcels(found.id)]
            assert states == ["received", *["waiting"] * 3]
            waiting = there.mail.parcels(found.id)[1]
            assert there.mail.payload(waiting) == b"secret pixels 1 " * 500
            assert there.mail.answers(found.id)[0].author == "Dr. B"
        there.close()


def test_a_newer_file_says_what_was_received_since_the_first(tmp_path, cases):
    person, lesion, capture = fill(cases)
    id = queued(cases, lesion, [capture]).id
    waits = queued(cases, lesion, [capture], "b" * 32, cases.mail.destinations()[0]).id
    there = Store.create(tmp_path / "there", PASSPHRASE)
    for name in ("first", "part", "whole"):
        parcels = cases.mail.parcels(id)
        for one in {"first": [], "part": parcels[:1], "whole": parcels[1:]}[name]:
            cases.mail.receive(one, "clinic.example", ["Task/7"])
        cases.export(tmp_path / name, FOREIGN)
        there.merge(tmp_path / name, FOREIGN)
        assert there.mail.parcels(id) == cases.mail.parcels(id)
        assert there.mail.waits(id) == (name != "whole")
        there.check()
    # Where it was queued, what waits is received by no file.
    for one in there.mail.parcels(waits):
        there.mail.receive(one, "clinic.example")
    there.export(tmp_path / "back", FOREIGN)
    cases.merge(tmp_path / "back", FOREIGN)
    assert {one.state for one in cases.mail.parcels(waits)} == {"waiting"}
    (elsewhere,) = there.delete_person(person.id)
    assert "already with Clinic" in elsewhere.words
    there.close()


WRONG = {
    "state": ("storedparcel", {"state": "lost"}, "parcel 1: a parcel of an unknown kind"),
    "sha": ("storedparcel", {"sha256": "0" * 64}, "damaged or was tampered"),
    "uid": ("storedparcel", {"uid": "../x"}, "lacks its number"),
    "form": ("storedreferral", {"form": []}, "the form of a referral is none"),
    "pictures": ("storedreferral", {"captures": ["x"]}, "needs its pictures"),
    "line": (
        "storedreferral",
        {"stopped": {"code": "x", "message": "{a.b}", "values": {"a": "x"}}},
        "why a referral was stopped",
    ),
    "answer": ("storedanswer", {"more": "yes"}, "what an answer asks for"),
    "more": ("storedanswer", {"admin": True}, "does not know"),
    "identifiers": ("person", {"identifiers": [["only"]]}, "a system and a number"),
    "kind": ("capture", {"kind": "x-ray"}, "a picture of an unknown kind"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_foreign_file_with_mail_that_makes_no_sense_is_refused_whole(tmp_path, cases, what):
    from store.store_cases import foreign

    table, changes, words = WRONG[what]
    _, lesion, capture = fill(cases)
    referral = queued(cases, lesion, [capture])
    cases.mail.add_answer(StoredAnswer("", referral.id, "D/7", "v1", "benign"))
    path = foreign(cases, tmp_path / "export", table, **changes)
    here = Store.create(tmp_path / "here", PASSPHRASE)
    with pytest.raises(StoreError, match=words):
        here.merge(path, FOREIGN)
    assert (here.people(), here.mail.referrals()) == ([], [])
    here.check()
    here.close()


def test_a_payload_that_was_exchanged_is_noticed(cases):
    _, lesion, capture = fill(cases)
    referral = queued(cases, lesion, [capture])
    one, two, *_ = cases.mail.parcels(referral.id)
    with cases._file.writing() as connection:
        sealed = cases._rows.sealed_blob("parcel", two.id, b"other bytes")
        connection.execute("UPDATE payload SET data = ? WHERE parcel = ?", (sealed, two.id))
    with pytest.raises(StoreError, match="past the audit trail"):
        cases.mail.payload(two)
    with pytest.raises(StoreError, match="past the audit trail"):
        cases.check()
    with cases._file.writing() as connection:
        connection.execute("DELETE FROM payload WHERE parcel = ?", (one.id,))
    with pytest.raises(StoreError, match="past the audit trail"):
        cases.check()
