"""The few widgets that the screens are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from kivy.app import App
from kivy.graphics import Color, Ellipse, InstructionGroup, Line, Rectangle
from kivy.graphics.texture import Texture
from kivy.lang import Builder
from kivy.metrics import dp
from kivy.properties import ListProperty, NumericProperty, ObjectProperty, StringProperty
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.label import Label
from kivy.uix.widget import Widget

from edge_app import theme

SEGMENTS = {"circle": (64, 0), "triangle": (3, 0), "octagon": (8, 22.5), "square": (4, 45)}


class Words(Label):
    """Wrapped text, as high as it needs to be."""

    style = ObjectProperty(theme.CARD, rebind=True)
    points = NumericProperty(16)


class Panel(Words):
    """Words on a ground of their own."""


class Press(ButtonBehavior, Words):
    """Something to press: never lower than theme.TOUCH."""


class Card(BoxLayout):
    """A rounded ground for what belongs together."""

    style = ObjectProperty(theme.CARD, rebind=True)


class Row(BoxLayout):
    """A name on the left, its value on the right."""

    name = StringProperty()
    value = StringProperty()


class Footer(Words):
    """The disclaimer, at the foot of every screen."""


class Sign(Widget):
    """A shape with a mark in it, so that a risk band is told without its colour."""

    style = ObjectProperty(theme.LOW, rebind=True)
    shape = StringProperty("circle")
    mark = StringProperty("✓")

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._label = Label(bold=True)
        self.add_widget(self._label)
        self.bind(pos=self._draw, size=self._draw, style=self._draw, shape=self._draw)
        self.bind(mark=self._draw)

    def _draw(self, *_):
        side = min(self.size)
        segments, turn = SEGMENTS[self.shape]
        x, y = self.center_x - side / 2, self.center_y - side / 2
        self.canvas.before.clear()
        with self.canvas.before:
            Color(*self.style.text)
            Ellipse(
                pos=(x, y),
                size=(side, side),
                segments=segments,
                angle_start=turn,
                angle_end=turn + 360,
            )
            if self.mark == "✓":  # not in every font, so it is drawn
                Color(*self.style.ground)
                points = ((0.28, 0.5), (0.44, 0.34), (0.72, 0.64))
                Line(
                    points=[(x + px * side, y + py * side) for px, py in points],
                    width=side / 20,
                    cap="round",
                    joint="round",
                )
        self._label.text = "" if self.mark == "✓" else self.mark
        self._label.color = self.style.ground
        self._label.font_size = side * (0.5 if self.shape == "triangle" else 0.62)
        self._label.size = (side, side)
        # The weight of a triangle lies below its middle.
        self._label.pos = (x, y - (side * 0.06 if self.shape == "triangle" else 0))


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
        self.bind(pos=self._place, size=self._place, outline=self._place, extent=self._place)

    def show(self, pixels: np.ndarray | None) -> None:
        """Show uint8 (h, w, 3) RGB, or nothing."""
        self._tint.a = 0 if pixels is None else 1
        if pixels is None:
            return
        size = (pixels.shape[1], pixels.shape[0])
        if self._texture is None or self._texture.size != size:
            self._texture = Texture.create(size=size, colorfmt="rgb")
            self._texture.flip_vertical()
            self._rectangle.texture = self._texture
            self._place()
        self._texture.blit_buffer(pixels.tobytes(), colorfmt="rgb", bufferfmt="ubyte")
        self.canvas.ask_update()

    def _place(self, *_) -> None:
        if self._texture is None:
            return
        x, y, width, height = fit(self._texture.size, (*self.pos, *self.size))
        self._rectangle.pos, self._rectangle.size = (x, y), (width, height)
        self._lines.clear()
        scale = width / self.extent[0]
        unit = dp(App.get_running_app().unit)
        for color, line in ((theme.OUTLINE_EDGE, 2.4), (theme.OUTLINE, 1.2)):
            self._lines.add(Color(*color))
            for polygon in self.outline:
                points = [(x + px * scale, y + height - py * scale) for px, py in polygon]
                self._lines.add(
                    Line(
                        points=points,
                        close=True,
                        width=line * unit,
                        joint="round",
                    )
                )


def fit(size: tuple[float, float], box: tuple[float, float, float, float]) -> tuple[float, ...]:
    """(x, y, width, height) of `size`, its aspect kept, in the middle of `box` (likewise)."""
    x, y, width, height = box
    scale = min(width / size[0], height / size[1])
    inner = (size[0] * scale, size[1] * scale)
    return x + (width - inner[0]) / 2, y + (height - inner[1]) / 2, *inner


Builder.load_file(str(Path(__file__).with_suffix(".kv")))
