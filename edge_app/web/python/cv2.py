"""`cv2`, as much of it as `dermedge` calls, over OpenCV.js: for Pyodide alone.

Each function takes and gives what opencv-python's takes and gives; `tests/test_web_cv2.py` runs
them side by side. What numpy says exactly as OpenCV does is left to numpy. Anything else that
OpenCV has raises AttributeError.
"""

from __future__ import annotations

import numpy as np
from js import cvBridge as _bridge


class error(Exception):
    """What OpenCV refused, in its own words."""


__version__ = _bridge.version
CC_STAT_AREA = 4
_DEPTHS = ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64")
_sizes = np.zeros(4 * 256, np.int32)
_numbers = np.zeros(32, np.float64)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _prepare() -> None:
    _bridge.prepare(_address(_sizes), len(_sizes), _address(_numbers))


_prepare()


def __getattr__(name: str):
    value = _bridge.constant(name) if name.isupper() or "_" in name else None
    if value is None:
        raise AttributeError(f"module 'cv2' has no attribute {name!r} in the browser")
    globals()[name] = value
    return value


# ---------------------------------------------------------------------------- crossing


class _Value:
    """An argument that is no array: its letter in the bridge's form, and its numbers."""

    def __init__(self, letter: str, *numbers: float):
        self.letter, self.numbers = letter, numbers


class _InOut:
    """An array that OpenCV draws on; contiguous."""

    def __init__(self, array: np.ndarray):
        self.array = array


_OUT, _VECTOR = _Value("o"), _Value("V")


def _size(pair) -> _Value:
    return _Value("z", int(pair[0]), int(pair[1]))


def _scalar(value) -> _Value:
    values = [float(v) for v in np.ravel(value)]
    return _Value("s", *(values + [0.0] * 4)[:4])


def _form(array: np.ndarray) -> tuple[int, ...]:
    channels = array.shape[2] if array.ndim == 3 else 1
    rows, columns = array.shape[:2] if array.ndim > 1 else (len(array), 1)
    return _address(array), rows, columns, _DEPTHS.index(array.dtype.name), channels


def _plain(array: np.ndarray) -> np.ndarray:
    if array.dtype == bool:
        raise error("bool arrays are not OpenCV's: take a view of uint8")
    if array.dtype.name not in _DEPTHS or not 1 <= array.ndim <= 3:
        raise error(f"arrays of {array.dtype} and {array.ndim} axes are not OpenCV's")
    return np.ascontiguousarray(array)


def _flatten(arguments: tuple, alive: list) -> tuple[str, list[float]]:
    form = ""
    flat: list[float] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            alive.append(array := _plain(argument))
            form += "m"
            flat += _form(array)
        elif isinstance(argument, _InOut):
            form += "i"
            flat += _form(argument.array)
        elif isinstance(argument, _Value):
            form += argument.letter
            flat += argument.numbers
        elif isinstance(argument, list):
            form += "v"
            flat.append(len(argument))
            for item in argument:
                alive.append(array := _plain(item))
                flat += _form(array)
        else:
            form += "n"
            flat.append(argument)
    return form, flat


def _call(name: str, *arguments) -> list[np.ndarray]:
    """Run one of OpenCV's functions; what it gives back as arrays, numbers are in `_numbers`."""
    alive: list[np.ndarray] = []
    form, flat = _flatten(arguments, alive)
    return _made(lambda: _bridge.call(name, form, *flat))


def _made(call) -> list[np.ndarray]:
    global _sizes
    count = call()
    if count <= -2:
        _sizes = np.zeros(4 * (-2 - count), np.int32)
        _prepare()
        count = call()
    if count < 0:
        raise error(_bridge.error)
    if not count:
        return []
    arrays = []
    for rows, columns, depth, channels in _sizes[: 4 * count].reshape(-1, 4).tolist():
        shape = (rows, columns, channels) if channels > 1 else (rows, columns)
        arrays.append(np.empty(shape, _DEPTHS[depth]))
    _bridge.take(*map(_address, arrays))
    return arrays


def _one(name: str, *arguments) -> np.ndarray:
    return _call(name, *arguments)[0]


