"""The store of cases: what was acknowledged stays, what was deleted is gone, all of it sealed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import sqlite3
import subprocess
import sys
import tempfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from analyses import analysis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dermedge.data.synthetic import draw

store = pytest.importorskip("edge_app.store.store", reason="needs the package cryptography")
from edge_app.kiosk import Pin  # noqa: E402
from edge_app.presentation import comparison as course  # noqa: E402
from edge_app.store import database, keys, migrations, records  # noqa: E402
from edge_app.store.passphrase import strength  # noqa: E402
from edge_app.store.store import Capture, Lesion, Person, Store, StoreError, WrongKey  # noqa: E402

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
    capture = Capture("", lesion.id, "", analysis((640, 480)), (640, 480), 12.5)
    capture = cases.add_capture(capture, picture)
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
        then = left.stat().st_mtime - age
        os.utime(left, (then, then))

    (folder / ".importing-killed").mkdir()
    (folder / ".importing-killed" / "store").write_bytes(b"sealed")
    grow_old(folder / ".importing-killed", 2 * database.GRACE_SECONDS)
    (folder / ".writing-by-an-older-version").write_bytes(b"sealed")
    grow_old(folder / ".writing-by-an-older-version", 2 * database.STALE_SECONDS)
    (folder / ".importing-young").mkdir()
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
    sex=st.sampled_from([None, *store.SEXES]),
    skin_type=st.none() | st.integers(1, 6),
    risk_factors=st.lists(st.sampled_from(store.RISK_FACTORS), unique=True).map(tuple),
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


# ---------------------------------------------------------------------------- nothing in clear


def raw(path: Path) -> bytes:
    """All that lies on disk of a store."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


def pieces(data: bytes) -> list[bytes]:
    """Short pieces from all over, at most some 200."""
    step = max(16, len(data) // 200)
    return [data[at : at + 16] for at in range(0, len(data) - 15, step)]


def test_nothing_of_a_picture_or_a_name_is_in_the_raw_files(cases):
    pixels = draw(7, size=(192, 256)).image
    picture = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    _, _, capture = fill(cases, picture=picture)
    on_disk = raw(cases.path)
    assert len(on_disk) > len(picture)
    for text in ("Zoë", "Brandst", "north ward", "forearm", "sunbeds", "triage", "1961"):
        for encoding in ("utf-8", "utf-16-le", "unicode_escape"):
            assert text.encode(encoding) not in on_disk, text
    assert b"IHDR" not in on_disk
    assert not any(piece in on_disk for piece in pieces(picture))
    assert cases.picture(capture.id) == picture


def test_nothing_stays_of_what_was_deleted_not_even_sealed(cases):
    chance = random.Random(3)
    gone: list[bytes] = []

    def sealed(table: str, column: str, key: str, id: str) -> bytes:
        query = f"SELECT {column} FROM {table} WHERE {key} = ?"
        return cases._select(query, (id,))[0][0]

    alive = []
    for number in range(60):
        picture = chance.randbytes(chance.choice([200, 5000, 90_000]))
        alive.append(fill(cases, f"person {number}" * chance.randint(1, 9), picture))
        if chance.random() < 0.5:
            person, lesion, capture = alive.pop(chance.randrange(len(alive)))
            gone.append(sealed("picture", "data", "capture", capture.id))
            gone.append(sealed("capture", "record", "id", capture.id))
            gone.append(sealed("lesion", "record", "id", lesion.id))
            gone.append(sealed("person", "record", "id", person.id))
            cases.delete_person(person.id)
        elif chance.random() < 0.3:
            person = alive[-1][0]
            gone.append(sealed("person", "record", "id", person.id))
            cases.update_person(replace(person, notes="changed " * chance.randint(1, 30)))
    cases.change_key(PASSPHRASE, "a new one")
    on_disk = raw(cases.path)
    assert len(gone) > 100
    left = [len(blob) for blob in gone if any(piece in on_disk for piece in pieces(blob))]
    assert left == []
    cases.check()


# ---------------------------------------------------------------------------- tampering


def tamper(path: Path, *statements: str) -> None:
    with sqlite3.connect(path, isolation_level=None) as connection:
        for name in ("audit_update", "audit_delete"):
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
    connection.close()


def swapped(table: str, column: str) -> str:
    """Exchange a column between the first two rows."""
    other = f"(SELECT {column} FROM {table} AS o WHERE o.rowid = 3 - {table}.rowid)"
    return (
        f"CREATE TEMP TABLE both AS SELECT rowid AS r, {other} AS v FROM {table};"
        f"UPDATE {table} SET {column} = (SELECT v FROM both WHERE r = {table}.rowid)"
    )


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (swapped("person", "record"), "tampered"),
        (swapped("capture", "record"), "tampered"),
        (swapped("picture", "data"), "tampered"),
        ("UPDATE lesion SET person = (SELECT max(id) FROM person)", "tampered"),
        ("PRAGMA foreign_keys=ON;DELETE FROM capture WHERE rowid = 1", "missing"),
        ("DELETE FROM audit WHERE number = (SELECT max(number) FROM audit)", "cut off"),
        ("DELETE FROM audit WHERE number = 2", "broken"),
        (
            "UPDATE audit SET entry = (SELECT entry FROM audit WHERE number = 3) WHERE number = 4",
            "broken",
        ),
    ],
    ids=["people", "captures", "pictures", "owner", "row", "tail", "entry", "entries"],
)
def test_rows_that_were_swapped_cut_or_changed_are_noticed(cases, statements, words):
    fill(cases, "first", b"1" * 50)
    fill(cases, "second", b"2" * 50)
    tamper(cases.path, *statements.split(";"))
    with pytest.raises(StoreError, match=words):
        cases.check()
    # A later entry does not hide it.
    cases.add_person(Person("", "third"))
    with pytest.raises(StoreError, match=words if words != "cut off" else "broken"):
        cases.check()


def test_an_older_version_of_a_record_put_back_is_noticed(cases):
    person, *_ = fill(cases)
    (old,) = cases._select("SELECT hex(record) FROM person")[0]
    cases.update_person(replace(person, notes="allergic"))
    tamper(cases.path, f"UPDATE person SET record = x'{old}'")
    with pytest.raises(StoreError, match="past the audit trail"):
        cases.check()


