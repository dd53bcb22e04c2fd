"""Which screen is shown, and which one `back` leads to."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from kivy.core.window import Window
from kivy.uix.screenmanager import NoTransition, ScreenManager

from edge_app.screens.view import View
from edge_app.session import Session
from edge_app.ui.focus import release

# Name: the class in the module of that name in edge_app.screens.
SCREENS = {
    "welcome": "WelcomeScreen",
    "home": "HomeScreen",
    "live": "LiveScreen",
    "result": "ResultScreen",
    "unlock": "UnlockScreen",
    "operator": "OperatorScreen",
    "people": "PeopleScreen",
    "person": "PersonScreen",
    "person_form": "PersonFormScreen",
    "skin_type": "SkinTypeScreen",
    "place": "PlaceScreen",
    "lesion": "LesionScreen",
    "compare": "CompareScreen",
    "files": "FilesScreen",
    "settings": "SettingsScreen",
    "send": "SendScreen",
    "scan": "ScanScreen",
    "referrals": "ReferralsScreen",
    "referral": "ReferralScreen",
    "receivers": "ReceiversScreen",
    "receiver": "ReceiverScreen",
}


class Navigator:
    """The trail of screens that were gone through. The screen's thread alone.

    A screen that needs an operator, or the open store, is put off until `present` is called with
    one; until then it is asked for the PIN or the passphrase.
    """

    def __init__(
        self, session: Session, color: Callable[[str], Any], left: Callable[[], None]
    ) -> None:
        """`color` : the ground of a style. `left` : is called before another screen is shown."""
        self.manager = ScreenManager(transition=NoTransition(), pos_hint={"x": 0, "y": 0})
        self._session, self._color, self._left = session, color, left
        self._trail: list[tuple[str, dict[str, Any]]] = []  # the last one is on the screen
        self.shown: View | None = None
        # Of `shown` as it was filled last: one screen shows one picture, then another one.
        self.showing: object = None

    def start(self, name: str) -> None:
        """From there on, without a way back."""
        self._trail.clear()
        self.go(name)

    def go(self, name: str, **values: Any) -> None:
        self._trail.append((name, values))
        self.present()

    def replace(self, name: str, **values: Any) -> None:
        if self._trail:
            self._trail.pop()
        self.go(name, **values)

    def back(self, to: str, sure: bool) -> None:
        if self.can_go_back and (sure or self.screen.may_leave()):
            self._trail.pop()
            while to and self._trail[-1][0] != to and self.can_go_back:
                self._trail.pop()
            while self.can_go_back and self._over(*self._trail[-1]):
                self._trail.pop()
            self.present()

    @property
    def can_go_back(self) -> bool:
        return len(self._trail) > 1

    @property
    def here(self) -> str:
        """Name of the screen that was asked for."""
        return self._trail[-1][0]

    @property
    def screen(self) -> View:
        """The one that is shown; RuntimeError before the first."""
        if self.shown is None:
            raise RuntimeError("no screen is shown")
        return self.shown

    def hide(self) -> None:
        """Let what is shown put away what it shows."""
        if self.shown is not None:
            release(self.shown)  # else what the next person types goes into a field that is gone
            self.shown.hide()
            self.shown = self.showing = None

    def clear(self) -> None:
        """Forget the screens, with the pictures and words that they hold."""
        self.manager.clear_widgets()
        self.manager.transition = NoTransition()  # the old one holds the last two

    def present(self) -> None:
        """Show the screen that was asked for last, or who may see it is asked first."""
        name, values = self._trail[-1]
        self._left()
        operator, unlocked = self._kind(name).needs(**values)
        if operator and not self._session.operator:
            name, values = "operator", {}
        elif unlocked and self._session.store is None:
            name, values = "unlock", {}
        self.hide()
        if not self.manager.has_screen(name):
            self.manager.add_widget(self._kind(name)(name=name))
        shown: View = self.manager.get_screen(name)
        self.shown, self.showing = shown, object()
        Window.clearcolor = self._color(shown.ground)
        shown.show(**values)
        self.manager.current = name

    def _over(self, name: str, values: dict[str, Any]) -> bool:
        return self._kind(name).over(self._session, **values)

    @staticmethod
    def _kind(name: str) -> type[View]:
        return getattr(import_module(f"edge_app.screens.{name}"), SCREENS[name])
