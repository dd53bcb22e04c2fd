"""The operator's PIN of a kiosk. It is chosen on the console, by nobody who walks by."""

from __future__ import annotations

from kivy.properties import BooleanProperty, StringProperty

from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.kiosk import NO_PIN
from edge_app.screens.view import View, load_kv


class OperatorScreen(View):
    there = BooleanProperty(True)  # a PIN was chosen before; else nobody may enter
    closed = StringProperty()  # what to do where there is none
    fault = StringProperty()

    def show(self) -> None:
        self.there = self.app.session.pin.exists()
        self.closed = language.sentence(_(NO_PIN))
        self._clear()

    def hide(self) -> None:
        self._clear()

    def enter(self) -> None:
        session, typed = self.app.session, self.ids.pin.text
        self.app.work(lambda: session.enter(typed), self._entered, _("One moment."), self._refused)

    def _entered(self, _result) -> None:
        self.app.log("unlocked")
        self.app.passed()

    def _refused(self, message: str) -> None:
        self.app.log("wrong PIN")
        self._clear()
        self.fault = message

    def _clear(self) -> None:
        self.fault = self.ids.pin.text = ""


load_kv(__file__)
