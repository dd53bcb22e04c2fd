"""One damaged record stops nothing else: it is named, and the rest goes on."""

from __future__ import annotations

import argparse
import signal
from contextlib import closing
from dataclasses import replace
from datetime import date

import pytest
from store.store_cases import FOREIGN, PASSPHRASE, fill

from edge_app import sending
from edge_app.follow_up import people
from edge_app.referral import background, commands
from edge_app.referral.collector import Collector
from edge_app.referral.outbox import DONE, STOPPED, Outbox
from edge_app.referral.sender import Report, Sender
from edge_app.store.damage import LeftOut
from edge_app.store.records import OTHER_VERSION, DermoscopeSettings, StoreError
from edge_app.store.referrals import Destination, StoredAnswer
from edge_app.store.store import Lesion, Store
from sending.mail_cases import destination, queue
from sending.receivers import DicomWebReceiver

A, B = "a" * 32, "b" * 32


@pytest.fixture
def archive():
    with closing(DicomWebReceiver()) as receiver:
        yield receiver


def break_row(cases, table, id, column="record", key="id"):
    with cases._file.writing() as connection:
        done = connection.execute(f"UPDATE {table} SET {column} = X'07' WHERE {key} = ?", (id,))
        assert done.rowcount == 1


@pytest.mark.parametrize("part", ["referral", "parcel", "attempt", "answer", "destination"])
def test_what_is_damaged_of_a_referral_stops_no_other(cases, archive, capsys, part):
    to = destination(cases, archive.endpoint())
    mine = cases.mail.add_destination(Destination("", "Other", archive.endpoint()))
    queue(cases, mine, pictures=1, id=A)
    queue(cases, to, pictures=1, id=B)
    if part == "attempt":
        cases.mail.note_attempt(A, cases.mail.attempt(A))
        break_row(cases, "attempt", A, "data", "referral")
    elif part == "answer":
        answer = cases.mail.add_answer(StoredAnswer("", A, "1.2", "1", "benign"))
        break_row(cases, "answer", answer.id)
    else:
        id = {"referral": A, "parcel": cases.mail.parcels(A)[0].id, "destination": mine.id}[part]
        break_row(cases, part, id)
    report = Sender(cases).run()
    harmless = part in ("attempt", "answer")
    assert report.received == (2 if harmless else 1)
    assert report.stopped == (part in ("parcel", "destination"))
    assert bool(report.damaged.what) == (part == "referral")
    left = LeftOut()
    found = {one.referral.id: one.state for one in Outbox(cases).all(left)}
    assert found.pop(B) == DONE
    assert found == ({} if part == "referral" else {A: DONE if harmless else STOPPED})
    named = {"referral": f"referral {A} of lesion", "answer": f"of referral {A}"}.get(part)
    assert [named in str(line) for line in left.lines] == ([True] if named else [])
    assert commands._list(cases, None) == bool(named)
    assert [named in line for line in capsys.readouterr().err.splitlines()] == [True] * bool(named)
    assert commands._once(cases) == (part == "referral")
    assert sum(sending.counts(cases).values()) == 2 - (part == "referral")
    assert not Collector(cases).run().new
    # Another password for what waits, and a receiver that goes.
    cases.mail.update_destination(replace(to, dicom=replace(to.dicom, password="new")))
    cases.mail.delete_destination(to.id)
    if part == "destination":
        cases.mail.delete_destination(mine.id)  # before what waits for it
        cases.mail.resume(A, cases.mail.add_destination(replace(to, id="")).id)
        assert Sender(cases).run().received == 1


