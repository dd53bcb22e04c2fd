"""What the screens ask of the store to send a spot: the form, the preview, what became of it."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import cv2
import pytest

pytest.importorskip("highdicom")
pytest.importorskip("fpdf", reason="needs the package fpdf2")
pypdf = pytest.importorskip("pypdf")
pytest.importorskip("kivy", reason="the fonts of the report come with Kivy")
from store.store_cases import fill  # noqa: E402

from dermedge import UserError  # noqa: E402
from dermedge.data import synthetic  # noqa: E402
from edge_app import sending  # noqa: E402
from edge_app.i18n import language  # noqa: E402
from edge_app.presentation import messages as present  # noqa: E402
from edge_app.referral import timeline, uids  # noqa: E402
from edge_app.referral.background import SenderThread  # noqa: E402
from edge_app.referral.consent import CURRENT, Consent  # noqa: E402
from edge_app.referral.outbox import Outbox  # noqa: E402
from edge_app.referral.sender import Sender  # noqa: E402
from edge_app.store import clock  # noqa: E402
from edge_app.store.records import DermoscopeSettings  # noqa: E402
from edge_app.store.referrals import (  # noqa: E402
    Destination,
    Endpoint,
    StoredAnswer,
    StoredReferral,
)
from edge_app.store.store import Store  # noqa: E402
from sending.mail_cases import queue  # noqa: E402
from sending.receivers import FhirReceiver, picture  # noqa: E402

SECRET = "cedar wren lamp orbit"
SYSTEM = "urn:oid:1.2.3"
NOW = datetime(2026, 11, 29, 9, 30, tzinfo=timezone.utc)


def _png() -> bytes:
    image = synthetic.draw(3, "phone", (480, 640), label="mel", artefacts=()).image
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


@pytest.fixture
def spot(cases, tmp_path):
    """A person with a risk factor, a lesion, a picture, and a receiver without a network."""
    person, lesion, capture = fill(cases, picture=_png())
    lesion = replace(lesion, view="front", x=0.5, y=0.35)
    cases.update_lesion(lesion)
    stick = tmp_path / "stick"
    stick.mkdir()
    door = Endpoint("folder", str(stick), password=SECRET)
    to = cases.mail.add_destination(Destination("", "Clinic", door, door, system=SYSTEM))
    return person, lesion, capture, to


def _filled(cases, lesion) -> sending.Draft:
    draft = sending.begin(cases, lesion.id)
    draft.pictures[0].kind = "close_up"
    draft.recognizable = False
    draft.consent = Consent.to(CURRENT, "en", NOW)
    draft.question = "Is this benign?"
    return draft


def test_nothing_is_prepared_by_a_clock_that_cannot_be_right(cases, spot, monkeypatch):
    """A person would be of no age, and their study of 1970, at the clinic."""
    _person, lesion, _capture, _to = spot
    draft = _filled(cases, lesion)
    with pytest.raises(UserError, match="says 1970-01-01 00:05 UTC, which cannot be: set its date"):
        sending.prepare(cases, draft, datetime(1970, 1, 1, 0, 5, tzinfo=timezone.utc))
    monkeypatch.setattr(clock, "now", lambda: "1970-01-01T00:05:00.000Z")
    with pytest.raises(UserError, match="which cannot be: set its date"):
        sending.begin(cases, lesion.id)  # before anything is typed


def _referred(cases, lesion, capture, to, number: int, code: str = "CODE", **form) -> str:
    id = f"{number:032x}"
    one = StoredReferral(
        id, lesion.id, to.id, to.name, "2.25.9", code, captures=(capture.id,), form=form
    )
    Outbox(cases).queue(one, [picture(id, 0)])
    return id


def test_of_two_answers_the_later_one_holds_whatever_its_spot(cases, spot):
    _person, first, capture, to = spot
    second = cases.add_lesion(replace(first, id=""))
    other = cases.add_capture(replace(capture, id="", lesion=second.id), b"picture")
    _referred(cases, second, other, to, 1, answers=[["own_melanoma", False]])
    _referred(cases, first, capture, to, 2, answers=[["own_melanoma", True]])
    assert sending.begin(cases, first.id).answers["own_melanoma"] is True


def test_a_spot_keeps_the_code_by_which_a_receiver_knows_it_already(cases, spot):
    _person, lesion, capture, to = spot
    _referred(cases, lesion, capture, to, 1)  # by dermedge 0.2.0
    assert _filled(cases, lesion).referral(NOW).lesion.tracking_uid == uids.tracking_uid(lesion.id)
    _referred(cases, lesion, capture, to, 2, tracking="2.25.7")  # moved, with another's code
    assert _filled(cases, lesion).referral(NOW).lesion.tracking_uid == "2.25.7"


def test_what_was_moved_took_its_codes_along(cases, spot):
    """Two receivers could tell that it is one person."""
    _person, lesion, capture, to = spot
    before = _filled(cases, lesion).referral(NOW)
    form = {"tracking": before.lesion.tracking_uid}
    moved, waiting = (
        _referred(cases, lesion, capture, to, number, before.pseudonym, **form) for number in (1, 2)
    )
    other = cases.mail.add_destination(Destination("", "Hospital", to.dicom))
    cases.mail.resume(moved, other.id)
    cases.mail.mark_sent(cases.mail.parcels(moved)[0])
    assert Sender(cases).run().stopped == 1
    why = cases.mail.referral(waiting).why
    assert why.startswith("Hospital has other referrals under the same code")
    after = set()
    for number in (3, 4):  # a new one has others, and keeps them
        draft = _filled(cases, lesion)
        draft.choose(to)
        made = draft.referral(NOW)
        codes = (made.pseudonym, made.lesion.tracking_uid)
        after.add(codes)
        _referred(cases, lesion, capture, to, number, codes[0], tracking=codes[1])
    assert len(after) == 1
    assert not {before.pseudonym, before.lesion.tracking_uid} & {*after.pop()}


def test_a_code_that_a_receiver_has_already_stays(cases, spot):
    """Its doctor compares the pictures of a spot; what two receivers can tell, they know."""
    _person, lesion, capture, to = spot
    other = cases.mail.add_destination(Destination("", "Hospital", to.dicom))

    def codes(at, of=lesion) -> tuple[str, str]:
        draft = _filled(cases, of)
        draft.choose(at)
        made = draft.referral(NOW)
        return made.pseudonym, made.lesion.tracking_uid

    def leaves(id: str) -> None:
        (parcel,) = cases.mail.parcels(id)
        with cases._file.writing() as connection:
            cases._rows.put(connection, "parcel", replace(parcel, state="sent"), "send parcel")

    first = codes(to)
    moved, waiting = (
        _referred(cases, lesion, capture, to, number, first[0], tracking=first[1])
        for number in (1, 2)
    )
    cases.mail.resume(moved, other.id)
    leaves(moved)
    assert codes(other) == first != codes(to)
    leaves(waiting)  # by an earlier version
    assert codes(to) == codes(other) == first
    _referred(cases, lesion, capture, to, 3, first[0], tracking=first[1])
    assert Sender(cases).run().stopped == 0
    # An earlier version made others for a receiver that was entered again.
    second = cases.add_lesion(replace(lesion, id=""))
    later = cases.add_capture(replace(capture, id="", lesion=second.id), _png())
    leaves(_referred(cases, second, later, to, 4, "ABCDEFGH", tracking="2.25.7"))
    assert codes(to, second) == ("ABCDEFGH", "2.25.7")
    assert codes(to) == first


def test_a_receiver_that_is_entered_again_knows_the_person_and_the_spot_still(cases, spot):
    """As where its token was changed by `dermedge send remove` and `add`."""
    _person, lesion, capture, to = spot
    before = _filled(cases, lesion).referral(NOW)
    codes = before.pseudonym, before.lesion.tracking_uid
    _referred(cases, lesion, capture, to, 1, codes[0], tracking=codes[1])
    assert Sender(cases).run().received == 1
    cases.mail.delete_destination(to.id)
    elsewhere = replace(to.dicom, address=f"{to.dicom.address}-2")
    again, other, namesake = (
        cases.mail.add_destination(replace(to, id="", **values))
        for values in ({}, {"name": "Hospital"}, {"dicom": elsewhere, "fhir": elsewhere})
    )
    draft = _filled(cases, lesion)
    for one in (again, other, namesake):
        draft.choose(one)
        made = draft.referral(NOW)
        same = {made.pseudonym, made.lesion.tracking_uid} & {*codes}
        assert same == ({*codes} if one is again else set())
    _referred(cases, lesion, capture, again, 2, codes[0], tracking=codes[1])
    assert Sender(cases).run().received == 1


@pytest.mark.parametrize(
    ("onset", "days", "known"),
    [("weeks", 20, "weeks"), ("weeks", 200, None), ("months", 200, None), ("years", 200, "years")],
)
def test_since_when_a_spot_is_there_is_asked_again_where_time_has_passed(
    cases, spot, monkeypatch, onset, days, known
):
    _person, lesion, capture, to = spot
    _referred(cases, lesion, capture, to, 1, onset=onset)
    later = datetime.now(timezone.utc) + timedelta(days=days)
    monkeypatch.setattr(clock, "now", lambda: f"{later:%Y-%m-%dT%H:%M:%S}.000Z")
    assert sending.begin(cases, lesion.id).onset == known


def test_a_form_begins_with_what_is_known(cases, spot):
    person, lesion, capture, to = spot
    draft = sending.begin(cases, lesion.id)
    assert draft.destination == to
    assert draft.answers == {"sunbeds": True}
    assert [one.capture.id for one in draft.selected] == [capture.id]
    assert not draft.whole  # what the picture is, a person says
    draft = _filled(cases, lesion)
    draft.answers |= {"family_melanoma": False, "itching": True}
    draft.identifier, draft.onset = "  ٤٧11 ", "months"  # on an Arabic keyboard
    sending.remember(cases, draft.lasting())
    stored = sending.queue(cases, draft, sending.prepare(cases, draft, NOW))
    events = timeline.timeline(Outbox(cases).status(stored))
    (agreed,) = [one for one in events if one.title == "Consent to send"]
    assert (agreed.when, agreed.detail) == (language.moment(NOW.isoformat()), f"{CURRENT} en")
    again = sending.begin(cases, lesion.id)
    # Of the person it still holds; whether the spot itches is asked again.
    assert again.answers == {"family_melanoma": False, "sunbeds": True}
    assert (again.onset, again.identifier, again.pictures[0].kind) == ("months", "4711", "close_up")
    assert dict(cases.person(person.id).identifiers) == {SYSTEM: "4711"}
    assert again.id != draft.id
    # The spot is the same one there, and another one elsewhere.
    other = cases.mail.add_destination(replace(to, id="", name="Hospital"))
    found = {}
    for destination in (to, other):
        again.choose(destination)
        found[destination.name] = again.referral(NOW).lesion.tracking_uid
    assert stored.form["tracking"] == found["Clinic"] != found["Hospital"]
    cases.check()


def test_the_newest_picture_of_each_kind_is_proposed(cases, spot):
    _person, lesion, capture, _to = spot

    def add(kind):
        return cases.add_capture(replace(capture, id="", taken="", kind=kind), _png())

    add("overview")
    wanted = {add("overview").id, add("close_up").id}
    draft = sending.begin(cases, lesion.id)
    assert {one.capture.id for one in draft.selected} == wanted
    draft = sending.begin(cases, lesion.id, [capture.id])
    assert [one.capture.id for one in draft.selected] == [capture.id]


def test_all_that_is_shown_leaves_and_nothing_else(cases, spot):
    person, lesion, _capture, _to = spot
    draft = _filled(cases, lesion)
    prepared = sending.prepare(cases, draft, NOW)
    assert prepared.ready
    assert prepared.referral.pseudonymous
    assert {"referral-consent"} <= {
        gap.code for gap in sending.prepare(cases, replace(draft, consent=None), NOW).gaps
    }
    said = " ".join(row.value for row in prepared.rows)
    text = " ".join(
        page.extract_text() for page in pypdf.PdfReader(io.BytesIO(prepared.referral.report)).pages
    )
    for private in (person.name, "north ward", lesion.title):
        assert private not in said
        assert private not in text
    assert list(prepared.pictures) == [prepared.referral.pictures[0].id]
    draft.question = "Is Zoë well?"
    assert not sending.prepare(cases, draft, NOW).ready


def test_the_report_names_no_risk_factor_that_the_preview_does_not(cases, spot):
    person, lesion, _capture, _to = spot
    risks = ("own skin cancer", "sunbeds", "weak immune system")
    cases.update_person(replace(person, risk_factors=risks))
    draft = _filled(cases, lesion)
    draft.answers["sunbeds"] = False  # on second thoughts
    del draft.answers["weak_immune"]  # nobody's business there
    prepared = sending.prepare(cases, draft, NOW)
    (page,) = pypdf.PdfReader(io.BytesIO(prepared.referral.report)).pages
    text, said = page.extract_text(), " ".join(row.value for row in prepared.rows)
    assert [risk for risk in risks if risk in text] == ["own skin cancer"]
    assert "own skin cancer" in said


def test_pressed_twice_is_queued_once_and_comes_to_its_receiver(cases, spot, tmp_path):
    _person, lesion, _capture, to = spot
    draft = _filled(cases, lesion)
    prepared = sending.prepare(cases, draft, NOW)
    stored = sending.queue(cases, draft, prepared)
    assert sending.queue(cases, draft, prepared) == stored
    assert sending.counts(cases) == {"stopped": 0, "waiting": 1, "received": 0, "answered": 0}
    thread = SenderThread(cases)
    thread.start()
    files = lambda: list((tmp_path / "stick").rglob("*.dermparcel"))  # noqa: E731
    while sending.counts(cases)["received"] == 0:
        assert not thread.wait(0.05)
    thread.stop()
    assert thread.wait(60)
    (case,) = sending.cases(cases, lesion.id)
    assert (case.group, len(files())) == ("received", len(case.status.parcels))
    answer = StoredAnswer("", stored.id, "r/1", "1", "Benign.", "Dr. Bea", document="JVBERi0=")
    kept = cases.mail.add_answer(replace(answer, wants_better_picture=True))
    assert sending.case(cases, stored.id).group == "answered"
    assert sending.wanted(cases, lesion.id) == kept
    path = sending.save_document(cases, kept, tmp_path)
    assert path.read_bytes() == b"%PDF-"
    assert "begin report" in {entry.what for entry in cases.audit()}
    assert "folder" not in str(sending.check(to))


def later(hours: int) -> str:
    """As the store writes it: the case was made now, by the clock of this machine."""
    when = datetime.now(timezone.utc) + timedelta(hours=hours)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_what_came_while_the_clock_was_ahead_holds_nothing_up_when_it_is_right(cases, spot, at):
    _person, lesion, capture, to = spot
    _referred(cases, lesion, capture, to, 1)
    at(later(24 * 90))
    (parcel,) = cases.mail.parcels(f"{1:032x}")
    cases.mail.receive(parcel, "clinic")
    asked = StoredAnswer("", parcel.referral, "r", "1", "x", "Dr. Bea", wants_better_picture=True)
    ahead = cases.mail.add_answer(asked).received
    cases.update_lesion(replace(lesion, remind=clock.local_day(ahead)))
    at(later(1))
    cases.confirm_clock()
    assert cases.reminders(clock.local_day(clock.now()))
    status = Outbox(cases).status(cases.mail.referral(parcel.referral))
    events = {one.title: one.when for one in timeline.timeline(status)}
    assert (events["Received"], events["Answered"]) == ("date not known", "date not known")
    assert timeline.author(status.answers[0]) == "from Dr. Bea, date not known"
    assert sending.wanted(cases, lesion.id) == status.answers[0]
    cases.add_capture(replace(capture, id="", taken=""), _png())
    assert sending.wanted(cases, lesion.id) is None
    cases.check()


def test_an_answer_that_comes_with_a_file_of_cases_is_not_said_to_be_nothing_new(
    cases, spot, tmp_path
):
    _person, lesion, capture, to = spot
    stored = queue(cases, to, found=(None, lesion, capture))
    other = Store.create(tmp_path / "other", SECRET)
    said = []
    for number in range(2):
        cases.export(tmp_path / str(number), SECRET)
        said.append(present.imported(other.merge(tmp_path / str(number), SECRET)))
        cases.mail.add_answer(StoredAnswer("", stored.id, "r", "1", "melanoma"))
    assert [one.text for one in other.mail.answers(stored.id)] == ["melanoma"]
    assert said[0] == "1 new picture"
    assert said[1].endswith("What else is new in it, as an answer, is here now.")
    other.close()


def test_a_better_picture_is_not_asked_for_any_more_when_it_was_taken(cases, spot, at):
    _person, lesion, capture, to = spot
    at(later(1))
    stored = queue(cases, to, found=(None, lesion, capture))
    at(later(2))
    cases.mail.add_answer(StoredAnswer("", stored.id, "r", "1", "x", wants_better_picture=True))
    assert sending.wanted(cases, lesion.id)
    cases.mail.add_answer(StoredAnswer("", stored.id, "r", "2", "Benign after all."))
    assert sending.wanted(cases, lesion.id) is None  # its author replaced it
    cases.mail.add_answer(StoredAnswer("", stored.id, "s", "1", "x", wants_better_picture=True))
    assert sending.wanted(cases, lesion.id)
    at(later(3))
    cases.add_capture(replace(capture, id="", taken=""), _png())
    assert sending.wanted(cases, lesion.id) is None


def test_without_the_libraries_one_is_told_before_the_form(cases, spot, monkeypatch):
    monkeypatch.setattr(sending, "LIBRARIES", ("dermedge_is_not_there",))
    with pytest.raises(UserError, match="pip install"):
        sending.begin(cases, spot[1].id)


def test_receivers_are_checked_and_kept(cases, spot, monkeypatch):
    clinic = FhirReceiver()
    to = sending.save_destination(cases, Destination("", "Clinic", fhir=clinic.endpoint()))
    assert sending.check(to)
    changed = sending.save_destination(cases, replace(to, name="Skin clinic"))
    stick = spot[-1]
    assert cases.mail.destinations() == [stick, changed]
    plain = replace(to, fhir=Endpoint("fhir", "http://clinic.example/fhir"))
    with pytest.raises(UserError, match="not encrypted"):
        sending.save_destination(cases, plain)
    with pytest.raises(UserError, match="URI"):
        sending.save_destination(cases, replace(to, system="our numbers"))
    monkeypatch.setattr(sending, "may_reach", lambda: False)
    for one in (to, stick):
        with pytest.raises(UserError, match="service"):
            sending.check(one)
    clinic.close()


def test_the_dermoscope_is_asked_for_once(cases, spot):
    draft = sending.begin(cases, spot[1].id)
    draft.dermoscope = DermoscopeSettings(contact=True, immersion="ALCOHOL")
    sending.remember(cases, draft.lasting())
    assert sending.begin(cases, spot[1].id).dermoscope == draft.dermoscope
    length = len(cases.audit())
    sending.remember(cases, draft.lasting())
    assert len(cases.audit()) == length  # nothing new, nothing written
