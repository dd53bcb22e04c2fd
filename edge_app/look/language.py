"""The app's languages: gettext catalogues, dates and numbers by Babel, text from right to left.

A message is its English text. `_` translates one where it is shown, `N_` only marks one for the
catalogues. What other rooms say (reasons, classes, faults) is translated by its English text, too:
`python -m edge_app.look.catalogues` collects all of it.
"""

from __future__ import annotations

import gettext
import io
import os
from datetime import date, datetime, timezone
from functools import cache
from pathlib import Path

from babel import Locale
from babel.dates import (
    format_date,
    format_skeleton,
    format_time,
    get_datetime_format,
    get_day_names,
)
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent

FOLDER = Path(__file__).with_name("locale")
# Each in its own words: whoever looks for a language reads no other.
LANGUAGES = {"en": "English", "de": "Deutsch", "es": "Español", "ar": "العربية"}
RIGHT_TO_LEFT = frozenset({"ar"})

MARK = "\N{LEFT-TO-RIGHT MARK}"

_now = "en"


def use(language: str) -> None:
    """Speak `language`, one of LANGUAGES, from now on; raises KeyError for another."""
    global _now
    _now = {name: name for name in LANGUAGES}[language]


def current() -> str:
    return _now


def rtl() -> bool:
    """Whether the language is written from right to left."""
    return _now in RIGHT_TO_LEFT


def preferred() -> str:
    """That of the system where it is one of LANGUAGES, else English."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        code = os.environ.get(variable, "")[:2].lower()
        if code:
            return code if code in LANGUAGES else "en"
    return "en"


class Said(str):
    """A line whose values are filled in already, in English, and that `_` still can translate.

    Faults are told by it: they are raised far from the screen, before anybody knows its language.
    """

    def __new__(cls, message: str, **values: object) -> Said:
        said = super().__new__(cls, message.format(**values) if values else message)
        said.message, said.values = message, values
        return said


def _(message: str, **values: object) -> str:
    """The message in the current language, `{name}`s filled in; as it is where none is known."""
    if isinstance(message, Said):
        values = {name: _(v) if isinstance(v, Said) else v for name, v in message.values.items()}
        message = message.message
    said = _catalogue(_now).gettext(message) if message else ""
    if rtl():
        values = {name: _in_order(value) for name, value in values.items()}
    return said.format(**values) if values else said


def _in_order(value: object) -> object:
    """A path would lose its first stroke to the Arabic words around it."""
    text = str(value)
    return f"{MARK}{text}{MARK}" if "/" in text and not any(map(_is_rtl, text)) else value


def capital(line: str) -> str:
    """A line that begins with a capital."""
    return f"{line[:1].upper()}{line[1:]}"


def sentence(line: str) -> str:
    """A line with a capital at its start and a stop at its end."""
    return capital(line) + ("" if line[-1:] in (*".?!", "؟") else ".")


def N_(message: str) -> str:
    """Mark a message that `_` translates later."""
    return message


def n_(one: str, many: str, count: int) -> str:
    """The plural form for `count`; `{count}` is filled in."""
    said = _catalogue(_now).ngettext(one, many, count)
    return said.format(count=number(count))


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    if language == "en":
        return gettext.NullTranslations()
    with (FOLDER / f"{language}.po").open("rb") as file:
        catalogue = read_po(file, language)
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


# ---------------------------------------------------------------------------- dates, numbers


def day(stamp: str) -> str:
    """An ISO 8601 date, or time in UTC, as a local date."""
    return format_date(_moment(stamp), "medium", locale=_now)


def moment(stamp: str) -> str:
    """An ISO 8601 time in UTC as a local date and time, to the minute."""
    when = _moment(stamp)
    parts = (format_time(when, "short", locale=_now), format_date(when, "medium", locale=_now))
    whole = get_datetime_format("medium", _now).format(*parts)
    return whole.replace("\u202f", "\u00a0")  # the narrow space is not in every font


def number(value: float, digits: int = 0) -> str:
    return format_decimal(value, "#,##0" + ("." + "0" * digits if digits else ""), locale=_now)


def percent(value: float) -> str:
    """0..1 as whole percent."""
    return format_percent(value, locale=_now)


def first_weekday() -> int:
    """0: Monday."""
    return Locale(_now).first_week_day


def weekdays() -> list[str]:
    """Their short names, as a week runs."""
    names = get_day_names("short", "stand-alone", _now)
    return [names[(first_weekday() + n) % 7] for n in range(7)]


def month(day: date) -> str:
    """The month of a day, and its year."""
    return format_skeleton("yMMMM", day, locale=_now)


def _moment(stamp: str) -> date:
    if len(stamp) == 10:
        return date.fromisoformat(stamp)
    parsed = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    return parsed.replace(tzinfo=parsed.tzinfo or timezone.utc).astimezone()


# ---------------------------------------------------------------------------- right to left

_PAIRS = ("()", "[]", "{}", "<>", "«»")
_MIRRORED = str.maketrans({a: b for pair in _PAIRS for a, b in (pair, pair[::-1])})


def backwards(line: str) -> bool:
    """Whether the first letter is one that is written from right to left."""
    return _is_rtl(next((c for c in line if c.isalpha()), ""))


def _is_rtl(character: str) -> bool:
    return "\u0590" <= character <= "\u08ff" or "\ufb1d" <= character <= "\ufefc"


def visual(line: str, paragraph: str = "") -> str:
    """One line of text, maybe of a paragraph, in the order in which it is drawn from the left.

    Unicode's bidirectional algorithm (UAX 9); Arabic letters in the forms that join.
    """
    if not any(map(_is_rtl, paragraph or line)):
        return line
    from arabic_reshaper import reshape
    from bidi import get_display

    return _mirrored(get_display(reshape(line), base_dir="R" if rtl() else "L"))


def _mirrored(drawn: str) -> str:
    """Mirror the brackets of what runs from right to left: there the closing one comes first.

    `bidi` only puts them into order, and HarfBuzz, which is given a line from left to right,
    draws them as they are.
    """
    letters, open_ = list(drawn), []
    for at, character in enumerate(drawn):
        partner = character.translate(_MIRRORED)
        if partner == character:
            continue
        if open_ and drawn[open_[-1]] == partner:
            first = open_.pop()
            if any(partner + character == pair[::-1] for pair in _PAIRS):
                letters[first], letters[at] = character, partner
        else:
            open_.append(at)
    for at in open_:  # its partner is on another line
        sides = [filter(str.isalpha, part) for part in (drawn[at:], drawn[at::-1])]
        beside = [next(side, "\u0627" if rtl() else "a") for side in sides]
        if any(map(_is_rtl, beside)) if rtl() else all(map(_is_rtl, beside)):
            letters[at] = drawn[at].translate(_MIRRORED)
    return "".join(letters)