def _points(array: np.ndarray) -> np.ndarray:
    """(n, 2) or (n, 1, 2) as OpenCV wants points: two channels."""
    return array.reshape(-1, 1, 2)


def _drawn(image: np.ndarray, name: str, *arguments) -> np.ndarray:
    canvas = _plain(image)
    _call(name, _InOut(canvas), *arguments)
    if canvas is not image:
        image[...] = canvas
    return image


# ---------------------------------------------------------------------------- by numpy, exactly


def split(image):
    return tuple(np.ascontiguousarray(image[..., i]) for i in range(image.shape[2]))


def max(first, second):
    return np.maximum(first, second)


def min(first, second):
    return np.minimum(first, second)


def bitwise_and(first, second):
    return np.bitwise_and(first, second)


def countNonZero(image):
    return int(np.count_nonzero(image))


def compare(first, second, operation):
    name = ("equal", "greater", "greater_equal", "less", "less_equal", "not_equal")[operation]
    return getattr(np, name)(first, second).view(np.uint8) * np.uint8(255)


def scaleAdd(first, factor, second):
    return first * first.dtype.type(factor) + second


def LUT(image, table):
    table = np.asarray(table)
    if table.size == 256:
        return table.ravel()[image]
    planes = table.reshape(256, -1)
    return np.stack([planes[:, i][image[..., i]] for i in range(image.shape[2])], axis=-1)


def calcHist(images, channels, mask, sizes, ranges):
    if channels != [0] or mask is not None or sizes != [256] or ranges != [0, 256]:
        raise error("calcHist counts the 256 values of one channel here")
    if images[0].dtype != np.uint8 or images[0].ndim != 2:
        raise error("calcHist takes uint8 (h, w) here")
    return np.bincount(images[0].ravel(), minlength=256).astype(np.float32)


# ---------------------------------------------------------------------------- by OpenCV.js


def add(first, second):
    return first + second if first.dtype.kind == "f" else _one("add", first, second, _OUT)


def subtract(first, second):
    return first - second if first.dtype.kind == "f" else _one("subtract", first, second, _OUT)


def resize(image, dsize, fx=0.0, fy=0.0, interpolation=1):
    size = _size(dsize if dsize is not None else (0, 0))
    return _one("resize", image, _OUT, size, float(fx), float(fy), interpolation)


def cvtColor(image, code):
    return _one("cvtColor", image, _OUT, code)


def GaussianBlur(image, ksize, sigmaX):
    return _one("GaussianBlur", image, _OUT, _size(ksize), float(sigmaX))


def blur(image, ksize):
    return _one("blur", image, _OUT, _size(ksize))


def Canny(image, threshold1, threshold2):
    return _one("Canny", image, _OUT, float(threshold1), float(threshold2))


def dilate(image, kernel):
    return _one("dilate", image, _OUT, kernel)


def erode(image, kernel, borderType=0, borderValue=None):
    beyond = np.finfo(np.float64).max if borderValue is None else borderValue
    border = _scalar([beyond] * 4)
    return _one("erode", image, _OUT, kernel, _Value("p", -1, -1), 1, borderType, border)


def morphologyEx(image, operation, kernel):
    return _one("morphologyEx", image, _OUT, operation, kernel)


def inpaint(image, mask, radius, flags):
    return _one("inpaint", image, mask, _OUT, float(radius), flags)


def copyMakeBorder(image, top, bottom, left, right, borderType):
    sides = (top, bottom, left, right)
    return _one("copyMakeBorder", image, _OUT, *sides, borderType, _scalar(0))


def distanceTransform(image, distanceType, maskSize):
    return _one("distanceTransform", image, _OUT, distanceType, maskSize)


def warpAffine(image, matrix, dsize, flags=1, borderMode=0):
    matrix = np.asarray(matrix, np.float64)
    return _one("warpAffine", image, _OUT, matrix, _size(dsize), flags, borderMode, _scalar(0))


def remap(image, x, y, interpolation, borderMode=0):
    return _one("remap", image, _OUT, x, y, interpolation, borderMode, _scalar(0))


