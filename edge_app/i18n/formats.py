"""Catalogues, dates and numbers in a language, by Babel.

A browser's page puts its own module in the place of this one.
"""

from __future__ import annotations

import gettext
import io
from datetime import date, datetime
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


def catalogue(path: Path) -> gettext.NullTranslations:
    """The translations of a .po file, which is named after its language."""
    with path.open("rb") as file:
        read = read_po(file, path.stem)
    compiled = io.BytesIO()
    write_mo(compiled, read)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def number(value: float, digits: int, language: str) -> str:
    return format_decimal(value, "#,##0" + ("." + "0" * digits if digits else ""), locale=language)


def percent(value: float, language: str) -> str:
    """0..1 as whole percent."""
    return format_percent(value, locale=language)


def day(when: date, language: str) -> str:
    return format_date(when, "medium", locale=language)


def moment(when: datetime, language: str) -> str:
    """To the minute."""
    parts = (
        format_time(when, "short", locale=language),
        format_date(when, "medium", locale=language),
    )
    whole = str(get_datetime_format("medium", language)).format(*parts)
    return whole.replace("\u202f", "\u00a0")  # the narrow space is not in every font


def month(when: date, language: str) -> str:
    return format_skeleton("yMMMM", when, locale=language)


def first_weekday(language: str) -> int:
    """0: Monday."""
    return Locale(language).first_week_day


def weekdays(language: str) -> dict[int, str]:
    """Short names, from Monday, 0, on."""
    return dict(get_day_names("short", "stand-alone", language))
