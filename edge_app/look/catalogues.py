"""Collects what the app says, for its translators: `python -m edge_app.look.catalogues`.

Writes locale/dermedge.pot and brings each language's .po to it: new messages come in without a
translation, those that nobody says any more are dropped. Nothing changes where nothing is new.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

from dermedge import DISCLAIMER, quality, taxonomy
from dermedge.files import write_atomic
from edge_app.look.language import FOLDER, LANGUAGES

ROOM = Path(__file__).parents[1]
# Calls, and how many of their first words are a message. Errors are shown, too.
CALLS = dict.fromkeys(
    ("_", "N_", "Said", "UserError", "StoreError", "WrongKey", "SourceError", "WrongPin"), 1
)
CALLS["n_"] = 2
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
            for message in _of_kv(path) if path.suffix == ".kv" else _of_python(path):
                found.add(message, locations=[(path.relative_to(ROOM.parent).as_posix(), 1)])
    for place, messages in FOREIGN.items():
        for message in messages:
            found.add(message, locations=[(place, 1)])
    return found


def _of_python(path: Path) -> Iterator[str | tuple[str, ...]]:
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) in CALLS
    ]
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        count = CALLS[getattr(call.func, "attr", getattr(call.func, "id", ""))]
        words = [arg.value for arg in call.args[:count] if isinstance(arg, ast.Constant)]
        if len(words) == count and all(isinstance(word, str) and word for word in words):
            yield words[0] if count == 1 else tuple(words)


def _of_kv(path: Path) -> Iterator[str]:
    with path.open("rb") as file:  # its words can be read as Python's
        for _line, message, _comments, _context in extract("python", file, {"_": None}):
            yield message


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
