"""Where figures come from."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess

import pytest

from dermedge.evaluation import provenance


def test_commit_is_of_our_own_checkout_only(tmp_path):
    assert re.fullmatch(r"-|[0-9a-f]{12,}", provenance.commit())
    for folder, own in ((tmp_path / "own", True), (tmp_path / "foreign" / "site", False)):
        copy = folder / "dermedge" / "evaluation" / "provenance.py"
        copy.parent.mkdir(parents=True)
        shutil.copy(provenance.__file__, copy)
        spec = importlib.util.spec_from_file_location("provenance_copy", copy)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.commit() == "-"  # no checkout at all
        root = folder if own else folder.parent
        git = ["git", "-C", root, "-c", "user.name=n", "-c", "user.email=n@example.org"]
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
            subprocess.run([*git, *words], check=True)
        assert re.fullmatch(r"[0-9a-f]{12,}" if own else "-", module.commit("+"))
        copy.write_text("# changed")
        assert module.commit("+").endswith("+" if own else "-")
        assert "+" not in module.commit()


@pytest.mark.parametrize(
    ("changed", "mark"),
    [("dermedge/evaluation/provenance.py", "+"), ("benchmarks/results/a.csv", "")],
)
def test_what_measures_is_marked_where_it_is_not_committed(changed, mark, tmp_path, monkeypatch):
    """Figures of changed code stood under the commit; a table with new rows is no such change."""
    git = ["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=n@example.org"]
    for name in ("dermedge/evaluation/provenance.py", "benchmarks/results/a.csv"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("first")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / changed).write_text("second")
    monkeypatch.setattr(provenance, "_ROOT", tmp_path.resolve())
    assert re.fullmatch(rf"[0-9a-f]{{12,}}{re.escape(mark)}", provenance.commit("+"))
