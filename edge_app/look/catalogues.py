"""Collects what the app says, for its translators: `python -m edge_app.look.catalogues`.

Writes locale/dermedge.pot and brings each language's .po to it: new messages come in without a
translation, those that nobody says any more are dropped. Nothing changes where nothing is new.
"""

from __future__ import annotations

import io
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

from dermedge import DISCLAIMER, quality, taxonomy
from dermedge.files import write_atomic
from edge_app.look.language import FOLDER, LANGUAGES

ROOM = Path(__file__).parents[1]
# Calls whose first words are a message. Lines of errors are shown, too, if they hold no values.
CALLS = dict.fromkeys(
    ("_", "N_", "Said", "UserError", "StoreError", "WrongKey", "SourceError", "WrongPin")
)
CALLS["n_"] = (1, 2)
CONSOLE = {"commands.py", "measure.py", "tour.py", "catalogues.py"}  # speak to no screen
# What other rooms say in English and the app shows by `_(CONSTANT)`.
FOREIGN = {
    "dermedge/__init__.py": [DISCLAIMER],
    "dermedge/quality.py": list(quality.TITLES.values()),
    "dermedge/taxonomy.py": list(taxonomy.TITLES.values()),
}
COMMENT = "# What the app says; brought up to date by `python -m edge_app.look.catalogues`."
HEADERS = ("Language", "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Plural-Forms")


class Catalogue(Catalog):
    """Without the time and place at which it was written: they would change with every run."""

    @property
    def mime_headers(self) -> list[tuple[str, str]]:
        return [header for header in super().mime_headers if header[0] in HEADERS]


def collect() -> Catalogue:
    """All messages of the app, without translations."""
    found = Catalogue(header_comment=COMMENT, fuzzy=False)
    for path in sorted(p for kind in ("*.kv", "*.py") for p in ROOM.rglob(kind)):
        if path.name not in CONSOLE:
            with path.open("rb") as file:  # a .kv can be read as Python, as far as its words go
                for _line, message, _comments, _context in extract("python", file, CALLS):
                    found.add(message, locations=[(path.relative_to(ROOM.parent).as_posix(), 1)])
    for place, messages in FOREIGN.items():
        for message in messages:
            found.add(message, locations=[(place, 1)])
    return found


def merged(template: Catalogue, language: str) -> Catalogue:
    """The template's messages with the translations that the language has."""
    known = read_po(io.BytesIO((FOLDER / f"{language}.po").read_bytes()), language)
    fresh = Catalogue(language, header_comment=COMMENT, fuzzy=False)
    for message in template:
        if message.id:
            old = known.get(message.id)
            kept = old is not None and old.id == message.id
            fresh.add(message.id, old.string if kept else "", message.locations)
    return fresh


def main() -> None:
    template = collect()
    _write(FOLDER / "dermedge.pot", template)
    for language in LANGUAGES:
        if language != "en":
            catalogue = merged(template, language)
            _write(FOLDER / f"{language}.po", catalogue)
            missing = sum(bool(m.id) and not all(translations(m)) for m in catalogue)
            print(f"{language}: {len(catalogue)} messages, {missing} without translation")


def translations(message: Message) -> tuple[str, ...]:
    """Of a message: one, or as many as the language has plural forms; empty where missing."""
    return (message.string,) if isinstance(message.string, str) else tuple(message.string)


def _write(path: Path, catalogue: Catalogue) -> None:
    text = io.BytesIO()
    write_po(text, catalogue, width=100, sort_by_file=True, include_lineno=False)
    write_atomic(path, text.getvalue())


if __name__ == "__main__":
    main()
