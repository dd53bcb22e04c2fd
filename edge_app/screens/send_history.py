"""Second step of sending: what the person says of the spot, and what they and their family had."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kivy.properties import BooleanProperty, ObjectProperty, StringProperty

from edge_app.i18n.language import _
from edge_app.referral.history import GROUPS, ONSETS, QUESTIONS
from edge_app.screens.send_step import SendStep, choice
from edge_app.ui.text import Text
from edge_app.ui.widgets import Across, Card, Press


class YesNo(Across):
    """A question, and its two answers at the end of the line; a second press takes one back."""

    text = StringProperty()
    answer = ObjectProperty(None, allownone=True)  # True, False or None: open
    yes, no = BooleanProperty(False), BooleanProperty(False)

    def __init__(self, text: str, answer: bool | None, take: Callable[[bool | None], None]):
        super().__init__(text=text)
        self.answer = answer
        self.bind(answer=lambda _row, answer: take(answer))

    def on_answer(self, *_args: object) -> None:
        self.yes, self.no = self.answer is True, self.answer is False

    def press(self, answer: bool) -> None:
        self.answer = None if self.answer is answer else answer


class HistoryStep(SendStep):
    def fill(self) -> None:
        card = Card()
        card.add_widget(
            choice(_("Since when is the spot there?"), ONSETS, self.draft.onset, self._since)
        )
        self.add_widget(card)
        for group, title in GROUPS.items():
            self.add_widget(self._group(group, _(title)))

    def _since(self, onset: str | None) -> None:
        self.draft.onset = onset
        self.changed()

    def _group(self, group: str, title: str) -> Card:
        card = Card()
        card.add_widget(Text(text=title, style="quiet", points=14, bold=True))
        rows = []
        for key, question in QUESTIONS.items():
            if question.group != group:
                continue
            answer = self.draft.answers.get(key)
            rows.append(YesNo(_(question.words), answer, partial(self._take, key)))
            card.add_widget(rows[-1])
        press = Press(text=_("No to what is open here"), style="plain")

        def rest(_press: object) -> None:
            for row in rows:
                if row.answer is None:
                    row.answer = False

        press.bind(on_release=rest)
        card.add_widget(press)
        return card

    def _take(self, key: str, answer: bool | None) -> None:
        if answer is None:
            self.draft.answers.pop(key, None)
        else:
            self.draft.answers[key] = answer
        self.changed()
