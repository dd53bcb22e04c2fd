"""The store of cases: what was acknowledged stays, what was deleted is gone, all of it sealed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

store = pytest.importorskip("edge_app.store", reason="needs the package cryptography")
from edge_app.store import Capture, Lesion, Person, Store, StoreError, WrongKey  # noqa: E402

PASSPHRASE = "correct horse"


@pytest.fixture(autouse=True)
def _quick_keys(monkeypatch):
    monkeypatch.setattr(store, "ARGON2", {"iterations": 1, "lanes": 1, "memory_cost": 64})


@pytest.fixture
def cases(tmp_path):
    opened = Store.create(tmp_path / "cases", PASSPHRASE)
    yield opened
    opened.close()


def fill(cases: Store, name: str = "Zoë Brandstätter", picture: bytes = b"picture" * 99):
    """One person, one lesion, one capture."""
    person = cases.add_person(
        Person("", name, 1961, "female", 2, ("sunbeds",), notes="from the north ward")
    )
    lesion = cases.add_lesion(Lesion("", person.id, "left forearm", "back", 0.25, 0.75))
    analysis = {"triage": "low", "malignancy": 0.125}
    capture = cases.add_capture(Capture("", lesion.id, "", analysis, (640, 480), 12.5), picture)
    return person, lesion, capture


def test_what_was_saved_is_there_after_opening_again(tmp_path):
    path = tmp_path / "cases"
    cases = Store.create(path, PASSPHRASE)
    person, lesion, capture = fill(cases)
    cases.close()
    cases = Store.open(path, PASSPHRASE)
    assert cases.people() == [person]
    assert cases.lesions(person.id) == [lesion]
    assert cases.captures(lesion.id) == [capture]
    assert cases.picture(capture.id) == b"picture" * 99
    cases.check()
    cases.close()
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_people_are_found_by_name_notes_and_lesions(cases):
    person, lesion, _ = fill(cases)
    other = cases.add_person(Person("", "anna"))
    assert cases.people() == [other, person]
    for words in ("BRANDSTÄTTER", "north ward", "Left Forearm"):
        assert cases.people(words) == [person]
    assert cases.people("nobody") == []
    cases.update_lesion(replace(lesion, remind="2026-05-01"))
    assert [found.id for found in cases.reminders("2026-05-01")] == [lesion.id]
    assert cases.reminders("2026-04-30") == []


def test_a_wrong_passphrase_or_an_existing_file_is_refused(tmp_path, cases):
    with pytest.raises(WrongKey):
        Store.open(cases.path, "wrong")
    with pytest.raises(StoreError, match="is there already"):
        Store.create(cases.path, PASSPHRASE)
    with pytest.raises(StoreError, match="no store"):
        Store.open(tmp_path / "none", PASSPHRASE)
    assert sorted(Path(tmp_path).glob(".*")) == []


def test_export_and_import_bring_everything_or_one_person(tmp_path, cases):
    person, lesion, capture = fill(cases)
    fill(cases, "another")
    cases.export(tmp_path / "one", "other words", person.id)
    cases.export(tmp_path / "all", "other words")
    there = Store.create(tmp_path / "there", "third words")
    assert there.merge(tmp_path / "one", "other words") == 1
    assert there.people() == [person]
    assert there.merge(tmp_path / "all", "other words") == 1
    assert there.merge(tmp_path / "all", "other words") == 0
    assert len(there.people()) == 2
    assert there.captures(lesion.id) == [capture]
    assert there.picture(capture.id) == b"picture" * 99
    with pytest.raises(WrongKey):
        there.merge(tmp_path / "all", PASSPHRASE)
    there.check()
    there.close()
