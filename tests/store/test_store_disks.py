"""Full and read-only disks; several that use one store at once."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from edge_app.store import database, file
from edge_app.store.store import Capture, Person, Store, StoreError
from store.store_cases import (
    PASSPHRASE,
    fill,
)


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A disk of 2 MiB of its own."""
    monkeypatch.setattr(file, "RESERVE", 400_000)
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
    monkeypatch.setattr(file, "RESERVE", -(2**30))  # as if others filled the disk meanwhile
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
    cases._file.writer.execute("PRAGMA max_page_count=60")
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
    with other._file.writing(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "BUSY_SECONDS", 0)
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
