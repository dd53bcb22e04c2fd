"""The speed of training beside the reference's: both sides work, and figures are kept as told."""

from __future__ import annotations

import csv
import math

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dermedge import UserError, cli
from dermedge.data import load
from dermedge.image.read import write_png
from train import feed_speed, throughput
from train.recipe import load_recipe

NO_TEACHER = ["--set", "distillation.teachers="]
TINY = ["preprocessing.size=32", "batch_size=4", "workers=0", "model=mobilenet_v3_small"]


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    root = tmp_path_factory.mktemp("lesions")
    rows = []
    for number in range(8):
        image = np.full((40, 56, 3), (150, 180, 220), np.uint8)
        cv2.circle(image, (28, 20), 6 + number, (60, 40, 40), -1)
        write_png(root / f"p{number}.png", image)
        label = ("mel", "nv")[number % 2]
        rows.append({"id": f"p{number}", "image": f"p{number}.png", "diagnosis": label})
    with open(root / "data.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.mark.parametrize("where", ["loader", "device"])
def test_our_side_augments_where_the_recipe_says(lesions, tmp_path, where):
    recipe = load_recipe("classifier", [*TINY, "pretrained=no", f"augment_on={where}"])
    records = load("csv", lesions).records
    source, _ = throughput._ours(recipe, records, ("mel", "nv"), str(tmp_path))["loading"]
    assert isinstance(source(), DataLoader) == (where == "loader")


@pytest.mark.slow
def test_both_sides_are_measured_and_written_down(lesions, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(throughput, "ROUNDS", 2)
    out = tmp_path / "speed.csv"
    sets = [part for override in TINY for part in ("--set", override)]
    source = ["--recipe", "classifier", "--data", f"csv={lesions}"]
    assert cli.main(["throughput", *source, *sets, "--seconds", "0.01", "--out", str(out)]) == 0
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["measured"] for row in rows] == ["training", "loading"]
    for row in rows:
        assert set(row) == set(throughput.COLUMNS)
        ours, reference, ratio = (float(row[name]) for name in ("ours", "reference", "ratio"))
        assert ours > 0
        assert ratio == pytest.approx(ours / reference, rel=0.01)
        assert float(row["ratio_low"]) <= ratio <= float(row["ratio_high"])
        assert (row["model"], row["size"], row["pictures"]) == ("mobilenet_v3_small", "32", "8")
        assert all(row.values())
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed[:2]] == ["training", "loading"]


def test_the_ratio_is_of_neighbouring_turns():
    # A machine that slows down to a tenth leaves a ratio of two as it is.
    ours = [200 / 10 ** (turn / 6) for turn in range(throughput.ROUNDS)]
    found = throughput.compared(ours, [rate / 2 for rate in ours])
    assert [found[name] for name in ("ratio", "ratio_low", "ratio_high")] == ["2"] * 3
    assert float(found["ours"]) == pytest.approx(math.prod(ours) ** (1 / len(ours)), rel=1e-3)
    noisy = [rate * factor for rate, factor in zip(ours, (1, 2, 1, 2, 1, 2, 1), strict=True)]
    low, high = (
        float(throughput.compared(noisy, ours)[name]) for name in ("ratio_low", "ratio_high")
    )
    assert low < 2 ** (3 / 7) < high
    # Student's t of the logarithms: about 0.93 standard deviations to each side.
    spread = np.log([1, 2, 1, 2, 1, 2, 1]).std(ddof=1) * 2.447 / math.sqrt(7)
    assert math.log(high / low) == pytest.approx(2 * spread, rel=1e-2)


def test_figures_are_added_to_the_same_table_only(tmp_path):
    row = dict.fromkeys(throughput.COLUMNS, "1")
    for count in (1, 2):
        throughput.append_rows([row], tmp_path / "speed.csv")
        assert len((tmp_path / "speed.csv").read_text().splitlines()) == 1 + count
    (tmp_path / "thesis.csv").write_text("id,diagnosis\np0,mel\n")
    with pytest.raises(UserError, match="a table of something else"):
        throughput.append_rows([row], tmp_path / "thesis.csv")
    assert (tmp_path / "thesis.csv").read_text() == "id,diagnosis\np0,mel\n"


