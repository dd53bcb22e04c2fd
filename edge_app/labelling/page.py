"""The page that asks: its words in each of the app's languages, and the app's colours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from dermedge import DISCLAIMER
from dermedge.taxonomy import TITLES
from edge_app.i18n import language
from edge_app.i18n.language import LANGUAGES, N_, RIGHT_TO_LEFT, _
from edge_app.ui import theme

COLOURS = ("page", "card", "plain", "button", "chosen", "off", "guide_bad", "demo", "line")
# `page.html` says only which ones.
MESSAGES = (
    N_("Language"),
    N_("Picture {number} of {whole}"),
    N_("The model refuses this picture, and proposes no class."),
    N_("All pictures are answered: this page may be closed."),
    N_("The picture, with the outline"),
    N_("Outline"),
    N_("Proposed outline"),
    N_("Draw again"),
    N_("No outline"),
    N_("The white line is kept as the outline."),
    N_("No outline is kept."),
    N_(
        "Draw around the lesion in one go, or press point by point; then Confirm. Without a mouse: "
        "arrow keys (finer with Shift), Enter for a point, Backspace to take it back."
    ),
    N_("What does it show? (what the model says, in %)"),
    N_("not known"),
    N_("Answer"),
    N_("Confirm"),
    N_("Cannot tell"),
    N_("Bad picture"),
    N_("Take the last answer back"),
    N_("Choose what it shows, or say that you cannot tell."),
    N_("Draw the outline, or choose one of the other two."),
    N_("The picture cannot be shown."),
    N_(
        "No answer: this page's {command} has ended. What was answered before is saved; run it "
        "again, and open the address that it prints."
    ),
    N_("dermatologist"),
    N_("nurse"),
)


def html() -> str:
    """The whole page, but for the nonce of its script. Not beside another thread that translates.

    `edge_app.i18n.language` speaks one language at a time.
    """
    said = {english: _in_each(english) for english in (*MESSAGES, *TITLES.values(), DISCLAIMER)}
    light, dark = (
        theme.css({name: styles[name] for name in COLOURS}) for styles in theme.STYLES.values()
    )
    values = {
        "WORDS": _script(said),
        "LANGUAGES": _script(LANGUAGES),
        "RIGHT_TO_LEFT": _script(sorted(RIGHT_TO_LEFT)),
        "COLOURS": f":root {{ {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}",
    }
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def in_each_language(line: Callable[[], str]) -> dict[str, str]:
    """What `line` says in each of LANGUAGES. As `html`, not beside another thread."""
    before, said = language.current(), {}
    try:
        for name in LANGUAGES:
            language.use(name)
            said[name] = line()
    finally:
        language.use(before)
    return said


def _in_each(english: str) -> dict[str, str]:
    return in_each_language(lambda: _(english))


def _script(value: object) -> str:
    """A value within a script; no word ends it."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
