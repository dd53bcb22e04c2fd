"""The live screen: the picture as it comes, what to do, the button."""

from __future__ import annotations

from kivy.properties import BooleanProperty, NumericProperty, ObjectProperty, StringProperty
from kivy.uix.widget import Widget

import edge_app.ui.picture_view  # noqa: F401  the .kv names its class
from edge_app.capture.processing import PREVIEW_SIDE
from edge_app.capture.shots import Snapshot
from edge_app.i18n.language import _
from edge_app.presentation import messages as present
from edge_app.presentation.messages import LiveView
from edge_app.screens.view import View, load_kv
from edge_app.ui.focus import Pressed

SPACE = 32


class Shutter(Pressed, Widget):
    """A round button; its ring fills while the picture is good and still."""

    progress = NumericProperty(0)  # 0..1


class LiveScreen(View):
    ground = "stage"
    live = True
    view = ObjectProperty(LiveView(), rebind=True)
    auto = BooleanProperty(False)  # take the picture when it is good and still
    steady = NumericProperty(0)
    whose = StringProperty()
    reference = StringProperty()
    low = BooleanProperty(False)  # little room from top to bottom

    def show(self) -> None:
        app, session = self.app, self.app.session
        self.auto = session.settings.auto
        self.whose = ""
        if session.lesion is not None:
            self.whose = present.whose(session.person, session.lesion)
        self._name_reference()
        app.worker.live(True)
        self.update(app.worker.snapshot(), Snapshot())

    def hide(self) -> None:
        self.app.worker.live(False)
        self.ids.picture.show(None)
        self.view, self.whose = LiveView(), ""

    def update(self, snapshot: Snapshot, before: Snapshot) -> None:
        """Show the worker's news."""
        app, picture = self.app, self.ids.picture
        app.worker.preview_side = min(PREVIEW_SIDE, max(64, round(max(picture.size))))
        if snapshot.preview is not before.preview:
            picture.show(snapshot.preview)
        refused = app.session.refused
        self.steady = snapshot.steady if self.auto else 0
        # Not again by itself where it failed: a full disk would make it try for ever.
        if self.auto and snapshot.steady >= 1 and not snapshot.busy and not refused:
            app.take(snapshot.analysed_frame)
        self.view = present.live(snapshot, refused)

    def switch_auto(self) -> None:
        self.auto = not self.auto
        self.app.attempt(lambda: self.app.session.change(auto=self.auto))

    def rotate(self) -> None:
        """A quarter clockwise, for a camera that is mounted on its side or its head."""
        worker = self.app.worker
        worker.rotation = (worker.rotation + 90) % 360
        self.app.attempt(lambda: self.app.session.change(rotation=worker.rotation))

    def switch_reference(self) -> None:
        """The next of: none, and what the settings name."""
        session, chosen = self.app.session, self.app.session.settings.reference
        if chosen is None:
            self.app.tell(_("Choose in the settings what you lay beside the spot."))
        session.reference = None if session.reference else chosen
        self._name_reference()

    def _name_reference(self) -> None:
        name = present.reference(self.app.session.reference)
        self.reference = _("Size by: {name}", name=name)

    def key(self, code: int) -> bool:
        if code == SPACE:
            self.app.take_picture()
        return code == SPACE


load_kv(__file__)
