"""What goes on behind the screens: the store, files in and out, a spot's course, in words."""

from __future__ import annotations

import stat
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import date, time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from zones import far_east

import dermedge
from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.image.foreign import read_foreign
from dermedge.image.read import write_png

pytest.importorskip("cryptography", reason="the store needs it")
pytest.importorskip("babel", reason="the words need it")
from edge_app import browser, cases
from edge_app.capture.shots import Result, Snapshot
from edge_app.capture.sources import FAULTS, Frame
from edge_app.capture.worker import Worker
from edge_app.documents import pdf as document
from edge_app.follow_up.history import history
from edge_app.i18n import language
from edge_app.i18n.language import Message
from edge_app.kiosk import WrongPin
from edge_app.presentation import about, comparison
from edge_app.presentation import messages as present
from edge_app.self_check import Check, running_check
from edge_app.session import Session, VisitOver
from edge_app.settings import Settings
from edge_app.store import clock, damage, derivation, store
from edge_app.store.referrals import Elsewhere
from edge_app.store.store import Capture, Entry, Lesion, NotWiped, Person, StoreError, WrongKey


@pytest.fixture(autouse=True)
def _quick_keys(monkeypatch):
    monkeypatch.setattr(derivation, "ARGON2", {"iterations": 1, "lanes": 1, "memory_cost": 64})


@pytest.fixture(scope="module")
def analyzer(tiny_bundle) -> Analyzer:
    return Analyzer(Bundle.open(tiny_bundle))


@pytest.fixture
def session(tmp_path, analyzer):
    found = Session(tmp_path / "home", analyzer.bundle.manifest)
    found.create("1234")
    yield found
    found.lock()
    found.wait_until_locked()


def taken(session, analyzer, folder: Path, day: str, view: int, px_per_mm=None) -> Capture:
    """A drawn lesion, captured on that day into the store."""
    sample = draw(2, size=(300, 400), view=view, ita=60, diameter_mm=5, artefacts=())
    path = folder / "picture.png"
    write_png(path, sample.image)
    analysis = analyzer.analyze(path).to_json()
    size = tuple(analysis["size"])
    record = Capture("", session.lesion.id, f"{day}T09:30:00Z", analysis, size, px_per_mm)
    return session.opened().add_capture(record, path.read_bytes())


@pytest.fixture
def spot(session, analyzer, tmp_path) -> list[Capture]:
    """Three captures of a spot of Zoë's, without a scale in the second."""
    session.save_person(Person("", "Zoë Łukasz", 1961))
    session.save_lesion(Lesion("", session.person.id, "left forearm"))
    days = (("2026-01-31", 20.0), ("2026-03-01", None), ("2026-07-01", 21.0))
    return [
        taken(session, analyzer, tmp_path, day, view, scale)
        for view, (day, scale) in enumerate(days)
    ]


@pytest.mark.parametrize("kiosk", [True, False])
def test_the_sender_works_as_long_as_the_store_is_open(tmp_path, analyzer, kiosk):
    """A visit that ends locks the store of a device of one's own, not a kiosk's."""
    found = Session(tmp_path / "home", analyzer.bundle.manifest, kiosk)
    assert found.sender is None
    found.create("1234")
    sender = found.sender
    found.leave()
    assert (found.sender is sender) == kiosk
    found.lock()
    assert found.sender is None
    assert sender.wait(60)
    found.wait_until_locked()


# ------------------------------------------------------------------------------- in and out


def test_an_export_is_taken_in_elsewhere_with_its_own_passphrase(session, spot, tmp_path, analyzer):
    folder = tmp_path / "my stick"
    folder.mkdir()
    path = cases.export(session.opened(), folder, "for the other")
    assert path.suffix == ".dermcases"
    assert (
        cases.export(session.opened(), folder, "for the other") != path
    )  # nothing is written over
    other = Session(tmp_path / "other", analyzer.bundle.manifest)
    other.create("5678")
    with pytest.raises(WrongKey):
        other.opened().merge(path, "1234")
    assert other.opened().merge(path, "for the other") == 3
    assert other.opened().merge(path, "for the other") == 0
    assert [person.name for person in other.opened().people()] == ["Zoë Łukasz"]
    other.lock()


def test_an_export_of_one_person_holds_no_other_and_its_name_tells_nobody(
    session, spot, tmp_path, analyzer
):
    session.save_person(Person("", "Somebody else"))
    path = cases.export(session.opened(), tmp_path, "for the other", session.person)
    assert "Somebody" not in path.name
    other = Session(tmp_path / "other", analyzer.bundle.manifest)
    other.create("5678")
    assert other.opened().merge(path, "for the other") == 0
    assert [person.name for person in other.opened().people()] == ["Somebody else"]
    other.lock()


