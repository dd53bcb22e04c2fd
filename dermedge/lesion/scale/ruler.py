"""A ruler: marks at one spacing, of which every fifth or tenth is longer."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dermedge.lesion.scale.plane import Scale, ScaleError, copy_to_search

_TICKS = 14  # least number of millimetres that must be seen
_LEAST = 4  # px of the copy, smallest spacing
_REGULAR = 0.4  # autocorrelation of a row of ticks at one and at two spacings
MAX_RANGE = 0.05  # by which the spacing may change along the ruler
_LONGER = 0.35  # autocorrelation of the ticks' lengths at five or ten


def find_ruler(pixels: np.ndarray) -> Scale:
    """Ticks at one spacing, every fifth or tenth longer: nothing else on skin has both."""
    small, factor = copy_to_search(pixels)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    # Neither slow changes of the light nor its strength are ticks.
    detail = gray - cv2.GaussianBlur(gray, (0, 0), 12)
    detail /= np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 24) + 4)
    rows = [row for angle in range(0, 180, 3) for row in _regular_rows(detail, float(angle))]
    rows.sort(key=lambda row: -row.regular)
    pieces = [piece for row in rows[:16] if len(piece := _spacings(detail, row)) > 2]
    if len(pieces) < 2:  # one row alone may be a chance
        raise ScaleError(
            "no ruler was found: show 2 cm of it or more, its millimetre marks sharp and dark"
        )
    spacing = float(np.median(np.concatenate(pieces)[:, 1]))
    place, apart = max(pieces, key=len).T
    # A camera that leans sees the near marks farther apart; a line evens out the pieces' errors.
    trend = np.polyfit(place, apart, 1)[0] * np.ptp(place)
    if any(abs(np.median(piece[:, 1]) / spacing - 1) > 0.05 for piece in pieces):
        raise ScaleError("the ruler's marks are not clear: use more light, and come closer")
    if abs(trend) > MAX_RANGE * spacing:
        raise ScaleError("the ruler is seen from the side: hold the camera straight above")
    mm = factor / spacing  # of a px
    return Scale("ruler", np.diag([mm, mm, 1.0]), np.zeros(pixels.shape[:2], bool))


@dataclass(frozen=True)
class _Row:
    """A regular row of marks, in the picture rotated by `angle` degrees."""

    regular: float  # 0 to 1
    angle: float
    middle: int  # y
    high: int  # px
    start: int  # x
    length: int
    spacing: float  # px


def _rotated(image: np.ndarray, degrees: float) -> np.ndarray:
    """The picture rotated about its middle, nothing of it lost; 0 beyond it."""
    height, width = image.shape
    matrix: np.ndarray = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    box = np.abs(matrix[:, :2]) @ (width, height)
    matrix[:, 2] += (box - (width, height)) / 2
    return cv2.warpAffine(image, matrix, tuple(int(np.ceil(v)) for v in box))


def _regular_rows(detail: np.ndarray, angle: float) -> list[_Row]:
    """The most regular row of each height and length, at this angle."""
    rotated = _rotated(detail, angle)
    rows = []
    for high in (8, 24):
        strips = cv2.blur(rotated, (1, high))[high // 2 :: high // 2]
        if not len(strips) or rotated.shape[1] < 6 * (_LEAST + 1):
            continue  # no room for a row of marks
        for length in sorted({min(256, rotated.shape[1]), rotated.shape[1]}):
            for start in range(0, rotated.shape[1] - length + 1, 96):
                part = strips[:, start : start + length]
                part = part - part.mean(axis=1, keepdims=True)
                power = np.abs(np.fft.rfft(part, 2 * length, axis=1)) ** 2
                most = length // 6
                same = np.fft.irfft(power, axis=1)[:, : 2 * most + 2]
                # What is flat is regular by chance.
                same /= np.maximum(same[:, :1], 0.02 * length)
                same *= length / (length - np.arange(same.shape[1]))
                lag = np.arange(_LEAST, most)
                between = np.maximum(same[:, lag // 2], same[:, (lag + 1) // 2])
                regular = np.minimum(same[:, lag], same[:, 2 * lag]) - np.maximum(between, 0)
                top = (same[:, lag] >= same[:, lag - 1]) & (same[:, lag] >= same[:, lag + 1])
                regular = np.where(top, regular, 0)
                best = regular.max(axis=1)
                row = int(best.argmax())
                if best[row] < _REGULAR:
                    continue
                # Five spacings are regular, too: the least that is nearly as regular.
                first = int(np.argmax(regular[row] >= 0.7 * best[row]))
                middle = high // 2 + row * (high // 2)
                spacing = float(lag[first])
                rows.append(_Row(float(best[row]), angle, middle, high, start, length, spacing))
    return rows


def _spacings(detail: np.ndarray, row: _Row) -> np.ndarray:
    """Float (n, 2): place along the ruler and spacing there, px; none where it is no ruler."""
    none = np.empty((0, 2))
    around = row.middle + np.arange(-row.high // 2, row.high // 2 + 1)
    part = slice(row.start, row.start + row.length)

    def line_along(rotated: np.ndarray) -> np.ndarray:
        line: np.ndarray = rotated[np.clip(around, 0, rotated.shape[0] - 1)].mean(axis=0)
        return line

    best = 0.0, row.spacing, row.angle
    tries = row.spacing * np.linspace(0.9, 1.1, 161)
    for tilt in np.arange(-2, 2.1, 0.5):
        power = _power(line_along(_rotated(detail, row.angle + tilt))[part], tries)
        best = max(best, (float(power.max()), float(tries[power.argmax()]), row.angle + tilt))
    _, spacing, angle = best
    if row.length < _TICKS * spacing:
        return none
    rotated = _rotated(detail, angle)
    whole = line_along(rotated)
    line = whole[part]
    place = np.arange(len(line))
    wave = np.sum(line * np.exp(-2j * np.pi * place / spacing))
    # Dark marks lie where the wave is lowest.
    first = ((np.angle(-wave) / (-2 * np.pi)) % 1.0) * spacing
    at = np.arange(first, len(line) - spacing / 2, spacing)
    reach = round(8 * spacing)
    low, high = max(0, row.middle - reach), min(rotated.shape[0], row.middle + reach + 1)
    band = rotated[low:high, part]
    band = cv2.blur(band, (max(1, round(spacing / 4)), 1))
    on, off = (np.clip(np.rint(at + shift * spacing), 0, len(line) - 1).astype(int)
               for shift in (0, 0.5))  # fmt: skip
    lengths = np.clip(band[:, off] - band[:, on], 0, 2).sum(axis=0)
    present = np.clip(line[off] - line[on], 0, None)
    if len(at) < _TICKS or np.median(present) < 0.4:
        return none
    lengths = lengths - np.median(lengths)
    lengths = np.clip(lengths, *np.quantile(lengths, [0.02, 0.98]))
    lengths = lengths - lengths.mean()
    total = float((lengths**2).mean()) + 1e-9

    def alike(lag: int) -> float:
        return float((lengths[lag:] * lengths[:-lag]).mean()) / total

    fifth, tenth = alike(5), alike(10) if len(at) > 22 else 0.0
    others = max(alike(lag) for lag in (2, 3, 4, 6, 7, 8))
    if max(fifth, tenth) <= max(_LONGER, others + 0.15):
        return none
    # Beyond the piece where it was found, too: as far as the same marks go on.
    piece = round(10 * spacing)
    tries = spacing * np.linspace(0.85, 1.15, 121)
    starts = np.arange(0, len(whole) - piece + 1, piece // 2)
    powers = np.array([_power(whole[start : start + piece], tries) for start in starts])
    best, peaks = powers.argmax(axis=1), powers.max(axis=1)
    clear = (best > 0) & (best < len(tries) - 1) & (peaks > 0.4 * peaks.max())
    spacings: np.ndarray = np.stack([starts + piece / 2, tries[best]], axis=1)[clear]
    return spacings


def _power(line: np.ndarray, spacings: np.ndarray) -> np.ndarray:
    """How much of a row repeats at each of the spacings: its wave and the next overtone."""
    place = np.arange(len(line)) - len(line) / 2
    window = np.hanning(len(line))
    waves = [np.exp(-2j * np.pi * k * place / spacings[:, None]) for k in (1, 2)]
    powers: np.ndarray = sum(np.abs((line * window * wave).sum(axis=1)) for wave in waves)
    return powers
