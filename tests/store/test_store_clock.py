"""Pictures stay in order whatever the clock of the device says."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from sending.mail_cases import destination, queue

from dermedge import UserError
from edge_app import sending
from edge_app.documents import pdf
from edge_app.follow_up.history import compare
from edge_app.labelling.queue import named
from edge_app.presentation import comparison
from edge_app.referral import commands
from edge_app.store.referrals import Elsewhere, Endpoint, StoredAnswer
from edge_app.store.store import Person, Store, StoreError
from store.store_cases import (
    DEC,
    FOREIGN,
    JAN,
    NOV,
    PASSPHRASE,
    spot,
    take,
)


def test_pictures_stay_in_the_order_in_which_they_were_added(tmp_path, at):
    at(NOV)
    cases = Store.create(tmp_path / "cases", PASSPHRASE)
    lesion = spot(cases)
    added = []
    for now in (NOV, JAN, "1970-01-01T00:05:00.000Z", "2099-01-01T00:00:00.000Z", DEC):
        at(now)
        added.append(take(cases, lesion))
    assert cases.captures(lesion.id) == added
    assert [one.dating for one in added] == ["", *["clock wrong"] * 3, ""]
    assert [one.sequence for one in added] == sorted(one.sequence for one in added)
    assert [e.what for e in cases.audit()].count("clock wrong") == 1
    cases.check()
    cases.close()


def test_a_clock_that_was_set_back_is_told_and_entered_once(tmp_path, at):
    at(DEC)
    cases = Store.create(tmp_path / "cases", PASSPHRASE)
    lesion = spot(cases)
    assert cases.clock_fault() is None
    at(NOV)
    assert "2026-11-20 10:00 UTC, but the last entry was made on 2026-12-24" in cases.clock_fault()
    assert cases.clock_behind()
    assert [take(cases, lesion).dating for _ in range(2)] == ["clock wrong"] * 2
    assert [e.what for e in cases.audit()].count("clock set back") == 1
    at("1970-01-01T00:05:00.000Z")
    assert "which cannot be" in cases.clock_fault()
    assert not cases.clock_behind()
    with pytest.raises(StoreError, match="which cannot be"):
        cases.confirm_clock()
    at("2026-12-24T08:58:00.000Z")  # set right by a network: some minutes
    assert cases.clock_fault() is None
    assert take(cases, lesion).dating == ""
    cases.close()


def test_a_clock_that_ran_ahead_is_confirmed_and_pictures_of_that_time_are_marked(tmp_path, at):
    at(NOV)
    cases = Store.create(tmp_path / "cases", PASSPHRASE)
    lesion = spot(cases)
    take(cases, lesion)
    at("2031-05-05T00:00:00.000Z")
    take(cases, lesion, "urgent")
    at(DEC)
    assert cases.clock_behind()
    cases.confirm_clock()
    assert cases.clock_fault() is None
    take(cases, lesion, "low")
    assert [one.dating for one in cases.captures(lesion.id)] == ["", "clock wrong", ""]
    said = cases.summaries([lesion.person])[lesion.person][lesion.id]
    assert (said.triage, said.taken, said.dated) == ("low", DEC, True)
    cases.check()
    cases.close()


@pytest.mark.parametrize("wrong", ["2031-05-05T00:00:00.000Z", "2099-01-01T00:00:00.000Z"])
def test_what_has_no_date_was_not_added_when_the_clock_was_wrong(tmp_path, at, wrong):
    """It and all that came after it stood behind photos of later years, as the newest."""
    at(NOV)
    cases = Store.create(tmp_path / "cases", PASSPHRASE)
    lesion = spot(cases)
    first = take(cases, lesion)
    at(wrong)
    undated = replace(first, taken="", dating="unknown")
    undated = cases.add_capture(undated, b"picture")
    at(DEC)
    if cases.clock_behind():
        cases.confirm_clock()
    second = take(cases, lesion)
    at("2027-02-02T10:00:00.000Z")
    old = take(cases, lesion, taken="2027-01-01T10:00:00.000Z")
    found = cases.captures(lesion.id)
    assert [one.id for one in found] == [first.id, undated.id, second.id, old.id]
    assert found[1].dating == "unknown"
    assert NOV <= found[1].taken <= DEC
    cases.check()
    cases.close()


def test_a_date_is_corrected_within_those_around_it_and_marked(tmp_path, at):
    at(NOV)
    cases = Store.create(tmp_path / "cases", PASSPHRASE)
    lesion = spot(cases)
    first = take(cases, lesion)
    at(JAN)
    second = take(cases, lesion)
    at(DEC)
    third = take(cases, lesion)
    for day in ("2026-11-19", "2026-12-25"):
        with pytest.raises(StoreError, match="after 2026-11-20 and before 2026-12-24"):
            cases.correct_date(second.id, day)
    with pytest.raises(StoreError, match="needs a date"):
        cases.correct_date(second.id, "soon")
    corrected = cases.correct_date(second.id, "2026-12-01")
    assert (corrected.dating, corrected.clock) == ("corrected", JAN)
    assert corrected.taken[:10] == "2026-12-01"
    assert cases.captures(lesion.id) == [first, corrected, third]
    for day in ("2026-11-20", "2026-12-24"):  # on the same day as one beside it
        again = cases.correct_date(second.id, day)
        assert again.clock == JAN
        assert cases.captures(lesion.id) == [first, again, third]
    with pytest.raises(StoreError, match="by its date alone"):
        cases.update_capture(replace(again, taken=NOV))
    cases.update_capture(replace(again, notes="seen"))
    cases.check()
    cases.close()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="needs time zones that can be set")
@pytest.mark.parametrize(
    ("zone", "now", "minute"),
    [
        ("NZT-13", "2026-12-01T22:00:00.000Z", "2026-12-02 11:00"),
        ("PST+8", "2026-12-03T05:00:00.000Z", "2026-12-02 21:00"),
    ],
)
def test_a_date_is_corrected_to_the_day_that_it_is_here(
    cases, at, monkeypatch, tmp_path, capsys, zone, now, minute
):
    at(NOV)
    lesion = spot(cases)
    at(JAN)
    picture = take(cases, lesion)
    at(now)
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            take(cases, lesion)
            # In both places it is the 2nd, and on no other day in UTC.
            corrected = cases.correct_date(picture.id, "2026-12-02")
            assert comparison.when(corrected) == "Dec 2, 2026 (date corrected)"
            with pytest.raises(StoreError, match="before 2026-12-02"):
                cases.correct_date(picture.id, "2026-12-03")
            assert "2026-12-02 (date corrected)" in pdf._when(corrected)
            none = replace(corrected, analysis=corrected.analysis | {"lesion": {"polygons": []}})
            with pytest.raises(UserError, match="no lesion was found in the picture of 2026-12-02"):
                compare(none, np.zeros((3, 4, 3), np.uint8), none, np.zeros((3, 4, 3), np.uint8))
            assert Elsewhere("Clinic", now).words.endswith("since 2026-12-02")
            answer = StoredAnswer("", "", "1.2", "1", "", document="", received=now)
            assert sending.save_document(cases, answer, tmp_path).name == "answer-2026-12-02.pdf"
            # In a terminal, too.
            assert f"of {minute}, " in named("", replace(corrected, taken=now))
            stick = Endpoint("folder", "/nowhere", password=FOREIGN)
            queue(cases, destination(cases, stick))
            cases.mail.add_answer(replace(answer, referral="a" * 32))
            assert commands._list(cases, None) == 0
            said = capsys.readouterr().out
            assert minute in said
            assert said.count("2026-12-02") == said.count("2026-12") == 2
            with pytest.raises(StoreError):  # no clock of the west can say it
                cases.correct_date(picture.id, "9999-12-31")
    finally:
        time.tzset()


def test_pictures_of_a_backup_that_went_on_elsewhere_are_sorted_by_their_dates(tmp_path, at):
    at("2026-01-01T10:00:00.000Z")
    cases = Store.create(tmp_path / "cases", PASSPHRASE)
    lesion = spot(cases)
    first = take(cases, lesion)
    cases.close()
    shutil.copyfile(cases.path, tmp_path / "backup")
    cases, backup = (Store.open(tmp_path / name, PASSPHRASE) for name in ("cases", "backup"))
    at("2026-03-01T10:00:00.000Z")
    for name in "abc":  # what is added here gets numbers that the other gives later
        cases.add_person(Person("", name))
    march = take(cases, lesion)
    at("2026-06-01T10:00:00.000Z")
    june = take(backup, lesion, "urgent")
    assert june.sequence < march.sequence
    backup.export(tmp_path / "export", FOREIGN)
    assert cases.merge(tmp_path / "export", FOREIGN) == 1
    assert [one.id for one in cases.captures(lesion.id)] == [first.id, march.id, june.id]
    assert cases.summaries([lesion.person])[lesion.person][lesion.id].triage == "urgent"
    cases.export(tmp_path / "own", FOREIGN)
    cases.delete_capture(march.id)
    cases.merge(tmp_path / "own", FOREIGN)
    assert cases.capture(march.id) == march  # it was added here
    cases.check()
    for store in (cases, backup):
        store.close()


def test_pictures_of_two_devices_are_sorted_by_the_dates_that_hold(tmp_path, at):
    at("2026-06-01T00:00:00.000Z")
    theirs = Store.create(tmp_path / "theirs", PASSPHRASE)
    lesion = spot(theirs)
    take(theirs, lesion)
    at(NOV)
    take(theirs, lesion)
    ours = Store.create(tmp_path / "ours", PASSPHRASE)
    theirs.export(tmp_path / "export", FOREIGN)
    ours.merge(tmp_path / "export", FOREIGN)
    at(DEC)
    take(ours, lesion)
    at("1970-01-01T00:00:00.000Z")
    take(ours, lesion)
    take(ours, lesion, taken="2026-08-08T00:00:00Z")  # the date is known from elsewhere
    found = ours.captures(lesion.id)
    assert [one.taken[:7] for one in found] == [
        "2026-06", "2026-08", "2026-11", "2026-12", "1970-01"
    ]  # fmt: skip
    assert [one.dating for one in found] == ["", "given", "", "", "clock wrong"]
    assert comparison.pair(found, found[-1], found[0]) == [found[0], found[-1]]
    ours.check()
    ours.close()
    theirs.close()


def test_who_was_born_before_a_clock_was_set_back_can_be_entered(tmp_path, at):
    at("1970-01-01T00:05:00.000Z")
    cases = Store.create(tmp_path / "cases", PASSPHRASE)
    assert cases.add_person(Person("", "Ada", 1984)).year_of_birth == 1984
    with pytest.raises(StoreError, match="the clock of this device is wrong: set it"):
        cases.add_person(Person("", "Ada", 2026))
    for year in (1650, 2060):
        with pytest.raises(StoreError, match="no such birth year"):
            cases.add_person(Person("", "Ada", year))
    at(NOV)
    cases.add_person(Person("", "Bea", 2026))
    at("2099-01-01T00:00:00.000Z")  # ahead: nobody is too old
    cases.add_person(Person("", "Cyd", 1950))
    with pytest.raises(StoreError, match="the clock of this device is wrong: set it"):
        cases.add_person(Person("", "Dee", 2030))
    at(NOV)
    with pytest.raises(StoreError, match="no such birth year"):
        cases.add_person(Person("", "Eve", 2027))
    cases.close()
