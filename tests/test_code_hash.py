"""Caches are keyed on the code that fills them."""

from __future__ import annotations

import sys

import pytest

from dermedge import code_hash as module
from dermedge.code_hash import code_hash


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `cooked`: main imports near, near imports far inside a function."""
    root = tmp_path / "cooked"
    root.mkdir()
    for name, source in (
        ("__init__", ""),
        ("main", "import numpy\nfrom cooked import near\n"),
        ("near", "def later():\n    from cooked.far import thing\n    return thing\n"),
        ("far", "thing = 1\n"),
        ("aside", "other = 1\n"),
    ):
        (root / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield root
    for name in [name for name in sys.modules if name.startswith("cooked")]:
        del sys.modules[name]


def hashed() -> str:
    code_hash.cache_clear()
    return code_hash("cooked.main")


def test_any_module_on_the_way_changes_the_hash_and_no_other_does(package, monkeypatch):
    first = hashed()
    assert hashed() == first
    (package / "aside.py").write_text("other = 2\n")
    assert hashed() == first
    for name in ("main", "near", "far"):
        before = hashed()
        with open(package / f"{name}.py", "a") as file:
            file.write("more = 1\n")
        assert hashed() != before
    before = hashed()
    monkeypatch.setattr("dermedge.code_hash._version", lambda package: f"{package} of tomorrow")
    assert hashed() != before


def test_the_cache_of_pictures_depends_on_how_they_are_read_and_prepared(monkeypatch):
    read, original = [], module._source
    monkeypatch.setattr(module, "_source", lambda name: read.append(name) or original(name))
    code_hash.cache_clear()
    code_hash("train.prepare")
    assert {"dermedge.image.read", "dermedge.image.preprocess", "train.prepare"} <= set(read)
    assert "dermedge.analyzer" not in read
