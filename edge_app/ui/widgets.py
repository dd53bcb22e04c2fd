"""The few widgets that the screens are made of.

All colours come from `app.look` by the name of a style, all lengths grow with `app.unit`, all type
with `app.type`. Rows run from right to left where the language does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kivy.app import App
from kivy.cache import Cache
from kivy.core.text import LabelBase
from kivy.core.window import Window
from kivy.graphics import Color, Ellipse, Line
from kivy.lang import Builder
from kivy.metrics import dp
from kivy.properties import (
    BooleanProperty,
    ListProperty,
    NumericProperty,
    ObjectProperty,
    OptionProperty,
    StringProperty,
)
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.floatlayout import FloatLayout
from kivy.uix.label import Label
from kivy.uix.modalview import ModalView
from kivy.uix.scrollview import ScrollView
from kivy.uix.stacklayout import StackLayout
from kivy.uix.textinput import TextInput
from kivy.uix.widget import Widget

from edge_app.i18n import language
from edge_app.ui import fonts

SEGMENTS = {"circle": (64, 0), "triangle": (3, 0), "octagon": (8, 22.5), "square": (4, 45)}
# Lines in a unit square, y up.
ICONS = {
    "back": [[(0.62, 0.8), (0.32, 0.5), (0.62, 0.2)]],
    "next": [[(0.38, 0.8), (0.68, 0.5), (0.38, 0.2)]],
    "close": [[(0.25, 0.25), (0.75, 0.75)], [(0.25, 0.75), (0.75, 0.25)]],
    "plus": [[(0.5, 0.2), (0.5, 0.8)], [(0.2, 0.5), (0.8, 0.5)]],
    "check": [[(0.22, 0.5), (0.42, 0.3), (0.78, 0.7)]],
    "edit": [
        [(0.22, 0.22), (0.27, 0.4), (0.66, 0.79), (0.79, 0.66), (0.4, 0.27), (0.22, 0.22)],
        [(0.57, 0.7), (0.7, 0.57)],
    ],
    "settings": [
        *[[(0.18, y), (0.82, y)] for y in (0.27, 0.5, 0.73)],
        *[[(x, y - 0.08), (x, y + 0.08)] for x, y in ((0.36, 0.73), (0.64, 0.5), (0.42, 0.27))],
    ],
    "camera": [
        [(0.15, 0.25), (0.15, 0.68), (0.33, 0.68), (0.4, 0.78), (0.6, 0.78), (0.67, 0.68),
         (0.85, 0.68), (0.85, 0.25), (0.15, 0.25)],
        [(0.5, 0.6), (0.6, 0.56), (0.64, 0.46), (0.6, 0.36), (0.5, 0.32), (0.4, 0.36),
         (0.36, 0.46), (0.4, 0.56), (0.5, 0.6)],
    ],
    "people": [
        [(0.5, 0.82), (0.6, 0.78), (0.64, 0.68), (0.6, 0.58), (0.5, 0.54), (0.4, 0.58),
         (0.36, 0.68), (0.4, 0.78), (0.5, 0.82)],
        [(0.2, 0.18), (0.24, 0.36), (0.38, 0.44), (0.62, 0.44), (0.76, 0.36), (0.8, 0.18)],
    ],
    "file": [
        [(0.28, 0.15), (0.28, 0.85), (0.58, 0.85), (0.74, 0.69), (0.74, 0.15), (0.28, 0.15)],
        [(0.58, 0.85), (0.58, 0.69), (0.74, 0.69)],
    ],
    "folder": [
        [(0.15, 0.25), (0.15, 0.75), (0.4, 0.75), (0.48, 0.66), (0.85, 0.66), (0.85, 0.25),
         (0.15, 0.25)],
    ],
    "home": [
        [(0.15, 0.5), (0.5, 0.82), (0.85, 0.5)],
        [(0.24, 0.42), (0.24, 0.18), (0.76, 0.18), (0.76, 0.42)],
    ],
    "stick": [
        [(0.34, 0.14), (0.34, 0.6), (0.66, 0.6), (0.66, 0.14), (0.34, 0.14)],
        [(0.41, 0.6), (0.41, 0.84), (0.59, 0.84), (0.59, 0.6)],
    ],
    "device": [
        [(0.15, 0.34), (0.15, 0.8), (0.85, 0.8), (0.85, 0.34), (0.15, 0.34)],
        [(0.5, 0.34), (0.5, 0.2)],
        [(0.32, 0.2), (0.68, 0.2)],
    ],
    "rotate": [
        [(0.76, 0.62), (0.68, 0.74), (0.56, 0.8), (0.42, 0.79), (0.3, 0.71), (0.23, 0.58),
         (0.23, 0.43), (0.3, 0.3), (0.42, 0.22), (0.56, 0.21), (0.68, 0.27), (0.76, 0.38)],
        [(0.78, 0.8), (0.77, 0.61), (0.59, 0.63)],
    ],
    "info": [
        [(0.5, 0.85), (0.72, 0.77), (0.85, 0.5), (0.72, 0.23), (0.5, 0.15), (0.28, 0.23),
         (0.15, 0.5), (0.28, 0.77), (0.5, 0.85)],
        [(0.5, 0.52), (0.5, 0.32)],
        [(0.5, 0.67), (0.5, 0.68)],
    ],
    "ruler": [
        [(0.12, 0.36), (0.12, 0.64), (0.88, 0.64), (0.88, 0.36), (0.12, 0.36)],
        *[[(x, 0.64), (x, y)] for x, y in ((0.27, 0.54), (0.42, 0.48), (0.58, 0.54), (0.73, 0.48))],
    ],
    "lock": [
        [(0.25, 0.2), (0.25, 0.55), (0.75, 0.55), (0.75, 0.2), (0.25, 0.2)],
        [(0.34, 0.55), (0.34, 0.7), (0.42, 0.8), (0.58, 0.8), (0.66, 0.7), (0.66, 0.55)],
    ],
    "trash": [
        [(0.2, 0.72), (0.8, 0.72)],
        [(0.4, 0.72), (0.4, 0.82), (0.6, 0.82), (0.6, 0.72)],
        [(0.28, 0.72), (0.33, 0.17), (0.67, 0.17), (0.72, 0.72)],
    ],
}  # fmt: skip
LONGEST_WORD = 24  # letters; longer ones are names of files and the like
LEAST_TYPE = 0.6  # of the size of type that a word is shrunk to
POINTING = {"back": "next", "next": "back"}  # what is mirrored from right to left

for _family in ("Roboto", "DejaVu"):
    _bold = (_family, "B") if (_family, "B") in fonts.FONTS else (_family, "")
    LabelBase.register(
        _family, str(fonts.path(_family)), fn_bold=str(fonts.path(*_bold))
    )  # Kivy's own 'Roboto', and the font for what that one lacks


class Text(Label):
    """Wrapped text, as high as it needs to be. `align` is 'start', 'center' or 'end' of a line."""

    style = StringProperty("card")
    points = NumericProperty(16)
    align = OptionProperty("start", options=("start", "center", "end"))
    off = StringProperty()  # style while it is disabled, where that is another
    most = NumericProperty(10)  # times the usual size of type, however large that is set
    shrink = NumericProperty(1)  # of the type's size, where a word would not fit into its line

    def on_text(self, *_) -> None:
        self.font_name = fonts.family(self.text)

    def texture_update(self, *args) -> None:
        self._fit()
        if language.rtl() or not self.text.isascii():
            self._label.text = self._laid_out()
        super().texture_update(*args)

    def _laid_out(self) -> str:
        """The lines as they are drawn: they have to be broken before they are put into order."""
        width, drawn = self._room(), []
        for paragraph in self.text.split("\n"):
            line, lines = "", []
            for word in paragraph.split(" "):
                longer = f"{line} {word}" if line else word
                if line and width and self._extent(longer) > width:
                    lines.append(line)
                    longer = word
                line = longer
            drawn += [language.visual(line, paragraph) for line in (*lines, line)]
        return "\n".join(drawn)

    def _fit(self) -> None:
        """Smaller type rather than a word in two parts."""
        room, options = self._room(), self._label.options
        full, now = round(self.font_size / self.shrink, 2), options["font_size"]
        # Always measured at full size: else two sizes might each ask for the other.
        options["font_size"] = full
        wide = max((self._extent(word) for word in self._longest_words()), default=0)
        options["font_size"] = now
        if wide and room:
            # Letters do not shrink by the same share: some room more.
            shrink = max(LEAST_TYPE, int(0.96 * full * room / wide) / full) if wide > room else 1
            if abs(shrink - self.shrink) > 1e-3:
                self.shrink = shrink

    def breaks_words(self) -> bool:
        """Whether a word is wider than there is room for."""
        room = self._room()
        return bool(room) and any(self._extent(word) > room for word in self._longest_words())

    def _room(self) -> float:
        """px for a line, 0 where it may be as long as it is."""
        width = self.text_size[0]
        return 0 if width is None else max(width - self.padding[0] - self.padding[2], 0)

    def _longest_words(self) -> list[str]:
        """The longest ones. Paths and the like may be broken."""
        words = [w for w in self.text.split() if len(w) <= LONGEST_WORD and "/" not in w]
        return sorted(words, key=len)[-2:]

    def _extent(self, line: str) -> float:
        return self._label.get_extents(language.visual(line))[0]


class Panel(Text):
    """Words on a ground of their own."""


def forget_typing() -> None:
    """Let go of what Kivy keeps of fields that are gone: what was typed, and the last field."""
    for kept in ("textinput.label", "textinput.width"):
        Cache.remove(kept)
    Entry()._adjust_viewport(0, 0)


class Target:
    """What can be pressed, and reached by the Tab key. `hint` is what it does, in words."""

    lit = BooleanProperty(False)  # the keyboard is on it
    hint = StringProperty()


class Press(Target, ButtonBehavior, Text):
    """Something to press: never lower than theme.TOUCH."""

    icon = StringProperty()
    off = StringProperty("off")


class Card(BoxLayout):
    """A rounded ground for what belongs together."""

    style = StringProperty("card")


class PressCard(Target, ButtonBehavior, Card):
    """A card to press."""


class Item(PressCard):
    """One line of a list to press: an icon, a title, quiet words below it, an arrow."""

    icon = StringProperty()
    side = NumericProperty(30)  # dp, of the icon
    title = StringProperty()
    message = StringProperty()


class Across(BoxLayout):
    """What stands side by side, in the direction in which the language is read."""

    def do_layout(self, *args):
        super().do_layout(*args)
        if self.orientation == "horizontal" and language.rtl():
            for child in self.children:
                child.x = self.x + self.right - child.right


class Wrap(StackLayout):
    """Side by side, and on to the next line where there is no room."""


class Row(Across):
    """A name, and its value at the other end."""

    name = StringProperty()
    value = StringProperty()
    style = StringProperty("card")


class Footer(Text):
    """The disclaimer, at the foot of every screen."""


class Icon(Widget):
    """One of ICONS, drawn by lines."""

    name = StringProperty("plus")
    color = ListProperty([1, 1, 1, 1])
    share = NumericProperty(1)  # of its square that is drawn into

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bind(pos=self._draw, size=self._draw, name=self._draw, color=self._draw)

    def _draw(self, *_) -> None:
        # Not by center_x: while `x` tells of its change, that is still the old one.
        side = min(self.size) * self.share
        x, y = self.x + (self.width - side) / 2, self.y + (self.height - side) / 2
        name = POINTING.get(self.name, self.name) if language.rtl() else self.name
        self.canvas.clear()
        with self.canvas:
            Color(*self.color)
            for line in ICONS.get(name, ()):
                points = [v for px, py in line for v in (x + px * side, y + py * side)]
                Line(points=points, width=max(1.0, side / 26), cap="round", joint="round")


class IconPress(Target, ButtonBehavior, Icon):
    """An icon to press; `hint` says in words what it does."""

    style = StringProperty("head")


class Head(Across):
    """The title of a screen, the way back, and what else is put into it."""

    title = StringProperty()
    back = BooleanProperty(True)


class Column(BoxLayout):
    """What stands one below the other on a page, no wider than theme.COLUMN."""


class Page(BoxLayout):
    """A screen's frame: head, a column that scrolls, buttons at the foot, the disclaimer."""

    title = StringProperty()
    back = BooleanProperty(True)
    wide = BooleanProperty(False)  # room for two columns

    column = ObjectProperty(None)  # set when the frame is whole

    def add_widget(self, widget, *args, **kwargs):
        """What is written inside of a page goes into its column; `Feet` go to its foot."""
        if self.column is None:
            return super().add_widget(widget, *args, **kwargs)
        return (self.ids.foot if isinstance(widget, Feet) else self.column).add_widget(widget)

    def to_top(self) -> None:
        self.ids.scroll.scroll_y = 1


