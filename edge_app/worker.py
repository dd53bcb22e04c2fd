"""The two threads behind the screens: one takes frames, one analyses the newest of them."""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.files import write_atomic
from dermedge.image import ImageError, Picture, read_image, write_png
from edge_app.sources import Frame, Source, SourceError, Watch

PREVIEW_SIDE = 1280  # px; more is not seen on a screen and costs the UI thread an upload
FORESEEN = (OSError, ImageError, SourceError, UserError)  # their words are for the screen
RETRY_SECONDS = 1.0  # between attempts to open a source that is gone


@dataclass(frozen=True, eq=False)
class Capture:
    """A picture that lies on disk, or the reason why there is none."""

    path: Path | None
    analysis: dict | None  # as `analysis.schema.json` describes it
    pixels: np.ndarray | None  # uint8 (h, w, 3) RGB to show, read back from `path`
    error: str = ""  # one line in plain words


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All that the screens show, taken at one moment."""

    frame: Frame | None = None  # the newest
    preview: np.ndarray | None = None  # it, uint8 (h, w, 3) RGB, at most PREVIEW_SIDE
    source: str = ""  # name of the open source
    fault: str = "Opening the source."  # what is wrong with it, in plain words; empty if nothing
    failure: str = ""  # why the newest frame could not be analysed, likewise
    analysis: dict | None = None  # of the newest frame that was analysed
    analysed: int = 0  # how many frames were
    busy: bool = False  # a capture is being saved and analysed
    capture: Capture | None = None  # the last one that was finished


class Worker:
    """Runs a source and an analyzer in the background.

    Each method may be called from any thread, and none of them waits, but `stop`. No error ends
    its threads: an unforeseen one goes to standard error and, in plain words, into the snapshot.
    """

    def __init__(self, opener: Callable[[], Source], analyzer: Analyzer, captures: Path):
        """Prepare; nothing runs before `start`.

        Parameters
        ----------
        opener : opens the source; called again after the source was lost.
        analyzer : used by one thread only, the worker's own.
        captures : folder for the pictures, made where it is missing.
        """
        self._opener = opener
        self._analyzer = analyzer
        self._captures = captures
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._snapshot = Snapshot()
        self._shutter: Frame | None = None
        self._live = True
        self._threads = [
            threading.Thread(target=self._take, name="dermedge-frames", daemon=True),
            threading.Thread(target=self._analyze, name="dermedge-analysis", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads and close the source. A capture that was begun is finished first."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def capture(self, frame: Frame) -> None:
        """Save and analyse this frame; `snapshot().capture` tells when it is done."""
        with self._changed:
            if self._snapshot.busy:
                return
            self._shutter = frame
            self._snapshot = replace(self._snapshot, busy=True, capture=None)
            self._changed.notify_all()

    def live(self, on: bool) -> None:
        """Analyse frames as they come, or rest while no live picture is shown."""
        with self._changed:
            self._live = on
            self._changed.notify_all()

    def _publish(self, **changes) -> None:
        with self._changed:
            self._snapshot = replace(self._snapshot, **changes)
            self._changed.notify_all()

    def _take(self) -> None:
        while not self._stopping.is_set():
            try:
                with closing(self._opener()) as source:
                    self._run(source)
            except Exception as error:
                fault = _words(error)
                if not isinstance(error, SourceError):
                    traceback.print_exc()
                    fault = f"the source failed: {fault}"
                fault = f"{fault[:1].upper()}{fault[1:]}."
                self._publish(frame=None, preview=None, analysis=None, source="", fault=fault)
                self._stopping.wait(RETRY_SECONDS)

    def _run(self, source: Source) -> None:
        watch = Watch(source.live)
        self._publish(source=source.name, fault="Waiting for the first picture.")
        due = time.monotonic()
        while not self._stopping.is_set():
            frame = source.read()
            if frame is not None:
                self._publish(frame=frame, preview=_preview(frame.pixels), fault=watch.look(frame))
            due = max(due + source.interval, time.monotonic())
            self._stopping.wait(due - time.monotonic())

    def _analyze(self) -> None:
        done: Frame | None = None

        def due() -> bool:
            fresh = self._live and self._snapshot.frame not in (None, done)
            return self._shutter is not None or self._stopping.is_set() or fresh

        while True:
            with self._changed:
                self._changed.wait_for(due)
                shutter, self._shutter = self._shutter, None
                newest, preview = self._snapshot.frame, self._snapshot.preview
            if shutter is not None:
                self._publish(busy=False, capture=self._save(shutter))
            elif self._stopping.is_set():
                return
            else:
                done = newest
                self._look(newest, preview)

    def _look(self, frame: Frame, preview: np.ndarray) -> None:
        try:
            picture = Picture(preview, *frame.pixels.shape[:2])
            analysis = self._analyzer.analyze(picture, name="live").to_json()
        except Exception as error:
            failure = f"The analysis failed: {_words(error)}."
            if failure != self._snapshot.failure:  # told once, not with every frame
                traceback.print_exc()
            self._publish(analysis=None, failure=failure)
        else:
            analysed = self._snapshot.analysed + 1
            self._publish(analysis=analysis, analysed=analysed, failure="")

    def _save(self, frame: Frame) -> Capture:
        failed = "The picture could not be saved"
        try:
            # For the owner of the device alone: these are pictures of people.
            make_private(self._captures)
            stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
            path = self._captures / f"{stamp}.png"
            write_png(path, frame.pixels, private=True)
            failed = "The picture was saved, but not analysed"
            # The file is what counts from here on, so the file is what is analysed and shown.
            picture = read_image(path)
            analysis = self._analyzer.analyze(path).to_json()
            failed = "The picture was saved, but not its analysis"
            text = json.dumps(analysis, indent=1) + "\n"
            write_atomic(path.with_suffix(".json"), text, private=True)
            return Capture(path, analysis, _preview(picture.pixels))
        except Exception as error:
            if not isinstance(error, FORESEEN):
                traceback.print_exc()
            return Capture(None, None, None, f"{failed}: {_words(error)}.")


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner alone (0700)."""
    for level in (*reversed(folder.parents), folder):
        level.mkdir(mode=0o700, exist_ok=True)


def _preview(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = PREVIEW_SIDE / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(pixels)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    # What a library says when it breaks down is for the log: it would not help at the screen.
    if not isinstance(error, FORESEEN):
        kind = type(error)
        return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return " ".join(str(error).split())
