"""Where live pictures come from: a camera, a video or picture file or a folder, all alike."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from dermedge import UserError
from dermedge.image.header import ImageError
from dermedge.image.read import EXTENSIONS, read_image
from edge_app.i18n.language import N_, Message, error_message

SECONDS_PER_PICTURE = 3.0  # of a folder
STILL_SECONDS = 0.1  # from one frame of a single picture to the next, which is the same
CAMERA_SIZE = (1280, 720)  # asked for; the camera delivers the nearest that it has
LOST_AFTER = 10  # reads in a row without a picture: the camera is gone
LOST_SECONDS = 5.0  # or so long, where a read waits for the device
FROZEN_AFTER = 45  # equal frames in a row, 1.5 s at 30 fps; a live sensor is never without noise
# So many are no picture of now any more; in dim light some cameras give each frame twice or thrice.
STALE_AFTER = 5


# What can be wrong with a live picture and mends itself when its cause goes; `name` of the source.
FAULTS = {
    "opening": N_("Opening the source."),
    "waiting": N_("Waiting for the first picture."),
    "no_camera": N_("{name} cannot be opened: is it plugged in, and not used by another program?"),
    "lost": N_("{name} stopped delivering pictures: check its cable."),
    "denied": N_("The camera may not be used: allow it for dermedge in the system's settings."),
    "taken": N_("Another program uses the camera: close that program."),
    "disabled": N_("The camera is switched off in the system's settings, or by their manager."),
    "paused": N_("The camera rests while dermedge is not on the screen."),
    "black": N_("The picture is black: take off the lens cap or switch on the light."),
    "frozen": N_("The camera repeats one picture: unplug it and plug it in again."),
}
NO_PICTURE = N_("{path} holds no picture that can be read")


class SourceError(UserError):
    """No pictures from here; one line in plain words. `code`: its key in FAULTS, if it has one."""

    def __init__(self, message: str, code: str = "", **values: object):
        super().__init__(message, code=code, **values)


@dataclass(frozen=True, eq=False)
class Frame:
    pixels: np.ndarray  # uint8 (height, width, 3) RGB
    number: int  # counts up from 1 within a source
    stale: bool = False  # a camera has repeated it: what it shows may be gone


class Source(Protocol):
    """`read` returns the next frame, or None when there is none just now (read again later).

    It raises SourceError when the source is gone. `interval` is the time in seconds that belongs
    between two reads; 0 means that `read` itself waits for the device. `live` tells a camera,
    whose frames must differ, from recorded pictures.
    """

    @property
    def name(self) -> str: ...
    @property
    def interval(self) -> float: ...
    @property
    def live(self) -> bool: ...

    def read(self) -> Frame | None: ...

    def close(self) -> None: ...


# Prefix of a specification: opens what follows it. `register` adds to it.
_OPENERS: dict[str, Callable[[str], Source]] = {}


def register(prefix: str, opener: Callable[[str], Source]) -> None:
    """Let `open_source` open "prefix:rest" by `opener("rest")`, as a camera.

    The seat for cameras that OpenCV does not know, as `edge_app.capture.camera2` is for Android's.
    Raise SourceError where the permission is missing or the camera is taken away; the app says so,
    and calls the opener again every second.
    """
    _OPENERS[prefix] = opener


def open_source(spec: str) -> Source:
    """Open what `spec` names.

    Parameters
    ----------
    spec : a camera number ("0"), a camera device ("/dev/video0"), a GStreamer pipeline (holds
        " ! "; ends in appsink), a video file, a picture file, a folder of pictures, or
        "prefix:rest" of what was registered.

    Raises
    ------
    SourceError : one line that says what is wrong and what to do.
    """
    prefix, _, rest = spec.partition(":")
    if prefix in _OPENERS:
        return _OPENERS[prefix](rest)
    if is_camera(spec):
        return CameraSource(spec)
    path = Path(spec)
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        # As a video it would lie as the camera was held, without its colour profile.
        return PictureSource(path) if path.suffix.lower() in EXTENSIONS else VideoSource(path)
    message = N_(
        "there is no source '{name}': give a camera number, a video or a folder of pictures"
    )
    raise SourceError(Message(message, name=spec))


def is_camera(spec: str) -> bool:
    """Whether `spec` names a device, which may come later."""
    if spec.partition(":")[0] in _OPENERS:
        return True
    return spec.isascii() and (spec.isdigit() or spec.startswith("/dev/") or " ! " in spec)


_OPENCV = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
ROTATIONS = (0, *_OPENCV)  # degrees clockwise


def rotated(frame: Frame, rotation: int) -> Frame:
    """The frame, rotated by one of ROTATIONS: a camera may be mounted on its side or its head."""
    if not rotation:
        return frame
    return replace(frame, pixels=cv2.rotate(frame.pixels, _OPENCV[rotation]))


class CameraSource:
    """A camera, by number, device or GStreamer pipeline (as a Jetson's CSI camera needs)."""

    interval = 0.0
    live = True

    def __init__(self, spec: str):
        self.name = Message("camera") if " ! " in spec else Message("camera {name}", name=spec)
        self._number = self._missed = 0
        self._seen = time.monotonic()
        # OpenCV waits 10 s for a frame of a V4L2 camera before it gives up; read at each opening.
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "3")
        if " ! " in spec:
            if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
                raise SourceError(
                    "this OpenCV is built without GStreamer: use the OpenCV of the system "
                    "(JetPack's on a Jetson) or a camera number"
                )
            self._capture = cv2.VideoCapture(_in_bgr(spec), cv2.CAP_GSTREAMER)
        else:
            self._capture = cv2.VideoCapture(int(spec) if spec.isdigit() else spec)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(Message(FAULTS["no_camera"], name=self.name), "no_camera")
        if " ! " not in spec:
            # Most USB cameras reach this size at 30 fps only as Motion JPEG.
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, CAMERA_SIZE[0])
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, CAMERA_SIZE[1])
            # A queue of old frames would let the picture lag behind the hand.
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def read(self) -> Frame | None:
        ok, bgr = self._capture.read()
        if not ok or bgr is None:
            self._missed += 1
            if self._missed >= LOST_AFTER or time.monotonic() - self._seen > LOST_SECONDS:
                raise SourceError(Message(FAULTS["lost"], name=self.name), "lost")
            return None
        self._missed, self._seen = 0, time.monotonic()
        self._number += 1
        return Frame(_rgb(bgr), self._number)

    def close(self) -> None:
        self._capture.release()


