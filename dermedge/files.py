"""Writing files so that a stop half-way leaves the old file or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dermedge import UserError

_PREFIX = ".writing-"
_OF_FILE_MANAGERS = {".DS_Store", ".directory", "Thumbs.db", "desktop.ini"}
_OF_A_MAC = "._"  # begins the name of what it puts beside a file, on a stick or a network drive
# What file systems answer that cannot sync a folder; a real fault of the disk is another.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)


def write_atomic(
    path: str | Path, data: bytes | str | Iterable[bytes], private: bool = False
) -> None:
    """Write `data` (text as UTF-8, or parts that follow each other) to `path` by a temporary file
    beside it and a rename.

    A file that is there keeps its mode and, where this user may set them, its owner and group; a
    new one gets what the umask of the process leaves. A link stays a link: what it points to is
    written. A device or pipe is written to as it is. When it returns, file and folder are on the
    disk. Any thread may call it.

    `private` leaves the file readable by its owner alone. An OSError names `path`.
    """
    if isinstance(data, str):
        data = data.encode()
    parts = [data] if isinstance(data, bytes) else data
    try:
        target = Path(os.path.realpath(path))
        before = _stat(path)
        if before is not None and not stat.S_ISREG(before.st_mode):
            _write_through(path, parts)
            return
        _replace(target, parts, before, private)
        sync_folder(target.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(folder: str | Path) -> None:
    """Make a rename, a new name or a deletion in `folder` last through a loss of power.

    Does nothing where the system has no way to (Windows, some network file systems). OSError
    where the disk failed.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # always so on Windows
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def _stat(path: str | Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _write_through(path: str | Path, parts: Iterable[bytes]) -> None:
    """To a device, pipe or terminal, which must not be replaced by a file. OSError: a folder."""
    with open(path, "wb", buffering=0) as file:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[file.write(view) :]


def _replace(
    target: Path, parts: Iterable[bytes], before: os.stat_result | None, private: bool
) -> None:
    # The kernel applies the umask of now. What shall be narrower than that starts narrow.
    mode = 0o600 if private or before is not None else 0o666
    temporary = target.parent / f"{_PREFIX}{secrets.token_hex(8)}"
    file = open(  # noqa: SIM115 (what failed to open must not be deleted)
        temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)
    )
    try:
        with file:
            file.writelines(parts)
            file.flush()
            if before is not None:
                _take_over(temporary, before, private)
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _take_over(temporary: Path, before: os.stat_result, private: bool) -> None:
    """Owner, group and mode of the file that is replaced, as far as this user may set them."""
    wanted = stat.S_IMODE(before.st_mode) & 0o777
    now = os.stat(temporary)
    if hasattr(os, "chown") and (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        for owner in (before.st_uid, -1):
            with contextlib.suppress(OSError):
                os.chown(temporary, owner, before.st_gid)
                break
        else:
            # Its group is another now, which gets no more than everybody had.
            wanted = wanted & 0o707 | (wanted & 0o007) << 3
    if not private and stat.S_IMODE(now.st_mode) != wanted:
        os.chmod(temporary, wanted)


def check_writable(path: str | Path) -> None:
    """Raise, before long work and not after it, where `write_atomic` could not write `path`.

    UserError: a folder has its name. OSError, which names the folder: nothing can be written there.
    """
    if os.path.isdir(path):
        raise UserError(
            "{path} is a folder: name a file in it, or another one", code="folder", path=path
        )
    before = _stat(path)
    if before is None or stat.S_ISREG(before.st_mode):
        check_folder(Path(os.path.realpath(path)).parent)


def check_folder(folder: Path) -> None:
    """Raise OSError, which names the folder, where no file can be made in it; leaves nothing."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


# Of archives packed on macOS, of Windows' drives, of network storage by Synology and QNAP.
_ASIDE = frozenset(
    {
        *("__macosx", "$recycle.bin", "system volume information"),
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
    }
)


def walk(
    root: str | Path, failed: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Each folder from `root` down, with the names of its files; `failed` gets what is unreadable.

    A folder that a link leads to is walked, too, each folder once. Hidden folders and those of
    `_ASIDE` are not: they hold thumbnails, what was deleted, and copies.
    """
    seen = set()
    for folder, folders, names in os.walk(root, onerror=failed, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if f[0] != "." and f.lower() not in _ASIDE)
        yield folder, names


def names_in(folder: Path) -> set[str]:
    """The names of what is in a folder; none where there is no such folder.

    Without what is no one's work: what file managers leave wherever somebody looks, and what
    `write_atomic` left half-written where it was killed.
    """
    if not folder.exists():
        return set()
    names = {one.name for one in folder.iterdir()} - _OF_FILE_MANAGERS
    return {name for name in names if not name.startswith((_PREFIX, _OF_A_MAC))}


def make_private(folder: Path) -> None:
    """Make the folder, or leave it, open to its owner alone, whatever the umask."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def read_text(path: str | Path) -> str:
    """A text file that people may have edited: UTF-8, with or without a byte order mark.

    UserError where it is of another encoding; OSError where it cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    # UTF-16 without a mark may pass as UTF-8, full of zeros.
    if "\0" in text:
        raise UserError("{path} is not UTF-8 text: save it as UTF-8", code="encoding", path=path)
    return text


def cache_folder() -> Path:
    """Where dermedge keeps what it can make again: `dermedge` in the user's cache folder.

    OSError where no such folder is known: the user has no home.
    """
    return _folder("XDG_CACHE_HOME", ".cache")


def state_folder() -> Path:
    """Where dermedge keeps what it must not forget: `dermedge` in the user's state folder.

    OSError as `cache_folder`.
    """
    return _folder("XDG_STATE_HOME", ".local/state")


def _folder(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    try:
        # XDG ignores what is not absolute: it would be another folder wherever a command starts.
        return Path(given if os.path.isabs(given) else Path.home() / default) / "dermedge"
    except RuntimeError:  # as of a service, or of a container's user
        raise OSError(errno.ENOENT, f"this user has no home folder: set {variable}") from None
