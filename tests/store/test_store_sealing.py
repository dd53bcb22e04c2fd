"""Nothing of a store lies in clear; what was changed past the audit trail is noticed."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from dermedge.data.synthetic import draw
from edge_app.store.store import Person, StoreError
from store.store_cases import (
    PASSPHRASE,
    fill,
    pieces,
    raw,
)


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
        return cases._file.select(query, (id,))[0][0]

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
    (old,) = cases._file.select("SELECT hex(record) FROM person")[0]
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
    with pytest.raises(StoreError, match="append-only"), cases._file.writing():
        cases._file.writer.execute("DELETE FROM audit")
    cases.check()
