"""The two threads behind the screens: one takes frames, one analyses the newest of them."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle import Bundle
from dermedge.explain import overlay
from dermedge.files import write_atomic
from dermedge.image import ImageError, Picture, read_image, write_png
from edge_app.capture.sources import FAULTS, Frame, Source, SourceError, Watch, turned
from edge_app.capture.steady import Steady
from edge_app.cases.store import Capture as Record
from edge_app.cases.store import Store
from edge_app.look.language import N_, Said

PREVIEW_SIDE = 1280  # px, at most; the live screen asks for what it shows
LOOK_SIDE = 640  # px, of what is analysed live; the networks and the gate see less
LOOK_SECONDS = (
    0.08  # from one live analysis to the next, at least: drawing needs the processor, too
)
FORESEEN = (OSError, ImageError, SourceError, UserError)  # their words are for the screen
RETRY_SECONDS = 1.0  # between attempts to open a source that is gone
# What systems say most often, marked for the catalogues.
SYSTEM = (
    N_("No space left on device"),
    N_("Read-only file system"),
    N_("Permission denied"),
    N_("No such file or directory"),
    N_("Is a directory"),
    N_("Input/output error"),
)


@dataclass(frozen=True, eq=False)
class Capture:
    """A picture that was taken and what was found in it, or the reason why there is none."""

    path: Path | None = None  # where it lies as a file
    analysis: dict | None = None  # as `analysis.schema.json` describes it
    pixels: np.ndarray | None = None  # uint8 (h, w, 3) RGB to show, of what is kept
    error: str = ""  # one line in plain words
    record: Record | None = None  # in the store
    png: bytes = b""  # the whole picture, where it lies nowhere else
    similar: tuple[tuple[str, np.ndarray], ...] = ()  # class and picture of cases of the bundle
    press: int = 0  # which press of the shutter it is of

    @property
    def saved(self) -> bool:
        """Whether it is on disk."""
        return self.path is not None or self.record is not None


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All that the screens show, taken at one moment."""

    frame: Frame | None = None  # the newest
    preview: np.ndarray | None = None  # it, while live: uint8 (h, w, 3) RGB, of `preview_side`
    source: str = ""  # name of the open source
    fault: str = FAULTS["opening"]  # what is wrong with it, in plain words; empty if nothing
    fault_code: str = "opening"  # key of FAULTS, empty where the fault has none
    failure: str = ""  # why the newest frame could not be analysed, likewise
    analysis: dict | None = None  # of the newest frame that was analysed
    judged: Frame | None = None  # the frame that `analysis` is of
    analysed: int = 0  # how many frames were
    steady: float = 0.0  # 0..1; at 1 the picture was good and still for long enough to take it
    busy: bool = False  # a capture is being saved and analysed
    capture: Capture | None = None  # the last one that was finished


