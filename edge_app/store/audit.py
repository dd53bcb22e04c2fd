"""The audit trail of a store: sealed entries, each bound to all before it, and their head.

The head is sealed, too. It also holds what has to be as sure as the trail: the latest time at
which the device's clock was right, and what was begun and has no end yet.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

from edge_app.i18n.language import N_
from edge_app.store import clock
from edge_app.store.keys import Keys
from edge_app.store.records import RECORD, Entry, StoreError, seconds

BEGIN, DONE, FAILED = "begin ", "done ", "failed "
# What is entered once, when the clock is found to be so.
CLOCKS = {clock.WRONG: "clock wrong", clock.BEHIND: "clock set back"}
# Of the parts of an entry; that of dermedge 0.1.0 does not say what it ends.
OLD_KINDS = [str, str, str, str]
KINDS = [*OLD_KINDS, int]
BROKEN_HEAD = N_("the head of the audit trail is damaged: restore the store from an export")


@dataclass(frozen=True)
class Head:
    number: int = 0  # of the newest entry
    mac: bytes = b""  # its chain value
    seen: str = ""  # ISO 8601: the latest time at which the clock was right
    wrong: str = ""  # what was wrong with the clock at the newest entry, of clock.FAULTS
    begun: tuple[tuple[int, str, str], ...] = ()  # number, what and which of what has no end


def head(connection, keys: Keys) -> Head:
    row = connection.execute("SELECT value FROM store WHERE name = 'head'").fetchone()
    kept = keys.record((row or [b""])[0], "head")
    try:
        kept["mac"] = bytes.fromhex(kept["mac"])
        kept["begun"] = tuple((number, what, which) for number, what, which in kept["begun"])
        return Head(**kept)
    except (KeyError, TypeError, ValueError):
        raise StoreError(BROKEN_HEAD, code="damaged") from None


def write_head(connection, keys: Keys, head: Head) -> None:
    text = json.dumps(vars(head) | {"mac": head.mac.hex()}).encode()
    value = keys.seal(text, "head")
    connection.execute("INSERT OR REPLACE INTO store VALUES ('head', ?)", (value,))


def note_clock(connection, keys: Keys, now: str) -> Head:
    """Enter it where the clock is found to be wrong; `wrong` of the head says how it is now."""
    old = head(connection, keys)
    wrong = clock.fault(now, old.seen)
    new = replace(old, wrong=wrong)
    if not wrong:
        new = replace(new, seen=max(old.seen, now))
    elif wrong != old.wrong:
        new = _append(connection, keys, new, now, CLOCKS[wrong], "", "", 0)
    if new != old:
        write_head(connection, keys, new)
    return new


def log(
    connection, keys: Keys, now: str, what: str, which: str = "", digest: str = "", ends: int = 0,
    when: str = "",
) -> int:  # fmt: skip
    """Append an entry; returns its number.

    `ends` : number of the entry that began what ends here. `when` : where it was before `now`.
    """
    # From the stored head, not from the last row: a trail that was cut stays broken.
    old = note_clock(connection, keys, now)
    new = _append(connection, keys, old, when or now, what, which, digest, ends)
    begun = [one for one in new.begun if one[0] != ends]
    if what.startswith(BEGIN):
        begun.append((new.number, what.removeprefix(BEGIN), which))
    write_head(connection, keys, replace(new, begun=tuple(begun)))
    return new.number


def _append(
    connection, keys: Keys, old: Head, when: str, what: str, which: str, digest: str, ends: int
) -> Head:
    number = old.number + 1
    text = json.dumps([when, what, which, digest, ends]).encode()
    sealed = keys.seal(text, "audit", str(number))
    mac = keys.chain(old.mac, number, sealed)
    connection.execute("INSERT INTO audit VALUES (?, ?, ?)", (number, sealed, mac))
    return replace(old, number=number, mac=mac)


def entry(keys: Keys, number: int, sealed: bytes) -> tuple[Entry, str]:
    """A line of the trail, and the digest of the record that it is about."""
    kept = keys.record(sealed, "audit", str(number))
    sound = isinstance(kept, list) and [type(part) for part in kept] in (OLD_KINDS, KINDS)
    if not sound or seconds(kept[0]) == -math.inf:
        raise StoreError(RECORD, code="record")
    when, what, which, digest, *ends = kept
    return Entry(number, when, what, which, *ends), digest
