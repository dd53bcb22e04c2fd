"""Who takes cases: the receivers that are entered on this device."""

from __future__ import annotations

from edge_app.i18n.language import _
from edge_app.referral.receiver import WAYS, ReceiverDraft
from edge_app.screens.view import View, load_kv
from edge_app.store.referrals import Destination
from edge_app.ui.text import Text
from edge_app.ui.widgets import Item


class ReceiversScreen(View):
    operator = unlocked = True

    def show(self) -> None:
        store = self.app.session.opened()
        leave_out = self.app.session.leave_out
        self.app.work(lambda: store.mail.destinations(leave_out), self._fill)

    def hide(self) -> None:
        self.ids.list.clear_widgets()

    def _fill(self, destinations: list[Destination]) -> None:
        self.ids.list.clear_widgets()
        if not destinations:
            text = _("Nobody yet. Without a receiver nothing can be sent.")
            self.ids.list.add_widget(Text(text=text, style="page_quiet"))
        for one in destinations:
            way = _(WAYS.get(one.dicom.carrier if one.dicom is not None else "", ""))
            item = Item(icon="send", title=one.name, message=way)
            item.bind(on_release=lambda _item, one=one: self._open(one))
            self.ids.list.add_widget(item)

    def _open(self, destination: Destination) -> None:
        self.app.go("receiver", draft=ReceiverDraft.of(destination))

    def add(self) -> None:
        self.app.go("receiver", draft=ReceiverDraft(Destination("", "")))


load_kv(__file__)
