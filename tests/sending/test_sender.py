"""What was queued arrives once, whoever interrupts it; nothing is given up in silence."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from store.store_cases import PASSPHRASE, fill

from edge_app.i18n.language import Message
from edge_app.referral.alone import alone
from edge_app.referral.background import SenderThread
from edge_app.referral.carriers import Later, connect, tls
from edge_app.referral.outbox import Outbox
from edge_app.referral.sender import LONGEST_REST, Sender
from edge_app.store import file
from edge_app.store.referrals import Destination, Endpoint
from edge_app.store.store import Store, StoreError
from sending.mail_cases import destination, queue, received, state
from sending.receivers import DicomWebReceiver, FhirReceiver

A, B = "a" * 32, "b" * 32


@pytest.fixture
def archive():
    made = DicomWebReceiver()
    yield made
    made.hung.set()
    made.close()


@pytest.fixture
def clinic():
    made = FhirReceiver()
    yield made
    made.close()


def test_pictures_go_before_the_request_and_all_have_receipts(cases, archive, clinic):
    to = destination(cases, archive.endpoint(), clinic.endpoint())
    queue(cases, to, fhir=True)
    assert state(cases) == "queued"
    order = []
    archive.lie = lambda *_: order.append("dicom")
    clinic.lie = lambda *_: order.append("fhir")
    report = Sender(cases).run()
    assert (report.received, report.put_off, report.stopped) == (4, 0, 0)
    assert order == ["dicom"] * 3 + ["fhir"]
    assert state(cases) == "received"
    request = cases.mail.parcels(A)[-1]
    assert [one.partition("/")[0] for one in request.references] == [
        "Patient", "ServiceRequest", "Task",
    ]  # fmt: skip
    assert Sender(cases).run().received == 0
    cases.check()


def test_no_request_is_sent_while_its_pictures_wait(cases, archive, clinic):
    queue(cases, destination(cases, archive.endpoint(), clinic.endpoint()), fhir=True)
    archive.lie = lambda handler, _: handler.say(503) or True
    assert Sender(cases).run().put_off == 1
    assert (clinic.held, state(cases)) == ({}, "sending")


def test_two_senders_at_once_send_each_parcel_once(cases, archive):
    to = destination(cases, archive.endpoint())
    for number in range(4):
        queue(cases, to, id=f"{number:032x}")
    other = Store.open(cases.path, PASSPHRASE)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda store: Sender(store).run(), [cases, other] * 2))
    assert sum(one.received for one in reports) == 12
    assert archive.posts == 12
    assert set(archive.stores.values()) == {1}
    with alone(cases.path) as may:
        assert may
        assert Sender(other).run().busy
    other.close()
    cases.check()


def test_a_lock_that_cannot_be_opened_is_not_said_to_be_held(cases):
    path = cases.path.with_name(f"{cases.path.name}-sender")
    path.mkdir()  # as a file of another user
    with pytest.raises(StoreError, match="-sender cannot be opened, nothing was sent"):
        Sender(cases).run()
    path.rmdir()
    assert not Sender(cases).run().busy
    if os.name == "posix":
        assert path.stat().st_uid == cases.path.stat().st_uid


def test_a_store_that_is_locked_in_mid_send_stops_and_goes_on_later(cases, archive):
    queue(cases, destination(cases, archive.endpoint()))
    here, go_on = threading.Event(), threading.Event()

    def slow(handler, content):
        if len(archive.held) == 1:
            here.set()
            assert go_on.wait(60)

    archive.lie = slow
    background = SenderThread(cases)
    background.start()
    assert here.wait(60)
    background.stop()
    cases.close()  # at once: it does not wait for the archive
    go_on.set()
    assert background.wait(60)
    opened = Store.open(cases.path, PASSPHRASE)
    assert len(received(opened)) == 1
    archive.lie = None
    assert Sender(opened).run().received == 2
    assert archive.posts == 2 + 1  # the second was there already, and was found there
    assert state(opened) == "received"
    opened.check()
    opened.close()


def test_a_person_who_is_deleted_in_mid_send_is_gone_here_and_told_to_be_there(cases, archive):
    found = fill(cases)
    queue(cases, destination(cases, archive.endpoint()), found=found)
    other, said = Store.open(cases.path, PASSPHRASE), []

    def delete(handler, content):
        if len(archive.held) == 1 and not said:
            said.extend(other.delete_person(found[0].id))

    archive.lie = delete
    report = Sender(cases).run()
    assert report.received == 1
    assert [str(one.words)[:19] for one in said] == ["already with Clinic"]
    assert cases.mail.referrals() == []
    assert len(archive.held) == 2  # what was on its way arrives; the third never leaves
    assert Sender(cases).run().received == 0
    cases.check()
    other.close()


def test_the_first_parcel_on_its_way_is_told_to_be_there_perhaps(cases, archive):
    found = fill(cases)
    queue(cases, destination(cases, archive.endpoint()), found=found)
    other, said = Store.open(cases.path, PASSPHRASE), []
    archive.lie = lambda *_: said.extend(other.delete_person(found[0].id)) if not said else None
    assert Sender(cases).run().received == 0
    assert [str(one.words) for one in said] == ["perhaps already with Clinic: it was being sent"]
    other.close()


@pytest.mark.parametrize("status", [401, 403, 409, 412, 413, 422])
def test_what_needs_a_person_stops_that_referral_and_no_other(cases, archive, status):
    to = destination(cases, archive.endpoint())
    queue(cases, to, id=A)
    queue(cases, to, id=B)
    first = []

    def refuse(handler, content):
        first.append(content)
        return handler.say(status) or True if len(first) == 1 else None

    archive.lie = refuse
    report = Sender(cases).run()
    assert (report.stopped, report.received) == (1, 3)
    assert (state(cases, A), state(cases, B)) == ("stopped", "received")
    assert f"({status})" in cases.mail.referral(A).why
    assert Sender(cases).run().received == 0
    cases.mail.resume(A)
    assert Sender(cases).run().received == 3


@pytest.mark.parametrize(
    ("status", "after"), [(401, "received"), (503, "received"), (422, "stopped")]
)
def test_a_token_that_is_entered_again_takes_up_all_that_waits_for_it(
    cases, archive, status, after
):
    to = destination(cases, archive.endpoint())
    for id in (A, B):
        queue(cases, to, pictures=1, id=id)
    archive.lie = lambda handler, _: handler.say(status) or True
    for _ in range(2):
        Sender(cases).run()
    archive.lie = None
    cases.mail.update_destination(replace(to, name="The clinic"))
    assert Sender(cases).run().received == 0
    cases.mail.update_destination(replace(to, dicom=replace(to.dicom, token="other")))
    Sender(cases).run()
    assert (state(cases, A), state(cases, B)) == (after, after)
    if after == "stopped":  # that place does not understand it: another one may
        with closing(DicomWebReceiver()) as other:
            cases.mail.update_destination(replace(to, dicom=other.endpoint()))
            assert Sender(cases).run().received == 2


@pytest.mark.parametrize("code", ["imported", "damaged", "tampered"])
def test_another_address_takes_up_nothing_that_is_wrong_with_the_referral_itself(
    cases, archive, code
):
    to = destination(cases, archive.endpoint())
    queue(cases, to)
    cases.mail.stop(A, Message("It came with a file."), code)
    other = replace(to.dicom, address=to.dicom.address + "/other")
    cases.mail.update_destination(replace(to, dicom=other))
    assert cases.mail.referral(A).stopped


def test_why_a_referral_is_stopped_can_be_said_in_another_language(cases):
    address = "https://clinic.example/dicom-web"
    queue(cases, destination(cases, Endpoint("dicomweb", address, authorities="none")), pictures=1)
    assert Sender(cases).run().stopped == 1
    why = cases.mail.referral(A).why
    assert (why.message, why.values) == (tls.AUTHORITY, {"place": address})


def test_a_damaged_parcel_stops_its_referral_and_no_other(cases, archive):
    to = destination(cases, archive.endpoint())
    queue(cases, to, id=A)
    queue(cases, to, id=B)
    with cases._file.writing() as connection:
        which = cases.mail.parcels(A)[1].id
        connection.execute("UPDATE payload SET data = zeroblob(99) WHERE parcel = ?", (which,))
    report = Sender(cases).run()
    assert (report.stopped, report.received) == (1, 4)
    assert (state(cases, A), state(cases, B)) == ("stopped", "received")
    assert "damaged" in cases.mail.referral(A).why


def test_what_was_moved_to_another_receiver_within_a_round_goes_there_alone(cases, archive):
    """By who has read that nothing of it had left."""
    other = DicomWebReceiver()
    to, elsewhere = destination(cases, archive.endpoint()), destination(cases, other.endpoint())
    queue(cases, to, pictures=1, id=A)
    queue(cases, to, pictures=2, id=B)
    archive.lie = lambda *_: cases.mail.resume(B, elsewhere.id)
    assert Sender(cases).run().received == 1
    assert (len(archive.held), other.held) == (1, {})
    assert Sender(cases).run().received == 2
    assert len(other.held) == 2
    other.close()
    cases.check()


def test_an_address_that_is_mended_half_way_gets_all_of_a_referral(cases, archive, clinic):
    """Its first pictures went to an archive for tests; nobody reads it."""
    other = DicomWebReceiver()
    to = destination(cases, archive.endpoint(), clinic.endpoint())
    queue(cases, to, pictures=1, id=B)
    queue(cases, to, fhir=True)
    clinic.lie = lambda handler, _: handler.say(401) or True
    Sender(cases).run()
    assert (state(cases), len(received(cases))) == ("stopped", 3)
    cases.mail.update_destination(replace(to, name="The clinic"))
    assert len(received(cases)) == 3
    cases.mail.update_destination(replace(to, dicom=other.endpoint()))
    clinic.lie = None
    cases.mail.resume(A)
    Sender(cases).run()
    assert (state(cases), state(cases, B)) == ("received", "received")
    assert sorted(other.held) == sorted(received(cases)[:3])  # all of A, and nothing of B
    other.close()
    cases.check()


def test_an_address_that_is_mended_within_a_round_gets_all_of_a_referral(cases, archive):
    other = DicomWebReceiver()
    to = destination(cases, archive.endpoint())
    queue(cases, to)
    mended = replace(to, dicom=other.endpoint())
    archive.lie = lambda *_: (len(archive.held) and cases.mail.update_destination(mended)) or None
    assert Sender(cases).run().received == 1
    assert received(cases) == []
    assert Sender(cases).run().received == 3
    assert (state(cases), sorted(other.held)) == ("received", sorted(received(cases)))
    other.close()
    cases.check()


def test_waits_grow_with_jitter_and_end_at_an_hour(cases):
    queue(cases, destination(cases, Endpoint("folder", "/nowhere", password="four words that go")))
    bounds = []

    def draw(low, high):
        bounds.append((low, high))
        return high

    outbox = Outbox(cases, draw)
    for _ in range(15):
        outbox.failed(outbox.status(cases.mail.referral(A)), Later("busy", "busy"))
    assert bounds[0] == (5.0, 10.0)
    assert [high for _, high in bounds] == sorted(high for _, high in bounds)
    assert bounds[-1] == (5.0, 3600.0)
    status = outbox.status(cases.mail.referral(A))
    outbox.failed(status, Later("busy", "429", retry_after=7200))
    assert cases.mail.attempt(A).delay == 7200
    outbox.failed(status, Later("busy", "429", retry_after=10**9))
    assert cases.mail.attempt(A).delay == 24 * 3600


def test_a_clock_that_is_set_back_or_ahead_keeps_nothing_waiting(cases, archive, at):
    at("2026-12-01T00:00:00.000Z")
    queue(cases, destination(cases, archive.endpoint()))
    archive.lie = lambda handler, _: handler.say(503, Retry_After="3000") or True
    assert Sender(cases).run().put_off == 1
    at("2026-12-01T00:10:00.000Z")
    assert Outbox(cases).due() == []
    for now in ("2026-11-30T23:59:00.000Z", "1970-01-01T00:00:00.000Z", "2026-12-01T01:00:00Z"):
        at(now)
        assert [one.referral.id for one in Outbox(cases).due()] == [A]
    at("1970-01-01T00:00:00.000Z")
    archive.lie = None
    assert Sender(cases).run().received == 3
    assert {one.dated for one in cases.mail.parcels(A)} == {False}
    cases.check()


def test_an_archive_that_is_down_is_asked_once_a_round(cases, archive):
    to = destination(cases, archive.endpoint())
    for number in range(3):
        queue(cases, to, id=f"{number:032x}")
    archive.lie = lambda handler, _: handler.say(503) or True
    report = Sender(cases).run()
    assert (archive.posts, report.put_off) == (1, 1)
    archive.lie = None
    assert Sender(cases).run().received == 6


def test_a_fault_of_a_carrier_that_nobody_foresaw_gives_nothing_up(cases, archive, capfd):
    queue(cases, destination(cases, archive.endpoint()))

    class Faulty:
        def deliver(self, parcel, again):
            raise KeyError("name of a person")

        def close(self):
            pass

    assert Sender(cases, connect=lambda _: Faulty()).run().put_off == 1
    assert "an unforeseen fault (KeyError)" in cases.mail.attempt(A).why
    assert "name of a person" not in "".join(capfd.readouterr())
    cases.mail.resume(A)
    assert Sender(cases).run().received == 3


def test_a_destination_that_is_gone_is_told(cases, archive):
    referral = queue(cases, destination(cases, archive.endpoint()))
    with cases._file.writing() as connection:  # as with a file of cases from another device
        cases._trail.log(connection, "delete destination", referral.destination)
        connection.execute("DELETE FROM destination")
    assert Sender(cases).run().stopped == 1
    assert "its destination Clinic is not on this device" in cases.mail.referral(A).why
    other = destination(cases, archive.endpoint())
    cases.mail.resume(A, other.id)
    assert Sender(cases).run().received == 3


def test_what_a_receiver_has_no_address_for_is_not_queued(cases, archive):
    to = destination(cases, archive.endpoint())
    with pytest.raises(Exception, match="has no address for FHIR"):
        queue(cases, to, fhir=True)
    assert cases.mail.referrals() == []


def test_a_disk_that_fills_while_it_is_queued_leaves_nothing_half_written(cases, archive):
    to = destination(cases, archive.endpoint())
    found = fill(cases)
    (pages,) = cases._file.writer.execute("PRAGMA page_count").fetchone()
    cases._file.writer.execute(f"PRAGMA max_page_count={pages + 20}")
    with pytest.raises(StoreError, match="the disk is full, nothing was changed"):
        queue(cases, to, side=200, found=found)
    assert cases.mail.referrals() == []
    cases._file.writer.execute("PRAGMA max_page_count=1073741823")
    queue(cases, to, side=200, found=found)
    assert Sender(cases).run().received == 3
    cases.check()


def test_a_full_disk_of_the_device_keeps_and_sends_what_was_queued(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(file, "RESERVE", 400_000)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    try:
        cases = Store.create(disk / "cases", PASSPHRASE)
        to, found, queued = destination(cases, archive.endpoint()), fill(cases), []

        def queue_for_ever() -> None:
            for number in itertools.count():
                queue(cases, to, id=f"{number:032x}", side=200, found=found)
                queued.append(f"{number:032x}")

        with pytest.raises(StoreError, match="the disk is full, nothing was changed"):
            queue_for_ever()
        assert [one.id for one in cases.mail.referrals()] == queued != []
        cases.check()
        assert Sender(cases).run().received == 3 * len(queued)
        queue(cases, to, id=B, side=200, found=found)  # what was received made room
        assert Sender(cases).run().received == 3
        cases.check()
        cases.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_receipt_that_cannot_be_kept_is_asked_for_again(cases, archive):
    """The device's disk is full when the archive has it: it is found there later."""
    queue(cases, destination(cases, archive.endpoint()), pictures=1)
    keep = cases.mail.receive
    cases.mail.receive = lambda *_args: (_ for _ in ()).throw(StoreError("full", code="full"))
    with pytest.raises(StoreError, match="full"):
        Sender(cases).run()
    cases.mail.receive = keep
    assert Sender(cases).run().received == 1
    assert archive.posts == 1


