"""How long a picture takes to become a decision, and what it costs in memory."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import psutil

from benchmarks import PROCEDURAL
from benchmarks.speed import power, scenarios
from dermedge import DISCLAIMER, UserError, __version__
from dermedge.analyzer import Analyzer
from dermedge.bundle import Bundle
from dermedge.image import ImageError, Picture, read_image
from dermedge.preprocess import prepare
from dermedge.procedural import draw
from dermedge.race import race, ratio
from dermedge.runtime import Road

SCHEMA = "dermedge bench 2"
STAGES = ("decode", "prepare", "segmenter", "classifier", "lesion", "quality", "total")
QUICK_SECONDS = 10.0
WARMUP = 3  # analyses a picture and thread count that are run first and not counted
COLD_STARTS = 3
BUSY_PERCENT = 20.0
REPEATABLE = 0.05  # p90 of both halves of the rounds may differ so much and still be quoted
FEW = 100  # rounds; with fewer p99 is the slowest run, and both halves are too short to compare
QUANTILES = 50
PERIODS = 60  # of the course over time
ENERGY_SECONDS = 10.0
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
        chosen[str(path)] = path.read_bytes()
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


@dataclass
class Timed:
    """What `measure` took: `samples` by (threads, picture), a dict of stage to ms each round.

    `at` is when each round ended, s from the first one's start; `state` the (MHz, degrees Celsius)
    then. `interrupted`: a key ended it early.
    """

    samples: dict[tuple[int, str], list[dict[str, float]]]
    at: list[float] = field(default_factory=list)
    state: list[tuple[float | None, float | None]] = field(default_factory=list)
    interrupted: bool = False


def measure(
    bundle: Bundle,
    sources: dict[str, bytes | Picture],
    threads: Sequence[int],
    seconds: float | None,
    runs: int | None,
    progress: Callable[[int], None] = lambda done: None,
    roads: Mapping[str, Road] | None = None,
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
    analyzers = {count: Analyzer(bundle, threads=count, roads=roads) for count in threads}
    taken = Timed({(count, name): [] for count in threads for name in sources})
    before = cv2.getNumThreads()
    first = next(iter(sources))
    try:
        for count, analyzer in analyzers.items():
            cv2.setNumThreads(count)
            for _ in range(WARMUP):
                for source in sources.values():
                    analyzer.analyze(source)
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
            }
        )
    return rows


def unsteady(taken: Timed) -> float:
    """How far the p90 of both halves of the rounds lie apart, as a share; the worst case."""
    worst = 0.0
    for timings in taken.samples.values():
        totals = [timing["total"] for timing in timings]
        middle = len(totals) // 2
        early, late = (np.percentile(half, 90) for half in (totals[:middle], totals[middle:]))
        worst = max(worst, abs(early - late) / min(early, late))
    return float(worst)


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
    precisions = {model.precision for model in bundle.manifest.models.values()}
    if len(precisions) == 1:  # not what `dermedge tune` may have chosen
        command += ["--precision", *precisions]
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


def hardware() -> dict:
    """What the figures were taken on; None where the system does not tell."""
    return {
        "machine": _text("/proc/device-tree/model") or platform.machine(),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "power_mode": power.power_mode(),
        "frequency_mhz": _frequency(),
        "temperature_c": power.temperature(),
        "load_average": [round(value, 2) for value in psutil.getloadavg()],
        "busy_percent": psutil.cpu_percent(interval=0.5),
    }


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


def benchmark(
    bundle: Bundle,
    images: Sequence[Path],
    threads: Sequence[int],
    seconds: float | None,
    runs: int | None,
    command: str,
    progress: Callable[[str, int], None] = lambda what, done: None,
    mlperf: bool = False,
    rest: float = 0.0,
    roads: Mapping[str, Road] | None = None,
) -> dict:
    """Measure all that `bench.schema.json` describes, but for the accuracy.

    Parameters
    ----------
    progress : called with what is measured, and how many rounds of it were.
    mlperf : also MLPerf's scenarios, a minute and more each.
    rest : s to wait first, so that a hot device cools down.

    Ctrl-C leaves out what comes after it: 'interrupted' then names what is missing.
    """
    import onnxruntime

    if rest:
        progress("resting", 0)
        time.sleep(rest)
    machine = hardware()
    warnings = []
    if machine["busy_percent"] > BUSY_PERCENT:
        warnings.append(
            f"the machine was busy before the measurement began ({machine['busy_percent']:.0f} % "
            "of all cores): figures are too high and unsteady"
        )
    if machine["governor"] not in (None, "performance"):
        warnings.append(
            f"the CPU governor is '{machine['governor']}': the clock frequency may vary"
        )
    quick = seconds is None and runs is None and not mlperf
    sources = pictures(images)
    length = QUICK_SECONDS if seconds is None else seconds
    timed = measure(bundle, sources, threads, length, runs, lambda n: progress("timing", n), roads)
    rounds = len(timed.at)
    if rounds < FEW:
        warnings.append(f"{rounds} runs each: p99 is close to the slowest run")
    elif (apart := unsteady(timed)) > REPEATABLE:
        warnings.append(
            f"not to be quoted: p90 of the first and the second half of the runs differ by "
            f"{100 * apart:.0f} %, at most {100 * REPEATABLE:.0f} % is allowed; measure again on a "
            "quiet machine"
        )
    parts: dict[str, object] = {"scenarios": None, "energy": None, "cold_start": []}
    missing = "the rest of the rounds" if timed.interrupted else ""
    for name, work in (
        ("cold_start", lambda: cold_start(bundle, sources, COLD_STARTS)),
        ("energy", lambda: _energy(bundle, sources, threads, roads)),
        ("scenarios", lambda: _scenarios(bundle, sources, threads, roads, progress)),
    ):
        if name == "scenarios" and not mlperf:
            continue
        try:
            if not missing:
                progress(name.replace("_", " "), 0)
                parts[name] = work()
            else:
                missing += f", {name.replace('_', ' ')}"
        except KeyboardInterrupt:
            missing = name.replace("_", " ")
    if missing:
        warnings.append(f"interrupted: not measured is {missing}")
    manifest = bundle.manifest
    return {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "quick": quick,
        "interrupted": missing or None,
        "warnings": warnings,
        "bundle": {
            "name": manifest.name,
            "sha256": bundle.sha256,
            "bytes": bundle.path.stat().st_size,
            "licence": manifest.licence,
            "procedural": manifest.procedural,
            "models": [
                {
                    "role": role,
                    "architecture": model.architecture,
                    "precision": model.precision,
                    "parameters": model.parameters,
                    "input_px": model.preprocessing.size,
                    "bytes": len(bundle.model(role)),
                    "sha256": manifest.parts[model.part]["sha256"],
                }
                for role, model in manifest.models.items()
            ],
        },
        "hardware": machine,
        "versions": {
            "dermedge": __version__,
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        },
        "settings": {
            "threads": list(threads),
            "warmup": WARMUP,
            "runs": rounds,
            "rest_seconds": rest,
            "roads": {role: str(road) for role, road in (roads or {}).items()},
            "clock": "time.perf_counter",
            "order": "thread counts and pictures take turns in every round",
        },
        "latency": summarize(timed),
        "distribution": distributions(timed),
        "course": course(timed),
        **parts,
        "comparison": None,
        "evaluation": None,
        "robustness": None,
    }


def _scenarios(bundle, sources, threads, roads, progress) -> list[dict]:
    """MLPerf's scenarios for each network alone and for whole analyses."""
    rows, said = [], scenarios.generator()

    def add(what: str, scenario: str, count: int, figures: dict) -> None:
        head = {"what": what, "scenario": scenario, "threads": count, "generator": said}
        rows.append(head | {"p90_ms": None, "early_stopping_p90_ms": None} | figures)

    def ways(count: int) -> dict[str, tuple[scenarios.Run, int]]:
        analyzer = Analyzer(bundle, threads=count, roads=roads)
        found = {
            name: (lambda _, source=source: analyzer.analyze(source), 1)
            for name, source in sources.items()
        }
        squares = {}
        for role, network in analyzer.networks().items():
            spec = network.model.preprocessing
            squares[role] = [prepare(draw(k, size=(360, 480)).image, spec)[0] for k in range(8)]
            found[f"{role} alone"] = (
                lambda k, network=network, role=role: network.run(squares[role][k]),
                8,
            )
        return found

    before = cv2.getNumThreads()
    try:
        for count in threads:
            cv2.setNumThreads(count)
            for what, (run, samples) in ways(count).items():
                progress(f"SingleStream, {count} threads, {what}", 0)
                figures = scenarios.single_stream(run, samples)
                add(what, "SingleStream", count, figures | {"samples_per_second": None})
        cv2.setNumThreads(1)
        cores = usable_cores()
        each = [ways(1) for _ in range(cores)]  # one analyzer a core: none is thread-safe
        for what, (_, samples) in each[0].items():
            progress(f"Offline, {what}", 0)
            add(what, "Offline", cores, scenarios.offline([w[what][0] for w in each], samples))
    finally:
        cv2.setNumThreads(before)
    return rows


