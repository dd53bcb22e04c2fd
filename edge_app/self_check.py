"""Whether the device is fit for work: bundle, speed, camera, disk, clock, the operator's PIN."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.image.read import Picture
from edge_app.capture.sources import FAULTS, Frame, Source, SourceError, StreamMonitor
from edge_app.capture.worker import Worker
from edge_app.i18n.language import N_, Message, error_message
from edge_app.kiosk import NO_PIN, Pin
from edge_app.networks import load_analyzer
from edge_app.store import clock as clocks

FREE_BYTES = 2**30  # some hundred captures
SLOW_MS = 2000.0  # for one picture; a person waits no longer
CAMERA_SECONDS = 5.0  # for its first picture
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
    """One item of the self-check. `message` says what was found, and what to do where it is bad."""

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
        return load_analyzer(bundle)

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
            code, frame = "waiting", None
            while code and time.monotonic() < end:
                frame = source.read()
                if frame is not None:
                    code = monitor.inspect(frame)
            if code == "waiting":
                message = Message("{source} delivers no picture", source=Message(source.name))
                return Check("camera", False, message)
            if code or frame is None:
                return Check("camera", False, Message(FAULTS[code]))
            return _camera(source.name, frame)
    except SourceError as error:
        return Check("camera", False, error_message(error))


def _camera(name: str, frame: Frame) -> Check:
    height, width = frame.pixels.shape[:2]
    source = name if isinstance(name, Message) else Message(name)
    message = Message("{source}, {width} x {height} px", source=source, width=width, height=height)
    return Check("camera", True, message)


def _check_disk(folder: Path) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        reason = Message(error.strerror or str(error))
        fault = Message("{path} cannot be written: {reason}", path=folder, reason=reason)
        return Check("disk", False, fault)
    message = N_("{size} GiB free")
    if free < FREE_BYTES:
        message = N_("{size} GiB free: delete or export cases, or make room otherwise")
    return Check("disk", free >= FREE_BYTES, Message(message, size=f"{free / 2**30:.1f}"))
