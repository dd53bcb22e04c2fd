"""A sheet to choose a day on."""

from __future__ import annotations

from calendar import Calendar
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

from kivy.lang import Builder
from kivy.properties import BooleanProperty, ObjectProperty, StringProperty
from kivy.uix.modalview import ModalView

from edge_app.i18n import language
from edge_app.ui.text import Text
from edge_app.ui.widgets import Across, Press


class Day(Press):
    chosen = BooleanProperty(False)


class Week(Across):
    """Seven days."""


class DaySheet(ModalView):
    """Shows a month of days from `first` on; `confirm` is called with the one that was pressed."""

    title = StringProperty()
    month = StringProperty()
    chosen: date | None = ObjectProperty(None, allownone=True)
    first: date = ObjectProperty(date.min)
    confirm: Callable[[date], None] = ObjectProperty(lambda day: None)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._shown = (self.chosen or self.first).replace(day=1)
        self._fill()

    def step(self, months: int) -> None:
        """To the month before or after."""
        other = self._shown - timedelta(1) if months < 0 else self._shown + timedelta(31)
        if other.replace(day=1) >= self.first.replace(day=1):
            self._shown = other.replace(day=1)
            self._fill()

    def _fill(self) -> None:
        weeks, grid = Calendar(language.first_weekday()), self.ids.weeks
        self.month = language.month(self._shown)
        grid.clear_widgets()
        names = Across(spacing=0, size_hint_y=None)
        names.bind(minimum_height=names.setter("height"))
        for name in language.weekdays():
            names.add_widget(Text(text=name, style="quiet", points=13, align="center"))
        grid.add_widget(names)
        for week in weeks.monthdatescalendar(self._shown.year, self._shown.month):
            row = Week()
            for day in week:
                row.add_widget(self._day(day))
            grid.add_widget(row)

    def _day(self, day: date) -> Text:
        text = language.number(day.day) if day.month == self._shown.month else ""
        if not text or day < self.first:
            return Text(text=text, style="quiet", align="center", pos_hint={"center_y": 0.5})
        press = Day(text=text, hint=language.day(day.isoformat()), chosen=day == self.chosen)
        press.bind(on_release=lambda _press: self._choose(day))
        return press

    def _choose(self, day: date) -> None:
        self.dismiss(animation=False)
        self.confirm(day)


Builder.load_file(str(Path(__file__).with_suffix(".kv")))