def test_a_report_says_only_what_was_chosen_and_overwrites_nothing(session, spot, tmp_path):
    first = cases.write_report(session.opened(), tmp_path, spot[2], spot[0], ())
    entries = session.opened().audit()[-2:]
    assert [entry.what for entry in entries] == ["begin report", "done report"]
    assert [entry.which for entry in entries] == [spot[2].id] * 2
    second = cases.write_report(session.opened(), tmp_path, spot[2], spot[0], ("name",))
    assert first.name == "case-2026-07-01.pdf"
    late = replace(spot[2], taken="2026-07-01T22:00:00Z")
    with far_east():
        made = cases.write_report(session.opened(), tmp_path, late, None, ())
    assert made.name == "case-2026-07-02.pdf"
    undated = replace(spot[2], dating="unknown")
    made = cases.write_report(session.opened(), tmp_path, undated, None, ())
    assert made.name == "case-undated.pdf"
    assert first != second
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert first.read_bytes().startswith(b"%PDF")


def test_the_size_card_is_written_for_both_papers(session, tmp_path):
    pypdf = pytest.importorskip("pypdf", reason="a PDF is read back")
    for name, paper, words, wide in (
        ("en", "a4", "This line must be 50 mm long", 210),
        ("de", "letter", "Diese Linie muss 50 mm lang sein", 215.9),  # it was in English
    ):
        language.use(name)
        try:
            card = cases.write_card(tmp_path, paper)
        finally:
            language.use("en")
        (page,) = pypdf.PdfReader(card).pages
        assert words in page.extract_text()
        assert float(page.mediabox.width) * 25.4 / 72 == pytest.approx(wide, abs=0.1)
        assert card.name == f"size-card-{paper}.pdf"


@pytest.mark.parametrize("gone", [False, True])
def test_where_nothing_can_be_written_nothing_is_left(session, spot, tmp_path, monkeypatch, gone):
    folder = tmp_path / "مجلد 1"
    if not gone:
        folder.mkdir()

        def refuse(*_args, **_values):
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(browser.tempfile, "TemporaryFile", refuse)
    before = session.opened().audit()
    for action in (
        lambda: cases.export(session.opened(), folder, "for the other"),
        lambda: cases.write_report(session.opened(), folder, spot[0], None, ()),
        lambda: cases.write_card(folder, "a4"),
    ):
        with pytest.raises(UserError, match="مجلد 1"):
            action()
    assert gone or list(folder.iterdir()) == []
    assert session.opened().audit() == before


# ------------------------------------------------------------------------------- secrets


def test_the_passphrase_changes_only_with_the_old_one(session, spot):
    with pytest.raises(WrongKey):
        session.change_passphrase("wrong", "new one")
    session.change_passphrase("1234", "new one")
    session.lock()
    with pytest.raises(WrongKey):
        session.unlock("1234")
    session.unlock("new one")
    assert len(session.opened().people()) == 1


def test_the_pin_changes_only_with_the_old_one(tmp_path, analyzer):
    kiosk = Session(tmp_path / "kiosk", analyzer.bundle.manifest, kiosk=True)
    kiosk.pin.set("2580")
    with pytest.raises(WrongPin):
        kiosk.change_pin("2581", "3690")
    with pytest.raises(UserError, match="at least four digits"):
        kiosk.change_pin("2580", "12")
    kiosk.change_pin("2580", "3690")
    kiosk.enter("3690")
    assert kiosk.operator


def test_what_a_visitor_of_a_kiosk_changes_lasts_for_the_visit(tmp_path, analyzer):
    kiosk = Session(tmp_path / "kiosk", analyzer.bundle.manifest, kiosk=True)
    kiosk.settings.rotation = 180  # as --rotate sets it

    def state(settings):
        return settings.language, settings.auto, settings.rotation, settings.theme

    kiosk.change(language="ar", auto=False, rotation=90)
    assert state(kiosk.settings) == ("ar", False, 90, "light")
    kiosk.operator = True
    kiosk.change(theme="dark")
    assert state(kiosk.settings) == ("ar", False, 90, "dark")
    for _visit in range(2):
        kiosk.leave()
        assert state(kiosk.settings) == ("", True, 180, "dark")
    kiosk.operator = True
    kiosk.change(language="de")
    kiosk.leave()
    assert state(Settings.load(kiosk.home / "settings.json")) == ("de", True, 180, "dark")