@pytest.mark.parametrize("beside", ["torchvision", "constant"])
def test_a_table_that_cannot_be_added_to_is_refused_before_the_measuring(
    lesions, tmp_path, capsys, beside
):
    (tmp_path / "thesis.csv").write_text("id,diagnosis\np0,mel\n")
    words = ["throughput", "--recipe", "classifier", "--data", "csv=/nowhere", "--beside", beside]
    for name, reason in (("thesis.csv", "a table of something else"), ("", "is a folder")):
        assert cli.main([*words, "--out", str(tmp_path / name)]) == 2
        assert reason in capsys.readouterr().err


def test_the_reference_cuts_flips_and_normalizes(lesions):
    records = load("csv", lesions).records
    files = throughput._Files(records, ("mel", "nv"), 32)
    torch.manual_seed(0)
    views = [files[0][0] for _ in range(3)]
    assert all(tuple(image.shape) == (3, 32, 32) for image in views)
    assert not torch.equal(views[0], views[1])
    # The skin of `lesions`, by ImageNet's statistics.
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    skin = (torch.tensor([150, 180, 220]) / 255 - mean) / std
    assert torch.stack(views).amax(dim=(0, 2, 3)) == pytest.approx(skin, rel=1e-3)
    assert [files[index][1] for index in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--recipe", "segmenter"], "throughput compares plain classifiers"),
        (["--recipe", "classifier", "--set", "metadata=age"], "throughput compares plain"),
        (["--recipe", "classifier-late", "--beside", "constant"], "on pictures: leave"),
        (["--recipe", "classifier-late", *NO_TEACHER], "or kept views"),
        (["--recipe", "nothing"], "no recipe 'nothing'"),
        (["--recipe", "classifier", "--seconds", "0"], "--seconds must be more than 0"),
        (["--recipe", "classifier", "--limit", "1"], "--limit must be 2 or more"),
    ],
)
def test_wrong_use_is_one_line(lesions, capsys, arguments, complaint):
    assert cli.main(["throughput", "--data", f"csv={lesions}", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_what_a_side_refuses_ends_the_measurement(lesions):
    recipe = load_recipe("classifier", [*TINY, "amp=fp16"])
    if torch.accelerator.is_available():
        pytest.skip("a GPU can do it")
    with pytest.raises(UserError, match="needs a GPU"):
        throughput.measure(recipe, load("csv", lesions), 0.01, 8)


def test_feeds_are_measured_beside_a_constant_batch(lesions, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(feed_speed, "ROUNDS", 2)
    out = tmp_path / "feeds.csv"
    sets = [part for override in TINY for part in ("--set", override)]
    source = ["--recipe", "classifier", "--data", f"csv={lesions}", "--beside", "constant"]
    assert cli.main(["throughput", *source, *sets, "--seconds", "0.01", "--out", str(out)]) == 0
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["feed"] for row in rows] == ["constant", "loader", "device"]
    for row in rows:
        assert set(row) == set(feed_speed.COLUMNS)
        share = float(row["rate"]) / float(rows[0]["rate"])
        assert float(row["share"]) == pytest.approx(share, rel=0.01)
        assert float(row["share_low"]) <= float(row["share"]) <= float(row["share_high"])
        assert all(row.values())
    assert rows[0]["augmenting"] == "-"
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed[:3]] == ["constant", "loader", "device"]
    arguments = ["--recipe", "segmenter", "--data", f"csv={lesions}", "--beside", "constant"]
    assert cli.main(["throughput", *arguments]) == 2
    assert "has no masks to train a segmenter on" in capsys.readouterr().err
