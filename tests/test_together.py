"""Several pictures of one lesion, and pictures with a reference beside the lesion."""

from __future__ import annotations

import json
from importlib.resources import files

import cv2
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from benchmarks.corruptions.scales import scene
from dermedge import cli
from dermedge.bundle.bundle import Bundle
from dermedge.combine import combine
from dermedge.image.read import write_png
from dermedge.lesion.scale import find

VALIDATOR = Draft202012Validator(
    json.loads(files("dermedge").joinpath("analysis.schema.json").read_text())
)


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    return Bundle.open(tiny_bundle).manifest


def analysis(manifest, risk: float, triage: str = "low", sha256: str = "0" * 64) -> dict:
    return {
        "probabilities": {label: risk if label == "mel" else 0.0 for label in manifest.labels}
        | {"nv": 1 - risk},
        "malignancy": risk,
        "triage": triage,
        "versions": {"bundle_sha256": sha256},
    }


def test_the_mean_is_judged_by_the_thresholds(manifest):
    analyses = [analysis(manifest, 0.3), analysis(manifest, 0.6, "see a doctor")]
    common = combine(analyses, manifest)
    assert common.malignancy == pytest.approx(0.45)
    assert common.triage == "see a doctor"  # from 0.4 on
    assert (common.lowest, common.highest, common.agreed) == (0.3, 0.6, False)
    assert common.likely == "nv"
    assert sum(common.probabilities.values()) == pytest.approx(1)
    VALIDATOR.validate(common.to_json())
    # As a database gives it back that orders keys.
    backwards = [
        {**one, "probabilities": dict([*one["probabilities"].items()][::-1])} for one in analyses
    ]
    assert combine(backwards, manifest) == common


def test_refused_pictures_say_nothing(manifest):
    told = [analysis(manifest, 0.1), analysis(manifest, 0.9, "retake"), analysis(manifest, 0.2)]
    common = combine(told, manifest)
    assert (common.pictures, common.used) == (3, 2)
    assert common.malignancy == pytest.approx(0.15)
    assert common.agreed is True
    none = combine(told[1:2], manifest)
    assert none.triage == "retake"
    assert none.malignancy is None
    assert none.probabilities == {}
    VALIDATOR.validate(none.to_json())


def test_a_picture_for_the_size_is_not_in_the_mean(manifest):
    """A card, ruler or coin beside the lesion shifts the risk."""
    found = {"reference": "card", "px_per_mm": 9.5, "reason": ""}
    lost = {"reference": "card", "px_per_mm": None, "reason": "not found"}
    given = {"reference": "given", "px_per_mm": 9.5, "reason": ""}
    card = {**analysis(manifest, 0.9, "urgent"), "scale": found}
    others = [{**analysis(manifest, 0.1), "scale": scale} for scale in (None, lost, given)]
    common = combine([card, *others], manifest)
    assert (common.pictures, common.used, common.highest) == (4, 3, 0.1)
    refused = analysis(manifest, 0.1, "retake")
    assert combine([card, refused], manifest).malignancy == pytest.approx(0.9)


def test_a_picture_that_cannot_be_read_is_counted(tiny_bundle, pictures, tmp_path, capsys):
    (tmp_path / "cut.png").write_bytes(b"no picture")
    names = [*pictures, str(tmp_path / "cut.png")]
    words = ["analyze", *names, "--bundle", str(tiny_bundle), "--combine"]
    assert cli.main([*words, "--json"]) == 1
    common = json.loads(capsys.readouterr().out.splitlines()[-1])["together"]
    assert (common["pictures"], common["used"]) == (3, 2)
    assert cli.main(words) == 1
    assert "1 of 3 not in the mean: not readable," in capsys.readouterr().out


def test_what_does_not_belong_together_is_refused(manifest):
    with pytest.raises(ValueError, match="no analyses"):
        combine([], manifest)
    with pytest.raises(ValueError, match="different bundles"):
        combine([analysis(manifest, 0.1), analysis(manifest, 0.1, sha256="1" * 64)], manifest)
    other = analysis(manifest, 0.1)
    other["probabilities"] = {"mel": 0.1, "nv": 0.9}
    with pytest.raises(ValueError, match="another bundle"):
        combine([other], manifest)


@pytest.fixture
def pictures(tmp_path):
    """One lesion, twice."""
    rng = np.random.default_rng(0)
    paths = []
    for number, gray in enumerate((60, 66)):
        texture = cv2.GaussianBlur(rng.normal(0, 1, (300, 400)).astype(np.float32), (0, 0), 1.2)
        pixels = np.multiply((225, 180, 160), 1 + 0.08 * texture[..., None])
        spot = np.zeros((300, 400), np.uint8)
        cv2.circle(spot, (200, 150), 70, 1, cv2.FILLED)
        pixels[spot > 0] *= gray / 160
        paths.append(tmp_path / f"p{number}.png")
        write_png(paths[-1], np.clip(pixels, 0, 255).astype(np.uint8))
    return [str(path) for path in paths]


