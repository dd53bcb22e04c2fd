"""The audit of the screens finds what it looks for, and nothing on a screen that is well."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("kivy")

SCREENS = """
import json, sys
from edge_app.commands import _configure_kivy
_configure_kivy(sys.argv[1], 640, 480, False)
import numpy as np
from kivy.app import App
from kivy.core.window import Window
from kivy.graphics.opengl import GL_RGBA, GL_UNSIGNED_BYTE, glReadPixels
from kivy.lang import Builder
from kivy.uix.floatlayout import FloatLayout
from kivy.properties import BooleanProperty, NumericProperty, ObjectProperty, StringProperty
from edge_app.qa.audit import audit
from edge_app.ui import theme
from edge_app.ui import widgets

class Shown(App):
    unit = NumericProperty(1.0)
    type_unit = NumericProperty(1.0)
    portrait = BooleanProperty(False)
    notice = StringProperty()
    demonstration = StringProperty()
    styles = ObjectProperty(theme.STYLES["light"], rebind=True)

    def build(self):
        Window.clearcolor = theme.STYLES["light"]["page"].ground
        Window.bind(on_flip=self.grab)
        self.screens, self.found, self.frames = json.load(open(sys.argv[2])), [], 0
        return FloatLayout()

    def grab(self, _window):
        Window.canvas.ask_update()
        if self.frames == 0:
            self.root.clear_widgets()
            self.root.add_widget(Builder.load_string(self.screens[len(self.found)]))
        elif self.frames == 8:
            width, height = Window.system_size
            data = glReadPixels(0, 0, width, height, GL_RGBA, GL_UNSIGNED_BYTE)
            pixels = np.frombuffer(data, np.uint8).reshape(height, width, 4)[::-1, :, :3]
            self.found.append(audit(self.root, self.styles, pixels))
        self.frames = (self.frames + 1) % 9
        if len(self.found) == len(self.screens):
            Window.unbind(on_flip=self.grab)
            self.stop()

shown = Shown(kv_file="")
shown.load_kv = lambda *_, **__: False
shown.run()
print(json.dumps(shown.found))
"""

WELL = """
FloatLayout:
    Text:
        style: 'page'
        text: 'A line of text'
        pos: 20, 400
        size_hint: None, None
        width: 300
    Text:  # which needs another font than what it showed before
        style: 'page'
        text: '...'
        on_texture: self.text = 'كلما كان الموضع أغمق، زادت دلالته'
        pos: 20, 300
        size_hint: None, None
        width: 215
    Press:
        text: 'Press this'
        pos: 20, 200
        size_hint: None, None
        width: 200
    IconPress:
        name: 'plus'
        hint: 'Add'
        style: 'page'
        pos: 300, 200
"""


WRONG = [
    ("style: 'page'\n        text", "style: 'stage'\n        text", "on another ground"),
    ("width: 300", "width: 10", "broken within a word"),
    ("pos: 20, 400", "pos: 580, 400", "out of the window"),
    ("pos: 20, 400", "pos: 40, 220", "lie over each other"),
    ("pos: 300, 200", "pos: 190, 200", "lie over each other"),
    ("hint: 'Add'", "size: 40, 56\n        hint: 'Add'", "too small to be hit, 40 x 56 dp"),
    ("hint: 'Add'", "hint: ''", "no words for those who cannot see it"),
    (
        "hint: 'Add'",
        "hint: 'Add'\n    Icon:\n        color: 1, 1, 1, 1\n        size_hint: .1, .1",
        "drawn with a contrast of 1.1",
    ),
    ("pos: 300, 200", "pos: 300, 200\n    Slider:\n        size_hint: .2, .2", "Tab key"),
]


@pytest.fixture(scope="module")
def audits(display, tmp_path_factory) -> list[list[str]]:
    """Of the screen that is well, then of each of WRONG."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "screens.py").write_text(SCREENS)
    kvs = [WELL, *(WELL.replace(was, now) for was, now, _fault in WRONG)]
    (folder / "screens.json").write_text(json.dumps(kvs))
    command = [sys.executable, "screens.py", str(folder), "screens.json"]
    environment = {**os.environ, "DISPLAY": display, "SDL_VIDEODRIVER": "x11"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=90
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_screen_that_is_well_has_no_faults(audits):
    assert audits[0] == []


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[fault for *_, fault in WRONG])
def test_what_is_wrong_is_found(audits, number):
    was, _now, fault = WRONG[number]
    assert was in WELL
    assert any(fault in line for line in audits[number + 1]), audits[number + 1]
