"""What a fresh process needs: seconds to the first result, and memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import cv2

from dermedge import UserError
from dermedge.bundle.bundle import Bundle
from dermedge.image.read import Picture

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
    if sys.platform == "win32":
        import psutil
        peak = psutil.Process().memory_info().peak_wset
    else:
        import resource
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
print("peak", peak, file=sys.stderr)
sys.exit(status)
"""


def cold_start(
    bundle: Bundle, sources: Mapping[str, bytes | Picture], times: int, tuned: bool
) -> list[dict]:
    """Start `dermedge analyze` for each picture: seconds to the first result, peak memory.

    tuned : as `dermedge tune` has chosen, else as the bundle is, whatever was chosen here.

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
                elapsed, peak = _start(bundle, path, tuned)
                seconds.append(round(elapsed, 4))
                peaks.append(peak)
            rows.append({"picture": name, "seconds": seconds, "peak_bytes": max(peaks)})
    return rows


def _start(bundle: Bundle, image: Path, tuned: bool) -> tuple[float, int]:
    command = [sys.executable, "-c", _CHILD, "analyze", str(image), "--bundle", str(bundle.path)]
    if not tuned:  # which `analyze` would be where nothing is said
        command += ["--provider", "cpu"]
        if precision := _precision(bundle):
            command += ["--precision", precision]
    start = time.perf_counter()
    with subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None  # it is a pipe
        line = child.stdout.readline()
        elapsed = time.perf_counter() - start
        _, errors = child.communicate()
    said = errors.strip().splitlines()
    peak = [text.split()[1] for text in said if text.startswith("peak ")]
    if child.returncode or not line.startswith("{") or not peak:
        last = [text for text in said if not text.startswith("peak ")][-1:] or ["it said nothing"]
        raise UserError(f"the cold start failed: 'dermedge analyze' ended with: {last[0]}")
    return elapsed, int(peak[0])


def _precision(bundle: Bundle) -> str | None:
    precisions = {model.precision for model in bundle.manifest.models.values()}
    return precisions.pop() if len(precisions) == 1 else None


_LOAD = """
import sys
import numpy, psutil, onnxruntime
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.cli.options import in_precision
from dermedge.image.read import Picture
from dermedge.tune import load_tuned
whole, tuned = Bundle.open(sys.argv[1]), sys.argv[2] == "tuned"
executions = load_tuned(whole) if tuned else None
bundle = whole if tuned else in_precision(whole, sys.argv[2] or None)
blank = Picture(numpy.full((224, 224, 3), 128, numpy.uint8), 224, 224)
before = psutil.Process().memory_info().rss
analyzer = Analyzer(bundle, threads=1, executions=executions)
analyzer.analyze(blank)
print(psutil.Process().memory_info().rss - before)
"""


def networks_bytes(bundle: Bundle, tuned: bool) -> int:
    """By how much a process grows that loads the networks and runs each once, on a small picture.

    tuned : as of `cold_start`.

    Raises UserError where that fails.
    """
    how = "tuned" if tuned else _precision(bundle) or ""
    command = [sys.executable, "-c", _LOAD, str(bundle.path), how]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise UserError(f"the memory of the networks was not measured: {last[0]}")
    return int(done.stdout)
