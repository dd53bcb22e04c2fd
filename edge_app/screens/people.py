"""The people whose spots are followed: search, choose, add.

With `task="keep"` it chooses for whom the pictures of the series are kept.
"""

from __future__ import annotations

from datetime import date

from kivy.clock import Clock
from kivy.properties import ObjectProperty, StringProperty

from dermedge import UserError
from edge_app.follow_up import people
from edge_app.follow_up.people import Draft, Known
from edge_app.i18n.language import _
from edge_app.presentation import body_map
from edge_app.presentation import messages as present
from edge_app.presentation.messages import Band
from edge_app.screens.view import View, load_kv
from edge_app.session import Erased
from edge_app.store.damage import LeftOut, id_of
from edge_app.store.store import Person
from edge_app.ui.widgets import Item, Press, PressCard

SHARE = 30  # people that are shown at once; so many more each time
PAUSE = 0.15  # s without a letter, then it searches
PER_FRAME = 3  # rows that are built between two frames


class PersonRow(PressCard):
    """A person in the list."""

    person: Person | None = None
    title = StringProperty()
    message = StringProperty()
    band: Band = ObjectProperty(present.BANDS["retake"], rebind=True)


class PeopleScreen(View):
    operator = unlocked = True
    task = StringProperty()
    message = StringProperty()  # where nobody is listed

    def show(self, task: str = "") -> None:
        session = self.app.session
        self.task = task
        session.person = None
        if task != "keep":
            session.begin()
        self._later = Clock.create_trigger(lambda _dt: self._search(), PAUSE)
        self._building = Clock.create_trigger(lambda _dt: self._build())
        self._waiting: list[Known] = []
        self._rest: list[Person] = []
        self._search()
        self.app.work(body_map.prepare)  # for the screen that comes next

    def hide(self) -> None:
        self.ids.search.text = ""  # which asks for another search
        self._later.cancel()
        self._building.cancel()
        self.ids.rows.clear_widgets()
        self.ids.more.clear_widgets()
        self.ids.damaged.clear_widgets()

    def search(self) -> None:
        """As one types."""
        if hasattr(self, "_later"):
            self._later()

    def _search(self) -> None:
        store, wanted = self.app.session.opened(), self.ids.search.text
        session, damaged = self.app.session, LeftOut()
        self._later.cancel()

        def leave_out(what: str, error: UserError) -> None:
            damaged(what, error)
            session.leave_out(what, error)

        def find() -> tuple[str, list[Person], list[Known], list[str]]:
            found = store.people(wanted, leave_out)
            nameless = [id for what in damaged.what if (id := id_of("person", what))]
            return wanted, found[SHARE:], people.known(store, found[:SHARE]), nameless

        self.app.work(find, lambda found: self._found(*found))

    def _found(
        self, wanted: str, rest: list[Person], first: list[Known], damaged: list[str]
    ) -> None:
        if wanted != self.ids.search.text:
            return  # more was typed since
        self._offer_to_delete([] if self.task else damaged)
        rows = self.ids.rows
        rows.clear_widgets(rows.children[: max(len(rows.children) - len(first), 0)])
        self.message = ""
        if not first and (wanted or not damaged):
            self.message = _("Nobody was found.") if wanted else _("Nobody is kept here yet.")
        self._at = 0
        self._add(rest, first)

    def _add(self, rest: list[Person], some: list[Known]) -> None:
        self._rest, self._waiting = rest, list(some)
        self.ids.more.clear_widgets()
        self._build()

    def _build(self) -> None:
        """Some rows between two frames: many at once would hold the screen up."""
        now, self._waiting = self._waiting[:PER_FRAME], self._waiting[PER_FRAME:]
        rows = self.ids.rows
        for known in now:
            if self._at == len(rows.children):
                row = PersonRow()
                row.bind(on_release=lambda row: self._choose(row.person))
                rows.add_widget(row)
            # Rows that are there show somebody else; making them again takes ten times as long.
            row = rows.children[-1 - self._at]
            self._at += 1
            row.person, row.title = known.person, known.person.name
            row.message = present.row(known, date.today())
            row.band = present.estimated(known.triage)
        if self._waiting:
            self._building()
        elif self._rest:
            more = Press(text=_("Show more people"), style="plain")
            more.bind(on_release=lambda _press: self._more())
            self.ids.more.add_widget(more)

    def _more(self) -> None:
        self.ids.more.clear_widgets()  # a second press would add the same people once more
        store, rest = self.app.session.opened(), self._rest
        self.app.work(
            lambda: people.known(store, rest[:SHARE]), lambda some: self._add(rest[SHARE:], some)
        )

    def _choose(self, person: Person) -> None:
        self.app.session.person = person
        self.app.go("person", task=self.task)

    def _offer_to_delete(self, damaged: list[str]) -> None:
        """Of people whose record cannot be read: nothing else can be done with them here."""
        self.ids.damaged.clear_widgets()
        for id in damaged:
            item = Item(icon="people", title=_("Damaged person"), message=id)
            item.bind(on_release=lambda _item, id=id: self._delete(id))
            self.ids.damaged.add_widget(item)

    def _delete(self, id: str) -> None:
        app, session = self.app, self.app.session

        def done(erased: Erased) -> None:
            self._search()
            app.tell(present.erased(erased.error, erased.elsewhere))

        app.ask(
            _("Delete {name}?", name=_("Damaged person")),
            _(
                "Who it is cannot be read. A file that was exported before and holds this person "
                "puts it back when it is imported. Else the person with all spots, pictures and "
                "results is removed from here for good."
            ),
            _("Delete"),
            lambda: app.work(lambda: session.delete_person(id), done, _("Deleting."), writes=True),
            style="danger",
        )

    def add(self) -> None:
        """Somebody new, called as was searched for."""
        draft = Draft(name=self.ids.search.text.strip())
        self.app.go("person_form", draft=draft, task=self.task)


load_kv(__file__)
