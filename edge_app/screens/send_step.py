"""What the steps of sending have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_app.i18n.language import _
from edge_app.referral.draft import Draft
from edge_app.ui.widgets import Column, Options


class SendStep(Column):
    """One page of the form: writes into the draft at once, and calls `changed` after it."""

    def __init__(self, app: Any, draft: Draft, changed: Callable[[], None]) -> None:
        super().__init__()
        self.app, self.draft, self.changed = app, draft, changed
        self.fill()

    def fill(self) -> None:
        """Put the widgets in."""

    def fault(self) -> str:
        """Why one cannot go on, in words; empty: one can."""
        return ""


def yes_or_no(caption: str, answer: bool | None, take: Callable[[bool | None], None]) -> Options:
    """A question with two answers that may be left open."""
    options = Options(caption=caption, optional=True)
    options.choices = [(True, _("Yes")), (False, _("No"))]
    options.chosen = [] if answer is None else [answer]
    options.bind(chosen=lambda _options, _chosen: take(options.one))
    return options


def choice(
    caption: str, choices: dict, chosen: Any, take: Callable[[Any], None], optional: bool = True
) -> Options:
    """A question of which one answer is chosen; `choices` are words by key."""
    options = Options(caption=caption, optional=optional)
    options.choices = [(key, _(words)) for key, words in choices.items()]
    options.chosen = [] if chosen is None else [chosen]
    options.bind(chosen=lambda _options, _chosen: take(options.one))
    return options
