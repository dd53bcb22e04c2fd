"""The widget that shows a picture and the outline of the lesion on it."""

from __future__ import annotations

import cv2
import numpy as np
from kivy.app import App
from kivy.graphics import Color, InstructionGroup, Line, Rectangle
from kivy.graphics.texture import Texture
from kivy.metrics import dp
from kivy.properties import ListProperty
from kivy.uix.widget import Widget

from edge_app import theme

MOST_POINTS = 120  # of an outline that is drawn; more cannot be told apart on a screen


class PictureView(Widget):
    """A picture, as large as fits, with the outline of the lesion on it."""

    outline = ListProperty()  # polygons of [x, y], px of the whole picture
    extent = ListProperty([1, 1])  # (width, height) of the whole picture, px

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._texture: Texture | None = None
        self._tint = Color(1, 1, 1, 0)
        self._rectangle = Rectangle()
        self._lines = InstructionGroup()
        for instruction in (self._tint, self._rectangle, self._lines):
            self.canvas.add(instruction)
        self.bind(pos=self._place, size=self._place, outline=self._draw, extent=self._draw)

    def show(self, pixels: np.ndarray | None) -> None:
        """Show uint8 (h, w, 3) RGB, or nothing."""
        if pixels is None:
            self._tint.a = 0
            self._lines.clear()
            return
        self._tint.a = 1
        size = (pixels.shape[1], pixels.shape[0])
        if self._texture is None or self._texture.size != size:
            self._texture = Texture.create(size=size, colorfmt="rgb")
            self._texture.flip_vertical()
            self._rectangle.texture = self._texture
            self._place()
        # A writable array is taken as it is; bytes would be a copy more.
        self._texture.blit_buffer(pixels.reshape(-1), colorfmt="rgb", bufferfmt="ubyte")
        self.canvas.ask_update()

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
        unit = dp(App.get_running_app().unit)
        polygons = [
            (np.array([x, y + height]) + _thinned(polygon) * (scale, -scale)).ravel().tolist()
            for polygon in self.outline
        ]
        for color, line in ((theme.OUTLINE_EDGE, 2.4), (theme.OUTLINE, 1.2)):
            self._lines.add(Color(*color))
            for points in polygons:
                self._lines.add(Line(points=points, close=True, width=line * unit, joint="round"))


def fit(size: tuple[float, float], box: tuple[float, float, float, float]) -> tuple[float, ...]:
    """(x, y, width, height) of `size`, its aspect kept, in the middle of `box` (likewise)."""
    x, y, width, height = box
    scale = min(width / size[0], height / size[1])
    inner = (size[0] * scale, size[1] * scale)
    return x + (width - inner[0]) / 2, y + (height - inner[1]) / 2, *inner


def _thinned(polygon: list[list[float]]) -> np.ndarray:
    """The polygon as float (n, 2) with at most about MOST_POINTS points."""
    points = np.asarray(polygon, np.float32)
    if len(points) > MOST_POINTS:
        extent = float(np.ptp(points, axis=0).max())
        # 0.4 % of its extent: a pixel or two on the screen.
        points = cv2.approxPolyDP(points[:, None], 0.004 * extent, True)[:, 0]
    return points
