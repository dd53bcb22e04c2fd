"""A new spot, or one that is changed: its place on the body, which names it, and its name.

With `task="keep"` it receives the pictures of the sitting.
"""

from __future__ import annotations

from dataclasses import replace

from kivy.properties import ListProperty, ObjectProperty, StringProperty

import edge_app.look.body_view  # noqa: F401  the .kv names its class
from edge_app.cases.store import Lesion
from edge_app.look import body_map
from edge_app.look.language import _
from edge_app.screens.person import keep
from edge_app.screens.view import View, load_kv

CLOSE = 0.30  # of the map's height that the close view shows
STEP = 0.006  # of the map that an arrow key moves the place by
ARROWS = {273: (0, -STEP), 274: (0, STEP), 275: (STEP, 0), 276: (-STEP, 0)}


class PlaceScreen(View):
    operator = unlocked = True
    task = StringProperty()
    title = StringProperty()
    fault = StringProperty()
    region = StringProperty()
    pin = ObjectProperty(None, allownone=True)
    window = ListProperty([0, 0, 1, 1])

    def show(self, lesion: Lesion | None = None, place=None, task: str = "") -> None:
        self.task, self.fault = task, ""
        self._lesion = lesion
        self._named = lesion.title if lesion else ""  # what was typed stays, what was proposed not
        self.title = _("Name and place") if lesion else _("A new spot")
        self.ids.title.text = self._named
        self.pin, self.region = None, ""
        self.window = [0, 0, 1, 1]
        if lesion is not None:
            place = (lesion.view, lesion.x, lesion.y)
        if place is not None:
            self.put(*place)

    def hide(self) -> None:
        self.pin = self._lesion = None
        self.ids.title.text = self._named = ""

    def put(self, view: str, x: float, y: float) -> None:
        """The spot is there."""
        x, y = body_map.nearest(view, x, y)
        self.pin = (view, x, y)
        self.region = _(body_map.region(view, x, y))
        across = CLOSE / 2 / body_map.ASPECT * self.ids.close.width / max(self.ids.close.height, 1)
        self.window = [x - across, y - CLOSE / 2, x + across, y + CLOSE / 2]
        if self.ids.title.text == self._named and not (self._lesion and self._named):
            self.ids.title.text = self._named = self.region

    def save(self) -> None:
        app, title = self.app, self.ids.title.text.strip()
        if self.pin is None:
            app.tell(_("Press the place of the spot on the body first."))
            return
        if not title:
            self.fault = _("Give the spot a name.")
            return
        view, x, y = self.pin
        lesion = self._lesion or Lesion("", app.session.person.id, title)
        lesion = replace(lesion, title=title, view=view, x=x, y=y)
        if self.task == "keep":
            keep(app, lesion)
        else:
            app.work(lambda: app.session.save_lesion(lesion), lambda _saved: self._saved(lesion))

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
