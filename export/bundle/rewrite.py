"""A finished bundle that is written again: what it had of a signature and a release stays true."""

from __future__ import annotations

from pathlib import Path

from dermedge.bundle import signature
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest_check import MAX_RELEASE
from export import ExportError


def signing_key(file: str | None) -> bytes | None:
    """The private key that --sign names; None: it is not given. Raises KeyFileError."""
    if not file:
        return None
    key = Path(file).read_bytes()
    signature.sign(b"", key)  # raises where it is none
    return key


def check_release(release: int | None) -> None:
    """Raise ExportError where --release is no number of a release."""
    if release is not None and not 1 <= release <= MAX_RELEASE:
        raise ExportError(f"--release must be 1 to {MAX_RELEASE}, got {release}")


def check_rewrite(bundle: Bundle, key: bytes | None, release: int | None) -> None:
    """Raise ExportError where it would lose its signature, or its release number would be taken."""
    if bundle.signed and key is None:
        raise ExportError(f"{bundle.path} is signed: give --sign KEYFILE to write it again")
    before = bundle.manifest.release
    if before and (release or 0) <= before:
        # With the same number a device would take the old one again, too.
        raise ExportError(
            f"{bundle.path} is release {before}, and another bundle is to be written: give a "
            f"later --release, from {before + 1}"
        )
