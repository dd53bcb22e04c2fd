"""What is drawn by lines: icons, and the shapes of the risk bands."""

from __future__ import annotations

from kivy.app import App
from kivy.graphics import Color, Ellipse, Line
from kivy.properties import BooleanProperty, ListProperty, NumericProperty, StringProperty
from kivy.uix.label import Label
from kivy.uix.widget import Widget

from edge_app.i18n import language

SEGMENTS = {"circle": (64, 0), "triangle": (3, 0), "octagon": (8, 22.5), "square": (4, 45)}
# Lines in a unit square, y up.
ICONS = {
    "back": [[(0.62, 0.8), (0.32, 0.5), (0.62, 0.2)]],
    "next": [[(0.38, 0.8), (0.68, 0.5), (0.38, 0.2)]],
    "close": [[(0.25, 0.25), (0.75, 0.75)], [(0.25, 0.75), (0.75, 0.25)]],
    "plus": [[(0.5, 0.2), (0.5, 0.8)], [(0.2, 0.5), (0.8, 0.5)]],
    "check": [[(0.22, 0.5), (0.42, 0.3), (0.78, 0.7)]],
    "edit": [
        [(0.22, 0.22), (0.27, 0.4), (0.66, 0.79), (0.79, 0.66), (0.4, 0.27), (0.22, 0.22)],
        [(0.57, 0.7), (0.7, 0.57)],
    ],
    "settings": [
        *[[(0.18, y), (0.82, y)] for y in (0.27, 0.5, 0.73)],
        *[[(x, y - 0.08), (x, y + 0.08)] for x, y in ((0.36, 0.73), (0.64, 0.5), (0.42, 0.27))],
    ],
    "camera": [
        [(0.15, 0.25), (0.15, 0.68), (0.33, 0.68), (0.4, 0.78), (0.6, 0.78), (0.67, 0.68),
         (0.85, 0.68), (0.85, 0.25), (0.15, 0.25)],
        [(0.5, 0.6), (0.6, 0.56), (0.64, 0.46), (0.6, 0.36), (0.5, 0.32), (0.4, 0.36),
         (0.36, 0.46), (0.4, 0.56), (0.5, 0.6)],
    ],
    "people": [
        [(0.5, 0.82), (0.6, 0.78), (0.64, 0.68), (0.6, 0.58), (0.5, 0.54), (0.4, 0.58),
         (0.36, 0.68), (0.4, 0.78), (0.5, 0.82)],
        [(0.2, 0.18), (0.24, 0.36), (0.38, 0.44), (0.62, 0.44), (0.76, 0.36), (0.8, 0.18)],
    ],
    "file": [
        [(0.28, 0.15), (0.28, 0.85), (0.58, 0.85), (0.74, 0.69), (0.74, 0.15), (0.28, 0.15)],
        [(0.58, 0.85), (0.58, 0.69), (0.74, 0.69)],
    ],
    "folder": [
        [(0.15, 0.25), (0.15, 0.75), (0.4, 0.75), (0.48, 0.66), (0.85, 0.66), (0.85, 0.25),
         (0.15, 0.25)],
    ],
    "home": [
        [(0.15, 0.5), (0.5, 0.82), (0.85, 0.5)],
        [(0.24, 0.42), (0.24, 0.18), (0.76, 0.18), (0.76, 0.42)],
    ],
    "stick": [
        [(0.34, 0.14), (0.34, 0.6), (0.66, 0.6), (0.66, 0.14), (0.34, 0.14)],
        [(0.41, 0.6), (0.41, 0.84), (0.59, 0.84), (0.59, 0.6)],
    ],
    "device": [
        [(0.15, 0.34), (0.15, 0.8), (0.85, 0.8), (0.85, 0.34), (0.15, 0.34)],
        [(0.5, 0.34), (0.5, 0.2)],
        [(0.32, 0.2), (0.68, 0.2)],
    ],
    "rotate": [
        [(0.76, 0.62), (0.68, 0.74), (0.56, 0.8), (0.42, 0.79), (0.3, 0.71), (0.23, 0.58),
         (0.23, 0.43), (0.3, 0.3), (0.42, 0.22), (0.56, 0.21), (0.68, 0.27), (0.76, 0.38)],
        [(0.78, 0.8), (0.77, 0.61), (0.59, 0.63)],
    ],
    "info": [
        [(0.5, 0.85), (0.72, 0.77), (0.85, 0.5), (0.72, 0.23), (0.5, 0.15), (0.28, 0.23),
         (0.15, 0.5), (0.28, 0.77), (0.5, 0.85)],
        [(0.5, 0.52), (0.5, 0.32)],
        [(0.5, 0.67), (0.5, 0.68)],
    ],
    "ruler": [
        [(0.12, 0.36), (0.12, 0.64), (0.88, 0.64), (0.88, 0.36), (0.12, 0.36)],
        *[[(x, 0.64), (x, y)] for x, y in ((0.27, 0.54), (0.42, 0.48), (0.58, 0.54), (0.73, 0.48))],
    ],
    "lock": [
        [(0.25, 0.2), (0.25, 0.55), (0.75, 0.55), (0.75, 0.2), (0.25, 0.2)],
        [(0.34, 0.55), (0.34, 0.7), (0.42, 0.8), (0.58, 0.8), (0.66, 0.7), (0.66, 0.55)],
    ],
    "send": [
        [(0.14, 0.52), (0.86, 0.84), (0.66, 0.16), (0.45, 0.42), (0.14, 0.52)],
        [(0.45, 0.42), (0.86, 0.84)],
    ],
    "mail": [
        [(0.14, 0.25), (0.14, 0.75), (0.86, 0.75), (0.86, 0.25), (0.14, 0.25)],
        [(0.14, 0.75), (0.5, 0.46), (0.86, 0.75)],
    ],
}  # fmt: skip
POINTING = {"back": "next", "next": "back"}  # what is mirrored from right to left


