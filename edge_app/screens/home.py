"""Where each use begins: check a spot, people, settings, and what is due."""

from __future__ import annotations

from datetime import date

from kivy.properties import StringProperty

from edge_app.i18n.language import _
from edge_app.presentation import messages as present
from edge_app.screens.view import View, load_kv
from edge_app.store.store import Lesion, Person
from edge_app.ui.text import Text
from edge_app.ui.widgets import Press


class HomeScreen(View):
    people = StringProperty()
    faults = StringProperty()

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
        if session.operator and session.store is not None:
            self.app.work(lambda: session.due(date.today()), self._remind)

    def _remind(self, due: list[tuple[Lesion, Person]]) -> None:
        if due:
            self.ids.due.add_widget(Text(text=_("To be photographed again"), style="page"))
        for lesion, person in due:
            row = Press(text=present.reminder(lesion, person), style="plain")
            row.bind(on_release=lambda _press, found=(lesion, person): self._open(*found))
            self.ids.due.add_widget(row)

    def _open(self, lesion: Lesion, person: Person) -> None:
        self.app.session.person, self.app.session.lesion = person, lesion
        self.app.go("lesion")

    def check(self) -> None:
        """A sitting of nobody's lesion, until it is kept."""
        self.app.go("live")


load_kv(__file__)
