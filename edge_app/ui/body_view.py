"""The widget that shows one side of the body map with marks on it, to be pressed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kivy.app import App
from kivy.clock import Clock
from kivy.core.text import Label as CoreLabel
from kivy.graphics import Color, Ellipse, InstructionGroup, Line, Rectangle
from kivy.graphics.texture import Texture
from kivy.metrics import dp, sp
from kivy.properties import ListProperty, ObjectProperty, OptionProperty
from kivy.uix.widget import Widget

from edge_app.presentation import body_map
from edge_app.ui.focus import Pressed
from edge_app.ui.picture_view import Box, fit
from edge_app.ui.signs import SEGMENTS

RADIUS = 11  # dp, of a mark
MIDDLE = (0.5, 0.3)  # a place to begin at, on either side
REACH = 26  # dp, from a mark's middle, within which a finger means it


@dataclass(frozen=True)
class Mark:
    """A spot on the map, in its risk band's style and shape."""

    number: int
    place: tuple[str, float, float]
    style: str
    shape: str
    key: object


class Figure(Pressed, Widget):
    """One side of the body, as large as fits. `on_spot(key)`: a mark was pressed; `on_place(x, y)`:
    another place on the figure, or next to it.
    """

    last_touch: Any  # of ButtonBehavior

    __events__ = ("on_spot", "on_place")

    view = OptionProperty("front", options=("front", "back"))
    window = ListProperty([0.0, 0.0, 1.0, 1.0])  # the part of the map that is shown
    marks = ListProperty()  # of Mark; those of the other view are passed over
    pin = ObjectProperty(None, allownone=True)  # a place that is being chosen

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._figure, self._drawn = InstructionGroup(), InstructionGroup()
        self.canvas.add(self._figure)
        self.canvas.add(self._drawn)
        paint = Clock.create_trigger(self._paint)  # once, when the layout has come to rest
        for name in ("pos", "size", "view", "window"):
            self.fbind(name, paint)
        for name in ("marks", "pin", "lit"):
            self.fbind(name, self._draw)

    # ------------------------------------------------------------------------ where

    def box(self) -> Box:
        """Left, bottom, width and height of what is shown of the map, in the widget's window."""
        left, top, right, bottom = self.window
        shape = ((right - left) * body_map.ASPECT, bottom - top)
        return fit(shape, (*self.pos, *self.size))

    def on_screen(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self.window
        at, low, width, height = self.box()
        return at + (x - left) / (right - left) * width, low + (bottom - y) / (
            bottom - top
        ) * height

    def on_map(self, x: float, y: float) -> tuple[float, float]:
        """The place on the map at a point of the window."""
        left, top, right, bottom = self.window
        at, low, width, height = self.box()
        return left + (x - at) / width * (right - left), bottom - (y - low) / height * (
            bottom - top
        )

    # ------------------------------------------------------------------------ pressing

    def on_release(self) -> None:
        touch, self.last_touch = self.last_touch, None
        if touch is None:  # by the keyboard, from where arrow keys may lead on
            self.dispatch("on_place", *MIDDLE)
        elif self.collide_point(*touch.pos):
            self.tap(*self.on_map(*touch.pos))

    def tap(self, x: float, y: float) -> None:
        """Press a place of the map: the mark that is there, else the place itself."""
        here, reach = self.on_screen(x, y), dp(REACH) * App.get_running_app().unit
        near = []
        for mark in self.marks:
            if mark.place[0] == self.view:
                at = self.on_screen(*mark.place[1:])
                near.append((abs(complex(at[0] - here[0], at[1] - here[1])), mark.number, mark))
        if near and min(near)[0] <= reach:
            self.dispatch("on_spot", min(near)[2].key)
            return
        x, y = body_map.nearest(self.view, x, y)
        beside = self.on_screen(x, y)
        if abs(complex(beside[0] - here[0], beside[1] - here[1])) <= 2 * reach:
            self.dispatch("on_place", x, y)

    def on_spot(self, key: object) -> None:
        pass

    def on_place(self, x: float, y: float) -> None:
        pass

    # ------------------------------------------------------------------------ drawing

    def _paint(self, *_) -> None:
        self._figure.clear()
        x, y, width, height = self.box()
        if width < 8 or height < 8:
            return
        app = App.get_running_app()
        if not body_map.prepared():
            app.work(body_map.prepare, lambda _none: self._paint())
            return
        styles = app.styles
        colors = (styles["page_quiet"].text, styles["line"].ground)
        size = (round(width), round(height))
        pixels = body_map.paint(self.view, size, colors, tuple(self.window))
        texture = Texture.create(size=size, colorfmt="rgba")
        texture.blit_buffer(pixels.reshape(-1), colorfmt="rgba", bufferfmt="ubyte")
        texture.flip_vertical()
        self._figure.add(Color(1, 1, 1, 1))
        self._figure.add(Rectangle(texture=texture, pos=(round(x), round(y)), size=size))
        self._draw()

    def _draw(self, *_) -> None:
        self._drawn.clear()
        for mark in self.marks:
            if mark.place[0] == self.view:
                self._mark(mark)
        if self.pin is not None and self.pin[0] == self.view:
            self._pin(*self.on_screen(*self.pin[1:]))
        if self.lit:
            app = App.get_running_app()
            self._drawn.add(Color(*app.styles["accent"].ground))
            box = (self.x, self.y, self.width, self.height, dp(10) * app.unit)
            self._drawn.add(Line(rounded_rectangle=box, width=dp(1.5) * app.unit))

    def _mark(self, mark: Mark) -> None:
        app = App.get_running_app()
        x, y = self.on_screen(*mark.place[1:])
        style, radius = app.styles[mark.style], dp(RADIUS) * app.unit
        segments, turn = SEGMENTS[mark.shape]
        if mark.shape == "triangle":  # it holds less than the others
            radius *= 1.45
        for color, grown in ((style.text, dp(1.6) * app.unit), (style.ground, 0)):
            side = 2 * (radius + (2 * grown if mark.shape == "triangle" else grown))
            self._drawn.add(Color(*color))
            self._drawn.add(
                Ellipse(
                    pos=(x - side / 2, y - side / 2),
                    size=(side, side),
                    segments=segments,
                    angle_start=turn,
                    angle_end=turn + 360,
                )
            )
        text = CoreLabel(
            text=str(mark.number), font_size=sp(12) * app.unit, bold=True, font_name="Roboto"
        )
        text.refresh()
        wide, tall = text.texture.size
        low = y - tall / 2 - (radius * 0.1 if mark.shape == "triangle" else 0)
        self._drawn.add(Color(*style.text))
        self._drawn.add(Rectangle(texture=text.texture, pos=(x - wide / 2, low), size=(wide, tall)))

    def _pin(self, x: float, y: float) -> None:
        app = App.get_running_app()
        unit, accent = dp(app.unit), app.styles["accent"]
        for color, radius in ((accent.text, 11), (accent.ground, 9.5), (accent.text, 4)):
            self._drawn.add(Color(*color))
            side = 2 * radius * unit
            self._drawn.add(Ellipse(pos=(x - side / 2, y - side / 2), size=(side, side)))
