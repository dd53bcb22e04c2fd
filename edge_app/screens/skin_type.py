"""Ten questions that give the skin type, one at a time."""

from __future__ import annotations

from kivy.properties import NumericProperty, StringProperty

from edge_app.follow_up.people import Draft
from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.presentation import skin_type
from edge_app.screens.view import View, load_kv
from edge_app.ui.text import Text
from edge_app.ui.widgets import Across, Panel, Press

COUNT = len(skin_type.QUESTIONS)


class SkinTypeScreen(View):
    operator = unlocked = True
    step = NumericProperty(0)  # number of the question, COUNT: all are answered
    title = StringProperty()
    message = StringProperty()
    more = StringProperty()

    def show(self, draft: Draft) -> None:
        self._draft = draft
        self._answers: list[int] = []
        self._fill()

    def hide(self) -> None:
        self._answers = []

    def may_leave(self) -> bool:
        """Back leads to the question before."""
        if not self._answers:
            return True
        self._answers.pop()
        self._fill()
        return False

    def answer(self, points: int) -> None:
        self._answers.append(points)
        self._fill()

    def take(self) -> None:
        """Write the type into the form."""
        self._draft.skin_type = skin_type.skin_type(self._answers)
        self.app.back(sure=True)

    def _fill(self) -> None:
        self.step = len(self._answers)
        self.ids.answers.clear_widgets()
        self.ids.foot.clear_widgets()
        if self.step == COUNT:
            number = skin_type.skin_type(self._answers)
            self.title = _("Skin type")
            self.message = _("Skin type {name}", name=skin_type.NAMES[number - 1])
            self.more = _(skin_type.TITLES[number - 1])
            scale = Across(size_hint_y=None)
            for n, name in enumerate(skin_type.NAMES, 1):
                style = "chosen" if n == number else "plain"
                scale.add_widget(Panel(text=name, style=style, align="center", bold=n == number))
            scale.bind(minimum_height=scale.setter("height"))
            self.ids.answers.add_widget(scale)
            points = language.n_(
                "{points} of {count} point, after Fitzpatrick (1988)",
                "{points} of {count} points, after Fitzpatrick (1988)",
                COUNT * skin_type.MOST,
                points=language.number(skin_type.score(self._answers)),
            )
            self.ids.answers.add_widget(Text(text=points, style="page_quiet", points=14))
            use = Press(text=_("Use this type"), points=18)
            use.bind(on_release=lambda _press: self.take())
            self.ids.foot.add_widget(use)
            return
        question = skin_type.QUESTIONS[self.step]
        self.title = _(
            "Question {number} of {last}",
            number=language.number(self.step + 1),
            last=language.number(COUNT),
        )
        self.message, self.more = _(question.text), ""
        for number, message in enumerate(question.answers):
            press = Press(text=_(message), style="plain")
            press.bind(on_release=lambda _press, points=number: self.answer(points))
            self.ids.answers.add_widget(press)


load_kv(__file__)
