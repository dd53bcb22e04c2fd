"""The widget that shows a picture, the outline of the lesion and the ABCD measures on it."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from kivy.app import App
from kivy.core.text import Label as CoreLabel
from kivy.graphics import Color, InstructionGroup, Line, Rectangle
from kivy.graphics.texture import Texture
from kivy.metrics import dp, sp
from kivy.properties import DictProperty, ListProperty
from kivy.uix.widget import Widget

from edge_app.i18n import language
from edge_app.ui import fonts, theme

MOST_POINTS = 120  # of an outline that is drawn; more cannot be told apart on a screen

Box = tuple[float, float, float, float]  # left, low, width, height


class PictureView(Widget):
    """A picture, as large as fits, with the outline of the lesion on it."""

    outline = ListProperty()  # polygons of [x, y], px of the whole picture
    extent = ListProperty([1, 1])  # (width, height) of the whole picture, px
    marks = DictProperty()  # what `measures` gives; empty: not drawn

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._texture: Texture | None = None
        self._tint = Color(1, 1, 1, 0)
        self._rectangle = Rectangle()
        self._lines = InstructionGroup()
        for instruction in (self._tint, self._rectangle, self._lines):
            self.canvas.add(instruction)
        self.bind(pos=self._place, size=self._place, outline=self._draw, extent=self._draw)
        self.bind(marks=self._draw)

    def show(self, pixels: np.ndarray | None) -> None:
        """Show uint8 (h, w, 3) RGB, or nothing."""
        if pixels is None:
            self._tint.a = 0
            self._lines.clear()
            self._forget()
            return
        hidden, self._tint.a = not self._tint.a, 1
        size = (pixels.shape[1], pixels.shape[0])
        if self._texture is None or self._texture.size != size:
            self._texture = Texture.create(size=size, colorfmt="rgb")
            self._texture.flip_vertical()
            self._rectangle.texture = self._texture
            self._place()
        # A writable array is taken as it is; bytes would be a copy more.
        self._texture.blit_buffer(pixels.reshape(-1), colorfmt="rgb", bufferfmt="ubyte")
        if hidden:
            self._draw()
        self.canvas.ask_update()

    def _forget(self) -> None:
        """Black over what the last picture left in the texture, then let go of it."""
        if self._texture is not None:
            width, height = self._texture.size
            black = np.zeros(3 * width * height, np.uint8)
            self._texture.blit_buffer(black, colorfmt="rgb", bufferfmt="ubyte")
            self._texture = self._rectangle.texture = None

    def _place(self, *_) -> None:
        if self._texture is not None:
            x, y, width, height = fit(self._texture.size, (*self.pos, *self.size))
            self._rectangle.pos, self._rectangle.size = (x, y), (width, height)
        self._draw()

    def _draw(self, *_) -> None:
        self._lines.clear()
        if self._texture is None or not self._tint.a:
            return
        x, y, width, height = fit(self._texture.size, (*self.pos, *self.size))
        scale = width / self.extent[0]

        def on_screen(points) -> list[float]:
            return (
                (np.array([x, y + height]) + np.asarray(points) * (scale, -scale)).ravel().tolist()
            )

        for polygon in self.outline:
            self._line(on_screen(_thinned(polygon)), close=True)
        for points in self.marks.get("lines", ()):
            self._line(on_screen(points), thin=True)
        for text, at in self.marks.get("labels", ()):
            self._label(text, on_screen([at]), (x, y, width, height))

    def _line(self, points: list[float], close: bool = False, thin: bool = False) -> None:
        unit = dp(App.get_running_app().unit)
        for color, wide in (
            (theme.OUTLINE_EDGE, 2.0 if thin else 2.4),
            (theme.OUTLINE, 0.9 if thin else 1.2),
        ):
            self._lines.add(Color(*color))
            self._lines.add(Line(points=points, close=close, width=wide * unit, joint="round"))

    def _label(self, text: str, at: list[float], box) -> None:
        """A letter or size on a dark ground, within the picture."""
        app = App.get_running_app()
        label = CoreLabel(
            text=language.visual(text),
            font_size=sp(15) * app.type_unit,
            bold=True,
            font_name=fonts.family(text),
        )
        label.refresh()
        wide, tall = label.texture.size
        pad = dp(4) * app.unit
        left = min(max(at[0] - wide / 2, box[0] + pad), box[0] + box[2] - wide - pad)
        low = min(max(at[1] - tall / 2, box[1] + pad), box[1] + box[3] - tall - pad)
        self._lines.add(Color(*theme.OUTLINE_EDGE))
        self._lines.add(Rectangle(pos=(left - pad, low), size=(wide + 2 * pad, tall)))
        self._lines.add(Color(*theme.OUTLINE))
        self._lines.add(Rectangle(texture=label.texture, pos=(left, low), size=(wide, tall)))


def measures(analysis: Mapping, size: str = "") -> dict:
    """The ABCD measures of an analysis as lines and words, px of the whole picture.

    Its axes of asymmetry (A), the eight segments of its border (B), its longest extent (D, with
    `size` in words). Colours (C) cover no line.
    """
    lesion, axis = analysis["lesion"], analysis["abcd"].get("axis")
    if not lesion["found"] or axis is None:
        return {}
    points = np.concatenate([np.asarray(p, float) for p in lesion["polygons"]])
    centre = np.asarray(lesion["centroid"])
    reach = np.linalg.norm(points - centre, axis=1).max()

    def along(angle: float, share: float) -> np.ndarray:
        return centre + share * reach * np.array([np.cos(angle), np.sin(angle)])

    lines = [[along(axis + k * np.pi / 2, s) for s in (-1.15, 1.15)] for k in (0, 1)]
    labels = [("A", along(axis, -1.25)), ("A", along(axis + np.pi / 2, -1.25))]
    for k in range(8):
        lines.append([along(axis + k * np.pi / 4, s) for s in (0.92, 1.08)])
    labels.append(("B", along(axis + 3 * np.pi / 8, 1.15)))
    hull = cv2.convexHull(points.astype(np.float32))[:, 0].astype(float)
    apart = ((hull[:, None] - hull[None]) ** 2).sum(axis=2)
    first, second = np.unravel_index(apart.argmax(), apart.shape)
    lines.append([hull[first], hull[second]])
    labels.append((f"D {size}".strip(), hull[second] + 0.12 * (hull[second] - hull[first])))
    return {"lines": [np.array(line).tolist() for line in lines], "labels": labels}


def fit(size: tuple[float, float], box: Box) -> Box:
    """(x, y, width, height) of `size`, its aspect kept, in the middle of `box` (likewise)."""
    x, y, width, height = box
    scale = min(width / size[0], height / size[1])
    inner = (size[0] * scale, size[1] * scale)
    return x + (width - inner[0]) / 2, y + (height - inner[1]) / 2, inner[0], inner[1]


def _thinned(polygon: list[list[float]]) -> np.ndarray:
    """The polygon as float (n, 2) with at most about MOST_POINTS points."""
    points: np.ndarray = np.asarray(polygon, np.float32)
    if len(points) > MOST_POINTS:
        extent = float(np.ptp(points, axis=0).max())
        # 0.4 % of its extent: a pixel or two on the screen.
        points = cv2.approxPolyDP(points[:, None], 0.004 * extent, True)[:, 0]
    return points
