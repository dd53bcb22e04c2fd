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
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import psutil

from benchmarks import PROCEDURAL
from dermedge import DISCLAIMER, UserError, __version__
from dermedge.analyzer import Analyzer
from dermedge.bundle import Bundle
from dermedge.image import ImageError, Picture, read_image

SCHEMA = "dermedge bench 1"
STAGES = ("decode", "prepare", "segmenter", "classifier", "lesion", "quality", "total")
QUICK_SECONDS = 10.0
WARMUP = 3  # analyses a picture and thread count that are run first and not counted
COLD_STARTS = 3
BUSY_PERCENT = 20.0
FRAME = "camera frame 1280x720"
PHOTO = "JPEG photograph 4032x3024"


def pictures(images: Sequence[Path]) -> dict[str, bytes | Picture]:
    """What is timed: name to a decoded camera frame or to the bytes of a file.

    Without `images`, a procedural 12-megapixel JPEG stands for a phone's photograph.
    Files are held in memory, so that no disk is measured.

    Raises UserError where a file is no picture.
    """
    from dermedge.procedural import draw

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


def measure(
    bundle: Bundle,
    sources: dict[str, bytes | Picture],
    threads: Sequence[int],
    seconds: float | None,
    runs: int | None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[dict]:
    """Time whole analyses.

    All thread counts and pictures take turns, so that heat, frequency and other programs weigh
    on all alike. A thread count holds for the runtime and for OpenCV.

    Parameters
    ----------
    seconds : for all measuring together; at least two rounds are made.
    runs : rounds; given, `seconds` is not looked at.
    progress : called with the number of rounds done.

    Returns
    -------
    One dict a picture, thread count and stage: runs, and mean, p50, p90, p99, min, max in ms.
    """
    analyzers = {count: Analyzer(bundle, threads=count) for count in threads}
    cases = [(count, name) for count in threads for name in sources]
    samples: dict[tuple[int, str], list[dict]] = {case: [] for case in cases}
    before = cv2.getNumThreads()
    first = next(iter(sources))
    try:
        for count, analyzer in analyzers.items():
            cv2.setNumThreads(count)
            for _ in range(WARMUP):
                for source in sources.values():
                    analyzer.analyze(source)
        stop = time.perf_counter() + (seconds or 0)
        done = 0
        while done < runs if runs else done < 2 or time.perf_counter() < stop:
            for step in range(len(threads)):
                count = threads[(step + done) % len(threads)]
                cv2.setNumThreads(count)
                # OpenCV builds its threads anew after a change; that is not what users wait for.
                analyzers[count].analyze(sources[first])
                for name, source in sources.items():
                    samples[count, name].append(analyzers[count].analyze(source).timing_ms)
            done += 1
            progress(done)
    finally:
        cv2.setNumThreads(before)
    return [
        _summary(name, count, stage, [timing[stage] for timing in samples[count, name]])
        for count, name in cases
        for stage in STAGES
    ]


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
    frequency = psutil.cpu_freq()
    return {
        "machine": _text("/proc/device-tree/model") or platform.machine(),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "frequency_mhz": round(frequency.current) if frequency and frequency.current else None,
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
    progress: Callable[[int], None] = lambda done: None,
) -> dict:
    """Measure all that `bench.schema.json` describes, but for the accuracy."""
    import onnxruntime

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
    quick = seconds is None and runs is None
    sources = pictures(images)
    rows = measure(bundle, sources, threads, QUICK_SECONDS if quick else seconds, runs, progress)
    if rows[0]["runs"] < 100:
        warnings.append(f"{rows[0]['runs']} runs each: p99 is close to the slowest run")
    manifest = bundle.manifest
    return {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "quick": quick,
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
            "runs": rows[0]["runs"],
            "clock": "time.perf_counter",
            "order": "thread counts and pictures take turns in every round",
        },
        "latency": rows,
        "cold_start": cold_start(bundle, sources, COLD_STARTS),
        "evaluation": None,
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
    lines.append("")
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