def test_locked_cases_are_told(session):
    session.lock()
    for action in (
        lambda: session.opened().merge(Path("x"), "y"),
        lambda: cases.export(session.opened(), Path("."), "y"),
    ):
        with pytest.raises(UserError, match="locked"):
            action()


# ------------------------------------------------------------------------------- a spot's course


def test_trends_keep_to_what_is_known(session, spot):
    refused = [replace(one, analysis=one.analysis | {"triage": "retake"}) for one in spot]
    assert {trend.values for trend in comparison.trends(history(refused))} == {()}
    spot = [replace(one, analysis=one.analysis | {"triage": "low"}) for one in spot]
    area, colors, asymmetry, border = comparison.trends(history(spot))
    assert len(area.values) == 2  # one picture has no scale
    assert area.days == (0.0, pytest.approx(151))
    assert area.span == pytest.approx(151)
    assert area.now.endswith("mm²")
    assert len(asymmetry.values) == len(border.values) == len(spot)
    assert colors.ticks[-1][0] == 6
    assert asymmetry.ends == ("Jan 31, 2026", "Jul 1, 2026")
    for trend in (area, colors, asymmetry, border):
        assert trend.ticks[0][0] == 0
        assert max(trend.values) <= trend.ticks[-1][0]
    unknown = comparison.trends(history([spot[1]]))[0]
    assert (unknown.values, unknown.span, unknown.now) == ((), 0, "size unknown")


@given(st.floats(1e-6, 1e9))
def test_an_axis_holds_its_values_without_much_to_spare(most):
    high, digits = comparison._axis(most)
    assert most <= high * (1 + 1e-6) <= 2.01 * most
    assert round(high / 2, digits) == pytest.approx(high / 2)


@given(st.floats(0, 1e-6, exclude_max=True))
def test_an_axis_shows_no_rounding_error(most):
    assert comparison._axis(most) == (1.0, 1)


def test_what_changed_is_told_from_the_earlier_to_the_later(session, spot):
    # Whatever the untrained network says of them.
    judged = [replace(one, analysis={**one.analysis, "triage": "low"}) for one in spot]
    _later, _earlier, change = cases.compared(session.opened(), judged[2], judged[0])
    rows = dict(comparison.changes(change))
    after, before = change.area_mm2
    assert rows["Area"].startswith(f"{before:.1f} to {after:.1f} mm²")
    assert rows["Area"].endswith(f"({after / before - 1:+.0%})")
    lighter = replace(change, color_shift=(-9.0, 0.0, 0.0))
    assert dict(comparison.changes(lighter))["Colour"] == "lighter"
    cut = replace(change, area_mm2=(None, None), area_change=None, remarks=("cut_off",))
    assert dict(comparison.changes(cut))["Area"] == "unknown: the lesion is cut off"
    grown = replace(change, area_mm2=(None, 1.0), area_change=-0.2)
    assert dict(comparison.changes(grown))["Area"].startswith("+25%")
    every = tuple(comparison.REMARKS)
    assert len(comparison.remarks(replace(change, remarks=every))) == len(every)


def test_pictures_of_one_day_are_told_apart_by_the_time(spot):
    later = replace(spot[0], taken="2026-01-31T11:00:00Z")
    first, second, third = comparison.labels([spot[0], later, spot[1]])
    assert third == "Mar 1, 2026"
    assert first != second


@pytest.mark.parametrize("close", [False, True])
def test_two_sides_show_the_same_skin(session, spot, close):
    pixels, _earlier, change = cases.compared(session.opened(), spot[2], spot[0])
    small = cv2.resize(pixels, None, fx=0.5, fy=0.5)
    half = replace(
        change,
        warped=cv2.resize(change.warped, small.shape[1::-1]),
        covered=cv2.resize(change.covered.astype(np.uint8), small.shape[1::-1]) > 0,
    )
    whole = comparison.sides(spot[2], pixels, change, close, (0, 0, 0))
    reduced = comparison.sides(spot[2], small, half, close, (0, 0, 0))
    for earlier, later, faded in (whole, reduced):
        assert earlier.pixels.shape == later.pixels.shape == faded.pixels.shape
        assert earlier.extent == later.extent
        scale = later.pixels.shape[1] / later.extent[0]
        assert later.pixels.shape[0] == pytest.approx(scale * later.extent[1])
        points = np.concatenate([*map(np.array, [*earlier.outline, *later.outline])])
        assert (points >= 0).all()
        assert (points <= later.extent).all()
    assert whole[1].extent == pytest.approx(reduced[1].extent, abs=4)
    assert close == (whole[1].extent[0] < spot[2].size[0])


