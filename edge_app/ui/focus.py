"""What can be pressed, and how the keyboard goes from one to the next."""

from __future__ import annotations

from collections.abc import Iterator

from kivy.app import App
from kivy.input.motionevent import MotionEvent
from kivy.metrics import dp
from kivy.properties import BooleanProperty, StringProperty
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.scrollview import ScrollView
from kivy.uix.widget import Widget

from edge_app.ui.entry import Entry


class Target:
    """What can be pressed, and reached by the Tab key. `hint` is what it does, in words."""

    lit = BooleanProperty(False)  # the keyboard is on it
    hint = StringProperty()


class Pressed(Target, ButtonBehavior):
    """What a finger presses, while it is on the screen.

    Kivy would also press what another finger has covered by then, or left: of two fingers on a
    button that saves something new, each would save it.
    """

    def on_touch_up(self, touch: MotionEvent) -> bool | None:
        if touch.grab_current is self and App.get_running_app().layer() not in above(self):
            touch.ungrab(self)
            self.state = "normal"
            return True
        return super().on_touch_up(touch)


def is_target(widget: object) -> bool:
    return isinstance(widget, (Target, Entry))


def targets(root: Widget) -> Iterator[Widget]:
    """What can be pressed or typed into below `root`, in the order in which it is read."""
    if is_target(root):
        if not root.disabled and root.width > 1 and root.height > 1 and root.opacity:
            yield root
        return
    for child in reversed(root.children):
        yield from targets(child)


def move_focus(root: Widget, step: int) -> Widget | None:
    """Move the keyboard to the next of `targets`, into sight; returns it."""
    row = list(targets(root))
    if not row:
        return None
    at = next((n for n, widget in enumerate(row) if widget.lit), None)
    for widget in row:
        widget.lit = False
    chosen = row[(at + step) % len(row) if at is not None else (0 if step > 0 else -1)]
    chosen.lit = True
    for widget in row:
        if isinstance(widget, Entry):
            widget.focus = widget is chosen
    _into_sight(chosen)
    return chosen


def above(widget: Widget) -> Iterator[Widget]:
    """What a widget is in, from the innermost."""
    while isinstance(widget := widget.parent, Widget):
        yield widget


def reveal(root: Widget) -> None:
    """Bring what is being typed into into sight."""
    for target in targets(root):
        if isinstance(target, Entry) and target.focus:
            _into_sight(target)


def release(root: Widget) -> None:
    """Take the keyboard from what is typed into, and that of a touch screen off it."""
    for widget in root.walk():
        if isinstance(widget, Entry):
            widget.focus = False


def scroll(root: Widget, heights: float) -> bool:
    """Move what is longer than the screen by so many of its heights; whether there is such."""
    for area in root.walk():
        if isinstance(area, ScrollView) and area.children:
            hidden = area.children[0].height - area.height
            if hidden > 0:
                area.scroll_y = min(max(area.scroll_y - heights * area.height / hidden, 0), 1)
                return True
    return False


def _into_sight(widget: Widget) -> None:
    for area in above(widget):
        if isinstance(area, ScrollView) and area.children[0].height > area.height:
            area.scroll_to(widget, padding=dp(20), animate=False)
