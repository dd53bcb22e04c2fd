"""Opening a file, or choosing where one is written, and what else that needs first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from kivy.clock import Clock
from kivy.properties import BooleanProperty, StringProperty

import edge_app.ui.strength  # noqa: F401  the .kv names its class
from dermedge import UserError
from dermedge.image.read import EXTENSIONS
from dermedge.lesion.scale import PAPERS
from edge_app import browser, cases, sending
from edge_app.documents.pdf import LESION_FIELDS, PERSON_FIELDS
from edge_app.i18n.language import N_, _
from edge_app.presentation import messages as present
from edge_app.screens.view import View, load_kv
from edge_app.store.referrals import StoredAnswer
from edge_app.store.store import Capture, Person
from edge_app.ui.picture_view import PictureView
from edge_app.ui.text import Text
from edge_app.ui.widgets import Item, More

THUMBNAIL = 160  # px, long side
SHOWN, AT_ONCE = 60, 4  # entries of a folder: more on demand; in one frame
# What each task is called, which endings it opens, and how its form is called.
TITLES = {
    "picture": N_("Choose a picture"),
    "import": N_("Choose a file of cases"),
    "report": N_("Report (PDF): where to?"),
    "export": N_("Export: where to?"),
    "card": N_("Size card: where to?"),
    "answer": N_("PDF of the answer: where to?"),
    "pem": N_("Choose a certificate or key"),
    "stick": N_("Sealed files: where to?"),
}
OPENS = {
    "picture": EXTENSIONS,
    "import": frozenset({cases.FILE_ENDING}),
    "pem": frozenset({".pem", ".crt", ".cer", ".key"}),
}
FORMS = {
    "import": (N_("Import cases"), N_("Import")),
    "report": (N_("What to print"), N_("Write the report")),
    "export": (N_("Export cases"), N_("Export")),
    "card": (N_("Size card"), N_("Write the card")),
    "answer": (N_("PDF of the answer"), N_("Save")),
}
WAITING = {
    "import": N_("Importing. This may take a while."),
    "export": N_("Exporting. This may take a while."),
    "card": N_("Writing."),
    "report": N_("Writing the report."),
    "answer": N_("Writing."),
}
PLACES = {
    "stick": ("stick", N_("Memory stick or card")),
    "home": ("home", N_("Home folder")),
    "device": ("device", N_("This device")),
}
NO_FILES = {
    "picture": N_("No pictures and no folders here."),
    "import": N_("No files of exported cases and no folders here."),
    "pem": N_("No certificates and no folders here."),
}


class PictureItem(Item):
    """A picture file; its icon gives way to the picture."""

    def show(self, pixels: np.ndarray) -> None:
        across, icon = self.ids.across, self.ids.icon.__self__
        picture = PictureView(size_hint=(None, None), size=icon.size, pos_hint=icon.pos_hint)
        at = across.children.index(icon)
        across.remove_widget(icon)
        across.add_widget(picture, at)
        picture.show(pixels)


class FilesScreen(View):
    """For one of TITLES: first a browser; with a file or folder `at`, what else is needed.

    With `take`, it is called beside the screen with what was chosen, and that is all.
    """

    title = StringProperty()
    task = StringProperty("picture")
    folder = StringProperty()  # name of the one that is shown; empty: where to start
    form = BooleanProperty(False)
    action = StringProperty()
    ready = BooleanProperty(False)  # whether the foot's button may be pressed
    where = StringProperty()

    @classmethod
    def needs(cls, task: str, **_values) -> tuple[bool, bool]:
        return True, task not in ("picture", "card")

    def show(
        self,
        task: str,
        capture: Capture | None = None,
        earlier: Capture | None = None,
        only: Person | None = None,
        at: Path | None = None,
        answer: StoredAnswer | None = None,
        take: Callable[[Path], None] | None = None,
    ) -> None:
        phone = self.app.phone
        if phone is not None and at is None and take is None and task not in OPENS:
            at = phone.documents()  # an app sees no other folder there
        self.task, self._at, self._answer, self._use = task, at, answer, take
        self._capture, self._earlier, self._only = capture, earlier, only
        self.form = at is not None
        self._starts: set[Path] = set()
        self._undeveloped: list[PictureItem] = []
        self._empty()
        self._clear_form()
        if at is None:
            self.title = _(TITLES[task])
            self.action = "" if task in OPENS else _("Choose this folder")
            if phone is not None:
                if task in OPENS:
                    phone.pick(task, self._picked)
                else:
                    self._go_on(phone.documents())
                return
            start = browser.nearest(self.app.session.folder)
            self.places() if start is None else self._open(start)
            return
        title, action = FORMS[task]
        self.title, self.action = _(title), _(action)
        self.where = _("From: {path}", path=at.name) if task == "import" else (
            _("Into: {path}", path=at)
        )  # fmt: skip
        self._fill_form()

    def hide(self) -> None:
        self._empty()
        self._clear_form()

    # ------------------------------------------------------------------------ the browser

    def _empty(self) -> None:
        Clock.unschedule(self._add)
        self._undeveloped = []
        self.ids.list.clear_widgets()

    def places(self) -> None:
        """Where to start from."""
        self._empty()
        self._path: Path | None = None
        self.folder, self.ready = "", False
        self.app.work(browser.places, self._list_places)

    def _list_places(self, places: list[browser.Place]) -> None:
        if self.form or self._path is not None:
            return
        self.ids.list.clear_widgets()
        for place in places:
            icon, message = PLACES[place.kind]
            title, quiet = _(message), str(place.path)
            if place.kind == "stick":
                title, quiet = place.path.name, title
            item = Item(icon=icon, title=title, message=quiet)
            item.bind(on_release=lambda _item, path=place.path: self._open(path))
            self.ids.list.add_widget(item)

    def _open(self, folder: Path) -> None:
        endings = OPENS.get(self.task, frozenset())
        self._path, self.folder = folder, folder.name or str(folder)
        self.ready = False
        self._empty()
        self.ids.page.to_top()
        task = self.task

        def read() -> tuple[set[Path], list[browser.Item]]:
            return {place.path for place in browser.places()}, browser.listing(folder, endings)

        def listed(found) -> None:
            if (self.form, self.task, self._path) == (False, task, folder):
                self._listed(*found)  # else another one was opened meanwhile

        self.app.work(read, listed, failed=self._unreadable)

    def _listed(self, starts: set[Path], items: list[browser.Item]) -> None:
        self.app.session.folder, self._starts = self._path, starts
        self.ready = self.task not in OPENS
        self._items, self._until = items, 0
        if not items:
            message = _(NO_FILES.get(self.task, N_("No folders in here.")))
            self.ids.list.add_widget(Text(text=message, style="page_quiet"))
        self._more()

    def _unreadable(self, message: str) -> None:
        if self._path is not None and not self.form:
            self.ids.list.clear_widgets()
            self.ids.list.add_widget(Text(text=message, style="page_quiet"))

    def _more(self) -> None:
        """The next entries of the folder, some with each frame, so that the screen goes on."""
        self._until += SHOWN
        self._add()

    def _add(self, *_args) -> None:
        rows, items, idle = self.ids.list, self._items, not self._undeveloped
        shown = len(rows.children)
        for entry in items[shown : min(shown + AT_ONCE, self._until)]:
            kind = PictureItem if self.task == "picture" and not entry.folder else Item
            icon, message = "folder" if entry.folder else "file", browser.details(entry)
            item = kind(icon=icon, title=entry.path.name, message=message)
            if kind is PictureItem:
                item.path, item.side = entry.path, 56
                self._undeveloped.append(item)
            item.bind(on_release=lambda _item, one=entry: self._choose(one))
            rows.add_widget(item)
        shown = len(rows.children)
        if shown < min(self._until, len(items)):
            Clock.schedule_once(self._add)
        elif shown < len(items):
            rows.add_widget(More(self._more))
        if idle:
            self._develop()

    def _develop(self) -> None:
        """Decode one picture after the other: other work gets its turn between them."""
        if not self._undeveloped:
            return
        item = self._undeveloped[0]

        def developed(pixels: np.ndarray | None) -> None:
            if self._undeveloped[:1] != [item]:
                return  # another folder was opened
            self._undeveloped.pop(0)
            if pixels is not None:
                item.show(pixels)
            self._develop()

        self.app.work(partial(browser.thumbnail, item.path, THUMBNAIL), developed)

    def up(self) -> None:
        """To the folder above, and from where one starts to all such places."""
        above = browser.above(self._path) if self._path is not None else None
        if above is None or self._path in self._starts:
            self.places()
        else:
            self._open(above)

    def _picked(self, answer: Path | UserError | None) -> None:
        """What was chosen with the system's own screen."""
        if self.app.screen is not self:
            self.app.phone.forget()  # somebody else's by now
            return
        if self.form:
            return
        if isinstance(answer, Path):
            self._take(answer)
            return
        self.app.back()
        if answer is not None:
            self.app.tell(present.error_line(answer))

    def _choose(self, entry: browser.Item) -> None:
        self._open(entry.path) if entry.folder else self._take(entry.path)

    def _take(self, path: Path) -> None:
        if self.task == "picture":
            self.app.back(to="live")
            self.app.import_file(path)
        else:
            self._go_on(path)

    def _go_on(self, path: Path) -> None:
        if (take := self._use) is not None:
            self.app.work(lambda: take(path), lambda _none: self._leave(), failed=self._not_taken)
            return
        self.app.go(
            "files",
            task=self.task,
            at=path,
            capture=self._capture,
            earlier=self._earlier,
            only=self._only,
            answer=self._answer,
        )

    # ------------------------------------------------------------------------ the form

    def _clear_form(self) -> None:
        """Nothing that was typed stays behind."""
        ids = self.ids
        ids.first.text = ids.second.text = ids.first.fault = ""
        ids.person.chosen, ids.lesion.chosen = [], []
        ids.paper.chosen = [next(iter(PAPERS))]

    def _fill_form(self) -> None:
        ids = self.ids
        ids.person.choices = [(name, _(title)) for name, title in PERSON_FIELDS.items()]
        ids.lesion.choices = [(f"lesion.{n}", _(title)) for n, title in LESION_FIELDS.items()]
        ids.paper.choices = [
            (name, name.upper() if name == "a4" else _("Letter")) for name in PAPERS
        ]
        self.check()

    def check(self) -> None:
        """Whether what was typed is enough."""
        first, second, twice = self.ids.first.text, self.ids.second.text, self.task == "export"
        self.ids.first.fault = ""
        differ = twice and len(second) >= len(first) and second != first
        self.ids.second.fault = _("The two are not the same.") if differ else ""
        if self.form:
            typed = bool(first) and (not twice or (second == first and self.ids.strength.good))
            self.ready = self.task in ("report", "card", "answer") or typed

    def act(self) -> None:
        """What the foot's button does."""
        if self._at is not None:
            self._act(self._at)
        elif (folder := self._path) is not None:
            self.app.work(lambda: browser.check_writable(folder), lambda _none: self._go_on(folder))

    def _act(self, at: Path) -> None:
        session, typed = self.app.session, self.ids.first.text
        fields = [*self.ids.person.chosen, *self.ids.lesion.chosen]
        capture, earlier, only = self._capture, self._earlier, self._only
        paper, answer = self.ids.paper.one, self._answer
        actions: dict[str, Callable[[], Path | int]] = {
            "import": lambda: session.opened().merge(at, typed),
            "export": lambda: cases.export(session.opened(), at, typed, only, session.leave_out),
            "card": lambda: cases.write_card(at, paper),
        }
        if capture is not None:
            actions["report"] = lambda: cases.write_report(
                session.opened(), at, capture, earlier, fields
            )
        if answer is not None:
            actions["answer"] = lambda: sending.save_document(session.opened(), answer, at)
        action, message = actions[self.task], _(WAITING[self.task])
        self.app.work(action, self._done, message, self._refused, writes=True)

    def _done(self, result: Path | int) -> None:
        """A file was written, or so many pictures came new."""
        self._leave()
        if isinstance(result, Path):
            self.app.tell(_("Written: {name}", name=result.name))
        else:
            self.app.tell(present.imported(result))

    def _leave(self) -> None:
        """Back over form and browser to where one came from."""
        while self.app.here == "files":
            self.app.back()
        if self.app.phone is not None:
            self.app.phone.forget()

    def _not_taken(self, message: str) -> None:
        if self.app.phone is not None:  # here is nothing else to choose from
            self._leave()
        self.app.tell(message)

    def _refused(self, message: str) -> None:
        if self.task in ("import", "export"):
            self.ids.first.fault = message
        else:
            self.app.tell(message)


load_kv(__file__)
