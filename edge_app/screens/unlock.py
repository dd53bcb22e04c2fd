"""The passphrase that opens the store, or makes it the first time."""

from __future__ import annotations

from kivy.properties import BooleanProperty, StringProperty

import edge_app.ui.strength  # noqa: F401  the .kv names its class
from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.screens.view import View, load_kv
from edge_app.self_check import Check


class UnlockScreen(View):
    there = BooleanProperty(True)  # the store was made before
    fault = StringProperty()

    def show(self) -> None:
        self.there = self.app.session.store_path.exists()
        self._clear()

    def hide(self) -> None:
        self._clear()

    def enter(self) -> None:
        session, typed = self.app.session, self.ids.first.text
        if not self.there and typed != self.ids.second.text:
            self.fault = _("The two are not the same.")
            return
        action = session.unlock if self.there else session.create
        message = _("Opening the cases.") if self.there else _("Making the store.")
        self.app.work(lambda: action(typed), self._opened, message, self._refused)

    def _opened(self, _result) -> None:
        self.app.attempt(self._check_clock)
        self.app.passed()

    def _check_clock(self) -> None:
        session = self.app.session
        fault = session.opened().clock_fault()
        others = [check for check in session.faults if check.name != "clock"]
        session.faults = [*others, *([Check("clock", False, fault)] if fault else [])]
        if fault:
            self.app.tell(language.sentence(_(fault)))

    def _refused(self, message: str) -> None:
        self._clear()
        self.fault = message

    def _clear(self) -> None:
        self.fault = ""
        self.ids.first.text = self.ids.second.text = ""


load_kv(__file__)
