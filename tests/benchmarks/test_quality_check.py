"""Corrupted pictures, and how well the quality check separates them from good ones."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from benchmarks.corruptions.corruptions import QUALITY_CORRUPTIONS, NotApplicable
from benchmarks.corruptions.quality_check import GROUPS
from benchmarks.report import corruption_plots
from benchmarks.schema import names
from dermedge import cli
from dermedge.data.synthetic import draw

pytestmark = pytest.mark.usefixtures("few_resamples")


def picture(height: int = 240, width: int = 320) -> tuple[np.ndarray, np.ndarray]:
    """A dark disc on textured skin, and its mask."""
    rng = np.random.default_rng(1)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 1)
    pixels = np.multiply((215, 170, 150), 1 + 0.1 * texture[..., None])
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (width // 2, height // 2), min(height, width) // 4, 1, cv2.FILLED)
    pixels[mask > 0] *= 0.4
    return np.clip(pixels, 0, 255).astype(np.uint8), mask > 0


@given(st.sampled_from(sorted(QUALITY_CORRUPTIONS)), st.integers(0, 1000))
@settings(max_examples=40)
def test_mask_and_corrupted_picture_show_the_same_view(name, seed):
    pixels, mask = picture()
    for level in QUALITY_CORRUPTIONS[name].levels:
        corrupted, truth = QUALITY_CORRUPTIONS[name].apply(
            pixels, mask, level, np.random.default_rng(seed)
        )
        assert corrupted.dtype == np.uint8
        assert corrupted.shape == (*truth.shape, 3)
        if name in ("shifted", "near", "far", "twins") and truth.any() and not truth.all():
            assert corrupted[truth].mean() < 0.7 * corrupted[~truth].mean()


def test_levels_mean_what_they_say():
    pixels, mask = picture()
    rng = np.random.default_rng(0)
    for share in (0.1, 0.25, 0.5, 0.75):
        _, left = QUALITY_CORRUPTIONS["shifted"].apply(pixels, mask, share, rng)
        assert 1 - left.sum() / mask.sum() == pytest.approx(share, abs=0.03)
    assert not QUALITY_CORRUPTIONS["shifted"].apply(pixels, mask, 1, rng)[1].any()
    for share in (0.2, 0.1, 0.05):
        _, small = QUALITY_CORRUPTIONS["far"].apply(pixels, mask, share, rng)
        extent = max(cv2.boundingRect(small.astype(np.uint8))[2:])
        assert extent == pytest.approx(share * 240, abs=2.5)
    for share in (0.25, 1):
        corrupted, _ = QUALITY_CORRUPTIONS["glare"].apply(pixels, mask, share, rng)
        blinded = (corrupted.min(axis=2) == 255).sum() / mask.sum()
        assert 0.2 * share < blinded < 1.3 * share  # what lies beyond the frame is lost
    assert QUALITY_CORRUPTIONS["near"].apply(pixels, mask, 0.6, rng)[1].mean() > 0.95


def test_what_leaves_no_room_is_left_out():
    pixels, mask = picture()
    rng = np.random.default_rng(0)
    everywhere = np.ones_like(mask)
    for name, level, truth in (
        ("shifted", 1, everywhere),
        ("near", 0.4, mask & False),
        ("glare", 0.5, None),
    ):
        with pytest.raises(NotApplicable):
            QUALITY_CORRUPTIONS[name].apply(pixels, truth, level, rng)
    _, small = QUALITY_CORRUPTIONS["far"].apply(pixels, mask, 0.1, rng)
    with pytest.raises(NotApplicable, match="that small"):
        QUALITY_CORRUPTIONS["far"].apply(pixels, small, 0.2, rng)


@pytest.fixture
def data(tmp_path):
    """Two drawn pictures of two lesions, and a file that is no picture."""
    root = tmp_path / "data"
    root.mkdir()
    lines = ["image,mask,diagnosis,lesion_id"]
    for number in range(2):
        drawn = draw(number, style="dermoscopy", size=(192, 256), label="nv", artefacts=())
        cv2.imwrite(str(root / f"p{number}.png"), drawn.image[..., ::-1])
        cv2.imwrite(str(root / f"p{number}_mask.png"), drawn.mask.astype(np.uint8) * 255)
        lines.append(f"p{number}.png,p{number}_mask.png,nv,l{number}")
    (root / "bad.png").write_bytes(b"no picture")
    (root / "bad_mask.png").write_bytes((root / "p0_mask.png").read_bytes())
    lines.append("bad.png,bad_mask.png,nv,l9")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def test_the_command_writes_figures_a_table_and_a_picture(tiny_bundle, data, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["quality", "--bundle", str(tiny_bundle), "--data", f"csv={data}", "--split", "all"]
    words += ["--threads", "2", "--out", str(out)]
    assert cli.main(words) == 1  # one picture could not be read
    told = capsys.readouterr().out
    assert "not read: " in told
    assert "unusable against uncorrupted pictures" in told
    result = json.loads((out / "quality.json").read_text())
    assert result["schema"] == names.QUALITY
    assert result["data"]["pictures"] == 2
    assert list(result["corruptions"]) == list(QUALITY_CORRUPTIONS)
    dark = result["corruptions"]["dark"]["levels"]
    assert [entry["unusable"] for entry in dark] == [False, False, True, True]
    assert dark[-1]["auc"]["value"] == 1
    assert dark[-1]["refused"]["value"] == 1
    blur = result["corruptions"]["blur"]["levels"]
    assert blur[-1]["auc"]["value"] >= blur[0]["auc"]["value"]
    assert 0 <= result["overall"]["auc"]["low"] <= result["overall"]["auc"]["high"] <= 1
    assert result["groups"]["light"]["corrupted"] == 6 * 2
    with (out / "quality.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["what"] for row in rows} == {*QUALITY_CORRUPTIONS, *GROUPS, "overall", "good"}
    assert (out / "quality.png").read_bytes().startswith(b"\x89PNG")


def test_without_outlines_blur_and_exposure_are_measured(tiny_bundle, data, tmp_path):
    (data / "metadata.csv").write_text("image,diagnosis\np0.png,nv\np1.png,mel\n")
    words = ["quality", "--bundle", str(tiny_bundle), "--data", f"csv={data}", "--split", "all"]
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "quality.json").read_text())
    assert list(result["groups"]) == ["blur", "light"]
    assert result["data"]["with_mask"] == 0
    assert {entry["pictures"] for entry in result["corruptions"]["far"]["levels"]} == {0}


def test_gate_is_the_old_name_of_quality(tiny_bundle, data, tmp_path, capsys):
    (data / "metadata.csv").write_text("image,diagnosis\np0.png,nv\n")
    words = ["gate", "--bundle", str(tiny_bundle), "--data", f"csv={data}", "--split", "all"]
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    notices = [x for x in capsys.readouterr().err.splitlines() if x.startswith("dermedge: ")]
    assert notices == ["dermedge: 'gate' is called 'quality' now; the old name will go"]
    assert json.loads((tmp_path / "gate.json").read_text())["data"]["pictures"] == 1
    assert cli.main(["--help"]) == 0
    names_of_commands = [line.split()[:1] for line in capsys.readouterr().out.splitlines()]
    assert ["quality"] in names_of_commands
    assert ["gate"] not in names_of_commands


def test_a_figure_without_limits_is_drawn_without_a_bar():
    levels = [{"auc": {"value": 0.9, "low": 0.8, "high": 1.0}},
              {"auc": {"value": 1.0, "low": None, "high": None}},
              {"auc": {"value": None, "low": None, "high": None}}]  # fmt: skip
    axes = Figure().subplots()
    drawn = corruption_plots._against_levels(axes, levels, "auc", "AUC", "k", "-", "o")
    assert drawn.lines[0].get_xydata().tolist() == [[0, 0.9], [1, 1.0]]
    (bars,) = drawn.lines[2]
    assert [bar.tolist() for bar in bars.get_segments() if len(bar)] == [[[0, 0.8], [0, 1.0]]]
