"""What a device that stands unattended needs: self-check, idle timer, operator PIN, log, unit."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import math
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from pathlib import Path

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.files import write_atomic
from dermedge.image.read import Picture
from dermedge.tune import load_tuned
from edge_app.capture.sources import FAULTS, Frame, Source, SourceError, StreamMonitor
from edge_app.capture.worker import Worker
from edge_app.i18n.language import N_, Message, error_message
from edge_app.store import clock as clocks
from edge_app.store import pending

FREE_BYTES = 2**30  # some hundred captures
SLOW_MS = 2000.0  # for one picture; a person waits no longer
CAMERA_SECONDS = 5.0  # for its first picture
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
    "capture",
    "capture failed",
    "idle reset",
    "wrong PIN",
    "unlocked",
)
CODES = {*FAULTS, "other", "bundle", "camera", "disk", "speed", "clock", "pin"}


TITLES = {
    "bundle": N_("Model"),
    "speed": N_("Speed"),
    "camera": N_("Camera"),
    "disk": N_("Disk"),
    "clock": N_("Clock"),
    "pin": N_("Operator's PIN"),
}


@dataclass(frozen=True)
class Check:
    """One item of the self-check. `words` says what was found, and what to do where it is bad."""

    name: str  # of TITLES
    ok: bool
    message: Message


def self_check(
    opener: Callable[[], Source], loader: Callable[[], Analyzer], folder: Path
) -> Iterator[Check]:
    """Try the bundle, its speed, the camera, the disk and the clock, one after the other.

    Parameters
    ----------
    opener : opens the source. loader : opens and verifies the bundle, loads its networks.
    folder : where cases are kept.
    """
    yield from _check_bundle(loader)
    yield _check_camera(opener)
    # Before anything is written there: when that was last done says how late it is at least.
    clock = check_clock(folder)
    yield _check_disk(folder)
    yield clock


def running_check(
    worker: Worker, folder: Path, clock_fault: Callable[[], Message | None] = lambda: None
) -> Iterator[Check]:
    """The same in a running app. Its camera is in use, so its newest frame is what is looked at.

    `clock_fault` : what an open store says of the clock.
    """

    def load() -> Analyzer:
        bundle = Bundle.open(worker.bundle.path)
        # The one that runs was checked against the trusted key at the start; another was not.
        if bundle.sha256 != worker.bundle.sha256:
            raise UserError(
                "{path} is another file than at the start: start the app again",
                code="bundle-replaced",
                path=bundle.path,
            )
        return Analyzer(bundle, executions=load_tuned(bundle))

    yield from _check_bundle(load)
    seen = worker.snapshot()
    if seen.fault or seen.frame is None:
        yield Check("camera", False, Message(seen.fault or FAULTS["waiting"]))
    else:
        yield _camera(seen.source, seen.frame)
    clock, fault = check_clock(folder), clock_fault()
    yield _check_disk(folder)
    yield Check("clock", False, fault) if fault else clock


def check_clock(folder: Path, clock: Callable[[], float] = time.time) -> Check:
    """Whether the clock can be right: not before dermedge was made, nor before what was last
    written in `folder`. `clock` gives seconds since 1970.
    """
    now = datetime.fromtimestamp(clock(), timezone.utc).isoformat().replace("+00:00", "Z")
    fault = clocks.words(now, clocks.last_written(folder))
    return Check("clock", fault is None, fault or Message(clocks.shown(now)))


def check_pin(pin: Pin) -> Check:
    """Whether a kiosk has an operator's PIN: without one nobody enters the operator's area."""
    if pin.exists():
        return Check("pin", True, Message("it is set"))
    return Check("pin", False, Message(NO_PIN))


def _check_bundle(loader: Callable[[], Analyzer]) -> Iterator[Check]:
    try:
        analyzer = loader()
    except (UserError, OSError) as error:
        yield Check(
            "bundle",
            False,
            Message("the model cannot be used: {reason}", reason=error_message(error)),
        )
        return
    name, sha256 = analyzer.bundle.manifest.name, analyzer.bundle.sha256[:12]
    yield Check(
        "bundle", True, Message("{name}, {sha256}: every part whole", name=name, sha256=sha256)
    )
    pixels = draw(1, "phone", (480, 640)).image
    times = []
    for _ in range(4):  # the first is slower: memory is laid out
        start = time.perf_counter()
        analyzer.analyze(Picture(pixels, 480, 640), name="self-check")
        times.append((time.perf_counter() - start) * 1000)
    best = min(times[1:])
    message = N_("{ms} ms for one picture")
    if best > SLOW_MS:
        message = N_(
            "{ms} ms for one picture: too slow; end other programs, check the cooling, "
            "run `dermedge tune`"
        )
    yield Check("speed", best <= SLOW_MS, Message(message, ms=round(best)))


def _check_camera(opener: Callable[[], Source]) -> Check:
    try:
        with closing(opener()) as source:
            monitor, end = StreamMonitor(source.live), time.monotonic() + CAMERA_SECONDS
            code = "waiting"
            while code and time.monotonic() < end:
                frame = source.read()
                if frame is not None:
                    code = monitor.inspect(frame)
            if code == "waiting":
                message = Message("{source} delivers no picture", source=Message(source.name))
                return Check("camera", False, message)
            if code:
                return Check("camera", False, Message(FAULTS[code]))
            return _camera(source.name, frame)
    except SourceError as error:
        return Check("camera", False, error_message(error))


def _camera(name: str, frame: Frame) -> Check:
    height, width = frame.pixels.shape[:2]
    name = name if isinstance(name, Message) else Message(name)
    size = {"width": width, "height": height}
    return Check("camera", True, Message("{source}, {width} x {height} px", source=name, **size))


def _check_disk(folder: Path) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        reason = Message(error.strerror)
        message = Message("{path} cannot be written: {reason}", path=folder, reason=reason)
        return Check("disk", False, message)
    message = N_("{size} GiB free")
    if free < FREE_BYTES:
        message = N_("{size} GiB free: delete or export cases, or make room otherwise")
    return Check("disk", free >= FREE_BYTES, Message(message, size=f"{free / 2**30:.1f}"))


class Idle:
    """Tells when nobody has touched the screen for `seconds`; `now` never goes back."""

    def __init__(self, now: float, seconds: float = IDLE_SECONDS):
        self._seconds, self._last = seconds, now

    def touch(self, now: float) -> None:
        self._last = now

    def left(self, now: float) -> float:
        """Seconds until the screen must be cleared; 0: now."""
        return max(0.0, self._last + self._seconds - now)


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
    starting anew gives no further ones. `clock` gives seconds since 1970."""

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
        write_atomic(self._path, json.dumps(content), private=True)

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
    if os.name == "posix" and os.geteuid() == 0 and owner.st_uid != 0:
        for name in (PIN_FILE, pending.NAME):
            with contextlib.suppress(FileNotFoundError):
                os.chown(folder / name, owner.st_uid, owner.st_gid)