class Worker:
    """Runs a source and an analyzer in the background.

    Each method may be called from any thread, and none of them waits, but `stop`. No error ends
    its threads: an unforeseen one goes to standard error and, in plain words, into the snapshot.
    """

    store: Store | None = None  # set when it is unlocked, None again when it is closed
    preview_side = PREVIEW_SIDE  # px; what the screen shows is enough
    turn = 0  # of edge_app.capture.sources.TURNS: degrees by which frames are turned clockwise
    reference: str | None = None  # what lies beside the lesion, of dermedge.scale.REFERENCES
    metadata: Mapping[str, object] | None = None  # of the person, as `Analyzer.analyze` takes it

    def __init__(
        self,
        opener: Callable[[], Source],
        analyzer: Analyzer,
        captures: Path | None,
        log: Callable[..., None] = lambda event, **values: None,
    ):
        """Prepare; nothing runs before `start`.

        Parameters
        ----------
        opener : opens the source; called again after the source was lost.
        analyzer : used by the worker alone.
        captures : folder for pictures that belong to no lesion of the store, made where missing;
            None: those are kept in memory alone, as `Capture.png`.
        log : takes an event and its values, as `edge_app.kiosk.Journal.write` does.
        """
        self._opener = opener
        self._analyzer = analyzer
        self._captures = captures
        self._log = log
        self._told = ""
        self._steady = Steady()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._snapshot = Snapshot()
        self._shutter: tuple[Frame | Path, str] | None = None
        self._presses = 0
        self._analyzing = threading.Lock()
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

    def capture(self, frame: Frame, lesion_id: str = "") -> int:
        """Save and analyse this frame; `snapshot().capture` tells when it is done.

        With a lesion's id it goes to the store, else to the folder of captures, where there is one.
        Returns the number of this press, as `Capture.press` has it; 0 where another is not done.
        """
        return self._press(frame, lesion_id)

    def import_file(self, path: str | Path, lesion_id: str = "") -> int:
        """The same with a picture file: its pixels alone are kept, without its metadata."""
        return self._press(Path(path), lesion_id)

    def _press(self, what: Frame | Path, lesion_id: str) -> int:
        with self._changed:
            if self._snapshot.busy:
                return 0
            self._presses += 1
            self._shutter = (what, lesion_id)
            self._snapshot = replace(self._snapshot, busy=True, capture=None, steady=0.0)
            self._changed.notify_all()
            return self._presses

    @property
    def bundle(self) -> Bundle:
        """The one that analyses."""
        return self._analyzer.bundle

    def risk_map(self, pixels: np.ndarray) -> np.ndarray | None:
        """What in a picture, uint8 (h, w, 3) RGB, speaks for a malignant class, drawn on it.

        None where the bundle's classifier does not tell. It waits for an analysis.
        """
        with self._analyzing:
            picture = Picture(pixels, *pixels.shape[:2])
            return overlay(pixels, self._analyzer.analyze(picture, metadata=self.metadata))

    def live(self, on: bool) -> None:
        """Analyse frames as they come, or rest while no live picture is shown."""
        with self._changed:
            self._live = on
            frame, preview = self._snapshot.frame, None
            if on and frame is not None:  # the next one of a folder is seconds away
                preview = _reduced(frame.pixels, self.preview_side, cv2.INTER_LINEAR)
            fresh = {"analysis": None, "judged": None, "steady": 0.0, "preview": preview}
            self._snapshot = replace(self._snapshot, **fresh)
            self._changed.notify_all()

    def forget(self) -> None:
        """Let go of the last capture: it belongs to a person who has left."""
        self._publish(capture=None)

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
                self._lose(error)
                self._stopping.wait(RETRY_SECONDS)

    def _lose(self, error: Exception) -> None:
        fault, code = words(error), getattr(error, "code", "")
        unforeseen = not isinstance(error, SourceError)
        if unforeseen:
            fault = Said("the source failed: {reason}", reason=fault)
        # A fault that lasts is told once, not with every attempt.
        if fault != self._told:
            self._told = fault
            self._log("source fault", code=code or "other")
            if unforeseen:
                traceback.print_exception(error)
        self._publish(
            frame=None,
            preview=None,
            analysis=None,
            judged=None,
            steady=0.0,
            source="",
            fault=fault,
            fault_code=code,
        )

    def _run(self, source: Source) -> None:
        watch = Watch(source.live)
        self._publish(source=source.name, fault=FAULTS["waiting"], fault_code="waiting")
        due = time.monotonic()
        while not self._stopping.is_set() and not watch.stuck:
            frame = source.read()
            if frame is not None:
                frame = turned(frame, self.turn)
                code = watch.look(frame)
                if code and code != self._snapshot.fault_code:
                    self._log("source fault", code=code)
                self._told = ""
                preview = None
                if self._live:
                    preview = _reduced(frame.pixels, self.preview_side, cv2.INTER_LINEAR)
                self._publish(
                    frame=frame,
                    preview=preview,
                    fault=FAULTS[code] if code else "",
                    fault_code=code,
                )
            due = max(due + source.interval, time.monotonic())
            self._stopping.wait(due - time.monotonic())

    def _analyze(self) -> None:
        _give_way()
        done: Frame | None = None

        def due() -> bool:
            fresh = self._live and self._snapshot.frame not in (None, done)
            return self._shutter is not None or self._stopping.is_set() or fresh

        while True:
            with self._changed:
                self._changed.wait_for(due)
                shutter, self._shutter = self._shutter, None
                newest = self._snapshot.frame
            if shutter is not None:
                self._steady.reset()
                start = time.monotonic()
                capture = replace(self._save(*shutter), press=self._presses)
                spent = round((time.monotonic() - start) * 1000)
                self._log("capture failed" if capture.error else "capture", ms=spent)
                self._publish(busy=False, capture=capture)
            elif self._stopping.is_set():
                return
            else:
                done, start = newest, time.monotonic()
                self._look(newest)
                with self._changed:  # the shutter does not wait
                    self._changed.wait_for(
                        lambda: self._shutter is not None or self._stopping.is_set(),
                        max(0.0, start + LOOK_SECONDS - time.monotonic()),
                    )

    def _look(self, frame: Frame) -> None:
        try:
            small = _reduced(frame.pixels, LOOK_SIDE)
            picture = Picture(small, *frame.pixels.shape[:2])
            with self._analyzing:
                analysis = self._analyzer.analyze(picture, name="live").to_json()
        except Exception as error:
            failure = Said("The analysis failed: {reason}", reason=words(error))
            if failure != self._snapshot.failure:  # told once, not with every frame
                traceback.print_exc()
            self._publish(analysis=None, judged=None, steady=0.0, failure=failure)
            return
        steady = self._steady.look(analysis, small, time.monotonic())
        with self._changed:
            if self._live and self._shutter is None and self._snapshot.frame is not None:
                self._snapshot = replace(
                    self._snapshot,
                    analysis=analysis,
                    judged=frame,
                    steady=steady,
                    analysed=self._snapshot.analysed + 1,
                    failure="",
                )
            self._changed.notify_all()

    def _save(self, what: Frame | Path, lesion_id: str) -> Capture:
        failed = N_("The picture could not be read: {reason}")
        try:
            pixels = (
                what.pixels
                if isinstance(what, Frame)
                else read_image(what, working_side=None).pixels
            )
            failed = N_("The picture could not be saved: {reason}")
            if lesion_id or self._captures is None:
                return self._save_sealed(pixels, lesion_id)
            # For the owner of the device alone: these are pictures of people.
            make_private(self._captures)
            stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
            path = self._captures / f"{stamp}.png"
            write_png(path, pixels, private=True)
            failed = N_("The picture was saved, but not analysed: {reason}")
            # The file is what counts from here on, so the file is what is analysed and shown.
            analysis, shown = self._judge(path, None)
            failed = N_("The picture was saved, but not its analysis: {reason}")
            text = json.dumps(analysis, indent=1) + "\n"
            write_atomic(path.with_suffix(".json"), text, private=True)
            return Capture(path, analysis, **shown)
        except Exception as error:
            if not isinstance(error, FORESEEN):
                traceback.print_exc()
            return Capture(error=Said(failed, reason=words(error)))

    def _save_sealed(self, pixels: np.ndarray, lesion_id: str) -> Capture:
        """Into the store, or, without a lesion, nowhere but into memory."""
        store = self.store
        if lesion_id and store is None:
            raise UserError("the store is locked: unlock it and take the picture again")
        done, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        if not done:
            raise UserError("the picture could not be encoded")
        png = encoded.tobytes()
        analysis, shown = self._judge(png, "capture")
        if not lesion_id:
            return Capture(None, analysis, png=png, **shown)
        scale = (analysis["scale"] or {}).get("px_per_mm")
        size = (pixels.shape[1], pixels.shape[0])
        # Only what is on disk is shown as a result.
        saved = store.add_capture(Record("", lesion_id, "", analysis, size, scale), png)
        return Capture(None, analysis, record=saved, **shown)

    def _judge(self, source: Path | bytes, name: str | None) -> tuple[dict, dict]:
        """The analysis of a capture, and what the screen shows beside it."""
        picture = read_image(source)
        with self._analyzing:
            found = self._analyzer.analyze(
                picture, name or str(source), metadata=self.metadata, reference=self.reference
            )
        shown = {"pixels": _reduced(picture.pixels, PREVIEW_SIDE)}
        cases = self._analyzer.cases
        if found.triage != "retake" and cases is not None and cases.thumbnails:
            near = [(case.label, cases.picture(case.id)) for case in found.similar]
            shown["similar"] = tuple(near)
        return found.to_json(), shown


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner alone (0700)."""
    for level in (*reversed(folder.parents), folder):
        level.mkdir(mode=0o700, exist_ok=True)


def _give_way() -> None:
    """Let the screen and the camera go before this thread; on Linux a priority is a thread's."""
    if sys.platform.startswith("linux"):
        thread = threading.get_native_id()
        # A little only: a capture is analysed here, too, and somebody waits for it.
        nice = min(19, os.getpriority(os.PRIO_PROCESS, thread) + 2)
        os.setpriority(os.PRIO_PROCESS, thread, nice)


def _reduced(pixels: np.ndarray, side: int, how: int = cv2.INTER_AREA) -> np.ndarray:
    """Contiguous pixels whose long side is at most `side`."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(pixels)
    if scale < 0.5:
        how = cv2.INTER_AREA  # else it flickers
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=how)


def words(error: BaseException) -> Said:
    """An error as one line for the screen, to be translated there."""
    if isinstance(error, OSError) and error.strerror:
        reason = Said(error.strerror)
        name = error.filename
        return Said("{reason} ({path})", reason=reason, path=name) if name else reason
    # What a library says when it breaks down is for the log: it would not help at the screen.
    if not isinstance(error, FORESEEN):
        kind = type(error)
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        return Said(name)
    if error.args and isinstance(error.args[0], Said):
        return error.args[0]
    line = " ".join(str(error).split())
    return Said(line)
