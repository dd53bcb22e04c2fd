"""Third step of sending: to whom, what is asked, how soon, and the consent to send."""

from __future__ import annotations

from datetime import date, datetime

from kivy.properties import StringProperty

from edge_app.follow_up.people import Draft as PersonDraft
from edge_app.i18n import language
from edge_app.i18n.language import N_, _
from edge_app.presentation import messages as present
from edge_app.referral import consent, review
from edge_app.referral.form import PRIORITIES
from edge_app.screens.send_step import SendStep, choice
from edge_app.store.referrals import Destination
from edge_app.ui.text import Text
from edge_app.ui.widgets import Card, Column, Field, Panel, Press, Tick

FREQUENT = (
    N_("What is it, and what should be done?"),
    N_("Does the person have to be seen, and how soon?"),
    N_("May it wait until the next check?"),
)


class NumberCard(Card):
    """The person's number at the receiver: typed, or scanned."""

    name = StringProperty()
    receiver = StringProperty()


class QuestionStep(SendStep):
    def fill(self) -> None:
        self._receiver()
        self._number = Column(spacing=0)
        self.add_widget(self._number)
        self._ask_for_number()
        self._question()
        self._person()
        self._consent()

    def _receiver(self) -> None:
        draft, card = self.draft, Card()
        if len(draft.destinations) == 1:
            title = _("To {receiver}", receiver=draft.destinations[0].name)
            card.add_widget(Text(text=title, bold=True))
        else:
            by_id = {one.id: one for one in draft.destinations}
            chosen = draft.destination.id if draft.destination is not None else None
            options = choice(
                _("To whom?"), {}, None, lambda id: self._choose(by_id[id]), optional=False
            )
            options.choices = [(one.id, one.name) for one in draft.destinations]
            options.chosen = [chosen] if chosen else []
            card.add_widget(options)
        priority = choice(
            _("How soon?"), PRIORITIES, draft.priority, self._set_priority, optional=False
        )
        card.add_widget(priority)
        self.add_widget(card)

    def _choose(self, destination: Destination) -> None:
        self.draft.choose(destination)
        self._ask_for_number()
        self.changed()

    def _ask_for_number(self) -> None:
        to = self.draft.destination
        self._number.clear_widgets()
        if to is None or not to.system:
            return
        card = NumberCard(receiver=to.name)
        card.ids.field.text = self.draft.identifier
        card.ids.field.bind(text=self._typed_number)
        card.ids.scan.bind(on_release=lambda _press: self.app.go("scan", draft=self.draft))
        self._number.add_widget(card)

    def _typed_number(self, _field: object, text: str) -> None:
        self.draft.identifier = text

    def _set_priority(self, priority: str) -> None:
        self.draft.priority = priority

    # ------------------------------------------------------------------------ what is asked

    def _question(self) -> None:
        card = Card()
        field = Field(caption=_("What do you want to know?"), text=self.draft.question, lines=3)
        field.bind(text=self._typed_question)
        card.add_widget(field)
        for words in FREQUENT:
            press = Press(text=_(words), style="plain", points=15)
            press.bind(on_release=lambda press: setattr(field, "text", press.text))
            card.add_widget(press)
        self.add_widget(card)

    def _typed_question(self, _field: object, text: str) -> None:
        self.draft.question = text

    def _person(self) -> None:
        """What is known of the person, and what a receiver may not take."""
        person, card = self.draft.person, Card()
        facts = present.facts(person, date.today()) or _("Age, sex and skin type are not known.")
        card.add_widget(Text(text=facts, bold=True))
        if not (person.year_of_birth and person.sex and person.skin_type):
            press = Press(text=_("Complete the person's data"), style="plain")
            press.bind(on_release=lambda _press: self._complete())
            card.add_widget(press)
        self.add_widget(card)
        if self.draft.whole:
            notes: list[str] = []
            now = datetime.now().astimezone()
            self.app.attempt(
                lambda: notes.extend(map(str, review.cautions(self.draft.referral(now))))
            )
            for note in notes:
                self.add_widget(Panel(text=note, style="demo", points=14))

    def _complete(self) -> None:
        self.app.session.person = self.draft.person
        self.app.go("person_form", draft=PersonDraft.of(self.draft.person))

    # ------------------------------------------------------------------------ consent

    def _consent(self) -> None:
        card = Card(spacing=10)
        spoken = language.current()
        card.add_widget(Text(text=_("Consent to send"), style="quiet", points=14, bold=True))
        for line in consent.text(consent.CURRENT, spoken).split("\n"):
            card.add_widget(Text(text=line, points=15))
        agreed = Tick(
            text=_("The person has read or heard this, and agrees."),
            on=self.draft.consent is not None,
        )
        agreed.bind(on=self._agree)
        card.add_widget(agreed)
        self.add_widget(card)

    def _agree(self, _tick: object, on: bool) -> None:
        now = datetime.now().astimezone()
        self.draft.consent = (
            consent.Consent.to(consent.CURRENT, language.current(), now) if on else None
        )
        self.changed()

    def fault(self) -> str:
        if self.draft.destination is None:
            return _("Choose to whom it is sent.")
        if self.draft.consent is None:
            return _("Ask for consent to send.")
        return ""
