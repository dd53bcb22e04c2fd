"""The few widgets that the screens are made of."""

from __future__ import annotations

from pathlib import Path

from kivy.graphics import Color, Ellipse, Line
from kivy.lang import Builder
from kivy.properties import NumericProperty, ObjectProperty, StringProperty
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


Builder.load_file(str(Path(__file__).with_suffix(".kv")))
