"""Finds a plain frame or bar around a picture, which is no part of what the camera saw.

A white margin reads as blinding light and a gray one as skin; both move the estimate. Dark
corners and the round edge of a dermoscope's view are no frame: a frame ends in a straight line.
"""

from __future__ import annotations

import numpy as np

_SAMPLES = 256  # px of a line that are looked at
_NEAR = 12  # levels that JPEG may add to a plain colour
_PLAIN = 0.97  # share of a line's px that are near its colour
_WRITTEN = 0.45  # share of a line's px that words and signs upon a bar may take
_SMOOTH = 3  # levels by which half of a frame's px may differ from its colour: skin is rougher
_FAR = 20  # levels by which the picture differs from the frame at its edge
_EDGE = 0.85  # share of the edge's px that do
_SOFT = 16  # px about the edge where JPEG's noise is larger: a unit of its coding
_SHARP = 4  # px within which the frame's colour ends
_LEAST = 0.01  # of a side: thinner lines move nothing
_LEFT = 0.3  # of each side that must be left
_ROUNDS = 3  # frames within frames


def inner(image: np.ndarray, written: bool = True) -> tuple[int, int, int, int]:
    """(x, y, width, height) in px of what a plain frame leaves of a picture.

    The frame may be of any colour, on one side or several, with the noise of JPEG; upon a black,
    white or gray one there may be words and signs, as in a screenshot. What is found has no frame
    of its own. All of the picture where there is none.

    Parameters
    ----------
    image : uint8 (h, w, 3) RGB.
    written : whether there may be words and signs: a ruler that lies along a side looks so, too.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = 0, 0, width, height
    for _ in range(_ROUNDS):
        part = image[top:bottom, left:right]
        a, b, c, d = _margins(part, _WRITTEN if written else 1 - _PLAIN)
        least_height, least_width = _LEFT * height, _LEFT * width
        if (a, b, c, d) == (0, 0, 0, 0):
            break
        if bottom - b - top - a < least_height or right - d - left - c < least_width:
            return 0, 0, width, height
        top, bottom, left, right = top + a, bottom - b, left + c, right - d
    return left, top, right - left, bottom - top


def _margins(image: np.ndarray, most: float) -> tuple[int, int, int, int]:
    """Px of frame at top, bottom, left and right."""
    height, width = image.shape[:2]
    top, top_colour = _plain(image, most)
    bottom, bottom_colour = _plain(image[::-1], most)
    rows = slice(top, height - bottom)
    if rows.start >= rows.stop:
        return 0, 0, 0, 0
    lying = image[rows].swapaxes(0, 1)
    left, left_colour = _plain(lying, most)
    right, right_colour = _plain(lying[::-1], most)
    columns = slice(left, width - right)
    if columns.start >= columns.stop:
        return 0, 0, 0, 0
    upright = image[:, columns]
    return (
        _edge(upright, top, top_colour),
        _edge(upright[::-1], bottom, bottom_colour),
        _edge(lying, left, left_colour),
        _edge(lying[::-1], right, right_colour),
    )


def _sampled(lines: np.ndarray) -> np.ndarray:
    return lines[:, :: max(1, lines.shape[1] // _SAMPLES)].astype(np.int16)


def _distance(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Levels by which the farthest channel of (h, w, 3) px differs from a colour."""
    off = np.abs(pixels - colour)
    # Several times as fast as `max` over an axis of three.
    farthest: np.ndarray = np.maximum(np.maximum(off[..., 0], off[..., 1]), off[..., 2])
    return farthest


def _plain(lines: np.ndarray, most: float) -> tuple[int, np.ndarray]:
    """How many lines from the first on are of one colour, and which.

    most : share of a line's px that may be of others, where words may stand.
    """
    few = np.sort(lines[0, :: max(1, lines.shape[1] // 32), 1].astype(np.int16))
    if few[-(len(few) // 8) - 1] - few[len(few) // 8] > 2 * _NEAR:  # nearly all pictures
        return 0, few
    first = _sampled(lines[:1])
    colour = np.median(first[0], axis=0)
    if (_distance(first, colour) > _NEAR).mean() > 1 - _PLAIN:  # most of the others
        return 0, colour
    # Words stand upon black, white or gray; skin is never so even in all three channels.
    if np.ptp(colour) > _NEAR:
        most = 1 - _PLAIN
    shares = np.zeros(0)  # of each line's px that are not near its colour
    for start in range(0, len(lines), _SOFT):
        off = _distance(_sampled(lines[start : start + _SOFT]), colour) > _NEAR
        shares = np.append(shares, off.mean(axis=1))
        if shares[start:].max() > most:
            break
    return _bar(shares, most, round(_LEAST * len(lines))), colour


def _bar(shares: np.ndarray, most: float, least: int) -> int:
    """How many lines a bar has; `shares` of each line's px are not of its colour.

    Words and signs upon it, as on a screenshot, take up to `most` of a line and leave `least` lines
    free before the bar's end.
    """
    plain = shares <= 1 - _PLAIN
    first = len(plain) if plain.all() else int(plain.argmin())
    if shares.max() <= most:  # it has no end
        return first
    end = int((shares > most).argmax())
    last = end - int(plain[:end][::-1].argmax())
    free = plain[max(0, last - least) : last].all() and plain[:last].mean() >= 0.5
    return last if free and end - last <= _SOFT else first


def _edge(lines: np.ndarray, count: int, colour: np.ndarray) -> int:
    """Where, just behind `count` plain lines, the picture begins; 0 where it does not."""
    if not _LEAST * len(lines) <= count < len(lines):
        return 0
    band = _distance(_sampled(lines[:count]), colour)
    # Near its edge, a thin frame has the noise of JPEG all over.
    if np.median(band) > (_SMOOTH if count > _SOFT else 2 * _SMOOTH):
        return 0
    start = max(0, count - _SHARP)
    near = _sampled(lines[start : count + _SOFT])
    begins = np.flatnonzero((_distance(near, colour) > _FAR).mean(axis=1) >= _EDGE)
    if not len(begins):
        return 0
    # Skin may darken slowly towards a side; the edge of a frame is a step.
    step = near[begins[0]] - near[max(0, begins[0] - _SHARP)]
    return start + int(begins[0]) if np.median(np.abs(step).max(axis=1)) >= _FAR else 0
