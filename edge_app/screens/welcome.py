"""The first screen: what the app is and is not, the language, consent."""

from __future__ import annotations

from kivy.properties import StringProperty

from edge_app.i18n import language
from edge_app.presentation import messages as present
from edge_app.screens.view import View, load_kv
from edge_app.ui.text import Text


class WelcomeScreen(View):
    faults = StringProperty()

    def show(self) -> None:
        self.faults = present.faults(self.app.session.faults, self.app.worker.snapshot())
        terms = self.ids.terms
        terms.clear_widgets()
        for text in present.terms(self.app.session.kiosk):
            terms.add_widget(Text(text=text))

    def speak(self, code: str) -> None:
        if code and code != language.current():
            self.app.restyle(language=code)

    def start(self) -> None:
        if self.app.attempt(self.app.session.agree):
            self.app.start()


load_kv(__file__)