def test_what_is_deleted_is_gone_though_its_traces_and_a_receiver_stay(session, spot, monkeypatch):
    """Not a failure: else the screen would go on showing what is not there any more."""
    with_receiver = Elsewhere("Skin clinic", "2026-11-30T09:00:00Z")

    def delete(_table, _id):
        error = NotWiped("it is done, but sealed traces stay", code="not-wiped")
        error.elsewhere = (with_receiver,)
        raise error

    monkeypatch.setattr(session.opened()._deletion, "delete", delete)
    for found in (
        session.delete_capture(spot[0].id),
        session.delete_referral("any"),
        session.delete_lesion(session.lesion),
    ):
        assert present.erased(found.error, found.elsewhere) == (
            "It is done, but sealed traces stay. Deleted here. "
            "Already with Skin clinic, since 2026-11-30."
        )
    assert present.erased(None, ()) == ""


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.sampled_from(comparison.REMINDERS))
def test_a_reminder_falls_into_the_month_that_was_asked_for(today, months):
    day = comparison.months_on(today, months)
    assert (day.year * 12 + day.month) - (today.year * 12 + today.month) == months
    assert day.day <= today.day


def test_a_spot_is_due_until_a_picture_of_it_is_kept_whatever_else_is_changed(session, spot):
    store, old, analysis = session.opened(), session.lesion, spot[0].analysis
    for triage, remind, left in (
        ("low", "2049-09-01", "2049-09-01"),
        ("retake", "2026-09-01", "2026-09-01"),  # it is still to be photographed
        ("low", "2026-09-01", None),
    ):
        store.update_lesion(replace(old, remind=remind))  # as an answer does
        assert session.change_lesion(old, notes="itches").remind == remind
        found = Result({**analysis, "triage": triage}, png=b"png", lesion_id=old.id)
        assert session.save(found).saved
        assert store.lesion(old.id) == replace(old, notes="itches", remind=left)


def photo(path: Path, when: str = "", zone: str = "") -> Path:
    """A picture of a camera that says when it was taken."""
    picture, exif = Image.fromarray(draw(2, size=(300, 400), artefacts=()).image), Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update({36867: when, 36881: zone} if when else {})
    picture.save(path, exif=exif.tobytes())
    return path


@pytest.mark.parametrize(
    ("when", "zone", "wanted"),
    [
        ("2019:05:12 23:30:00", "-05:00", "2019-05-13T04:30:00.000Z"),
        ("2019:05:12 23:30:00", "Z", "2019-05-12T23:30:00.000Z"),
        # EXIF 2.31 writes a zone that is not known so: the picture had no date.
        *(
            ("2019:05:12 12:00:00", zone, clock.on("2019-05-12", time(12)).replace("Z", ".000Z"))
            for zone in ("", "   :  ", "UTC")
        ),
        ("2000:01:01 00:00:00", "", ""),  # of a camera whose clock nobody has set
        ("2049:01:01 00:00:00", "", ""),
        ("    :  :     :  :  ", "", ""),
        ("", "", ""),
    ],
)
def test_a_file_is_of_the_day_on_which_it_was_taken(tmp_path, when, zone, wanted):
    for ending in ("jpg", "webp"):
        path = photo(tmp_path / f"photo.{ending}", when, zone)
        assert cases.taken(path) == wanted
        # The page, which has no Pillow, reads the same.
        assert clock.of_camera(read_foreign(path.read_bytes()).taken) == wanted
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"\xff\xd8\xff\xe1")
    assert cases.taken(damaged) == ""


@pytest.mark.parametrize(
    ("when", "wanted"),
    [
        ("2026:07:01 13:00:00", "2026-07-01T12:00:00.000Z"),  # it is in summer time
        ("2026:07:02 11:59:59", "2026-07-01T12:00:00.000Z"),  # of another zone
        ("2026:07:02 12:00:00", ""),
    ],
)
def test_a_camera_whose_clock_is_ahead_took_its_picture_now(tmp_path, monkeypatch, when, wanted):
    """Else each that it takes would have no date."""
    monkeypatch.setattr(clock, "now", lambda: "2026-07-01T12:00:00.000Z")
    assert cases.taken(photo(tmp_path / "photo.jpg", when, "+00:00")) == wanted


@pytest.mark.parametrize("ending", ["heic", "webp", "tif", "avif"])
def test_when_a_file_was_taken_is_read_from_each_kind(tmp_path, ending, monkeypatch):
    if ending == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    else:  # nor is what reads those needed
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    assert cases.taken(photo(tmp_path / f"photo.{ending}", "2019:05:12 12:00:00"))


