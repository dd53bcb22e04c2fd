"""Outline and ABCD measures: geometry that must hold whatever the lesion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dermedge.lesion.features import COLORS, clean, measure


def paint(mask: np.ndarray, tone=(140, 95, 70)) -> np.ndarray:
    picture = np.full((*mask.shape, 3), (225, 185, 165), np.uint8)
    picture[mask] = tone
    return picture


def ellipse(size=(240, 320), centre=(160, 120), axes=(80, 50), angle=0.0, start=0, end=360):
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, centre, axes, angle, start, end, 1, cv2.FILLED)
    return mask.astype(bool)


def blob(seed: int, size=256) -> np.ndarray:
    """A star-shaped region with a random outline."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    radius = 60 + sum(
        rng.uniform(0, 9) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(1, 6)
    )
    points = size / 2 + np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
    return mask.astype(bool)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def test_nothing_found():
    empty = np.zeros((40, 50), np.float32)
    for found in (empty, empty > 0, np.eye(40, 50, dtype=np.float32)[::-1] * (empty + 0.4)):
        lesion = measure(found, paint(empty > 0), 0.5, px_per_mm=3)
        assert not lesion.found
        assert lesion.polygons == ()
        assert lesion.area_px == 0
        assert not lesion.mask.any()
        values = (lesion.asymmetry, lesion.border, lesion.color, lesion.diameter_mm, lesion.box)
        assert values == (None,) * 5


def test_wrong_arguments():
    mask = ellipse()
    with pytest.raises(ValueError, match="does not fit"):
        measure(mask, paint(mask)[:-1])
    for options in ({"scale": 0}, {"px_per_mm": -1}):
        with pytest.raises(ValueError, match="positive"):
            measure(mask, paint(mask), **options)


def test_cleaning_drops_specks_and_fills_holes():
    mask = ellipse()
    dirty = mask.copy()
    dirty[115:125, 150:160] = False
    dirty[5:8, 5:8] = True
    cleaned, contours = clean(dirty)
    assert (cleaned == mask).all()
    assert len(contours) == 1
    two = mask | ellipse(centre=(35, 40), axes=(30, 34))
    assert (clean(two)[0] == two).all()
    assert len(measure(two, paint(two)).polygons) == 2


def test_circle_is_symmetric_and_round():
    mask = ellipse(axes=(70, 70))
    lesion = measure(mask, paint(mask), px_per_mm=10.0)
    assert lesion.asymmetry == 0
    assert lesion.asymmetry_index < 0.02
    assert lesion.border_irregularity < 0.05
    assert lesion.diameter_mm == pytest.approx(14.1, abs=0.2)
    assert lesion.area_px == mask.sum()
    assert lesion.centroid == pytest.approx((160, 120), abs=0.5)


def discs(*places, size=(400, 600)) -> np.ndarray:
    """Filled circles of (x, y, radius)."""
    mask = np.zeros(size, np.uint8)
    for x, y, radius in places:
        cv2.circle(mask, (x, y), radius, 1, cv2.FILLED)
    return mask.astype(bool)


@pytest.mark.parametrize(
    "places",
    [
        [(150, 200, 60), (400, 200, 60)],
        [(150, 120, 60), (400, 280, 60)],
        [(150, 200, 80), (400, 200, 50)],
        [(150, 200, 60), (275, 200, 60)],  # five px apart
        [(120, 120, 50), (400, 120, 50), (260, 330, 50)],
    ],
)
def test_several_discs_are_as_round_and_as_sharp_as_one(places):
    mask = discs(*places)
    lesion = measure(mask, paint(mask), px_per_mm=10)
    assert len(lesion.polygons) == len(places)
    assert lesion.border_irregularity < 0.02
    assert lesion.border == 8
    fading = cv2.GaussianBlur(paint(mask), (0, 0), 20)
    assert measure(mask, fading).border == 0
    # Together: from the far side of one to the far side of another.
    reach = max(
        np.hypot(x - a, y - b) + radius + other
        for x, y, radius in places
        for a, b, other in places
        if (x, y) != (a, b)
    )
    assert lesion.diameter_mm == pytest.approx(reach / 10, abs=0.2)


def test_each_outline_counts_by_its_area():
    star = np.zeros((400, 600), np.uint8)
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    radius = np.where(np.arange(20) % 2, 40, 90)
    points = np.stack([200 + radius * np.cos(angle), 200 + radius * np.sin(angle)], 1)
    cv2.fillPoly(star, [np.rint(points).astype(np.int32)], 1)
    star = star.astype(bool)
    disc = discs((450, 200, 60))
    alone, round_one, both = (
        measure(mask, paint(mask)).border_irregularity for mask in (star, disc, star | disc)
    )
    shares = np.array([star.sum(), disc.sum()]) / (star | disc).sum()
    assert alone > 0.5
    assert both == pytest.approx(shares @ [alone, round_one], abs=0.03)
    # One fades, one ends abruptly: neither speaks for the other.
    picture = cv2.GaussianBlur(paint(disc), (0, 0), 20)
    sharp = discs((130, 200, 60))
    picture[sharp] = (140, 95, 70)
    assert measure(disc | sharp, picture).border == 4


