"""What a person tells who tried dermedge on a real phone: the form, and what is wrong with one.

The form is TOML. It asks for figures, choices and names of products, and has no room for a story,
so that nothing of a person is in it. `python -m benchmarks.schema.phone` prints the empty form.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.schema.names import PHONE
from dermedge import UserError
from dermedge.files import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NOT_TRIED = "not tried"
SUFFIX = ".toml"
_FIRST = date(2026, 11, 1)  # there was no page before
_MOST_BYTES = 64 * 1024
_PRODUCT = re.compile(r"[\w .,()+/-]{1,60}")
_LINE = re.compile(  # as `figures` of edge_app/web/page/app.js writes it
    r"dermedge \S{1,40}, .{1,80} \([0-9a-f]{12}\); OpenCV [^;]{1,40}, [^;]{1,80}; "
    r"start (?P<start>\d{1,9}) ms; last photo (?:(?P<photo>\d{1,9}) ms|-); "
    r"live (?:(?P<live>\d{1,4}(?:\.\d{1,6})?)|-) a second; [^@\r\n]{1,400}"
)
_LIMITS = {"start": (1, 600_000), "photo": (1, 600_000), "live": (0, 120)}  # of the line


@dataclass(frozen=True)
class Question:
    """One answer of the form."""

    asks: str

    def fault(self, value: object) -> str:
        """Why `value` is no answer; "" where it is one."""
        raise NotImplementedError

    @property
    def needed(self) -> bool:
        """Whether NOT_TRIED is no answer."""
        return False


@dataclass(frozen=True)
class Number(Question):
    """A figure within limits that no phone leaves."""

    unit: str
    low: float
    high: float
    whole: bool = False

    def fault(self, value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f'give a number ({self.unit}) or "{NOT_TRIED}"'
        if self.whole and not isinstance(value, int):
            return f"give a whole number ({self.unit})"
        if self.low <= value <= self.high:
            return ""
        return (
            f"{str(value)[:20]} is not within {self.low:g} and {self.high:g}: it is asked for in "
            f"{self.unit}"
        )


@dataclass(frozen=True)
class Choice(Question):
    """One of a few words."""

    words: tuple[str, ...] = ("yes", "no")

    def fault(self, value: object) -> str:
        if isinstance(value, str) and value in self.words:
            return ""
        return f"give one of {', '.join(self.words)}, {NOT_TRIED}"


@dataclass(frozen=True)
class Product(Question):
    """The name of a product, with its version."""

    @property
    def needed(self) -> bool:
        return True

    def fault(self, value: object) -> str:
        if not isinstance(value, str) or not value.strip() or value == NOT_TRIED:
            return "missing answer"
        if not _PRODUCT.fullmatch(value):
            return "give a product's name and version, 60 letters, digits and . , ( ) + / - at most"
        if re.search(r"\d{7}", value):
            return "leave out serial and telephone numbers"
        return ""


@dataclass(frozen=True)
class VersionsLine(Question):
    """The page's own line; its figures are checked, too."""

    def fault(self, value: object) -> str:
        found = _LINE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            return f'copy the whole line under Versions, or give "{NOT_TRIED}"'
        for name, (low, high) in _LIMITS.items():
            figure = found[name]
            if figure is not None and not low <= float(figure) <= high:
                return f"its {name}, {figure}, is not within {low} and {high}"
        return ""


QUESTIONS: dict[str, dict[str, Question]] = {
    "phone": {
        "model": Product("as 'Pixel 8' or 'iPhone 13'"),
        "system": Product("as 'Android 16' or 'iOS 19.1'"),
        "browser": Product("as 'Chrome 142' or 'Safari 19.1'"),
        "free_memory_gib": Number("free memory before, where the phone tells", "GiB", 0.05, 32),
    },
    "first_visit": {
        "ready_s": Number("until Ready", "s", 0.1, 1800),
        "error_shown": Choice("was an error shown?"),
    },
    "offline": {
        "installed": Choice("did Add to Home Screen work?"),
        "start_s": Number("in flight mode, until Start can be pressed", "s", 0.1, 600),
    },
    "photo": {
        "outline_fits": Choice("does the outline fit?", ("yes", "partly", "no")),
        "upright": Choice("is the photo the right way up?"),
        "result_s": Number("until the result", "s", 0.01, 600),
    },
    "desktop": {
        "same_advice": Choice("the same advice for the same photo by `dermedge analyze`?"),
        "malignancy_difference": Number("of the two, without sign", "a share, 0 to 1", 0, 1),
    },
    "live": {
        "follows": Choice("does the live picture follow, for a minute?"),
        "hot": Choice("does the phone get hot?"),
        "reloaded": Choice("did the page reload?"),
        "froze": Choice("did the camera freeze?"),
    },
    "locked": {
        "goes_on": Choice(
            "after a minute of lock, does the live picture go on?", ("yes", "says why not", "no")
        ),
    },
    "twenty_photos": {
        "taken": Number("how many were taken, of 20", "photos", 0, 20, True),
        "answers": Choice("does the page still answer?"),
    },
    "pdf": {
        "whole": Choice("is the page whole?"),
        "disclaimer": Choice("does it say that it is no diagnosis?"),
    },
    "kept_case": {
        "opened": Choice(
            "kept, the page closed and started: is the case as it was?",
            ("yes", "no", "not offered"),
        ),
    },
    "versions": {"line": VersionsLine("behind ?: the line under Versions")},
    "screen_reader": {
        "name": Choice("which one?", ("VoiceOver", "TalkBack", "another")),
        "photo": Choice("can a photo be taken?"),
        "result": Choice("can the result be heard?"),
    },
    "cut_off": {
        "largest_text": Choice("is anything cut off in the system's largest text?"),
        "dark": Choice("in dark mode?"),
        "arabic": Choice("in Arabic?"),
    },
}
FIELDS = tuple(f"{section}.{name}" for section, own in QUESTIONS.items() for name in own)


