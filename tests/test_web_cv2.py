"""The page's `cv2` beside opencv-python: the calls that analyses make, with the same arrays."""

from __future__ import annotations

import copy
import pickle
import subprocess
from collections import Counter

import cv2
import numpy as np
import pytest

from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import open_bundle
from dermedge.data.synthetic import draw
from dermedge.image.preprocess import Preprocessing, prepare
from dermedge.image.read import Picture
from dermedge.lesion import scale
from edge_app.web import build
from tests import web

EACH = 14  # calls of a function that are played again
# What differs in the last bits: how WebAssembly and x86 round a sum of floats.
CLOSE = {
    "GaussianBlur": 2e-4,  # of CIELAB and grey values
    "blur": 1e-4,
    "remap": 1e-3,
    "warpAffine": 2e-3,
    "cvtColor": 2e-4,
    "mean": 1e-7,
    "norm": 1e-9,
    "resize": 2e-6,
    "distanceTransform": 1e-5,
    "fitEllipseDirect": 5e-2,
    "findHomography": 1e-6,
    "perspectiveTransform": 1e-6,
    "detectMarkers": 1e-3,
    "HoughCircles": 1e-3,
    "getRotationMatrix2D": 1e-12,
    "scaleAdd": 1e-6,
    "arcLength": 1e-6,
    "contourArea": 1e-9,
    "moments": 1e-9,
    "subtract": 1e-6,
    "add": 1e-6,
}


@pytest.fixture(scope="module")
def calls():
    """Name, arguments and result of the calls that analyses of drawn pictures make."""
    recorded, counts, pictures = [], Counter(), _pictures()

    def record(name, function):
        def recording(*args, **kwargs):
            kept = None
            form = (name, *(a.dtype.char if isinstance(a, np.ndarray) else "" for a in args))
            if counts[form] < EACH:
                counts[form] += 1
                kept = copy.deepcopy((args, kwargs))
            result = function(*args, **kwargs)
            if kept is not None:
                recorded.append((name, *kept, copy.deepcopy(result)))
            return result

        return recording

    class Detector:
        def __init__(self, *args):
            self._detector = detector(*args)

        def detectMarkers(self, image):
            found = self._detector.detectMarkers(image)
            recorded.append(("detectMarkers", (image.copy(),), {}, found[:2]))
            return found

    detector = cv2.aruco.ArucoDetector
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2.aruco, "ArucoDetector", Detector)
        for name in dir(cv2):
            function = getattr(cv2, name)
            if callable(function) and not name.startswith("_") and not isinstance(function, type):
                patch.setattr(cv2, name, record(name, function))
        _analyses(pictures)
    return recorded


def _pictures() -> list[tuple[np.ndarray, str | None]]:
    """Drawn pictures, and the reference for the size that is looked for in each."""
    size = (480, 640)
    coin = draw(5, "phone", size).image.copy()
    cv2.circle(coin, (420, 240), 90, (150, 140, 60), -1, cv2.LINE_AA)
    plain = ((1, "dermoscopy"), (2, "phone"), (3, "phone"))
    return [
        *((draw(seed, style, size).image, None) for seed, style in plain),
        (_card(), "card"),
        (draw(5, "phone", size).image, "ruler"),
        (coin, "coin-1-euro"),
    ]


def _analyses(pictures) -> None:
    analyzer = Analyzer(open_bundle(), threads=1)
    for pixels, reference in pictures:
        analyzer.analyze(Picture(pixels, *pixels.shape[:2]), reference=reference)
    prepare(pictures[1][0], Preprocessing(256, True, hair_removal=True))


def _card() -> np.ndarray:
    """A size card about a spot, as a camera sees it."""
    pixels = draw(4, "phone", (720, 720)).image.copy()
    card = np.full((640, 640, 3), 250, np.uint8)
    for left, top, side in scale.marker_cells():
        x, y, s = (round(10 * v) for v in (left, top, side))
        card[y : y + s + 1, x : x + s + 1] = 5
    hole = np.hypot(*(np.indices((640, 640)) - 320)) < 150
    card[hole] = pixels[40:680, 40:680][hole]
    pixels[40:680, 40:680] = card
    return pixels


@pytest.fixture(scope="module")
def answers(calls, tmp_path_factory):
    """What the page's cv2 says to the same calls, and to some that it must refuse."""
    node, archives, wheel = web.node(), web.archives(), web.numpy_wheel()
    folder = tmp_path_factory.mktemp("cv2")
    packages = web.unpacked(archives, folder)
    extra = [
        ("cvtColor", (np.zeros((4, 4), np.uint8), cv2.COLOR_RGB2GRAY), {}),
        ("constant", ("imdecode",), {}),
        ("constant", ("INTER_AREA",), {}),
    ]
    asked, told = folder / "calls", folder / "results"
    asked.write_bytes(pickle.dumps([call[:3] for call in calls] + extra))
    pyodide = packages / "pyodide-0.27.7" / "package"
    opencv = packages / "techstark-opencv-js-5.0.0-release.1/package/dist/opencv.js"
    files = [pyodide, opencv, wheel, build.PAGE / "opencv_bridge.js", build.PYTHON / "cv2.py"]
    script = [node, web.__file__.replace("web.py", "web_cv2.mjs")]
    done = subprocess.run(
        [*script, *map(str, files), str(asked), str(told)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return pickle.loads(told.read_bytes())


def _worst(name, first, second) -> float:
    """Greatest difference of two results; infinite where they are of another form."""
    if isinstance(first, (tuple, list)):
        if not isinstance(second, (tuple, list)) or len(first) != len(second):
            return np.inf
        return max((_worst(name, a, b) for a, b in zip(first, second, strict=True)), default=0.0)
    if isinstance(first, dict):
        return max(_worst(name, first[key], second[key]) for key in first)
    if first is None or second is None:
        return 0.0 if first is second else np.inf
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or (first.ndim and first.dtype != second.dtype):
        return np.inf
    if not first.size:
        return 0.0
    apart = np.abs(first.astype(np.float64) - second.astype(np.float64))
    return float((apart / np.maximum(1.0, np.abs(first))).max())


def test_same_as_opencv(calls, answers):
    worst = {}
    for (name, _args, _kwargs, expected), actual in zip(calls, answers, strict=False):
        if name == "findContours":
            expected, actual = expected[0], actual[0]
        if name == "findHomography":
            expected, actual = expected[0], actual[0]
        worst[name] = max(worst.get(name, 0.0), _worst(name, expected, actual))
    print({name: value for name, value in sorted(worst.items()) if value})
    assert {name: value for name, value in worst.items() if value > CLOSE.get(name, 0)} == {}


def test_every_function_of_the_core_was_called(calls):
    names = {name for name, *_ in calls}
    assert {"resize", "findContours", "remap", "inpaint", "fitEllipseDirect", "fillPoly"} <= names
    assert {"detectMarkers", "HoughCircles", "Canny", "findHomography", "dilate"} <= names


def test_what_it_does_not_have_is_an_error(answers):
    refused, missing, constant = answers[-3:]
    assert refused[:2] == ("error", "error")
    assert missing[:2] == ("error", "AttributeError")
    assert constant == cv2.INTER_AREA
