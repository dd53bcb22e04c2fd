"""The form that changes a passphrase or PIN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from edge_app.i18n.language import _
from edge_app.presentation import messages as present
from edge_app.session import Erased
from edge_app.ui.strength import StrengthBar
from edge_app.ui.widgets import Card, Field, Press


class SecretForm(Card):
    """What is to be typed; `press` belongs to the foot of the page, and does it."""

    def __init__(
        self, app: Any, now: str, new: str, action: Callable[[str, str], Any], digits: bool
    ) -> None:
        """`now`, `new` : captions. `action` : takes the old and the new one, beside the screen."""
        super().__init__()
        self._app, self._action, self._digits = app, action, digits
        captions = (now, new, _("Once more"))
        fields = [Field(caption=caption, secret=True, digits=digits) for caption in captions]
        self._old, self._first, self._second = fields
        self._strength = StrengthBar(own=True)
        for field in fields:
            self.add_widget(field)
            field.bind(text=self._typed)
        if not digits:
            self._first.bind(text=self._strength.setter("text"))
            self.add_widget(self._strength, self.children.index(self._first))
        self.press = Press(text=_("Change"), disabled=True)
        self.press.bind(on_release=self._change)

    def _typed(self, *_values: object) -> None:
        self._old.fault = ""
        first, second = self._first.text, self._second.text
        differ = len(second) >= len(first) and second != first
        self._second.fault = _("The two are not the same.") if differ else ""
        good = self._strength.good or self._digits
        self.press.disabled = not (self._old.text and good and first == second)

    def _change(self, _press: object) -> None:
        action = partial(self._action, self._old.text, self._first.text)
        self._app.work(action, self._changed, _("One moment."), self._refused, True)

    def _changed(self, result: Erased | None) -> None:
        left = result.error if result is not None else None
        self._app.back()
        self._app.tell(_("Changed.") if left is None else present.error_line(left))

    def _refused(self, message: str) -> None:
        self._old.fault = message
