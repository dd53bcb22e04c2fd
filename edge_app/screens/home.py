"""Where each use begins: check a spot, people, settings, and what is due."""

from __future__ import annotations

from datetime import date
from typing import Any

from kivy.clock import Clock
from kivy.factory import Factory
from kivy.properties import StringProperty

from edge_app import sending
from edge_app.i18n import language
from edge_app.i18n.language import N_, _
from edge_app.presentation import messages as present
from edge_app.referral.outbox import ANSWERED, DONE, STOPPED
from edge_app.screens.view import View, load_kv
from edge_app.store.store import Lesion, Person
from edge_app.ui.text import Text
from edge_app.ui.widgets import More, Press

REFRESH = 15.0  # s between two counts of what was sent
SHOWN = 20  # of what is due, at once
COUNTS = {
    "waiting": N_("Waiting: {number}"),
    DONE: N_("Received: {number}"),
    ANSWERED: N_("Answered: {number}"),
}


class HomeScreen(View):
    people = StringProperty()
    faults = StringProperty()
    _way: Any = None  # the card of what was sent; None: there is none
    _counts: dict[str, int] | None = None  # that it shows

    def show(self) -> None:
        session = self.app.session
        session.begin()
        session.person = None
        if not session.operator:
            self.people = _("For the operator of this device")
        elif session.store is None:
            self.people = _("Locked") if session.store_path.exists() else _("Nothing kept yet")
        else:
            self.people = _("Pictures over time, comparisons, reports")
        self.faults = present.faults(session.faults, self.app.worker.snapshot())
        self.ids.due.clear_widgets()
        self.ids.sent.clear_widgets()
        self._way, self._counts = None, None
        if session.operator and session.store is not None:
            self.app.work(lambda: session.due(date.today()), self._remind)
            self._count()
            Clock.schedule_interval(self._count, REFRESH)

    def hide(self) -> None:
        Clock.unschedule(self._count)

    # ------------------------------------------------------------------------ what was sent

    def _count(self, *_args: object) -> None:
        store = self.app.session.store
        if store is not None:
            # What keeps it from being counted is said where it is asked for.
            self.app.work(lambda: sending.counts(store), self._sent, failed=lambda _line: None)

    def _sent(self, counts: dict[str, int]) -> None:
        """Waiting, received and answered; nothing where nothing was ever sent."""
        if counts == self._counts or not any(counts.values()):
            return
        self._counts = counts
        words = [_(title, number=language.number(counts[group])) for group, title in COUNTS.items()]
        if self._way is None:
            self._way = Factory.Way(icon="mail", title=_("Sent to a dermatologist"))
            self._way.bind(on_release=lambda _way: self.app.go("referrals"))
            self.ids.sent.add_widget(self._way)
        if counts[STOPPED]:
            words.insert(0, _("Stopped: {number}", number=language.number(counts[STOPPED])))
        self._way.message = present.SEPARATOR.join(words)

    # ------------------------------------------------------------------------ what is due

    def _remind(self, due: list[tuple[Lesion, Person]]) -> None:
        if due:
            self.ids.due.add_widget(Text(text=_("To be photographed again"), style="page"))
        self._more(due)

    def _more(self, due: list[tuple[Lesion, Person]]) -> None:
        """The next of them, and a press for those after them: many at once hold the screen up."""
        rows = self.ids.due
        for lesion, person in due[:SHOWN]:
            row = Press(text=present.reminder(lesion, person), style="plain")
            row.bind(on_release=lambda _press, found=(lesion, person): self._open(*found))
            rows.add_widget(row)
        if len(due) > SHOWN:
            rows.add_widget(More(lambda: self._more(due[SHOWN:])))

    def _open(self, lesion: Lesion, person: Person) -> None:
        self.app.session.person, self.app.session.lesion = person, lesion
        self.app.go("lesion")

    def check(self) -> None:
        """A series of nobody's lesion, until it is kept."""
        self.app.go("live")


load_kv(__file__)
