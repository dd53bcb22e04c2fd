"""A small line chart of one measure over time: readable without its colour, with its axes named."""

from __future__ import annotations

from kivy.app import App
from kivy.core.text import Label as CoreLabel
from kivy.graphics import Color, Ellipse, Line, Rectangle
from kivy.metrics import dp, sp
from kivy.properties import ObjectProperty, StringProperty
from kivy.uix.widget import Widget

from edge_app.i18n import language
from edge_app.presentation.comparison import Trend
from edge_app.ui import fonts


class TrendChart(Widget):
    """Draws a `comparison.Trend`; time runs from left to right in every language."""

    trend: Trend | None = ObjectProperty(None, allownone=True)
    style = StringProperty("card")

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bind(pos=self._draw, size=self._draw, trend=self._draw)

    def _draw(self, *_) -> None:
        self.canvas.clear()
        trend = self.trend
        if trend is None or not trend.values or self.width < dp(60):
            return
        app = App.get_running_app()
        unit, styles = dp(app.unit), app.styles
        ink, quiet = styles["accent"].ground, styles["quiet"].text
        labels = [_text(text, quiet) for _value, text in trend.ticks]
        first, last = (_text(text, quiet) for text in trend.ends)
        dot = 4.5 * unit
        left = self.x + max(label.width for label in labels) + 8 * unit
        low = self.y + first.height + 6 * unit
        right, top = self.right - 1.5 * dot, self.top - labels[0].height / 2
        inner, high = left + 2 * dot, trend.ticks[-1][0]

        def at(day: float, value: float) -> tuple[float, float]:
            along = day / trend.span if trend.span else 0.5
            return inner + along * (right - dot - inner), low + value / high * (top - low)

        with self.canvas:
            for (value, _words), label in zip(trend.ticks, labels, strict=True):
                _x, y = at(0, value)
                Color(*styles["line"].ground)
                Line(points=[left, y, self.right, y], width=1)
                Color(1, 1, 1)
                _put(label, left - 8 * unit - label.width, y - label.height / 2)
            # A single picture has one date, below its dot.
            _put(first, left if trend.span else at(0, 0)[0] - first.width / 2, self.y)
            x = self.right - last.width
            if trend.ends[0] != trend.ends[1] and x >= left + first.width + 8 * unit:
                _put(last, x, self.y)
            points = [at(*known) for known in zip(trend.days, trend.values, strict=True)]
            Color(*ink)
            Line(points=[v for point in points for v in point], width=1.6 * unit, joint="round")
            for x, y in points:
                Color(*styles[self.style].ground)
                Ellipse(pos=(x - 1.5 * dot, y - 1.5 * dot), size=(3 * dot, 3 * dot))
                Color(*ink)
                Ellipse(pos=(x - dot, y - dot), size=(2 * dot, 2 * dot))


def _text(text: str, color):
    label = CoreLabel(
        text=language.visual(text),
        font_size=sp(12) * App.get_running_app().type_unit,
        font_name=fonts.family(text),
        color=color,
    )
    label.refresh()
    return label.texture


def _put(texture, x: float, y: float) -> None:
    Rectangle(texture=texture, pos=(round(x), round(y)), size=texture.size)
