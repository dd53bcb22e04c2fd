"""One preprocessing: exact geometry, colour constancy and hair removal that do what they say."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermedge.image.preprocess import (
    Placement,
    Preprocessing,
    downsampled,
    hair_mask,
    prepare,
    remove_hair,
    resized,
    shades_of_gray,
    working,
)

sides = st.integers(16, 1500)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(16, 96), st.integers(0, 2**16))
@settings(max_examples=60)
def test_halving_first_gives_the_mean_over_the_same_area(height, width, size, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    image = cv2.resize(coarse, (4 * width, 4 * height), interpolation=cv2.INTER_LINEAR)
    placement = Placement(4 * height, 4 * width, size)
    (rows, columns), (top, left) = placement.scaled, placement.offset
    if rows > 4 * height or columns > 4 * width:
        return
    small = placement.place(image)[top : top + rows, left : left + columns]
    at_once = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    apart = np.abs(small.astype(int) - at_once)
    # Rounded once more a halving; and where the halves' edges are not those of the areas, a share
    # of what neighbours differ by goes to the wrong one.
    steps = [np.abs(np.diff(at_once.astype(int), axis=axis)) for axis in (0, 1)]
    assert apart.mean() <= 1 + 0.1 * sum(step.mean() for step in steps if step.size)
    left = downsampled(image, rows, columns).shape
    if left[0] % rows == 0 and left[1] % columns == 0:  # no area is cut by a halving's edge
        assert apart.max() <= 2


@pytest.mark.parametrize("shape", [(720, 1280), (1512, 2016), (1200, 1600), (450, 600)])
def test_networks_get_the_same_pixels_from_a_working_copy(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    copy = working(image, 256)
    assert max(copy.shape) < 1024
    for size in (96, 192, 224, 256):
        whole, reduced = (prepare(one, Preprocessing(size=size))[0] for one in (image, copy))
        assert (whole == reduced).all()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 120), st.integers(1, 120))
@settings(max_examples=60)
def test_shrinking_keeps_place_and_brightness(height, width, rows, columns):
    y, x = np.indices((height, width), np.float32)
    ramp = (100 * (x + 0.5) / width + 50 * (y + 0.5) / height).astype(np.float32)
    small = resized(ramp, rows, columns)
    assert small.shape == (rows, columns)
    y, x = (np.indices((rows, columns)) + 0.5) / np.array([rows, columns])[:, None, None]
    # An odd row or column is left out of a halving; beyond the outermost centres nothing is known.
    slack = 160 * sum(1 / min(new, old) for new, old in ((rows, height), (columns, width)))
    assert np.abs(small - 100 * x - 50 * y).max() <= slack


@given(height=sides, width=sides, size=st.integers(16, 512), data=st.data())
def test_points_come_back_exactly(height, width, size, data):
    placement = Placement(height, width, size)
    point = np.array(
        [[data.draw(st.floats(0, width)), data.draw(st.floats(0, height))] for _ in range(3)]
    )
    inside = placement.to_model(point)
    assert (inside >= -1e-6).all()
    assert (inside <= size + 1e-6).all()
    np.testing.assert_allclose(placement.to_image(inside), point, atol=1e-9 * max(height, width))


@settings(max_examples=40)
@given(height=st.integers(60, 700), width=st.integers(60, 700), size=st.sampled_from([96, 256]))
def test_a_mask_comes_back(height, width, size):
    """A disc goes to the network's input and back; only its rim may be lost to the resolution."""
    placement = Placement(height, width, size)
    radius = 0.3 * min(height, width)
    y, x = np.mgrid[:height, :width] + 0.5
    mask = (x - 0.45 * width) ** 2 + (y - 0.55 * height) ** 2 < radius**2
    back = placement.restore(placement.place_mask(mask).astype(np.float32)) >= 0.5
    jaccard = (mask & back).sum() / (mask | back).sum()
    pixel = max(height, width) / size
    assert jaccard > 1 - 2.2 * max(pixel, 1) / radius
    # No shift: a ramp along either side stays as it is, but for the ends. Of a small disc the rim
    # alone moves the centre of gravity.
    for axis, ramp in enumerate(np.mgrid[:height, :width].astype(np.float32)):
        off = np.moveaxis(np.abs(placement.restore(placement.place(ramp)) - ramp), axis, 0)
        end = math.ceil(2 * max(ramp.shape[axis] / placement.scaled[axis], 1))
        assert off[end:-end].max() < 0.1 * max(pixel, 1)


