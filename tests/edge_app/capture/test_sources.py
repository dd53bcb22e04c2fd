"""Sources: one contract for camera, video and folder, and faults told in words."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from dermedge.image.read import read_image, write_png
from edge_app.capture import sources
from edge_app.capture.sources import Frame, SourceError, StreamMonitor, open_source


def _pictures(count: int) -> list[np.ndarray]:
    """Pictures that differ in colour, red strongest: swapped channels would show."""
    return [np.full((48, 64, 3), (200, 90, 20 * i), np.uint8) for i in range(count)]


class FakeCapture:
    """Stands for cv2.VideoCapture on a camera; a frame of None is a failed read."""

    frames: tuple[np.ndarray | None, ...] = ()
    opens = True
    released = 0

    def __init__(self, *_):
        self._left = list(self.frames)

    def isOpened(self):
        return self.opens

    def set(self, *_):
        return True

    def read(self):
        frame = self._left.pop(0) if self._left else None
        return frame is not None, frame

    def release(self):
        type(self).released += 1


@pytest.fixture
def camera(monkeypatch):
    fake = type("Fake", (FakeCapture,), {"released": 0})
    monkeypatch.setattr(sources.cv2, "VideoCapture", fake)
    return fake


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "lesion.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for picture in _pictures(3):
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    for i, picture in enumerate(_pictures(3)):
        write_png(path / f"{i}.png", picture)
    (path / "notes.txt").write_text("not a picture")
    return path


@pytest.fixture
def picture(tmp_path):
    write_png(tmp_path / "lesion.png", _pictures(1)[0])
    return tmp_path / "lesion.png"


@pytest.fixture(params=["camera", "video", "folder", "picture"])
def source(request):
    if request.param == "camera":
        fake = request.getfixturevalue("camera")
        fake.frames = tuple(picture[..., ::-1] for picture in _pictures(7))
        spec = "0"
    else:
        spec = str(request.getfixturevalue(request.param))
    opened = open_source(spec)
    yield opened
    opened.close()


def test_every_source_keeps_the_contract(source):
    frames = [source.read() for _ in range(7)]
    assert [frame.number for frame in frames] == list(range(1, 8))
    for frame in frames:
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.shape == (48, 64, 3)
        red, green, _ = frame.pixels.reshape(-1, 3).mean(0)
        assert abs(red - 200) < 8  # JPEG in the video
        assert abs(green - 90) < 8
    assert source.interval >= 0
    assert source.name


def test_video_and_folder_start_again_at_their_end(video, folder):
    for spec in (video, folder):
        source = open_source(str(spec))
        blues = [source.read().pixels[..., 2].mean() for _ in range(6)]
        source.close()
        assert np.allclose(blues[:3], blues[3:])
        assert blues[1] - blues[0] > 10


def test_video_plays_at_its_own_rate(video):
    source = open_source(str(video))
    source.close()
    assert source.interval == pytest.approx(1 / 25)


def test_a_picture_file_lies_as_analyze_reads_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was held on its side
    photo = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 48, 3)))
    photo.save(tmp_path / "IMG_0001.jpg", exif=exif)
    frame = open_source(str(tmp_path / "IMG_0001.jpg")).read()
    assert frame.pixels.shape == (48, 64, 3)
    whole = read_image(tmp_path / "IMG_0001.jpg", working_side=None)
    assert np.array_equal(frame.pixels, whole.pixels)


def test_folder_passes_over_a_broken_file(folder):
    (folder / "0.png").write_bytes(b"broken")
    source = open_source(str(folder))
    assert [source.read().pixels[0, 0, 2] for _ in range(3)] == [20, 40, 20]


def test_folder_that_cannot_be_read_is_told_in_words(folder, monkeypatch):
    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(type(folder), "iterdir", fail)
    with pytest.raises(SourceError, match="cannot be read: Input/output error"):
        open_source(str(folder))


def test_camera_that_cannot_be_opened(camera):
    camera.opens = False
    with pytest.raises(SourceError, match="camera 0 cannot be opened: is it plugged in"):
        open_source("0")
    assert camera.released == 1


def test_unplugged_camera_is_reported_after_some_missed_reads(camera):
    good = np.zeros((48, 64, 3), np.uint8)
    camera.frames = (good, None, good)
    source = open_source("/dev/video7")
    assert [source.read() is None for _ in range(3)] == [False, True, False]
    missed = [source.read() for _ in range(sources.LOST_AFTER - 1)]
    assert missed == [None] * len(missed)
    with pytest.raises(SourceError, match="stopped delivering pictures"):
        source.read()


def test_pipeline_without_gstreamer_says_so(monkeypatch):
    monkeypatch.setattr(sources.cv2.videoio_registry, "hasBackend", lambda _: False)
    with pytest.raises(SourceError, match="without GStreamer"):
        open_source("nvarguscamerasrc ! videoconvert ! appsink")


@pytest.mark.parametrize(
    "pipeline",
    [
        "nvarguscamerasrc ! nvvidconv ! video/x-raw,format=RGBA{} ! appsink drop=1",
        "v4l2src ! video/x-raw,format=BGR{} !appsink",
        # What else is made of the picture stays as it is: mp4mux does not give what is converted.
        "v4l2src ! tee name=t t. ! queue{} ! appsink t. ! x264enc ! mp4mux ! filesink location=a",
    ],
)
def test_a_pipeline_hands_over_bgr_whatever_its_camera_gives(camera, monkeypatch, pipeline):
    """OpenCV takes RGBA as BGRA, and the planes of NV12 as a gray picture: they were judged so."""
    asked = []
    monkeypatch.setattr(sources.cv2.videoio_registry, "hasBackend", lambda _: True)
    monkeypatch.setattr(camera, "__init__", lambda _, spec, backend: asked.append(spec))
    # OpenCV stops and starts a pipeline for whatever is set, known or not.
    monkeypatch.setattr(camera, "set", lambda *words: asked.append(words))
    open_source(pipeline.format(""))
    assert asked == [pipeline.format(" ! videoconvert ! video/x-raw,format=BGR")]


def test_what_is_no_source_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.avi").write_text("no video")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    for spec, words in {
        "nowhere": "there is no source 'nowhere'",
        str(tmp_path / "text.avi"): "not a video that can be played",
        str(tmp_path / "empty"): "holds no pictures",
        str(tmp_path / "text.png"): "text.png",
    }.items():
        with pytest.raises(SourceError, match=words) as error:
            open_source(spec)
        assert "\n" not in str(error.value)


def test_folder_of_broken_pictures_only(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"broken")
    with pytest.raises(SourceError, match="no picture that can be read"):
        open_source(str(tmp_path)).read()


def test_watch_tells_black_and_frozen_frames_and_their_end():
    noise = np.random.default_rng(0)
    monitor = StreamMonitor(live=True)

    def look(pixels):
        return monitor.inspect(Frame(pixels, 1))

    live = [noise.integers(90, 110, (48, 64, 3), np.uint8) for _ in range(50)]
    assert {look(pixels) for pixels in live} == {""}
    states = [look(live[0]) for _ in range(sources.FROZEN_AFTER + 1)]
    assert states[:-1] == [""] * sources.FROZEN_AFTER
    assert states[-1] == "frozen"
    assert not monitor.stuck
    assert look(live[1]) == ""
    assert look(np.zeros((48, 64, 3), np.uint8)) == "black"


def test_a_still_picture_of_a_folder_is_not_called_frozen():
    monitor, still = StreamMonitor(live=False), np.full((48, 64, 3), 120, np.uint8)
    assert {monitor.inspect(Frame(still, i)) for i in range(sources.FROZEN_AFTER * 2)} == {""}


def test_frames_are_turned_clockwise():
    marked = np.zeros((48, 64, 3), np.uint8)
    marked[0, 0] = 255
    corners = {0: (0, 0), 90: (0, -1), 180: (-1, -1), 270: (-1, 0)}
    assert set(corners) == set(sources.ROTATIONS)
    for turn, corner in corners.items():
        frame = sources.rotated(Frame(marked, 7), turn)
        assert frame.pixels[corner].tolist() == [255, 255, 255]
        assert frame.number == 7


def test_a_registered_camera_is_opened_by_its_prefix(monkeypatch):
    monkeypatch.setattr(sources, "_OPENERS", {})
    assert not sources.is_camera("camerax:back")
    sources.register("camerax", lambda rest: rest)
    assert sources.is_camera("camerax:back")
    assert open_source("camerax:back") == "back"


def test_a_camera_that_waits_without_a_picture_is_lost(camera, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(sources.time, "monotonic", lambda: clock[0])
    source = open_source("0")
    assert source.read() is None
    clock[0] = sources.LOST_SECONDS + 1
    with pytest.raises(SourceError, match="stopped delivering") as error:
        source.read()
    assert error.value.code == "lost"
