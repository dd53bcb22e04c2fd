"""The history of one spot: its pictures, how it changed, when to look again, notes."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, timedelta

import numpy as np
from kivy.properties import BooleanProperty, NumericProperty, ObjectProperty, StringProperty
from kivy.uix.boxlayout import BoxLayout

import edge_app.ui.picture_view
import edge_app.ui.trend  # noqa: F401  the .kv names its class
from dermedge import UserError
from dermedge.analysis import lesion_outline
from edge_app import cases, sending
from edge_app.follow_up.history import history
from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.presentation import comparison
from edge_app.presentation import messages as present
from edge_app.presentation.messages import BANDS
from edge_app.referral import timeline
from edge_app.screens.view import View, load_kv
from edge_app.session import Erased
from edge_app.store import clock
from edge_app.store.records import GIVEN
from edge_app.store.referrals import StoredAnswer
from edge_app.store.store import Capture
from edge_app.ui.calendar import DaySheet
from edge_app.ui.widgets import Across, Card, Item, More, Option, Panel, Press, PressCard

SHOWN = 12  # pictures; more on demand, for each takes time to draw
SENT = 3  # referrals; all of them are on a screen of their own
THUMBNAIL = 320  # px, long side
LATER = "day"  # key of a reminder on a day of one's own
NEVER = "none"


class CaptureCard(PressCard):
    """A picture of the spot: when, how risky, how large."""

    band = ObjectProperty(BANDS["retake"], rebind=True)
    when = StringProperty()
    size_message = StringProperty()


class TrendCard(Card):
    trend = ObjectProperty(None, rebind=True)


class TrendPair(Across):
    """Two side by side, where there is room."""


class TrendRow(BoxLayout):
    trend: comparison.Trend = ObjectProperty(None, rebind=True)


class LesionScreen(View):
    """Of `session.lesion` and `session.person`."""

    operator = unlocked = True
    title = StringProperty()
    where = StringProperty()
    count = StringProperty()
    remind = StringProperty()
    clock = StringProperty()  # what to say where a date does not hold
    several = BooleanProperty(False)  # there are two pictures to compare
    developed = NumericProperty(0)  # pictures that are shown
    _filled = False

    def on_kv_post(self, _base) -> None:
        for field in (self.ids.name, self.ids.notes):
            field.ids.entry.bind(focus=lambda _entry, focus: None if focus else self.keep())

    def show(self) -> None:
        session, store = self.app.session, self.app.session.opened()
        with suppress(UserError):  # a picture or an answer may have changed when it is due
            session.lesion = store.lesion(session.lesion.id)
        lesion, person = session.lesion, session.person
        self._captures: list[Capture] = []
        self._undeveloped: list[CaptureCard] = []
        self.title, self.several, self.developed = lesion.title, False, 0
        self.where = person.name if person is not None else ""
        self.ids.name.text, self.ids.notes.text = lesion.title, lesion.notes
        self._filled = True
        self._remind()
        self.ids.sent.clear_widgets()
        leave_out = session.leave_out
        self.app.work(lambda: store.captures(lesion.id, leave_out), self._list)
        self.app.work(
            lambda: (
                sending.cases(store, lesion.id, leave_out),
                sending.wanted(store, lesion.id, leave_out),
            ),
            lambda found: self._list_sent(*found),
        )

    def hide(self) -> None:
        self.keep()
        self._filled = False  # a field that loses the keyboard only now must not save its emptiness
        self.ids.captures.clear_widgets()
        self.ids.trends.clear_widgets()
        self.ids.send.clear_widgets()
        self.ids.sent.clear_widgets()
        self.ids.name.text = self.ids.notes.text = self.title = self.where = ""

    # ------------------------------------------------------------------------ its pictures

    def _list(self, captures: list[Capture]) -> None:
        self.ids.captures.clear_widgets()
        self.ids.trends.clear_widgets()
        self._captures, self._undeveloped = captures, []
        self.several = len(captures) > 1
        self.clock = comparison.clock_remark(captures)
        self.count = language.n_("{count} picture", "{count} pictures", len(captures))
        self.ids.send.clear_widgets()
        if captures:
            item = Item(icon="send", title=_("Send to a dermatologist"))
            item.bind(on_release=lambda _item: self.app.go("send"))
            self.ids.send.add_widget(item)
        self._more(list(reversed(captures)))
        if captures:
            trends = TrendCard()
            rows = [TrendRow(trend=trend) for trend in comparison.trends(history(captures))]
            for first in range(0, len(rows), 2):
                pair = TrendPair()
                for row in rows[first : first + 2]:
                    pair.add_widget(row)
                trends.add_widget(pair)
            self.ids.trends.add_widget(trends)

    def _more(self, captures: list[Capture]) -> None:
        """The next pictures, and a press for those after them."""
        rows, idle = self.ids.captures, not self._undeveloped
        for capture in captures[:SHOWN]:
            shown = comparison.shown(capture)
            card = CaptureCard(band=shown.band, when=shown.when, size_message=shown.size)
            card.bind(on_release=lambda _card, one=capture: self._open(one))
            card.capture = capture
            rows.add_widget(card)
            if not capture.dated or capture.clock or capture.dating == GIVEN:
                correct = Press(text=_("Correct the date"), style="plain")
                correct.bind(on_release=lambda _press, one=capture: self._correct(one))
                rows.add_widget(correct)
            self._undeveloped.append(card)
        if len(captures) > SHOWN:
            rows.add_widget(More(lambda: self._more(captures[SHOWN:])))
        if idle and captures:
            self._develop()

    def _develop(self) -> None:
        """Decode one thumbnail after the other: other work gets its turn between them."""
        card = self._undeveloped[0]
        session, capture = self.app.session, card.capture

        def developed(pixels: np.ndarray) -> None:
            card.ids.picture.extent = capture.size
            if capture.readable:
                card.ids.picture.outline = lesion_outline(capture.analysis)
            card.ids.picture.show(pixels)
            self.developed += 1
            go_on()

        def go_on() -> None:
            if self._undeveloped[:1] == [card]:  # else the screen was filled again
                self._undeveloped.pop(0)
                if self._undeveloped:
                    self._develop()

        def failed(text: str) -> None:
            self.app.tell(text)
            go_on()

        def thumbnail() -> np.ndarray:
            return cases.picture(session.opened(), capture, THUMBNAIL)

        self.app.work(thumbnail, developed, failed=failed)

    def _open(self, capture: Capture) -> None:
        if capture.readable:
            self.app.go("result", stored=capture)
        else:
            self.app.tell(_("This result can only be read by a newer dermedge: update it."))

    def _correct(self, capture: Capture) -> None:
        """Ask for the day on which a picture was taken that the clock or a file dated wrongly."""
        session = self.app.session

        def confirmed(day: date) -> None:
            self.app.work(
                lambda: session.correct_date(capture.id, day),
                lambda _none: self.app.replace("lesion"),
                writes=True,
            )

        dated = [capture] if capture.dated else [one for one in self._captures if one.dated]
        days = [clock.local_day(one.taken) for one in dated]
        start = date.fromisoformat(max(days)) if days else date.today()
        title = _("On which day was this picture taken?")
        DaySheet(title=title, chosen=start, confirm=confirmed).open(animation=False)

    def new_picture(self) -> None:
        self.app.session.begin(self.app.session.lesion)
        self.app.go("live")

    def compare(self) -> None:
        """The first picture and the latest."""
        self.app.go("compare", earlier=self._captures[0], later=self._captures[-1])

    # ------------------------------------------------------------------------ what was sent of it

    def _list_sent(self, found: list[sending.Case], wanted: StoredAnswer | None) -> None:
        """The newest referrals, and whether a better picture is asked for."""
        rows = self.ids.sent
        rows.clear_widgets()
        if wanted is not None:
            who = language.capital(timeline.author(wanted))
            text = "\n".join((_("Better picture, please."), who))
            rows.add_widget(Panel(text=text, style="demo", bold=True))
        for case in reversed(found[-SENT:]):
            status = case.status
            item = Item(
                icon="mail" if status.answers else "send",
                title=timeline.headline(status),
                message=timeline.sent_to(status),
            )
            item.bind(
                on_release=lambda _item, id=status.referral.id: self.app.go("referral", id=id)
            )
            rows.add_widget(item)

    # ------------------------------------------------------------------------ what is kept of it

    def keep(self) -> bool:
        """Name and notes, where they were changed."""
        session = self.app.session
        if not self._filled or session.lesion is None or session.store is None:
            return True
        lesion, notes = session.lesion, self.ids.notes.text.strip()
        name = self.ids.name.text.strip() or lesion.title
        if (name, notes) == (lesion.title, lesion.notes):
            return True
        kept: bool = self.app.attempt(
            lambda: session.change_lesion(lesion, title=name, notes=notes)
        )
        self.title = name if kept else self.title
        return kept

    def _remind(self) -> None:
        kept, row = self.app.session.lesion.remind, self.ids.reminders
        row.clear_widgets()
        choices = {NEVER: _("No reminder")}
        for months in comparison.REMINDERS:
            choices[str(months)] = language.n_("In {count} month", "In {count} months", months)
        choices[LATER] = _("On a day")
        for key, text in choices.items():
            option = Option(text=text, chosen=key == (LATER if kept else NEVER))
            option.bind(on_release=lambda _press, key=key: self._choose_reminder(key))
            row.add_widget(option)
        self.remind = _("A new picture is due on {day}.", day=language.day(kept)) if kept else ""

    def _choose_reminder(self, key: str) -> None:
        if key == LATER:
            tomorrow = date.today() + timedelta(1)
            kept = self.app.session.lesion.remind
            sheet = DaySheet(
                title=_("When is a new picture due?"),
                first=tomorrow,
                chosen=date.fromisoformat(kept) if kept and kept >= str(tomorrow) else None,
                confirm=self._keep_reminder,
            )
            sheet.open(animation=False)
        elif key == NEVER:
            self._keep_reminder(None)
        else:
            self._keep_reminder(comparison.months_on(date.today(), int(key)))

    def _keep_reminder(self, day: date | None) -> None:
        session = self.app.session
        remind = day and day.isoformat()
        self.app.attempt(lambda: session.change_lesion(session.lesion, remind=remind))
        self._remind()

    def delete(self) -> None:
        session, lesion = self.app.session, self.app.session.lesion

        def done(erased: Erased) -> None:
            self.app.back()
            self.app.tell(present.erased(erased.error, erased.elsewhere))

        def confirmed() -> None:
            self.app.work(
                lambda: session.delete_lesion(lesion),
                done,
                _("Deleting."),
                writes=True,
            )

        self.app.ask(
            _("Delete this spot?"),
            _("The spot and all of its pictures are removed from this device for good."),
            _("Delete"),
            confirmed,
            style="danger",
        )


load_kv(__file__)
