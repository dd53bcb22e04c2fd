"""A person's form: who it is, and what raises the risk."""

from __future__ import annotations

from datetime import date
from functools import partial

from kivy.properties import DictProperty, StringProperty

from edge_app.follow_up.people import Draft
from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.presentation import skin_type
from edge_app.screens.view import View, load_kv
from edge_app.store.store import RISK_FACTORS, SEXES, Person


class PersonFormScreen(View):
    operator = unlocked = True
    title = StringProperty()
    type_message = StringProperty()
    faults = DictProperty({"name": "", "year": ""})

    def show(self, draft: Draft, task: str = "") -> None:
        self._draft, self._task = draft, task
        self.title = _("Change a person") if draft.before.id else _("A new person")
        self.faults = {"name": "", "year": ""}
        ids = self.ids
        ids.sex.choices = [(sex, language.capital(_(sex))) for sex in SEXES]
        ids.type.choices = list(enumerate(skin_type.NAMES, 1))
        ids.risks.choices = [(risk, language.capital(_(risk))) for risk in RISK_FACTORS]
        ids.name_.text, ids.year.text, ids.notes.text = draft.name, draft.year, draft.notes
        ids.sex.chosen = [draft.sex] if draft.sex else []
        ids.type.chosen = [draft.skin_type] if draft.skin_type else []
        ids.risks.chosen = list(draft.risk_factors)

    def hide(self) -> None:
        self._collect()  # it may come back, from the questions about the skin type
        self.ids.name_.text = self.ids.year.text = self.ids.notes.text = ""

    def may_leave(self) -> bool:
        self._collect()
        if not self._draft.changed:
            return True
        self.app.ask(
            _("Leave without saving?"),
            _("What you changed here is not kept."),
            _("Leave"),
            lambda: self.app.back(sure=True),
        )
        return False

    def describe(self, number: int | None) -> None:
        """Say in words what a skin type is."""
        self.type_message = _(skin_type.TITLES[number - 1]) if number else ""

    def question(self) -> None:
        """Find the skin type by questions."""
        self.app.go("skin_type", draft=self._draft)

    def save(self) -> None:
        self._collect()
        found = self._draft.faults(date.today())
        self.faults = {name: _(found.get(name, "")) for name in ("name", "year")}
        if found:
            self.ids.page.to_top()
            return
        person = self._draft.person()
        action = partial(self.app.session.save_person, person)
        self.app.work(action, self._saved, _("Saving."), writes=True)

    def _saved(self, person: Person) -> None:
        if self._draft.before.id:
            self.app.back(sure=True)
        else:
            self.app.replace("person", task=self._task)

    def _collect(self) -> None:
        ids, draft = self.ids, self._draft
        draft.name, draft.year, draft.notes = ids.name_.text, ids.year.text, ids.notes.text
        draft.sex, draft.skin_type = ids.sex.one, ids.type.one
        draft.risk_factors = tuple(risk for risk in RISK_FACTORS if risk in ids.risks.chosen)


load_kv(__file__)
