"""Which pixels of a decoded mask are lesion: two values as drawn, anything else refused.

The rule was fitted to 13,488 drawn masks of HAM10000, ISIC 2017 and PAD-UFES-20, all of the values
0 and 255, and to copies of them saved as JPEG and resized (tests/test_masks.py): between the two
values such a file holds no more than edges.
"""

from __future__ import annotations

import cv2
import numpy as np

from dermedge.image.header import ImageError

# Values this close to either end (share of the range) are that end: JPEG noise.
_END = 0.1
# Widest edge: so many px to either side of a pixel, and this share of the longer side.
_EDGE_PX = 2
_EDGE_SHARE = 1 / 256
# With more values than this a file is soft or noisy; with fewer each value may be a label, and is
# where it fills a square of 3 x 3 px.
_FEW_VALUES = 8
_LABEL_AREA = np.ones((3, 3), np.uint8)
# Colour that a lossy file may add to gray, and the contrast that its noise must not be taken for;
# shares of the sample range.
_TINT = 0.12
_CONTRAST = 0.25
_ADVICE = "save it as gray PNG, 0 for skin and 255 for the lesion"


def lesion_pixels(samples: np.ndarray, lossy: bool) -> np.ndarray:
    """The lesion in a decoded mask: bool (height, width).

    Of two values the higher one is the lesion, whatever they are; a file of zeros alone is an
    empty mask, one of the highest value alone a full one. Edges between the two (antialiased, or
    blurred by JPEG) are cut in the middle.

    Parameters
    ----------
    samples : uint8 or uint16 (h, w), (h, w, 3) or (h, w, 4), the last channel alpha.
    lossy : the file keeps its pixels approximately, as JPEG does.

    Raises
    ------
    ImageError : one value from which lesion or skin cannot be distinguished, three or more
        values (a label map), a soft map, colours, or a transparency that disagrees; one line.
    """
    alpha = samples[..., 3] if samples.shape[2:] == (4,) else None
    mask = _lesion(samples[..., :3] if samples.ndim == 3 else samples, lossy)
    if alpha is not None and alpha.min() != alpha.max():
        opaque = alpha > np.iinfo(alpha.dtype).max // 2
        # A drawn edge may be softer; where nothing is drawn in colours, all of it is transparency.
        least = 0.001 if mask.any() and not mask.all() else 0
        if np.mean(opaque != mask) > least:
            raise ImageError(
                "the mask is drawn with transparency: {advice}",
                code="mask_transparent",
                advice=_ADVICE,
            )
    return mask


def looks_inverted(mask: np.ndarray) -> bool:
    """Whether lesion and skin look swapped: most of the frame's border is set, and a larger share
    of it than of the frame. None of 13,488 drawn masks is so; swapped, 98 % of them are."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
    # A few pixels that are not set are noise in a full mask.
    return bool(border >= 0.7 and mask.mean() < min(border, 0.999))


def _lesion(colours: np.ndarray, lossy: bool) -> np.ndarray:
    most = int(np.iinfo(colours.dtype).max)
    gray = colours
    if colours.ndim == 3:
        gray = colours.max(axis=2)
        tint = int((gray - colours.min(axis=2)).max())
        if tint > (_TINT * most if lossy else 0):
            return _of_two_colours(colours, lossy)
    low, high = int(gray.min()), int(gray.max())
    if low == high:
        return _of_one_value(gray, low, most)
    upper: np.ndarray = gray == high
    if lossy and high - low < _CONTRAST * most:
        raise ImageError(
            "the mask's values differ by {difference} of {most} only, as little as the noise of "
            "its format: {advice}",
            code="mask_contrast",
            difference=high - low,
            most=most,
            advice=_ADVICE,
        )
    lower: np.ndarray = gray == low
    if np.count_nonzero(upper) + np.count_nonzero(lower) == gray.size:
        return upper
    _refuse_labels(gray, low, high, lossy)
    return gray.astype(np.uint32) * 2 > low + high


def _of_one_value(gray: np.ndarray, value: int, most: int) -> np.ndarray:
    if value not in (0, most):
        raise ImageError(
            "all pixels of the mask have the value {value}: whether that is lesion or skin is not "
            "known; {advice}",
            code="mask_one_value",
            value=value,
            advice=_ADVICE,
        )
    return np.full(gray.shape, value == most)


def _of_two_colours(colours: np.ndarray, lossy: bool) -> np.ndarray:
    """Two colours of which one is brighter in no channel, as of a palette: black and red."""
    first: np.ndarray = (colours == colours[0, 0]).all(axis=2)
    if first.all():
        raise ImageError(
            "all pixels of the mask have one colour: whether that is lesion or skin is not known; "
            "{advice}",
            code="mask_one_colour",
            advice=_ADVICE,
        )
    other = colours[~first][0]
    if not lossy and (colours[~first] == other).all():
        if (other >= colours[0, 0]).all():
            return ~first
        if (other <= colours[0, 0]).all():
            return first
    raise ImageError(
        "the mask is in colours, a label map or a picture: {advice}",
        code="mask_colours",
        advice=_ADVICE,
    )


def _refuse_labels(gray: np.ndarray, low: int, high: int, lossy: bool) -> None:
    counts = np.bincount(gray.ravel(), minlength=high + 1)
    values = np.flatnonzero(counts)
    if not lossy and len(values) <= _FEW_VALUES:
        for value in values[1:-1]:
            # An edge has no flat area of a value of its own.
            if _thick(gray == value, _LABEL_AREA):
                raise ImageError(
                    "the mask has {count} values ({values}), a label map: {advice}",
                    code="mask_labels",
                    count=len(values),
                    values=", ".join(str(v) for v in values),
                    advice=_ADVICE,
                )
    margin = _END * (high - low)
    middle = (gray > low + margin) & (gray < high - margin)
    reach = max(_EDGE_PX, round(max(gray.shape) * _EDGE_SHARE))
    if _thick(middle, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)):
        raise ImageError(
            "the mask has areas of values between {low} and {high}, a soft map or a picture: "
            "{advice}",
            code="mask_soft",
            low=low,
            high=high,
            advice=_ADVICE,
        )


def _thick(region: np.ndarray, side: np.ndarray) -> bool:
    """Whether the region holds a whole square."""
    core = cv2.erode(region.astype(np.uint8), side, borderType=cv2.BORDER_REPLICATE)
    return bool(core.any())