def test_a_background_thread_sends_what_is_queued_and_ends_with_the_store(tmp_path, archive):
    cases = Store.create(tmp_path / "beside", PASSPHRASE)
    background = SenderThread(cases)
    background.start()
    done = threading.Event()
    archive.lie = lambda *_: done.set() if len(archive.held) == 2 else None
    queue(cases, destination(cases, archive.endpoint()))
    background.nudge()
    assert done.wait(60)
    background.stop()
    assert background.wait(60)
    cases.close()


class Rests(threading.Event):
    """Notes how long the sender would rest, and does not."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        return False


def test_beside_the_screen_it_rests_after_each_parcel(cases, archive):
    queue(cases, destination(cases, archive.endpoint()))
    rests, greedy = Rests(), Rests()
    assert Sender(cases, rests, share=0.1).run().received == 3
    assert len(rests.seconds) == 3
    assert all(0 < seconds <= LONGEST_REST for seconds in rests.seconds)
    queue(cases, cases.mail.destinations()[0], id=B)
    assert Sender(cases, greedy).run().received == 3
    assert greedy.seconds == []


def test_the_next_parcel_gives_way_to_a_picture(cases, archive):
    """And where the app ends meanwhile, it is not sent any more."""
    queue(cases, destination(cases, archive.endpoint()))
    stop, calm = threading.Event(), Rests()
    assert Sender(cases, stop, calm=calm).run().received == 3
    assert len(calm.seconds) == 3
    queue(cases, cases.mail.destinations()[0], id=B)
    calm.wait = lambda _seconds: stop.set()
    assert Sender(cases, stop, calm=calm).run().received == 0
    assert state(cases, B) == "queued"


def test_a_destination_with_every_part_is_kept_as_it_is(cases):
    endpoint = Endpoint("dicom", "h:1", "A", "B", "u", "p", "t", "pem", "cert", "key")
    made = cases.mail.add_destination(Destination("", "C", endpoint, connect and endpoint))
    assert cases.mail.destination(made.id) == made
