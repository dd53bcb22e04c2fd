"""What a result rests upon, drawn: outline, measures, class activation, similar cases."""

from __future__ import annotations

import textwrap
from pathlib import Path

import cv2
import numpy as np

from dermedge import DISCLAIMER
from dermedge.analysis import Analysis
from dermedge.bundle.similar import SimilarCases
from dermedge.image.header import ImageError
from dermedge.lesion import quality
from dermedge.taxonomy import MALIGNANT, TITLES

_PANEL, _MARGIN, _LINE = 620, 28, 30  # px
_WIDTH = 2 * _PANEL + 3 * _MARGIN
_SCALE = 0.68  # of the font
_COLUMNS = 54  # characters of a line in half the width
_INK, _QUIET, _HEADING, _PAPER = (16, 34, 43), (70, 90, 100), (11, 93, 115), (255, 255, 255)
_RAMP = (16, 300)  # px, height and width of the legend's colours
_THUMBNAIL = 150  # px
# Pale yellow to dark red: darker is more, also without colour vision. Drawn over gray.
_COLORS = np.array([(255, 245, 160), (253, 160, 60), (220, 50, 30), (120, 0, 38)], np.float32)


def outlined(pixels: np.ndarray, analysis: Analysis) -> np.ndarray:
    """A copy of the picture, uint8 (h, w, 3) RGB, with the lesion's outline on it."""
    drawn = np.ascontiguousarray(pixels).copy()
    if analysis.is_outlier:  # what was outlined on a picture without a lesion is not one
        return drawn
    width = max(1, round(max(pixels.shape[:2]) / 250))
    lines = _outlines(pixels, analysis)
    # A dark line under a bright one is seen on every skin.
    cv2.polylines(drawn, lines, True, (0, 0, 0), 2 * width + 1, cv2.LINE_AA)
    cv2.polylines(drawn, lines, True, (0, 255, 255), width, cv2.LINE_AA)
    return drawn


def malignant_share(analysis: Analysis, shape: tuple[int, int]) -> np.ndarray | None:
    """How far each place speaks for a malignant class: float32 (height, width), 0 to 1.

    Class activation maps (Zhou et al., CVPR 2016), as the share of the malignant classes in their
    softmax at each place. NaN where the classifier did not look; None where the bundle's
    architecture has no such maps.

    Parameters
    ----------
    analysis : of the picture.
    shape : of the picture's pixels as they were read.
    """
    if analysis.activation is None:
        return None
    malignant = np.array([label in MALIGNANT for label in analysis.probabilities])
    scores = analysis.activation
    # Log-odds are what may be interpolated between the few places of the map.
    odds = _log_sum(scores[malignant]) - _log_sum(scores[~malignant])
    placement = analysis.placement
    square = cv2.resize(odds, (placement.size, placement.size), interpolation=cv2.INTER_CUBIC)
    x, y = placement.corner
    whole = np.full(shape, np.nan, np.float32)
    whole[y : y + placement.height, x : x + placement.width] = placement.restore(square)
    share: np.ndarray = 1 / (1 + np.exp(-whole.clip(-30, 30)))
    return share


