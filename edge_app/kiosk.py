"""What a device that stands unattended needs: idle timer, operator's PIN, log."""

from __future__ import annotations

import contextlib
import errno
import hmac
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from pathlib import Path

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from dermedge import UserError
from dermedge.cli import one_line
from dermedge.files import write_atomic
from edge_app.capture.sources import FAULTS
from edge_app.i18n.language import N_, Message
from edge_app.store import pending

IDLE_SECONDS = 90.0
FREE_TRIES = 3  # wrong PINs in a row before one has to wait
WAIT_SECONDS = 30.0  # then; twice as long with each further one
MOST_WAIT = 3600.0
LOG = "kiosk.log"
PIN_FILE = "operator.pin"
LOG_BYTES, LOG_FILES = 1_000_000, 5

# All that a log line may hold: an event, and for a value a number or one of these words.
EVENTS = (
    "start",
    "stop",
    "self-check",
    "source fault",
    "source well",
    "capture",
    "capture failed",
    "idle reset",
    "wrong PIN",
    "unlocked",
    "tune",
)
TUNED = ("faster", "unchanged", "stopped", "unwritable", "failed", "gave-up")  # as it ended
CODES = {*FAULTS, *TUNED, "other", "bundle", "camera", "disk", "speed", "clock", "pin"}


class Idle:
    """Tells when nobody has touched the screen for `seconds`; `now` never goes back."""

    def __init__(self, now: float, seconds: float = IDLE_SECONDS):
        self._seconds, self._last = seconds, now

    def touch(self, now: float) -> None:
        self._last = now

    def slept(self, seconds: float) -> None:
        """So many seconds passed that `now` does not count."""
        self._last -= seconds

    def left(self, now: float) -> float:
        """Seconds until the screen must be cleared; 0: now."""
        return max(0.0, self._last + self._seconds - now)


def asleep() -> float:
    """Seconds, up to a constant, that the device has slept: `time.monotonic` leaves them out."""
    if sys.platform == "win32":  # which counts them in all its clocks
        return 0.0
    # Linux has a clock for it; macOS counts them in this one.
    clock = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.clock_gettime(clock) - time.monotonic() if clock is not None else 0.0


class WrongPin(UserError):
    """The PIN was wrong, or one has to wait; one line."""


# Whoever walks by must not be the first to choose one.
NO_PIN = N_(
    "this kiosk has no operator's PIN yet, so that nobody can enter here: run `dermedge app "
    "--set-pin` on its console"
)
EASY_PINS = ("0123456789", "9876543210", "1234567890", "0987654321")


