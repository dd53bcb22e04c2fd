"""Measures the page in WebKitGTK beside the desktop, as the nearest to Safari that Linux has:
`xvfb-run python -m edge_app.qa.webkit --site DIR PATH...`.

It needs WebKitWebDriver (Debian package webkit2gtk-driver), a screen and `pip install selenium`.
Prints JSON, as `edge_app.qa.web` does; times are of the machine as loaded as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dermedge import DISCLAIMER, __version__
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import open_bundle
from dermedge.cli import call
from dermedge.image.read import find_images
from edge_app.qa.web import SETTLED, STARTED, compare
from edge_app.web.serve import Server

SECONDS = 300  # for whatever the browser is asked


class WebKit:
    """WebKitGTK with the page open. Not thread-safe."""

    def __init__(self, site: Path):
        """Serve the site and start the driver's own browser."""
        from selenium import webdriver
        from selenium.webdriver.webkitgtk.options import Options
        from selenium.webdriver.webkitgtk.service import Service

        driver = shutil.which("WebKitWebDriver")
        if driver is None:
            raise SystemExit("WebKitWebDriver is not installed (Debian package webkit2gtk-driver)")
        os.environ["SE_AVOID_STATS"] = "true"  # Selenium would report that it was used
        self.server = Server(site)
        self.driver = webdriver.WebKitGTK(options=Options(), service=Service(driver))
        self.driver.set_script_timeout(SECONDS)

    def __enter__(self) -> WebKit:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()
        self.server.close()

    def start(self) -> float:
        """Open the page and wait until it is ready; seconds. SystemExit where it fails."""
        begun = time.perf_counter()
        self.driver.get(self.server.address)
        while not self.driver.execute_script(f"return {STARTED} && {SETTLED}"):
            if time.perf_counter() - begun > SECONDS:
                break
            time.sleep(0.2)
        spent = time.perf_counter() - begun
        state = self.driver.execute_script("return JSON.stringify(loading)")
        if json.loads(state)["stage"] != "ready":
            raise SystemExit(f"the page does not start: {state}")
        return spent

    def memory(self) -> dict[str, int]:
        """Resident bytes of the largest of WebKit's processes (Linux)."""
        most = 0
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue
            lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            if lines["Name"].strip().startswith("WebKitWeb") and "VmRSS" in lines:
                most = max(most, 1024 * int(lines["VmRSS"].split()[0]))
        return {"resident": most}

    def analyse(self, path: Path, *, compared: bool = False) -> dict[str, Any]:
        """As `edge_app.qa.web.Visit.analyse`."""
        from selenium.webdriver.common.by import By

        self.driver.execute_script(
            "document.querySelector('#qa') || document.body.append(Object.assign("
            "document.createElement('input'), {type: 'file', id: 'qa'}))"
        )
        self.driver.find_element(By.ID, "qa").send_keys(str(path.resolve()))
        answer = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1], input = document.querySelector('#qa');"
            "ask('analyse', {reference: null, another: false, file: input.files[0],"
            " compared: arguments[0]}).then((x) =>"
            " done(JSON.stringify({analysis: x.analysis, digests: x.digests, ms: x.ms})), (x) =>"
            " done(JSON.stringify({error: x})));",
            compared,
        )
        self.driver.execute_script("document.querySelector('#qa').remove()")
        return json.loads(answer)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edge_app.qa.webkit", description=__doc__)
    parser.add_argument(
        "--site", default="site", help="that `dermedge web build` made (default: site)"
    )
    parser.add_argument("--bundle", default="dermoscopy", help="of the site (default: dermoscopy)")
    parser.add_argument("pictures", nargs="+", help="files or folders")
    args = parser.parse_args()
    load = os.getloadavg()
    with WebKit(Path(args.site)) as visit:
        first = visit.start()
        analyzer = Analyzer(open_bundle(args.bundle), threads=1)
        compared = compare(visit, analyzer, find_images(args.pictures))
        result = {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "dermedge": __version__,
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "browser": visit.driver.execute_script("return navigator.userAgent"),
            "version": visit.driver.capabilities.get("browserVersion"),
            "load_before_and_after": [load, os.getloadavg()],
            "first_visit_from_loopback_s": round(first, 2),
            "beside_the_desktop": compared,
            "disclaimer": DISCLAIMER,
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    sys.exit(call(main))
