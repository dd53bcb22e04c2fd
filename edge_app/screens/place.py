"""A new spot, or one that is changed: its place on the body, which names it, and its name.

With `task="keep"` it receives the pictures of the series.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import count

from kivy.properties import BooleanProperty, ListProperty, ObjectProperty, StringProperty

import edge_app.ui.body_view  # noqa: F401  the .kv names its class
from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.presentation import body_map
from edge_app.screens.person import keep
from edge_app.screens.view import View, load_kv
from edge_app.store.store import Lesion

CLOSE = 0.30  # of the map's height that the close view shows
STEP = 0.006  # of the map that an arrow key moves the place by
ARROWS = {273: (0, -STEP), 274: (0, STEP), 275: (STEP, 0), 276: (-STEP, 0)}


class PlaceScreen(View):
    """`change`: `session.lesion`. `place`: of a new one, where it is known."""

    operator = unlocked = True
    FIGURE = 120  # dp, least height: where there is less room, the screen is scrolled
    task = StringProperty()
    title = StringProperty()
    fault = StringProperty()
    pin = ObjectProperty(None, allownone=True)
    window = ListProperty([0, 0, 1, 1])
    near = BooleanProperty(False)  # the place is shown close up; on a narrow screen that alone

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        ids = self.ids  # which hold no widget that is taken out
        self._body, self._lens, self._whole = (
            part.__self__ for part in (ids.body, ids.lens, ids.whole)
        )

    def show(
        self,
        place: tuple[str, float, float] | None = None,
        change: bool = False,
        task: str = "",
    ) -> None:
        self.task, self.fault = task, ""
        self._lesion = lesion = self.app.session.lesion if change else None
        self.title = _("Name and place") if change else _("A new spot")
        self.pin, self.near = None, False
        self.window = [0, 0, 1, 1]
        self.on_near()
        self.app.bind(portrait=self.on_near)
        self.ids.close.bind(size=self._look_close)
        self._region = self.ids.title.text = ""
        self._others: set[str] = set()
        session = self.app.session
        store, person = session.opened(), session.person
        self.app.work(lambda: store.lesions(person.id, session.leave_out), self._know)
        if lesion is not None:
            self.put(lesion.view, lesion.x, lesion.y)
            self.ids.title.text = lesion.title
        elif place is not None:
            self.put(*place)

    def hide(self) -> None:
        self.ids.close.unbind(size=self._look_close)
        self.app.unbind(portrait=self.on_near)
        self.pin = self._lesion = None
        self._others = set()
        self.ids.title.text = self._region = ""

    def put(self, view: str, x: float, y: float) -> None:
        """The spot is there."""
        x, y = body_map.nearest(view, x, y)
        self.pin, self.near = (view, x, y), True
        before = self._region
        self._region = language.capital(_(body_map.region(view, x, y) or ""))
        self._look_close()
        title = self.ids.title.text
        proposed = before and re.fullmatch(re.escape(before) + r"( \(\d+\))?", title)
        if not title or (proposed and (before != self._region or title in self._others)):
            self.ids.title.text = self._free(self._region)

    def _know(self, lesions: Iterable[Lesion]) -> None:
        """The person's spots: no second one is proposed to be called as one of them."""
        changed = self._lesion
        self._others = {one.title for one in lesions if changed is None or one.id != changed.id}
        if changed is None and self.pin is not None:
            self.put(*self.pin)

    def _free(self, name: str) -> str:
        numbered = (f"{name} ({language.number(number)})" for number in count(2))
        free = name
        while free in self._others:
            free = next(numbered)
        return free

    def on_near(self, *_args) -> None:
        """Whole and close up side by side, or, where there is no room, one of them."""
        ids, narrow = self.ids, self.app.portrait
        for part in (self._body, self._lens, self._whole):
            if part.parent is not None:
                part.parent.remove_widget(part)
        ids.first.add_widget(self._lens if narrow and self.near else self._body)
        if narrow:
            self._lens.add_widget(self._whole)
        else:
            ids.second.add_widget(self._lens)

    def _look_close(self, *_args) -> None:
        """Show the part of the body around the place, as much as there is room for."""
        close, half = self.ids.close, CLOSE / 2
        if self.pin is not None and min(close.size) > 1:
            _view, x, y = self.pin
            across = half / body_map.ASPECT * close.width / close.height
            self.window = [x - across, y - half, x + across, y + half]

    def save(self) -> None:
        app, title = self.app, self.ids.title.text.strip()
        if not title:
            self.fault = _("Give the spot a name.")
            return
        view, x, y = self.pin
        lesion = self._lesion or Lesion("", app.session.person.id, title)
        placed = {"title": title, "view": view, "x": x, "y": y}
        lesion = replace(lesion, **placed)
        if self.task == "keep":
            keep(app, lesion)
        else:
            session = app.session
            app.work(
                lambda: (
                    session.change_lesion(lesion, **placed)
                    if lesion.id
                    else session.save_lesion(lesion)
                ),
                lambda _saved: self._saved(lesion),
                _("Saving."),
                writes=True,
            )

    def _saved(self, lesion: Lesion) -> None:
        if lesion.id:
            self.app.back()
        else:
            self.app.replace("lesion")

    def key(self, code: int) -> bool:
        if code in ARROWS and self.pin is not None:
            view, x, y = self.pin
            self.put(view, x + ARROWS[code][0] / body_map.ASPECT, y + ARROWS[code][1])
        return code in ARROWS


load_kv(__file__)