def test_an_old_photo_stands_before_what_is_there_and_makes_nothing_done(session, spot, tmp_path):
    """It stood behind them, as of today: a spot had grown within a day, and was due no more."""
    store = session.opened()
    due = session.change_lesion(session.lesion, remind="2026-09-01")
    shot = session.shot(photo(tmp_path / "photo.jpg", "2019:05:12 12:00:00"), date(2026, 5, 1))
    assert shot.metadata["age"] == 2019 - 1961
    found = Result(spot[0].analysis, png=b"png", lesion_id=due.id, taken=shot.taken)
    id = session.save(found).record_id
    captures = store.captures(due.id)
    assert [one.id for one in captures] == [id, *(one.id for one in spot)]
    assert comparison.when(captures[0]) == "May 12, 2019 (from a file)"
    assert "2019-05-12 (from a file)" in document._when(captures[0])
    assert store.lesion(due.id).remind == "2026-09-01"


def test_an_old_photo_has_no_part_in_what_pictures_of_today_say(session, spot):
    """A spot that became dangerous since would be the less so for it."""
    for when, used in (("2019-05-12T12:00:00.000Z", None), (None, None), ("", 2)):
        session.take(Result(spot[0].analysis, taken=when))
        together, others = session.together()
        assert (together and together.pictures) == used
        view = present.result(spot[0].analysis, together, others)
        # What was taken in is not left out without a word.
        assert ("1 picture of another day does not count" in view.several) == bool(others)
        assert others == min(len(session.results) - 1, 1)


def test_of_a_file_that_does_not_say_when_it_was_taken_the_day_can_be_given(session, spot):
    """A messenger takes it out."""
    store, due = session.opened(), session.change_lesion(session.lesion, remind="2026-01-01")
    analysis = {**spot[0].analysis, "triage": "low"}
    found = Result(analysis, png=b"png", lesion_id=due.id, taken="")
    id = session.save(found).record_id
    last = store.captures(due.id)[-1]
    assert (last.id, last.dated, clock.local_day(last.taken)) == (id, False, str(date.today()))
    # No report, referral or list may say that it is of today, nor is what was due done by it.
    assert comparison.when(last).startswith("Date not known (added ")
    assert document._when(last) == f"Date not known (added {date.today()})"
    assert "do not say when" in comparison.clock_remark([last])
    assert store.lesion(due.id).remind == "2026-01-01"
    session.correct_date(id, date(2026, 2, 1))
    assert store.lesion(due.id).remind is None
    given = next(one for one in store.captures(due.id) if one.id == id)
    assert given.dating == "given"
    assert comparison.when(given) == "Feb 1, 2026 (from a file)"
    assert [one.id for one in store.captures(due.id)].index(id) == 1
    with pytest.raises(StoreError, match="choose a day in between"):
        store.correct_date(id, "2049-01-01")
    store.check()


def test_every_event_of_the_audit_trail_has_a_message(session, spot, tmp_path):
    session.save_lesion(replace(session.lesion, remind="2026-09-01"))
    session.change_passphrase("1234", "new one")
    cases.export(session.opened(), tmp_path, "for the other")
    session.opened().delete_capture(spot[0].id)
    session.delete_lesion(session.lesion)
    session.delete_person(session.person.id)
    for entry in session.opened().audit():
        assert entry.what in comparison.AUDIT_EVENTS
    what, when = comparison.audit_row(
        Entry(1, "2026-01-31T09:30:00Z", "add capture", "0123456789abcdef")
    )
    assert what == "Picture added"
    assert "01234567" in when


# ------------------------------------------------------------------------------- the device


class Running:
    """What `running_check` needs of a worker."""

    def __init__(self, bundle, snapshot):
        self.bundle, self._snapshot = bundle, snapshot

    def snapshot(self):
        return self._snapshot


def test_a_running_app_is_checked_by_the_frames_that_it_has(analyzer, tmp_path):
    frame = Frame(np.full((48, 64, 3), 99, np.uint8), 1)
    seen = Snapshot(frame=frame, source="camera 0", fault="", fault_code="")
    checks = {
        check.name: check for check in running_check(Running(analyzer.bundle, seen), tmp_path)
    }
    assert checks["camera"] == Check("camera", True, "camera 0, 64 x 48 px")
    assert checks["bundle"].ok
    lost = Running(analyzer.bundle, Snapshot(fault=FAULTS["waiting"]))
    checks = {check.name: check for check in running_check(lost, tmp_path)}
    assert not checks["camera"].ok


