"""Measures the page in Chromium beside the desktop: `python -m edge_app.qa.web --site DIR PATH...`.

For each picture: what the networks are given, their probabilities, the advice. Then, with the
server stopped: how long a start takes, each further picture, live hints, memory, the longest block
of the page. Prints JSON, as `benchmarks/results` holds it. Times are of the machine as loaded as it
is; its load is printed, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from dermedge import DISCLAIMER, __version__
from dermedge.analysis import Analysis
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle, open_bundle
from dermedge.cli import call
from dermedge.image.read import find_images
from dermedge.network import Inference, drive
from edge_app.qa.chromium import Chromium
from edge_app.web.serve import Server

STARTS, FURTHER, LIVE_SECONDS = 3, 10, 5
STARTED = "document.readyState === 'complete' && typeof loading !== 'undefined'"
SETTLED = "['ready', 'broken', 'failed', 'full', 'https', 'old'].includes(loading.stage)"


class Page(Protocol):
    """A browser's page, as `compare` uses it."""

    def analyse(self, path: Path, *, compared: bool = False) -> dict[str, Any]: ...

    def memory(self) -> dict[str, int]: ...


class Visit:
    """A browser that has the page open. Not thread-safe."""

    def __init__(self, site: Path, *options: str, camera: Path | None = None):
        """Serve the site and open it; `camera` is a .y4m film for the fake camera."""
        self.server = Server(site)
        self.address = self.server.address
        fake: list[str] = []
        if camera is not None:
            fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
            fake.append(f"--use-file-for-fake-video-capture={camera}")
        self.browser = Chromium(*fake, *options)
        self._served = True

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.browser.close()
        self.stop_server()

    def foreign(self) -> list[str]:
        """What the page, its worker and its service worker asked of anybody but this site."""
        outside = re.compile(r"(https?|wss?|ftp)://")
        asked = filter(outside.match, self.browser.requested)
        return [url for url in asked if not url.startswith(self.address)]

    def stop_server(self) -> None:
        if self._served:
            self.server.close()
            self._served = False

    def start(self) -> float:
        """Open the page and wait until it is ready; seconds. AssertionError where it fails."""
        begun = time.perf_counter()
        self.browser.open(self.address)
        self.browser.wait(f"{STARTED} && {SETTLED}", 180)
        spent = time.perf_counter() - begun
        state = self.browser.run("JSON.stringify(loading)")
        assert json.loads(state)["stage"] == "ready", (state, self.browser.console[-3:])
        return spent

    def memory(self) -> dict[str, int]:
        """As `Chromium.memory`."""
        return self.browser.memory()

    def analyse(self, path: Path, reference: str = "", *, compared: bool = False) -> dict[str, Any]:
        """What the worker says of a picture file: "analysis", "said", "ms".

        "digests", where it is to be `compared`: SHA-256 of what each network was given.
        """
        browser = self.browser
        browser.run(
            "document.querySelector('#qa') || document.body.append(Object.assign("
            "document.createElement('input'), {type: 'file', id: 'qa', hidden: true})); 1"
        )
        browser.choose("#qa", path)
        wanted = json.dumps(
            {"reference": reference or None, "another": False, "compared": compared}
        )
        answer = browser.run(
            f"ask('analyse', {{...{wanted}, file: document.querySelector('#qa').files[0]}})"
            ".then((x) => JSON.stringify({analysis: x.analysis, said: x.said, ms: x.ms,"
            " digests: x.digests}), (x) => JSON.stringify({error: x}))"
        )
        return json.loads(answer)


def desktop(analyzer: Analyzer, path: Path) -> tuple[Analysis, list[str]]:
    """The desktop's analysis, and the SHA-256 of what each network was given."""
    digests: list[str] = []

    def run(inference: Inference) -> dict[str, np.ndarray]:
        digests.extend(hashlib.sha256(v.tobytes()).hexdigest() for v in inference.feeds.values())
        return inference.run()

    return drive(analyzer.steps(path, name="picture"), run), digests


def compare(visit: Page, analyzer: Analyzer, paths: Sequence[Path]) -> dict[str, Any]:
    """Figures over pictures that both read: how far the page is from the desktop."""
    off: dict[bool, list[float]] = {True: [], False: []}  # by whether the inputs are equal
    advice = 0
    memory: list[float] = []  # MB
    refused, wrong, unequal = [], [], []
    for path in paths:
        expected, digests = desktop(analyzer, path)
        found = visit.analyse(path, compared=True)
        memory.append(visit.memory()["resident"] / 1e6)
        if "error" in found:
            refused.append(f"{path.name}: {found['error']}")
            continue
        analysis = found["analysis"]
        equal = found["digests"] == digests
        if not equal:
            unequal.append(path.name)
        stated = expected.probabilities
        apart = max(abs(stated[name] - analysis["probabilities"][name]) for name in stated)
        off[equal].append(apart)
        if analysis["triage"] == expected.triage:
            advice += 1
        else:
            wrong.append(path.name)
    return {
        "pictures": len(paths),
        "compared": len(off[True]) + len(off[False]),
        "refused_in_the_browser": refused,
        # A JPEG of 2048 px or more is halved while it is decoded, which not every browser can.
        "network_inputs_not_equal": unequal,
        "greatest_difference_of_a_probability": {
            "inputs equal": max(off[True], default=None),
            "inputs not equal": max(off[False], default=None),
        },
        "same_advice": advice,
        "other_advice": wrong,
        "memory_after_a_picture_mb": _figures(memory),
        "memory_after_each_of_the_last_mb": [round(value) for value in memory[-20:]],
    }


