"""Folders: looking through them for a file to open or a place to write to, without a window."""

from __future__ import annotations

import contextlib
import errno
import getpass
import math
import os
import re
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image

from dermedge import UserError
from dermedge.image.header import ImageError
from dermedge.image.header.tiff import stated_time
from dermedge.image.read import read_image
from edge_app.i18n import language
from edge_app.i18n.language import N_, Message, _

# Below these, memory sticks and cards appear; in /media and /run/media in a folder per user.
MOUNTS = (Path("/media"), Path("/run/media"), Path("/Volumes"))
MOST_PEM = 100_000  # bytes
OF_CAMERAS = ("JPEG", "AVIF", "WEBP", "TIFF")  # as Pillow calls them
IN_WORDS = {
    errno.EACCES: N_("you may not look into the folder {name}"),
    errno.EPERM: N_("you may not look into the folder {name}"),
    errno.ENOENT: N_("the folder {name} is not there any more"),
    errno.ENOTDIR: N_("the folder {name} is not there any more"),
    errno.EIO: N_("the folder {name} cannot be read: take the stick out and put it in again"),
}
NO_WRITING = N_("nothing can be written into the folder {name}: choose another one")
IN_WORDS_WRITING = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), NO_WRITING),
    errno.ENOSPC: N_("no room is left in the folder {name}: make some, or choose another one"),
}


@dataclass(frozen=True)
class Place:
    """A folder to start from."""

    path: Path
    kind: str  # 'stick', 'home' or 'device': all that there is


@dataclass(frozen=True)
class Item:
    """A folder, or a file that fits."""

    path: Path
    folder: bool
    bytes: int = 0
    changed: float = 0.0  # s since 1970


def places(home: Path | None = None, mounts: tuple[Path, ...] = MOUNTS) -> list[Place]:
    """Media that are put in, by name, then the home folder, then the whole device."""
    found = []
    for root in mounts:
        for folder in _folders(root):
            if folder.name == _user() and not os.path.ismount(folder):
                found += _folders(folder)
            else:
                found.append(folder)
    starts = [Place(path, "stick") for path in sorted(found, key=_natural)]
    with contextlib.suppress(RuntimeError):  # a service's user may have none
        home = home or Path.home()
    if home is not None and home.is_dir():
        starts.append(Place(home, "home"))
    return [*starts, Place(Path(home.anchor if home else os.sep), "device")]


def listing(folder: Path, endings: frozenset[str]) -> list[Item]:
    """What `folder` holds: folders, then files whose name ends with one of `endings`.

    Hidden ones are left out, and what vanishes meanwhile. Raises UserError, in words, where the
    folder cannot be read.
    """
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = Path(entry.path)
                try:
                    if entry.is_dir():
                        found.append(Item(path, True))
                    elif path.suffix.lower() in endings and entry.is_file():
                        state = entry.stat()
                        found.append(Item(path, False, state.st_size, state.st_mtime))
                except OSError:
                    continue
    except OSError as error:
        raise _in_words(error, folder) from None
    return sorted(found, key=lambda item: (not item.folder, _natural(item.path)))


def details(item: Item) -> str:
    """What is shown of a file beside its name."""
    if item.folder:
        return ""
    size = (
        _("{size} MB", size=language.number(item.bytes / 1e6, 1))
        if item.bytes >= 1e5
        else _("{size} kB", size=language.number(math.ceil(item.bytes / 1e3)))
    )
    changed = datetime.fromtimestamp(item.changed, timezone.utc).isoformat()
    return f"{size} · {language.day(changed)}"


def thumbnail(path: Path, side: int) -> np.ndarray | None:
    """A picture file, uint8 (h, w, 3) RGB, its long side about `side` px; None: not a picture."""
    try:
        return shrunk(read_image(path, working_side=side).pixels, side)
    except (OSError, ImageError):
        return None


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """A picture, its long side at most `side` px."""
    shrink = side / max(pixels.shape[:2])
    if shrink >= 1:
        return pixels
    return cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)


def photographed(path: Path) -> datetime | None:
    """When a picture file's EXIF says that it was taken; None where it does not."""
    formats = [*OF_CAMERAS]
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats.insert(0, "HEIF")  # Pillow refuses names that it does not know
    try:
        with Image.open(path, formats=formats) as picture:
            exif = picture.getexif().get_ifd(ExifTags.IFD.Exif)
        wanted = ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal
        return stated_time(*(str(exif.get(tag, "")) for tag in wanted))
    # What Pillow raises for a damaged file shares no base class: whoever reads the picture says it.
    except Exception:
        return None


def check_writable(folder: Path) -> None:
    """Raise UserError, in words, where nothing can be written into `folder`; leaves nothing."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
            file.flush()
    except OSError as error:
        raise _in_words(error, folder, IN_WORDS | IN_WORDS_WRITING) from None


def free_path(folder: Path, name: str, ending: str) -> Path:
    """A path in `folder` at which nothing lies yet."""
    path, number = folder / f"{name}{ending}", 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}{ending}"
    return path


def read_pem(path: Path) -> str:
    """The text of a file of certificates or of a key. Raises UserError, in words."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_PEM + 1)
    except OSError as error:
        raise _in_words(error, path) from None
    text = pem(data) if len(data) <= MOST_PEM else ""
    if not text:
        raise UserError(N_("{path} is no certificate or key as PEM"), code="pem", path=path.name)
    return text


def pem(data: bytes) -> str:
    """The certificates and keys in a file, without what a tool wrote around them, as openssl the
    names within a PKCS#12 in whatever alphabet; empty where it holds none.
    """
    found = re.findall(rb"-----BEGIN [ -~]+?-----[\t-~]+?-----END [ -~]+?-----", data)
    return "".join(f"{block.decode('ascii')}\n" for block in found)


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner alone (0700)."""
    for level in (*reversed(folder.parents), folder):
        level.mkdir(mode=0o700, exist_ok=True)


def above(folder: Path) -> Path | None:
    """The folder that holds this one; None at the top."""
    return folder.parent if folder.parent != folder else None


def nearest(folder: Path | None) -> Path | None:
    """The folder, or the one above it that is still there: a stick may have been taken out."""
    while folder is not None and not os.path.isdir(folder):
        folder = above(folder)
    return folder


def _in_words(error: OSError, folder: Path, table: dict[int, str] = IN_WORDS) -> UserError:
    message, name = table.get(error.errno or 0), folder.name or str(folder)
    if message is None:
        reason = Message(error.strerror or str(error))
        return UserError(Message("{name}: {reason}", name=name, reason=reason))
    return UserError(Message(message, name=name))


def _folders(root: Path) -> list[Path]:
    try:
        return [item.path for item in listing(root, frozenset()) if item.folder]
    except UserError:
        return []


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return ""


def _natural(path: Path) -> list[tuple[int, str]]:
    """By name, whatever its case; numbers in it by their size."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [(int(p), "") if n % 2 and p.isascii() else (0, p) for n, p in enumerate(parts)]
