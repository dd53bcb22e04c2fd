"""Files of another device: taken whole, or refused in one line."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from analyses import analysis

from edge_app.store import derivation
from edge_app.store.passphrase import strength
from edge_app.store.store import Capture, Store, StoreError
from store.store_cases import (
    FOREIGN,
    PASSPHRASE,
    fill,
    foreign,
)

USUAL = dict(derivation.ARGON2)


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

    header = derivation.read(cases._file.reader)
    header = header | HEADERS[what] if HEADERS[what] else HEADERS[what]
    cases.close()
    put_header(cases.path, derivation.packed(header))
    monkeypatch.setattr(derivation, "_stretched", stretch)
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
    for cost in (USUAL, derivation.ARGON2):
        derivation._check({"kdf": "argon2id", "cost": cost, "salt": "0" * 32, "key": "0" * 120})
    derivation._check(
        {"kdf": "scrypt", "cost": derivation.SCRYPT, "salt": "0" * 32, "key": "0" * 120}
    )


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


@pytest.mark.parametrize("path", ["gone.dermcases", "stick/gone.dermcases"])
def test_a_file_on_a_stick_that_was_pulled_out_is_not_said_to_be_damaged(tmp_path, cases, path):
    with pytest.raises(StoreError, match="is not there, nothing was changed: put the stick in"):
        cases.merge(tmp_path / path, FOREIGN)
    if "/" in path:
        with pytest.raises(StoreError, match="is not there, nothing was changed: put the stick in"):
            cases.export(tmp_path / path, FOREIGN)


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