def test_a_bundle_that_was_replaced_since_the_start_is_a_fault(tiny_bundle, make_bundle, tmp_path):
    """The key that the first one was checked with is not known to the check of the running app."""
    path = tmp_path / "kept.dermbundle"
    path.write_bytes(tiny_bundle.read_bytes())
    worker = Running(Bundle.open(path), Snapshot(fault=FAULTS["waiting"]))
    assert next(running_check(worker, tmp_path)).ok
    path.write_bytes(make_bundle().read_bytes())
    check = next(running_check(worker, tmp_path))
    assert not check.ok
    assert "another file than at the start" in check.message


def test_faults_found_at_start_are_told_until_they_are_mended():
    checks = [
        Check("camera", False, Message("camera 0 is gone")),
        Check("disk", True, Message("9 GiB free")),
    ]
    assert "Camera: Camera 0 is gone." in present.faults(checks, Snapshot())
    assert "GiB" not in present.faults(checks, Snapshot())
    frame = Frame(np.zeros((4, 4, 3), np.uint8), 1)
    assert present.faults(checks, Snapshot(frame=frame, fault="")) == ""
    assert present.faults([], Snapshot()) == ""


COLLECTIONS = {
    "smartphone": "PAD-UFES-20, MILK10k",
    "dermoscopy": "HAM10000, MILK10k, ISIC 2017, ISIC 2020",
    "multitask": "HAM10000, MILK10k, ISIC 2017, ISIC 2020",
}


@pytest.mark.parametrize("name", COLLECTIONS)
def test_a_bundle_tells_its_measured_accuracy_in_numbers_of_people(name):
    bundle = Bundle.open(Path(dermedge.__file__).with_name("models") / f"{name}.dermbundle")
    manifest, measured = bundle.manifest, bundle.manifest.measured["classifier"]
    said = " ".join(about.accuracy(manifest))
    doctor = measured["see_doctor"]
    assert f"sends {100 * doctor['sensitivity']['value']:.0f} to a doctor" in said
    assert f"sends {100 - 100 * doctor['specificity']['value']:.0f} to a doctor without" in said
    assert language.number(measured["pictures"]) in said
    assert f"of the collection {COLLECTIONS[name]}, of which" in said
    titles = [section.title for section in about.sections(manifest, bundle.sha256)]
    assert "Licences" in titles


def test_limits_chosen_on_other_pictures_are_not_called_chosen_on_the_same():
    path = Path(dermedge.__file__).with_name("models") / "smartphone.dermbundle"
    manifest = Bundle.open(path).manifest
    classifier = dict(manifest.measured["classifier"], half="accepting")
    classifier["see_doctor"] = {
        name: {"value": 0.5, "low": None, "high": None} for name in ("sensitivity", "specificity")
    }
    said = " ".join(about.accuracy(replace(manifest, measured={"classifier": classifier})))
    assert "None of its limits was chosen on them" in said
    assert "chosen on the same pictures" not in said
    assert "sends 50 to a doctor (0 to 100)" in said


def test_an_unmeasured_bundle_says_so(analyzer):
    assert "Not measured." in about.accuracy(analyzer.bundle.manifest)


def test_the_log_is_shown_from_its_end(tmp_path):
    path = tmp_path / "kiosk.log"
    path.write_text("".join(f"line {n}\n" for n in range(300)))
    lines = about.log(path)
    assert lines[:2] == ["line 299", "line 298"]
    assert len(lines) == about.LOG_LINES


def test_a_sitting_is_saved_under_a_spot(session, spot, analyzer, tmp_path):
    write_png(tmp_path / "a.png", draw(3, size=(300, 400)).image)
    analysis = analyzer.analyze(tmp_path / "a.png").to_json()
    session.take(Result(analysis=analysis, png=(tmp_path / "a.png").read_bytes()))
    assert not session.saved
    session.accept(session.keep(session.lesion, session.results))
    assert session.saved
    assert len(session.opened().captures(session.lesion.id)) == len(spot) + 1


# ------------------------------------------------------------------------------- visits


@pytest.fixture
def shots(analyzer) -> tuple[Result, ...]:
    """Two pictures of nobody's."""
    made = []
    for view in (0, 1):
        pixels = draw(2, size=(300, 400), view=view, artefacts=()).image
        png = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
        made.append(Result(analysis=analyzer.analyze(png).to_json(), png=png))
    return tuple(made)