class Journal:
    """A rotating log without personal data: events of EVENTS, numbers, words of CODES."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1)
        path.chmod(0o600)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._handler.formatter.converter = time.gmtime

    def write(self, event: str, **values: float | str) -> None:
        """Raises ValueError for what is not on the lists: nothing else can enter."""
        foreign = [v for v in values.values() if not isinstance(v, (int, float)) and v not in CODES]
        if event not in EVENTS or foreign:
            raise ValueError("the log takes known events, numbers and codes only")
        text = " ".join([event, *(f"{name}={value}" for name, value in values.items())])
        self._handler.handle(logging.makeLogRecord({"msg": text}))

    def close(self) -> None:
        self._handler.close()


_WRITES = ("--home", "--captures")  # options that name a folder which the kiosk writes to
_PRIVATE = (Path("/tmp"), Path("/var/tmp"))  # a service has its own


def unit(options: Mapping[str, str], display: str = "kmsdrm") -> str:
    """A systemd unit that starts the kiosk at boot.

    Parameters
    ----------
    options : what follows `dermedge app --kiosk`, by name; "" where an option takes no value.
        Paths are absolute.

    Raises
    ------
    UserError : a value that no unit can hold, or a path that a service does not see.
    """
    program = [sys.executable, "-m", "dermedge.cli"]
    start = [*program, "app", "--kiosk"]
    for name, value in options.items():
        start += [name, value] if value else [name]
    for word in start:
        if not word.isprintable():
            raise UserError(
                "a unit cannot hold {word}: it has a line break or another character that cannot "
                "be printed",
                code="systemd-character",
                word=repr(word),
            )
        hidden = [folder for folder in _PRIVATE if folder in Path(word).parents]
        if hidden and word in options.values():
            raise UserError(
                "a service does not see {path}: put it outside of {folder}",
                code="systemd-private",
                path=word,
                folder=hidden[0],
            )
    # The program's own name is not searched for variables.
    command = " ".join([_quoted(start[0]), *(_quoted(w).replace("$", "$$") for w in start[1:])])
    folders = [options[name] for name in _WRITES if options.get(name)]
    writable = "".join(f"ReadWritePaths={_quoted(folder)}\n" for folder in folders)
    own = "sudo -u dermedge env XDG_CACHE_HOME=/var/cache/dermedge"
    bundle = [
        word
        for name in ("--bundle", "--trusted-key")
        if name in options
        for word in (name, options[name])
    ]
    tune = shlex.join([*program, "tune", *bundle])
    made = "".join(
        f"# {shlex.join(['install', '-d', '-o', 'dermedge', '-m', '0700', folder])}\n"
        for folder in folders
    )
    return f"""\
# dermedge app --systemd > /etc/systemd/system/dermedge.service
# useradd --system --groups video,render,input dermedge
{made}# systemctl enable --now dermedge
# What runs fastest is found by the service's own user, and used from the next start on:
# {own} {tune}
[Unit]
Description=dermedge kiosk
After=systemd-udev-settle.service
StartLimitIntervalSec=0

[Service]
User=dermedge
SupplementaryGroups=video render input
Environment=SDL_VIDEODRIVER={display}
Environment=HOME=%S/dermedge
Environment=XDG_DATA_HOME=%S
Environment=XDG_CACHE_HOME=%C/dermedge
Environment=XDG_CONFIG_HOME=%S/dermedge/config
Environment=XDG_STATE_HOME=%S/dermedge/state
StateDirectory=dermedge
StateDirectoryMode=0700
CacheDirectory=dermedge
CacheDirectoryMode=0700
UMask=0077
ExecStart={command}
Restart=always
RestartSec=3
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
{writable}RestrictAddressFamilies=AF_UNIX AF_NETLINK

[Install]
WantedBy=multi-user.target
"""


def _quoted(word: str) -> str:
    """A word of a unit file: quoted, its specifiers and escapes taken as they stand."""
    return '"{}"'.format(word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%"))
