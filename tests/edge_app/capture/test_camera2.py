"""Android's camera, its Python side: planes to RGB, permission, a camera taken away, the pause."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermedge.data.synthetic import draw
from edge_app.capture import camera2, sources
from edge_app.capture.camera2 import Camera2Source, Cameras, rgb
from edge_app.capture.sources import FAULTS, SourceError, open_source
from edge_app.capture.worker import Worker


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return draw(3, "phone", (96, 128), label="mel", artefacts=()).image


def planes(pixels: np.ndarray) -> list[np.ndarray]:
    """Y, U, V by the formulas of JFIF 1.02, colour as the mean of four pixels."""
    r, g, b = np.moveaxis(pixels.astype(np.float64), 2, 0)
    light = 0.299 * r + 0.587 * g + 0.114 * b
    both = [
        128 - 0.168736 * r - 0.331264 * g + 0.5 * b,
        128 + 0.5 * r - 0.418688 * g - 0.081312 * b,
    ]
    height, width = light.shape
    for i, plane in enumerate(both):
        padded = np.pad(plane, ((0, height % 2), (0, width % 2)), "edge")
        both[i] = padded.reshape((height + 1) // 2, 2, (width + 1) // 2, 2).mean((1, 3))
    return [np.clip(np.rint(plane), 0, 255).astype(np.uint8) for plane in (light, *both)]


def packed(
    pixels: np.ndarray, padding: int = 0, step: int = 1, degrees: int = 0
) -> tuple[bytes, list[int]]:
    """As a phone hands it out: rows padded, and U and V in turns (`step` 2) or apart.

    The last row has no padding, as on real devices.
    """
    light, *colour = planes(pixels)
    height, width = light.shape
    rows = [width + padding] + 2 * [step * colour[0].shape[1] + padding]
    content, layout = b"", [width, height, degrees]
    for plane, row, pixel in zip((light, *colour), rows, (1, step, step), strict=True):
        block = np.full((plane.shape[0], row), 77, np.uint8)
        block[:, : pixel * plane.shape[1] : pixel] = plane
        last = (plane.shape[0] - 1) * row + (plane.shape[1] - 1) * pixel + 1
        layout += [len(content), row, pixel]
        content += block.tobytes()[:last]
    return content, layout


@dataclass
class FakePicture:
    bytes_: bytes
    numbers: list[int]

    def data(self) -> bytes:
        return self.bytes_

    def layout(self) -> list[int]:
        return self.numbers


@dataclass
class FakeCamera:
    pictures: list[FakePicture] = field(default_factory=list)
    word: str = ""
    closed: int = 0

    def fault(self) -> str:
        return self.word

    def take(self) -> FakePicture | None:
        return self.pictures.pop(0) if self.pictures else None

    def close(self) -> None:
        self.closed += 1


def source(camera: FakeCamera, paused=lambda: False) -> Camera2Source:
    return Camera2Source(camera, paused)


# --- pixels


def test_colours_are_those_of_the_formula():
    """Of plain colours, where nothing is lost with the colour of four pixels in one."""
    for colour in ((200, 150, 130), (90, 50, 40), (0, 0, 0), (255, 255, 255), (30, 60, 200)):
        pixels = np.full((16, 24, 3), colour, np.uint8)
        found = rgb(*packed(pixels))
        assert np.abs(found.astype(int) - pixels).max() <= 2, colour


def test_the_range_is_full_not_that_of_video(picture):
    """OpenCV's own conversion of I420 takes 16 to 235 for black to white: it would be wrong."""
    data, layout = packed(picture)
    found = rgb(data, layout).astype(int)
    video = np.frombuffer(data, np.uint8).reshape(-1, picture.shape[1])
    wrong = cv2.cvtColor(video, cv2.COLOR_YUV2RGB_I420).astype(int)
    assert np.abs(found - picture).mean() < 1.5
    assert np.abs(wrong - picture).mean() > 5


def test_it_is_what_a_decoder_of_jpeg_makes_of_the_same_samples(picture):
    """Of a smooth picture, so that JPEG's own losses stay small."""
    smooth = cv2.GaussianBlur(picture, (0, 0), 3)
    options = [cv2.IMWRITE_JPEG_QUALITY, 100]
    _, file = cv2.imencode(".jpg", smooth[..., ::-1], options)
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    difference = np.abs(rgb(*packed(smooth)).astype(int) - decoded)
    assert difference.mean() < 1
    assert np.percentile(difference, 99) <= 3


@given(
    width=st.integers(1, 33),
    height=st.integers(1, 33),
    padding=st.integers(0, 40),
    step=st.sampled_from([1, 2]),
)
def test_however_the_planes_lie_the_picture_is_the_same(width, height, padding, step):
    rng = np.random.default_rng(width * 100 + height)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = rgb(*packed(pixels, padding, step))
    assert found.shape == (height, width, 3)
    assert np.array_equal(found, rgb(*packed(pixels)))


