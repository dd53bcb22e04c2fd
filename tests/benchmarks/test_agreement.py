"""What two devices say of the same pictures: what is equal, and what cannot be compared."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

pytest.importorskip("scipy")
from benchmarks import agreement, arm64
from dermedge import UserError, cli
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.image.preprocess import prepare
from dermedge.image.read import Picture, read_image, write_png


@pytest.fixture(scope="module")
def analyses(tiny_bundle) -> dict[str, dict]:
    analyzer = Analyzer(Bundle.open(tiny_bundle), threads=1)
    found = {}
    for seed in range(3):
        picture = draw(seed, "phone", (96, 128), label="mel", artefacts=()).image
        found[f"{seed}.png"] = json.loads(
            json.dumps(analyzer.analyze(Picture(picture, 96, 128)).to_json())
        )
    return found


def test_the_same_is_equal_in_everything(analyses):
    figures = agreement.agreement(analyses, copy.deepcopy(analyses))
    assert figures["pictures"] == figures["advice"]["equal"] == figures["outline"]["equal"] == 3
    assert figures["advice"]["high"] == 1
    assert 0.2 < figures["advice"]["low"] < 0.4  # three are few
    assert (figures["probabilities"], figures["quality"], figures["area_share"]) == (0, 0, 0)


def test_another_advice_and_the_largest_difference_are_counted(analyses):
    other = copy.deepcopy(analyses)
    other["1.png"]["triage"] = "another"
    label = next(iter(other["2.png"]["probabilities"]))
    other["2.png"]["probabilities"][label] += 0.25
    figures = agreement.agreement(analyses, other)
    assert figures["advice"]["equal"] == 2
    assert figures["probabilities"] == pytest.approx(0.25)
    assert figures["box"]["equal"] == 3


def test_what_one_alone_finds_or_measures_is_a_difference(analyses):
    one = copy.deepcopy(analyses)
    one["0.png"]["lesion"]["area_px"] = None
    one["1.png"]["quality"]["scores"]["not_skin"] = 0.5
    other = copy.deepcopy(one)
    del other["1.png"]["quality"]["scores"]["not_skin"]
    other["0.png"]["lesion"]["area_px"] = 900
    for pair in ((one, other), (other, one)):
        figures = agreement.agreement(*pair)
        assert (figures["quality"], figures["area_share"]) == (0.5, 1)


def test_a_file_of_windows_names_the_same_pictures(tmp_path):
    """Its separators were a part of the names: "not of the same pictures"."""
    path = tmp_path / "windows.jsonl"
    path.write_text(json.dumps({"image": "C:\\pictures\\0.png"}) + "\n")
    assert list(agreement.read(path)) == ["0.png"]


def test_what_cannot_be_compared_is_refused(analyses, tmp_path):
    fewer = {"0.png": analyses["0.png"]}
    with pytest.raises(UserError, match="not of the same pictures"):
        agreement.agreement(analyses, fewer)
    refused = {**analyses, "0.png": {"image": "0.png", "error": "damaged"}}
    with pytest.raises(UserError, match="refused by one alone"):
        agreement.agreement(analyses, refused)
    classes = copy.deepcopy(analyses)
    del classes["0.png"]["probabilities"]["mel"]
    with pytest.raises(UserError, match="same classes"):
        agreement.agreement(analyses, classes)
    alone = {"0.png": {"image": "0.png", "triage": "monitor"}}  # such as a table made by hand
    with pytest.raises(UserError, match=r"0\.png lacks likely: .* as `dermedge analyze --out`"):
        agreement.agreement(alone, fewer)
    path = tmp_path / "notes.jsonl"
    for text in ("not JSON", "[]", '{"image": "a/0.png"}\n{"image": "b/0.png"}'):
        path.write_text(text + "\n")
        with pytest.raises(UserError):
            agreement.read(path)


def test_arm64_compares_the_pictures_of_this_run(tiny_bundle, tmp_path, monkeypatch):
    """Those of a run before, in the files that a stopped run goes on with, were counted, too."""
    for seed, name in enumerate(("a.png", "b.png")):
        write_png(tmp_path / name, draw(seed, "phone", (96, 128), artefacts=()).image)

    def run(command, environment=None):
        words = command[command.index("analyze") :]
        assert cli.main(words) == 0

    def python(self, *words):
        if "analyze" in words:
            return run(list(words))
        prepared = [prepare(read_image(words[-1]).pixels, spec)[0] for spec in specs]
        return np.savez(words[3], **{f"0-{j}": one for j, one in enumerate(prepared)})

    specs = [one.preprocessing for one in Bundle.open(tiny_bundle).manifest.models.values()]
    monkeypatch.setattr(arm64, "_run", run)
    monkeypatch.setattr(arm64.Machine, "prepare", lambda self: None)
    monkeypatch.setattr(arm64.Machine, "python", python)
    monkeypatch.setattr(arm64, "CHECKOUT", tmp_path)
    (tmp_path / "dermedge.egg-info").mkdir()
    words = ["--bundle", str(tiny_bundle), "--folder", str(tmp_path), "--out"]
    for name in ("a.png", "b.png"):
        arm64.main([f"{tmp_path}/./{name}", *words, str(tmp_path / "figures.json")])
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert (figures["pictures"], figures["prepared"]["different"]) == (1, 0)
    monkeypatch.setattr(arm64.Machine, "prepare", lambda self: pytest.fail("a minute a picture"))
    (tmp_path / "words.png").write_text("words")
    with pytest.raises(UserError, match=r"words\.png"):
        arm64.main([f"{tmp_path}/a.png", f"{tmp_path}/words.png", *words, str(tmp_path / "f.json")])


def test_arm64_deletes_nobodys_folder(tmp_path, monkeypatch):
    """All of the folder that --folder named was deleted, by root."""
    monkeypatch.setattr(arm64.shutil, "which", lambda name: name)
    monkeypatch.setattr(arm64, "_run", lambda *_: pytest.fail("it was fetched"))
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="holds other files"):
        arm64.Machine(tmp_path).prepare()
    assert (tmp_path / "mine.txt").exists()


def test_bytes_that_differ_are_counted():
    ours = [np.zeros((2, 2, 3), np.uint8)] * 2
    theirs = [np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)]
    assert arm64.differing(ours, theirs) == {"bytes": 24, "different": 12, "largest": 255}
