"""The site is built whole and asks nobody for anything; what the pages name is there."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import dermedge

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
ROOMS = ("dermedge", "train", "export", "benchmarks", "edge_app", "tests", "docs")
CODE = re.compile(r"```(?:sh|bash|text)\n(.*?)```|`([^`\n]+)`", re.DOTALL)


# ---------------------------------------------------------------------------- the built site


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    out = tmp_path_factory.mktemp("site")
    words = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(out / "trees"), str(DOCS)]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words, str(out / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out / "html"


class _Page(HTMLParser):
    """What a page links to, what it loads by itself, and the names of its parts."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "next", "prev", "index"):
            self.loaded.append(values["href"])
        self.loaded += [
            values[name] for name in ("src", "srcset", "poster", "data") if name in values
        ]


def _is_outside(address: str) -> bool:
    return bool(urlsplit(address).netloc)


def test_pages_load_nothing_from_elsewhere(site):
    pages = {path.name: _Page(path) for path in site.rglob("*.html")}
    assert {f"{page.stem}.html" for page in DOCS.glob("*.md")} <= set(pages)
    assert any(page.loaded for page in pages.values())
    outside = [(name, a) for name, page in pages.items() for a in page.loaded if _is_outside(a)]
    assert outside == []
    styles = list(site.rglob("*.css"))
    addresses = re.compile(r"(?:url\(|@import\s*)[\"']?((?:https?:)?//[^\"')\s]+)")
    assert [(p.name, a) for p in styles for a in addresses.findall(p.read_text())] == []
    scripts = "".join(p.read_text(encoding="utf-8", errors="replace") for p in site.rglob("*.js"))
    assert not re.search(r"(fetch|import|importScripts|sendBeacon)\(\s*[\"'](https?:)?//", scripts)