class VideoSource:
    """A video file, at its own frame rate. It starts again at its end."""

    live = False

    def __init__(self, path: Path):
        self.name = Message("video {name}", name=path.name)
        self._path = path
        self._number = 0
        self._capture = cv2.VideoCapture(os.fspath(path))
        if not self._capture.isOpened():
            raise SourceError(Message("{path} is not a video that can be played", path=path))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.interval = 1 / rate if 1 <= rate <= 240 else 1 / 30

    def read(self) -> Frame | None:
        ok, bgr = self._capture.read()
        if not ok:
            # Opening it again works for every container; seeking to the start does not.
            self._capture.release()
            self._capture = cv2.VideoCapture(os.fspath(self._path))
            ok, bgr = self._capture.read()
            if not ok:
                raise SourceError(Message(NO_PICTURE, path=self._path))
        self._number += 1
        return Frame(_rgb(bgr), self._number)

    def close(self) -> None:
        self._capture.release()


class PictureSource:
    """One picture file, as if a camera that does not move saw it."""

    interval = STILL_SECONDS
    live = False

    def __init__(self, path: Path):
        self.name = Message("picture {name}", name=path.name)
        self._number = 0
        try:
            self._pixels = read_image(path, working_side=None).pixels
        except (ImageError, OSError) as error:
            raise SourceError(error_message(error)) from None

    def read(self) -> Frame | None:
        self._number += 1
        return Frame(self._pixels, self._number)

    def close(self) -> None:
        pass