def test_the_audit_trail_names_every_change_and_no_person(cases):
    person, lesion, capture = fill(cases)
    cases.update_capture(replace(capture, notes="changed"))
    cases.delete_lesion(lesion.id)
    entries = cases.audit()
    assert [(entry.what, entry.which) for entry in entries] == [
        ("create", ""),
        ("add person", person.id),
        ("add lesion", lesion.id),
        ("add capture", capture.id),
        ("update capture", capture.id),
        ("begin delete lesion", lesion.id),
        ("delete capture", capture.id),
        ("delete lesion", lesion.id),
        ("done delete lesion", lesion.id),
    ]
    assert [entry.number for entry in entries] == list(range(1, 10))
    assert entries[-1].ends == 6
    with pytest.raises(StoreError, match="append-only"), cases._writing():
        cases._writer.execute("DELETE FROM audit")
    cases.check()


# ---------------------------------------------------------------------------- foreign files

FOREIGN = "twelve characters"
WRONG_ROWS = {
    "view": ("lesion", {"view": "side"}, "lesion 1: a view is one of front, back"),
    "place": ("lesion", {"x": 1.5}, "lesion 1: the place lies off the body map"),
    "place, none": ("lesion", {"y": float("nan")}, "off the body map"),
    "place, huge": ("lesion", {"y": 10**400}, "off the body map"),
    "reminder": ("lesion", {"remind": "31.12.2026"}, "a reminder needs a date"),
    "title": ("lesion", {"title": 5}, "a text is missing"),
    "sex": ("person", {"sex": "x"}, "person 1: sex is one of female, male"),
    "born": ("person", {"year_of_birth": 1650}, "no such birth year"),
    "born, bool": ("person", {"year_of_birth": True}, "no such birth year"),
    "skin": ("person", {"skin_type": 7}, "skin types are 1 to 6"),
    "risks": ("person", {"risk_factors": ["tea"]}, "an unknown risk factor"),
    "risks, none": ("person", {"risk_factors": None}, "does not know"),
    "name": ("person", {"name": "x" * 2000}, "longer than 1000 characters"),
    "half": ("person", {"name": "\ud800"}, "half of a character"),
    "created": ("person", {"created": "yesterday"}, "a time is none"),
    "more": ("person", {"admin": True}, "what this dermedge does not know"),
    "taken": ("capture", {"taken": "2026-02-31T00:00:00Z"}, "capture 1: a time is none"),
    "taken, local": ("capture", {"taken": "2026-02-01T00:00:00+05:00"}, "a time is none"),
    "undated": ("capture", {"taken": ""}, "needs the time"),
    "size": ("capture", {"size": [0, 480]}, "at least one px"),
    "size, three": ("capture", {"size": [1, 2, 3]}, "at least one px"),
    "scale": ("capture", {"px_per_mm": float("inf")}, "a scale is above zero"),
    "dating": ("capture", {"dating": "sure"}, "how a picture was dated"),
    "origin": ("capture", {"origin": "../.."}, "unknown store"),
    "sequence": ("capture", {"sequence": -1}, "without its number"),
    "analysis": ("capture", {"analysis": []}, "its analysis is none: analysis: type"),
    "no triage": ("capture", {"analysis": {}}, "its analysis is none: analysis: required"),
    "triage": ("capture", {"analysis": analysis(triage="fine")}, "triage: enum"),
    "risk": ("capture", {"analysis": analysis(malignancy=7)}, "malignancy: maximum"),
    "risk, none": ("capture", {"analysis": analysis(malignancy=float("nan"))}, "malignancy: type"),
    "class": ("capture", {"analysis": analysis(likely="flu")}, "an unknown class"),
    "of another": ("capture", {"analysis": analysis((64, 48))}, "size: of another picture"),
    "outline": (
        "capture",
        {"analysis": analysis(lesion={**analysis()["lesion"], "polygons": [[[1, 2]]]})},
        r"lesion.polygons\[0\]: minItems",
    ),
    "no outline": (
        "capture",
        {"analysis": analysis(lesion={**analysis()["lesion"], "box": None})},
        "found, but without an outline",
    ),
    "version": ("capture", {"version": 2}, "its analysis is of version 2"),
    "version, none": ("capture", {"version": [1]}, "its analysis is of version"),
}


def foreign(cases: Store, path: Path, table: str = "", **changes) -> Path:
    """An export of one person of which each record of a table was changed by who made it."""
    packed = records.packed

    def forged(item):
        record = packed(item)
        return record | changes if type(item).__name__.lower() == table else record

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "packed", forged)
        patch.setattr(Store, "_summarise", lambda *_args: None)
        cases.export(path, FOREIGN)
    return path


@pytest.mark.parametrize("what", WRONG_ROWS)
def test_a_foreign_file_with_a_row_that_makes_no_sense_is_refused_whole(tmp_path, cases, what):
    table, changes, words = WRONG_ROWS[what]
    fill(cases)
    path = foreign(cases, tmp_path / "export", table, **changes)
    here = Store.create(tmp_path / "here", PASSPHRASE)
    with pytest.raises(StoreError, match=rf"{path} cannot be imported, .*{words}") as caught:
        here.merge(path, FOREIGN)
    assert "\n" not in str(caught.value)
    assert here.people() == []
    assert here.audit()[-1].what == "failed import"
    here.check()
    here.close()


@pytest.mark.parametrize("what", ["view", "place", "reminder", "title"])
def test_what_an_import_refuses_is_not_entered_either(cases, what):
    person, lesion, _ = fill(cases)
    _table, changes, words = WRONG_ROWS[what]
    with pytest.raises(StoreError, match=words.partition(": ")[2] or words):
        cases.update_lesion(replace(lesion, **changes))
    with pytest.raises(StoreError, match="sex is one of"):
        cases.update_person(replace(person, sex="x"))
    capture = Capture("", lesion.id, "", {"triage": "low"}, (640, 480))
    with pytest.raises(StoreError, match="its analysis is none: analysis: required"):
        cases.add_capture(capture, b"picture")
    assert cases.lesion(lesion.id) == lesion
    assert cases.person(person.id) == person


