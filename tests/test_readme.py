"""The README's commands are run, word for word but for the length of the training."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dermedge.data import READERS
from dermedge.data.synthetic import write_data_set

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()

# What a test adds, so that it takes seconds; everything else is the README's own.
SHORT = {
    "train": "--set epochs=1 --set preprocessing.size=64 --set batch_size=8 --set pretrained=no",
    "bench": "--runs 2",
    "app": "--screenshot screenshots",
}


def _commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def test_readme_commands(tmp_path, display):
    write_data_set(tmp_path / "my-data", 60, size=(96, 128))
    (tmp_path / "photos").mkdir()
    for picture in sorted((tmp_path / "my-data" / "images").iterdir())[:3]:
        shutil.copy(picture, tmp_path / "photos")
    environment = {**os.environ, "DISPLAY": display, "OMP_NUM_THREADS": "2"}
    ran = []
    for words in _commands():
        if words[0] in ("make", "pip"):
            continue
        assert words[0] == "dermedge", words
        kind = words[1]
        # No camera is here: pictures stand for it.
        words = ["photos" if w == "0" and before == "--source" else w
                 for before, w in zip(["", *words[:-1]], words, strict=True)]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "dermedge.cli", *words[1:], *SHORT.get(kind, "").split()],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr[-2000:]}"
        ran.append(kind)
    assert set(ran) == {"data", "train", "export", "evaluate", "analyze", "bench", "app"}
    assert len(list((tmp_path / "masks").glob("*.png"))) == 3
    assert (tmp_path / "screenshots" / "result.png").stat().st_size > 1000


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_targets_are_there(target):
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_data_set_is_in_the_readme():
    assert all(f"| `{name}` |" in README for name in READERS)


def test_every_linked_file_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)
