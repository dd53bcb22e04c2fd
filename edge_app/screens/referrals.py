"""All that was sent to a dermatologist: what waits, was received, was answered."""

from __future__ import annotations

from kivy.properties import BooleanProperty

from edge_app import sending
from edge_app.i18n import language
from edge_app.i18n.language import Message, _
from edge_app.referral import timeline
from edge_app.screens.view import View, load_kv
from edge_app.ui.text import Text
from edge_app.ui.widgets import Item, Panel, Press

SHOWN = 40  # of a group; more on demand
FAULTS = 3  # of the last question for answers


class ReferralsScreen(View):
    operator = unlocked = True
    filled = BooleanProperty(False)

    def show(self) -> None:
        self.filled = False
        store, leave_out = self.app.session.opened(), self.app.session.leave_out
        self.app.work(
            lambda: (sending.cases(store, leave_out=leave_out), store.mail.faults()), self._fill
        )

    def hide(self) -> None:
        self.ids.list.clear_widgets()

    def _fill(self, found: tuple[list[sending.Case], list[Message]]) -> None:
        cases, faults = found
        self.ids.list.clear_widgets()
        if faults:
            title = _("Answers were not taken, or could not be asked for.")
            reasons = [language.sentence(_(fault)) for fault in faults[:FAULTS]]
            if len(faults) > FAULTS:
                reasons.append("…")
            self.ids.list.add_widget(Panel(text="\n".join([title, *reasons]), style="demo"))
        if not cases:
            self.ids.list.add_widget(Text(text=_("Nothing was sent yet."), style="page_quiet"))
        for group, title in sending.GROUPS.items():
            some = [case for case in cases if case.group == group]
            if some:
                number = language.number(len(some))
                title = _("{title}: {number}", title=_(title), number=number)
                self.ids.list.add_widget(Text(text=title, style="page", bold=True))
                self._rows(some, len(self.ids.list.children))
        self.filled = True

    def _rows(self, cases: list[sending.Case], at: int) -> None:
        """The oldest first, so that nobody waits for ever; `at` : how many widgets go before."""
        rows = self.ids.list
        for case in cases[:SHOWN]:
            item = Item(
                icon="mail" if case.status.answers else "send",
                title=f"{case.person.name}: {case.lesion.title}",
                message=f"{timeline.headline(case.status)}\n{timeline.sent_to(case.status)}",
            )
            item.bind(on_release=lambda _item, one=case: self._open(one))
            rows.add_widget(item, len(rows.children) - at)
            at += 1
        if len(cases) > SHOWN:
            more = Press(text=_("Show more"), style="plain")

            def pressed(_press: object) -> None:
                place = len(rows.children) - 1 - rows.children.index(more)
                rows.remove_widget(more)
                self._rows(cases[SHOWN:], place)

            more.bind(on_release=pressed)
            rows.add_widget(more, len(rows.children) - at)

    def _open(self, case: sending.Case) -> None:
        self.app.session.person, self.app.session.lesion = case.person, case.lesion
        self.app.go("referral", id=case.status.referral.id)


load_kv(__file__)