HEADERS = {
    "none": None,
    "a list": [],
    "empty": {},
    "kdf": {"kdf": "md5"},
    "kdf, a list": {"kdf": ["argon2id"]},
    "more": {"ad": "x"},
    "cost": {"cost": 5},
    "passes": {"cost": {"iterations": 60_000, "lanes": 1, "memory_cost": 64}},
    "work": {"cost": {"iterations": 64, "lanes": 1, "memory_cost": 2**19}},
    "memory": {"cost": {"iterations": 1, "lanes": 1, "memory_cost": 2**22}},
    "no memory": {"cost": {"iterations": 1, "lanes": 1, "memory_cost": 1}},
    "lanes": {"cost": {"iterations": 1, "lanes": 64, "memory_cost": 2**10}},
    "float": {"cost": {"iterations": 1.0, "lanes": 1, "memory_cost": 64}},
    "bool": {"cost": {"iterations": True, "lanes": 1, "memory_cost": 64}},
    "text": {"cost": {"iterations": "1", "lanes": 1, "memory_cost": 64}},
    "negative": {"cost": {"iterations": -1, "lanes": 1, "memory_cost": 64}},
    "foreign key": {"cost": {"iterations": 1, "lanes": 1, "memory_cost": 64, "secret": "x"}},
    "salt": {"salt": "00"},
    "long salt": {"salt": "00" * 1000},
    "no salt": {"salt": None},
    "no hex": {"salt": "zz" * 16},
    "key": {"key": "00" * 10},
    "no key": {"key": 7},
    "scrypt": {"kdf": "scrypt", "cost": {"n": 2**20, "r": 32, "p": 1}},
    "scrypt, odd": {"kdf": "scrypt", "cost": {"n": 2**14 + 1, "r": 8, "p": 1}},
    "scrypt, many": {"kdf": "scrypt", "cost": {"n": 2**17, "r": 8, "p": 2**20}},
    "scrypt of argon": {"kdf": "scrypt"},
}


def put_header(path: Path, value: bytes) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE store SET value = ? WHERE name = 'header'", (value,))
    connection.close()


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_asks_for_what_it_should_not_is_refused(cases, what, monkeypatch):
    def stretch(*_args):
        raise AssertionError("it was tried")

    header = store._header(cases._reader)
    header = header | HEADERS[what] if HEADERS[what] else HEADERS[what]
    cases.close()
    put_header(cases.path, keys.packed(header))
    monkeypatch.setattr(keys, "_stretched", stretch)
    with pytest.raises(StoreError, match="header is damaged"):
        Store.open(cases.path, PASSPHRASE)


@pytest.mark.parametrize(
    "text", [b"", b"[" * 3000, b"{", b"\xff\xfe", b"1" * 5000, b'{"a":' + b"[" * 2000, b"9" * 4000]
)
def test_a_header_that_is_no_json_is_refused(cases, text):
    cases.close()
    put_header(cases.path, hashlib.sha256(text).digest() + text)
    with pytest.raises(StoreError, match="header is damaged"):
        Store.open(cases.path, PASSPHRASE)


def test_keys_of_the_usual_costs_are_taken(cases, monkeypatch):
    for cost in (keys.ARGON2, store.ARGON2):
        keys._check({"kdf": "argon2id", "cost": cost, "salt": "0" * 32, "key": "0" * 120})
    keys._check({"kdf": "scrypt", "cost": keys.SCRYPT, "salt": "0" * 32, "key": "0" * 120})


