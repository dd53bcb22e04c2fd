"""How hard a passphrase is to guess, while it is typed: three steps and a line of words."""

from __future__ import annotations

from pathlib import Path

from kivy.lang import Builder
from kivy.properties import BooleanProperty, NumericProperty, StringProperty
from kivy.uix.boxlayout import BoxLayout

from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.store.passphrase import LEVELS, strength


class StrengthBar(BoxLayout):
    """Judges `text`; `own` : for the store of this device, not for a file that leaves it."""

    text = StringProperty()
    own = BooleanProperty(False)
    shown = BooleanProperty(True)
    steps = NumericProperty(0)  # of LEVELS that are reached; 0: nothing was typed
    message = StringProperty()
    good = BooleanProperty(False)  # it is taken

    def on_text(self, *_args) -> None:
        found = strength(self.text, self.own)
        self.good = not found.fault
        self.steps = found.level + 1 if self.text else 0
        self.message = ""
        if self.text:
            self.message = language.sentence(_(found.fault or LEVELS[found.level]))

    on_own = on_text


Builder.load_file(str(Path(__file__).with_suffix(".kv")))
