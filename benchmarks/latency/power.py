"""What the device tells of its energy, heat and power mode; nothing is guessed where it is silent.

Energy: Intel's and AMD's RAPL counter, the INA3221 monitor of Jetson modules (what jetson-stats
reads), or the battery of an Android device. All are files of the Linux kernel's sysfs.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dermedge import UserError

PERIOD = 0.05  # s between two readings of a meter that tells power
IDLE_SECONDS = 2.0  # that the device's own use is measured for


@dataclass(frozen=True)
class Meter:
    """`read` gives joules since some moment where `counts`, else watts at this moment."""

    source: str
    read: Callable[[], float]
    counts: bool
    wraps: float = 0.0  # joules at which a counter starts at 0 again


def find(root: Path = Path("/")) -> Meter | None:
    """The device's meter; None where it has none, or this user may not read it.

    Parameters
    ----------
    root : where `sys` lies.
    """
    return _rapl(root) or _jetson(root) or _battery(root)


def energy(meter: Meter, run: Callable[[], object], seconds: float) -> dict:
    """Energy of one call of `run`, by calling it for `seconds`.

    Returns 'source', 'analyses', 'joules_per_analysis' (of all that the meter sees), 'watts', and
    'idle_watts' of the same meter before.
    """
    idle, elapsed = _spent(meter, lambda: time.sleep(IDLE_SECONDS))
    idle_watts = idle / elapsed
    count = 0

    def work() -> None:
        nonlocal count
        stop = time.perf_counter() + seconds
        while count == 0 or time.perf_counter() < stop:
            run()
            count += 1

    joules, elapsed = _spent(meter, work)
    return {
        "source": meter.source,
        "analyses": count,
        "joules_per_analysis": round(joules / count, 5),
        "watts": round(joules / elapsed, 3),
        "idle_watts": round(idle_watts, 3),
    }


def _spent(meter: Meter, work: Callable[[], None]) -> tuple[float, float]:
    """Joules and seconds."""
    start = time.perf_counter()
    if meter.counts:
        before = meter.read()
        work()
        after = meter.read()
        joules = after - before if after >= before else after - before + meter.wraps
        return joules, time.perf_counter() - start
    readings, done = [meter.read()], threading.Event()

    def listen() -> None:
        while not done.wait(PERIOD):
            readings.append(meter.read())

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    elapsed = time.perf_counter() - start
    return sum(readings) / len(readings) * elapsed, elapsed


def _rapl(root: Path) -> Meter | None:
    for zone in sorted(root.glob("sys/class/powercap/*rapl:[0-9]")):
        if _number(zone / "energy_uj") is not None:
            wraps = (_number(zone / "max_energy_range_uj") or 0) / 1e6
            name = (zone / "name").read_text().strip()
            return Meter(f"RAPL, {name}", partial(_joules, zone / "energy_uj"), True, wraps)
    return None


def _joules(counter: Path) -> float:
    return _reading(counter) / 1e6


def _jetson(root: Path) -> Meter | None:
    """The rail that feeds the module, or all of the monitor's rails where none is so called."""
    for monitor in sorted(root.glob("sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*")):
        rails = {}
        for label in sorted(monitor.glob("in[1-3]_label")):
            number = label.name[2]
            pair = monitor / f"in{number}_input", monitor / f"curr{number}_input"
            if None not in map(_number, pair):
                rails[label.read_text().strip()] = pair
        whole = [name for name in rails if name in ("VDD_IN", "POM_5V_IN")]
        summed = [rails[name] for name in whole] or list(rails.values())
        if summed:

            def watts(summed=tuple(summed)) -> float:
                return sum(_reading(volt) * _reading(ampere) for volt, ampere in summed) / 1e6

            return Meter(f"INA3221, {', '.join(whole or rails)}", watts, False)
    return None


def _battery(root: Path) -> Meter | None:
    battery = root / "sys/class/power_supply/battery"
    pair = battery / "current_now", battery / "voltage_now"
    if None in map(_number, pair):
        return None
    return Meter("battery", lambda: abs(_reading(pair[0])) * _reading(pair[1]) / 1e12, False)


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _reading(path: Path) -> float:
    """What a meter says that was there before; UserError where it has gone."""
    value = _number(path)
    if value is None:
        raise UserError(f"the energy meter {path} cannot be read any more; measure again")
    return value


def temperature(root: Path = Path("/")) -> float | None:
    """Of the hottest thermal zone, degrees Celsius."""
    zones = [_number(zone) for zone in root.glob("sys/class/thermal/thermal_zone*/temp")]
    degrees = [value / 1000 for value in zones if value is not None and value > 0]
    return round(max(degrees), 1) if degrees else None


def power_mode() -> str | None:
    """A Jetson's power mode, or the platform profile of a computer."""
    if shutil.which("nvpmodel"):
        answer = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True).stdout
        modes = [line.split(":", 1)[1].strip() for line in answer.splitlines() if "Mode:" in line]
        return modes[0] if modes else None
    try:
        return Path("/sys/firmware/acpi/platform_profile").read_text().strip() or None
    except OSError:
        return None
