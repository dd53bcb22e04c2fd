"""One referral: its timeline, why it waits, and the answers, apart from the model's words."""

from __future__ import annotations

from functools import partial

from kivy.clock import Clock
from kivy.properties import StringProperty

from edge_app import sending
from edge_app.i18n.language import _
from edge_app.presentation import messages as present
from edge_app.referral import timeline
from edge_app.referral.outbox import ANSWERED, DONE, STOPPED
from edge_app.screens.view import View, load_kv
from edge_app.session import Erased
from edge_app.store.damage import pass_over
from edge_app.store.referrals import WAITING, Destination, StoredAnswer
from edge_app.ui.text import Text
from edge_app.ui.widgets import Card, Column, Panel, Press

REFRESH = 3.0  # s between two looks at how it goes on


class EventRow(Column):
    """A line of the timeline."""

    name = StringProperty()
    when = StringProperty()
    detail = StringProperty()


class ReferralScreen(View):
    operator = unlocked = True
    title = StringProperty()
    who = StringProperty()
    _seen: tuple[sending.Case, list[Destination]] | None = None  # what is shown
    state = StringProperty()  # of edge_app.referral.outbox.STATES; empty: not read yet

    def show(self, id: str) -> None:
        self._id, self.state, self._seen = id, "", None
        self._read()
        Clock.schedule_interval(self._read, REFRESH)

    def hide(self) -> None:
        Clock.unschedule(self._read)
        self.ids.list.clear_widgets()
        self.title = self.who = self.state = ""
        self._seen = None

    def _read(self, *_args: object) -> None:
        store = self.app.session.opened()
        # Said once, not with each look.
        leave_out = self.app.session.leave_out if self._seen is None else pass_over
        self.app.work(
            lambda: (
                sending.case(store, self._id, leave_out),
                store.mail.destinations(leave_out),
            ),
            self._fill,
            failed=self._gone,
        )

    def _gone(self, message: str) -> None:
        Clock.unschedule(self._read)
        self.app.tell(message)

    def _fill(self, found: tuple[sending.Case, list[Destination]]) -> None:
        if found == self._seen:
            return
        self._seen = found
        case, destinations = found
        status = case.status
        self.title, self.who, self.state = case.lesion.title, case.person.name, status.state
        rows = self.ids.list
        rows.clear_widgets()
        for answer in reversed(status.answers):
            rows.add_widget(self._answer(answer, timeline.standing_of(answer, status.answers)))
        card = Card(spacing=10)
        card.add_widget(Text(text=_("What became of it"), style="quiet", points=14, bold=True))
        for title, when, detail in timeline.timeline(status):
            card.add_widget(EventRow(name=title, when=when, detail=detail))
        rows.add_widget(card)
        if status.state == STOPPED:
            self._button(_("Send again"), "button", lambda: self._resume())
            if all(one.state == WAITING for one in status.parcels):
                for other in destinations:
                    if other.id != status.referral.destination:
                        self._button(
                            _("Send to {name} instead", name=other.name),
                            "plain",
                            lambda other=other: self._resume(other.id),
                        )
        done = status.state in (DONE, ANSWERED)
        self._button(
            _("Delete this record") if done else _("Do not send it"), "plain", self._ask_to_delete
        )

    def _button(self, text: str, style: str, action) -> None:
        press = Press(text=text, style=style)
        press.bind(on_release=lambda _press: action())
        self.ids.list.add_widget(press)

    # ------------------------------------------------------------------------ answers

    def _answer(self, answer: StoredAnswer, remark: str) -> Card:
        """`remark` : why it does not hold, or not yet."""
        card = Card(spacing=10)
        title = _("Answer of a person, not of the model")
        card.add_widget(Text(text=title, style="quiet", points=14, bold=True))
        name = present.language.capital(timeline.author(answer))
        card.add_widget(Text(text=name, points=18, bold=True))
        if remark:
            card.add_widget(Panel(text=remark, style="demo", bold=True))
        if answer.taken_back:
            return card
        if answer.wants_better_picture:
            card.add_widget(Panel(text=_("Better picture, please."), style="demo", bold=True))
        if answer.text.strip():
            for part in present.blocks(answer.text.strip()):
                card.add_widget(Text(text=part))
        if answer.more:
            note = _("There is more of it at the receiver than could be fetched: ask there.")
            card.add_widget(Text(text=note, style="quiet", points=14))
        if answer.document:
            press = Press(text=_("Save the PDF of the answer"), style="plain")
            press.bind(on_release=lambda _press: self._save(answer))
            card.add_widget(press)
        elif not answer.text.strip():
            note = _("It holds no words that can be shown here: ask the receiver.")
            card.add_widget(Text(text=note, style="quiet", points=14))
        if answer.wants_better_picture:
            press = Press(text=_("New picture"))
            press.bind(on_release=lambda _press: self._new_picture())
            card.add_widget(press)
        return card

    def _save(self, answer: StoredAnswer) -> None:
        self.app.go("files", task="answer", answer=answer)

    def _new_picture(self) -> None:
        self.app.session.begin(self.app.session.lesion)
        self.app.go("live")

    # ------------------------------------------------------------------------ once more, or never

    def _resume(self, destination: str = "") -> None:
        session, id = self.app.session, self._id

        def resumed(_none: None) -> None:
            if session.sender is not None:
                session.sender.nudge()
            self._read()

        self.app.work(lambda: session.opened().mail.resume(id, destination), resumed, writes=True)

    def _ask_to_delete(self) -> None:
        delete = partial(self.app.session.delete_referral, self._id)

        def deleted(erased: Erased) -> None:
            self.app.back()
            self.app.tell(present.erased(erased.error, erased.elsewhere))

        self.app.ask(
            _("Delete this referral?"),
            _("What has not been received is not sent, and its answers are removed from here. "
              "What a receiver has stays there."),
            _("Delete"),
            lambda: self.app.work(delete, deleted, _("Deleting."), writes=True),
            style="danger",
        )  # fmt: skip


load_kv(__file__)
