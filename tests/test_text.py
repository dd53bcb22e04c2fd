"""Text of others in one line of ours."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermedge.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("my arm 9.png", "my arm 9.png"),
        ("صورة الذراع.png", "صورة الذراع.png"),
        ("می‌خواهم 👩‍⚕️", "می‌خواهم 👩‍⚕️"),
        ("Screenshot 9.41\u202fAM", "Screenshot 9.41\u202fAM"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31mred\x9b0m", "\\x1b[31mred\\x9b0m"),
        ("gpj.\u202egnp", "gpj.\\u202egnp"),
        ("two\u2028lines\u2029", "two\\u2028lines\\u2029"),
        ("no text \udcff", "no text \\udcff"),
        ("\ufeffbom", "\\ufeffbom"),
        (7, "7"),
    ],
)
def test_what_acts_on_a_terminal_is_written_out(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_every_text_is_one_line_that_can_be_written(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()
    assert not any(unicodedata.category(c) == "Cc" for c in shown)
    assert printable(shown) == shown
