"""Printed card, coins and rulers: the right scale, or none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.corruptions.scales import scene
from dermedge import cli
from dermedge.data.synthetic import draw
from dermedge.image.read import read_image
from dermedge.lesion import scale
from dermedge.lesion.scale import ScaleError, find

SEEDS = st.integers(0, 100_000)


def worst(kind: str, seed: int, tilt: float) -> float | None:
    """The worst error of a drawn scene, None where the reference was refused."""
    drawn = scene(kind, seed, tilt)
    try:
        found = find(drawn.pixels, drawn.reference)
    except ScaleError:
        return None
    return float(np.abs(drawn.errors(found)).max())


@given(SEEDS, st.floats(0, 30))
@settings(max_examples=40, derandomize=True)
def test_a_card_gives_the_right_scale_or_none(seed, tilt):
    error = worst("card", seed, tilt)
    assert error is None or error < 0.01


@given(SEEDS)
@settings(max_examples=40, derandomize=True)
def test_a_coin_gives_the_right_scale_or_none(seed):
    error = worst("coin", seed, 10)
    assert error is None or error < 0.03


@pytest.mark.slow
@given(SEEDS)
@settings(max_examples=10, derandomize=True)
def test_a_ruler_gives_the_right_scale_or_none(seed):
    error = worst("ruler", seed, 3)
    assert error is None or error < 0.03


@pytest.mark.parametrize(("kind", "least"), [("card", 9), ("coin", 7)])
def test_most_references_are_found(kind, least):
    assert sum(worst(kind, seed, 8) is not None for seed in range(10)) >= least


def test_a_ruler_seen_from_above_is_found():
    errors = [error for seed in range(3) if (error := worst("ruler", seed, 2)) is not None]
    assert errors
    assert max(errors) < 0.03


def test_coins_are_as_large_as_their_mints_state():
    """Of the European Central Bank, the United States Mint and the Royal Mint; mm."""
    assert list(scale.COINS.values()) == [
        *(16.25, 18.75, 21.25, 19.75, 22.25, 24.25, 23.25, 25.75),
        *(19.05, 21.21, 17.91, 24.26),
        *(20.3, 25.9, 18.0, 24.5),
    ]


@pytest.mark.parametrize("reference", ["card", "coin-1-euro", "ruler"])
@pytest.mark.parametrize("seed", range(3))
def test_skin_without_a_reference_has_no_scale(reference, seed):
    drawn = draw(seed, style="phone", size=(360, 480), artefacts=("hair",), label="nv")
    with pytest.raises(ScaleError):
        find(drawn.image, reference)


def test_a_dermoscopes_round_view_is_no_coin():
    """It was taken for one, and drawn over."""
    round_view = cv2.circle(np.zeros((480, 640, 3), np.uint8), (300, 240), 130, (1, 1, 1), -1)
    skin = draw(0, style="dermoscopy", size=(480, 640), label="nv").image
    with pytest.raises(ScaleError, match="no coin"):
        find(cv2.GaussianBlur(skin * round_view, (0, 0), 2), "coin-1-euro")


def test_real_pictures_without_a_coin_have_no_scale(shared_data):
    paths = sorted((shared_data / "PAD-UFES-20" / "images").rglob("*.jpg"))[::30]
    paths += sorted((shared_data / "HAM10000").glob("HAM10000_images_*/*.jpg"))[::400]
    found = 0
    for path in paths:
        for reference in ("card", "coin-1-euro"):
            try:
                find(read_image(path).pixels, reference)
            except ScaleError:
                continue
            found += 1
    assert found <= 0.02 * len(paths)


@pytest.mark.parametrize("size", [(16, 16), (16, 1000), (2000, 40), (20, 64), (31, 25), (8192, 2)])
def test_a_picture_too_narrow_for_a_reference_has_no_scale(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for reference in ("card", "ruler", "coin-1-euro"):
        with pytest.raises(ScaleError, match="found"):
            find(image, reference)


def test_what_is_amiss_is_told():
    with pytest.raises(ScaleError, match="there are: card, ruler, coin-1-cent"):
        find(np.zeros((64, 64, 3), np.uint8), "penny")
    drawn = scene("card", 3, 0)
    half = drawn.pixels.copy()
    half[:, : half.shape[1] // 2] = 150
    with pytest.raises(ScaleError, match="of the size card's four squares"):
        find(half, "card")
    flat = cv2.resize(drawn.pixels, None, fx=1.0, fy=0.55, interpolation=cv2.INTER_AREA)
    with pytest.raises(ScaleError, match="straight above"):
        find(flat, "card")


def test_the_card_is_covered_but_not_its_hole():
    drawn = scene("card", 5, 10)
    found = find(drawn.pixels, "card")
    middle = drawn.ends.reshape(-1, 2).mean(axis=0).round().astype(int)
    assert not found.cover[middle[1], middle[0]]
    share = found.cover.sum() / found.px_per_mm(tuple(middle)) ** 2
    assert share == pytest.approx(64**2 - np.pi * 15**2, rel=0.06)
    plain = found.inpainted(drawn.pixels)
    # Neither black squares nor white paper are left.
    assert plain[found.cover].std() < 0.5 * drawn.pixels[found.cover].std()
    np.testing.assert_array_equal(plain[middle[1], middle[0]], drawn.pixels[middle[1], middle[0]])


def test_extent_follows_the_slant():
    drawn = scene("card", 8, 25)
    found = find(drawn.pixels, "card")
    angle = np.linspace(0, 2 * np.pi, 60)
    circle = scale.CARD / 2 + 5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    outline = cv2.perspectiveTransform(circle.reshape(-1, 1, 2), np.linalg.inv(found.to_mm))
    expected = 10 + 1 / found.px_per_mm(tuple(outline.mean(axis=0)[0]))
    assert found.extent(outline[:, 0]) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("paper", "width"), [("a4", 210), ("letter", 215.9)])
def test_the_printed_card_has_its_true_size(tmp_path, paper, width):
    """Read back from the PDF: its squares, drawn, are found at the scale of the page."""
    from pypdf import PdfReader

    out = tmp_path / "card.pdf"
    assert cli.main(["card", "--out", str(out), "--paper", paper]) == 0
    reader = PdfReader(out)
    (page,) = reader.pages
    assert reader.trailer["/Root"]["/ViewerPreferences"]["/PrintScaling"] == "/None"
    assert "not a diagnosis" in page.extract_text()
    point = 25.4 / 72  # mm
    assert float(page.mediabox.width) * point == pytest.approx(width, abs=0.01)
    density = 6.0  # px per mm
    drawn = np.full((round(float(page.mediabox.height) * point * density), 1300, 3), 255, np.uint8)
    for line in page.get_contents().get_data().decode("latin-1").splitlines():
        words = line.split()
        if words[-2:] != ["re", "f"]:
            continue
        x, y, wide, high = (float(word) * point * density for word in words[:4])
        corners = [(x, len(drawn) - y), (x + wide, len(drawn) - y - high)]
        cv2.rectangle(drawn, *(tuple(round(v) for v in c) for c in corners), (0, 0, 0), cv2.FILLED)
    found = find(drawn, "card")
    middle = np.argwhere(found.cover).mean(axis=0)[::-1]
    assert found.px_per_mm(tuple(middle)) == pytest.approx(density, rel=0.005)


def test_a_card_that_is_no_pdf_is_one_line(tmp_path, capsys):
    assert cli.main(["card", "--out", str(tmp_path / "card.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ".pdf" in line
