"""Sphinx: `make docs` builds the site into build/docs, without any request to the outside."""

from __future__ import annotations

import argparse
import os
from importlib.metadata import entry_points
from pathlib import Path
from unittest.mock import patch

from dermedge import DISCLAIMER, __version__

HERE = Path(__file__).parent

project = "dermedge"
author = "the dermedge developers"
copyright = f"{author}, Apache-2.0"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
default_role = "code"  # in docstrings `this` is code
html_theme = "furo"
html_title = f"dermedge {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"announcement": DISCLAIMER}
html_show_sphinx = False
html_copy_source = False
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autoclass_content = "both"
maximum_signature_line_length = 88


def write_commands(_app) -> None:
    """A page with each command's own help, so that the two cannot differ."""
    # The defaults of whoever reads the page, not the folders of whoever built it.
    own = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    with patch.dict(os.environ, {**own, "HOME": "/~", "COLUMNS": "92"}, clear=True):
        text = _commands().replace("/~/", "~/")
    page = HERE / "_generated" / "commands.md"
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def _commands() -> str:
    lines = ["# Commands", "", "What `dermedge COMMAND --help` prints, for every command.", ""]
    for entry in sorted(entry_points(group="dermedge.commands"), key=lambda it: it.name):
        command = entry.load()
        if command.renamed:
            continue
        parser = argparse.ArgumentParser(prog=f"dermedge {entry.name}", description=command.summary)
        command.arguments(parser)
        lines += [f"## {entry.name}", "", "```text", parser.format_help().rstrip(), "```", ""]
        for name, child in _children(parser):
            lines += [f"### {name}", "", "```text", child.format_help().rstrip(), "```", ""]
    return "\n".join(lines)


def _children(parser: argparse.ArgumentParser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield child.prog.removeprefix("dermedge "), child
                yield from _children(child)


FIELDS = {"Parameters": "param", "Raises": "raises", "Returns": "returns", "Attributes": "ivar"}


def read_sections(_app, _what, _name, _obj, _options, lines: list[str]) -> None:
    """A docstring's sections as Sphinx's fields.

    They read `name : what it is`; numpydoc's parser would take what it is for a type.
    """
    field, text = "", []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line in FIELDS and following.startswith("---"):
            field = FIELDS[line]
            text.append(f":{field}:" if field == "returns" else "")
        elif field and line.startswith("---"):
            pass
        elif field and line and not line.startswith(" ") and field != "returns":
            name, _, rest = line.partition(" : ")
            text.append(f":{field} {name}: {rest}")
        else:
            text.append(f"    {line}" if field and line else line)
    lines[:] = text


def setup(app) -> None:
    app.connect("autodoc-process-docstring", read_sections)
    app.connect("builder-inited", write_commands)