def test_a_shot_holds_what_was_at_work_when_it_was_pressed(session, spot):
    session.reference = "card"
    shot = session.shot(Frame(np.zeros((9, 9, 3), np.uint8), 1), date(2026, 5, 1))
    lesion = session.lesion.id
    session.leave()
    later = session.shot(Frame(np.zeros((9, 9, 3), np.uint8), 2), date(2026, 5, 1))
    assert (shot.lesion_id, shot.metadata["age"], shot.reference) == (lesion, 65, "card")
    assert (later.lesion_id, dict(later.metadata), later.reference) == ("", {}, None)
    assert (later.visit, later.id) == (shot.visit + 1, shot.id + 1)


def test_what_is_kept_while_its_person_leaves_is_whole_and_comes_back_to_nobody(
    session, spot, shots, monkeypatch
):
    """`leave` comes between the two pictures, as when a kiosk is left alone."""
    session.results, lesion, save = shots, session.lesion, session._save

    def slow(result, lesion_id):
        saved = save(result, lesion_id)
        session.person = session.lesion = None
        session.results = ()
        session.visit += 1
        return saved

    monkeypatch.setattr(session, "_save", slow)
    kept = session.keep(lesion, shots)
    assert kept.error is None
    assert [result.saved for result in kept.results] == [True, True]
    assert len(session.opened().captures(lesion.id)) == len(spot) + 2
    session.accept(kept)
    assert (session.lesion, session.results) == (None, ())


def test_what_could_not_all_be_kept_is_told_and_goes_on_where_it_ended(
    session, spot, shots, monkeypatch
):
    session.results, lesion, save = shots, session.lesion, session._save

    def second_fails(result, lesion_id):
        if result is shots[1]:
            raise store.StoreError("the disk is full")
        return save(result, lesion_id)

    with monkeypatch.context() as full:
        full.setattr(session, "_save", second_fails)
        kept = session.keep(lesion, shots)
    assert str(kept.error) == "the disk is full"
    session.accept(kept)
    assert [result.saved for result in session.results] == [True, False]
    session.accept(session.keep(lesion, session.results))
    assert session.saved
    assert len(session.opened().captures(lesion.id)) == len(spot) + 2


@pytest.mark.parametrize("what", ["person", "lesion", "unlock", "enter", "delete"])
def test_nothing_is_set_again_for_somebody_who_has_left(session, spot, monkeypatch, what):
    person, lesion = session.person, session.lesion
    session.kiosk = True  # whose store stays open
    session.pin.set("2468")
    opened = session.opened()
    action = {
        "person": lambda: session.save_person(Person("", "Late")),
        "lesion": lambda: session.save_lesion(Lesion("", person.id, "late")),
        "unlock": lambda: session.unlock("1234"),
        "enter": lambda: session.enter("2468"),
        "delete": lambda: session.delete_lesion(lesion),
    }[what]
    closed = []
    monkeypatch.setattr(store.Store, "close", lambda self: closed.append(self))
    before = session.visit
    session.leave()
    session.person = next_one = Person("9", "Next")
    with session.on_behalf_of(before), pytest.raises(VisitOver):
        action()
    assert session.person is next_one
    assert session.lesion is None
    assert session.operator is False
    assert session.store is opened
    assert len(closed) == (what == "unlock")  # the one that came too late


def test_leaving_waits_for_no_import(session, spot):
    """Somebody holds the store's lock, as a long import does."""
    held, let_go = threading.Event(), threading.Event()
    opened = session.opened()

    def long_import():
        with suppress(store.StoreError), opened._file.writing():  # it is broken off
            held.set()
            assert let_go.wait(60)

    at_work = threading.Thread(target=long_import)
    at_work.start()
    assert held.wait(60)
    session.leave()  # would wait for ever
    assert session.store is None
    with pytest.raises(UserError, match="locked"):
        session.opened()
    let_go.set()
    at_work.join()
    session.wait_until_locked()
    with pytest.raises(store.StoreError):
        opened.people()


def test_a_report_names_whose_the_picture_is_and_not_who_is_at_work(
    session, spot, tmp_path, monkeypatch
):
    printed = []
    monkeypatch.setattr(document, "write_case", lambda *given: printed.append(given))
    ada = session.person
    session.save_person(Person("", "Somebody else"))
    session.lesion = None
    cases.write_report(session.opened(), tmp_path, spot[0], None, ("name",))
    _path, _shot, _before, person, lesion, _fields = printed[0]
    assert (person, lesion.id) == (ada, spot[0].lesion)


# ------------------------------------------------------------------------------- risk maps


