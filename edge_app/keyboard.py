"""What the keys do: the way back, the next thing to press, pressing it, going on in a long text.

Room for a keyboard.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from kivy.clock import Clock
from kivy.core.window import Window
from kivy.uix.modalview import ModalView
from kivy.uix.vkeyboard import VKeyboard

from edge_app.screens.view import View
from edge_app.ui import widgets
from edge_app.ui.entry import Entry
from edge_app.ui.focus import reveal, scroll, targets

if TYPE_CHECKING:
    from edge_app.app import DermedgeApp

ESCAPE, SPACE, ENTER, TAB = 27, 32, 13, 9
# The arrows and page keys, and by how much of the screen they go on in what is longer than that.
SCROLLS = {273: -0.3, 274: 0.3, 280: -0.9, 281: 0.9}


def handle(app: DermedgeApp, key: int, modifiers: Collection[str]) -> bool:
    """Whether the key meant something. The screen's thread."""
    layer = app.layer()
    if key == ESCAPE:
        return _escape(app, layer)
    if any(entry.focus for entry in layer.walk() if isinstance(entry, Entry)):
        return False  # it is typed
    if key == TAB:
        app.focus_next(-1 if "shift" in modifiers else 1)
        return True
    if key in (ENTER, SPACE):
        for target in targets(layer):
            if target.lit and not isinstance(target, Entry):
                target.dispatch("on_release")
                return True
    if isinstance(layer, View) and layer.key(key):
        return True
    return key in SCROLLS and scroll(layer, SCROLLS[key])


def _escape(app: DermedgeApp, layer: object) -> bool:
    if isinstance(layer, widgets.Wait):
        return True  # what was begun comes to its end
    if isinstance(layer, ModalView):
        layer.dismiss(animation=False)
        return True
    if app.navigator.can_go_back:
        app.back()
        return True
    # Kivy ends the app at this key; a kiosk must not end by one.
    return app.session.kiosk


def make_room(app: DermedgeApp) -> None:
    """Above the keyboard of a touch screen, while one is shown; a phone makes room itself."""
    if app.phone is not None:
        return
    boards = [child for child in Window.children if isinstance(child, VKeyboard)]
    if not boards:
        app.frame.size_hint_y = 1
        return
    app.frame.pos_hint, app.frame.size_hint_y = {"top": 1}, None
    app.frame.height = Window.height - boards[0].height * boards[0].scale
    Clock.schedule_once(lambda _dt: reveal(app.layer()))
