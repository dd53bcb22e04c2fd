"""What was deleted is gone from the disk, the audit trail says what was done, keys are wiped."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from edge_app.kiosk import Pin
from edge_app.presentation import comparison as course
from edge_app.store import database
from edge_app.store.deletion import Deletion
from edge_app.store.rows import Rows
from edge_app.store.store import NotWiped, Person, Store, StoreError, WrongKey
from edge_app.store.trail import Trail
from store.store_cases import (
    PASSPHRASE,
    fill,
    reader,
    sealed_rows,
    traces,
)

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
    monkeypatch.setattr(database, "BUSY_SECONDS", 0)
    found = fill(cases)
    if fresh:
        cases.close()
        cases = Store.open(cases.path, PASSPHRASE)
    other = reader(cases)
    with pytest.raises(StoreError, match="nothing was changed") as caught:
        ERASING[what](cases, *found)
    assert not isinstance(caught.value, NotWiped)
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
    monkeypatch.setattr(database, "BUSY_SECONDS", 0)
    person, *_ = fill(cases)
    gone = sealed_rows(cases)
    at_once, others = Deletion._at_once, []

    def late(self, *args, **values):
        others.append(reader(self._file))
        at_once(self, *args, **values)

    monkeypatch.setattr(Deletion, "_at_once", late)
    with pytest.raises(NotWiped, match="it is done, but another program reads"):
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


def test_of_a_record_that_sqlite_had_moved_to_another_page_no_copy_stays(cases):
    # Records that grow push those behind them to new pages; `secure_delete` forgets where they lay.
    people = [cases.add_person(Person("", f"P{number:02}")) for number in range(27)]
    for number, notes in ((5, 2000), (8, 2000), (4, 500), (11, 2000)):
        cases.update_person(replace(people[number], notes="x" * notes))
    query = "SELECT record FROM person WHERE id = ?"
    gone = cases._file.select(query, (people[13].id,))[0]
    assert traces(cases, gone) == 1
    cases.delete_person(people[13].id)
    assert traces(cases, gone) == 0
    assert [one.id for one in cases._rows.all("person")] == [
        one.id for one in people if one is not people[13]
    ]
    cases.check()


def test_a_reader_does_not_keep_a_change_from_being_saved(cases):
    person, *_ = fill(cases)
    other = reader(cases)
    cases.update_person(replace(person, notes="changed"))
    assert cases.person(person.id).notes == "changed"
    other.close()


KILLED = """
import os, sys
from pathlib import Path
from edge_app.store import database, derivation, store, transfer
from edge_app.store.file import StoreFile
derivation.ARGON2 = {"iterations": 1, "lanes": 1, "memory_cost": 64}
path, what, where = Path(sys.argv[1]), *sys.argv[2:]
cases = store.Store.open(path, "correct horse")
die = lambda *_args, **_values: os._exit(9)
if where == "wiping":
    checkpoint, calls = StoreFile.checkpoint, []
    def second(self, seconds):
        calls.append(seconds)
        return die() if len(calls) > 1 else checkpoint(self, seconds)
    StoreFile.checkpoint = second
elif where == "within":
    database.rename = transfer.copy_rows = die
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
    root = str(Path(__file__).resolve().parents[2])
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
    assert "its end was not noted" in course.audit_rows(entries)[0][0]
    assert course.audit_rows(entries[:before])[0][0] == "Cases exported"
    assert not (tmp_path / "export").exists()
    assert len(cases.people()) == 1
    cases.check()
    cases.close()


def test_a_deletion_that_a_full_disk_cuts_off_says_that_a_part_is_gone(cases, monkeypatch):
    person, lesion, first = fill(cases)
    cases.add_capture(replace(first, taken=""), b"another")
    at_once, calls = Deletion._at_once, []

    def full(self, table, id, state=database.UNCHANGED, elsewhere=None):
        calls.append(table)
        if len(calls) in (1, 3):
            with database.plain(self._file.path, state):
                raise OSError(28, "No space left on device")
        at_once(self, table, id, state, elsewhere)

    monkeypatch.setattr(Deletion, "_at_once", full)
    with pytest.raises(StoreError, match="the disk is full, a part is deleted and the rest is"):
        cases.delete_person(person.id)
    assert len(cases.captures(lesion.id)) == 1
    assert cases.audit()[-1].what == "failed delete person"
    cases.check()


