"""A receiver that is entered on the screen, and what became of a referral in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from zones import far_east

from edge_app.referral import timeline
from edge_app.referral.outbox import Outbox
from edge_app.referral.receiver import DIFFERENT, HALF_KEY, ReceiverDraft
from edge_app.store.referrals import Attempt, Destination, Endpoint, StoredAnswer, line
from sending.mail_cases import destination, queue

DOOR = Endpoint("dicomweb", "https://pacs.example/dicom-web", token="t", authorities="PEM")
FHIR = replace(DOOR, carrier="fhir", address="https://clinic.example/fhir")


@pytest.mark.parametrize(
    "kept",
    [
        Destination("a" * 32, "Clinic", DOOR, FHIR, "urn:oid:1.2.3", True),
        Destination("a" * 32, "Clinic", None, FHIR),
        Destination("a" * 32, "Clinic", replace(DOOR, carrier="dicom", called="PACS", calling="K")),
    ],
)
def test_what_is_entered_comes_back_as_it_was(kept):
    draft = ReceiverDraft.of(kept)
    assert not [*draft.faults()]
    assert draft.destination() == kept


def test_a_folder_takes_pictures_and_request():
    draft = ReceiverDraft(Destination("", ""), "Stick", "folder", " /media/stick ")
    assert len([*draft.faults()]) == 1  # its passphrase
    draft.password = "cedar wren lamp orbit"
    made = draft.destination()
    assert made.dicom == made.fhir
    assert made.dicom.address == "/media/stick"
    assert ReceiverDraft.of(made).fhir == ""


def test_what_is_missing_is_told():
    draft = ReceiverDraft(Destination("", ""))
    assert len([*draft.faults()]) == 2  # name and address
    draft.name, draft.way = "Clinic", ""
    assert len([*draft.faults()]) == 1  # no FHIR server
    draft.fhir, draft.certificate = "https://clinic.example/fhir", "PEM"
    assert [*draft.faults()] == [HALF_KEY]
    two = Destination("a" * 32, "Clinic", DOOR, replace(FHIR, token="another"))
    assert [*ReceiverDraft.of(two).faults()] == [DIFFERENT]  # one of them would be lost
    stick = Endpoint("folder", "/media/stick", password="cedar wren lamp orbit")
    two = replace(
        two, dicom=stick, fhir=replace(FHIR, token="", authorities="", password=stick.password)
    )
    assert [*ReceiverDraft.of(two).faults()] == [DIFFERENT]


def _titles(cases, id="a" * 32) -> list[str]:
    status = Outbox(cases).status(cases.mail.referral(id))
    return [event.title for event in timeline.timeline(status)]


def test_the_timeline_tells_how_far_it_came(cases):
    to = destination(cases, DOOR, FHIR)
    stored = queue(cases, to, pictures=2)
    status = lambda: Outbox(cases).status(cases.mail.referral(stored.id))  # noqa: E731
    assert _titles(cases) == ["Queued"]
    reason = line("nobody answers", "down")
    cases.mail.note_attempt(stored.id, Attempt(1, "2026-11-29T10:00:00Z", 60.0, reason))
    last = timeline.timeline(status())[-1]
    assert last.title == "Tried, not sent yet"
    assert last.detail.startswith("Nobody answers. It is tried again by ")
    first, second = cases.mail.parcels(stored.id)
    cases.mail.receive(cases.mail.mark_sent(first), "pacs.example")
    assert timeline.headline(status()) == "Is being sent (1 of 2)"
    cases.mail.stop(stored.id, "ask its administrator", "403")
    assert timeline.timeline(status())[-1] == ("Stopped", "", "Ask its administrator.")
    cases.mail.resume(stored.id)
    cases.mail.receive(cases.mail.mark_sent(second), "pacs.example")
    assert _titles(cases) == ["Queued", "Sending begun", "Received"]
    answer = StoredAnswer("", stored.id, "r/1", "1", "Benign.", "Dr. Bea", "2026-11-30T08:00:00Z")
    cases.mail.add_answer(answer)
    assert timeline.headline(status()) == "Answered: from Dr. Bea, Nov 30, 2026"
    cases.mail.add_answer(replace(answer, source="r/2", author="", issued="yesterday"))
    assert timeline.author(status().answers[-1]).startswith("without a name, ")
    with far_east():  # where that evening is the next morning
        late = replace(answer, issued="2026-11-30T22:00:00Z", received="2026-11-30T23:00:00Z")
        assert timeline.author(late) == "from Dr. Bea, Dec 1, 2026"
        assert timeline.day_of(replace(late, issued="2026-11-30")) == "2026-11-30"
        assert timeline.day_of(replace(late, issued="")) == "2026-12-01"
        assert timeline.day_of(replace(late, issued="", dated=False)) == ""
