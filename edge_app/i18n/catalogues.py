"""Collects what the app says, for its translators: `python -m edge_app.i18n.catalogues`.

Writes locale/dermedge.pot and brings each language's .po to it: new messages come in without a
translation, those that nobody says any more are dropped. Nothing changes where nothing is new.
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

import dermedge
from dermedge import DISCLAIMER, taxonomy, triage
from dermedge.cli import call
from dermedge.files import write_atomic
from dermedge.lesion import quality
from dermedge.lesion.scale.size_marker import HOW
from edge_app.i18n.language import FOLDER, LANGUAGES

ROOM = Path(__file__).parents[1]
DEVICE = Path(dermedge.__file__).parent
# Calls, and how many of their first words are a message. Errors are shown, too.
CALLS = {"_": 1, "N_": 1, "Message": 1, "n_": 2, "plural": 2}
# Speak to no screen.
CONSOLE = {"commands.py", "measure.py", "tour.py", "catalogues.py"}
CONSOLE |= {"build.py", "packages.py", "serve.py", "site.py", "apk.py", "apk_tools.py"}
CONSOLE |= {"server.py", "loopback.py", "export.py", "systemd.py", "tune_process.py", "codes.py"}
# What other rooms say in English and the app shows by `_(CONSTANT)`.
FOREIGN = {
    "dermedge/__init__.py": [DISCLAIMER],
    "dermedge/triage.py": list(triage.RULES.values()),
    "dermedge/lesion/quality.py": [*quality.TITLES.values(), quality.UNSURE],
    "dermedge/taxonomy.py": list(taxonomy.TITLES.values()),
    "dermedge/lesion/scale/size_marker.py": [*HOW],
}
# Of the core what the app never runs: its errors are for a console.
NOT_ON_A_SCREEN = frozenset(
    ("cli", "evaluation", "data", "mask_values.py", "batch.py", "cluster.py", "browser.py")
)
COMMENT = "# What the app says; brought up to date by `python -m edge_app.i18n.catalogues`."
HEADERS = ("Language", "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Plural-Forms")


class Catalogue(Catalog):
    """Without the time and place at which it was written: they would change with every run."""

    @property  # type: ignore[misc]  # nobody sets them here
    def mime_headers(self) -> list[tuple[str, str]]:
        return [header for header in super().mime_headers if header[0] in HEADERS]


def collect() -> Catalogue:
    """All messages of the app, without translations."""
    found = Catalogue(header_comment=COMMENT, fuzzy=False)
    for path in sorted(p for kind in ("*.kv", "*.py") for p in ROOM.rglob(kind)):
        if not CONSOLE & set(path.relative_to(ROOM).parts):
            for message in _of_kv(path) if path.suffix == ".kv" else _of_python(path):
                found.add(message, locations=[(path.relative_to(ROOM.parent).as_posix(), 1)])
    for path, _line, message in core_errors():
        if message:
            found.add(message, locations=[(path.relative_to(ROOM.parent).as_posix(), 1)])
    for place, messages in FOREIGN.items():
        for message in messages:
            found.add(message, locations=[(place, 1)])
    return found


def core_errors() -> Iterator[tuple[Path, int, str]]:
    """Each place of the core that makes an error which the app can show: file, line, message.

    The message is empty where it is none that can be translated, as with values filled in already.
    """
    for path in sorted(DEVICE.rglob("*.py")):
        if NOT_ON_A_SCREEN & set(path.relative_to(DEVICE).parts):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name) and isinstance(node.value.value, str)
        }
        for found in _calls(tree, error_classes()):
            name = getattr(found.args[0], "id", "") if found.args else ""
            yield path, found.lineno, _constant(found, 0) or named.get(name, "")


@cache
def error_classes() -> frozenset[str]:
    """Names of UserError and of all kinds of it, in the core and in the app."""
    names = {"UserError"}
    classes = [
        node
        for room in (DEVICE, ROOM)
        for path in room.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    while True:
        more = {
            one.name for one in classes for base in one.bases if getattr(base, "id", "") in names
        }
        if more <= names:
            return frozenset(names)
        names |= more


def _calls(tree: ast.Module, names: Container[str]) -> list[ast.Call]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node) in names]
    return sorted(calls, key=lambda call: (call.lineno, call.col_offset))


def _name(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _constant(call: ast.Call, at: int) -> str:
    """An argument that is a text and stands there as it is; else nothing."""
    argument = call.args[at] if at < len(call.args) else None
    value = argument.value if isinstance(argument, ast.Constant) else ""
    return value if isinstance(value, str) else ""


def _of_python(path: Path) -> Iterator[str | tuple[str, ...]]:
    counts = {**dict.fromkeys(error_classes(), 1), **CALLS}
    for found in _calls(ast.parse(path.read_text(encoding="utf-8")), counts):
        messages = [_constant(found, at) for at in range(counts[_name(found)])]
        if all(messages):
            yield messages[0] if len(messages) == 1 else tuple(messages)


def _of_kv(path: Path) -> Iterator[str]:
    with path.open("rb") as file:  # its words can be read as Python's
        for _line, message, _comments, _context in extract("python", file, {"_": None}):
            yield message if isinstance(message, str) else message[0]


def merged(template: Catalogue, language: str) -> Catalogue:
    """The template's messages with the translations that the language has."""
    known = read_po(io.BytesIO((FOLDER / f"{language}.po").read_bytes()), language)
    fresh = Catalogue(language, header_comment=COMMENT, fuzzy=False)
    for message in template:
        if message.id:
            old = known.get(message.id)
            known_still = old is not None and old.id == message.id
            translation = old.string if old is not None and known_still else ""
            fresh.add(message.id, translation, message.locations)
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
    if isinstance(message.string, str):
        return (message.string,)
    return tuple(message.string or ("",))


def _write(path: Path, catalogue: Catalogue) -> None:
    text = io.BytesIO()
    write_po(text, catalogue, width=100, sort_by_file=True, include_lineno=False)
    write_atomic(path, text.getvalue())


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m edge_app.i18n.catalogues", description=__doc__
    ).parse_args()
    sys.exit(call(main))