@given(st.binary(max_size=64), st.lists(st.integers(-5, 70), max_size=14))
def test_a_layout_that_does_not_fit_is_a_fault_not_a_crash(data, layout):
    with contextlib.suppress(SourceError):
        assert rgb(data, layout).shape == (layout[1], layout[0], 3)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_the_frame_stands_upright(picture, degrees):
    sensor = np.rot90(picture, degrees // 90)  # lies so that turning it clockwise mends it
    data, layout = packed(np.ascontiguousarray(sensor), 16, 2, degrees)
    frame = source(FakeCamera([FakePicture(data, layout)])).read()
    assert frame.pixels.shape == picture.shape
    assert np.abs(frame.pixels.astype(int) - picture).mean() < 1.5


# --- the contract of a source, and what goes wrong


def test_each_picture_is_one_frame(picture):
    camera = FakeCamera([FakePicture(*packed(picture)) for _ in range(2)])
    opened = source(camera)
    assert [opened.read().number, opened.read().number, opened.read()] == [1, 2, None]
    assert opened.live
    opened.close()
    assert camera.closed == 1


@pytest.mark.parametrize(
    ("word", "code", "told"),
    [
        ("none", "no_camera", "cannot be opened"),
        ("denied", "denied", "allow it for dermedge"),
        ("taken", "taken", "Another program uses the camera"),
        ("disabled", "disabled", "switched off"),
        ("lost", "lost", "stopped delivering"),
        ("a word of a later version", "lost", "stopped delivering"),
    ],
)
def test_what_the_camera_says_is_told_in_words(picture, word, code, told):
    camera = FakeCamera([FakePicture(*packed(picture))], word)
    with pytest.raises(SourceError, match=told) as caught:
        source(camera).read()  # a picture from before the fault is not shown
    assert caught.value.code == code


def test_a_camera_that_falls_silent_is_lost(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(camera2.time, "monotonic", lambda: now[0])
    opened = source(FakeCamera())
    now[0] = sources.LOST_SECONDS
    assert opened.read() is None
    now[0] += 0.1
    with pytest.raises(SourceError, match="stopped delivering"):
        opened.read()


class Phone:
    """The system: what the person allows, what was asked, the cameras that were opened."""

    def __init__(self, *content: np.ndarray):
        self.granted, self.asked = True, 0
        self.opened: list[FakeCamera] = []
        self._content = content
        self.cameras = Cameras(self._make, lambda: self.granted, self._ask)

    def _make(self, width: int, height: int) -> FakeCamera:
        assert (width, height) == sources.CAMERA_SIZE
        self.opened.append(FakeCamera([FakePicture(*packed(each)) for each in self._content]))
        return self.opened[-1]

    def _ask(self) -> None:
        self.asked += 1


def test_a_refused_permission_is_asked_for_once_and_told(picture):
    phone = Phone(picture)
    phone.granted = False
    for _ in range(3):
        with pytest.raises(SourceError, match="allow it") as caught:
            phone.cameras.open("")
        assert caught.value.code == "denied"
    assert (phone.asked, phone.opened) == (1, [])
    phone.granted = True
    assert phone.cameras.open("").read() is not None


def test_after_a_visit_to_the_settings_it_may_ask_again():
    phone = Phone()
    phone.granted = False
    for _ in range(2):
        with pytest.raises(SourceError):
            phone.cameras.open("")
        phone.cameras.pause()
        phone.cameras.resume()
    assert phone.asked == 2


def test_a_pause_takes_the_camera_away_and_opens_none(picture):
    phone = Phone(picture, picture)
    opened = phone.cameras.open("")
    assert opened.read() is not None
    phone.cameras.pause()
    for call in (opened.read, lambda: phone.cameras.open("")):
        with pytest.raises(SourceError, match="rests") as caught:
            call()
        assert caught.value.code == "paused"
    phone.cameras.resume()
    assert phone.cameras.open("").read() is not None
    assert len(phone.opened) == 2


def test_the_worker_closes_it_at_a_pause_and_goes_on_afterwards(picture, monkeypatch):
    """The real worker: no camera is held while the app is not on the screen."""
    monkeypatch.setattr("edge_app.capture.worker.RETRY_SECONDS", 0.01)
    monkeypatch.setattr(sources, "_OPENERS", {})
    phone = Phone(*[picture] * 2)
    sources.register(camera2.PREFIX, phone.cameras.open)
    worker = Worker(lambda: open_source("camera2:back"), None, None)
    worker.live(False)  # nothing is analysed here
    worker.start()
    try:
        assert worker.wait_for(lambda seen: seen.frame is not None, 30)
        phone.cameras.pause()
        assert worker.wait_for(lambda seen: seen.fault_code == "paused", 30)
        assert worker.snapshot().frame is None
        assert [camera.closed for camera in phone.opened] == [1]
        phone.cameras.resume()
        assert worker.wait_for(lambda seen: seen.frame is not None, 30)
        phone.opened[-1].word = "taken"
        assert worker.wait_for(lambda seen: seen.fault_code == "taken", 30)
    finally:
        assert worker.stop() == []
    assert all(camera.closed == 1 for camera in phone.opened)


def test_every_word_of_the_camera_has_a_sentence():
    assert set(camera2._CODES.values()) <= set(FAULTS)