class Feet(Across):
    """Buttons that stay at the foot of a page."""


class Entry(TextInput):
    """One line to type, or several."""

    style = StringProperty("field")
    lit = BooleanProperty(False)
    hint = StringProperty()

    def on_text(self, *_) -> None:
        if self.password and not self.text:
            self.reset_undo()  # what was typed is gone for good
        self.font_name = fonts.family(self.text or self.hint_text)
        self.halign = "right" if language.rtl() else "left"

    on_hint_text = on_text

    # Kivy draws a line as it was typed. Arabic must be joined and put into order for that, and the
    # cursor goes the other way.

    def _create_line_label(self, text, hint=False):
        return super()._create_line_label(text if self.password else language.visual(text), hint)

    def _get_text_width(self, text, *args):
        return super()._get_text_width(text if self.password else language.visual(text), *args)

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


class Field(BoxLayout):
    """A caption, something to type, and below it what is wrong with it."""

    caption = StringProperty()
    text = StringProperty()
    hint = StringProperty()
    fault = StringProperty()
    secret = BooleanProperty(False)
    lines = NumericProperty(1)
    digits = BooleanProperty(False)


class Options(BoxLayout):
    """A caption and choices side by side: `chosen` holds the keys of those that are.

    `choices` is a list of (key, words). With `several` any number may be chosen, else one or,
    where `optional`, none.
    """

    caption = StringProperty()
    choices = ListProperty()
    chosen = ListProperty()
    several = BooleanProperty(False)
    optional = BooleanProperty(False)

    def on_choices(self, *_) -> None:
        wrap = self.ids.wrap
        wrap.clear_widgets()
        for key, text in self.choices:
            option = Option(text=text, key=key)
            option.bind(on_release=lambda pressed: self._press(pressed.key))
            wrap.add_widget(option)
        self.on_chosen()

    def on_chosen(self, *_) -> None:
        for option in self.ids.wrap.children:
            option.chosen = option.key in self.chosen

    def _press(self, key) -> None:
        if self.several:
            self.chosen = [k for k in self.chosen if k != key] + [key] * (key not in self.chosen)
        elif key not in self.chosen:
            self.chosen = [key]
        elif self.optional:
            self.chosen = []

    @property
    def one(self):
        """The chosen key, or None."""
        return self.chosen[0] if self.chosen else None


