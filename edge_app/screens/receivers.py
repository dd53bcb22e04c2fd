"""Who takes cases: the receivers that are entered on this device."""

from __future__ import annotations

from edge_app.i18n.language import _
from edge_app.referral.receiver import WAYS, ReceiverDraft
from edge_app.screens.view import View, load_kv
from edge_app.store.damage import LeftOut, id_of
from edge_app.store.referrals import Destination
from edge_app.ui.text import Text
from edge_app.ui.widgets import Item


class ReceiversScreen(View):
    operator = unlocked = True

    def show(self) -> None:
        store = self.app.session.opened()
        damaged = LeftOut()

        def find() -> tuple[list[Destination], list[str]]:
            found = store.mail.destinations(damaged)
            return found, [id_of("destination", what) for what in damaged.what]

        self.app.work(find, lambda found: self._fill(*found))

    def hide(self) -> None:
        self.ids.list.clear_widgets()

    def _fill(self, destinations: list[Destination], damaged: list[str]) -> None:
        self.ids.list.clear_widgets()
        if not destinations and not damaged:
            text = _("Nobody yet. Without a receiver nothing can be sent.")
            self.ids.list.add_widget(Text(text=text, style="page_quiet"))
        for one in destinations:
            way = _(WAYS.get(one.dicom.carrier if one.dicom is not None else "", ""))
            item = Item(icon="send", title=one.name, message=way)
            item.bind(on_release=lambda _item, one=one: self._open(one))
            self.ids.list.add_widget(item)
        for id in damaged:
            item = Item(icon="send", title=_("Damaged receiver"), message=id)
            item.bind(on_release=lambda _item, id=id: self._delete(id))
            self.ids.list.add_widget(item)

    def _open(self, destination: Destination) -> None:
        self.app.go("receiver", draft=ReceiverDraft.of(destination))

    def _delete(self, id: str) -> None:
        store = self.app.session.opened()
        self.app.ask(
            _("Delete {name}?", name=_("Damaged receiver")),
            _("What was entered of it cannot be read, and is in no export: enter it again."),
            _("Delete"),
            lambda: self.app.work(
                lambda: store.mail.delete_destination(id),
                lambda _none: self.show(),
                _("Deleting."),
                writes=True,
            ),
            style="danger",
        )

    def add(self) -> None:
        self.app.go("receiver", draft=ReceiverDraft(Destination("", "")))


load_kv(__file__)
