"""What is wrong with a single text, time or date."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date
from typing import Any

from edge_app.i18n.language import N_, Message
from edge_app.store.records import seconds


def text(value: object, most: int, needed: str = "") -> Iterator[str]:
    """What is wrong with a text."""
    if not isinstance(value, str):
        yield N_("a text is missing")
        return
    if needed and not value.strip():
        yield needed
    if len(value) > most:
        yield Message.plural(
            "a text is longer than {count} character",
            "a text is longer than {count} characters",
            most,
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        yield N_("a text holds half of a character")


def stamp(value: object) -> Iterator[str]:
    """What is wrong with a time."""
    if value != "" and seconds(value) == -math.inf:
        yield N_("a time is none")


def is_date(text: Any) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except (ValueError, TypeError):
        return False
