"""Spoilt pictures, and how well the quality gate tells them from good ones."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pictures import gate
from benchmarks.pictures.changes import SPOILINGS, CannotSpoil
from dermedge import cli
from dermedge.data.synthetic import draw


def picture(height: int = 240, width: int = 320) -> tuple[np.ndarray, np.ndarray]:
    """A dark disc on textured skin, and its mask."""
    rng = np.random.default_rng(1)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 1)
    pixels = np.multiply((215, 170, 150), 1 + 0.1 * texture[..., None])
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (width // 2, height // 2), min(height, width) // 4, 1, cv2.FILLED)
    pixels[mask > 0] *= 0.4
    return np.clip(pixels, 0, 255).astype(np.uint8), mask > 0


@given(st.sampled_from(sorted(SPOILINGS)), st.integers(0, 1000))
@settings(max_examples=40)
def test_mask_and_spoilt_picture_show_the_same_view(name, seed):
    pixels, mask = picture()
    for level in SPOILINGS[name].levels:
        spoilt, truth = SPOILINGS[name].apply(pixels, mask, level, np.random.default_rng(seed))
        assert spoilt.dtype == np.uint8
        assert spoilt.shape == (*truth.shape, 3)
        if name in ("shifted", "near", "far", "twins") and truth.any() and not truth.all():
            assert spoilt[truth].mean() < 0.7 * spoilt[~truth].mean()


def test_levels_mean_what_they_say():
    pixels, mask = picture()
    rng = np.random.default_rng(0)
    for share in (0.1, 0.25, 0.5, 0.75):
        _, left = SPOILINGS["shifted"].apply(pixels, mask, share, rng)
        assert 1 - left.sum() / mask.sum() == pytest.approx(share, abs=0.03)
    assert not SPOILINGS["shifted"].apply(pixels, mask, 1, rng)[1].any()
    for share in (0.2, 0.1, 0.05):
        _, small = SPOILINGS["far"].apply(pixels, mask, share, rng)
        extent = max(cv2.boundingRect(small.astype(np.uint8))[2:])
        assert extent == pytest.approx(share * 240, abs=2.5)
    for share in (0.25, 1):
        spoilt, _ = SPOILINGS["glare"].apply(pixels, mask, share, rng)
        blinded = (spoilt.min(axis=2) == 255).sum() / mask.sum()
        assert 0.2 * share < blinded < 1.3 * share  # what lies beyond the frame is lost
    assert SPOILINGS["near"].apply(pixels, mask, 0.6, rng)[1].mean() > 0.95


def test_what_leaves_no_room_is_left_out():
    pixels, mask = picture()
    rng = np.random.default_rng(0)
    everywhere = np.ones_like(mask)
    for name, level, truth in (
        ("shifted", 1, everywhere),
        ("near", 0.4, mask & False),
        ("glare", 0.5, None),
    ):
        with pytest.raises(CannotSpoil):
            SPOILINGS[name].apply(pixels, truth, level, rng)
    _, small = SPOILINGS["far"].apply(pixels, mask, 0.1, rng)
    with pytest.raises(CannotSpoil, match="that small"):
        SPOILINGS["far"].apply(pixels, small, 0.2, rng)


@pytest.fixture
def data(tmp_path):
    """Four drawn pictures of two lesions, and a file that is no picture."""
    root = tmp_path / "data"
    root.mkdir()
    lines = ["image,mask,diagnosis,lesion_id"]
    for number in range(4):
        drawn = draw(number, style="dermoscopy", size=(192, 256), label="nv", artefacts=())
        cv2.imwrite(str(root / f"p{number}.png"), drawn.image[..., ::-1])
        cv2.imwrite(str(root / f"p{number}_mask.png"), drawn.mask.astype(np.uint8) * 255)
        lines.append(f"p{number}.png,p{number}_mask.png,nv,l{number // 2}")
    (root / "bad.png").write_bytes(b"no picture")
    lines.append("bad.png,p0_mask.png,nv,l9")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def test_the_command_writes_figures_a_table_and_a_picture(tiny_bundle, data, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["gate", "--bundle", str(tiny_bundle), "--data", f"csv={data}", "--split", "all"]
    words += ["--threads", "2", "--out", str(out)]
    assert cli.main(words) == 1  # one picture could not be read
    told = capsys.readouterr().out
    assert "not read: " in told
    assert "unusable against unspoilt pictures" in told
    result = json.loads((out / "gate.json").read_text())
    assert result["schema"] == gate.SCHEMA
    assert result["data"]["pictures"] == 4
    assert list(result["spoilings"]) == list(SPOILINGS)
    dark = result["spoilings"]["dark"]["levels"]
    assert [entry["unusable"] for entry in dark] == [False, False, True, True]
    assert dark[-1]["auc"]["value"] == 1
    assert dark[-1]["refused"]["value"] == 1
    blur = result["spoilings"]["blur"]["levels"]
    assert blur[-1]["auc"]["value"] >= blur[0]["auc"]["value"]
    assert 0 <= result["overall"]["auc"]["low"] <= result["overall"]["auc"]["high"] <= 1
    assert result["groups"]["light"]["spoilt"] == 6 * 4
    with (out / "gate.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["what"] for row in rows} == {*SPOILINGS, *gate.GROUPS, "overall", "good"}
    assert (out / "gate.png").read_bytes().startswith(b"\x89PNG")


def test_without_outlines_blur_and_exposure_are_measured(tiny_bundle, data, tmp_path):
    (data / "metadata.csv").write_text("image,diagnosis\np0.png,nv\np1.png,mel\n")
    words = ["gate", "--bundle", str(tiny_bundle), "--data", f"csv={data}", "--split", "all"]
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "gate.json").read_text())
    assert list(result["groups"]) == ["blur", "light"]
    assert result["data"]["with_mask"] == 0
    assert {entry["pictures"] for entry in result["spoilings"]["far"]["levels"]} == {0}
