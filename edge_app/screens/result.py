"""The result screen: what was found in the pictures of one lesion, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from kivy.properties import BooleanProperty, ObjectProperty, StringProperty
from kivy.uix.boxlayout import BoxLayout

import edge_app.ui.picture_view as drawn
from dermedge.combine import Combined
from dermedge.taxonomy import TITLES as CLASSES
from edge_app import cases
from edge_app.capture.shots import Result
from edge_app.i18n.language import _
from edge_app.presentation import comparison
from edge_app.presentation import messages as present
from edge_app.presentation.messages import BANDS, ResultView
from edge_app.screens.view import View, load_kv
from edge_app.session import Erased, Session
from edge_app.store.store import Capture
from edge_app.ui.text import Text
from edge_app.ui.widgets import Card, Item, Panel, Press, Row, StageOption

DETAILS = ord("d")


class BandCard(Card):
    """The risk band."""

    band = ObjectProperty(BANDS["retake"], rebind=True)
    estimate = StringProperty()
    several = StringProperty()


class TextCard(Card):
    """A title and paragraphs."""

    title = StringProperty()

    def __init__(self, title: str, lines: Iterable[str]):
        super().__init__(title=title)
        for line in lines:
            self.add_widget(Text(text=line))


class TableCard(Card):
    """A title and rows of names and values."""

    title = StringProperty()

    def __init__(self, title: str, rows: Iterable[tuple[str, str]]):
        super().__init__(title=title)
        for name, value in rows:
            self.add_widget(Row(name=name, value=value))


class CaseCard(Card):
    """Labelled cases that are similar, with their pictures."""

    def __init__(self, cases: Iterable[tuple[str, np.ndarray]]):
        super().__init__()
        for label, pixels in cases:
            case = CasePicture(label=_(CLASSES[label]))
            case.ids.picture.extent = [pixels.shape[1], pixels.shape[0]]
            case.ids.picture.show(pixels)
            self.ids.cases.add_widget(case)


class CasePicture(BoxLayout):
    label = StringProperty()


class ResultScreen(View):
    """Of the series; or, with `stored`, of a capture that was taken before."""

    details = BooleanProperty(False)
    title = StringProperty()
    caption = StringProperty()  # of what is drawn on the picture
    view: ResultView | None = ObjectProperty(None, allownone=True)
    _result = Result()
    _stored: Capture | None = None

    @classmethod
    def over(cls, session: Session, **values: Any) -> bool:
        # Of the series, where another one was begun since.
        return values.get("stored") is None and not session.results

    def show(self, stored: Capture | None = None) -> None:
        self.details, self._stored = False, stored
        self.seat()
        self.app.bind(portrait=self.seat)
        if stored is None:
            session = self.app.session
            self.title = _("Result")
            self._fill(session.results[-1], *session.together())
            if session.saved and session.lesion is not None:
                if session.operator:
                    self._offer([result.record_id for result in session.results])
                text = present.kept(session.person, session.lesion)
                note = Panel(text=text, style="plain", bold=True)
                self.ids.cards.add_widget(note, len(self.ids.cards.children))
        else:
            self.title = comparison.when(stored)
            self._fill(Result(analysis=stored.analysis, record_id=stored.id))
            session = self.app.session
            self._offer([stored.id])
            self.app.work(lambda: cases.picture(session.opened(), stored), self._developed)
        self._foot(stored)

    def hide(self) -> None:
        self.app.unbind(portrait=self.seat)
        self.ids.picture.show(None)
        self._result, self._stored, self.view = Result(), None, None

    def _developed(self, pixels: np.ndarray) -> None:
        self._result = replace(self._result, pixels=pixels)
        self._choose("outline")

    def _fill(self, result: Result, together: Combined | None = None, others: int = 0) -> None:
        self._result = result
        self.view = view = present.result(result.analysis, together, others)
        self.ids.picture.extent = view.extent
        self._layers()
        self._choose("outline")
        self._cards(view)

    # ------------------------------------------------------------------------ the picture

    def _layers(self) -> None:
        row = self.ids.layers
        row.clear_widgets()
        layers = [("outline", _("Outline")), ("measures", _("Measures")), ("heat", _("Risk map"))]
        for key, text in layers:
            option = StageOption(text=text, key=key)
            option.disabled = not self._has(key)
            option.bind(on_release=lambda pressed: self._choose(pressed.key))
            row.add_widget(option)

    def _has(self, layer: str) -> bool:
        analysis, bundle = self._result.analysis, self.app.worker.bundle
        usable = analysis["triage"] != "retake"
        if layer == "heat":  # of another model it would explain nothing
            return usable and analysis["versions"]["bundle_sha256"] == bundle.sha256
        return layer == "outline" or (usable and bool(drawn.measures(analysis)))

    def _choose(self, layer: str) -> None:
        result, picture, self._layer = self._result, self.ids.picture, layer
        self.caption = ""
        for option in self.ids.layers.children:
            option.chosen = option.key == layer
        if layer == "heat":
            self.app.work(partial(_risk_map, self.app, result, self._stored), self._mapped,
                          failed=self._unmapped)  # fmt: skip
        else:
            picture.show(result.pixels)
        picture.outline = [] if layer == "heat" or self.view is None else self.view.outline
        size = result.analysis["abcd"]["diameter_mm"]
        text = present.millimetres(size) if size else ""
        picture.marks = drawn.measures(result.analysis, text) if layer == "measures" else {}

    def _mapped(self, pixels: np.ndarray | None) -> None:
        if pixels is None:
            self._unmapped(_("This model gives no risk map."))
        elif self._layer == "heat":
            self.ids.picture.show(pixels)
            self.caption = _("The darker a place is, the more it speaks for a malignant spot.")

    def _unmapped(self, text: str) -> None:
        self.app.tell(text)
        self._choose("outline")

    # ------------------------------------------------------------------------ the words

    def _cards(self, view: ResultView) -> None:
        cards = self.ids.cards
        self.ids.scroll.scroll_y = 1
        cards.clear_widgets()
        if view.demonstration:
            cards.add_widget(Panel(text=view.demonstration, style="demo", points=13))
        band = {"band": view.band, "estimate": view.estimate, "several": view.several}
        cards.add_widget(BandCard(style=view.band.style, **band))
        cards.add_widget(TextCard(_("What to do next"), [view.band.advice]))
        if view.remarks:
            cards.add_widget(TextCard(_("About this picture"), view.remarks))
        if view.measures:
            cards.add_widget(TableCard(_("What was measured"), view.measures))
        if view.limits:
            cards.add_widget(TextCard(_("What limits this estimate"), view.limits))

    def on_details(self, *_args) -> None:
        below = self.ids.below
        below.clear_widgets()
        if self.details and self.view is not None:
            if self.view.classes:
                below.add_widget(TableCard(_("How the model sees it"), self.view.classes))
            if self._result.similar:
                below.add_widget(CaseCard(self._result.similar))
            below.add_widget(TextCard(_("Versions"), [self.view.versions]))

    def reveal(self) -> None:
        """Scroll to the details that were just opened: they would open out of sight."""
        area, cards, below = self.ids.scroll, self.ids.cards, self.ids.below
        above = cards.height + 2 * cards.spacing
        if self.app.portrait:
            above += self.ids.stage.height
        hidden = above + self.ids.toggle.height + 2 * cards.spacing + below.height - area.height
        if self.details and hidden > 0:
            area.scroll_y = 1 - min(above / hidden, 1)

    # ------------------------------------------------------------------------ what next

    def _foot(self, stored: Capture | None) -> None:
        foot, session = self.ids.foot, self.app.session
        foot.clear_widgets()
        if stored is not None:
            self._button(_("Delete"), "plain", lambda: self._delete(stored))
            report = partial(self.app.go, "files", task="report", capture=stored)
            self._button(_("Report (PDF)"), "button", report)
            return
        # Of the same lesion: they give one result.
        self._button(_("Another picture"), "plain", partial(self.app.replace, "live"))
        if session.saved:
            self._button(_("Done"), "button", self.app.back)
        elif session.kiosk and not session.operator:
            self._button(_("Done"), "button", self.app.reset)
        else:
            self._button(_("Keep it"), "button", lambda: self.app.go("people", task="keep"))

    def _offer(self, captures: list[str]) -> None:
        """The way to a dermatologist, right below the advice."""
        item = Item(
            icon="send",
            title=_("Send to a dermatologist"),
            message=_("Pictures and history; you see all of it before it leaves."),
        )
        item.bind(on_release=lambda _item: self.app.go("send", captures=captures))
        cards = self.ids.cards
        advice = next(it for it in reversed(cards.children) if isinstance(it, TextCard))
        cards.add_widget(item, cards.children.index(advice))

    def _button(self, text: str, style: str, action: Callable[[], None]) -> None:
        press = Press(text=text, style=style)
        press.bind(on_release=lambda _press: action())
        self.ids.foot.add_widget(press)

    def _delete(self, stored: Capture) -> None:
        def deleted(erased: Erased) -> None:
            self.app.back()
            self.app.tell(present.erased(erased.error, erased.elsewhere))

        def confirmed() -> None:
            action = partial(self.app.session.delete_capture, stored.id)
            self.app.work(action, deleted, _("Deleting."), writes=True)

        self.app.ask(
            _("Delete this picture?"),
            _("The picture and its result are removed from this device for good."),
            _("Delete"),
            confirmed,
            style="danger",
        )

    def key(self, code: int) -> bool:
        if code == DETAILS:
            self.details = not self.details
        return code == DETAILS


def _risk_map(app: Any, result: Result, stored: Capture | None) -> np.ndarray | None:
    """Of the analysis that is shown; a stored one is made once more, and compared."""
    explained = result.explained
    if explained is None and stored is not None:
        explained = cases.explained(app.session.opened(), stored, app.worker.processor)
    return explained.risk_map() if explained is not None else None


load_kv(__file__)
