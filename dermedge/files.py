"""Writing files so that a stop half-way leaves the old file or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from dermedge import UserError

# Read once: asking for it changes it for a moment, for every thread.
_UMASK = os.umask(0)
os.umask(_UMASK)


def write_atomic(path: str | Path, data: bytes | str, private: bool = False) -> None:
    """Write `data` (text as UTF-8) to `path` by a temporary file beside it and a rename.

    `private` leaves the file readable by its owner alone. An OSError names `path`.
    """
    path = Path(path)
    if isinstance(data, str):
        data = data.encode()
    try:
        handle, temporary = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if not private:  # mkstemp gives 0600
                os.chmod(temporary, 0o666 & ~_UMASK)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


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
    """Where dermedge keeps what it can make again: `dermedge` in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "dermedge"
