"""How long a picture takes to become a decision, and what it costs in memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import psutil

from benchmarks.speed import power
from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.image.read import ImageError, Picture, read_image
from dermedge.runtime import ExecutionConfig

STAGES = ("decode", "prepare", "segmenter", "classifier", "lesion", "quality", "total")
WARMUP = 3  # analyses a picture and thread count that are run first and not counted
QUANTILES = 50
PERIODS = 60  # of the course over time
FRAME = "camera frame 1280x720"
PHOTO = "JPEG photograph 4032x3024"


def pictures(images: Sequence[Path]) -> dict[str, bytes | Picture]:
    """What is timed: name to a decoded camera frame or to the bytes of a file.

    Without `images`, a procedural 12-megapixel JPEG stands for a phone's photograph.
    Files are held in memory, so that no disk is measured.

    Raises UserError where a file is no picture.
    """
    frame = draw(3, "phone", size=(720, 1280)).image
    chosen: dict[str, bytes | Picture] = {FRAME: Picture(frame, 720, 1280)}
    for path in images:
        try:
            read_image(path)
        except ImageError as error:
            raise UserError(f"--image: {error}") from None
        name, number = path.name, 1  # where somebody keeps pictures is nobody else's business
        while name in chosen:
            number += 1
            name = f"{path.name} ({number})"
        chosen[name] = path.read_bytes()
    if images:
        return chosen
    photo = cv2.resize(draw(4, "phone", size=(1512, 2016)).image, (4032, 3024))
    encoded = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return chosen | {PHOTO: encoded.tobytes()}


def usable_cores() -> int:
    """Cores that this process may run on; a container may give fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Watch:
    """Looks at how busy the cores are with other programs (and, under a hypervisor, guests)."""

    def __init__(self) -> None:
        self._moments: list[tuple[float, float] | None] = []
        self.look()

    def look(self) -> None:
        try:
            cores = psutil.cpu_times(percpu=True)
            own = psutil.Process().cpu_times()
        except (OSError, psutil.Error):  # Android hides both
            self._moments.append(None)
            return
        if hasattr(os, "sched_getaffinity"):
            cores = [cores[k] for k in os.sched_getaffinity(0) if k < len(cores)]
        told = [core._asdict() for core in cores]
        # A guest's time is counted in the user's, too.
        whole = sum(v for t in told for k, v in t.items() if not k.startswith("guest"))
        idle = sum(t["idle"] + t.get("iowait", 0) for t in told)
        self._moments.append((whole, whole - idle - own.user - own.system))

    def percent(self, first: int = 0, last: int = -1) -> float | None:
        """Of all that the usable cores could do between two looks; None where it is not told."""
        before, after = self._moments[first], self._moments[last]
        if not before or not after or after[0] <= before[0]:
            return None
        return round(max(0.0, 100 * (after[1] - before[1]) / (after[0] - before[0])), 1)


@dataclass
class Timed:
    """What `measure` took: `samples` by (threads, picture), a dict of stage to ms each round.

    `at` is when each round ended, s from the first one's start; `state` the (MHz, degrees Celsius)
    then; `others` has looked before the first round and after each. `interrupted`: a key ended it.
    """

    samples: dict[tuple[int, str], list[dict[str, float]]]
    at: list[float] = field(default_factory=list)
    state: list[tuple[float | None, float | None]] = field(default_factory=list)
    others: Watch = field(default_factory=Watch)
    interrupted: bool = False


