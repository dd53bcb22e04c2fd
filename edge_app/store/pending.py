"""Events of the audit trail while its key is not at hand: wrong passphrases, the operator's PIN.

They wait in a file beside the store, in clear and without anything of a person, and go into the
sealed trail when the store is opened the next time.
"""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

from dermedge.files import write_atomic
from edge_app.store.records import seconds

NAME = "audit.pending"
MOST = 500  # lines; those of one kind in a row share one
EVENTS = frozenset({"wrong passphrase", "begin change PIN", "done change PIN", "failed change PIN"})


def note(folder: Path, now: str, event: str) -> None:
    """Keep that something happened, where that can be written. `now` : ISO 8601."""
    lines = read(folder)
    if lines and lines[-1][1] == event:
        lines[-1][2] += 1
    elif len(lines) < MOST:
        lines.append([now, event, 1])
    with contextlib.suppress(OSError):
        write_atomic(folder / NAME, json.dumps(lines), private=True)


def read(folder: Path) -> list[list]:
    """Time of the first, event, and how often in a row; what is none of them is left out."""
    try:
        lines = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [
        line
        for line in (lines if isinstance(lines, list) else [])
        if isinstance(line, list) and [type(part) for part in line] == [str, str, int]
        and seconds(line[0]) > -math.inf  # the trail, which nothing is taken out of, has no other
        and line[1] in EVENTS and line[2] > 0
    ][:MOST]  # fmt: skip


def clear(folder: Path) -> None:
    with contextlib.suppress(OSError):
        (folder / NAME).unlink()