class Option(Press):
    """One of several choices."""

    key = ObjectProperty(None, allownone=True)
    chosen = BooleanProperty(False)
    plain = StringProperty("plain")  # style while it is not


class StageOption(Option):
    """A choice beside a picture, on the dark ground around it; its words in one line."""

    def _longest_words(self) -> list[str]:
        return [self.text]


class Tick(Target, ButtonBehavior, Across):
    """A box to tick and the words beside it."""

    text = StringProperty()
    on = BooleanProperty(False)
    style = StringProperty("card")

    def on_release(self) -> None:
        self.on = not self.on


class Sheet(ModalView):
    """Asks before something is done: `confirm` is called if the person says so."""

    title = StringProperty()
    message = StringProperty()
    action = StringProperty()
    cancel = StringProperty()
    style = StringProperty("button")
    confirm: Callable[[], None] = ObjectProperty(lambda: None)


class Wait(ModalView):
    """Covers the screen while something is done that takes a moment."""

    message = StringProperty()


class Frame(FloatLayout):
    """The whole window: the screens, and a notice above them."""


class Sign(Widget):
    """A shape with a mark in it, so that a risk band is told without its colour."""

    style = StringProperty("low")
    shape = StringProperty("circle")
    mark = StringProperty("✓")
    filled = BooleanProperty(False)  # on a ground of another style: in the band's own colours

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._label = Label(bold=True)
        self.add_widget(self._label)
        self.bind(pos=self._draw, size=self._draw, style=self._draw, shape=self._draw)
        self.bind(mark=self._draw, filled=self._draw)

    def _draw(self, *_):
        side = min(self.size)
        style = App.get_running_app().look[self.style]
        ink, under = (style.text, style.ground) if self.filled else (style.ground, style.text)
        x, y = self.x + (self.width - side) / 2, self.y + (self.height - side) / 2
        triangle = self.shape == "triangle"
        self.canvas.before.clear()
        with self.canvas.before:
            Color(*style.text)
            self._shape(side)
            if self.filled:
                Color(*under)
                self._shape(side - max(3, side * (0.16 if triangle else 0.1)))
            if self.mark == "✓":  # not in every font, so it is drawn
                Color(*ink)
                points = ((0.28, 0.5), (0.44, 0.34), (0.72, 0.64))
                Line(
                    points=[(x + px * side, y + py * side) for px, py in points],
                    width=side / 20,
                    cap="round",
                    joint="round",
                )
        self._label.text = "" if self.mark == "✓" else self.mark
        self._label.color = ink
        share = 0.62 if not self.mark.isdigit() else 0.52 if len(self.mark) < 2 else 0.44
        self._label.font_size = side * share * (0.8 if triangle else 1)
        self._label.size = (side, side)
        self._label.pos = (x, y - (side * 0.08 if triangle else 0))

    def _shape(self, side: float) -> None:
        segments, turn = SEGMENTS[self.shape]
        low = 0.0
        if self.shape == "triangle":  # to look as large as the others; its weight lies low
            low, side = 0.1 * min(self.size), 1.24 * side
        # Not by center_x: while `x` tells of its change, that is still the old one.
        at = self.x + (self.width - side) / 2, self.y + (self.height - side) / 2 - low
        Ellipse(
            pos=at,
            size=(side, side),
            segments=segments,
            angle_start=turn,
            angle_end=turn + 360,
        )


