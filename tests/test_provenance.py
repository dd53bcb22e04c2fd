"""Where figures come from."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess

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
