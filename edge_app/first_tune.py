"""What runs fastest on this device, found once, at the app's first start, beside its screens."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dermedge import UserError, __version__, tune
from dermedge.bundle.bundle import Bundle
from dermedge.files import write_atomic
from dermedge.runtime import host
from dermedge.tune import Result, TuneError
from edge_app import unforeseen
from edge_app.i18n.language import Message
from edge_app.tune_process import LIMIT, Found, Gate, NothingTimed, measure

MOST_ATTEMPTS = 3  # starts of the app, for the same bundle, machine, runtimes and versions
_POLL = 0.1  # s from one look at the analysis to the next
_MOST_BYTES = 64 * 1024  # of the file that counts attempts

Measure = Callable[[Bundle, Gate], Found]


class Stopped(Exception):
    """The app ends."""


class Pauses:
    """Lets the measuring go on while nothing is analysed. See `edge_app.tune_process.Gate`."""

    def __init__(self, idle: Callable[[], bool]):
        self._idle, self._ended = idle, threading.Event()
        self.left = LIMIT  # s of work, at most

    def wait(self, left: float) -> None:
        self.left = left
        self.check()
        while not self._idle():
            if self._ended.wait(_POLL):
                raise Stopped

    def quiet(self) -> bool:
        return self._idle()

    def check(self) -> None:
        if self._ended.is_set():
            raise Stopped

    def end(self) -> None:
        """From now on whoever waits or checks is stopped. Any thread."""
        self._ended.set()


class Attempts:
    """How often the app has begun to tune here, in a file beside the choice; raises OSError."""

    def __init__(self, path: Path, bundle: Bundle):
        self._path = path
        self._key = {
            **tune.machine(),
            "runtimes": tune.runtimes(),
            "dermedge": __version__,
            "bundle_sha256": bundle.sha256,
        }

    def count(self) -> int:
        """0 for another bundle, machine, runtime or version, or where the file is none of these."""
        try:
            with self._path.open("rb") as file:
                content = json.loads(file.read(_MOST_BYTES))
        except (FileNotFoundError, ValueError, RecursionError):
            return 0
        if not isinstance(content, dict) or content.get("key") != self._key:
            return 0
        count = content.get("attempts")
        return count if type(count) is int and count >= 0 else 0

    def add(self) -> None:
        content = {"key": self._key, "attempts": self.count() + 1}
        write_atomic(self._path, json.dumps(content, indent=1) + "\n")

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)


class FirstTune:
    """Tunes in a thread of its own, where nothing is stored yet, and keeps the choice.

    `start`, `message` and `stop` are for one thread, that of the screen.
    """

    def __init__(
        self,
        bundle: Bundle,
        idle: Callable[[], bool],
        use: Callable[[], object],
        log: Callable[..., None] = lambda event, **values: None,
        measure: Measure = measure,
    ):
        """Prepare; nothing runs before `start`.

        Parameters
        ----------
        bundle : with all its graphs.
        idle : whether nothing is analysed now. Any thread.
        use : called when a choice was kept that differs from the bundle's own graphs; analyses
            begin to run so. Called in the thread of the tuning.
        log : as `edge_app.kiosk.Journal.write`.
        """
        self._bundle, self._use, self._log, self._measure = bundle, use, log, measure
        self._pauses = Pauses(idle)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, where no choice is kept and it was not tried too often."""
        # The app's start has said already why a stored choice is of no use.
        if host() == "android" or tune.load_tuned(self._bundle, warn=lambda _line: None):
            return
        self._thread = threading.Thread(target=self._run, name="dermedge-tuning", daemon=True)
        self._thread.start()

    def message(self) -> Message | None:
        """For the screens, while it runs."""
        if self._thread is None or not self._thread.is_alive():
            return None
        return Message.plural(
            "What runs fastest on this device is measured once: {count} second at most",
            "What runs fastest on this device is measured once: {count} seconds at most",
            math.ceil(self._pauses.left),
        )

    def stop(self) -> None:
        """End it; what was not kept by now is measured again at the next start. Twice is once."""
        self._pauses.end()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        start = time.monotonic()
        try:
            values = self._tune()
        except Stopped:
            values = {"result": "stopped"}
        except TuneError as error:
            values = {"result": "unwritable"}
            _print(error)
        except (UserError, OSError) as error:
            values = {"result": "failed"}
            _print(error)
        except Exception as error:
            values = {"result": "failed"}
            unforeseen.report(error)
        self._log("tune", seconds=round(time.monotonic() - start), **values)

    def _tune(self) -> dict[str, str | int]:
        """Measure, keep, use; what the log gets."""
        path = tune.prepare_store(self._bundle)
        attempts = Attempts(path.with_suffix(tune.ATTEMPTS), self._bundle)
        if attempts.count() >= MOST_ATTEMPTS:
            _print(f"tuning has failed at {MOST_ATTEMPTS} starts: run `dermedge tune`")
            return {"result": "gave-up"}
        attempts.add()  # first, for a crash must count
        self._pauses.check()
        found = self._measure(self._bundle, self._pauses)
        meanwhile = tune.load_tuned(self._bundle, warn=lambda _line: None)
        if meanwhile:  # by `dermedge tune`, which measures all
            found = Found(meanwhile, len(meanwhile), 0)
        if not found.timed:
            raise NothingTimed
        if not meanwhile:
            chosen = [Result(*one, chosen=True) for one in found.executions.items()]
            tune.store(self._bundle, chosen)
        attempts.clear()
        if found.untried:
            _print(
                f"of the ways to run the networks {found.untried} were not measured for lack of "
                "time: `dermedge tune` measures all"
            )
        own = {role: tune.executions(self._bundle, role)[0] for role in found.executions}
        if found.executions == own:
            return {"result": "unchanged", "untried": found.untried}
        self._use()
        return {"result": "faster", "untried": found.untried}


def _print(line: object) -> None:
    """For a terminal, or the system's journal."""
    if sys.stderr is not None:
        print(f"dermedge: {line}", file=sys.stderr, flush=True)
