"""The result screen: what was found in a captured picture, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from kivy.lang import Builder
from kivy.properties import BooleanProperty, ObjectProperty, StringProperty
from kivy.uix.screenmanager import Screen

from edge_app import theme
from edge_app.present import BANDS, ResultView
from edge_app.widgets import Card, Panel, Row, Words

SCROLL_STEP = 0.15  # of what is hidden, for one press of an arrow key


class BandCard(Card):
    """The risk band."""

    band = ObjectProperty(BANDS["retake"], rebind=True)
    estimate = StringProperty()


class TextCard(Card):
    """A title and paragraphs."""

    title = StringProperty()

    def __init__(self, title: str, lines: Iterable[str]):
        super().__init__(title=title)
        for line in lines:
            self.add_widget(Words(text=line))


class TableCard(Card):
    """A title and rows of names and values."""

    title = StringProperty()

    def __init__(self, title: str, rows: Iterable[tuple[str, str]]):
        super().__init__(title=title)
        for name, value in rows:
            self.add_widget(Row(name=name, value=value))


class ResultScreen(Screen):
    details = BooleanProperty(False)
    view: ResultView | None = ObjectProperty(None, allownone=True)

    def show(self, view: ResultView, pixels: np.ndarray) -> None:
        """Show a result and the picture, uint8 (h, w, 3) RGB, that it is of."""
        self.details = False
        self.view = view
        self.ids.picture.show(pixels)

    def scroll(self, steps: int) -> None:
        """Scroll by a key: down for positive steps."""
        area = self.ids.scroll
        area.scroll_y = min(max(area.scroll_y - steps * SCROLL_STEP, 0), 1)

    def reveal(self) -> None:
        """Scroll to the details that were just opened: they would open out of sight."""
        area, cards, below = self.ids.scroll, self.ids.cards, self.ids.details
        above = cards.height + cards.spacing
        hidden = above + self.ids.toggle.height + cards.spacing + below.height - area.height
        if self.details and hidden > 0:
            area.scroll_y = 1 - min(above / hidden, 1)

    def on_view(self, *_):
        view, cards = self.view, self.ids.cards
        self.ids.picture.extent = view.extent
        self.ids.picture.outline = view.outline
        self.ids.scroll.scroll_y = 1
        cards.clear_widgets()
        if view.demonstration:
            cards.add_widget(Panel(text=view.demonstration, style=theme.DEMO, points=13))
        cards.add_widget(BandCard(style=view.band.style, band=view.band, estimate=view.estimate))
        cards.add_widget(TextCard(title="What to do next", lines=[view.band.advice]))
        if view.remarks:
            cards.add_widget(TextCard(title="About this picture", lines=view.remarks))
        if view.measures:
            cards.add_widget(TableCard(title="What was measured", rows=view.measures))
        if view.limits:
            cards.add_widget(TextCard(title="What limits this estimate", lines=view.limits))

    def on_details(self, *_):
        below = self.ids.details
        below.clear_widgets()
        if self.details:
            if self.view.classes:
                below.add_widget(TableCard(title="How the model sees it", rows=self.view.classes))
            below.add_widget(TextCard(title="Versions", lines=[self.view.versions]))


Builder.load_file(str(Path(__file__).with_suffix(".kv")))