HOSTILE = {
    "trigger": "CREATE TRIGGER more AFTER INSERT ON person BEGIN DELETE FROM person; END",
    "view": "CREATE VIEW more AS SELECT * FROM person",
    "view as table": (
        "ALTER TABLE person RENAME TO people; CREATE VIEW person AS "
        "SELECT id, randomblob(900000000) AS record FROM people"
    ),
    "virtual": "CREATE VIRTUAL TABLE more USING fts4(text)",
    "table": "CREATE TABLE more (text)",
    "column": "ALTER TABLE person ADD COLUMN more GENERATED ALWAYS AS (hex(zeroblob(9)))",
    "index": "CREATE INDEX more ON person (hex(record))",
    "no trigger": "DROP TRIGGER audit_delete",
    "no table": "DROP TABLE picture",
    "huge": "UPDATE person SET record = zeroblob(50000000)",
    "text": "UPDATE person SET record = 'text'",
    "number": "UPDATE picture SET data = 5",
    "id": "PRAGMA foreign_keys=OFF; UPDATE capture SET id = '../../etc/passwd'",
    "id, blob": "PRAGMA foreign_keys=OFF; UPDATE person SET id = x'00'",
    "loose": "PRAGMA foreign_keys=OFF; UPDATE lesion SET person = '" + "f" * 32 + "'",
    "header": "UPDATE store SET value = zeroblob(900000) WHERE name = 'header'",
    "version 0": "PRAGMA user_version=0",
    "version 1": "PRAGMA user_version=1",
    "version 2": "PRAGMA user_version=2",
    "version 9": "PRAGMA user_version=9",
    "other": "PRAGMA application_id=1",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_whose_tables_are_not_ours_is_refused(tmp_path, cases, what):
    fill(cases)
    cases.export(tmp_path / "export", FOREIGN)
    with sqlite3.connect(tmp_path / "export", isolation_level=None) as connection:
        for statement in HOSTILE[what].split("; ", 0 if "TRIGGER more" in HOSTILE[what] else -1):
            connection.execute(statement)
    connection.close()
    here = Store.create(tmp_path / "here", PASSPHRASE)
    with pytest.raises(StoreError) as caught:
        here.merge(tmp_path / "export", FOREIGN)
    assert "\n" not in str(caught.value)
    assert ".importing" not in str(caught.value)
    assert here.people() == []
    here.check()
    here.close()


def test_a_folder_or_a_pipe_is_no_file_of_cases(tmp_path, cases):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(StoreError, match="is not a store"):
            cases.merge(path, FOREIGN)


@pytest.mark.parametrize(
    ("passphrase", "words"),
    [
        ("short", "too short"),
        ("elevenchars", "too short"),
        ("one two", "too short"),
        ("aaaaaaaaaaaa", "among the first"),
        ("123456789012", "among the first"),
        ("abcabcabcabc", "among the first"),
        ("qwertyuiopas", "among the first"),
        ("Password1234", "among the first"),
        ("P4ssw0rd!!!!", "among the first"),
        ("passwordpassword", "among the first"),
        ("ichliebedich1", "among the first"),
    ],
)
def test_an_export_asks_for_a_passphrase_that_is_not_soon_guessed(
    tmp_path, cases, passphrase, words
):
    with pytest.raises(StoreError, match=words):
        cases.export(tmp_path / "export", passphrase)
    assert not (tmp_path / "export").exists()
    assert cases.audit()[-1].what == "create"


@pytest.mark.parametrize(
    ("passphrase", "level"),
    [
        ("correct horse", 1),
        ("correct horse battery staple", 2),
        ("马 电池 订书钉 正确", 2),
        ("Wm7#kq29!xTz", 2),
        ("740295118364", 1),
        ("الحصان بطارية دبوس صحيح", 2),
    ],
)
def test_long_ones_and_four_words_are_taken(passphrase, level):
    found = strength(passphrase)
    assert (found.fault, found.level) == ("", level)


def test_the_store_of_the_device_asks_for_less(cases):
    assert strength("87412093", own=True).fault == ""
    assert "eight" in strength("8741209", own=True).fault
    assert "among the first" in strength("12345678", own=True).fault


# ---------------------------------------------------------------------------- erasing


def sealed_rows(cases: Store) -> list[bytes]:
    """Every record and picture of a store, as it is sealed."""
    query = "SELECT record FROM {} UNION ALL SELECT record FROM {}"
    rows = cases._select(query.format("person", "lesion"))
    rows += cases._select(query.format("capture", "capture"))
    rows += cases._select("SELECT data FROM picture UNION ALL SELECT data FROM summary")
    return [row[0] for row in rows]


def traces(cases: Store, gone: list[bytes]) -> int:
    """How many of these are left in part, in whatever file of the folder."""
    on_disk = b"".join(file.read_bytes() for file in cases.path.parent.rglob("*") if file.is_file())
    return sum(any(piece in on_disk for piece in pieces(blob)) for blob in gone)


def reader(cases: Store) -> sqlite3.Connection:
    """Another program that reads the store as it is now."""
    connection = sqlite3.connect(cases.path, isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM person").fetchone()
    return connection


ERASING = {
    "person": lambda cases, person, lesion, capture: cases.delete_person(person.id),
    "lesion": lambda cases, person, lesion, capture: cases.delete_lesion(lesion.id),
    "capture": lambda cases, person, lesion, capture: cases.delete_capture(capture.id),
    "key": lambda cases, *_: cases.change_key(PASSPHRASE, "another one"),
}


@pytest.mark.parametrize("fresh", [True, False], ids=["empty log", "log"])
@pytest.mark.parametrize("what", ERASING)
def test_while_another_program_reads_nothing_is_erased_and_that_is_said(
    cases, monkeypatch, what, fresh
):
    monkeypatch.setattr(store, "BUSY_SECONDS", 0)
    found = fill(cases)
    if fresh:
        cases.close()
        cases = Store.open(cases.path, PASSPHRASE)
    other = reader(cases)
    with pytest.raises(StoreError, match="nothing was changed") as caught:
        ERASING[what](cases, *found)
    assert not isinstance(caught.value, store.NotWiped)
    assert cases.people() == [found[0]]
    assert cases.captures(found[1].id) == [found[2]]
    assert cases.audit()[-1].what.startswith("failed ")
    other.close()
    gone = sealed_rows(cases)
    ERASING[what](cases, *found)
    assert cases.audit()[-1].what.startswith("done ")
    if what == "person":
        assert traces(cases, gone) == 0
    cases.check()
    cases.close()
    Store.open(cases.path, "another one" if what == "key" else PASSPHRASE).close()


@pytest.mark.parametrize("end", ["write", "close"])
def test_what_a_reader_that_came_meanwhile_holds_is_erased_as_soon_as_it_ends(
    cases, monkeypatch, end
):
    monkeypatch.setattr(store, "BUSY_SECONDS", 0)
    person, *_ = fill(cases)
    gone = sealed_rows(cases)
    at_once, others = Store._delete_at_once, []

    def late(self, *args):
        others.append(reader(self))
        at_once(self, *args)

    monkeypatch.setattr(Store, "_delete_at_once", late)
    with pytest.raises(store.NotWiped, match="it is done, but another program reads"):
        cases.delete_person(person.id)
    assert cases.people() == []
    assert traces(cases, gone) > 0
    assert cases.audit()[-1].what == "delete person"
    others[0].close()
    if end == "write":
        cases.update_person(cases.add_person(Person("", "somebody")))
        assert traces(cases, gone) == 0
    cases.close()
    assert traces(cases, gone) == 0
    cases = Store.open(cases.path, PASSPHRASE)
    assert [entry.what for entry in cases.audit()].count("done delete person") == 1
    cases.check()
    cases.close()


def test_a_reader_does_not_keep_a_change_from_being_saved(cases):
    person, *_ = fill(cases)
    other = reader(cases)
    cases.update_person(replace(person, notes="changed"))
    assert cases.person(person.id).notes == "changed"
    other.close()


KILLED = """
import os, sys
from pathlib import Path
from edge_app.store import database
from edge_app.store import store
store.ARGON2 = {"iterations": 1, "lanes": 1, "memory_cost": 64}
path, what, where = Path(sys.argv[1]), *sys.argv[2:]
cases = store.Store.open(path, "correct horse")
die = lambda *_args, **_values: os._exit(9)
if where == "before":
    store.Store._checkpoint = database.rename = store.database.transaction = die
elif where == "wiping":
    checkpoint, calls = store.Store._checkpoint, []
    def second(self, seconds):
        calls.append(seconds)
        return die() if len(calls) > 1 else checkpoint(self, seconds)
    store.Store._checkpoint = second
elif where == "within":
    database.rename = store.database.rename = die
    store.Store._copy = die
if what == "delete":
    cases.delete_person(cases.people()[0].id)
elif what == "export":
    cases.export(path.with_name("export"), "twelve characters")
elif what == "import":
    cases.merge(Path(sys.argv[1] + ".other"), "twelve characters")
"""


def killed(cases: Store, what: str, where: str) -> Store:
    """Let another process be killed while it does that; the store, opened again."""
    cases.close()
    root = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-c", KILLED, str(cases.path), what, where]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, capture_output=True)
    assert done.returncode == 9, done.stderr.decode()
    return Store.open(cases.path, PASSPHRASE)


def test_what_was_deleted_is_erased_though_it_was_killed_before_that(cases):
    fill(cases)
    gone = sealed_rows(cases)
    cases = killed(cases, "delete", "wiping")
    assert cases.people() == []
    assert traces(cases, gone) == 0
    assert cases.audit()[-1].what == "done delete person"
    cases.check()
    cases.close()


@pytest.mark.parametrize("what", ["export", "import"])
def test_what_was_killed_half_way_shows_in_the_audit_trail_and_leaves_nothing(
    tmp_path, cases, what
):
    fill(cases)
    cases.export(tmp_path / "cases.other", "twelve characters")
    before = len(cases.audit())
    cases = killed(cases, what, "within")
    entries = cases.audit()
    assert [entry.what for entry in entries[before:]] == [f"begin {what}"]
    assert "its end was not noted" in course.deeds(entries)[0][0]
    assert course.deeds(entries[:before])[0][0] == "Cases exported"
    assert not (tmp_path / "export").exists()
    assert len(cases.people()) == 1
    cases.check()
    cases.close()


def test_a_deletion_that_a_full_disk_cuts_off_says_that_a_part_is_gone(cases, monkeypatch):
    person, lesion, first = fill(cases)
    cases.add_capture(replace(first, taken=""), b"another")
    at_once, calls = Store._delete_at_once, []

    def full(self, table, id, state=store.UNCHANGED):
        calls.append(table)
        if len(calls) in (1, 3):
            with database.plain(self.path, state):
                raise OSError(28, "No space left on device")
        at_once(self, table, id, state)

    monkeypatch.setattr(Store, "_delete_at_once", full)
    with pytest.raises(StoreError, match="the disk is full, a part is deleted and the rest is"):
        cases.delete_person(person.id)
    assert len(cases.captures(lesion.id)) == 1
    assert cases.audit()[-1].what == "failed delete person"
    cases.check()


def test_on_a_full_disk_a_deletion_that_cannot_begin_changes_nothing(cases):
    person, *_ = fill(cases)
    (pages,) = cases._writer.execute("PRAGMA page_count").fetchone()
    cases._writer.execute(f"PRAGMA max_page_count={pages}")

    def fill_the_trail() -> None:
        while True:
            cases.update_person(person)

    with pytest.raises(StoreError, match="the disk is full"):
        fill_the_trail()
    with pytest.raises(StoreError, match="the disk is full, nothing was changed"):
        cases.delete_person(person.id)
    assert cases.people() == [person]
    cases.check()


# ---------------------------------------------------------------------------- the audit trail


def test_what_leaves_a_trace_outside_is_entered_before_it_is_done(tmp_path, cases, monkeypatch):
    person, *_ = fill(cases)
    seen = []

    def place(made, path):
        seen.extend(entry.what for entry in cases.audit())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(database, "rename", place)
    with pytest.raises(StoreError, match="the disk is full, nothing was changed"):
        cases.export(tmp_path / "export", "twelve characters", person.id)
    assert seen[-1] == "begin export"
    assert not (tmp_path / "export").exists()
    begun, failed = cases.audit()[-2:]
    assert (begun.what, begun.which) == ("begin export", person.id)
    assert (failed.what, failed.ends) == ("failed export", begun.number)
    with cases.act("report", "c" * 32):
        assert cases.audit()[-1].what == "begin report"
    assert [entry.what for entry in cases.audit()[-2:]] == ["begin report", "done report"]
    with pytest.raises(ValueError, match="no such"), cases.act("report"):
        raise ValueError("no such picture")
    assert cases.audit()[-1].what == "failed report"


def test_where_the_trail_cannot_be_ended_the_line_says_that_it_was_done(
    tmp_path, cases, monkeypatch
):
    log = Store._log

    def full(self, connection, what, *args, **values):
        if what.startswith("done "):
            raise sqlite3.OperationalError("database or disk is full")
        return log(self, connection, what, *args, **values)

    monkeypatch.setattr(Store, "_log", full)
    with pytest.raises(StoreError, match="it was done, but the audit trail does not say so"):
        cases.export(tmp_path / "export", "twelve characters")
    assert (tmp_path / "export").exists()


def test_wrong_passphrases_are_entered_when_the_right_one_is_given(cases):
    cases.close()
    for _ in range(3):
        with pytest.raises(WrongKey):
            Store.open(cases.path, "not that one")
    left = cases.path.with_name("audit.pending").read_text()
    assert "not that one" not in left
    cases = Store.open(cases.path, PASSPHRASE)
    assert [(e.what, e.which) for e in cases.audit()[-1:]] == [("wrong passphrase", "3x")]
    assert not cases.path.with_name("audit.pending").exists()
    with pytest.raises(WrongKey):
        cases.change_key("not that one", "another one")
    assert cases.audit()[-1].what == "wrong passphrase"
    cases.check()
    cases.close()


def test_a_change_of_the_pin_is_entered_as_one_that_ended(cases):
    Pin(cases.path.with_name("operator.pin")).set("2580")
    begun, done = cases.audit()[-2:]
    assert (begun.what, done.what) == ("begin change PIN", "done change PIN")
    assert done.ends == begun.number
    assert course.deeds(cases.audit())[1][0] == "Change of the operator's PIN begun"
    cases.check()


def test_damaged_notes_of_events_are_left_out(cases):
    pending = cases.path.with_name("audit.pending")
    good = ["2026-01-01T00:00:00.000Z", "wrong passphrase", 2]
    for text in ("", "[", "{}", "[[1, 2, 3]]", '[["x", "wrong passphrase", 1]]', "[" * 99_999):
        pending.write_text(text)
        assert cases.audit()[-1].what == "create"
    pending.write_text(json.dumps([good, ["2026-01-01T00:00:00.000Z", "Ada", 1], 5]))
    assert [(e.what, e.when) for e in cases.audit()[1:]] == [("wrong passphrase", good[0])]
    cases.check()


# ---------------------------------------------------------------------------- closing


def test_a_closed_store_holds_no_key_and_says_that_it_is_closed(tmp_path):
    cases = Store.create(tmp_path / "cases", PASSPHRASE)
    person, lesion, capture = fill(cases)
    keys = cases._keys
    cases.close()
    cases.close()
    assert keys._aead is None
    assert not any(keys._records + keys._mac)
    for action in (
        cases.people,
        cases.audit,
        cases.check,
        cases.clock_fault,
        lambda: cases.picture(capture.id),
        lambda: cases.add_person(Person("", "late")),
        lambda: cases.update_lesion(lesion),
        lambda: cases.delete_person(person.id),
        lambda: cases.change_key(PASSPHRASE, "another one"),
        lambda: cases.export(tmp_path / "export", "twelve characters"),
        lambda: cases.merge(tmp_path / "cases", PASSPHRASE),
    ):
        with pytest.raises(StoreError, match=r"^the store is closed$"):
            action()


def test_closing_breaks_a_long_import_off_and_nothing_of_it_is_there(tmp_path, cases, monkeypatch):
    *_, first = fill(cases)
    for _ in range(20):
        cases.add_capture(replace(first, taken=""), b"picture")
    cases.export(tmp_path / "export", "twelve characters")
    here = Store.create(tmp_path / "here", PASSPHRASE)
    insert, begun, go_on = Store._insert, threading.Event(), threading.Event()

    def slow(self, *args):
        insert(self, *args)
        if self is here:
            begun.set()
            assert go_on.wait(60)

    monkeypatch.setattr(Store, "_insert", slow)
    with ThreadPoolExecutor(2) as pool:
        merging = pool.submit(here.merge, tmp_path / "export", "twelve characters")
        assert begun.wait(60)
        closing = pool.submit(here.close)
        while not here._closing.is_set():
            pass
        go_on.set()
        closing.result(60)
        with pytest.raises(StoreError, match="the store is closed"):
            merging.result(60)
    monkeypatch.setattr(Store, "_insert", insert)
    here = Store.open(here.path, PASSPHRASE)
    assert here.people() == []
    assert here.audit()[-1].what == "begin import"
    assert [*tmp_path.glob(".importing-*")] == []
    here.check()
    here.close()


SECRET = """
import gc, os, sys
from pathlib import Path
from edge_app.store import store
store.ARGON2 = {"iterations": 1, "lanes": 1, "memory_cost": 64}
path, passphrase = Path(sys.argv[1]), "correct horse"

def work():
    cases = store.Store.open(path, passphrase)
    assert len(cases.people()) == 30
    for person in cases.people("zo"):
        for lesion in cases.lesions(person.id):
            for capture in cases.captures(lesion.id):
                cases.picture(capture.id)
    cases.export(path.with_name("export"), "twelve characters")
    os.write(1, b"open\\n")
    os.read(0, 1)
    return cases

cases = work()
gc.collect()
cases.close()
os.write(1, b"closed\\n")
os.read(0, 1)
"""


def in_memory(process: int, wanted: list[bytes]) -> list[int]:
    """How often each of these is in the memory of a child process."""
    found = [0] * len(wanted)
    with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb", 0) as memory:
        for line in maps:
            area, rights = line.split()[:2]
            if "r" not in rights or "[v" in line:
                continue
            start, end = (int(side, 16) for side in area.split("-"))
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except OSError:
                continue
            for at, one in enumerate(wanted):
                found[at] += data.count(one)
    return found


def test_keys_and_names_are_gone_from_memory_when_the_store_is_closed(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux shows a process's memory")
    cases = Store.create(tmp_path / "cases", PASSPHRASE)
    names = [f"Zoë Sentinel {number:02} Łukasz" for number in range(30)]
    for name in names:
        fill(cases, name, b"sentinel of a picture" * 5000)
    # Of pictures, parts of a page may stay, as `edge_app.store.memory` says.
    picture = b"sentinel of a picture" * 400
    secrets = [bytes(cases._keys._records), bytes(cases._keys._mac), picture]
    written = [form for name in names for form in (name.encode(), name.encode("utf-16-le"))]
    cases.close()
    root = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-c", SECRET, str(tmp_path / "cases")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == b"open\n"
            try:
                before = in_memory(process.pid, secrets + written)
            except PermissionError:
                pytest.skip("another process's memory may not be read here")
            process.stdin.write(b".")
            process.stdin.flush()
            assert process.stdout.readline() == b"closed\n"
            after = in_memory(process.pid, secrets + written)
        finally:
            process.kill()
    assert min(before[:2]) > 0, "the search finds nothing"
    assert sum(before[3:]) > 0, "the search finds nothing"
    assert after[:3] == [0, 0, 0]
    # Of names, Python and C keep what they freed as they like: a trace may outlive the overwriting.
    assert sum(count > 0 for count in after[3:]) <= 2
    assert sum(after) <= sum(before) / 20


# ---------------------------------------------------------------------------- the clock


@pytest.fixture
def at(monkeypatch):
    """Sets the clock of the device."""

    def at(now: str) -> None:
        monkeypatch.setattr(store, "_now", lambda: now)

    return at


def spot(cases: Store) -> Lesion:
    return cases.add_lesion(Lesion("", cases.add_person(Person("", "Ada")).id, "left arm"))


def take(cases: Store, lesion: Lesion, triage: str = "low", taken: str = "") -> Capture:
    found = analysis((4, 3), triage=triage)
    return cases.add_capture(Capture("", lesion.id, taken, found, (4, 3)), b"picture")


NOV, JAN, DEC = "2026-11-20T10:00:00.000Z", "2018-01-28T15:58:13.000Z", "2026-12-24T09:00:00.000Z"


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


# ---------------------------------------------------------------------------- analyses


def test_an_analysis_of_another_version_is_a_state_of_its_own(tmp_path, cases, monkeypatch):
    _, lesion, first = fill(cases)
    with monkeypatch.context() as patch:
        patch.setattr(records, "analysis_version", lambda: 2)
        patch.setattr(records, "analysis_fault", lambda *_args: "")
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
    schema = records._schema()
    schema = {"$ref": "#/$defs/analysis", "$defs": schema["$defs"]}
    reference = jsonschema.Draft202012Validator(schema)
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
        assert bool(records._misfit(changed, schema, "")) == (not fits), changed
    assert min(seen.values()) > 50


# ---------------------------------------------------------------------------- versions, damage

# Made by the code of commit 9f1d955, with the passphrase 1234: version 2, and version 1, whose
# captures' rows held the pictures. Nothing in them is of a person.
OLD = Path(__file__).with_name("stores")


def old_store(folder: Path, version: int) -> Path:
    path = folder / "old" / "cases"
    path.parent.mkdir()
    path.write_bytes(zlib.decompress((OLD / f"version-{version}.zlib").read_bytes()))
    return path


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_schema_is_migrated(tmp_path, version):
    path = old_store(tmp_path, version)
    cases = Store.open(path, "1234")
    (ada,) = cases.people("Ada")
    (arm,) = cases.lesions(ada.id)
    first, *_ = cases.captures(arm.id)
    assert cases.picture(first.id) == (b"an old picture" if version == 1 else b"picture 1")
    assert (first.version, first.readable, first.triage) == (1, True, "low")
    cases.check()
    cases.delete_capture(first.id)
    assert first.id not in {row[0] for row in cases._select("SELECT capture FROM picture")}
    cases.check()
    cases.close()
    assert [file.name for file in path.parent.iterdir()] == ["cases"]
    new = Store.create(path.with_name("new"), PASSPHRASE)
    schema = "SELECT type, name FROM sqlite_master ORDER BY name"
    cases = Store.open(path, "1234")
    assert cases._select(schema) == new._select(schema)
    new.close()
    cases.close()


def test_a_migration_tells_pictures_that_the_clock_misdated_from_imported_ones(tmp_path):
    cases = Store.open(old_store(tmp_path, 2), "1234")
    (ada,), (bea,) = cases.people("Ada"), cases.people("Bea")
    (arm,) = cases.lesions(ada.id)
    captures = cases.captures(arm.id)
    assert [one.notes for one in captures] == ["first", "second", "third"]
    assert [one.dating for one in captures] == ["", "clock wrong", ""]
    (back,) = cases.lesions(bea.id)
    (imported,) = cases.captures(back.id)
    assert (imported.dating, imported.taken[:10]) == ("given", "2025-12-24")
    said = cases.summaries([ada.id])[ada.id][arm.id]
    assert (said.pictures, said.triage, said.taken) == (3, "see a doctor", captures[-1].taken)
    # Its newest entry is of June 2026.
    assert cases._seen() >= "2026-06-01"
    cases.close()


@pytest.mark.parametrize("version", [1, 2])
def test_an_old_export_stays_importable_whatever_its_passphrase(tmp_path, cases, version):
    assert cases.merge(old_store(tmp_path, version), "1234") == (1 if version == 1 else 4)
    cases.check()


def test_a_migration_that_fails_leaves_the_file_and_its_copy(tmp_path, monkeypatch):
    path = old_store(tmp_path, 1)
    whole = path.read_bytes()

    def fail(connection, keys, now):
        migrations.numbered(connection, keys, now)
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "STEPS", (migrations.pictures_apart, fail))
        with pytest.raises(StoreError, match="full"):
            Store.open(path, "1234")
    copy = path.with_name("cases.before-migration")
    for file in (path, copy):
        with sqlite3.connect(file) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (1,)
            assert connection.execute("SELECT id FROM capture").fetchone() == ("c" * 32,)
        connection.close()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert len(path.read_bytes()) >= len(whole)
    # What failed once is done on the next opening, and the copy goes.
    cases = Store.open(path, "1234")
    assert cases.picture("c" * 32) == b"an old picture"
    cases.close()
    assert not copy.exists()


def test_two_that_open_an_old_store_at_once_migrate_it_once(tmp_path):
    path = old_store(tmp_path, 2)
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _n: Store.open(path, "1234"), range(4)))
    assert [entry.what for entry in opened[0].audit()].count("migrate capture") == 4
    opened[0].check()
    for one in opened:
        one.close()


