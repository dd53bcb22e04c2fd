"""What the screen's thread and the worker hand each other: a shot, its result, the newest state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from dermedge.analysis import Analysis
from dermedge.explain import overlay
from edge_app.capture.sources import FAULTS, Frame


@dataclass(frozen=True, eq=False)
class Shot:
    """One release of the shutter: all that its result rests upon, as it was at that moment."""

    source: Frame | Path  # a picture file: of it the pixels alone are kept, without its metadata
    id: int = 0  # tells it from other shots
    visit: int = 0  # that it belongs to, see `Worker.begin_visit`
    lesion_id: str = ""  # of the store; empty: it belongs to no lesion yet
    metadata: Mapping[str, object] = field(default_factory=dict)  # as `Analyzer.analyze` takes it
    reference: str | None = None  # what lies beside the lesion, of dermedge.lesion.scale.REFERENCES
    taken: str | None = None  # when a file was, ISO 8601, UTC; empty: unknown; None: it is a frame

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))


@dataclass(frozen=True, eq=False)
class Result:
    """What became of a shot: its picture and analysis, or one line that says why there is none."""

    # As `analysis.schema.json` describes it; empty where there is an error.
    analysis: Mapping[str, Any] = field(default_factory=dict)
    pixels: np.ndarray | None = None  # uint8 (h, w, 3) RGB to show
    error: str = ""  # one line in plain words
    png: bytes = b""  # the whole picture, until it lies on disk
    path: Path | None = None  # of its file, where there is one
    record_id: str = ""  # in the store, once it is there
    similar: tuple[tuple[str, np.ndarray], ...] = ()  # class and picture of cases of the bundle
    explained: Explained | None = None  # what a risk map of it is drawn from
    shot_id: int = 0
    visit: int = 0
    lesion_id: str = ""
    taken: str | None = None

    @property
    def saved(self) -> bool:
        """Whether it is on disk."""
        return self.path is not None or bool(self.record_id)


@dataclass(frozen=True, eq=False)
class Explained:
    """An analysis with all that it looked at, to draw what led to it."""

    pixels: np.ndarray  # uint8 (h, w, 3) RGB to draw upon
    analysis: Analysis  # of the picture of `shape`
    shape: tuple[int, int]  # (height, width) px that were analysed

    def risk_map(self) -> np.ndarray | None:
        """What speaks for a malignant class, drawn on the pixels: uint8 (h, w, 3) RGB.

        None where the bundle's classifier does not tell. Any thread.
        """
        return overlay(self.pixels, self.analysis, self.shape)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All that the screens show, taken at one moment."""

    frame: Frame | None = None  # the newest
    preview: np.ndarray | None = None  # it, while live: uint8 (h, w, 3) RGB, of `preview_side`
    source: str = ""  # name of the open source
    fault: str = FAULTS["opening"]  # what is wrong with it, in plain words; empty if nothing
    fault_code: str = "opening"  # key of FAULTS, empty where the fault has none
    failure: str = ""  # why the newest frame could not be analysed, likewise
    analysis: dict[str, Any] | None = None  # of the newest frame that was analysed
    analysed_frame: Frame | None = None  # the frame that `analysis` is of
    analysed: int = 0  # how many frames were
    steady: float = 0.0  # 0..1; at 1 the picture was good and still for long enough to take it
    busy: bool = False  # a shot is being analysed
    result: Result | None = None  # of the last shot, until the next one or the end of the visit

    @property
    def offered(self) -> Frame | None:
        """What is taken or read: nothing while the camera repeats what was there before."""
        return None if self.frame is None or self.frame.stale else self.frame
