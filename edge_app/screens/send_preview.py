"""Last step of sending: every field and picture that leaves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from kivy.properties import ListProperty, StringProperty

import edge_app.ui.picture_view  # noqa: F401  the .kv names its class
from edge_app.i18n.language import _
from edge_app.presentation.messages import blocks
from edge_app.referral.review import Row as Field
from edge_app.sending import Prepared
from edge_app.ui.text import Text
from edge_app.ui.widgets import Across, Card, Column, Row

SHORT = 24  # characters of a name, and of what it says, that stand on one line


class PreviewRow(Column):
    """A field that leaves: its name, and below it what it says."""

    name = StringProperty()
    value = StringProperty()


class PreviewPicture(Across):
    """A picture that leaves."""

    title = StringProperty()
    extent = ListProperty([1, 1])


class PreviewStep(Column):
    """What would be sent, and what it lacks."""

    def __init__(self, _app: Any, prepared: Prepared) -> None:
        super().__init__()
        title = _("This is all that leaves. Look it through, then send it.")
        self.add_widget(Text(text=title, style="page", bold=True))
        self._gaps(prepared)
        rows = groupby(prepared.rows, key=lambda row: row.picture)
        for picture, fields in rows:
            pixels = prepared.pictures.get(picture) if picture else None
            self.add_widget(_card(list(fields), pixels))

    def _gaps(self, prepared: Prepared) -> None:
        required = [gap for gap in prepared.gaps if gap.required]
        others = [gap for gap in prepared.gaps if not gap.required]
        if required:
            card = Card()
            card.add_widget(Text(text=_("Before it can be sent"), style="warning", bold=True))
            for gap in required:
                card.add_widget(Text(text=str(gap), style="warning"))
            self.add_widget(card)
        if others:
            card = Card()
            title = _("Missing; it can be sent without")
            card.add_widget(Text(text=title, style="quiet", points=14, bold=True))
            for gap in others:
                card.add_widget(Text(text=str(gap), points=15))
            self.add_widget(card)


def _card(rows: Sequence[Field], pixels: np.ndarray | None) -> Card:
    card = Card()
    if pixels is not None:
        shown = PreviewPicture(title=rows[0].label)
        shown.ids.picture.extent = [pixels.shape[1], pixels.shape[0]]
        shown.ids.picture.show(pixels)
        card.add_widget(shown)
    for row in rows:
        short = len(row.label) <= SHORT and len(row.value) <= SHORT and "\n" not in row.value
        kind = Row if short else PreviewRow
        first, *others = blocks(row.value)
        card.add_widget(kind(name=row.label, value=first))
        for part in others:
            card.add_widget(Text(text=part, points=15))
    return card
