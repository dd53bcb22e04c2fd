"""A person: who it is, the body map with their spots, the list of them.

With `task="keep"` the spot that is pressed receives the pictures of the series.
"""

from __future__ import annotations

from datetime import date

from kivy.clock import Clock
from kivy.properties import ListProperty, ObjectProperty, StringProperty

import edge_app.ui.body_view as drawn
from edge_app.follow_up import people
from edge_app.follow_up.people import Draft, Spot
from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.presentation import body_map
from edge_app.presentation import messages as present
from edge_app.presentation.messages import Band
from edge_app.screens.view import View, load_kv
from edge_app.session import Erased, Kept
from edge_app.store.store import Lesion, Person
from edge_app.ui.widgets import PressCard

PER_FRAME = 3  # rows that are built between two frames


class SpotRow(PressCard):
    """A spot in the list; its number is that of its mark on the map."""

    number = StringProperty()
    title = StringProperty()
    message = StringProperty()
    band: Band = ObjectProperty(present.BANDS["retake"], rebind=True)


def keep(app, lesion: Lesion) -> None:
    """Save the series' pictures under a spot, a new one too, and go back to their result."""
    session, results = app.session, app.session.results

    def done(kept: Kept) -> None:
        session.accept(kept)
        app.back(to="result")
        if kept.error is not None:
            app.tell(present.error_line(kept.error))

    app.work(lambda: session.keep(lesion, results), done, _("Saving."), writes=True)


class PersonScreen(View):
    operator = unlocked = True
    task = StringProperty()
    who = StringProperty()
    facts = StringProperty()
    risks = StringProperty()
    notes = StringProperty()
    message = StringProperty()
    marks = ListProperty()

    def show(self, task: str = "") -> None:
        app, session = self.app, self.app.session
        self.task = task
        if task != "keep":
            session.begin()
        person, store = session.person, session.opened()
        self.who = person.name
        self.facts = present.facts(person, date.today())
        self.risks = language.capital(
            present.SEPARATOR.join(_(risk) for risk in person.risk_factors)
        )
        self.notes = person.notes
        self.message = ""
        self._waiting: list[tuple[int, Spot]] = []
        self._building = Clock.create_trigger(lambda _dt: self._build())
        self._seat()
        app.bind(portrait=self._seat)

        def find() -> list[Spot]:
            body_map.prepare()
            return people.spots(store, person.id, session.leave_out)

        app.work(find, lambda spots: self._fill(person, spots))

    def hide(self) -> None:
        self.app.unbind(portrait=self._seat)
        self._building.cancel()
        self.marks, self._waiting = [], []
        self.ids.spots.clear_widgets()
        self.who = self.facts = self.risks = self.notes = ""

    def _seat(self, *_args) -> None:
        """The map beside the list, or, where there is no room, above it."""
        card, line = self.ids.map.__self__, self.ids.list
        card.parent.remove_widget(card)
        if self.app.portrait:
            line.add_widget(card, line.children.index(self.ids.known.__self__))
        else:
            self.ids.beside.add_widget(card)

    def _fill(self, person: Person, spots: list[Spot]) -> None:
        if person is not self.app.session.person:
            return  # of somebody who was looked at before
        self.ids.spots.clear_widgets()
        self._waiting = list(enumerate(spots, 1))
        marks = []
        for number, spot in self._waiting:
            band, lesion = present.estimated(spot.triage), spot.lesion
            place = (lesion.view, lesion.x, lesion.y)
            marks.append(drawn.Mark(number, place, band.style, band.shape, lesion))
        self.marks = marks
        self.message = "" if spots else _("No spot yet: press its place on the body.")
        self._build()

    def _build(self) -> None:
        """Some rows between two frames: a hundred at once would hold the screen up."""
        now, self._waiting = self._waiting[:PER_FRAME], self._waiting[PER_FRAME:]
        for number, spot in now:
            lesion, band = spot.lesion, present.estimated(spot.triage)
            row = SpotRow(
                number=str(number), title=lesion.title, message=present.spot(spot), band=band
            )
            row.bind(on_release=lambda _row, lesion=lesion: self.choose(lesion))
            self.ids.spots.add_widget(row)
        if self._waiting:
            self._building()

    # ------------------------------------------------------------------------ spots

    def choose(self, lesion: Lesion) -> None:
        """Open a spot, or keep the series' pictures under it."""
        if self.task == "keep":
            self.app.ask(
                lesion.title,
                _("The picture becomes part of the history of this spot."),
                _("Keep it here"),
                lambda: keep(self.app, lesion),
            )
            return
        self.app.session.lesion = lesion
        self.app.go("lesion")

    def place(self, view: str = "", x: float = 0.5, y: float = 0.5) -> None:
        """A new spot, there or at a place that is still to be chosen."""
        place = (view, x, y) if view else None
        self.app.go("place", place=place, task=self.task)

    # ------------------------------------------------------------------------ the person

    def edit(self) -> None:
        self.app.go("person_form", draft=Draft.of(self.app.session.person))

    def export(self) -> None:
        self.app.go("files", task="export", only=self.app.session.person)

    def delete(self) -> None:
        app, session, person = self.app, self.app.session, self.app.session.person

        def done(erased: Erased) -> None:
            app.back(to="people")
            app.tell(present.erased(erased.error, erased.elsewhere))

        def confirmed() -> None:
            app.work(
                lambda: session.delete_person(person.id),
                done,
                _("Deleting."),
                writes=True,
            )

        app.ask(
            _("Delete {name}?", name=self.who),
            _("The person with all spots, pictures and results is removed from here for good."),
            _("Delete"),
            confirmed,
            style="danger",
        )


load_kv(__file__)