def load(path: str | Path) -> dict[str, Any]:
    """What is in a form. Raises UserError, in one line, where it is no TOML."""
    try:
        if Path(path).stat().st_size > _MOST_BYTES:
            raise ValueError
        return tomllib.loads(read_text(path))
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not TOML; fill in docs/_static/phone.toml") from None


def problems(content: dict[str, Any], today: date | None = None) -> list[str]:
    """What is wrong with a form that `load` gave, each in one line that names the field.

    `today` : no form is from after the day that follows it; None: by this machine's clock.
    """
    return [*_of_head(content, today or date.today()), *_of_answers(content)]


def _of_head(content: dict[str, Any], today: date) -> Iterator[str]:
    if content.get("format") != PHONE:
        yield f'format: it is not "{PHONE}"'
    day = content.get("date")
    if not isinstance(day, date) or isinstance(day, datetime):
        yield "date: give a day, as 2026-11-29, without quotes"
    elif not _FIRST <= day <= today + timedelta(days=1):  # it has begun elsewhere
        yield f"date: {day} is before the first page, or has not come yet"
    for name in content.keys() - {"format", "date"} - QUESTIONS.keys():
        yield f"{_shown(name)}: unknown"


def _of_answers(content: dict[str, Any]) -> Iterator[str]:
    tried = False
    for section, questions in QUESTIONS.items():
        answers = content.get(section, {})
        if not isinstance(answers, dict):
            yield f"{section}: it is no section; begin it with [{section}]"
            continue
        for name in answers.keys() - questions.keys():
            yield f"{section}.{_shown(name)}: unknown"
        for name, question in questions.items():
            value = answers.get(name, "")
            if value == "":
                yield f"{section}.{name}: missing answer" + (
                    "" if question.needed else f'; "{NOT_TRIED}" is one'
                )
            elif value == NOT_TRIED and not question.needed:
                continue
            elif fault := question.fault(value):
                yield f"{section}.{name}: {fault}"
            else:
                tried = tried or not question.needed
    if not tried:
        yield "nothing was tried"


def _shown(name: str) -> str:
    """A name that is not ours, in one short line."""
    return repr(name[:40])


def answers(content: dict[str, Any]) -> dict[str, object]:
    """Of a form without problems, by 'date' and each of FIELDS; NOT_TRIED as it stands."""
    found: dict[str, object] = {"date": content["date"].isoformat()}
    for section, questions in QUESTIONS.items():
        found |= {f"{section}.{name}": content[section][name] for name in questions}
    return found


def template() -> str:
    """The empty form."""
    lines = [
        "# What dermedge does on a real phone, reported by a person who tried it: docs/web.md.",
        "# Name nobody, and take no picture of a person. What you left out stays as it is:",
        f'# "{NOT_TRIED}" is an answer. `dermedge bench validate FILE` says what is wrong.',
        f'format = "{PHONE}"',
        "# date = 2026-11-29",
    ]
    for section, questions in QUESTIONS.items():
        lines += ["", f"[{section}]"]
        for name, question in questions.items():
            value = "" if question.needed else NOT_TRIED
            lines.append(f'{name} = "{value}"  # {question.asks}{_hint(question)}')
    return "\n".join(lines) + "\n"


def _hint(question: Question) -> str:
    if isinstance(question, Number):
        return f": a number, {question.unit}"
    if isinstance(question, Choice):
        return f" {' | '.join(question.words)}"
    return ""


if __name__ == "__main__":
    print(template(), end="")
