"""Files are written whole or not at all, and keep what their owner made of them."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap
import threading

import pytest

from dermedge import UserError, files
from dermedge.files import check_writable, write_atomic

posix = pytest.mark.skipif(os.name == "nt", reason="modes and links of POSIX")


def mode(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@posix
@pytest.mark.parametrize("kept", [0o600, 0o640, 0o664, 0o400])
def test_an_existing_file_keeps_its_mode(tmp_path, umask, kept):
    path = tmp_path / "result.json"
    path.write_text("old")
    path.chmod(kept)
    write_atomic(path, "new")
    assert (path.read_text(), mode(path)) == ("new", kept)


@posix
@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_gets_what_the_umask_of_now_leaves(tmp_path, umask, mask, expected):
    umask(mask)
    write_atomic(tmp_path / "result.json", "new")
    assert mode(tmp_path / "result.json") == expected


@posix
def test_the_umask_is_never_changed(tmp_path, umask, monkeypatch):
    def changed(_mask):
        raise AssertionError("another thread would have created a file with it")

    monkeypatch.setattr(os, "umask", changed)
    write_atomic(tmp_path / "result.json", "new")
    write_atomic(tmp_path / "result.json", "newer", private=True)


@posix
def test_private_is_narrow_from_the_first_byte_on(tmp_path, umask, monkeypatch):
    path, seen = tmp_path / "case.json", []
    real = os.fsync

    def look(handle):
        if stat.S_ISREG(os.fstat(handle).st_mode):
            seen.extend(mode(item) for item in tmp_path.glob(".writing-*"))
        real(handle)

    monkeypatch.setattr(os, "fsync", look)
    umask(0)
    write_atomic(path, "secret", private=True)
    assert (seen, mode(path)) == ([0o600], 0o600)
    path.chmod(0o644)
    write_atomic(path, "secret", private=True)
    assert mode(path) == 0o600


@posix
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    target, link, chain = tmp_path / "disk" / "real.json", tmp_path / "a.json", tmp_path / "b.json"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(os.path.join("disk", "real.json"))
    chain.symlink_to(link)
    write_atomic(chain, "new")
    assert link.is_symlink()
    assert chain.is_symlink()
    assert (target.read_text(), mode(target)) == ("new", 0o600)
    assert [path.name for path in target.parent.iterdir()] == ["real.json"]


@posix
def test_a_link_to_nothing_makes_its_target(tmp_path):
    link = tmp_path / "a.json"
    link.symlink_to(tmp_path / "later.json")
    write_atomic(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "later.json").read_text() == "new"


@posix
def test_a_link_to_itself_is_told(tmp_path):
    link = tmp_path / "a.json"
    link.symlink_to(link)
    with pytest.raises(OSError, match="symbolic links") as caught:
        write_atomic(link, "new")
    assert caught.value.filename == str(link)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@posix
def test_a_device_is_written_to_and_not_replaced():
    write_atomic(os.devnull, "gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    if os.path.exists("/dev/full"):
        with pytest.raises(OSError, match="No space") as caught:
            write_atomic("/dev/full", "gone")
        assert caught.value.filename == "/dev/full"
        assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@posix
def test_a_pipe_is_written_to(tmp_path):
    path, found = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    write_atomic(path, b"x" * 200_000)
    reader.join()
    assert found == [b"x" * 200_000]
    assert stat.S_ISFIFO(os.stat(path).st_mode)


def test_the_folder_is_synced_after_the_rename(tmp_path, monkeypatch):
    deeds = []
    real = os.fsync

    def note(handle):
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        deeds.append(("folder" if folder else "file", (tmp_path / "a").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    write_atomic(tmp_path / "a", "new")
    expected = [("file", False)] + [("folder", True)] * (os.name != "nt")
    assert deeds == expected


@pytest.mark.parametrize("error", [PermissionError(13, "Access is denied"), OSError(22, "Invalid")])
def test_where_a_folder_cannot_be_synced_the_file_is_written_all_the_same(
    tmp_path, monkeypatch, error
):
    real_open, real_sync = os.open, os.fsync

    def refuse_open(path, flags, *rest, **named):
        if os.path.isdir(path) and isinstance(error, PermissionError):
            raise error
        return real_open(path, flags, *rest, **named)

    def refuse_sync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise error
        real_sync(handle)

    monkeypatch.setattr(os, "open", refuse_open)
    monkeypatch.setattr(os, "fsync", refuse_sync)
    write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_disk_that_fails_while_the_folder_is_synced_is_told(tmp_path, monkeypatch):
    real = os.fsync

    def fail(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(5, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.sync_folder(tmp_path)


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_whatever_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o640)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space") as caught:
        write_atomic(path, "new")
    assert caught.value.filename == str(path)
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [("a", "old")]


def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", "new")
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [("a", "old")]


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError if os.name != "nt" else OSError):
        write_atomic(tmp_path / "a", "new")
    with pytest.raises(FileNotFoundError) as caught:
        write_atomic(tmp_path / "none" / "a", "new")
    assert caught.value.filename == str(tmp_path / "none" / "a")


@posix
def test_another_group_does_not_get_what_the_old_one_had(tmp_path, monkeypatch):
    """Where the group cannot be kept, its rights shrink to everybody's."""
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o664)
    before = os.stat(path)
    foreign = os.stat_result([*before[:4], before.st_uid + 1, before.st_gid + 1, *before[6:10]])
    real = os.stat
    monkeypatch.setattr(files, "_stat", lambda _path: foreign)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    write_atomic(path, "new")
    assert stat.S_IMODE(real(path).st_mode) == 0o644


@posix
def test_a_full_disk_in_a_process_of_its_own(tmp_path):
    """The kernel itself refuses what is too long."""
    pytest.importorskip("resource")
    code = textwrap.dedent(
        """
        import resource, sys
        from dermedge.files import write_atomic
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_atomic(sys.argv[1], b"x" * 5000)
        except OSError as error:
            print(error.filename)
        """
    )
    path = tmp_path / "a"
    path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"{path}\n", done.stderr
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [("a", "old")]


def test_what_could_not_be_written_is_said_before_the_work(tmp_path, monkeypatch):
    kept = tmp_path / "result.json"
    kept.write_text("old")
    for path in (kept, tmp_path / "new.json", os.devnull):
        check_writable(path)
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [(kept.name, "old")]
    with pytest.raises(UserError, match="is a folder: name a file in it"):
        check_writable(tmp_path)
    with pytest.raises(FileNotFoundError) as missing:
        check_writable(tmp_path / "none" / "result.json")
    assert missing.value.filename == str(tmp_path / "none")

    def refuse(**_words):
        raise OSError(errno.EROFS, "Read-only file system", "/a name that nobody gave")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match="Read-only") as refused:
        check_writable(kept)
    assert refused.value.filename == str(tmp_path)
    check_writable(os.devnull)  # a device needs no file beside it
