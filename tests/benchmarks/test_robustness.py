"""Graded changes of pictures, and what comes of the accuracy under them."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.accuracy.intervals import clusters
from benchmarks.accuracy.selection import select
from benchmarks.corruptions.corruptions import CORRUPTIONS
from benchmarks.corruptions.robustness import Answer, repeats, robustness
from benchmarks.report import text
from benchmarks.schema import names
from dermedge import cli
from dermedge.bundle.bundle import Bundle
from dermedge.data import DataSet, Record, Split, load
from dermedge.evaluation.provenance import commit

pytestmark = pytest.mark.usefixtures("few_resamples")
RNG = np.random.default_rng(0)


def picture(height: int = 120, width: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """A dark disc off the centre, and its mask at twice the size."""
    pixels = np.full((height, width, 3), (225, 180, 160), np.uint8)
    centre, radius = (width // 2 + 9, height // 2 - 4), min(height, width) // 4
    cv2.circle(pixels, centre, radius, (90, 60, 50), cv2.FILLED)
    mask = np.zeros((2 * height, 2 * width), np.uint8)
    cv2.circle(mask, (2 * centre[0], 2 * centre[1]), 2 * radius, 1, cv2.FILLED)
    return pixels, mask > 0


@given(
    name=st.sampled_from(sorted(CORRUPTIONS)),
    height=st.integers(64, 120),
    width=st.integers(64, 120),
)
@settings(max_examples=40)
def test_mask_and_picture_keep_the_same_view(name, height, width):
    pixels, mask = picture(height, width)
    for level in CORRUPTIONS[name].levels:
        changed, truth = CORRUPTIONS[name].apply(pixels, mask, level, RNG)
        assert changed.dtype == np.uint8
        shape = np.array(truth.shape) / changed.shape[:2]
        assert np.all(np.abs(shape - 2) < 0.15)
        if name in ("rotation", "crop"):
            small = cv2.resize(truth.astype(np.uint8), changed.shape[1::-1]) > 0
            dark = changed[..., 0] < 150
            assert (small & dark).sum() >= 0.6 * (small | dark).sum()
        else:
            assert truth is mask


def test_what_the_classifier_is_not_given_is_said(full_bundle, people):
    data_set = load("csv", people)
    some = select(data_set, full_bundle, "all", limit=2)
    result = robustness(full_bundle, data_set, some, ["rotation"], 1, "")
    assert result["warnings"][-1].startswith("the classifier was not given age, as by ")


@pytest.mark.parametrize("name", ["jpeg", "blur", "noise"])
def test_each_level_is_worse_than_the_one_before(name):
    pixels, mask = picture()
    distances = [
        np.abs(CORRUPTIONS[name].apply(pixels, mask, level, RNG)[0].astype(int) - pixels).mean()
        for level in CORRUPTIONS[name].levels
    ]
    assert distances == sorted(distances)
    assert distances[0] < distances[-1]


def test_light_and_colour_go_where_they_are_told():
    pixels, _ = picture()
    for stops in (-1, 1):
        changed, _ = CORRUPTIONS["light"].apply(pixels, None, stops, RNG)
        assert np.sign(changed.mean() - pixels.mean()) == stops
    warm, _ = CORRUPTIONS["cast"].apply(pixels, None, 1.15, RNG)
    assert warm[..., 0].mean() > pixels[..., 0].mean()
    assert warm[..., 2].mean() < pixels[..., 2].mean()


@pytest.fixture
def data(tmp_path):
    """Six pictures of three lesions, and a file that is no picture."""
    root = tmp_path / "data"
    root.mkdir()
    lines = ["image,mask,diagnosis,lesion_id"]
    for number in range(6):
        pixels, mask = picture()
        cv2.imwrite(str(root / f"p{number}.png"), pixels[..., ::-1] - np.uint8(number))
        cv2.imwrite(str(root / f"p{number}_mask.png"), mask.astype(np.uint8) * 255)
        lines.append(f"p{number}.png,p{number}_mask.png,{('mel', 'nv')[number % 2]},l{number // 2}")
    (root / "bad.png").write_bytes(b"no picture")
    (root / "metadata.csv").write_text("\n".join([*lines, "bad.png,,nv,l9"]) + "\n")
    return root


def test_the_command_writes_curves_a_table_and_a_picture(tiny_bundle, data, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["robustness", "--bundle", str(tiny_bundle), "--data", f"csv={data}"]
    words += [
        "--split",
        "all",
        "--corruptions",
        "blur",
        "crop",
        "--threads",
        "2",
        "--out",
        str(out),
    ]
    assert cli.main(words) == 1  # one picture could not be read
    assert "not read: " in capsys.readouterr().out
    result = json.loads((out / "robustness.json").read_text())
    assert result["schema"] == names.ROBUSTNESS
    assert list(result["curves"]) == ["blur", "crop"]
    assert result["data"]["pictures"] == 6
    assert (result["data"]["subset"], result["commit"]) == ("", commit("+"))
    levels = result["curves"]["blur"]["levels"]
    assert [entry["level"] for entry in levels] == ["none", *CORRUPTIONS["blur"].levels]
    for entry in levels:
        assert 0 <= entry["jaccard"]["low"] <= entry["jaccard"]["high"] <= 1
        difference = entry["jaccard"]["value"] - levels[0]["jaccard"]["value"]
        if entry["level"] != "none":
            assert entry["jaccard_difference"]["value"] == pytest.approx(difference, abs=1e-5)
    assert result["curves"]["crop"]["levels"][0] == levels[0]
    assert (out / "robustness.png").read_bytes().startswith(b"\x89PNG")
    lines = (out / "robustness.csv").read_text().splitlines()
    assert lines[0] == "change,level,measure,value,low,high"
    assert sum(line.startswith("blur,none,jaccard,") for line in lines) == 1
    again = tmp_path / "again"
    words[-3:] = ["1", "--out", str(again)]  # the noise and the order hang on no thread
    assert cli.main(words) == 1
    assert (again / "robustness.csv").read_text() == (out / "robustness.csv").read_text()


@pytest.mark.parametrize("name", ["robustness", "quality"])
def test_pictures_of_one_kind_alone_are_asked_for(name, tiny_bundle, data, tmp_path, capsys):
    """As of `evaluate`: a set of both kinds was measured as one."""
    words = [name, "--bundle", str(tiny_bundle), "--data", f"csv={data}", "--split", "all"]
    assert cli.main([*words, "--modality", "dermoscopic", "--out", str(tmp_path / "out")]) == 2
    assert "csv does not say which of its pictures are dermoscopic" in capsys.readouterr().err
    about = {"name": "milk10k", "part": "test", "subset": "dermoscopic"}
    assert text.part_of(about) == "milk10k, part test (dermoscopic)"


def test_lesions_of_one_patient_are_drawn_together():
    """Sixteen lesions of two pictures each: of four patients, or each of another patient."""
    rng = np.random.default_rng(3)
    records, answers = [], []
    for lesion in range(16):
        patient, moved = lesion // 4, (lesion // 4) % 2
        for number in range(2):
            name = f"{lesion}-{number}"
            records.append(Record(name, None, lesion_id=f"l{lesion}", patient_id=f"p{patient}"))
            risk = rng.uniform(0.4, 0.5) + 0.4 * moved * number
            answers.append(Answer(0.9, risk, "urgent" if risk > 0.7 else "low"))
    widths = []
    for known in (records, [replace(record, patient_id=None) for record in records]):
        numbers, kind = clusters(known)
        groups = np.array([numbers[record.id] for record in known])
        figure = repeats(known, answers, groups)["same_advice"]
        assert figure["value"] == 0.5
        widths.append(figure["high"] - figure["low"])
    assert widths[0] > 1.5 * widths[1]
    assert kind == "lesions"


def test_pictures_that_a_third_one_ties_are_one_cluster(tiny_bundle, tmp_path):
    """The publisher says that a is b and b is c; b is not measured."""
    records = tuple(Record(name, tmp_path, label="nv") for name in "abcd")
    pairs = (("a", "b"), ("b", "c"))
    data_set = DataSet("csv", tmp_path, records, (), "none", same=pairs)
    split = Split("csv", 0, {"train": (), "val": ("b",), "test": ("a", "c", "d")})
    split.save(tmp_path / "split.json")
    selection = select(data_set, Bundle.open(tiny_bundle), "test", tmp_path / "split.json")
    numbers, kind = clusters(selection.records, selection.same)
    assert numbers["a"] == numbers["c"] != numbers["d"]
    assert kind == "lesions"


def test_an_unknown_change_is_one_line(tiny_bundle, data, tmp_path, capsys):
    words = ["robustness", "--bundle", str(tiny_bundle), "--data", f"csv={data}", "--split", "all"]
    assert cli.main([*words, "--corruptions", "fog", "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no corruption 'fog'; there are: jpeg, blur" in line
    assert not (tmp_path / "out").exists()
