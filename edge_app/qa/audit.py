"""What can be told of a screen without eyes: contrast, size, place, and what the keyboard reaches.

WCAG 2.2: contrast of text (1.4.3) and of signs (1.4.11), measured in what was drawn; targets of at
least 48 dp that do not lie over each other (2.5.5); words for every icon (1.1.1); the keyboard
reaches all that can be pressed (2.1.1); no text cut off, laid over another or out of the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations

import numpy as np
from kivy.core.window import Window
from kivy.metrics import dp
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.scrollview import ScrollView
from kivy.uix.slider import Slider
from kivy.uix.textinput import TextInput
from kivy.uix.widget import Widget

from edge_app.ui import theme
from edge_app.ui.calendar import Day
from edge_app.ui.entry import Entry
from edge_app.ui.focus import Target, above, targets
from edge_app.ui.signs import Icon, Sign
from edge_app.ui.text import Text

LEAST_TARGET = 48  # dp
LEAST_DAY = 44  # dp, of which seven stand side by side in a window of 320
LEAST_CONTRAST, LEAST_OF_SIGNS = 4.5, 3.0
SAME = 6  # grey levels by which a ground may differ from its style's

Box = tuple[float, float, float, float]  # left, low, right, high, px of the window


def audit(root: Widget, styles, pixels: np.ndarray) -> list[str]:
    """What is wrong with a screen, one line each.

    Parameters
    ----------
    root : the screen, or the question that covers it. styles : of theme.STYLES, that it has.
    pixels : the window as it was drawn, uint8 (h, w, 3) RGB.
    """
    shown = [(widget, box) for widget in root.walk(restrict=True) if (box := _seen(widget))]
    faults: list[str] = []
    for widget, box in shown:
        if isinstance(widget, (Text, Entry)):
            faults += _audit_text(widget, box, styles, pixels)
        if isinstance(widget, (Icon, Sign)):
            faults += _audit_sign(widget, box, pixels)
        if isinstance(widget, (Target, Entry)):
            faults += _audit_target(widget)
    faults += _overlaps([pair for pair in shown if _is_target(pair[0])])
    faults += _overlaps([pair for pair in shown if _is_text(pair[0])])
    reached = list(targets(root))
    for widget, _box in shown:
        pressed = isinstance(widget, (ButtonBehavior, Slider, TextInput, Target))
        if pressed and not widget.disabled and widget not in reached:
            faults.append(f"the Tab key does not reach '{_name(widget)}'")
    return faults


def _audit_text(widget: Widget, box: Box, styles, pixels: np.ndarray) -> Iterator[str]:
    texts = widget.text or getattr(widget, "hint_text", "")
    if not texts:
        return
    style = styles[(widget.disabled and getattr(widget, "off", "")) or widget.style]
    found = theme.contrast(style.text, style.ground)
    if found < LEAST_CONTRAST:
        yield f"'{_name(widget)}' has a contrast of {found:.1f}"
    left, low, right, high = box
    pad = widget.padding
    # In a part of few lines there may be nothing but ground.
    few = widget.height < 6 * widget.font_size
    enough = widget.height - 1 if few else 2.5 * widget.font_size
    if high - low > enough and right - left > pad[0] + pad[2] + 1:
        inner = (left + pad[0], low + pad[3], right - pad[2], high - pad[1])
        ground, measured = _measured(inner, pixels)
        if np.abs(ground - np.multiply(style.ground[:3], 255)).max() > SAME:
            yield f"'{_name(widget)}' is drawn on another ground than that of its style"
        if measured < LEAST_CONTRAST:
            yield f"'{_name(widget)}' is drawn with a contrast of {measured:.1f}"
    if not isinstance(widget, Text):
        if widget.cut:
            yield f"'{_name(widget)}' is cut off"
        return
    if widget.texture_size[0] > widget.width + 1 or widget.texture_size[1] > widget.height + 1:
        yield f"'{_name(widget)}' is cut off"
    if widget.breaks_words():
        yield f"'{_name(widget)}' is broken within a word"
    if not widget.text.isascii() and widget.breaks_twice():
        yield f"'{_name(widget)}' has its words in another order than they are read in"
    x, y, right, top = _whole(widget)
    scrolled = _scroll(widget)
    if x < -1 or right > Window.width + 1 or not (scrolled or (y > -1 and top < Window.height + 1)):
        yield f"'{_name(widget)}' reaches out of the window"


def _audit_sign(widget: Widget, box: Box, pixels: np.ndarray) -> Iterator[str]:
    _ground, measured = _measured(box, pixels)
    whole = box[3] - box[1] > widget.height - 1 and getattr(widget, "name", "sign")
    if measured < LEAST_OF_SIGNS and whole and not widget.disabled:
        yield f"'{_name(widget)}' is drawn with a contrast of {measured:.1f}"


def _audit_target(widget: Widget) -> Iterator[str]:
    least = dp(LEAST_DAY if isinstance(widget, Day) else LEAST_TARGET) - 0.5
    if widget.width < least or widget.height < least:
        size = f"{widget.width / dp(1):.0f} x {widget.height / dp(1):.0f} dp"
        yield f"'{_name(widget)}' is too small to be hit, {size}"
    texts = [w.text for w in widget.walk(restrict=True) if isinstance(w, Text)]
    if not (any(texts) or widget.hint):
        yield f"a {type(widget).__name__} has no words for those who cannot see it"


def _overlaps(shown: list[tuple[Widget, Box]]) -> Iterator[str]:
    for (first, ours), (second, theirs) in combinations(shown, 2):
        if first in above(second) or second in above(first):
            continue
        wide = min(ours[2], theirs[2]) - max(ours[0], theirs[0])
        high = min(ours[3], theirs[3]) - max(ours[1], theirs[1])
        if wide > 2 and high > 2:
            yield f"'{_name(first)}' and '{_name(second)}' lie over each other"


def _measured(box: Box, pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """The commonest colour within a box, 0..255, and the greatest contrast with it in there."""
    left, low, right, high = (round(v) for v in box)
    part = pixels[len(pixels) - high : len(pixels) - low, left:right].reshape(-1, 3)
    # As numbers, which are sorted many times as fast as triples.
    numbers, counts = np.unique(part.astype(np.uint32) @ (65536, 256, 1), return_counts=True)
    ground = int(numbers[counts.argmax()])
    most = max(_contrast(number, ground) for number in numbers.tolist())
    return np.multiply(_color(ground)[:3], 255), most


@lru_cache(maxsize=1 << 18)  # the edges of letters have the same few colours everywhere
def _contrast(first: int, second: int) -> float:
    """Of two colours, each 0xRRGGBB."""
    return theme.contrast(_color(first), _color(second))


def _color(number: int) -> theme.Color:
    return (number >> 16) / 255, (number >> 8 & 255) / 255, (number & 255) / 255, 1.0


def _is_target(widget: Widget) -> bool:
    return isinstance(widget, (Target, Entry))


def _is_text(widget: Widget) -> bool:
    if isinstance(widget, Text):
        return bool(widget.text)
    return isinstance(widget, (Icon, Sign, Entry))


def _name(widget: Widget) -> str:
    texts = [getattr(widget, name, "") for name in ("text", "hint", "title", "name")]
    return next((text for text in texts if text), type(widget).__name__)[:40]


def _scroll(widget: Widget) -> bool:
    return any(isinstance(it, ScrollView) for it in above(widget))


def _whole(widget: Widget) -> Box:
    return (*widget.to_window(widget.x, widget.y), *widget.to_window(widget.right, widget.top))


def _seen(widget: Widget) -> Box | None:
    """The part of a widget that is not hidden, scrolled away or out of the window."""
    box = (0.0, 0.0, float(Window.width), float(Window.height))
    for each in (widget, *above(widget)):
        if not each.opacity or each.width < 2 or each.height < 2:
            return None
        if each is widget or isinstance(each, ScrollView):
            left, low, right, high = _whole(each)
            box = (max(box[0], left), max(box[1], low), min(box[2], right), min(box[3], high))
    return box if min(box[2] - box[0], box[3] - box[1]) >= 2 else None
