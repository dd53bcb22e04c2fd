"""The app's languages: gettext catalogues, dates and numbers, text from right to left.

A message is its English text. `_` translates one where it is shown, `N_` only marks one for the
catalogues. What other rooms say (reasons, classes, faults) is translated by its English text, too:
`python -m edge_app.i18n.catalogues` collects all of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gettext
import locale
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterable
from datetime import date, datetime, timezone
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any

from dermedge import UserError
from edge_app.i18n import formats

FOLDER = Path(__file__).with_name("locale")
# Each in its own words: whoever looks for a language reads no other.
LANGUAGES = {"en": "English", "de": "Deutsch", "es": "Español", "ar": "العربية"}
RIGHT_TO_LEFT = frozenset({"ar"})

UNDRAWN = "?"  # for a letter that cannot be put into its place here
MARK = "\N{LEFT-TO-RIGHT MARK}"
RTL_MARK = "\N{RIGHT-TO-LEFT MARK}"
# Around what runs from left to right wherever it stands; `visual` takes them out again.
ISOLATE, END = "\N{LEFT-TO-RIGHT ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"
_DIRECTIONS = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))

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
    """The first of the system's languages that is one of `offered`, else English."""
    codes = (re.split("[-_.@]", name.lower())[0] for name in _system())
    return next((code for code in codes if code in offered()), "en")