@pytest.mark.parametrize("part", ["person", "lesion", "capture", "summary", "dermoscope"])
def test_what_is_damaged_of_a_case_stops_no_list(cases, part):
    person, lesion, capture = fill(cases, "Ada")
    other, spot, _picture = fill(cases, "Bea")
    second = cases.add_lesion(Lesion("", person.id, "nose", remind="2026-01-01"))
    cases.update_lesion(replace(lesion, remind="2026-01-01"))
    cases.set_dermoscope(DermoscopeSettings(model="X"))
    if part == "summary":
        break_row(cases, "summary", lesion.id, "data", "lesion")
    elif part == "dermoscope":
        break_row(cases, "store", "dermoscope", "value", "name")
    else:
        break_row(cases, part, {"person": person, "lesion": lesion, "capture": capture}[part].id)
    left = LeftOut()
    known = people.known(cases, cases.people("a", left))
    assert [one.person.name for one in known] == (["Bea"] if part == "person" else ["Ada", "Bea"])
    assert {one.triage for one in known} == {capture.triage}
    found = people.spots(cases, person.id, left)
    assert [one.lesion.id for one in found][-1] == second.id
    assert len(found) == (1 if part == "lesion" else 2)
    assert len(cases.captures(lesion.id, left)) == (0 if part == "capture" else 1)
    due = cases.reminders(date.today().isoformat(), left)
    assert len(due) == (1 if part == "lesion" else 2)
    assert cases.dermoscope(left).model == ("" if part == "dermoscope" else "X")
    assert len(left.what) == (part != "summary")  # that is made of the pictures again
    new = cases.add_capture(replace(capture, id="", taken=""), b"picture")
    assert cases.summaries([person.id])[person.id][lesion.id].pictures == 2
    cases.confirm_clock()
    cases.delete_capture(new.id)
    cases.delete_capture(capture.id)
    assert cases.summaries([person.id])[person.id][lesion.id].pictures == 0
    cases.delete_person(person.id)
    assert cases.summaries([other.id])[other.id][spot.id].pictures == 1


def test_a_list_without_a_summary_and_a_picture_says_that_it_cannot_tell(cases):
    person, lesion, capture = fill(cases)
    break_row(cases, "capture", capture.id)
    break_row(cases, "summary", lesion.id, "data", "lesion")
    assert cases.summaries([person.id])[person.id][lesion.id].triage == OTHER_VERSION


def test_a_file_of_all_cases_is_written_without_what_is_damaged(cases, archive, tmp_path):
    to = destination(cases, archive.endpoint())
    queue(cases, to, pictures=1, id=A, found=fill(cases, "Ada"))
    queue(cases, to, pictures=1, id=B, found=fill(cases, "Bea"))
    ada = cases.people()[0]
    gone = fill(cases, "Cyd")[0]
    photo = fill(cases, "Dot")[2]
    break_row(cases, "person", gone.id)
    break_row(cases, "picture", photo.id, "data", "capture")
    break_row(cases, "parcel", cases.mail.parcels(A)[0].id)
    with pytest.raises(StoreError, match="damaged"):
        cases.export(tmp_path / "strict", FOREIGN)
    with pytest.raises(StoreError, match="damaged"):
        cases.export(tmp_path / "one", FOREIGN, gone.id, LeftOut())
    left = LeftOut()
    cases.export(tmp_path / "out", FOREIGN, None, left)
    names = (f"person {gone.id}", f"capture {photo.id} of", f"referral {A} of")
    assert all(what.startswith(name) for what, name in zip(left.what, names, strict=True))
    with closing(Store.create(tmp_path / "new", PASSPHRASE)) as other:
        assert other.merge(tmp_path / "out", FOREIGN) == 2
        assert [one.name for one in other.people()] == ["Ada", "Bea", "Dot"]
        assert [one.id for one in other.mail.referrals()] == [B]
        other.check()
    assert ada in cases.people(leave_out=left)


@pytest.mark.parametrize(("part", "joined"), [("referral", True), ("referral", False),
                                              ("parcel", True)])  # fmt: skip
def test_a_referral_is_moved_beside_a_damaged_one_of_somebody_else(cases, archive, part, joined):
    to = destination(cases, archive.endpoint())
    other = cases.mail.add_destination(Destination("", "Other", archive.endpoint()))
    found = fill(cases, "Ada")
    queue(cases, to, pictures=1, id=A, found=found)
    queue(cases, to, pictures=1, id=B, found=found if joined else fill(cases, "Bea"))
    (parcel,) = cases.mail.parcels(B)
    cases.mail.mark_sent(parcel)
    break_row(cases, part, B if part == "referral" else parcel.id)
    if joined:
        with pytest.raises(StoreError, match="has other referrals under the same code"):
            cases.mail.resume(A, other.id)
    cases.mail.resume(A, to.id if joined else other.id)
    assert cases.mail.referral(A).receiver == ("Clinic" if joined else "Other")


@pytest.mark.parametrize("last", [False, True])
def test_a_referral_with_a_damaged_part_is_not_said_to_be_received(
    cases, archive, tmp_path, capsys, last
):
    queue(cases, destination(cases, archive.endpoint()), pictures=2, id=A)
    parcels = cases.mail.parcels(A)
    if last:
        cases.mail.receive(parcels[0], "clinic.example")
    break_row(cases, "parcel", parcels[1].id)
    args = argparse.Namespace(referral=A, to=None, names=[str(tmp_path / "out")], action="export")
    with pytest.raises(StoreError, match="make a new referral of these pictures"):
        commands._again(cases, args)
    assert commands._export(cases, args) == 1
    assert [it.name for it in (tmp_path / "out" / A).iterdir()] == ["000.dcm"]
    assert f"parcel {parcels[1].id} of referral {A} is left out" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["person", "lesion", "capture", "picture", "referral", "answer"])
