"""What may be written down of an error that nobody foresaw: its type, and where in our code.

A traceback or a message may hold the name of a person's file, and under systemd standard error is
the system's journal. So neither is ever printed.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Sequence

ROOMS = ("dermedge", "edge_app")


def described(error: BaseException) -> str:
    """As 'KeyError at edge_app.session:120': the innermost line of ours, or of whoever raised."""
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    places = [
        (frame.f_globals.get("__name__", "?"), line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    ours = [place for place in places if place[0].partition(".")[0] in ROOMS]
    for module, line in (ours or places)[-1:]:
        name = f"{name} at {module}:{line}"
    cause = error.__cause__
    return f"{name} from {described(cause)}" if cause is not None and cause is not error else name


def line(error: BaseException) -> str:
    return f"unforeseen {described(error)}"


def report(error: BaseException) -> None:
    """One line on standard error. Any thread."""
    if sys.stderr is not None:
        print(f"dermedge: {line(error)}", file=sys.stderr, flush=True)


class Lasting:
    """Says a fault once on standard error, however often it is met, and that it is over."""

    def __init__(self) -> None:
        self._known: list[str] = []

    def say(self, faults: Sequence[str]) -> None:
        """`faults` : all that there are now."""
        before, self._known = self._known, list(dict.fromkeys(faults))
        lines = [fault for fault in self._known if fault not in before]
        lines += [f"over: {fault}" for fault in before if fault not in self._known]
        for line in lines if sys.stderr is not None else ():
            print(f"dermedge: {line}", file=sys.stderr, flush=True)


def _hook(event: threading.ExceptHookArgs | sys.UnraisableHookArgs) -> None:
    if event.exc_value is not None:
        report(event.exc_value)


def keep_quiet() -> None:
    """From now on Python, its libraries and OpenCV print no message or traceback of their own."""
    import cv2

    sys.excepthook = lambda _kind, error, _trace: report(error)
    threading.excepthook = _hook
    sys.unraisablehook = _hook
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # of a stream that takes no line: a traceback with each
    logging.getLogger().addHandler(logging.NullHandler())  # else warnings go to standard error
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
