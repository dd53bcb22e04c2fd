"""Files of older versions, and damaged ones."""

from __future__ import annotations

import sqlite3
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.store import database, derivation, migrations
from edge_app.store.records import DermoscopeSettings
from edge_app.store.referrals import Destination, Endpoint
from edge_app.store.store import Store, StoreError, WrongKey
from store.store_cases import (
    PASSPHRASE,
    fill,
)

# Made by the code of commit 9f1d955, with the passphrase 1234: version 2, and version 1, whose
# captures' rows held the pictures. Nothing in them is of a person.
OLD = Path(__file__).resolve().parents[1] / "stores"


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
    assert first.id not in {row[0] for row in cases._file.select("SELECT capture FROM picture")}
    cases.check()
    cases.close()
    assert [file.name for file in path.parent.iterdir()] == ["cases"]
    new = Store.create(path.with_name("new"), PASSPHRASE)
    schema = "SELECT type, name FROM sqlite_master ORDER BY name"
    cases = Store.open(path, "1234")
    assert cases._file.select(schema) == new._file.select(schema)
    new.close()
    cases.close()


def test_a_store_of_version_3_becomes_one_that_can_send(tmp_path):
    """Made by the code of commit d8ddfcd, with the passphrase 1234."""
    path = old_store(tmp_path, 3)
    cases = Store.open(path, "1234")
    (ada,), (bea,) = cases.people("Ada"), cases.people("Bea")
    (arm,) = cases.lesions(ada.id)
    captures = cases.captures(arm.id)
    assert [one.kind for one in captures] == ["", "", ""]
    assert [cases.picture(one.id) for one in captures] == [b"given", b"picture 0", b"picture 1"]
    assert (ada.identifiers, cases.lesions(bea.id)) == ((), [])
    cases.update_person(replace(ada, identifiers=(("urn:clinic", "42"),)))
    cases.update_capture(replace(captures[1], kind="dermoscopic"))
    cases.set_dermoscope(DermoscopeSettings("Maker", "One", contact=True, immersion="WATER"))
    destination = cases.mail.add_destination(
        Destination("", "Clinic", dicom=Endpoint("folder", "/media/stick"))
    )
    assert cases.mail.destinations() == [destination]
    cases.check()
    cases.close()
    cases = Store.open(path, "1234")
    assert cases.person(ada.id).identifiers == (("urn:clinic", "42"),)
    assert cases.dermoscope().immersion == "WATER"
    assert [entry.what for entry in cases.audit()][-4:] == [
        "update person", "update capture", "set dermoscope", "add destination",
    ]  # fmt: skip
    cases.check()
    new = Store.create(path.with_name("new"), PASSPHRASE)
    schema = "SELECT type, name FROM sqlite_master ORDER BY name"
    assert cases._file.select(schema) == new._file.select(schema)
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
    assert cases._trail.head().seen >= "2026-06-01"
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


def test_an_old_store_that_another_migrates_meanwhile_is_no_damaged_one(tmp_path):
    path = old_store(tmp_path, 2)
    with closing(database.connect(path)) as connection:

        def migrate(statement: str) -> None:
            if "sqlite_master" in statement:
                connection.set_trace_callback(None)
                Store.open(path, "1234").close()

        connection.set_trace_callback(migrate)
        assert database.check_kind(connection, path) == 2
        assert database.check_kind(connection, path) == database.VERSION


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
        patch.setattr(derivation, "ARGON2", {"iterations": 1, "lanes": 1, "memory_cost": 64})
        cases = Store.create(tmp_path_factory.mktemp("small") / "cases", PASSPHRASE)
    found = fill(cases, picture=bytes(6000))
    cases.close()
    return cases.path.read_bytes(), found


@settings(max_examples=50)
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
