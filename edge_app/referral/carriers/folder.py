"""Sealed files in a folder or on a stick, for who has no network; and how they are opened.

A file holds one parcel, sealed by AES-256-GCM under a key from a passphrase that sender and
receiver agreed on by Argon2id, as a store's header says. Nothing of it is in clear but its length.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from dermedge import UserError
from dermedge.files import check_folder, sync_folder, write_atomic
from edge_app.browser import MOUNTS as STICKS
from edge_app.i18n.language import N_, Message
from edge_app.referral.carriers.outcome import Later, Receipt
from edge_app.referral.parcels import Parcel
from edge_app.store import derivation
from edge_app.store.keys import KEY, Keys
from edge_app.store.passphrase import strength
from edge_app.store.records import StoreError, WrongKey
from edge_app.store.referrals import Endpoint

ENDING = ".dermparcel"
MAGIC = b"dermedge parcel 1\n"
MOST = 2**29  # bytes of a file
# What this system mounts by itself or by hand, and what it has mounted; Linux.
FSTAB, MOUNTS = Path("/etc/fstab"), Path("/proc/self/mounts")
UNITS = (Path("/etc/systemd/system"), Path("/run/systemd/system"))  # as fstab, one file each
NO_FOLDER = N_("{folder} is not there: put the stick in")
NOT_WRITTEN = N_("{folder} cannot be written ({reason}): it is tried again")
FULL = N_("{folder} is full: make room on it, or take another")
DAMAGED = N_("{path} is no parcel of dermedge, or damaged")
THERE = N_("{folder} is there, {size} MiB free")


# Files that were sealed in one run have one header, and its key takes a moment to be made.
Known = dict[bytes, Keys | WrongKey]


class Folder:
    """Writes sealed files. To be used by one thread at a time.

    Raises UserError for a passphrase that whoever finds the stick would soon guess.
    """

    kinds = frozenset({"dicom", "fhir"})

    def __init__(self, endpoint: Endpoint):
        if fault := strength(endpoint.password).fault:
            raise UserError(Message(fault), code="passphrase")
        self._folder, self._passphrase = Path(endpoint.address), endpoint.password
        self._header: bytes = b""
        self._keys: Keys | None = None

    def check(self) -> Message:
        self._must_be_there()
        with self._or_later():
            check_folder(self._folder)  # a stick may be locked, or another's
            free = shutil.disk_usage(self._folder).free // 2**20
        return Message(THERE, folder=str(self._folder), size=free)

    def deliver(self, parcel: Parcel, again: bool) -> Receipt:
        self._must_be_there()
        path = self._folder / parcel.referral / f"{parcel.sequence:03}{ENDING}"
        with self._or_later():
            exists = path.exists()
        if not (exists and self._holds(path, parcel)):
            with self._or_later():
                path.parent.mkdir(exist_ok=True)
                sync_folder(self._folder)  # else its name may go with a stick that is pulled
                write_atomic(path, self._sealed(parcel), private=True)
            if not self._holds(path, parcel):
                words = Message(NOT_WRITTEN, folder=str(self._folder), reason="read back")
                raise Later(words, "not-there")
        return Receipt(str(self._folder))

    def _must_be_there(self) -> None:
        with self._or_later():
            there = self._folder.is_dir() and _mounted(self._folder)
        if not there:
            raise Later(Message(NO_FOLDER, folder=str(self._folder)), "unreachable", down=True)

    @contextlib.contextmanager
    def _or_later(self) -> Iterator[None]:
        """Turn what the system says into Later."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Later(Message(FULL, folder=str(self._folder)), "full", down=True) from error
            reason = Message(error.strerror or "?")
            words = Message(NOT_WRITTEN, folder=str(self._folder), reason=reason)
            raise Later(words, "unwritten", down=True) from error

    def _sealed(self, parcel: Parcel) -> bytes:
        if self._keys is None:
            secret = bytearray(os.urandom(KEY))
            self._header = derivation.packed(derivation.wrap(secret, self._passphrase))
            self._keys = Keys(secret)
        head = asdict(parcel)
        data = head.pop("data")
        text = json.dumps(head).encode()
        whole = len(text).to_bytes(4, "big") + text + data
        length = len(self._header).to_bytes(4, "big")
        return MAGIC + length + self._header + self._keys.seal(whole, "parcel")

    def _holds(self, path: Path, parcel: Parcel) -> bool:
        with self._or_later():
            data = path.read_bytes() if path.stat().st_size <= MOST else b""
        try:
            header, sealed = _split(path, data)
            # Those of this run open by the key at hand; a key from the passphrase takes its time.
            if self._keys is not None and header == self._header:
                return _parcel(path, self._keys, sealed) == parcel
            return opened(path, data, self._passphrase) == parcel
        except UserError:
            return False

    def close(self) -> None:
        if self._keys is not None:
            self._keys.wipe()
        self._keys = None


