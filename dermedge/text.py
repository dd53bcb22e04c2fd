"""Text of others, such as file names and what a bundle says of itself, in a line of ours."""

from __future__ import annotations

import unicodedata

# Control characters, lone surrogates, line separators, and what turns the direction of writing:
# on a terminal they move the cursor, fake further lines, or show a name that is not there.
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # Persian, Hindi and emoji cannot be written without them


def printable(value: object) -> str:
    """`str(value)` in one line: what would act on a terminal is written as `\\n`, `\\x1b`, ..."""
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _HIDDEN and character not in _JOINERS
        else character
        for character in text
    )


def brief(error: object, most: int = 200) -> str:
    """What an error of somebody else's library says, in one line of at most `most` characters."""
    return " ".join(str(error).split())[:most]


def printable_lines(text: str) -> str:
    """The same for text of several lines of ours, such as a table."""
    return "\n".join(map(printable, text.split("\n")))