def measure(
    bundle: Bundle,
    sources: dict[str, bytes | Picture],
    threads: Sequence[int],
    seconds: float | None,
    runs: int | None,
    progress: Callable[[int], None] = lambda done: None,
    roads: Mapping[str, ExecutionConfig] | None = None,
) -> Timed:
    """Time whole analyses.

    All thread counts and pictures take turns, so that heat, frequency and other programs weigh
    on all alike. A thread count holds for the runtime and for OpenCV.

    Parameters
    ----------
    seconds : for all measuring together; at least two rounds are made.
    runs : rounds; given, `seconds` is not looked at.
    progress : called with the number of rounds done.
    roads : as `Analyzer` takes them.

    Ctrl-C ends it; what was measured until then is returned, where that is two rounds or more.
    """
    analyzers = {count: Analyzer(bundle, threads=count, executions=roads) for count in threads}
    taken = Timed({(count, name): [] for count in threads for name in sources})
    before = cv2.getNumThreads()
    first = next(iter(sources))
    try:
        for count, analyzer in analyzers.items():
            cv2.setNumThreads(count)
            for _ in range(WARMUP):
                for source in sources.values():
                    analyzer.analyze(source)
        taken.others = Watch()
        start = time.perf_counter()
        stop = start + (seconds or 0)
        done = 0
        while done < runs if runs else done < 2 or time.perf_counter() < stop:
            turn = {}
            for step in range(len(threads)):
                count = threads[(step + done) % len(threads)]
                cv2.setNumThreads(count)
                # OpenCV builds its threads anew after a change; that is not what users wait for.
                analyzers[count].analyze(sources[first])
                for name, source in sources.items():
                    turn[count, name] = analyzers[count].analyze(source).timing_ms
            for case, timing in turn.items():  # whole rounds only: all are measured as often
                taken.samples[case].append(timing)
            taken.at.append(time.perf_counter() - start)
            taken.state.append((_frequency(), power.temperature()))
            taken.others.look()
            done += 1
            progress(done)
    except KeyboardInterrupt:
        if len(taken.at) < 2:
            raise
        taken.interrupted = True
    finally:
        cv2.setNumThreads(before)
    return taken


def summarize(taken: Timed) -> list[dict]:
    """One dict a picture, thread count and stage: runs, and mean, p50, p90, p99, min, max in ms."""
    return [
        _summary(name, count, stage, [timing[stage] for timing in timings])
        for (count, name), timings in taken.samples.items()
        for stage in STAGES
    ]


def distributions(taken: Timed) -> list[dict]:
    """Of each picture and thread count: the quantiles of its time from fastest to slowest, ms."""
    shares = np.linspace(0, 1, QUANTILES + 1)
    return [
        {
            "picture": name,
            "threads": count,
            "quantiles_ms": np.quantile([t["total"] for t in timings], shares).round(4).tolist(),
        }
        for (count, name), timings in taken.samples.items()
    ]


def course(taken: Timed) -> list[dict]:
    """How time, clock frequency and temperature went: the rounds in at most `PERIODS` parts.

    'ratio' is the median time of the part over that of all rounds, mean over the cases: a device
    that throttles climbs above 1.
    """
    totals = np.array([[t["total"] for t in timings] for timings in taken.samples.values()])
    usual = np.median(totals, axis=1, keepdims=True)
    parts = np.array_split(np.arange(len(taken.at)), min(PERIODS, len(taken.at)))
    rows = []
    for part in parts:
        frequency, heat = zip(*(taken.state[k] for k in part), strict=True)
        rows.append(
            {
                "seconds": round(taken.at[part[-1]], 3),
                "ratio": round(float((np.median(totals[:, part], axis=1) / usual[:, 0]).mean()), 4),
                "frequency_mhz": _mean(frequency),
                "temperature_c": _mean(heat),
                "others_percent": taken.others.percent(int(part[0]), int(part[-1]) + 1),
            }
        )
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return round(sum(told) / len(told), 1) if told else None


def _frequency() -> int | None:
    told = psutil.cpu_freq()
    return round(told.current) if told and told.current else None


def _summary(picture: str, threads: int, stage: str, values: list[float]) -> dict:
    p50, p90, p99 = np.percentile(values, (50, 90, 99))
    row = {"mean_ms": np.mean(values), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}
    row |= {"min_ms": min(values), "max_ms": max(values)}
    head = {"picture": picture, "threads": threads, "stage": stage, "runs": len(values)}
    return head | {name: round(float(value), 4) for name, value in row.items()}


