"""A field to type into."""

from __future__ import annotations

import unicodedata
from typing import Any

from kivy.app import App
from kivy.cache import Cache
from kivy.properties import BooleanProperty, StringProperty
from kivy.uix.textinput import TextInput

from edge_app.i18n import language
from edge_app.ui import fonts


class Entry(TextInput):
    """One line to type, or several."""

    style = StringProperty("field")
    lit = BooleanProperty(False)
    hint = StringProperty()
    line_height: Any  # of TextInput

    def on_text(self, *_) -> None:
        if self.password and not self.text:
            self.reset_undo()  # what was typed is gone for good
        self.font_name = fonts.family(self.text or self.hint_text)
        self.halign = "right" if language.rtl() else "left"

    on_hint_text = on_text

    # Kivy draws a line as it was typed. Arabic must be joined and put into order for that, and the
    # cursor goes the other way.

    def _create_line_label(self, text, hint=False):
        text = text if self.password else language.visual(text)
        label, size = super()._create_line_label(text, hint), self.font_size
        room = self.width - self.padding[0] - self.padding[2]
        if not hint or label.width <= room or room <= 0:
            return label
        options = self._get_line_options()  # a hint that is too wide is smaller: Kivy cuts it
        options["font_size"] = size * room / label.width * 0.98
        try:
            return super()._create_line_label(text, hint)
        finally:
            options["font_size"] = size

    def _get_text_width(self, text, *args):
        return super()._get_text_width(text if self.password else language.visual(text), *args)

    def on_width(self, *_) -> None:
        self._refresh_hint_text()

    @property
    def cut(self) -> bool:
        """Whether a part of the hint is not seen."""
        room = self.width - self.padding[0] - self.padding[2]
        return not self.text and any(it.width > room + 1 for it in self._hint_text_labels)

    def _refresh_hint_text(self):
        super()._refresh_hint_text()
        self.on_line_height()

    def on_line_height(self, *_) -> None:
        """Kivy cuts a hint to the height of a Latin line; Arabic letters are taller."""
        tall = max((label.height for label in self._hint_text_labels), default=0)
        if not self.text and self.line_height < tall:
            self.line_height = tall

    def cursor_offset(self):
        offset, row = super().cursor_offset(), int(self.cursor_row)
        return self._get_row_width(row) - offset if self._backwards(row) else offset

    def get_cursor_from_xy(self, x, y):
        column, row = super().get_cursor_from_xy(x, y)
        if not self._backwards(row):
            return column, row
        wide, room = self._get_row_width(row), self.width - self.padding[0] - self.padding[2]
        left = self.x + self.padding[0] - self.scroll_x
        if self.halign == "right":
            left += max(0, room - wide)
        return super().get_cursor_from_xy(2 * left + wide - x, y)

    def _backwards(self, row: int) -> bool:
        return not self.password and row < len(self._lines) and language.backwards(self._lines[row])

    def keyboard_on_key_down(self, window, keycode, text, modifiers):
        if keycode[1] == "tab" or (keycode[1] == "enter" and not self.multiline):
            App.get_running_app().focus_next(-1 if "shift" in modifiers else 1)
            return True
        return super().keyboard_on_key_down(window, keycode, text, modifiers)


def digits(text: str, _undoing: bool = False) -> str:
    """The digits of what is typed, as Latin ones: some Arabic keyboards type others."""
    return "".join(str(unicodedata.decimal(letter)) for letter in text if letter.isdecimal())


def forget_typing() -> None:
    """Let go of what Kivy keeps of fields that are gone: what was typed, and the last field."""
    for kept in ("textinput.label", "textinput.width"):
        Cache.remove(kept)
    Entry()._adjust_viewport(0, 0)