def targets(root: Widget) -> Iterator[Widget]:
    """What can be pressed or typed into below `root`, in the order in which it is read."""
    if isinstance(root, (Target, Entry)):
        if not root.disabled and root.width > 1 and root.height > 1 and root.opacity:
            yield root
        return
    for child in reversed(root.children):
        yield from targets(child)


def focus_next(root: Widget, step: int) -> Widget | None:
    """Move the keyboard to the next of `targets`, into sight; returns it."""
    row = list(targets(root))
    if not row:
        return None
    at = next((n for n, widget in enumerate(row) if widget.lit), None)
    for widget in row:
        widget.lit = False
    chosen = row[(at + step) % len(row) if at is not None else (0 if step > 0 else -1)]
    chosen.lit = True
    for widget in row:
        if isinstance(widget, Entry):
            widget.focus = widget is chosen
    _into_sight(chosen)
    return chosen


def reveal(root: Widget) -> None:
    """Bring what is being typed into into sight."""
    for target in targets(root):
        if isinstance(target, Entry) and target.focus:
            _into_sight(target)


def _into_sight(widget: Widget) -> None:
    above = widget.parent
    while above is not None and above is not Window:
        if isinstance(above, ScrollView) and above.children[0].height > above.height:
            above.scroll_to(widget, padding=dp(20), animate=False)
        above = above.parent


Builder.load_file(str(Path(__file__).with_suffix(".kv")))