class FolderSource:
    """The pictures of a folder in the order of their names, each for three seconds, again and
    again. A file that cannot be read is passed over."""

    interval = SECONDS_PER_PICTURE
    live = False

    def __init__(self, folder: Path):
        self.name = Message("folder {name}", name=folder.name)
        self._folder = folder
        try:
            self._paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS)
        except OSError as error:
            reason = Message(error.strerror or str(error))
            message = Message("{path} cannot be read: {reason}", path=folder, reason=reason)
            raise SourceError(message) from None
        self._next = self._number = 0
        if not self._paths:
            raise SourceError(
                Message("{path} holds no pictures (JPEG, PNG, WebP, TIFF, BMP, HEIC)", path=folder)
            )

    def read(self) -> Frame | None:
        for _ in self._paths:
            path = self._paths[self._next]
            self._next = (self._next + 1) % len(self._paths)
            try:
                pixels = read_image(path, working_side=None).pixels
            except (ImageError, OSError):
                continue
            self._number += 1
            return Frame(pixels, self._number)
        raise SourceError(Message(NO_PICTURE, path=self._folder))

    def close(self) -> None:
        pass


class StreamMonitor:
    """Notices frames that tell nothing: black ones, and a camera that repeats one frame."""

    def __init__(self, live: bool):
        self._live = live
        self._last: np.ndarray | None = None
        self._equal = 0
        self.moved = False  # the last frame is another than the one before it

    def inspect(self, frame: Frame) -> str:
        """What is wrong with the stream after this frame, a key of FAULTS; empty if nothing is."""
        sample = frame.pixels[::8, ::8]
        same = self._last is not None and np.array_equal(sample, self._last)
        self._equal = self._equal + 1 if same else 0
        self.moved = self._last is not None and not same
        self._last = sample.copy()
        # The 99th percentile: a few hot pixels do not make a picture.
        if np.percentile(sample, 99) < 16:
            return "black"
        return "frozen" if self._live and self._equal >= FROZEN_AFTER else ""

    @property
    def stale(self) -> bool:
        """Whether the last frame may not be of now any more, long before that is surely a fault."""
        return self._live and self._equal >= STALE_AFTER

    @property
    def stuck(self) -> bool:
        """The camera has been frozen for so long that only opening it again may help."""
        return self._live and self._equal >= 10 * FROZEN_AFTER


def _in_bgr(pipeline: str) -> str:
    """The pipeline with BGR for its appsink. OpenCV takes other layouts of colour, too, and does
    not say which it was: red and blue would change places."""
    return re.sub(r"!(?=\s*appsink\b)", "! videoconvert ! video/x-raw,format=BGR !", pipeline)


def _rgb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)


def film(
    photo: Path, path: Path, seconds: float = 4.0, size: tuple[int, int] = (1280, 720)
) -> None:
    """Write a video, 30 fps, of what a camera held by hand sees of a photograph.

    Raises ImageError, and UserError where no video can be written.
    """
    pixels = read_image(photo).pixels
    width, height = size
    scale = 1.06 * max(width / pixels.shape[1], height / pixels.shape[0])
    large = cv2.resize(pixels[..., ::-1], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, size)
    if not writer.isOpened():
        raise UserError(f"no video can be written to {path}")
    middle = np.array([large.shape[1] - width, large.shape[0] - height]) / 2
    for number in range(round(seconds * 30)):
        angle = 2 * np.pi * number / (seconds * 30)
        sway = np.array([np.cos(angle), np.sin(2 * angle)]) * np.minimum(middle, 12)
        corner = tuple(float(v) for v in middle + sway + np.array(size) / 2 - 0.5)
        writer.write(cv2.getRectSubPix(large, size, corner))
    writer.release()
