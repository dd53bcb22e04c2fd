"""Settings: how the app looks and speaks, what gives the size, the cases, the device, about."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kivy.properties import BooleanProperty, StringProperty

from dermedge.lesion.scale import REFERENCES
from edge_app.i18n import language
from edge_app.i18n.language import N_, _
from edge_app.presentation import about, comparison
from edge_app.presentation import messages as present
from edge_app.screens.secret import SecretForm
from edge_app.screens.view import View, load_kv
from edge_app.self_check import TITLES as CHECKS
from edge_app.self_check import Check, running_check
from edge_app.store.store import Entry
from edge_app.ui.text import Text
from edge_app.ui.widgets import Across, Card, Item, More, Options, Press, Row, Tick

SHOWN = 80  # entries of the audit trail; more on demand
TITLES = {
    "": N_("Settings"),
    "size": N_("Size reference"),
    "cases": N_("Cases on this device"),
    "passphrase": N_("Change the passphrase"),
    "audit": N_("Audit trail"),
    "device": N_("This device"),
    "pin": N_("Change the operator's PIN"),
    "log": N_("Log"),
    "about": N_("About"),
}
CONFIRM = N_(
    "Or were the last entries made while the clock was ahead? Then say that it is right now: "
    "pictures of that time are marked, and their dates can be corrected."
)
THEME_TITLES = {"light": N_("Light"), "dark": N_("Dark")}
TEXT_TITLES = {"normal": N_("Normal"), "large": N_("Large"), "very large": N_("Very large")}
COINS = {"us-": N_("Coins of the United States"), "uk-": N_("Coins of the United Kingdom")}


class CheckRow(Across):
    """One item of the self-check."""

    name, message = StringProperty(), StringProperty()
    ok = BooleanProperty(True)

    def __init__(self, check: Check):
        message = _(check.message)
        message = message if check.ok else language.sentence(message)
        super().__init__(name=_(CHECKS[check.name]), ok=check.ok, message=message)


class SettingsScreen(View):
    """One `part` of TITLES at a time."""

    operator = True
    title = StringProperty()
    checked = BooleanProperty(False)  # the self-check is done

    @classmethod
    def needs(cls, part: str = "") -> tuple[bool, bool]:
        return True, part in ("cases", "passphrase", "audit")

    def show(self, part: str = "") -> None:
        self.title, self._part, self.checked = _(TITLES[part]), part, False
        self.hide()
        self.ids.page.to_top()
        getattr(self, f"_{part or 'all'}")()

    def hide(self) -> None:
        self.ids.list.clear_widgets()
        self.ids.feet.clear_widgets()

    # ------------------------------------------------------------------------ the first page

    def _all(self) -> None:
        session = self.app.session
        settings = session.settings
        card = self._card()
        self._choice(card, _("Language"), language.offered(), settings.spoken(), "language")
        lacks = language.missing()
        if lacks:
            reason = _("Arabic needs what this device does not have: {names}.")
            card.add_widget(Text(text=reason.format(names=", ".join(lacks)), style="quiet"))
        self._choice(card, _("Look"), _spoken(THEME_TITLES), settings.theme, "theme")
        self._choice(card, _("Size of type"), _spoken(TEXT_TITLES), settings.text, "text")
        auto = Tick(
            text=_("Take the picture by itself when it is good and still"), on=settings.auto
        )
        auto.bind(on=lambda _tick, on: self.app.attempt(lambda: session.change(auto=on)))
        self._card().add_widget(auto)
        known = present.reference(settings.reference)
        self._item("ruler", "size", _("Lies beside the spot: {name}", name=known))
        self._item("lock", "cases", _("Lock, passphrase, export and import, audit trail"))
        message = _("Who takes cases, and how they get there")
        self._item("send", partial(self.app.go, "receivers"), message, _("Receivers"))
        self._item("device", "device", _("Camera, disk, model and speed"))
        self._item("info", "about", _("Version, model, accuracy, licences"))

    def _choice(self, card: Card, caption: str, choices, now: str, name: str) -> None:
        """A setting that shows at once."""
        options = Options(caption=caption)
        options.choices, options.chosen = list(choices.items()), [now]
        options.bind(chosen=lambda _options, chosen: self.app.restyle(**{name: chosen[0]}))
        card.add_widget(options)

    # ------------------------------------------------------------------------ size

    def _size(self) -> None:
        message = _("Something of known size beside the spot gives its size in millimetres.")
        self.ids.list.add_widget(Text(text=message, style="page"))
        coins = [name for name in REFERENCES if name.startswith("coin-")]
        euro = [n for n in coins if not n.startswith(tuple(f"coin-{start}" for start in COINS))]
        groups: list[tuple[str, list[str | None]]] = [
            ("", [None, "card", "ruler"]),
            (_("Euro coins"), [*euro]),
        ]
        for start, title in COINS.items():
            groups.append((_(title), [n for n in coins if n.startswith(f"coin-{start}")]))
        card = self._card()
        for title, names in groups:
            options = Options(caption=title)
            options.choices = [(name, _named(name, title)) for name in names]
            options.chosen = [self.app.session.settings.reference]
            options.bind(chosen=lambda _options, chosen: self._refer(chosen[0]))
            card.add_widget(options)
        press = Press(text=_("Make the printable card"))
        press.bind(on_release=lambda _press: self.app.go("files", task="card"))
        self.ids.feet.add_widget(press)

    def _refer(self, name: str | None) -> None:
        if name != self.app.session.settings.reference:
            self.app.attempt(lambda: self.app.session.change(reference=name))
            self.app.replace("settings", part="size")

    # ------------------------------------------------------------------------ cases

    def _cases(self) -> None:
        go = self.app.go
        self.app.attempt(self._clock)
        self._item(
            "lock", self._lock, _("Nobody reads them without the passphrase."), _("Lock now")
        )
        self._item("edit", "passphrase", "")
        message = _("One encrypted file, for safety or for another device")
        self._item("file", lambda: go("files", task="export"), message, _("Export everything"))
        message = _("What is here already stays as it is.")
        self._item("folder", lambda: go("files", task="import"), message, _("Import"))
        self._item(
            "check", self._verify, _("Reads every record and picture."), _("Check the cases")
        )
        self._item("info", "audit", _("All that was ever changed"))

    def _clock(self) -> None:
        """What is wrong with the clock, and what to do where it is the entries that are wrong."""
        store = self.app.session.opened()
        fault = store.clock_fault()
        if fault is None:
            return
        card = self._card()
        card.add_widget(Text(text=language.sentence(_(fault)), style="warning", bold=True))
        if store.clock_behind():
            card.add_widget(Text(text=_(CONFIRM)))
            press = Press(text=_("The clock is right now"), style="plain")
            press.bind(
                on_release=lambda _press: self.app.work(
                    store.confirm_clock, self._right, writes=True
                )
            )
            card.add_widget(press)

    def _right(self, _none) -> None:
        session = self.app.session
        session.faults = [check for check in session.faults if check.name != "clock"]
        self.app.replace("settings", part="cases")

    def _lock(self) -> None:
        self.app.session.lock()
        self.app.reset()
        self.app.tell(_("The cases are locked."))

    def _verify(self) -> None:
        store = self.app.session.opened()
        message = _("Every record and picture is whole.")
        waiting = _("Checking. This may take a while.")
        self.app.work(store.check, lambda _none: self.app.tell(message), waiting)

    def _passphrase(self) -> None:
        session = self.app.session
        action = session.change_passphrase
        self._change_secret(_("Passphrase now"), _("New passphrase"), action, digits=False)

    def _audit(self) -> None:
        store = self.app.session.opened()
        self.app.work(store.audit, self._list_audit)

    def _list_audit(self, entries: list[Entry]) -> None:
        if self._part != "audit":
            return
        self.ids.list.clear_widgets()
        self._rows(comparison.audit_rows(entries))

    def _rows(self, rows: list[tuple[str, str]]) -> None:
        card = self._card()
        for name, value in rows[:SHOWN]:
            card.add_widget(Text(text=name, bold=True))
            card.add_widget(Text(text=value, style="quiet", points=14))
        if len(rows) > SHOWN:
            self.ids.list.add_widget(More(lambda: self._rows(rows[SHOWN:])))

    # ------------------------------------------------------------------------ the device

    def _device(self) -> None:
        kiosk = self.app.session.kiosk
        self._item("check", self._self_check, _("Camera, disk, model and speed"), _("Self-check"))
        if kiosk:
            self._item("edit", "pin", "")
            self._item("file", "log", _("What happened, without anything of a person"))
        if self.app.session.faults:
            self._list_checks(self.app.session.faults, _("Found at start"))

    def _self_check(self) -> None:
        worker, session = self.app.worker, self.app.session
        store = session.store
        clock = store.clock_fault if store is not None else lambda: None
        self.app.work(
            lambda: list(running_check(worker, session.home, clock)),
            self._list_checks,
            _("Checking. This takes some seconds."),
        )

    def _list_checks(self, checks: list[Check], title: str = "") -> None:
        if self._part != "device":
            return
        for card in [w for w in self.ids.list.children if not isinstance(w, Item)]:
            self.ids.list.remove_widget(card)
        card = self._card()
        if title:
            card.add_widget(Text(text=title, style="quiet", points=14, bold=True))
        for check in checks:
            card.add_widget(CheckRow(check))
        self.checked = True

    def _pin(self) -> None:
        action = self.app.session.change_pin
        self._change_secret(_("PIN now"), _("New PIN: at least four digits"), action, digits=True)

    def _log(self) -> None:
        path = self.app.session.log_path
        self.app.work(lambda: about.log(path), self._list_log)

    def _list_log(self, lines: list[str]) -> None:
        if self._part != "log":
            return
        card = self._card()
        for line in lines:
            card.add_widget(Text(text=line, points=13))
        if not lines:
            card.add_widget(Text(text=_("Nothing yet.")))

    # ------------------------------------------------------------------------ about

    def _about(self) -> None:
        bundle = self.app.worker.bundle
        for section in about.sections(bundle.manifest, bundle.sha256):
            card = self._card()
            card.add_widget(Text(text=section.title, style="quiet", points=14, bold=True))
            for name, value in section.rows:
                card.add_widget(Row(name=name, value=value))
            for paragraph in section.paragraphs:
                card.add_widget(Text(text=paragraph))

    # ------------------------------------------------------------------------ pieces

    def _card(self) -> Card:
        card = Card()
        self.ids.list.add_widget(card)
        return card

    def _item(self, icon: str, to: str | Callable[[], None], message: str, title: str = "") -> None:
        """A line that leads to a part, or does something."""
        if callable(to):
            action = to
        else:
            action, title = partial(self.app.go, "settings", part=to), title or _(TITLES[to])
        item = Item(icon=icon, title=title, message=message)
        item.bind(on_release=lambda _item: action())
        self.ids.list.add_widget(item)

    def _change_secret(
        self, now: str, new: str, action: Callable[[str, str], Any], digits: bool
    ) -> None:
        form = SecretForm(self.app, now, new, action, digits)
        self.ids.list.add_widget(form)
        self.ids.feet.add_widget(form.press)


def _named(reference: str | None, group: str) -> str:
    """A reference below the title of its group."""
    if not group or reference is None:
        return present.reference(reference)
    return reference.removeprefix("coin-").removeprefix("us-").removeprefix("uk-").replace("-", " ")


def _spoken(titles: dict[str, str]) -> dict[str, str]:
    return {key: _(title) for key, title in titles.items()}


load_kv(__file__)