class Pin:
    """The operator's PIN, in a file, by scrypt (RFC 7914). Wrong tries are counted there, too:
    starting again gives no further ones. `clock` gives seconds since 1970."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        self._path, self._clock = Path(path), clock

    def exists(self) -> bool:
        return self._path.exists()

    def set(self, pin: str) -> None:
        """Choose a PIN; an existing one is replaced, so ask for it before.

        It goes into the audit trail, when the store is opened the next time.
        """
        if len(pin) < 4 or not (pin.isascii() and pin.isdigit()):
            raise UserError("a PIN has at least four digits", code="pin")
        if len(set(pin)) == 1 or any(pin in easy for easy in EASY_PINS):
            raise UserError("this PIN is among the first that are tried: take another", code="pin")
        self._note("begin change PIN")
        salt = os.urandom(16)
        cost = {"n": 2**16, "r": 8, "p": 1}  # 64 MiB
        key = Scrypt(salt=salt, length=32, **cost).derive(pin.encode())
        try:
            self._write({"salt": salt.hex(), "key": key.hex(), "cost": cost, "wrong": 0, "last": 0})
        except OSError:
            self._note("failed change PIN")
            raise
        self._note("done change PIN")

    def check(self, pin: str) -> None:
        """Return where it is right; raise WrongPin where not, or while one has to wait."""
        kept = self._read()
        wait = self._wait(kept)
        if wait > 0:
            message = Message.plural(
                "too many wrong tries: wait {count} second",
                "too many wrong tries: wait {count} seconds",
                math.ceil(wait),
            )
            raise WrongPin(message, code="wait")
        # Counted before it is tried: pulling the plug gives no free try.
        self._write({**kept, "wrong": kept["wrong"] + 1, "last": self._clock()})
        key = Scrypt(salt=bytes.fromhex(kept["salt"]), length=32, **kept["cost"])
        if not hmac.compare_digest(key.derive(pin.encode()), bytes.fromhex(kept["key"])):
            raise WrongPin("the PIN is wrong", code="wrong-pin")
        self._write({**kept, "wrong": 0, "last": 0})

    def _wait(self, kept: dict) -> float:
        over = kept["wrong"] - FREE_TRIES
        if over < 0:
            return 0.0
        whole = min(MOST_WAIT, WAIT_SECONDS * 2 ** min(over, 20))
        # A clock that was set back must not lock the operator out for longer.
        return min(whole, kept["last"] + whole - self._clock())

    def _read(self) -> dict:
        try:
            kept = json.loads(self._path.read_text())
            sound = (
                set(kept["cost"]) == {"n", "r", "p"}
                and all(type(value) is int for value in (*kept["cost"].values(), kept["wrong"]))
                and 128 * kept["cost"]["n"] * kept["cost"]["r"] <= 2**29
                and 1 <= kept["cost"]["p"] <= 16
                and kept["wrong"] >= 0
                and isinstance(kept["last"], (int, float))
                and len(bytes.fromhex(kept["key"])) == 32
                and len(bytes.fromhex(kept["salt"])) == 16
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            sound = False
        if not sound:
            raise UserError(
                "there is no PIN that can be read at {path}", code="no-pin", path=self._path
            )
        return kept

    def _write(self, content: dict) -> None:
        try:
            write_atomic(self._path, json.dumps(content), private=True)
        except OSError as error:
            # The operator must enter to make room: what is there has room for a new count.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._path.is_file():
                raise
            data = json.dumps(content).encode().ljust(self._path.stat().st_size)
            with open(self._path, "r+b", buffering=0) as file:
                file.write(data)
                os.fsync(file.fileno())

    def _note(self, event: str) -> None:
        now = datetime.fromtimestamp(self._clock(), timezone.utc).isoformat(timespec="milliseconds")
        pending.note(self._path.parent, now.replace("+00:00", "Z"), event)


def set_pin(folder: Path, ask: Callable[[str], str]) -> None:
    """Choose the operator's PIN on the console; it replaces one that is there.

    `folder` : where the kiosk keeps its files. `ask` : shows words, returns what was typed.
    Raises UserError where it is refused, or the two are not the same.
    """
    pin = ask("New PIN of the operator: ")
    if ask("Once more: ") != pin:
        raise UserError("the two are not the same: nothing was changed", code="pin")
    path = folder / PIN_FILE
    Pin(path).set(pin)
    # Where an administrator does it, it is the kiosk that has to read and count.
    owner = folder.stat()
    if sys.platform != "win32" and os.geteuid() == 0 and owner.st_uid != 0:
        for name in (PIN_FILE, pending.NAME):
            with contextlib.suppress(FileNotFoundError):
                os.chown(folder / name, owner.st_uid, owner.st_gid)


class _Handler(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk, or one that cannot be written: not a traceback for each line, of which the
        first comes before `unforeseen.keep_quiet`.
        """


class Journal:
    """A rotating log without personal data: events of EVENTS, numbers, words of CODES.

    Where nothing can be written, as on a disk that became read-only, a line on standard error says
    so, and the kiosk goes on without a log.
    """

    def __init__(self, path: Path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            path.chmod(0o600)
        except OSError as error:
            print(f"dermedge: there is no log: {one_line(error)}", file=sys.stderr, flush=True)
        self._handler = _Handler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, delay=True)
        formatter = logging.Formatter("%(asctime)s %(message)s")
        formatter.converter = time.gmtime
        self._handler.setFormatter(formatter)

    def write(self, event: str, **values: float | str) -> None:
        """Raises ValueError for what is not on the lists: nothing else can enter."""
        foreign = [v for v in values.values() if not isinstance(v, (int, float)) and v not in CODES]
        if event not in EVENTS or foreign:
            raise ValueError("the log takes known events, numbers and codes only")
        text = " ".join([event, *(f"{name}={value}" for name, value in values.items())])
        self._handler.handle(logging.makeLogRecord({"msg": text}))

    def close(self) -> None:
        self._handler.close()