def _system() -> list[str]:
    """The languages that the system speaks, the one that is liked best first, as "de-AT"."""
    said = [os.environ.get(variable, "") for variable in ("LC_ALL", "LC_MESSAGES", "LANG")]
    name = next(filter(None, said), "C")
    if name.split(".")[0] not in ("C", "POSIX"):
        return [*os.environ.get("LANGUAGE", "").split(":"), name]
    # Programs that are started by a click get none of these there.
    if sys.platform == "win32":
        identifier = ctypes.windll.kernel32.GetUserDefaultUILanguage()
        return [locale.windows_locale.get(identifier, "")]
    if sys.platform == "darwin":
        words = ["/usr/bin/defaults", "read", "-g", "AppleLanguages"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run(words, capture_output=True, text=True, timeout=5).stdout
            return re.findall(r"[\w-]+", said)
    return []


@cache
def missing() -> tuple[str, ...]:
    """The packages that writing from right to left needs and that are not installed.

    Android has no python-bidi and no uharfbuzz unless somebody builds them.
    """
    needed = {"python-bidi": "bidi", "arabic-reshaper": "arabic_reshaper", "uharfbuzz": "uharfbuzz"}
    return tuple(name for name, module in needed.items() if find_spec(module) is None)


def offered() -> dict[str, str]:
    """Of LANGUAGES those that can be written here."""
    return {n: own for n, own in LANGUAGES.items() if n not in RIGHT_TO_LEFT or not missing()}


class Message(str):
    """A line whose values are filled in already, in English, and that `_` still can translate.

    Faults are raised far from the screen, before anybody knows its language. A value may be a
    `Message` of its own, or an error.
    """

    message: str  # with `{name}`s; the form for one, where there are `many`
    many: str  # the form for several; empty: there is none
    values: dict[str, Any]

    def __new__(cls, message: str, /, **values: object) -> Message:
        return cls._of(message, "", values, message)

    @classmethod
    def plural(cls, one: str, many: str, count: int, **values: object) -> Message:
        """A line about so many things: the language chooses its form; `{count}` is filled in."""
        return cls._of(one, many, {**values, "count": count}, one if count == 1 else many)

    @classmethod
    def _of(cls, message: str, many: str, values: dict[str, Any], english: str) -> Message:
        line = super().__new__(cls, english.format(**values) if values else english)
        line.message, line.many, line.values = message, many, values
        return line


def _(message: str, **values: object) -> str:
    """The message in the current language, `{name}`s filled in; as it is where none is known."""
    if isinstance(message, Message):
        return _filled(message.message, message.many, message.values)
    return _filled(message, "", values)


def n_(one: str, many: str, count: int, **values: object) -> str:
    """The plural form for `count`; `{count}` and the other values are filled in."""
    return _filled(one, many, {**values, "count": count})


def _filled(message: str, many: str, values: dict[str, Any]) -> str:
    catalogue = _catalogue(_now)
    if many:
        count = values["count"]
        line = catalogue.ngettext(message, many, count)
        values = {**values, "count": number(count)}
    else:
        line = catalogue.gettext(message) if message else ""
    return line.format(**{n: _shown(v) for n, v in values.items()}) if values else line


def _shown(value: object) -> object:
    """A value as it stands within a line: in the language, safe to draw, in its own direction."""
    if isinstance(value, BaseException):
        value = error_message(value)
    if isinstance(value, Message):
        return _(value)
    if not isinstance(value, (str, PurePath)):
        return value
    if value in SYSTEM:
        return _(value)
    text = printable(str(value))
    if rtl() and RTL_MARK in text:  # a date: its day would join a Latin name before it
        return f"{RTL_MARK}{text}"
    # A path would lose its order to the Arabic words around it.
    path = isinstance(value, PurePath) or "/" in text or "\\" in text
    return isolated(text) if path else text


def isolated(text: str) -> str:
    """Text of numbers or Latin letters, which Arabic words beside it would tear apart."""
    return f"{ISOLATE}{text}{END}" if rtl() else text


def printable(text: str) -> str:
    """The text without what no screen can draw or what turns it about: names of files hold it."""
    return "".join(map(_drawable, text))


def _drawable(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cs", "Cn", "Co", "Zl", "Zp")
    return "\N{REPLACEMENT CHARACTER}" if hidden or character in _DIRECTIONS else character


def error_message(error: BaseException) -> Message:
    """An error as one line for the screen, to be translated there."""
    if isinstance(error, UserError):
        if isinstance(error.message, Message):
            return error.message
        if error.values:
            return Message(error.message, **error.values)
        return Message(" ".join(error.message.split()))
    if isinstance(error, OSError) and error.strerror:
        reason = Message(error.strerror)
        name = error.filename
        if isinstance(name, bytes):
            name = os.fsdecode(name)
        return Message("{reason} ({path})", reason=reason, path=name) if name else reason
    # What a library says when it breaks down is for nobody at the screen, and may name a file.
    kind = type(error)
    return Message(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))


def capital(line: str) -> str:
    """A line that begins with a capital."""
    return f"{line[:1].upper()}{line[1:]}"


def sentence(line: str) -> str:
    """A line with a capital at its start and a stop at its end."""
    return capital(line) + ("" if line[-1:] in (*".?!", "؟") else ".")


def listed(words: Iterable[str]) -> str:
    """Words of the language one after another, as it parts them."""
    return _(", ").join(words)


def N_(message: str) -> str:
    """Mark a message that `_` translates later."""
    return message


# What systems say most often.
SYSTEM = (
    N_("No space left on device"),
    N_("Read-only file system"),
    N_("Permission denied"),
    N_("No such file or directory"),
    N_("Is a directory"),
    N_("Input/output error"),
)


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    if language == "en":
        return gettext.NullTranslations()
    return formats.catalogue(FOLDER / f"{language}.po")


# ---------------------------------------------------------------------------- dates, numbers


def day(stamp: str) -> str:
    """An ISO 8601 date, or time in UTC, as a local date."""
    return formats.day(_moment(stamp), _now)


def moment(stamp: str) -> str:
    """An ISO 8601 time in UTC as a local date and time, to the minute."""
    return formats.moment(_local(stamp), _now)


def number(value: float, digits: int = 0) -> str:
    return formats.number(value, digits, _now)


def percent(value: float) -> str:
    """0..1 as whole percent."""
    return formats.percent(value, _now)


def first_weekday() -> int:
    """0: Monday."""
    return formats.first_weekday(_now)


def weekdays() -> list[str]:
    """Their short names, as a week runs."""
    names = formats.weekdays(_now)
    return [names[(first_weekday() + n) % 7] for n in range(7)]


def month(day: date) -> str:
    """The month of a day, and its year."""
    return formats.month(day, _now)


def _moment(stamp: str) -> date:
    if len(stamp) == 10:
        return date.fromisoformat(stamp)
    return _local(stamp)


def _local(stamp: str) -> datetime:
    parsed = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    return parsed.replace(tzinfo=parsed.tzinfo or timezone.utc).astimezone()


# ---------------------------------------------------------------------------- right to left

_PAIRS = ("()", "[]", "{}", "<>", "«»")
_SURROGATES = re.compile("[\ud800-\udfff]")
_TAKEN_OUT = {ord(ISOLATE): None, ord(END): None}
_MIRRORED = str.maketrans({ends[0]: ends[1] for pair in _PAIRS for ends in (pair, pair[::-1])})


def backwards(line: str) -> bool:
    """Whether the first letter is one that is written from right to left."""
    return from_right(next((c for c in line if c.isalpha()), ""))


def from_right(character: str) -> bool:
    """Whether a letter is one that is written from right to left."""
    return "\u0590" <= character <= "\u08ff" or "\ufb1d" <= character <= "\ufefc"


def visual(line: str, paragraph: str = "") -> str:
    """One line of text, maybe of a paragraph, in the order in which it is drawn from the left.

    Unicode's bidirectional algorithm (UAX 9); Arabic letters in the forms that join. Where a
    package for that is `missing`, each letter that is written from right to left becomes UNDRAWN:
    out of order, a name could be read as another.
    """
    if not line.isascii():  # a file's name may hold bytes that are no text, which cannot be drawn
        line = _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", line)
    if not any(map(from_right, paragraph or line)):
        return line.translate(_TAKEN_OUT)
    if missing():
        plain = "".join(UNDRAWN if from_right(character) else character for character in line)
        return plain.translate(_TAKEN_OUT)
    from arabic_reshaper import reshape
    from bidi import get_display

    drawn = get_display(reshape(line), base_dir="R" if rtl() else "L")
    return _mirrored(drawn.translate(_TAKEN_OUT))


def _mirrored(drawn: str) -> str:
    """Mirror the brackets of what runs from right to left: there the closing one comes first.

    `bidi` only puts them into order, and HarfBuzz, which is given a line from left to right,
    draws them as they are.
    """
    letters = list(drawn)
    open_: list[int] = []
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
        if any(map(from_right, beside)) if rtl() else all(map(from_right, beside)):
            letters[at] = drawn[at].translate(_MIRRORED)
    return "".join(letters)