def _energy(bundle, sources, threads, roads) -> dict | None:
    """Energy of one analysis of the first picture, all threads; None where nothing tells it."""
    meter = power.find()
    if meter is None:
        return None
    analyzer = Analyzer(bundle, threads=max(threads), roads=roads)
    source = next(iter(sources.values()))
    return power.energy(meter, lambda: analyzer.analyze(source), ENERGY_SECONDS)


def against(
    one: Bundle,
    other: Bundle,
    source: bytes | Picture,
    threads: int,
    seconds: float,
    roads: Sequence[Mapping[str, Road] | None] = (None, None),
    progress: Callable[[int], None] = lambda turn: None,
) -> dict:
    """Two bundles in turns on one picture: how many times as fast the first is, with its interval.

    `roads` of each, as `Analyzer` takes them. At least 30 turns.
    """
    analyzers = [
        Analyzer(bundle, threads=threads, roads=way)
        for bundle, way in zip((one, other), roads, strict=True)
    ]
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        ways = {k: lambda _, a=a: a.analyze(source) for k, a in enumerate(analyzers)}
        race(ways, 0, (WARMUP, WARMUP))
        taken = race(ways, seconds, (30, 100_000), progress=progress)
    finally:
        cv2.setNumThreads(before)
    figures = ratio(taken[1], taken[0])
    return {
        "other": {"name": other.manifest.name, "sha256": other.sha256},
        "threads": threads,
        "turns": len(taken[0]),
        "p50_ms": figures["ms"],
        "other_p50_ms": round(float(np.median(taken[1])), 4),
        "ratio": figures["ratio"],
        "low": figures["low"],
        "high": figures["high"],
    }