def test_a_newer_schema_and_other_files_are_refused_and_stay_as_they_are(tmp_path, cases):
    cases.close()
    with sqlite3.connect(cases.path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    other = tmp_path / "other"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE notes (text)")
    connection.close()
    (tmp_path / "text").write_bytes(b"no database at all" * 99)
    (tmp_path / "empty").touch()
    for path, words in (
        (cases.path, "newer dermedge"),
        (other, "not a store"),
        (tmp_path / "text", "not a store"),
        (tmp_path / "empty", "not a store"),
    ):
        before = path.read_bytes()
        with pytest.raises(StoreError, match=words):
            Store.open(path, PASSPHRASE)
        assert path.read_bytes() == before


def test_a_wrong_key_changes_nothing_and_a_new_one_replaces_the_old(cases):
    person, *_ = fill(cases)
    with pytest.raises(WrongKey):
        cases.change_key("not it", "another")
    with pytest.raises(StoreError, match="at least four"):
        cases.change_key(PASSPHRASE, "abc")
    cases.change_key(PASSPHRASE, "another")
    cases.close()
    before = cases.path.read_bytes()
    with pytest.raises(WrongKey):
        Store.open(cases.path, PASSPHRASE)
    assert cases.path.read_bytes() == before
    cases = Store.open(cases.path, "another")
    assert cases.people() == [person]
    cases.close()


def test_a_truncated_file_is_refused_and_not_overwritten(cases):
    fill(cases, picture=bytes(100_000))
    cases.close()
    whole = cases.path.read_bytes()
    for length in (0, 50, 100, 4096, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        cases.path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"damaged|not a store"):
            Store.open(cases.path, PASSPHRASE)
        assert cases.path.read_bytes() == whole[:length]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A closed store's bytes, and what was in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "ARGON2", {"iterations": 1, "lanes": 1, "memory_cost": 64})
        cases = Store.create(tmp_path_factory.mktemp("small") / "cases", PASSPHRASE)
    found = fill(cases, picture=bytes(6000))
    cases.close()
    return cases.path.read_bytes(), found


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_byte_is_noticed_or_harmless(small, data):
    whole, (person, lesion, capture) = small
    at = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :])
        try:
            cases = Store.open(path, PASSPHRASE)
        except StoreError:
            return
        try:
            cases.check()
        except StoreError:
            return
        else:  # a byte that nothing uses
            assert cases.people() == [person]
            assert cases.lesions(person.id) == [lesion]
            assert cases.captures(lesion.id) == [capture]
            assert cases.picture(capture.id) == bytes(6000)
        finally:
            cases.close()