# The user's own command; its peak is read inside, where the parent's memory cannot blur it.
_CHILD = """
import sys
from dermedge.cli import main
status = main(sys.argv[1:])
sys.stdout.flush()
try:
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
print("peak", peak, file=sys.stderr)
sys.exit(status)
"""


def cold_start(bundle: Bundle, sources: dict[str, bytes | Picture], times: int) -> list[dict]:
    """Start `dermedge analyze` anew for each picture: seconds to the first result, peak memory.

    Returns one dict a picture: 'seconds' (one a start; the first may still read from disk, the
    others find the files in the system's cache) and 'peak_bytes' (resident, the largest).

    Raises UserError where the command fails.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, source) in enumerate(sources.items()):
            path = Path(folder, f"{number}.img")
            if isinstance(source, Picture):
                source = cv2.imencode(".jpg", source.pixels[..., ::-1])[1].tobytes()
            path.write_bytes(source)
            seconds, peaks = [], []
            for _ in range(times):
                taken, peak = _start(bundle, path)
                seconds.append(round(taken, 4))
                peaks.append(peak)
            rows.append({"picture": name, "seconds": seconds, "peak_bytes": max(peaks)})
    return rows


def _start(bundle: Bundle, image: Path) -> tuple[float, int]:
    command = [sys.executable, "-c", _CHILD, "analyze", str(image), "--bundle", str(bundle.path)]
    if precision := _precision(bundle):  # not what `dermedge tune` may have chosen
        command += ["--precision", precision]
    start = time.perf_counter()
    with subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        line = child.stdout.readline()
        taken = time.perf_counter() - start
        _, errors = child.communicate()
    peak = [text.split()[1] for text in errors.splitlines() if text.startswith("peak ")]
    if child.returncode or not line.startswith("{") or not peak:
        last = errors.strip().splitlines()[-1:] or ["it said nothing"]
        raise UserError(f"the cold start failed: 'dermedge analyze' ended with: {last[0]}")
    return taken, int(peak[0])


def _precision(bundle: Bundle) -> str | None:
    found = {model.precision for model in bundle.manifest.models.values()}
    return found.pop() if len(found) == 1 else None


_LOAD = """
import sys
import numpy, psutil, onnxruntime
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.cli.options import in_precision
from dermedge.image.read import Picture
bundle = in_precision(Bundle.open(sys.argv[1]), sys.argv[2] or None)
blank = Picture(numpy.full((224, 224, 3), 128, numpy.uint8), 224, 224)
before = psutil.Process().memory_info().rss
analyzer = Analyzer(bundle, threads=1)
analyzer.analyze(blank)
print(psutil.Process().memory_info().rss - before)
"""


def networks_bytes(bundle: Bundle) -> int:
    """By how much a process grows that loads the networks and runs each once, on a small picture.

    Raises UserError where that fails.
    """
    command = [sys.executable, "-c", _LOAD, str(bundle.path), _precision(bundle) or ""]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise UserError(f"the memory of the networks was not measured: {last[0]}")
    return int(done.stdout)


def hardware() -> dict:
    """What the figures were taken on; None where the system does not tell."""
    return {
        "machine": _text("/proc/device-tree/model") or platform.machine(),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release().split('-')[0]}",  # no builder's name
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "power_mode": power.power_mode(),
        "frequency_mhz": _frequency(),
        "temperature_c": power.temperature(),
    }


def busy() -> float | None:
    """Share of the usable cores that is in use now, in %; None where the system does not tell."""
    watch = Watch()
    time.sleep(1)
    watch.look()
    return watch.percent()


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text().strip("\0\n ") or None
    except OSError:
        return None


def _cpu_model() -> str | None:
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return platform.processor() or None
