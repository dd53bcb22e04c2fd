"""A receiver: where cases go, as whom, with which certificates; and whether it answers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kivy.properties import BooleanProperty, StringProperty

from edge_app import browser, sending
from edge_app.i18n import language
from edge_app.i18n.language import N_, _
from edge_app.referral.receiver import WAYS, ReceiverDraft
from edge_app.screens.view import View, load_kv
from edge_app.ui.text import Text
from edge_app.ui.widgets import Card, Press

# Fields of text by their names in the form and in the draft.
FIELDS = ("name", "address", "fhir", "called", "calling", "user", "password", "token", "system")
PEMS = {
    "authorities": N_("Certificates that vouch for the receiver"),
    "certificate": N_("Certificate of this device"),
    "key": N_("Key of that certificate"),
}


class ReceiverScreen(View):
    operator = unlocked = True
    title = StringProperty()
    way = StringProperty()
    there = BooleanProperty(False)  # it was entered before
    result = StringProperty()  # of the last test
    fine = BooleanProperty(False)  # whether that went well

    def show(self, draft: ReceiverDraft) -> None:
        self._draft = draft
        self.there, self.way, self.result = bool(draft.before.id), draft.way, ""
        self.title = draft.before.name or _("A new receiver")
        for name in FIELDS:
            self._field(name).text = getattr(draft, name)
        self.ids.way.choices = [(key, _(words)) for key, words in WAYS.items()]
        self.ids.way.chosen = [draft.way]
        self.ids.lossy.on = draft.lossy
        self._pems()

    def hide(self) -> None:
        self._collect()  # it may come back, from choosing a file
        for name in FIELDS:
            self._field(name).text = ""
        self.ids.pems.clear_widgets()
        self.title = self.result = ""

    def _field(self, name: str):
        return self.ids[f"{name}_"]

    def _collect(self) -> None:
        for name in FIELDS:
            setattr(self._draft, name, self._field(name).text)
        self._draft.lossy = self.ids.lossy.on
        self._draft.way = self.way

    def choose(self, way: str | None) -> None:
        """How pictures go."""
        self.way = way or ""
        if self._draft is not None:
            self._draft.way = self.way
            self._pems()

    # ------------------------------------------------------------------------ files

    def _pems(self) -> None:
        """The certificates: whether they are entered, and a press that asks for their files."""
        rows = self.ids.pems
        rows.clear_widgets()
        if self.way == "folder":
            return
        card = Card()
        for name, title in PEMS.items():
            entered = bool(getattr(self._draft, name))
            card.add_widget(Text(text=_(title), points=14, bold=True))
            words = _("Entered: choose another file") if entered else _("Choose a file")
            press = Press(text=words, style="plain")
            press.bind(on_release=lambda _press, name=name: self._ask_for_file(name))
            card.add_widget(press)
            if entered:
                remove = Press(text=_("Remove it"), style="plain")
                remove.bind(on_release=lambda _press, name=name: self._set_pem(name, ""))
                card.add_widget(remove)
        rows.add_widget(card)

    def _ask_for_file(self, name: str) -> None:
        draft = self._draft

        def read(path: Path) -> None:
            setattr(draft, name, browser.read_pem(path))

        self.app.go("files", task="pem", take=read)

    def _set_pem(self, name: str, text: str) -> None:
        setattr(self._draft, name, text)
        self._pems()

    def ask_for_folder(self) -> None:
        """Where sealed files go."""
        draft = self._draft

        def chosen(path: Path) -> None:
            draft.address = str(path)

        self.app.go("files", task="stick", take=chosen)

    # ------------------------------------------------------------------------ done

    def _whole(self) -> bool:
        self._collect()
        fault = next(self._draft.faults(), "")
        self.result, self.fine = _(fault), False
        return not fault

    def check(self) -> None:
        """Ask whether it is there."""
        if not self._whole():
            return
        check = partial(sending.check, self._draft.destination())
        self.app.work(check, self._checked, _("Asking whether it is there."), self._refused)

    def _checked(self, lines: list[str]) -> None:
        self.fine = True
        self.result = "\n".join(language.sentence(_(line)) for line in lines)

    def _refused(self, message: str) -> None:
        self.result, self.fine = message, False

    def save(self) -> None:
        if not self._whole():
            self.app.tell(self.result)
            return
        store, destination = self.app.session.opened(), self._draft.destination()

        def saved(_kept: object) -> None:
            self.app.back()
            self.app.tell(_("Kept: {spot}", spot=destination.name))

        def failed(message: str) -> None:
            self._refused(message)
            self.app.tell(message)

        action = partial(sending.save_destination, store, destination)
        self.app.work(action, saved, _("Saving."), failed, writes=True)

    def delete(self) -> None:
        store, id = self.app.session.opened(), self._draft.before.id

        def confirmed() -> None:
            self.app.work(
                lambda: store.mail.delete_destination(id),
                lambda _none: self.app.back(),
                _("Deleting."),
                self._told,
                writes=True,
            )

        self.app.ask(
            _("Delete {name}?", name=self._draft.before.name),
            _(
                "Its address, passwords and certificates are removed from this device. No more "
                "answers are fetched from it until it is entered again."
            ),
            _("Delete"),
            confirmed,
            style="danger",
        )

    def _told(self, message: str) -> None:
        self._refused(message)
        self.app.tell(message)


load_kv(__file__)