def _mounted(folder: Path) -> bool:
    """Whether no stick is missing that the system would show here: its folder stays, empty."""
    here = Path(os.path.realpath(folder))
    way, mounted = (here, *here.parents), _points(MOUNTS)
    planned = _points(FSTAB) | _unit_points() if MOUNTS.exists() else set()
    # Below these nothing lies on this computer's own disk, but what a stick has left behind.
    left = [
        root
        for root in STICKS
        if root in way[1:]
        and os.stat(root).st_dev == os.stat(here).st_dev
        and mounted.isdisjoint(way[: way.index(root)])  # a folder of that disk, by a bind mount
    ]
    return not left and (planned - mounted).isdisjoint(way)


def _points(table: Path) -> set[Path]:
    """Where a table of file systems (fstab(5)) mounts them; none where there is no such table."""
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return set()
    fields = [line.split() for line in lines if not line.lstrip().startswith("#")]
    return {
        Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), each[1]))
        for each in fields
        if len(each) > 1
    }


def _unit_points() -> set[Path]:
    """Where systemd's own units (systemd.mount(5)) mount file systems."""
    found = set()
    for unit in (file for folder in UNITS for file in folder.glob("*.mount")):
        with contextlib.suppress(OSError):
            text = unit.read_text(encoding="utf-8", errors="surrogateescape")
            found |= {Path(it.strip()) for it in re.findall(r"(?m)^\s*Where\s*=(.+)$", text)}
    return found


def opened(path: Path, data: bytes, passphrase: str, known: Known | None = None) -> Parcel:
    """What a sealed file holds. Raises UserError; WrongKey for another passphrase.

    `known` : what came of the headers of files that were opened before; to be wiped in the end.
    """
    header, sealed = _split(path, data)
    keys = None if known is None else known.get(header)
    if keys is None:
        try:
            keys = Keys(derivation.unwrap(derivation.unpacked(header), passphrase))
        except WrongKey as error:
            keys = error
        except StoreError:  # its line is about a store
            raise UserError(Message(DAMAGED, path=str(path)), code="damaged") from None
    if known is not None:
        known[header] = keys
    if isinstance(keys, WrongKey):
        raise keys
    try:
        return _parcel(path, keys, sealed)
    finally:
        if known is None:
            keys.wipe()


def _split(path: Path, data: bytes) -> tuple[bytes, bytes]:
    start = len(MAGIC) + 4
    length = int.from_bytes(data[len(MAGIC) : start], "big")
    if not data.startswith(MAGIC) or not 32 <= length <= derivation.MAX_HEADER:
        raise UserError(Message(DAMAGED, path=str(path)), code="damaged")
    return data[start : start + length], data[start + length :]


def _parcel(path: Path, keys: Keys, sealed: bytes) -> Parcel:
    try:
        whole = keys.open(sealed, "parcel")
        length = int.from_bytes(whole[:4], "big")
        head = json.loads(whole[4 : 4 + length])
        parcel = Parcel(**head, data=whole[4 + length :])
        # They become names of files.
        if not re.fullmatch("[0-9a-f]{32}", parcel.referral) or type(parcel.sequence) is not int:
            raise ValueError(parcel.referral)
        return parcel
    except (StoreError, ValueError, TypeError):
        raise UserError(Message(DAMAGED, path=str(path)), code="damaged") from None
