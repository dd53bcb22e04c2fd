"""What the app remembers from one start to the next."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("babel", reason="the messages need it")
from edge_app.settings import Settings


def test_settings_of_0_1_0_are_read(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"turn": 90, "theme": "dark", "consent": 1}))
    settings = Settings.load(path)
    assert (settings.rotation, settings.theme, settings.consent) == (90, "dark", 1)
    settings.rotation = 180
    settings.save(path)
    assert Settings.load(path).rotation == 180
    assert "turn" not in json.loads(path.read_text())


@pytest.mark.parametrize("text", ["", "[]", '{"turn": 45}', '{"rotation": "90", "turn": 7}'])
def test_what_is_damaged_or_unknown_is_as_at_first(tmp_path, text):
    path = tmp_path / "settings.json"
    path.write_text(text)
    assert Settings.load(path) == Settings()