@pytest.fixture
def explaining(make_bundle, tmp_path):
    """A session and a worker whose classifier takes age, sex and site, and tells why."""
    bundle = Bundle.open(make_bundle(metadata=("age", "sex", "site")))
    found = Session(tmp_path / "explaining", bundle.manifest)
    found.create("1234")
    found.save_person(Person("", "Ada", 1961, "female"))
    found.save_lesion(Lesion("", found.person.id, "left forearm"))
    yield found, Worker(lambda: None, Analyzer(bundle), None)
    found.lock()
    found.wait_until_locked()


def _stored(session, worker, lesion=True, photo=None) -> tuple[Capture, Result]:
    pixels = draw(2, size=(300, 400), artefacts=()).image
    shot = session.shot(photo or Frame(pixels, 1), date.today())
    if not lesion:
        shot = replace(shot, lesion_id="", metadata={})
    result = worker.process(shot)
    session.keep(session.lesion, (result,))
    return session.opened().captures(session.lesion.id)[-1], result


@pytest.mark.parametrize("lesion", [True, False])
def test_the_risk_map_of_a_stored_picture_is_that_of_its_result(explaining, lesion):
    session, worker = explaining
    capture, result = _stored(session, worker, lesion)
    session.person = session.lesion = None  # whoever is at work now
    explained = cases.explained(session.opened(), capture, worker.processor)
    first, again = (dict(one.to_json()) for one in (result.explained.analysis, explained.analysis))
    assert {**first, "timing_ms": 0} == {**again, "timing_ms": 0}
    assert np.array_equal(explained.risk_map(), result.explained.risk_map())


def test_the_risk_map_of_an_old_photo_is_that_of_the_age_then(explaining, tmp_path):
    """Long before dermedge: no clock of a device that runs it can have been right."""
    session, worker = explaining
    old = photo(tmp_path / "photo.jpg", "2019:05:12 12:00:00")
    capture, result = _stored(session, worker, photo=old)
    assert capture.taken.startswith("2019-05-12")
    explained = cases.explained(session.opened(), capture, worker.processor)
    assert explained.analysis.probabilities == result.explained.analysis.probabilities


def test_the_risk_map_of_a_photo_whose_date_was_corrected_is_that_of_its_result(
    explaining, tmp_path
):
    session, worker = explaining
    session.save_person(replace(session.person, year_of_birth=2020))  # no age, as of that day
    capture, result = _stored(session, worker, photo=photo(tmp_path / "photo.jpg"))
    capture = session.opened().correct_date(capture.id, "2019-05-12")
    explained = cases.explained(session.opened(), capture, worker.processor)
    assert explained.analysis.probabilities == result.explained.analysis.probabilities


def test_a_risk_map_of_another_result_is_refused(explaining, monkeypatch):
    session, worker = explaining
    capture, _result = _stored(session, worker)
    shifted = dict(capture.analysis["probabilities"])
    shifted["mel"], shifted["nv"] = shifted["mel"] + 0.01, shifted["nv"] - 0.01
    other = replace(capture, analysis={**capture.analysis, "probabilities": shifted})
    with pytest.raises(UserError, match="there is no risk map of it"):
        cases.explained(session.opened(), other, worker.processor)


def test_an_analysis_of_a_picture_with_a_size_marker_is_explained_with_it(explaining):
    """Without the marker other pixels would be analysed."""
    session, worker = explaining
    capture, _result = _stored(session, worker)
    seen = []
    analyze = worker.processor.analyzer.analyze
    worker.processor.analyzer.analyze = lambda *args, **values: (
        seen.append(values["reference"]),
        analyze(*args, **{**values, "reference": None}),
    )[1]
    marked = {**capture.analysis, "scale": {"reference": "card", "px_per_mm": 20, "reason": ""}}
    cases.explained(session.opened(), replace(capture, analysis=marked), worker.processor)
    assert seen == ["card"]


def test_what_is_due_beside_a_damaged_person_is_listed_and_that_one_is_named(session):
    store = session.opened()
    people = [store.add_person(Person("", name)) for name in ("Ada", "Bea")]
    for person in people:
        store.add_lesion(Lesion("", person.id, "nose", remind="2026-01-01"))
    with store._file.writing() as connection:
        connection.execute("UPDATE person SET record = X'07' WHERE id = ?", (people[0].id,))
    with session.on_behalf_of(session.visit) as left:
        assert [person for _lesion, person in session.due(date(2026, 11, 29))] == [people[1]]
    assert f"of person {people[0].id}" in present.left_out(left.what)
    assert "from an export" in present.left_out(left.what)
    receiver = damage.row("destination", "d" * 32)
    assert "among the receivers" in present.left_out([receiver])
    with pytest.raises(UserError, match="damaged"):  # nobody would name it
        session.due(date(2026, 11, 29))
