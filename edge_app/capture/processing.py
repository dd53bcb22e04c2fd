"""From a shot to its result: the picture is kept or encoded first, then analysed as it was kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dermedge import UserError
from dermedge.analysis import Analysis
from dermedge.analyzer import Analyzer
from dermedge.files import write_atomic
from dermedge.image.read import Picture, read_image, write_png
from edge_app import unforeseen
from edge_app.browser import make_private
from edge_app.capture.shots import Explained, Result, Shot
from edge_app.capture.sources import Frame
from edge_app.i18n.language import N_, Message, error_message

PREVIEW_SIDE = 1280  # px, at most; the live screen asks for what it shows
LIVE_SIDE = 640  # px, of what is analysed live; the networks and the quality check see less
FORESEEN = (OSError, UserError)  # their messages are for the screen


class ShotFailed(Exception):
    """A shot came to nothing: `message` has a place for the reason, which is the cause."""

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message


class Processor:
    """Analyses pictures, one at a time, with an analyzer that nobody else uses.

    Each method may be called from any thread, and waits for an analysis that is at work.
    """

    def __init__(self, analyzer: Analyzer, captures: Path | None):
        """`captures` : folder for pictures that belong to no lesion of the store, made where
        missing; None: those are kept in memory alone, as `Result.png`.
        """
        self.analyzer = analyzer
        self._captures = captures
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a picture is analysed at this moment."""
        return self._lock.locked()

    def use(self, analyzer: Analyzer) -> None:
        """Analyse with another one from now on, of the same bundle."""
        with self._lock:
            self.analyzer = analyzer

    def live(self, frame: Frame) -> tuple[dict[str, Any], np.ndarray]:
        """The analysis of a live frame, and what was analysed: uint8 (h, w, 3) RGB."""
        small = reduced(frame.pixels, LIVE_SIDE)
        picture = Picture(small, *frame.pixels.shape[:2])
        with self._lock:
            return self.analyzer.analyze(picture, name="live").to_json(), small

    def explain(
        self, source: bytes, metadata: Mapping[str, object], reference: str | None
    ) -> Explained:
        """Analyse an encoded picture once more, as it was, to explain what came of it."""
        picture = read_image(source)
        with self._lock:
            analysis = self.analyzer.analyze(
                picture, name="capture", metadata=metadata, reference=reference
            )
        return Explained(reduced(picture.pixels, PREVIEW_SIDE), analysis, _shape(picture))

    def process(self, shot: Shot, over: Callable[[Shot], bool]) -> Result:
        """What comes of a shot.

        A shot of no lesion goes to the folder of captures first, where there is one: the file is
        there even if its analysis fails. Nothing is kept where the shot's visit is `over`.
        """
        try:
            found = self._process(shot, over)
        except ShotFailed as failed:
            error = failed.__cause__ or failed
            if not isinstance(error, FORESEEN):
                unforeseen.report(error)
            found = Result(error=Message(failed.message, reason=error_message(error)))
        return replace(
            found, shot_id=shot.id, visit=shot.visit, lesion_id=shot.lesion_id, taken=shot.taken
        )

    def _process(self, shot: Shot, over: Callable[[Shot], bool]) -> Result:
        with _failing(N_("The picture could not be read: {reason}")):
            pixels = (
                shot.source.pixels
                if isinstance(shot.source, Frame)
                else read_image(shot.source, working_side=None).pixels
            )
            if over(shot):
                raise UserError("the screen was cleared meanwhile", code="visit_over")
        if shot.lesion_id or self._captures is None:
            with _failing(N_("The picture was not kept, for its analysis failed: {reason}")):
                png = _encoded(pixels)
                return replace(self._analyzed(png, "capture", shot), png=png)
        with _failing(N_("The picture could not be saved: {reason}")):
            # For the owner of the device alone: these are pictures of people.
            make_private(self._captures)
            stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
            path = self._captures / f"{stamp}.png"
            write_png(path, pixels, private=True)
        with _failing(N_("The picture was saved, but not analysed: {reason}")):
            # The file is what counts from here on, so the file is what is analysed and shown.
            found = self._analyzed(path, str(path), shot)
        with _failing(N_("The picture was saved, but not its analysis: {reason}")):
            text = json.dumps(found.analysis, indent=1) + "\n"
            write_atomic(path.with_suffix(".json"), text, private=True)
        return replace(found, path=path)

    def _analyzed(self, source: Path | bytes, name: str, shot: Shot) -> Result:
        """The analysis, and what the screen shows beside it."""
        picture = read_image(source)
        with self._lock:
            analysis = self.analyzer.analyze(
                picture, name, metadata=shot.metadata, reference=shot.reference
            )
        pixels = reduced(picture.pixels, PREVIEW_SIDE)
        return Result(
            analysis=analysis.to_json(),
            pixels=pixels,
            similar=self._similar(analysis),
            explained=Explained(pixels, analysis, _shape(picture)),
        )

    def _similar(self, analysis: Analysis) -> tuple[tuple[str, np.ndarray], ...]:
        cases = self.analyzer.cases
        if analysis.triage == "retake" or cases is None:
            return ()
        pictures = ((case.label, cases.picture(case.id)) for case in analysis.similar)
        return tuple((label, pixels) for label, pixels in pictures if pixels is not None)


@contextmanager
def _failing(message: str) -> Iterator[None]:
    """What fails within fails the shot, with this message."""
    try:
        yield
    except Exception as error:
        raise ShotFailed(message) from error


def _encoded(pixels: np.ndarray) -> bytes:
    done, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not done:
        raise UserError("the picture could not be encoded", code="encoding")
    return encoded.tobytes()


def _shape(picture: Picture) -> tuple[int, int]:
    height, width = picture.pixels.shape[:2]
    return height, width


def reduced(pixels: np.ndarray, side: int, how: int = cv2.INTER_AREA) -> np.ndarray:
    """Contiguous pixels whose long side is at most `side`."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(pixels)
    if scale < 0.5:
        how = cv2.INTER_AREA  # else it flickers
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=how)
