"""The live screen: the picture as it comes, what to do, the button."""

from __future__ import annotations

from pathlib import Path

from kivy.lang import Builder
from kivy.properties import BooleanProperty, NumericProperty, ObjectProperty
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.screenmanager import Screen
from kivy.uix.widget import Widget

import edge_app.picture_view
import edge_app.widgets  # noqa: F401  the .kv names its classes
from edge_app.present import LiveView


class Shutter(ButtonBehavior, Widget):
    """A round button; its ring fills while the picture is good and still."""

    progress = NumericProperty(0)  # 0..1


class LiveScreen(Screen):
    view = ObjectProperty(LiveView(), rebind=True)
    auto = BooleanProperty(False)  # take the picture when it is good and still
    steady = NumericProperty(0)


Builder.load_file(str(Path(__file__).with_suffix(".kv")))
