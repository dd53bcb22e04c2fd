"""The few widgets that the screens are made of.

All colours come from `app.styles` by the name of a style, all lengths grow with `app.unit`, all
type with `app.type_unit`. Rows run from right to left where the language does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kivy.lang import Builder
from kivy.properties import (
    BooleanProperty,
    ListProperty,
    NumericProperty,
    ObjectProperty,
    StringProperty,
)
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.floatlayout import FloatLayout
from kivy.uix.modalview import ModalView
from kivy.uix.stacklayout import StackLayout

from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.ui.focus import Pressed
from edge_app.ui.signs import Icon
from edge_app.ui.text import Text


class Panel(Text):
    """Words on a ground of their own."""


class Press(Pressed, Text):
    """Something to press: never lower than theme.TOUCH."""

    icon = StringProperty()
    off = StringProperty("off")


class More(Press):
    """Below a part of a long list: gives way to the next, which `go_on` adds."""

    def __init__(self, go_on: Callable[[], None]):
        super().__init__(text=_("Show more"), style="plain")
        self._go_on = go_on

    def on_release(self) -> None:
        if self.parent is not None:  # else it was pressed before
            self.parent.remove_widget(self)
            self._go_on()


class Card(BoxLayout):
    """A rounded ground for what belongs together."""

    style = StringProperty("card")


class PressCard(Pressed, Card):
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


class IconPress(Pressed, Icon):
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
    """One of several choices: as wide as its words, which are broken where there is no room."""

    key = ObjectProperty(None, allownone=True)
    chosen = BooleanProperty(False)
    plain = StringProperty("plain")  # style while it is not
    room = NumericProperty(0)  # px, of what it stands in
    line = NumericProperty(None, allownone=True)  # px, where its words are broken

    def on_room(self, *_args) -> None:
        self.line = None
        self.on_texture_size()

    def on_texture_size(self, *_args) -> None:
        if self.line is None and 0 < self.room < self.texture_size[0]:
            self.line = self.room


class StageOption(Option):
    """A choice beside a picture, on the dark ground around it; its words in one line."""

    def _longest_words(self) -> list[str]:
        return [self.text]


class Tick(Pressed, Across):
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


Builder.load_file(str(Path(__file__).with_suffix(".kv")))