def test_no_internal_link_is_dead(site):
    pages = {path.resolve(): _Page(path) for path in site.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in {*page.links, *page.loaded}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            fragment = unquote(parts.fragment)
            named = not fragment or target not in pages or fragment in pages[target].ids
            if not target.exists() or not named:
                dead.append((path.name, link))
    assert dead == []


def test_the_reference_is_all_of_the_public_api(site):
    ids = _Page(site / "api.html").ids
    assert {f"dermedge.{name}" for name in dermedge.__all__} <= ids
    commands = (site / "_generated" / "commands.html").read_text(encoding="utf-8")
    for entry in entry_points(group="dermedge.commands"):
        listed = f"usage: dermedge {entry.name} " in commands
        assert listed == (entry.load().renamed is None)
    assert f"{Path.home()}/" not in commands  # of whoever built the page
    assert "(default: ~/.local/share/dermedge)" in " ".join(commands.split())


# ---------------------------------------------------------------------------- what pages name


@cache
def _options() -> dict[str, dict[str, bool]]:
    """Command to its options, and whether each is shown in its help."""
    options = {}
    for entry in entry_points(group="dermedge.commands"):
        parser = argparse.ArgumentParser()
        entry.load().arguments(parser)
        options[entry.name] = dict(_of_parser(parser))
    return options


def _of_parser(parser: argparse.ArgumentParser):
    for action in parser._actions:
        shown = action.help != argparse.SUPPRESS
        yield from ((option, shown) for option in action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _of_parser(child)


def _lines(page: Path) -> list[list[str]]:
    """The words of each command line that a page names, in a block or in a sentence."""
    lines = []
    for block, inline in CODE.findall(page.read_text(encoding="utf-8")):
        for line in (block or inline).replace("\\\n", " ").splitlines():
            words = _words(line.strip())
            if "-m" in words and "dermedge.cli" in words:
                words = ["dermedge", *words[words.index("dermedge.cli") + 1 :]]
            elif not re.match(r"(\S*/)?dermedge \S", line.strip()):  # as in a list of rooms
                continue
            if words:
                lines.append(words[1:])
    return lines


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # no command line
        return []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_that_a_page_names_exists(page):
    known, wrong = _options(), []
    every = {option: shown for options in known.values() for option, shown in options.items()}
    for words in _lines(page):
        if not words or words[0] == "COMMAND":
            continue
        options = known.get(words[0])
        named = [word.split("=")[0] for word in words if re.match(r"--[a-z]", word)]
        if options is None:
            wrong.append(f"dermedge {words[0]}")
        else:
            # One that is hidden has a new name, which the page should say.
            wrong += [f"{words[0]} {one}" for one in named if not options.get(one)]
    for _block, inline in CODE.findall(page.read_text(encoding="utf-8")):
        option = re.match(r"(--[a-z][a-z-]+)(?![\w.-])", inline)
        if option and not every.get(option[1]) and option[1] not in ("--nproc-per-node", "--help"):
            wrong.append(option[1])
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_folder_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    paths = re.findall(rf"(?<![\w/.-])(?:{'|'.join(ROOMS)})/[\w./-]*\w", text)
    capitals = re.compile(r"\b[A-Z]{3,}\b")  # NAME.py stands for any
    missing = [p for p in paths if not (ROOT / p).exists() and not capitals.search(p)]
    assert missing == []
    tests = set(re.findall(r"`(test_\w+)`", text))
    written = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert [name for name in tests if f"def {name}(" not in written] == []


def test_every_link_to_a_heading_works_where_the_pages_are_read_as_files():
    pages = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    dead = []
    for page in pages:
        for link in re.findall(r"\]\(([^)\s:]+\.md)?#([^)]+)\)", page.read_text(encoding="utf-8")):
            target = page.parent / link[0] if link[0] else page
            if link[1] not in _headings(target.resolve()):
                dead.append((page.name, *link))
    assert dead == []


@cache
def _headings(page: Path) -> set[str]:
    """The names that a forge gives the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# Also of those that no test runs, with the values of the lines above them.
RESULTS = ROOT / "benchmarks" / "results" / "README.md"
BLOCK = re.compile(r"```(?:sh|bash|text)\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", [*PAGES, RESULTS], ids=lambda page: page.name)
def test_every_recipe_and_setting_that_a_page_names_is_taken(page):
    text, known = page.read_text(encoding="utf-8"), {}
    for line in "\n".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines():
        line = re.sub(r"\$([A-Z]+)", lambda name: known.get(name[1], name[0]), line)
        if value := re.match(r'([A-Z]+)="(.*)"$', line):
            known[value[1]] = value[2]
        words = _words(line.strip())
        if words[:1] == ["dermedge"] and "--recipe" in words:
            _load_recipe(words[words.index("--recipe") + 1], words)


def test_every_setting_that_a_recipe_proposes_is_taken():
    for path in sorted((ROOT / "train" / "recipes").glob("*.toml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comment = " ".join(line[1:] for line in lines if line.startswith("#"))
        proposed = re.findall(r'(--set) ([\w.]+=(?:"[^"]*"|[\w.,]*\w))', comment)
        one = [word for option in proposed for word in option if "=NAME" not in word]
        _load_recipe(path.stem, one)


def _load_recipe(name: str, words: list[str]) -> None:
    pytest.importorskip("torch")
    from train.recipe import load_recipe

    load_recipe(name, [value for option, value in pairwise(words) if option == "--set"])


def test_a_reader_written_as_the_page_says_passes_the_contract(tmp_path, monkeypatch):
    """The example of docs/add-data-set.md, on a layout of its own."""
    from test_datasets import LAYOUTS, mask, picture, table, test_reader_contract

    from dermedge.data.readers import READERS

    page = (DOCS / "add-data-set.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    module: dict[str, object] = {}
    exec("\n".join(line.removeprefix("   ") for line in block.splitlines()), module)

    def layout(root: Path) -> None:
        rows = ("a,1,p,melanoma,60,male", "b,1,p,melanoma,60,male", "c,2,q,nevus,,")
        header = "image_id,lesion_id,patient_id,diagnosis,age,sex"
        table(root / "name_metadata.csv", header, *rows)
        for seed, name in enumerate("abc"):
            picture(root / "images" / f"{name}.jpg", seed)
        mask(root / "masks" / "a_mask.png")

    monkeypatch.setitem(READERS, "name", module["NAME"])
    monkeypatch.setitem(LAYOUTS, "name", layout)
    test_reader_contract("name", tmp_path)


def test_what_is_refused_without_a_lesion_is_what_the_tables_say():
    results, known = ROOT / "benchmarks" / "results", set()
    for name in ("dermoscopy", "multitask", "smartphone"):
        with (results / f"{name}-groups.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["measure"] == "retaken"]
        known |= {_interval(row["value"], row["low"], row["high"]) for row in rows}
        with (results / f"{name}.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["ood_retaken"]]
        limits = ("ood_retaken", "ood_retaken_low", "ood_retaken_high")
        known |= {_interval(*(row[limit] for limit in limits)) for row in rows}
    page = (DOCS / "figures.md").read_text(encoding="utf-8")
    table = page.split("\n| kind |")[1].split("\n\n")[0]
    stated = re.findall(r"\d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)", table)
    assert len(stated) == 21
    assert set(stated) - known == set()
    through = []
    for name in ("dermoscopy", "multitask", "smartphone"):
        with (results / f"{name}.csv").open(encoding="utf-8") as file:
            (share,) = [row["ood_retaken"] for row in csv.DictReader(file) if row["ood_retaken"]]
        through.append(str(round(1 / (1 - float(share)))))
    first = " ".join((DOCS / "index.md").read_text(encoding="utf-8").split())
    assert re.findall(r"one in (\d+) by", first) == through


def _interval(*values: str) -> str:
    return "{:.3f} ({:.3f} to {:.3f})".format(*map(float, values))


def test_every_extra_is_explained_where_dermedge_is_installed():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.split("[project.optional-dependencies]")[1].split("\n[project.")[0]
    table = (DOCS / "device.md").read_text(encoding="utf-8").split("| extra |")[1].split("\n\n")[0]
    explained = [name for row in table.splitlines()[2:] for name in re.findall("`([a-z-]+)`", row)]
    assert set(re.findall(r"^([a-z-]+) = \[", extras, re.MULTILINE)) - set(explained) == set()


def test_every_picture_is_shown_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    shown = {Path(path).name for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)}
    assert {path.name for path in DOCS.glob("*.png")} == shown


def test_the_picture_of_a_benchmark_is_of_the_default_bundle():
    text = RESULTS.read_text(encoding="utf-8")
    drawn = re.search(r"benchmarks\.report\.picture (\S+) --out docs/bench\.png", text)[1]
    result = json.loads((ROOT / drawn).read_text(encoding="utf-8"))
    bundle = (ROOT / "dermedge" / "models" / "dermoscopy.dermbundle").read_bytes()
    assert result["bundle"]["sha256"] == hashlib.sha256(bundle).hexdigest()
    caption = (DOCS / "measure.md").read_text(encoding="utf-8").split("](bench.png)")[1]
    assert result["hardware"]["cpu"] in caption[:100]
    assert f"the default bundle of {result['date'][:10]}" in (ROOT / "README.md").read_text()


def test_versions_agree():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f'\nversion = "{dermedge.__version__}"\n' in project
    assert f"\nversion: {dermedge.__version__}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version, day = re.search(r"^## (\d+\.\d+\.\d+) \((.*)\)", changes, re.MULTILINE).groups()
    assert version == dermedge.__version__
    assert f"\ndate-released: {day}\n" in citation
    assert f"dermedge-{dermedge.__version__}-py3-none-any.whl" in (DOCS / "device.md").read_text()


def test_on_a_jetson_what_was_tuned_is_read_where_it_was_kept():
    page = (DOCS / "jetson.md").read_text(encoding="utf-8")
    words = "bin/dermedge (engine build|tune|bench --tuned)"
    lines = [line for line in page.splitlines() if re.search(words, line)]
    assert len(lines) == 6
    assert all("XDG_CACHE_HOME=/var/cache/dermedge" in line for line in lines)
    # The kiosk needs no `bench`: what it takes is installed before it is called.
    assert "whl[bench]'" in page[: page.index("dermedge bench")]
