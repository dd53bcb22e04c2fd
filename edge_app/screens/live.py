"""The live screen: the picture as it comes, what to do, the button."""

from __future__ import annotations

from pathlib import Path

from kivy.lang import Builder
from kivy.properties import ObjectProperty
from kivy.uix.screenmanager import Screen

import edge_app.widgets  # noqa: F401  the .kv names its classes
from edge_app.present import LiveView


class LiveScreen(Screen):
    view = ObjectProperty(LiveView(), rebind=True)


Builder.load_file(str(Path(__file__).with_suffix(".kv")))