def to_csv(result: dict) -> str:
    """The latency table of a result of `benchmark`, one line a picture, thread count and stage."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(result["latency"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["latency"])
    return buffer.getvalue()


def table(result: dict) -> str:
    """The result for people, as plain text."""
    names = list(dict.fromkeys(row["picture"] for row in result["latency"]))
    lines = [f"{result['bundle']['name']} on {result['hardware']['cpu']}"]
    if result["bundle"]["procedural"]:
        lines.append(PROCEDURAL)
    lines.append(
        ("quick run, " if result["quick"] else "")
        + f"{result['settings']['runs']} runs each after {WARMUP} uncounted ones"
    )
    for name in names:
        lines += ["", name, f"  {'threads':>7}  {'stage':<12}{'p50':>9}{'p90':>9}{'p99':>9}  ms"]
        for row in result["latency"]:
            if row["picture"] == name:
                lines.append(
                    f"  {row['threads']:>7}  {row['stage']:<12}{row['p50_ms']:>9.2f}"
                    f"{row['p90_ms']:>9.2f}{row['p99_ms']:>9.2f}"
                )
    for row in result["scenarios"] or []:
        speed = (
            f"{row['samples_per_second']:.1f} a second"
            if row["scenario"] == "Offline"
            else f"p90 {row['p90_ms']:.2f} ms (early stopping {row['early_stopping_p90_ms']})"
        )
        lines.append(
            f"{row['scenario']} ({row['generator']}), {row['what']}, threads {row['threads']}: "
            f"{speed}; {row['queries']} queries, {row['seconds']:.0f} s"
            + ("" if row["valid"] else ", NOT VALID by MLPerf's rules")
        )
    lines.append("")
    if found := result["comparison"]:
        lines.append(
            f"{found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f}) times as fast as "
            f"{found['other']['name']} ({found['p50_ms']:.1f} against {found['other_p50_ms']:.1f} "
            f"ms, {found['turns']} turns, threads {found['threads']})"
        )
    spent = result["energy"]
    lines.append(
        f"energy {1000 * spent['joules_per_analysis']:.1f} mJ per analysis ({spent['source']})"
        if spent
        else "energy: not measured (this device does not tell)"
    )
    for row in result["cold_start"]:
        lines.append(
            f"cold start to the first result {sorted(row['seconds'])[len(row['seconds']) // 2]:.2f}"
            f" s, peak memory {row['peak_bytes'] / 1e6:.0f} MB: {row['picture']}"
        )
    size = result["bundle"]
    models = ", ".join(f"{model['role']} {model['bytes'] / 1e6:.2f} MB" for model in size["models"])
    lines.append(f"bundle {size['bytes'] / 1e6:.2f} MB ({models})")
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    return "\n".join(lines)


def to_json(result: dict) -> str:
    return json.dumps(result, indent=1, allow_nan=False) + "\n"