def test_what_is_damaged_is_put_back_by_a_file_that_holds_it(cases, archive, tmp_path, part):
    found = fill(cases, "Ada")
    queue(cases, destination(cases, archive.endpoint()), pictures=1, id=A, found=found)
    answer = cases.mail.add_answer(StoredAnswer("", A, "1.2", "1", "benign"))
    cases.export(tmp_path / "out", FOREIGN)
    named = dict(zip(("person", "lesion", "capture"), found, strict=True))
    id = {"picture": found[2].id, "referral": A, "answer": answer.id}.get(part) or named[part].id
    newer = cases.add_lesion(Lesion("", found[0].id, "nose"))
    cases.update_lesion(replace(found[1], notes="since") if part != "lesion" else newer)
    if part == "picture":
        cases.update_capture(replace(found[2], notes="since"))
        break_row(cases, "picture", id, "data", "capture")
    else:
        break_row(cases, part, id)
    if part == "answer":  # it comes again, before somebody puts it back
        assert cases.mail.add_answer(answer)
    with pytest.raises(StoreError):
        cases.check()
    assert cases.merge(tmp_path / "out", FOREIGN) == 0
    cases.check()
    assert [one.name for one in cases.people()] == ["Ada"]
    titles = {one.title: one.notes for one in cases.lesions(found[0].id)}
    assert titles == {"left forearm": "" if part == "lesion" else "since", "nose": ""}
    kept = cases.capture(found[2].id)
    assert kept == replace(found[2], notes="since" if part == "picture" else "")
    assert cases.picture(kept.id) == b"picture" * 99
    assert [one.text for one in cases.mail.answers(A)] == ["benign"]
    assert bool(cases.mail.referral(A).stopped) == (part == "referral")  # sent by nobody's wish
    assert not Sender(cases).run().damaged.what
    restored = [one.which for one in cases.audit() if one.what.startswith("restore ")]
    assert restored == [id]


@pytest.mark.parametrize("part", ["referral", "parcel"])
def test_a_person_with_a_damaged_referral_can_be_deleted(cases, archive, part):
    queue(cases, destination(cases, archive.endpoint()), pictures=1, found=fill(cases, "Ada"))
    (person,) = cases.people()
    capture = cases.mail.referral(A).captures[0]
    break_row(cases, part, A if part == "referral" else cases.mail.parcels(A)[0].id)
    found = cases.delete_capture(capture)  # with it goes what may hold it
    assert ["perhaps" in one.words for one in found] == ([True] if part == "parcel" else [])
    assert not cases._file.select("SELECT 1 FROM payload")
    cases.delete_person(person.id)
    assert not cases.people()


def test_a_fault_that_lasts_is_said_once_and_that_it_is_over(cases, monkeypatch, capsys):
    rounds = [StoreError("full"), StoreError("full"), Report(), StoreError("closed", code="closed")]

    def run(_sender):
        found = rounds.pop(0)
        if isinstance(found, StoreError):
            raise found
        return found

    monkeypatch.setattr(Sender, "run", run)
    monkeypatch.setattr(Collector, "run", lambda _self: None)
    monkeypatch.setattr(background, "LOOK", 0.0)
    monkeypatch.setattr(type(cases.mail), "waiting", lambda *_: True)
    thread = background.SenderThread(cases)
    thread.start()
    assert thread.wait(60)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1] == lines[0].replace("dermedge: ", "dermedge: over: ")


def test_receivers_are_asked_no_more_often_where_what_they_say_cannot_be_kept(
    cases, monkeypatch, capsys
):
    done = {"sent": 0, "asked": 0}
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}

    def run(_sender):
        done["sent"] += 1
        if done["sent"] == 3:
            signal.raise_signal(signal.SIGTERM)
        return Report()

    def full(_collector):
        done["asked"] += 1
        raise StoreError("full")

    monkeypatch.setattr(Sender, "run", run)
    monkeypatch.setattr(Collector, "run", full)
    monkeypatch.setattr(background, "LOOK", 0.0)
    try:
        commands._watch(cases)
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
    assert done == {"sent": 3, "asked": 1}
    assert capsys.readouterr().err == "dermedge: full\n"
