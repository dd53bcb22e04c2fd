"""`dermedge tune` in a process of its own, beside the app, in the pauses of its analysis.

A runtime that crashes or hangs takes no app with it, and neither waits for the other's Python. The
process asks before each piece of work and waits for the answer, so that the app decides when it
goes on. It writes no file.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from dermedge import UserError

if TYPE_CHECKING:
    from dermedge.bundle.bundle import Bundle
    from dermedge.runtime import ExecutionConfig
    from dermedge.tune import Result

LIMIT = 50.0  # s that the process plans with, from its start; pauses do not count
MOST = 60.0  # s after which it is ended
SECONDS = 20.0  # for timing each network, at most; as `dermedge tune` has it
PROGRAM = ("-m", "edge_app.tune_process")
_POLL = 0.2  # s until a stop is heard
_STARTED = time.perf_counter()


class NothingTimed(UserError):
    """The time was over before anything was timed."""

    def __init__(self) -> None:
        super().__init__(
            "there was no time to measure what runs fastest: run `dermedge tune`",
            code="tune-no-time",
        )


@dataclass(frozen=True)
class Found:
    """What the process chose."""

    executions: dict[str, ExecutionConfig]  # of each role
    timed: int  # executions that were timed
    untried: int  # those that there was no time for


class Gate(Protocol):
    """Who decides when the process may go on; the thread that measures calls it."""

    def wait(self, left: float) -> None:
        """Return when nothing is analysed; raise to end. `left` : s of work, at most."""

    def quiet(self) -> bool:
        """Whether nothing is analysed now."""

    def check(self) -> None:
        """Raise to end."""


def measure(
    bundle: Bundle, gate: Gate, most: float = MOST, program: tuple[str, ...] = PROGRAM
) -> Found:
    """Find what runs `bundle` fastest, within `most` s; pauses of the gate do not count.

    `program` : Python's arguments, before the bundle's path and SHA-256.

    Raises UserError where the process fails, dies or takes longer; what the gate raises.
    """
    words = [str(Path(bundle.path).resolve()), bundle.sha256]
    with subprocess.Popen(
        [sys.executable, *program, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        cwd=Path(__file__).resolve().parents[1],  # the first place where it looks for modules
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    ) as child:
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=_read, args=(child, lines), daemon=True)
        reader.start()
        try:
            return _converse(child, lines, gate, most)
        finally:
            child.kill()
            reader.join()


def _read(child: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    """Every line that the process prints; "" at its end."""
    output: IO[str] = child.stdout  # type: ignore[assignment]
    for line in output:
        lines.put(line)
    lines.put("")


def _converse(
    child: subprocess.Popen[str], lines: queue.Queue[str], gate: Gate, most: float
) -> Found:
    from dermedge.runtime import ExecutionConfig

    left = most
    while True:
        start = time.monotonic()
        line = _next(lines, gate, left)
        left -= time.monotonic() - start
        if not line:
            raise UserError(
                "the process that measured what runs fastest died (status {status})",
                code="tune-died",
                status=child.wait(),
            )
        kind, values = _parsed(line)
        if kind == "wait":
            start = time.monotonic()
            gate.wait(float(values["left"]))
            _reply(child, str(time.monotonic() - start))
        elif kind == "quiet":
            _reply(child, "yes" if gate.quiet() else "no")
        elif kind == "error":
            raise UserError(str(values["line"]))
        elif kind == "found":
            executions = {r: ExecutionConfig(**one) for r, one in values["executions"].items()}
            return Found(executions, values["timed"], values["untried"])


def _next(lines: queue.Queue[str], gate: Gate, left: float) -> str:
    end = time.monotonic() + left
    while True:
        gate.check()
        with contextlib.suppress(queue.Empty):
            return lines.get(timeout=max(0.0, min(_POLL, end - time.monotonic())))
        if time.monotonic() >= end:
            raise UserError(
                "measuring what runs fastest took longer than {seconds} s: a runtime hangs",
                code="tune-hangs",
                seconds=round(MOST),
            )


def _parsed(line: str) -> tuple[str, dict[str, Any]]:
    """Kind and values of a message; "" for what a library printed."""
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    return (str(content.get("kind")), content) if isinstance(content, dict) else ("", {})


def _reply(child: subprocess.Popen[str], word: str) -> None:
    with contextlib.suppress(OSError):  # it died: reading tells
        child.stdin.write(word + "\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]


class Link:
    """The process's own side: a clock that stands still while the app has it wait."""

    def __init__(
        self, read: Callable[[], str], write: Callable[[str], None], clock: Callable[[], float]
    ):
        self._read, self._write, self._clock = read, write, clock
        self._waited = 0.0

    def clock(self) -> float:
        """Seconds without those that the app had it wait, as the app's own limit counts them."""
        return self._clock() - self._waited

    def tell(self, kind: str, **values: object) -> None:
        self._write(json.dumps({"kind": kind, **values}))

    def ask(self, kind: str, **values: object) -> str:
        """The answer; ends the process where the app is gone."""
        self.tell(kind, **values)
        reply = self._read()
        if not reply:
            raise SystemExit(1)
        return reply.strip()

    def wait(self, left: float) -> None:
        """Until nothing is analysed. `left` : s of work, at most."""
        self._waited += float(self.ask("wait", left=left))


def tune_linked(link: Link, path: str, sha256: str, started: float) -> None:
    """Tune the bundle at `path`, and tell what was found. `started` : by the link's clock.

    Raises UserError.
    """
    from dermedge import tune
    from dermedge.bundle.bundle import Bundle

    bundle = Bundle.open(path)
    if bundle.sha256 != sha256:
        raise UserError(
            "{path} is another file than at the start: start the app again",
            code="bundle-replaced",
            path=path,
        )
    end = started + LIMIT

    def wait(_work: str) -> None:
        link.wait(max(0.0, end - link.clock()))

    results = tune.tune(
        bundle,
        SECONDS,
        clock=link.clock,
        progress=wait,
        limit=max(0.0, end - link.clock()),
        quiet=lambda: link.ask("quiet") == "yes",
    )
    link.tell("found", **_summary(results))


def _summary(results: list[Result]) -> dict[str, object]:
    from dermedge.tune import NO_TIME

    return {
        "executions": {one.role: asdict(one.execution) for one in results if one.chosen},
        "timed": sum(one.ms is not None for one in results),
        "untried": sum(one.reason == NO_TIME for one in results),
    }


def main(path: str, sha256: str) -> int:
    """The process; its exit status."""
    import os

    from edge_app import unforeseen

    if hasattr(os, "nice"):
        os.nice(2)  # the screen and the camera go before it, as they do before the analysis
    # What a native library prints, as bytes or without an end of line, is no part of a message.
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    link = Link(
        sys.stdin.readline, lambda line: print(line, file=messages, flush=True), time.perf_counter
    )
    try:
        tune_linked(link, path, sha256, _STARTED)
    except BrokenPipeError:  # the app is gone
        return 1
    except UserError as error:
        link.tell("error", line=str(error))
        return 1
    except Exception as error:
        link.tell("error", line=f"unforeseen {unforeseen.described(error)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
