"""Two pictures of one spot, brought together: side by side or upon each other, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from kivy.app import App
from kivy.graphics import Color, Ellipse, Line
from kivy.metrics import dp
from kivy.properties import BooleanProperty, NumericProperty, OptionProperty, StringProperty
from kivy.uix.widget import Widget

import edge_app.ui.picture_view  # noqa: F401  the .kv names its class
from dermedge import UserError
from dermedge.analysis import lesion_outline
from edge_app import cases
from edge_app.follow_up.history import Comparison
from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.presentation import comparison
from edge_app.presentation import messages as present
from edge_app.screens.result import TableCard, TextCard
from edge_app.screens.view import View, load_kv
from edge_app.store.store import Capture, Store
from edge_app.ui.focus import Target
from edge_app.ui.text import Text
from edge_app.ui.widgets import Option, Wrap

STEP = 0.1  # of the fader, for one press of an arrow key
LEFT, RIGHT = 276, 275


class Fader(Target, Widget):
    """From 0 at the start of its line to 1 at its end, by a finger or by the arrow keys."""

    value = NumericProperty(0.5)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bind(pos=self._draw, size=self._draw, value=self._draw, lit=self._draw)

    def on_touch_down(self, touch) -> bool:
        if not self.collide_point(*touch.pos):
            return False
        touch.grab(self)
        self._follow(touch)
        return True

    def on_touch_move(self, touch) -> bool:
        if touch.grab_current is self:
            self._follow(touch)
        return touch.grab_current is self

    def on_touch_up(self, touch) -> bool:
        if touch.grab_current is self:
            touch.ungrab(self)
            return True
        return False

    def _follow(self, touch) -> None:
        start, length = self._track()
        share = min(max((touch.x - start) / length, 0), 1)
        self.value = 1 - share if language.rtl() else share

    def _track(self) -> tuple[float, float]:
        knob = 0.22 * self.height
        return self.x + knob, max(self.width - 2 * knob, 1)

    def _draw(self, *_) -> None:
        styles = App.get_running_app().styles
        start, length = self._track()
        share = 1 - self.value if language.rtl() else self.value
        x, y, knob = start + share * length, self.y + self.height / 2, 0.22 * self.height
        self.canvas.clear()
        with self.canvas:
            Color(*styles["stage_quiet"].text)
            Line(points=[start, y, start + length, y], width=dp(2), cap="round")
            Color(*styles["stage"].text)
            Ellipse(pos=(x - knob, y - knob), size=(2 * knob, 2 * knob))
            if self.lit:
                Line(circle=(x, y, 1.4 * knob), width=dp(1.5))


class CompareScreen(View):
    """Of two captures of `session.lesion`."""

    operator = unlocked = True
    title = StringProperty()
    layer = OptionProperty("beside", options=("beside", "upon"))
    outlined = BooleanProperty(True)
    close = BooleanProperty(True)
    registered = BooleanProperty(False)
    first, second = StringProperty(), StringProperty()  # days of the earlier and the later one

    def show(self, earlier: Capture, later: Capture) -> None:
        self._pair: Sequence[Capture] = (earlier, later)
        self._views: dict[bool, tuple[comparison.Side, ...]] = {}
        self.seat()
        self.app.bind(portrait=self.seat)
        self.title, self.registered = self.app.session.lesion.title, False
        self.first, self.second = comparison.labels(self._pair)
        self.ids.scroll.scroll_y = 1
        self.ids.cards.clear_widgets()
        self.ids.others.clear_widgets()
        self._clear()
        beyond = [round(255 * value) for value in self.app.styles["stage"].ground[:3]]
        session = self.app.session
        store, lesion = session.opened(), session.lesion
        action = partial(_compare, store, earlier, later, beyond)
        self.app.work(action, lambda found: self._compared(*found))
        self.app.work(lambda: store.captures(lesion.id, session.leave_out), self._offer)

    def hide(self) -> None:
        self.app.unbind(portrait=self.seat)
        self._pair, self._views = (), {}
        self._clear()
        self.ids.cards.clear_widgets()
        self.ids.others.clear_widgets()

    def _clear(self) -> None:
        for name in ("earlier", "later", "under", "over"):
            self.ids[name].show(None)

    # ------------------------------------------------------------------------ the pictures

    def _compared(self, views: dict, change: Comparison | None, why: str) -> None:
        self._views, self.registered = views, change is not None
        if not self.registered:
            self.layer = "beside"
        self._place()
        cards = self.ids.cards
        cards.clear_widgets()
        if change is None:
            cards.add_widget(TextCard(_("Not compared"), [why]))
            return
        cards.add_widget(TableCard(_("What changed"), comparison.changes(change)))
        if remarks := comparison.remarks(change):
            cards.add_widget(TextCard(_("What limits this comparison"), remarks))

    def _place(self) -> None:
        if self._views:
            earlier, later, *faded = self._views[self.close and self.registered]
            self._put("earlier", earlier)
            self._put("later", later)
            for over in faded:
                self._put("under", later)
                self._put("over", over)

    def _put(self, name: str, side: comparison.Side) -> None:
        picture = self.ids[name]
        picture.extent = side.extent
        picture.outline = side.outline if self.outlined else []
        picture.show(side.pixels)

    def on_outlined(self, *_args) -> None:
        self._place()

    on_close = on_outlined

    # ------------------------------------------------------------------------ another pair

    def _offer(self, captures: list[Capture]) -> None:
        """The spot's other pictures."""
        if len(captures) < 3 or not self._pair:
            return
        self.ids.others.clear_widgets()
        card = TextCard(_("Compare other pictures"), [])
        for place, message in enumerate((_("Earlier"), _("Later"))):
            card.add_widget(Text(text=message, points=14))
            row = Wrap()
            for capture, label in zip(captures, comparison.labels(captures), strict=True):
                option = Option(text=label, chosen=self._pair[place].id == capture.id)
                option.bind(on_release=partial(self._choose, captures, place, capture))
                row.add_widget(option)
            card.add_widget(row)
        self.ids.others.add_widget(card)

    def _choose(self, captures: list[Capture], place: int, capture: Capture, _press) -> None:
        other = self._pair[1 - place]
        if other.id == capture.id:
            self.app.tell(_("Choose two different pictures."))
        elif self._pair[place].id != capture.id:
            earlier, later = comparison.pair(captures, capture, other)
            self.app.replace("compare", earlier=earlier, later=later)

    def report(self) -> None:
        earlier, later = self._pair
        self.app.go("files", task="report", capture=later, earlier=earlier)

    def key(self, code: int) -> bool:
        if code in (LEFT, RIGHT) and self.layer == "upon":
            step = STEP if (code == RIGHT) != language.rtl() else -STEP
            fader = self.ids.fader
            fader.value = min(max(fader.value + step, 0), 1)
            return True
        return False


def _compare(
    store: Store, earlier: Capture, later: Capture, beyond: list[int]
) -> tuple[dict[bool, tuple[comparison.Side, ...]], Comparison | None, str]:
    """What is shown close up (True) or whole (False), what changed, or why that is unknown."""
    try:
        ours, _theirs, change = cases.compared(store, later, earlier)
    except UserError as error:
        apart = tuple(
            comparison.Side(
                cases.picture(store, one),
                lesion_outline(one.analysis) if one.readable else [],
                one.size,
            )
            for one in (earlier, later)
        )
        return {False: apart}, None, present.error_line(error)
    views: dict[bool, tuple[comparison.Side, ...]] = {
        close: comparison.sides(later, ours, change, close, beyond) for close in (True, False)
    }
    return views, change, ""


load_kv(__file__)