def test_half_disc_and_two_tones_are_not_symmetric():
    half = ellipse(axes=(80, 80), end=180)
    assert measure(half, paint(half)).asymmetry >= 1
    mask = ellipse(axes=(70, 70))
    tones = paint(mask)
    quarter = mask & (np.indices(mask.shape)[1] > 190)
    tones[quarter] = (40, 30, 30)
    lesion = measure(mask, tones)
    assert lesion.asymmetry == 1
    assert lesion.asymmetry_index < 0.02  # of shape alone


def test_sharp_and_fading_border():
    mask = ellipse(axes=(70, 70))
    assert measure(mask, paint(mask)).border == 8
    fading = cv2.GaussianBlur(paint(mask), (0, 0), 20)
    assert measure(mask, fading).border == 0


def test_colours_are_counted():
    mask = ellipse(axes=(70, 70))
    picture = paint(mask, (150, 100, 70))
    assert measure(mask, picture).colors == ("light brown",)
    columns = np.indices(mask.shape)[1]
    picture[mask & (columns < 130)] = (15, 12, 12)
    picture[mask & (columns > 190)] = (90, 105, 125)
    lesion = measure(mask, picture)
    assert lesion.colors == ("light brown", "blue-gray", "black")
    assert lesion.color == 3
    assert set(lesion.colors) <= set(COLORS)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 2.0, 3.7, 0.5]))
def test_polygons_and_box_fit_the_mask_at_full_size(seed, scale):
    mask = blob(seed)
    lesion = measure(mask, paint(mask), scale=scale)
    side = round(256 * scale)
    drawn = np.zeros((side, side), np.uint8)
    cv2.fillPoly(drawn, [np.rint(p).astype(np.int32) for p in lesion.polygons], 1)
    full = cv2.resize(mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_LINEAR)
    assert jaccard(drawn > 0, full > 0) > 0.94
    if scale == 1:
        assert jaccard(drawn > 0, mask) > 0.97
    x, y, width, height = lesion.box
    outside = full.copy()
    outside[y : y + height, x : x + width] = 0
    assert outside.sum() <= 4 * side * 0.02
    assert lesion.area_px == pytest.approx(mask.sum() * scale**2)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0, 360), st.floats(0.6, 1.0), st.booleans())
def test_measures_do_not_depend_on_the_pose(seed, angle, scale, mirrored):
    mask = blob(seed)
    turn = cv2.getRotationMatrix2D((127.5, 127.5), angle, scale)
    moved = cv2.warpAffine(mask.astype(np.uint8) * 255, turn, (256, 256)) > 127
    moved = moved[:, ::-1] if mirrored else moved
    first = measure(mask, paint(mask), px_per_mm=10)
    second = measure(moved, paint(moved), px_per_mm=10 * scale)
    assert second.asymmetry_index == pytest.approx(first.asymmetry_index, abs=0.03)
    assert second.border_irregularity == pytest.approx(first.border_irregularity, abs=0.04)
    assert second.diameter_mm == pytest.approx(first.diameter_mm, rel=0.03)
    assert second.colors == first.colors


@settings(max_examples=60)
@given(st.integers(0, 10_000), *[st.integers(1, 90)] * 4)
def test_a_map_of_any_size_gives_what_it_gives_when_enlarged(seed, height, width, rows, columns):
    rng = np.random.default_rng(seed)
    found = cv2.GaussianBlur(rng.random((rows, columns), np.float32), (0, 0), rng.uniform(0.3, 4))
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    threshold = float(rng.choice(found.ravel()) + 1e-4)
    enlarged = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)
    assume(np.abs(enlarged - threshold).min() > 1e-5)  # else it is a matter of rounding
    first, second = (measure(given, pixels, threshold) for given in (found, enlarged))
    assert (first.mask == second.mask).all()
    assert first.box == second.box
    assert [p.tolist() for p in first.polygons] == [p.tolist() for p in second.polygons]


def test_a_line_of_pixels_has_a_colour():
    for row in (20, 21):
        mask = np.zeros((40, 128), bool)
        mask[row] = True
        assert measure(mask, paint(mask)).color == 1


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60), st.floats(0, 1))
def test_any_map_gives_values_in_range(seed, height, width, threshold):
    rng = np.random.default_rng(seed)
    found = cv2.GaussianBlur(rng.random((height, width), np.float32), (0, 0), rng.uniform(0.3, 4))
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    lesion = measure(found, pixels, threshold)
    assert lesion.mask.shape == (height, width)
    if lesion.found:
        assert 0 <= lesion.asymmetry <= 2
        assert 0 <= lesion.border <= 8
        assert 1 <= lesion.color <= 6
        assert 0 <= lesion.asymmetry_index <= 1
        assert 0 <= lesion.border_irregularity <= 1
        assert all(len(polygon) >= 3 for polygon in lesion.polygons)
