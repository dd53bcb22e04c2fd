"""What the wall clock of a device is worth: a board without a battery wakes up in 1970.

Times are ISO 8601 in UTC, as '2026-01-31T09:30:00.000Z'.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path

from edge_app.i18n.language import N_, Message

EARLIEST = "2025-01-01T00:00:00Z"  # nobody could run dermedge before
LATEST = "2050-01-01T00:00:00Z"
FIRST_YEAR = 2001  # before, cameras begin whose clock nobody has set
TOLERANCE = timedelta(minutes=5)  # by which a clock that is kept right may be set back
AHEAD = timedelta(days=1)  # by which a camera's may be: in summer time, or of another zone
WRONG, BEHIND = "wrong", "behind"  # kinds of fault
FAULTS = {
    WRONG: N_("the clock of this device says {now}, which cannot be: set its date and time"),
    BEHIND: N_(
        "the clock of this device says {now}, but the last entry was made on {seen}: set its date "
        "and time"
    ),
}


def now() -> str:
    """What the clock of this device says."""
    return stamp(datetime.now(timezone.utc))


def stamp(when: datetime) -> str:
    """A time with its zone, as it is kept."""
    utc = when.astimezone(timezone.utc)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(stamp: str) -> datetime:
    """ISO 8601 with a time zone as a time; raises ValueError."""
    found = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    if found.tzinfo is None:
        raise ValueError("a time without its zone")
    return found


def of_camera(when: datetime | None) -> str:
    """A time that a picture's file states, as it is kept; empty where it cannot be right."""
    if when is None or when.year < FIRST_YEAR:
        return ""
    said, here = stamp(when), now()
    if said <= here or fault(here):
        return said
    return here if moment(said) - moment(here) < AHEAD else ""


def local_day(stamp: str) -> str:
    """The ISO date that it was here, as screens show it."""
    return moment(stamp).astimezone().date().isoformat()


def of_last_day(stated: Sequence[str], undated: str) -> list[bool]:
    """Of each of several times whether it is of the last one's day, here.

    stated : what files state; empty where nothing does, or no file: then `undated` is meant.
    """
    days = [local_day(one or undated) for one in stated]
    return [day == days[-1] for day in days]


def local_minute(stamp: str) -> str:
    """The ISO date and the time of day that it was here, as screens show it."""
    return moment(stamp).astimezone().strftime("%Y-%m-%d %H:%M")


def on(day: str, hour: time) -> str:
    """A time of day here on an ISO date; raises ValueError for one that no clock here can say."""
    try:
        here = datetime.combine(date.fromisoformat(day), hour).astimezone()
        found = here.astimezone(timezone.utc)
    except (OverflowError, OSError):
        raise ValueError("no such date") from None
    return found.isoformat(timespec="seconds").replace("+00:00", "Z")


def fault(now: str, seen: str = "") -> str:
    """What is wrong with a clock that says `now`: WRONG, BEHIND or nothing.

    `seen` : the latest time at which it was right, empty where that is not known.
    """
    if not EARLIEST <= now < LATEST:
        return WRONG
    return BEHIND if seen and moment(now) < moment(seen) - TOLERANCE else ""


def words(now: str, seen: str = "") -> Message | None:
    """The fault in one line; None without one."""
    kind = fault(now, seen)
    return Message(FAULTS[kind], now=shown(now), seen=shown(seen)) if kind else None


def shown(stamp: str) -> str:
    """To the minute, in an order that every language reads alike."""
    return f"{stamp[:10]} {stamp[11:16]} UTC"


def plausible(today: date) -> bool:
    """Whether a device's date can be right."""
    return EARLIEST[:10] <= today.isoformat() < LATEST[:10]


def last_written(folder: Path) -> str:
    """When a file in `folder` was last written, as its file system says; empty where none was."""
    times = []
    try:
        with os.scandir(folder) as entries:
            times = [entry.stat().st_mtime for entry in entries if entry.is_file()]
    except OSError:
        pass
    if not times:
        return ""
    return datetime.fromtimestamp(max(times), timezone.utc).isoformat().replace("+00:00", "Z")
