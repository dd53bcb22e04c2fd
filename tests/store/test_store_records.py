"""The store of cases: what was acknowledged stays, what makes no sense is refused."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from analyses import analysis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_app.store import database, records, schema
from edge_app.store.store import Capture, Lesion, Person, Store, StoreError, WrongKey
from store.store_cases import (
    FOREIGN,
    PASSPHRASE,
    fill,
)


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
    cases.export(tmp_path / "one", "some other words", person.id)
    cases.export(tmp_path / "all", "some other words")
    there = Store.create(tmp_path / "there", "third words")
    assert there.merge(tmp_path / "one", "some other words") == 1
    assert there.people() == [person]
    assert there.merge(tmp_path / "all", "some other words") == 1
    assert there.merge(tmp_path / "all", "some other words") == 0
    assert len(there.people()) == 2
    assert there.captures(lesion.id) == [capture]
    assert there.picture(capture.id) == b"picture" * 99
    with pytest.raises(WrongKey):
        there.merge(tmp_path / "all", PASSPHRASE)
    there.check()
    there.close()


def test_what_a_killed_import_left_behind_goes_with_the_next_opening(cases):
    folder = cases.path.parent

    def grow_old(left: Path, age: float) -> None:
        then = time.time() - age  # of this clock: that of the disk may be another
        os.utime(left, (then, then))

    (folder / ".importing-killed").mkdir()
    (folder / ".importing-killed" / "store").write_bytes(b"sealed")
    grow_old(folder / ".importing-killed", 2 * database.GRACE_SECONDS)
    (folder / ".writing-by-an-older-version").write_bytes(b"sealed")
    grow_old(folder / ".writing-by-an-older-version", 2 * database.STALE_SECONDS)
    (folder / ".importing-young").mkdir()
    grow_old(folder / ".importing-young", 0)
    with database.workshop(folder, ".importing-") as busy:
        grow_old(busy, 2 * database.GRACE_SECONDS)
        cases.close()
        Store.open(cases.path, PASSPHRASE).close()
        assert {*folder.glob(".[iw]*")} == {busy, folder / ".importing-young"}


TEXT = st.text(max_size=40)
PEOPLE = st.builds(
    Person,
    id=st.just(""),
    name=TEXT.filter(str.strip),
    year_of_birth=st.none() | st.integers(1930, 2020),
    sex=st.sampled_from([None, *records.SEXES]),
    skin_type=st.none() | st.integers(1, 6),
    risk_factors=st.lists(st.sampled_from(records.RISK_FACTORS), unique=True).map(tuple),
    notes=TEXT,
)
PLACES = st.tuples(TEXT.filter(str.strip), st.floats(0, 1), st.floats(0, 1), TEXT)
# What a later version may have added is kept as it is.
ANALYSES = st.dictionaries(
    TEXT.filter(lambda name: name not in analysis()),
    st.none() | st.floats(0, 1) | st.lists(st.floats(0, 1)) | TEXT,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PEOPLE, PLACES, ANALYSES, st.binary(min_size=1), st.integers(1, 9999))
def test_every_value_comes_back_as_it_was(cases, person, place, more, picture, side):
    title, x, y, notes = place
    person = cases.add_person(person)
    lesion = cases.add_lesion(Lesion("", person.id, title, "front", x, y, notes))
    found = analysis((side, 1)) | more
    capture = Capture("", lesion.id, "2026-01-01T00:00:00Z", found, (side, 1), notes=notes)
    capture = cases.add_capture(capture, picture)
    assert cases.person(person.id) == person
    assert cases.lesions(person.id) == [lesion]
    assert cases.captures(lesion.id) == [capture]
    assert cases.picture(capture.id) == picture
    cases.check()
    cases.delete_person(person.id)
    assert cases.people() == []


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (Person("", " "), "name"),
        (Person("", "A", 1650), "year"),
        (Person("", "A", skin_type=7), "skin"),
        (Person("", "A", risk_factors=("tea",)), "risk factor"),
        (Lesion("", "p", ""), "title"),
        (Lesion("", "p", "arm", x=1.2), "map"),
        (Lesion("", "p", "arm", remind="soon"), "date"),
        (Lesion("", "p", "arm"), "not in the store"),
    ],
)
def test_values_that_make_no_sense_are_refused(cases, item, words):
    with pytest.raises(StoreError, match=words):
        (cases.add_person if isinstance(item, Person) else cases.add_lesion)(item)
    assert cases.people() == []


def test_an_analysis_of_another_version_is_a_state_of_its_own(tmp_path, cases, monkeypatch):
    _, lesion, first = fill(cases)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "analysis_version", lambda: 2)
        patch.setattr(schema, "analysis_fault", lambda *_args: "")
        later = analysis(verdict="fine")
        other = cases.add_capture(replace(first, taken="", analysis=later), b"new")
    found = cases.capture(other.id)
    assert (found.version, found.readable, found.triage) == (2, False, "other version")
    for read in (
        lambda: found.analysis["triage"],
        lambda: found.analysis.get("triage"),
        lambda: dict(found.analysis),
    ):
        with pytest.raises(StoreError, match="of version 2, which this dermedge cannot read"):
            read()
    said = cases.summaries([lesion.person])[lesion.person][lesion.id]
    assert (said.pictures, said.triage) == (2, "other version")
    # It is kept, counted and exported as it is, and nothing is entered that cannot be judged.
    with pytest.raises(StoreError, match="of version 2"):
        cases.update_capture(replace(found, notes="seen"))
    cases.export(tmp_path / "export", FOREIGN)
    exported = Store.open(tmp_path / "export", FOREIGN)
    assert exported.capture(other.id).analysis.stored == later
    exported.check()
    exported.close()
    here = Store.create(tmp_path / "here", PASSPHRASE)
    with pytest.raises(StoreError, match="capture 2: its analysis is of version 2"):
        here.merge(tmp_path / "export", FOREIGN)
    here.close()
    cases.check()


def test_the_validator_agrees_with_jsonschema():
    jsonschema = pytest.importorskip("jsonschema")
    rules = {"$ref": "#/$defs/analysis", "$defs": schema._schema()["$defs"]}
    reference = jsonschema.Draft202012Validator(rules)
    chance, seen = random.Random(5), {True: 0, False: 0}
    values = (None, True, 0, -1, 1.5, "", "low", [], {}, [[1, 2]])
    for _ in range(600):
        changed = json.loads(json.dumps(analysis()))
        changed["scale"] = {"reference": "card", "px_per_mm": 3.0, "reason": ""}
        part, key = changed, chance.choice(list(changed))
        while isinstance(part[key], (dict, list)) and part[key] and chance.random() < 0.8:
            part = part[key]
            key = chance.choice([*(part if isinstance(part, dict) else range(len(part)))])
        if chance.random() < 0.2:
            del part[key]
        else:
            part[key] = chance.choice(values)
        fits = reference.is_valid(changed)
        seen[fits] += 1
        assert bool(schema._misfit(changed, rules, "")) == (not fits), changed
    assert min(seen.values()) > 50
