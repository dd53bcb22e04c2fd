"""What a benchmark runs on, and how busy that is with other programs."""

from __future__ import annotations

import os
import platform
import re
import time

import psutil

from benchmarks.latency import power
from dermedge.evaluation.provenance import cpu_name, system_text, usable_cores


def hardware() -> dict:
    """What the figures were taken on; None where the system does not tell."""
    return {
        "machine": system_text("/proc/device-tree/model") or platform.machine(),
        "cpu": cpu_name(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release().split('-')[0]}",  # no builder's name
        "governor": system_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "power_mode": power.power_mode(),
        "frequency_mhz": frequency(),
        "temperature_c": power.temperature(),
    }


class OtherPrograms:
    """How busy the cores are with other programs (and, under a hypervisor, guests).

    One thread samples and reads it.
    """

    def __init__(self) -> None:
        """The first sample is taken here."""
        self._samples: list[tuple[float, float] | None] = []
        self.sample()

    def sample(self) -> None:
        """Read the counters of the cores and of this process."""
        try:
            cores = psutil.cpu_times(percpu=True)
            own = psutil.Process().cpu_times()
        except (OSError, psutil.Error):  # Android hides both
            self._samples.append(None)
            return
        if hasattr(os, "sched_getaffinity"):
            usable = os.sched_getaffinity(0)
            # Cores that are off are not in the list, and leave gaps in the numbers of the others.
            numbers = re.findall(r"^cpu(\d+)", system_text("/proc/stat") or "", re.MULTILINE)
            cores = [c for n, c in zip(numbers, cores, strict=False) if int(n) in usable]
        times = [core._asdict() for core in cores]
        # A guest's time is counted in the user's, too.
        whole = sum(v for t in times for k, v in t.items() if not k.startswith("guest"))
        idle = sum(t["idle"] + t.get("iowait", 0) for t in times)
        self._samples.append((whole, whole - idle - own.user - own.system))

    def percent(self, first: int = 0, last: int = -1) -> float | None:
        """Of all that the usable cores could do between two samples; None where the system
        does not tell."""
        before, after = self._samples[first], self._samples[last]
        if not before or not after or after[0] <= before[0]:
            return None
        return round(max(0.0, 100 * (after[1] - before[1]) / (after[0] - before[0])), 1)


def busy() -> float | None:
    """Share of the usable cores that is in use now, in %; None where the system does not tell."""
    others = OtherPrograms()
    time.sleep(1)
    others.sample()
    return others.percent()


def frequency() -> int | None:
    """The clock now, MHz; None where the system does not tell."""
    try:
        clock = psutil.cpu_freq()
    except (OSError, NotImplementedError):  # such as Android, whose files of it cannot be read
        return None
    return round(clock.current) if clock and clock.current else None
