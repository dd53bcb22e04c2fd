"""Drives Chromium through its DevTools protocol, over a pair of pipes: no driver, no package.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing of Chromium's own goes out, and nothing depends on the machine's graphics.
QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
    *("--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage"),
    *("--password-store=basic", "--hide-scrollbars", "--force-color-profile=srgb"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# Addresses alone: bodies that it kept for us would count as the page's memory, a third larger.
WATCH = {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0}


class BrowserFault(RuntimeError):
    """The page or the browser failed; the message is its own."""


def program() -> str | None:
    """Where Chromium is; None: it is not installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """One browser with one page. Not thread-safe."""

    def __init__(self, *options: str, width: int = 390, height: int = 844):
        """Start it, with an empty profile. BrowserFault where it is not installed."""
        path = program()
        if path is None:
            raise BrowserFault("Chromium is not installed (Debian package chromium)")
        self._folder = tempfile.mkdtemp(prefix="chromium-")
        reader, theirs_out = os.pipe()
        theirs_in, writer = os.pipe()
        # It reads from 3 and writes to 4, which must not be ends of the pipes themselves.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        start = (
            "import os, sys; os.dup2({}, 3); os.dup2({}, 4); os.execv(sys.argv[1], sys.argv[1:])"
        )
        command = [path, *QUIET, *options, f"--user-data-dir={self._folder}"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", start.format(*ends), *command]
            + ["--remote-debugging-pipe", "about:blank"],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self._reader, self._writer, self._rest = reader, writer, b""
        self._numbers = itertools.count(1)
        self.console: list[str] = []
        self.requested: list[str] = []  # addresses that the page and its workers asked for
        targets = self._send("Target.getTargets", None)["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        options_of = {"targetId": page["targetId"], "flatten": True}
        self._session = self._send("Target.attachToTarget", None, **options_of)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.send("Network.enable", **WATCH)
        # Workers of the page, and service workers, which belong to no page.
        attach = {"autoAttach": True, "waitForDebuggerOnStart": False, "flatten": True}
        self.send("Target.setAutoAttach", **attach)
        self._send("Target.setAutoAttach", None, **attach)
        self.resize(width, height)

    def close(self) -> None:
        """End it, and remove its profile."""
        with contextlib.suppress(BrowserFault, OSError):
            self._send("Browser.close", None)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._reader)
        os.close(self._writer)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    # ------------------------------------------------------------------------ protocol

    def send(self, method: str, **values: Any) -> dict[str, Any]:
        """Call a method for the page. Raises BrowserFault."""
        return self._send(method, self._session, **values)

    def _send(self, method: str, session: str | None, **values: Any) -> dict[str, Any]:
        number = self._write({"method": method, "params": values}, session)
        for told in self._messages(300):
            if told.get("id") == number:
                if "error" in told:
                    raise BrowserFault(f"{method}: {told['error']['message']}")
                return told["result"]
        raise BrowserFault(f"{method}: no answer")

    def _write(self, message: dict[str, Any], session: str | None) -> int:
        number = next(self._numbers)
        if session is not None:
            message["sessionId"] = session
        data = json.dumps({"id": number, **message}).encode() + b"\0"
        while data:
            data = data[os.write(self._writer, data) :]
        return number

    def _messages(self, seconds: float) -> Iterator[dict[str, Any]]:
        end = time.monotonic() + seconds
        while True:
            while b"\0" in self._rest:
                line, _, self._rest = self._rest.partition(b"\0")
                message = json.loads(line)
                if "method" in message:
                    self._note(message)
                yield message
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._reader], [], [], left)[0]:
                return
            part = os.read(self._reader, 1 << 20)
            if not part:
                raise BrowserFault("Chromium ended")
            self._rest += part

    def _note(self, message: dict[str, Any]) -> None:
        method, values = message["method"], message.get("params", {})
        if method == "Runtime.consoleAPICalled":
            said = (str(item.get("value", item.get("description"))) for item in values["args"])
            self.console.append(" ".join(said))
        elif method == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Network.requestWillBeSent":
            self.requested.append(values["request"]["url"])
        elif method == "Target.attachedToTarget":
            self._write({"method": "Network.enable", "params": WATCH}, values["sessionId"])
        elif method == "Log.entryAdded":
            self.console.append(values["entry"]["text"])

    # ------------------------------------------------------------------------ the page

    def resize(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2, mobile=True,
        )  # fmt: skip
        self.send("Emulation.setTouchEmulationEnabled", enabled=True)

    def open(self, address: str) -> None:
        """Begin to load a page."""
        self.send("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """What a JavaScript expression comes to, awaited. Raises BrowserFault where it throws."""
        answer = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True,
            userGesture=True,
        )  # fmt: skip
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserFault(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> Any:
        """Until a JavaScript expression is true. BrowserFault where it does not become so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(BrowserFault):  # between two pages
                found = self.run(condition)
                if found:
                    return found
            for _ in self._messages(0.02):
                pass
        raise BrowserFault(f"never: {condition}; {self.console[-3:]}")

    def choose(self, selector: str, path: Path) -> None:
        """Give a file to an input."""
        found = self.send("Runtime.evaluate", expression=f"document.querySelector('{selector}')")
        self.send(
            "DOM.setFileInputFiles",
            files=[str(path)], objectId=found["result"]["objectId"],
        )  # fmt: skip

    def screenshot(self, path: Path) -> None:
        data = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def dark(self, on: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def memory(self) -> dict[str, int]:
        """Resident and proportional bytes of the process that runs the page (Linux)."""
        sizes = []
        for status in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = status.read_bytes().decode(errors="replace")
                if self._folder in words and "--type=renderer" in words:
                    rollup = (status.parent / "smaps_rollup").read_text()
                    found = {
                        line.split(":")[0]: 1024 * int(line.split()[1])
                        for line in rollup.splitlines()
                        if line.startswith(("Rss:", "Pss:"))
                    }
                    sizes.append({"resident": found["Rss"], "proportional": found["Pss"]})
        return max(sizes, key=lambda size: size["resident"])