def overlay(
    pixels: np.ndarray, analysis: Analysis, shape: tuple[int, int] | None = None
) -> np.ndarray | None:
    """The picture in gray under the colours of `malignant_share`: uint8 (h, w, 3) RGB, or None.

    `pixels` may be those of a reduced copy; `shape`, (height, width), is then that of the pixels
    that were analysed.
    """
    share = malignant_share(analysis, shape or pixels.shape[:2])
    if share is None:
        return None
    if share.shape != pixels.shape[:2]:
        # Nearest: it is smooth already, and what was not looked at must not spread.
        share = cv2.resize(share, pixels.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    seen = ~np.isnan(share)
    share = np.nan_to_num(share)
    # What was not looked at is paler than what was looked at and says nothing.
    ground = np.where(seen[..., None], gray, 0.5 * gray + 127)
    strength = _strength(share)[..., None]
    drawn = np.ascontiguousarray(
        ((1 - strength) * ground + strength * _colored(share)).astype(np.uint8)
    )
    width = max(1, round(max(pixels.shape[:2]) / 400))
    cv2.polylines(drawn, _outlines(pixels, analysis), True, (255, 255, 255), width, cv2.LINE_AA)
    return drawn


def explain(
    pixels: np.ndarray, analysis: Analysis, cases: SimilarCases | None = None
) -> np.ndarray:
    """One page on one picture: uint8 (height, width, 3) RGB.

    Of a picture that has to be taken again it says why, and nothing else.

    Parameters
    ----------
    pixels : uint8 (h, w, 3) RGB, the picture as `dermedge.image.read.read_image` gives it.
    analysis : of this picture.
    cases : those of the analyzer, for the thumbnails.
    """
    judged = analysis.triage != "retake"
    title = Path(analysis.image).name or "picture"
    page = [
        _text([title], 1.0),
        _text([f"{analysis.triage}: {analysis.rule}"], columns=108),
    ]
    if analysis.quality.reasons:
        page.append(_text(_advice(analysis), columns=108))
    if analysis.versions["procedural"]:
        page.append(_text(["Trained on generated pictures: not for real skin."], color=_QUIET))
    heat = overlay(pixels, analysis) if judged else None
    left = [_fitted(outlined(pixels, analysis))]
    right: list[np.ndarray] = []
    if heat is not None:
        left.insert(
            0, _text(["The picture and the outline of the lesion"], half=True, heading=True)
        )
        right = [
            _text(["What speaks for a malignant class"], half=True, heading=True),
            _fitted(heat),
            _legend(),
        ]
    page.append(_beside(left, right))
    if judged:
        page.append(_beside([_measures(analysis)], [_classes(analysis)]))
        if analysis.similar and cases is not None:
            page += [_text(["Similar cases that the model learnt from"], heading=True)]
            page.append(_similar(analysis, cases))
    page.append(_text([DISCLAIMER], color=_QUIET, columns=108))
    return np.concatenate([_paper(_MARGIN // 2, _WIDTH), *page, _paper(_MARGIN // 2, _WIDTH)])


def _advice(analysis: Analysis) -> list[str]:
    words = quality.titles(analysis.lesion.found and not analysis.is_outlier)
    return [words[reason] for reason in analysis.quality.reasons]


def _measures(analysis: Analysis) -> np.ndarray:
    lesion = analysis.lesion
    axes = ("its halves are alike", "unlike along one axis", "unlike along both axes")
    lines = ["What was measured on the lesion"]
    if lesion.found and lesion.asymmetry is not None:
        size = "unknown, no scale is known"
        if lesion.diameter_mm is not None:
            size = f"{lesion.diameter_mm:.1f} mm"
        lines += [
            f"A  Asymmetry {lesion.asymmetry} of 2: {axes[lesion.asymmetry]}",
            f"B  Border {lesion.border} of 8: ends abruptly in {lesion.border} of 8 segments",
            f"C  Colours {lesion.color} of 6: {', '.join(lesion.colors) or 'none'}",
            f"D  Diameter {size}",
        ]
    else:
        lines.append("No lesion was found.")
    return _text(lines, half=True, heading=True)


def _classes(analysis: Analysis) -> np.ndarray:
    likeliest = sorted(analysis.probabilities.items(), key=lambda item: -item[1])[:3]
    lines = ["What the model makes of it"]
    lines += [f"{value:>4.0%}  {TITLES[label]}" for label, value in likeliest]
    lines.append(f"Most likely: {TITLES[analysis.likely]}")
    if analysis.distance is not None and analysis.threshold is not None:
        far = f"{analysis.distance:.2f}, at most {analysis.threshold:.2f}"
        lines.append(f"Distance from what it learnt {far}")
    return _text(lines, half=True, heading=True)


def _similar(analysis: Analysis, cases: SimilarCases) -> np.ndarray:
    shown = []
    for case in analysis.similar:
        try:
            small = cases.picture(case.id)
        except ImageError:
            small = np.full((1, 1, 3), 200, np.uint8)
        side = 0 if small is None else _THUMBNAIL
        lines = (TITLES[case.label], case.id, f"likeness {case.similarity:.2f}")
        canvas = _paper(side + len(lines) * _LINE, (_WIDTH - 2 * _MARGIN) // len(analysis.similar))
        if small is not None:
            canvas[:side, :side] = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
        for row, line in enumerate(lines):
            _put(canvas, line, 0, side + (row + 1) * _LINE - 8, 0.62, _INK)
        shown.append(canvas)
    return _widened(_padded(np.concatenate(shown, axis=1)))


def _legend() -> np.ndarray:
    canvas = _paper(_RAMP[0] + _LINE + 14, _PANEL)
    ramp = np.linspace(0, 1, _RAMP[1], dtype=np.float32)[None]
    strength = _strength(ramp)[..., None]
    drawn = (1 - strength) * 128 + strength * _colored(ramp)
    canvas[8 : 8 + _RAMP[0], : _RAMP[1]] = drawn.astype(np.uint8)
    _put(canvas, "no", 0, _RAMP[0] + _LINE, 0.6, _QUIET)
    _put(canvas, "even", _RAMP[1] // 2 - 22, _RAMP[0] + _LINE, 0.6, _QUIET)
    _put(canvas, "strongly", _RAMP[1] - 80, _RAMP[0] + _LINE, 0.6, _QUIET)
    return canvas


def _outlines(pixels: np.ndarray, analysis: Analysis) -> list[np.ndarray]:
    scale = pixels.shape[1] / analysis.width
    return [np.rint(polygon * scale).astype(np.int32) for polygon in analysis.lesion.polygons]


def _log_sum(scores: np.ndarray) -> np.ndarray:
    """log(sum(exp)) over the first axis; the most negative score where there is none."""
    highest = scores.max(axis=0, initial=-30)
    total: np.ndarray = (highest + np.log(np.exp(scores - highest).sum(axis=0) + 1e-30)).astype(
        np.float32
    )
    return total


def _strength(share: np.ndarray) -> np.ndarray:
    """How strongly a share is coloured: what speaks against every malignant class stays gray."""
    return 0.72 * np.clip((share - 0.15) / 0.45, 0, 1)


def _colored(share: np.ndarray) -> np.ndarray:
    steps = np.linspace(0.15, 1, len(_COLORS))
    return np.stack([np.interp(share, steps, _COLORS[:, c]) for c in range(3)], axis=-1)


def _paper(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _fitted(image: np.ndarray) -> np.ndarray:
    """Scaled to the width of a panel, and no higher than wide; the rest is paper."""
    height, width = image.shape[:2]
    scale = _PANEL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = _paper(size[1], _PANEL)
    canvas[:, : size[0]] = cv2.resize(image, size, interpolation=how)
    return canvas


def _padded(part: np.ndarray) -> np.ndarray:
    return np.concatenate([_paper(len(part), _MARGIN), part], axis=1)


def _widened(part: np.ndarray) -> np.ndarray:
    return np.concatenate([part, _paper(len(part), _WIDTH - part.shape[1])], axis=1)


def _beside(left: list[np.ndarray], right: list[np.ndarray]) -> np.ndarray:
    """Two columns of parts that are a panel wide."""
    columns = [np.concatenate(parts) if parts else _paper(0, _PANEL) for parts in (left, right)]
    height = max(map(len, columns)) + _MARGIN // 2
    columns = [np.concatenate([c, _paper(height - len(c), _PANEL)]) for c in columns]
    return _widened(np.concatenate([_padded(column) for column in columns], axis=1))


def _text(
    lines: list[str],
    scale: float = _SCALE,
    color: tuple[int, int, int] = _INK,
    half: bool = False,
    heading: bool = False,
    columns: int = _COLUMNS,
) -> np.ndarray:
    """Lines of text, wrapped; over half of the page's width, or all of it."""
    wrapped = [
        (part, _HEADING if heading and number == 0 else color)
        for number, line in enumerate(lines)
        for part in textwrap.wrap(line, columns)
    ]
    step = round(_LINE * max(scale / _SCALE, 1))
    canvas = _paper(step * len(wrapped) + 10, _PANEL if half else _WIDTH)
    for row, (line, ink) in enumerate(wrapped):
        _put(canvas, line, 0 if half else _MARGIN, (row + 1) * step - 6, scale, ink)
    return canvas


def _put(
    canvas: np.ndarray, line: str, x: int, y: int, scale: float, color: tuple[int, int, int]
) -> None:
    # Not every OpenCV's fonts know more than ASCII.
    plain = line.encode("ascii", "replace").decode()
    cv2.putText(canvas, plain, (x, y), cv2.FONT_HERSHEY_DUPLEX, scale, color, 1, cv2.LINE_AA)
