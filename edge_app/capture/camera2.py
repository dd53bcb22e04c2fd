"""Android's camera: pictures of the Java class `org.dermedge.Camera`, turned into RGB.

Android gives YUV_420_888 in the range of JPEG files: BT.601, 0 to 255 for light and for colour, one
sample of colour for four pixels, centred among them (the data space JFIF).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import cv2
import numpy as np

from edge_app.capture.sources import (
    CAMERA_SIZE,
    FAULTS,
    LOST_SECONDS,
    ROTATIONS,
    Frame,
    SourceError,
    rotated,
)
from edge_app.i18n.language import Message

PREFIX = "camera2"
# Faults of `org.dermedge.Camera`, as keys of FAULTS.
_CODES = {
    "none": "no_camera",
    "denied": "denied",
    "taken": "taken",
    "disabled": "disabled",
    "lost": "lost",
}


class Picture(Protocol):
    """`org.dermedge.Picture`: the planes, and how they lie."""

    def data(self) -> bytes: ...

    def layout(self) -> Sequence[int]: ...


class Camera(Protocol):
    """`org.dermedge.Camera`, opened; `take` gives each picture once."""

    def fault(self) -> str: ...

    def take(self) -> Picture | None: ...

    def close(self) -> None: ...


class Cameras:
    """Opens the camera, while the app may use it. Any thread.

    An app that is not on the screen may not use a camera: between `pause` and `resume` there is
    none, and a source that was open ends.
    """

    def __init__(
        self,
        make: Callable[[int, int], Camera],
        allowed: Callable[[], bool],
        ask: Callable[[], None],
    ):
        """Open nothing yet.

        Parameters
        ----------
        make : opens a camera of about this width and height in px.
        allowed : whether the person lets the app use it.
        ask : has the system ask the person; called once until `resume`, and not waited for.
        """
        self._make, self._allowed, self._ask = make, allowed, ask
        self._asked = False
        self._paused = threading.Event()

    def pause(self) -> None:
        self._paused.set()

    def resume(self) -> None:
        self._asked = False  # it may have been allowed, or forbidden, in the system's settings
        self._paused.clear()

    def open(self, _rest: str) -> Camera2Source:
        """For `register`. Raises SourceError where there is no camera just now."""
        if self._paused.is_set():
            raise SourceError(FAULTS["paused"], "paused")
        if not self._allowed():
            if not self._asked:
                self._asked = True
                self._ask()
            raise SourceError(FAULTS["denied"], "denied")
        return Camera2Source(self._make(*CAMERA_SIZE), self._paused.is_set)


class Camera2Source:
    """The camera on the back, upright however the device is held."""

    interval = 1 / 60  # s; `read` does not wait for the device
    live = True

    def __init__(self, camera: Camera, paused: Callable[[], bool]):
        self.name = Message("camera")
        self._camera, self._paused = camera, paused
        self._number = 0
        self._seen = time.monotonic()

    def read(self) -> Frame | None:
        if self._paused():
            raise SourceError(FAULTS["paused"], "paused")
        word = self._camera.fault()
        if word:
            code = _CODES.get(word, "lost")
            raise SourceError(Message(FAULTS[code], name=self.name), code)
        picture = self._camera.take()
        if picture is None:
            if time.monotonic() - self._seen > LOST_SECONDS:
                raise SourceError(Message(FAULTS["lost"], name=self.name), "lost")
            return None
        self._seen = time.monotonic()
        self._number += 1
        layout = [int(value) for value in picture.layout()]
        frame = Frame(rgb(_bytes(picture.data()), layout), self._number)
        return rotated(frame, layout[2])

    def close(self) -> None:
        self._camera.close()


def rgb(data: bytes, layout: Sequence[int]) -> np.ndarray:
    """A picture's planes as uint8 (height, width, 3) RGB, not turned.

    Parameters
    ----------
    data : the planes Y, U and V, uint8; rows may be longer than the picture is wide, and samples
        of U and V may stand one after the other or take turns.
    layout : width, height, degrees clockwise (one of ROTATIONS) to upright; then of each plane
        where it begins in `data`, bytes from row to row, and bytes from sample to sample.

    Raises
    ------
    SourceError : where that does not fit together.
    """
    try:
        width, height, degrees, *rest = layout
        if degrees not in ROTATIONS:
            raise ValueError
        small = (height + 1) // 2, (width + 1) // 2
        planes = [
            # numpy refuses what would reach over the end of the data.
            np.ndarray(shape, np.uint8, data, start, (row, step))
            for shape, (start, row, step) in zip(
                ((height, width), small, small), (rest[:3], rest[3:6], rest[6:9]), strict=True
            )
        ]
        if min(*small) < 1 or min(rest) < 0 or len(rest) != 9:
            raise ValueError
    except (ValueError, TypeError):
        raise SourceError(Message(FAULTS["lost"], name=Message("camera")), "lost") from None
    light, blue, red = planes
    # Of an odd side the last sample of colour belongs to one pixel, not two.
    even = 2 * small[1], 2 * small[0]
    red, blue = (
        cv2.resize(np.ascontiguousarray(plane), even, interpolation=cv2.INTER_LINEAR)
        for plane in (red, blue)
    )
    merged = np.dstack([light, red[:height, :width], blue[:height, :width]])
    return cv2.cvtColor(merged, cv2.COLOR_YCrCb2RGB)


def _bytes(array: Any) -> bytes:
    """Of a Java byte[]: pyjnius gives one with `tostring`, which copies it as one block."""
    whole = getattr(array, "tostring", None)
    return bytes(array) if whole is None else whole()
