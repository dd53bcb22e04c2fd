"""Wrapped text, in the direction and the font that its language needs."""

from __future__ import annotations

from kivy.core.text import LabelBase
from kivy.properties import NumericProperty, OptionProperty, StringProperty
from kivy.uix.label import Label

from edge_app.i18n import language
from edge_app.ui import fonts

LONGEST_WORD = 24  # letters; longer ones are names of files and the like
LEAST_TYPE = 0.6  # of the size of type that a word is shrunk to


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
        self._label.resolve_font_name()  # else the font before is measured, and this one is drawn
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
        shrink = 1.0  # also where there is no line any more that they would have to fit into
        if 0 < room < wide:
            # Letters do not shrink by the same share: some room more.
            shrink = max(LEAST_TYPE, int(0.96 * full * room / wide) / full)
        if abs(shrink - self.shrink) > 1e-3:
            self.shrink = shrink

    def breaks_words(self) -> bool:
        """Whether a word is wider than there is room for."""
        room = self._room()
        return bool(room) and any(self._extent(word) > room for word in self._longest_words())

    def breaks_twice(self) -> bool:
        """Whether a line that was put into order is broken again: its words change places then."""
        room, lines = self._room(), self._label.text.split("\n")
        return bool(room) and any(" " in x and self._label.get_extents(x)[0] > room for x in lines)

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