def test_on_a_full_disk_a_deletion_that_cannot_begin_changes_nothing(cases):
    person, *_ = fill(cases)
    (pages,) = cases._file.writer.execute("PRAGMA page_count").fetchone()
    cases._file.writer.execute(f"PRAGMA max_page_count={pages}")

    def fill_the_trail() -> None:
        while True:
            cases.update_person(person)

    with pytest.raises(StoreError, match="the disk is full"):
        fill_the_trail()
    with pytest.raises(StoreError, match="the disk is full, nothing was changed"):
        cases.delete_person(person.id)
    assert cases.people() == [person]
    cases.check()


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
    log = Trail.log

    def full(self, connection, what, *args, **values):
        if what.startswith("done "):
            raise sqlite3.OperationalError("database or disk is full")
        return log(self, connection, what, *args, **values)

    monkeypatch.setattr(Trail, "log", full)
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
    assert course.audit_rows(cases.audit())[1][0] == "Change of the operator's PIN begun"
    cases.check()


def test_events_are_entered_once_also_where_their_file_was_left_by_a_kill(cases):
    Pin(cases.path.with_name("operator.pin")).set("2580")
    notes = cases.path.with_name("audit.pending")
    lines = json.loads(notes.read_text())
    once = cases.audit()
    notes.write_text(json.dumps(lines))
    assert cases.audit() == once
    wrong = [cases.audit()[-1].when, "wrong passphrase", 1]
    for number, count in enumerate((2, 3)):  # a third one, noted in the file that was left
        notes.write_text(json.dumps([*lines, [*wrong[:2], count]]))
        entry = cases.audit()[-1]
        assert (entry.number, entry.which) == (once[-1].number + number + 1, ("2x", "")[number])
    begun = ["2026-01-01T00:00:00.000Z", "begin change PIN", 1]
    notes.write_text(json.dumps([begun]))
    number = cases.audit()[-1].number
    notes.write_text(json.dumps([begun, [begun[0], "done change PIN", 1]]))
    assert cases.audit()[-1].ends == number
    cases.check()


def test_damaged_notes_of_events_are_left_out(cases):
    pending = cases.path.with_name("audit.pending")
    good = ["2026-01-01T00:00:00.000Z", "wrong passphrase", 2]
    for text in ("", "[", "{}", "[[1, 2, 3]]", '[["x", "wrong passphrase", 1]]', "[" * 99_999):
        pending.write_text(text)
        assert cases.audit()[-1].what == "create"
    never = ["2026-13-45T00:00:00.000Z", "wrong passphrase", 1]
    pending.write_text(json.dumps([good, ["2026-01-01T00:00:00.000Z", "Ada", 1], 5, never]))
    assert [(e.what, e.when) for e in cases.audit()[1:]] == [("wrong passphrase", good[0])]
    cases.check()


def test_a_closed_store_holds_no_key_and_says_that_it_is_closed(tmp_path):
    cases = Store.create(tmp_path / "cases", PASSPHRASE)
    person, lesion, capture = fill(cases)
    keys = cases._file.keys
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
    insert, begun, go_on = Rows.insert, threading.Event(), threading.Event()

    def slow(self, *args):
        insert(self, *args)
        if self._file is here._file:
            begun.set()
            assert go_on.wait(60)

    monkeypatch.setattr(Rows, "insert", slow)
    with ThreadPoolExecutor(2) as pool:
        merging = pool.submit(here.merge, tmp_path / "export", "twelve characters")
        assert begun.wait(60)
        closing = pool.submit(here.close)
        while not here._file.closing.is_set():
            pass
        go_on.set()
        closing.result(60)
        with pytest.raises(StoreError, match="the store is closed"):
            merging.result(60)
    monkeypatch.setattr(Rows, "insert", insert)
    here = Store.open(here.path, PASSPHRASE)
    assert here.people() == []
    assert here.audit()[-1].what == "begin import"
    assert [*tmp_path.glob(".importing-*")] == []
    here.check()
    here.close()


SECRET = """
import gc, os, sys
from pathlib import Path
from edge_app.store import derivation, store
derivation.ARGON2 = {"iterations": 1, "lanes": 1, "memory_cost": 64}
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
    secrets = [bytes(cases._file.keys._records), bytes(cases._file.keys._mac), picture]
    written = [form for name in names for form in (name.encode(), name.encode("utf-16-le"))]
    cases.close()
    root = str(Path(__file__).resolve().parents[2])
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