@given(height=sides, width=sides, size=st.integers(16, 300))
def test_aspect_is_kept_and_the_picture_fills_one_side(height, width, size):
    placement = Placement(height, width, size)
    rows, columns = placement.scaled
    assert max(rows, columns) == size
    scale = size / max(height, width)
    assert abs(rows - height * scale) <= 0.5 or rows == 1
    assert abs(columns - width * scale) <= 0.5 or columns == 1


def test_content_is_where_placement_says():
    image = np.full((90, 160, 3), 200, np.uint8)
    square, placement = prepare(image, Preprocessing(size=64))
    assert square.shape == (64, 64, 3)
    assert square.flags.c_contiguous
    assert placement.scaled == (36, 64)
    assert (square[14:50] == 200).all()
    assert (square[:14] == 0).all()
    assert (square[50:] == 0).all()


def test_prepare_never_writes_to_its_input():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    before = image.copy()
    prepare(image, Preprocessing(size=64, color_constancy=True, hair_removal=True))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("image", [np.zeros((9, 9)), np.zeros((9, 9, 4), np.uint8)])
def test_wrong_arrays_are_refused(image):
    with pytest.raises(ValueError, match="uint8"):
        prepare(image, Preprocessing())


@pytest.mark.parametrize(
    "values",
    [{"size": 8}, {"size": 256.0}, {"minkowski_norm": 0}, {"hair_removal": 1}, {"blur": 2}],
)
def test_wrong_settings_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Preprocessing.from_dict(values)


@given(cast=st.tuples(*[st.floats(0.55, 1.0)] * 3), seed=st.integers(0, 9))
def test_color_constancy_takes_a_color_cast_away(cast, seed):
    rng = np.random.default_rng(seed)
    scene = rng.integers(20, 230, (40, 40, 3)).astype(np.float64)
    seen = np.rint(scene * cast).astype(np.uint8)
    plain = shades_of_gray(scene.astype(np.uint8)).astype(np.float64)
    corrected = shades_of_gray(seen).astype(np.float64)
    ratios = corrected.mean((0, 1)) / plain.mean((0, 1))
    # The brightness may differ, the colour may not.
    assert ratios.max() / ratios.min() < 1.03


def test_color_constancy_keeps_gray_and_black():
    gray = np.full((8, 8, 3), 120, np.uint8)
    np.testing.assert_array_equal(shades_of_gray(gray), gray)
    black = np.zeros((8, 8, 3), np.uint8)
    np.testing.assert_array_equal(shades_of_gray(black), black)


def _skin_with_hair():
    rng = np.random.default_rng(3)
    skin = np.clip(rng.normal([205, 160, 140], 3, (192, 256, 3)), 0, 255).astype(np.uint8)
    lesion = np.zeros(skin.shape[:2], np.uint8)
    cv2.ellipse(lesion, (130, 96), (48, 36), 20, 0, 360, 1, -1)
    skin[lesion > 0] = (110, 70, 55)
    clean, hair = skin.copy(), np.zeros(skin.shape[:2], np.uint8)
    for start, end in (((5, 20), (250, 60)), ((30, 185), (200, 5)), ((60, 90), (250, 150))):
        cv2.line(skin, start, end, (35, 25, 22), 2, cv2.LINE_AA)
        cv2.line(hair, start, end, 1, 2)
    return skin, clean, hair > 0, lesion > 0


def test_hair_is_found_and_removed_and_the_lesion_stays():
    skin, clean, hair, lesion = _skin_with_hair()
    found = hair_mask(skin)
    on_skin = hair & ~lesion
    assert found[on_skin].mean() > 0.9
    assert not hair_mask(clean).any()
    cleaned = remove_hair(skin).astype(int)
    assert (
        np.abs(cleaned - clean)[on_skin].mean()
        < 0.2 * np.abs(skin - clean.astype(int))[on_skin].mean()
    )
    inside = cv2.erode(lesion.astype(np.uint8), np.ones((9, 9))) > 0
    assert np.abs(cleaned - clean)[inside].mean() < 6