def test_analyze_together(tiny_bundle, pictures, capsys):
    words = ["analyze", *pictures, "--bundle", str(tiny_bundle), "--combine"]
    assert cli.main([*words, "--json"]) == 0
    *each, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    for line in (*each, last):
        VALIDATOR.validate(line)
    assert len(each) == 2
    common = last["together"]
    assert common["used"] == 2
    assert common["malignancy"] == pytest.approx(np.mean([a["malignancy"] for a in each]), abs=1e-5)
    assert cli.main(words) == 0
    first = capsys.readouterr()
    assert "together: " in first.out
    assert cli.main([*words[:-1], "--together"]) == 0  # its name in 0.1.0
    again = capsys.readouterr()
    assert (again.out, again.err) == (
        first.out,
        first.err + "dermedge: --together is now called --combine\n",
    )


def test_analyze_with_a_card(tiny_bundle, tmp_path, capsys):
    """The hole is 30 mm wide; a spot of known size lies in it."""
    drawn = scene("card", 11, 8)
    to_px = np.linalg.inv(find(drawn.pixels, "card").to_mm)
    angle = np.linspace(0, 2 * np.pi, 90)
    circle = 32 + 6 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = cv2.perspectiveTransform(circle.reshape(-1, 1, 2), to_px)
    middle = drawn.ends.reshape(-1, 2).mean(axis=0)
    cv2.circle(drawn.pixels, tuple(int(v) for v in middle), 110, (205, 165, 150), cv2.FILLED)
    cv2.fillPoly(drawn.pixels, [np.rint(points).astype(np.int32)], (70, 40, 35))
    path = tmp_path / "card.png"
    pixels = np.clip(drawn.pixels.astype(float) * 1.4, 0, 255).astype(np.uint8)
    write_png(path, pixels)
    words = ["analyze", str(path), "--bundle", str(tiny_bundle), "--json"]
    assert cli.main([*words, "--reference", "card"]) == 0
    found = json.loads(capsys.readouterr().out)
    VALIDATOR.validate(found)
    assert found["scale"]["reason"] == ""
    # A px of the tiny segmenter is 2 mm here.
    assert found["abcd"]["diameter_mm"] == pytest.approx(12, abs=1.5)
    assert cli.main([*words, "--reference", "coin-1-euro"]) == 0
    lost = json.loads(capsys.readouterr().out)
    VALIDATOR.validate(lost)
    assert lost["scale"]["px_per_mm"] is None
    assert lost["scale"]["reason"]
    assert lost["abcd"]["diameter_mm"] is None


def test_a_lesion_that_reaches_under_the_card_is_cut_off(tiny_bundle, tmp_path, capsys):
    drawn = scene("card", 11, 8)
    middle = drawn.ends.reshape(-1, 2).mean(axis=0)
    pixels = np.clip(drawn.pixels.astype(float) * 1.4, 0, 255).astype(np.uint8)
    hole = ~find(drawn.pixels, "card").cover
    spot = np.zeros(hole.shape, np.uint8)
    cv2.circle(spot, tuple(int(v) for v in middle), 300, 1, cv2.FILLED)
    outer = np.hypot(*(np.indices(hole.shape)[::-1] - middle[:, None, None])) > 180
    pixels[(spot > 0) & hole & ~outer] = (70, 40, 35)
    path = tmp_path / "card.png"
    write_png(path, pixels)
    words = ["analyze", str(path), "--bundle", str(tiny_bundle), "--json", "--reference", "card"]
    assert cli.main(words) == 0
    assert "cut_off" in json.loads(capsys.readouterr().out)["quality"]["reasons"]


def test_without_a_reference_the_size_is_unknown(tiny_bundle, pictures, capsys):
    assert cli.main(["analyze", pictures[0], "--bundle", str(tiny_bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scale"] is None
    assert found["abcd"]["diameter_mm"] is None


@pytest.mark.parametrize(
    ("words", "told"),
    [(("--reference", "shilling"), "name one of card, ruler"),
     (("--reference", "card", "--px-per-mm", "3"), "give one"),
     (("--px-per-mm", "1e-310", "--json"), "must be 0.01 to 100000"),
     (("--px-per-mm", "nan"), "must be 0.01 to 100000")],
)  # fmt: skip
def test_wrong_references_are_one_line(tiny_bundle, pictures, capsys, words, told):
    assert cli.main(["analyze", pictures[0], "--bundle", str(tiny_bundle), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
