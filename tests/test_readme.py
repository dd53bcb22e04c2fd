"""What the README and docs/ show is run, word for word but for the length of the training."""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dermedge import open_bundle
from dermedge.data.synthetic import draw, write_data_set
from dermedge.image.read import write_png

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "docs"
# In the order in which somebody reads them: each goes on with the files of the one before.
PAGES = [ROOT / "README.md", DOCS / "train.md", DOCS / "device.md"]

READERS_SEE = {"data", "train", "export", "evaluate", "analyze", "bench", "app"}
# What a test adds, so that it takes seconds; everything else is the pages' own.
SHORT = {
    "train": "--set epochs=1 --set preprocessing.size=64 --set batch_size=8 --set pretrained=no",
    "bench": "--runs 2",
    "app": "--screenshot screenshots",
}


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def _commands() -> list[list[str]]:
    blocks = [block for page in PAGES for block in _blocks(page, "sh")]
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def test_every_command_is_one_line_of_a_program_that_is_run():
    commands = _commands()
    assert len(commands) > 10
    assert [words for words in commands if words[0] not in ("make", "pip", "dermedge")] == []
    assert {words[1] for words in commands if words[0] == "dermedge"} <= READERS_SEE


@pytest.mark.slow
def test_readme_commands(tmp_path, display):
    # So many that either half of the validation part has malignant lesions and benign ones.
    write_data_set(tmp_path / "my-data", 120, size=(96, 128))
    # The same pictures as most people have theirs: a folder a class, no masks.
    for row in csv.DictReader((tmp_path / "my-data" / "data.csv").open()):
        folder = tmp_path / "my-folders" / row["diagnosis"]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "my-data" / row["image"], folder)
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
    assert set(ran) == READERS_SEE
    borrowed = open_bundle(tmp_path / "folders.dermbundle").manifest.models
    assert borrowed.keys() == {"segmenter", "classifier"}
    assert len(list((tmp_path / "masks").glob("*.png"))) == 3
    assert (tmp_path / "screenshots" / "result.png").stat().st_size > 1000


def test_no_other_page_has_commands_that_are_not_run():
    assert [
        page.name for page in DOCS.glob("*.md") if page not in PAGES and _blocks(page, "sh")
    ] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "api.md"], ids=lambda page: page.name)
def test_python_runs_as_it_stands(page, tmp_path):
    sample = draw(5, "phone", (240, 320), label="mel", artefacts=())  # is judged
    write_png(tmp_path / "spot.jpg", sample.image)
    (block,) = _blocks(page, "python")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.match(r"(low|see a doctor|urgent) malignancy .+\n0\.\d+", done.stdout)


@pytest.mark.parametrize("target", ["demo", "test", "docs"])
def test_make_targets_are_there(target):
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "MODELS.md"])
def test_every_linked_file_is_there(name):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / name).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