def getRotationMatrix2D(center, angle, scale):
    point = _Value("p", float(center[0]), float(center[1]))
    return _one("getRotationMatrix2D", point, float(angle), float(scale))


def perspectiveTransform(points, matrix):
    return _one("perspectiveTransform", points, _OUT, matrix)


def findHomography(source, target):
    matrix = _one("findHomography", _points(source), _points(target))
    return (matrix if matrix.size else None), None


def mean(image, mask=None):
    _call("mean", image, *(() if mask is None else (mask,)))
    return tuple(_numbers[:4].tolist())


def norm(image):
    _call("norm", image)
    return float(_numbers[0])


def moments(image, binaryImage=False):
    _call("moments", image, binaryImage)
    return dict(zip(_MOMENTS, _numbers.tolist(), strict=False))


_MOMENTS = (
    *("m00", "m10", "m01", "m20", "m11", "m02", "m30", "m21", "m12", "m03"),
    *("mu20", "mu11", "mu02", "mu30", "mu21", "mu12", "mu03"),
    *("nu20", "nu11", "nu02", "nu30", "nu21", "nu12", "nu03"),
)


def connectedComponentsWithStats(image, connectivity=8):
    labels, stats, centres = _call(
        "connectedComponentsWithStats", image, _OUT, _OUT, _OUT, connectivity, 4
    )
    return len(stats), labels, stats, centres


# ---------------------------------------------------------------------------- shapes


def findContours(image, mode, method):
    *contours, hierarchy = _call("findContours", image, _VECTOR, _OUT, mode, method)
    return tuple(contours), (hierarchy.reshape(1, -1, 4) if contours else None)


def boundingRect(array):
    _call("boundingRect", array if array.dtype == np.uint8 else _points(array))
    x, y, width, height = _numbers[:4].tolist()
    return int(x), int(y), int(width), int(height)


def contourArea(contour):
    _call("contourArea", _points(contour), False)
    return float(_numbers[0])


def arcLength(curve, closed):
    _call("arcLength", _points(curve), closed)
    return float(_numbers[0])


def approxPolyDP(curve, epsilon, closed):
    return _one("approxPolyDP", _points(curve), _OUT, float(epsilon), closed)


def convexHull(points):
    return _one("convexHull", _points(points), _OUT)


def fitEllipseDirect(points):
    _call("fitEllipseDirect", _points(points))
    x, y, width, height, degrees = _numbers[:5].tolist()
    return (x, y), (width, height), degrees


def HoughCircles(image, method, dp, minDist, param1, param2, minRadius, maxRadius):
    limits = float(param1), float(param2), minRadius, maxRadius
    circles = _one("HoughCircles", image, _OUT, method, float(dp), float(minDist), *limits)
    return circles if circles.size else None


def drawContours(image, contours, index, color, thickness):
    outlines = [_points(contour) for contour in contours]
    return _drawn(image, "drawContours", outlines, index, _scalar(color), thickness)


def fillPoly(image, polygons, color):
    outlines = [_points(polygon) for polygon in polygons]
    return _drawn(image, "fillPoly", outlines, _scalar(color))


def ellipse(image, box, color, thickness):
    (x, y), (width, height), degrees = box
    rectangle = _Value("r", float(x), float(y), float(width), float(height), float(degrees))
    return _drawn(image, "ellipse1", rectangle, _scalar(color), thickness)


# ---------------------------------------------------------------------------- markers


class aruco:
    """`cv2.aruco`: finds markers of a predefined dictionary."""

    DICT_4X4_50 = 0
    CORNER_REFINE_SUBPIX = 1

    class DetectorParameters:
        cornerRefinementMethod = 0

    class ArucoDetector:
        def __init__(self, dictionary: int, parameters: aruco.DetectorParameters):
            self._dictionary, self._parameters = dictionary, parameters

        def detectMarkers(self, image):
            image = _plain(image)
            refine = self._parameters.cornerRefinementMethod
            ids, *corners = _made(
                lambda: _bridge.detectMarkers(self._dictionary, refine, *_form(image))
            )
            return tuple(corners), (ids.ravel() if len(ids) else None), ()

    @staticmethod
    def getPredefinedDictionary(name: int) -> int:
        return name
