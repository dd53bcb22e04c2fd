"""First step of sending: which pictures, what each shows, how the dermoscope was used."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from kivy.properties import ObjectProperty, StringProperty

import edge_app.ui.picture_view  # noqa: F401  the .kv names its class
from edge_app import cases
from edge_app.i18n import language
from edge_app.i18n.language import N_, _
from edge_app.presentation import comparison
from edge_app.presentation.messages import BANDS
from edge_app.referral import review
from edge_app.referral.draft import DraftPicture
from edge_app.referral.form import IMMERSIONS
from edge_app.screens.send_step import SendStep, choice, yes_or_no
from edge_app.ui.text import Text
from edge_app.ui.widgets import Card, Column, More, Tick

SHOWN = 6  # pictures; more on demand
THUMBNAIL = 240  # px, long side
# Of form.KINDS, short.
CHIPS = {"overview": N_("Overview"), "close_up": N_("Close-up"), "dermoscopic": N_("Dermoscopic")}


class SendPicture(Card):
    """A picture of the spot: whether it is sent, and as what."""

    band = ObjectProperty(BANDS["retake"], rebind=True)
    when = StringProperty()

    def develop(self, pixels: np.ndarray) -> None:
        self.ids.picture.show(pixels)


class PicturesStep(SendStep):
    def fill(self) -> None:
        draft = self.draft
        self.add_widget(
            Text(text=_("Which pictures are sent, and what do they show?"), style="page", bold=True)
        )
        self._rows = self._column()
        self._list(draft.pictures)
        if draft.unreadable:
            words = language.n_(
                "{count} picture is of a newer dermedge and cannot be sent.",
                "{count} pictures are of a newer dermedge and cannot be sent.",
                draft.unreadable,
            )
            self.add_widget(Text(text=words, style="page"))
        self._scope = self._column()
        card = Card()
        question = _("Can the person be recognized: a face, a tattoo, jewellery?")
        card.add_widget(yes_or_no(question, draft.recognizable, self._recognize))
        self.add_widget(card)
        self._gaps = self._column()
        self._update()

    def _column(self) -> Column:
        column = Column()
        self.add_widget(column)
        return column

    def _list(self, pictures: list[DraftPicture]) -> None:
        store = self.app.session.opened()
        for picture in pictures[:SHOWN]:
            shown = comparison.shown(picture.capture)
            card = SendPicture(band=shown.band, when=shown.when)
            tick = Tick(text=_("Send this picture"), on=picture.selected)
            kinds = choice("", CHIPS, picture.kind or None, partial(self._kind, picture, tick))
            tick.bind(on=partial(self._tick, picture))
            card.ids.sent.add_widget(tick)
            card.add_widget(kinds)
            self._rows.add_widget(card)
            self.app.work(partial(cases.picture, store, picture.capture, THUMBNAIL), card.develop)
        if len(pictures) > SHOWN:
            self._rows.add_widget(More(lambda: self._list(pictures[SHOWN:])))

    def _tick(self, picture: DraftPicture, _tick: object, on: bool) -> None:
        picture.selected = on
        self._update()

    def _kind(self, picture: DraftPicture, tick: Tick, kind: str | None) -> None:
        """Who says what it shows wants it to be sent."""
        picture.kind = kind or ""
        if kind:
            tick.on = True
        self._update()

    def _recognize(self, answer: bool | None) -> None:
        self.draft.recognizable = answer
        self._update()

    # ------------------------------------------------------------------------ the dermoscope

    def _update(self) -> None:
        self._ask_for_dermoscope()
        self._gaps.clear_widgets()
        gaps: list[str] = []
        self.app.attempt(
            lambda: gaps.extend(str(it) for it in review.picture_gaps([*self.draft.referred()]))
        )
        if gaps:
            card = Card()
            card.add_widget(Text(text=_("What is missing"), style="quiet", points=14, bold=True))
            for gap in gaps:
                card.add_widget(Text(text=gap, points=15))
            self._gaps.add_widget(card)
        self.changed()

    def _ask_for_dermoscope(self) -> None:
        """Once a device: what was said stays, and can be changed here."""
        if self.draft.dermoscopic == bool(self._scope.children):
            return
        self._scope.clear_widgets()
        if self.draft.dermoscopic:
            card = Card(spacing=10)
            self._scope.add_widget(card)
            self._fill_scope(card)

    def _fill_scope(self, card: Card) -> None:
        scope = self.draft.dermoscope
        card.clear_widgets()
        card.add_widget(
            Text(text=_("The dermoscope of this device"), style="quiet", points=14, bold=True)
        )
        card.add_widget(
            choice(
                _("How is it held?"),
                {True: N_("On the skin"), False: N_("Above the skin")},
                scope.contact,
                partial(self._set_contact, card),
            )
        )
        card.add_widget(
            choice(
                _("Its light"),
                {True: N_("Polarized"), False: N_("Not polarized")},
                scope.polarized,
                lambda value: self._set_scope(polarized=value),
            )
        )
        if scope.contact:
            card.add_widget(
                choice(
                    _("What is between it and the skin?"),
                    IMMERSIONS,
                    scope.immersion,
                    lambda value: self._set_scope(immersion=value),
                )
            )

    def _set_contact(self, card: Card, contact: bool | None) -> None:
        immersion = self.draft.dermoscope.immersion if contact else None
        self._set_scope(contact=contact, immersion=immersion)
        self._fill_scope(card)

    def _set_scope(self, **values: Any) -> None:
        self.draft.dermoscope = replace(self.draft.dermoscope, **values)
        self._update()

    def fault(self) -> str:
        if not self.draft.selected:
            return _("Choose a picture.")
        if not all(picture.kind for picture in self.draft.selected):
            return _("Say of each picture what it shows.")
        return ""
