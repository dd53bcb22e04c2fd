"""Where a figure comes from: the commit of the code, the processor, the cores it could use."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]  # of the checkout, where there is one
_RESULTS = "benchmarks/results"
_GIT_SECONDS = 10


def commit(dirty_mark: str = "") -> str:
    """The commit of this code, 12 digits or more; '-' where it does not run from a checkout.

    dirty_mark : what is put behind it where files differ from the commit, but for results that
        were measured and not committed yet: they are not what measures.
    """
    # An environment may lie inside the checkout of something else.
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != _ROOT:
        return "-"
    name = _git("describe", "--always", "--abbrev=12", "--exclude=*")
    if name is None:
        return "-"
    if dirty_mark and _git("diff", "--name-only", "HEAD", "--", ":/", f":(top,exclude){_RESULTS}"):
        name += dirty_mark
    return name


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(_ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def usable_cores() -> int:
    """Cores that this process may run on; a container may give fewer than there are."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cpu_name(fields: Sequence[str] = ("model name", "Model", "Hardware")) -> str | None:
    """The processor's name; None where the system does not tell it.

    fields : of Linux's /proc/cpuinfo, the first that is there; ARM boards name themselves instead.
    """
    for line in (system_text("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in fields:
            return value.strip()
    return platform.processor() or None


def system_text(path: str) -> str | None:
    """What a file of the system says, stripped; None where it is missing or empty."""
    try:
        return Path(path).read_text().strip("\0\n ") or None
    except (OSError, UnicodeDecodeError):
        return None