def write_film(path: Path, pixels: np.ndarray, frames: int = 4) -> None:
    """A YUV4MPEG2 film of uint8 (h, w, 3) RGB at 1280x720, for Chromium's fake camera."""
    picture = cv2.resize(pixels, (1280, 720), interpolation=cv2.INTER_AREA)
    frame = b"FRAME\n" + cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420).tobytes()
    path.write_bytes(b"YUV4MPEG2 W1280 H720 F30:1 Ip A1:1 C420jpeg\n" + frame * frames)


def measure(visit: Visit, path: Path) -> dict[str, Any]:
    """Times and memory with the server stopped, on a page that was visited before."""
    browser = visit.browser
    visit.stop_server()
    starts, firsts, further = [], [], []
    for _ in range(STARTS):
        browser.open("about:blank")
        begun = time.perf_counter()
        starts.append(visit.start())
        visit.analyse(path)
        firsts.append(time.perf_counter() - begun)
        further += [visit.analyse(path)["ms"] / 1000 for _ in range(FURTHER)]
    memory = browser.memory()
    browser.run(
        "self.blocks = [0]; new PerformanceObserver((list) => list.getEntries().forEach((x) =>"
        " self.blocks.push(x.duration))).observe({type: 'longtask'}); newSpot(); 1"
    )
    browser.run("openLive()")
    browser.wait("state.live && state.live.looks > 0", 30)
    first = browser.run("state.live.looks")
    begun = time.perf_counter()
    browser.run(f"new Promise((done) => setTimeout(done, {1000 * LIVE_SECONDS}))")
    looks = (browser.run("state.live.looks") - first) / (time.perf_counter() - begun)
    longest = browser.run("Math.max(...self.blocks)")
    live_memory = browser.memory()
    browser.run("closeLive()")
    return {
        "offline_start_to_ready_s": _figures(starts),
        "offline_start_to_first_result_s": _figures(firsts),
        "further_picture_s": _figures(further),
        "steps_of_the_start_ms": browser.run("state.marks"),
        "memory_bytes": memory,
        "memory_bytes_with_camera": live_memory,
        "live_hints_a_second": round(looks, 2),
        # The browser reports no block of the page below 50 ms.
        "longest_block_ms": longest or "below 50",
    }


def _figures(values: Sequence[float]) -> dict[str, Any]:
    return {
        "least": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "most": round(max(values), 3),
        "count": len(values),
    }


def _sizes(site: Path) -> dict[str, Any]:
    sizes = {path.name: path.stat().st_size for path in (site / "files").iterdir()}
    sizes["unpack.js"] = (site / "unpack.js").stat().st_size
    return {"first_visit_bytes": sum(sizes.values()), "files": len(sizes)}


def evaluate(site: Path, bundle: Bundle, paths: Sequence[Path]) -> dict[str, Any]:
    """All figures, for a site that was built of this bundle."""
    analyzer = Analyzer(bundle, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder, "camera.y4m")
        from dermedge.image.read import read_image

        write_film(film, read_image(paths[0]).pixels)
        load = os.getloadavg()
        with Visit(site, camera=film) as visit:
            first = visit.start()
            compared = compare(visit, analyzer, paths)
            measured = measure(visit, paths[0])
            return {
                "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "dermedge": __version__,
                "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
                "browser": visit.browser.run("navigator.userAgent"),
                "load_before_and_after": [load, os.getloadavg()],
                "site": _sizes(site),
                "first_visit_from_loopback_s": round(first, 2),
                "beside_the_desktop": compared,
                **measured,
                "requests_to_other_machines": visit.foreign(),
                "disclaimer": DISCLAIMER,
            }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edge_app.qa.web", description=__doc__)
    parser.add_argument(
        "--site", default="site", help="that `dermedge web build` made (default: site)"
    )
    parser.add_argument("--bundle", default="dermoscopy", help="of the site (default: dermoscopy)")
    parser.add_argument(
        "--count", type=int, default=200, help="pictures, evenly chosen (default: 200)"
    )
    parser.add_argument("pictures", nargs="+", help="files or folders")
    args = parser.parse_args()
    paths = find_images(args.pictures)
    step = max(1, len(paths) // args.count)
    chosen = paths[::step][: args.count]
    print(json.dumps(evaluate(Path(args.site), open_bundle(args.bundle), chosen), indent=1))


if __name__ == "__main__":
    sys.exit(call(main))