class Icon(Widget):
    """One of ICONS, drawn by lines."""

    name = StringProperty("plus")
    color = ListProperty([1, 1, 1, 1])
    share = NumericProperty(1)  # of its square that is drawn into

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bind(pos=self._draw, size=self._draw, name=self._draw, color=self._draw)

    def _draw(self, *_) -> None:
        # Not by center_x: while `x` tells of its change, that is still the old one.
        side = min(self.size) * self.share
        x, y = self.x + (self.width - side) / 2, self.y + (self.height - side) / 2
        name = POINTING.get(self.name, self.name) if language.rtl() else self.name
        self.canvas.clear()
        with self.canvas:
            Color(*self.color)
            for line in ICONS.get(name, ()):
                points = [v for px, py in line for v in (x + px * side, y + py * side)]
                Line(points=points, width=max(1.0, side / 26), cap="round", joint="round")


class Sign(Widget):
    """A shape with a mark in it, so that a risk band is known without its colour."""

    style = StringProperty("low")
    shape = StringProperty("circle")
    mark = StringProperty("i")
    filled = BooleanProperty(False)  # on a ground of another style: in the band's own colours

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._label = Label(bold=True)
        self.add_widget(self._label)
        self.bind(pos=self._draw, size=self._draw, style=self._draw, shape=self._draw)
        self.bind(mark=self._draw, filled=self._draw)

    def _draw(self, *_):
        side = min(self.size)
        style = App.get_running_app().styles[self.style]
        ink, under = (style.text, style.ground) if self.filled else (style.ground, style.text)
        x, y = self.x + (self.width - side) / 2, self.y + (self.height - side) / 2
        triangle = self.shape == "triangle"
        self.canvas.before.clear()
        with self.canvas.before:
            Color(*style.text)
            self._shape(side)
            if self.filled:
                Color(*under)
                self._shape(side - max(3, side * (0.16 if triangle else 0.1)))
        self._label.text = self.mark
        self._label.color = ink
        share = 0.62 if not self.mark.isdigit() else 0.52 if len(self.mark) < 2 else 0.44
        self._label.font_size = side * share * (0.8 if triangle else 1)
        self._label.size = (side, side)
        self._label.pos = (x, y - (side * 0.08 if triangle else 0))

    def _shape(self, side: float) -> None:
        segments, turn = SEGMENTS[self.shape]
        low = 0.0
        if self.shape == "triangle":  # to look as large as the others; its weight lies low
            low, side = 0.1 * min(self.size), 1.24 * side
        # Not by center_x: while `x` tells of its change, that is still the old one.
        at = self.x + (self.width - side) / 2, self.y + (self.height - side) / 2 - low
        Ellipse(
            pos=at,
            size=(side, side),
            segments=segments,
            angle_start=turn,
            angle_end=turn + 360,
        )