# ---------------------------------------------------------------------------- disks


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A disk of 2 MiB of its own."""
    monkeypatch.setattr(store, "RESERVE", 400_000)
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)]
    if (
        os.name != "posix"
        or os.geteuid()
        or subprocess.run(command, capture_output=True).returncode
    ):
        pytest.skip("only root may mount a disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill_disk(cases: Store, first: Capture) -> list[Capture]:
    """Save until it is refused; returns what was acknowledged."""
    saved = [first]

    def save_for_ever() -> None:
        while True:
            saved.append(cases.add_capture(replace(first, taken=""), os.urandom(150_000)))

    with pytest.raises(StoreError, match="the disk is full"):
        save_for_ever()
    assert len(saved) > 2
    return saved


def test_a_full_disk_is_told_and_nothing_is_lost(small_disk, monkeypatch):
    monkeypatch.setattr(store, "RESERVE", -(2**30))  # as if others filled the disk meanwhile
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2**19))
    cases = Store.create(small_disk / "cases", PASSPHRASE)
    _, lesion, first = fill(cases)
    saved = fill_disk(cases, first)
    with pytest.raises(StoreError, match="the disk is full"):
        cases.export(small_disk / "export", PASSPHRASE)
    assert not (small_disk / "export").exists()
    assert cases.captures(lesion.id) == saved
    cases.check()
    cases.close()
    cases = Store.open(small_disk / "cases", PASSPHRASE)
    assert cases.captures(lesion.id) == saved
    cases.check()
    ballast.unlink()
    saved.append(cases.add_capture(replace(first, taken=""), os.urandom(150_000)))
    assert cases.captures(lesion.id) == saved
    cases.check()
    cases.close()


def test_saving_leaves_room_for_deleting_on_a_full_disk(small_disk):
    cases = Store.create(small_disk / "cases", PASSPHRASE)
    person, _, first = fill(cases)
    assert len(fill_disk(cases, first)) > 4
    cases.delete_person(person.id)
    assert cases.people() == []
    cases.check()
    fill(cases, picture=os.urandom(100_000))
    cases.check()
    cases.close()


def test_a_read_only_disk_is_told_and_nothing_is_lost(small_disk):
    cases = Store.create(small_disk / "cases", PASSPHRASE)
    _, lesion, capture = fill(cases)

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(small_disk)], check=True)

    cases.close()
    before = cases.path.read_bytes()
    remount("ro")
    with pytest.raises(StoreError, match="read-only"):
        Store.open(cases.path, PASSPHRASE)
    with pytest.raises(StoreError, match="read-only"):
        Store.create(small_disk / "new", PASSPHRASE)
    assert cases.path.read_bytes() == before
    remount("rw")
    cases = Store.open(cases.path, PASSPHRASE)
    assert cases.captures(lesion.id) == [capture]
    cases.check()
    cases.close()


def test_a_full_file_is_told_without_a_disk_of_its_own(cases):
    """As above, where nobody may mount: SQLite itself is told that there are no more pages."""
    _, lesion, first = fill(cases)
    cases._writer.execute("PRAGMA max_page_count=60")
    with pytest.raises(StoreError, match="the disk is full, nothing was changed"):
        cases.add_capture(replace(first, taken=""), os.urandom(300_000))
    assert cases.captures(lesion.id) == [first]
    cases.check()


def test_two_may_use_one_store_at_once(cases):
    other = Store.open(cases.path, PASSPHRASE)
    ours, *_ = fill(cases, "ours")
    theirs, *_ = fill(other, "theirs")
    assert cases.people() == other.people() == [ours, theirs]
    other.check()
    with other._writing(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "BUSY_SECONDS", 0)
        with pytest.raises(StoreError, match="another program is writing"):
            cases.add_person(Person("", "late"))
    other.close()
    cases.check()


def test_threads_may_save_read_and_delete_at_once(cases):
    _, lesion, first = fill(cases)

    def work(number: int) -> str:
        kept = cases.add_capture(replace(first, taken=""), bytes([number]) * 50_000)
        gone = cases.add_capture(replace(first, taken=""), bytes([number]) * 50_000)
        cases.people("north")
        assert cases.picture(kept.id) == bytes([number]) * 50_000
        cases.delete_capture(gone.id)
        return kept.id

    with ThreadPoolExecutor(8) as pool:
        kept = set(pool.map(work, range(24)))
    assert {capture.id for capture in cases.captures(lesion.id)} == {first.id, *kept}
    cases.check()


# ---------------------------------------------------------------------------- kill -9

KILLS = int(os.environ.get("DERMEDGE_KILLS", "12"))


def test_no_acknowledged_capture_is_lost_or_corrupted_by_kill(tmp_path):
    """`kill -9` at random moments during saving; DERMEDGE_KILLS says how many (300 by hand)."""
    chance = random.Random(KILLS)
    path, there, total = tmp_path / "cases", {}, 0
    for kill in range(KILLS):
        if kill % 20 == 0:  # so that the file does not grow without end
            for file in tmp_path.glob("cases*"):
                file.unlink()
            cases = Store.create(path, PASSPHRASE)
            lesion = cases.add_lesion(Lesion("", cases.add_person(Person("", "Ada")).id, "arm"))
            cases.close()
            there = {}
        told = _saved_until_killed(path, lesion.id, chance)
        doubtful = None
        for line in told:
            word, *values = line.split()
            if word == "saved":
                there[values[0]] = values[1]
                total += 1
            elif word == "deleting":
                doubtful = values[0]
            elif word == "deleted":
                del there[values[0]]
                doubtful = None
        cases = Store.open(path, PASSPHRASE)
        cases.check()
        found = {capture.id for capture in cases.captures(lesion.id)}
        if doubtful not in found:
            there.pop(doubtful, None)
        assert set(there) <= found
        assert len(found - set(there)) <= 1  # the one that was being saved may be whole
        for id in found:
            digest = hashlib.sha256(cases.picture(id)).hexdigest()
            assert digest == there.setdefault(id, digest)
        cases.close()
    print(f"{KILLS} kills, {total} captures acknowledged, none lost, none corrupted")
    assert total >= KILLS // 2


def _saved_until_killed(path: Path, lesion: str, chance: random.Random) -> list[str]:
    """Let another process save; kill it at a random moment of a save. Returns what it told."""
    command = [sys.executable, __file__, str(path), lesion, str(chance.randrange(2**32))]
    root = str(Path(__file__).resolve().parents[1])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    ) as process:
        told, wanted = b"", chance.randint(1, 6)
        while told.count(b"saving") < wanted:
            piece = os.read(process.stdout.fileno(), 65536)
            assert piece, "the saving process ended by itself"
            told += piece
        # A save takes about this long, so all of its moments are hit.
        select.select([], [], [], chance.uniform(0, 0.03))
        process.kill()
        told += process.stdout.read()
    return told.decode().split("\n")[:-1]  # an acknowledgement cut in two is none


def _save_for_ever(path: str, lesion: str, seed: str) -> None:
    chance = random.Random(int(seed))

    def tell(*words: str) -> None:
        os.write(1, (" ".join(words) + "\n").encode())

    cases = Store.open(Path(path), PASSPHRASE)
    saved = []
    while True:
        picture = chance.randbytes(chance.randint(1000, 600_000))
        tell("saving")
        capture = cases.add_capture(Capture("", lesion, "", analysis((9, 9)), (9, 9)), picture)
        tell("saved", capture.id, hashlib.sha256(picture).hexdigest())
        saved.append(capture)
        if chance.random() < 0.3:
            cases.update_capture(replace(saved[-1], notes="n" * chance.randint(0, 3000)))
        if chance.random() < 0.4:
            doomed = saved.pop(chance.randrange(len(saved))).id
            tell("deleting", doomed)
            cases.delete_capture(doomed)
            tell("deleted", doomed)


if __name__ == "__main__":
    _save_for_ever(*sys.argv[1:])
