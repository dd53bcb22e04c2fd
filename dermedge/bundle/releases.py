"""No way back to an earlier release: a bundle that was replaced for a fault stays replaced.

A signature says who made a bundle, not that it is the newest. Where a bundle is opened with a
trusted key and its maker counts releases, this device remembers the highest it has seen of that
key and name, and takes no earlier one. It is as strong as the folder that it is kept in: whoever
may write there, or sets the options, may go back.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import BundleError, BundleRefused
from dermedge.files import state_folder, write_atomic


def check_release(bundle: Bundle, lowest: int | None = None) -> None:
    """Refuse an earlier release, and remember this one where a trusted key signed it.

    Parameters
    ----------
    bundle : an opened bundle.
    lowest : the earliest release to be taken; it counts instead of what is remembered.

    Raises
    ------
    BundleError
        In one line that says how to allow it; or where what is remembered cannot be read.
    OSError
        Where the release cannot be remembered.
    """
    release = bundle.manifest.release or 0
    if lowest is not None and release < lowest:
        raise BundleRefused(
            "bundle {path} is refused: {release}, but --min-release asks for {lowest} or later",
            code="bundle.release",
            path=bundle.path,
            release=_words(bundle),
            lowest=lowest,
        )
    if bundle.signed_by is None:
        return
    kept = _file(bundle)
    known = _read(kept)
    if lowest is None and release < known:
        raise BundleRefused(
            "bundle {path} is refused: {release}, and release {known} of {name} by the same key "
            "was opened here before; to go back on purpose, give --min-release {release_number}",
            code="bundle.rollback",
            path=bundle.path,
            release=_words(bundle),
            known=known,
            name=bundle.manifest.name,
            release_number=release,
        )
    if release > known:
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(kept, f"{release}\n", private=True)


def _words(bundle: Bundle) -> str:
    release = bundle.manifest.release
    return "it has no release number" if release is None else f"it is release {release}"


def _file(bundle: Bundle) -> Path:
    name = hashlib.sha256(bundle.manifest.name.encode()).hexdigest()[:16]
    return state_folder() / "releases" / f"{bundle.signed_by}-{name}"


def _read(path: Path) -> int:
    try:
        text = path.read_bytes()[:32]
    except FileNotFoundError:
        return 0
    if not text.strip().isdigit():
        raise BundleError(
            "{path} is damaged: it should name the newest release that was opened here; delete it "
            "and open the newest bundle first",
            code="bundle.releases",
            path=path,
        )
    return int(text)
