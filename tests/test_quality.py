"""Good pictures pass, spoilt ones are told apart, whatever the resolution and the skin."""

from __future__ import annotations

import json
from importlib.resources import files

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermedge.image.read import read_image
from dermedge.lesion.quality import LIMITS, TITLES, assess


def skin(tone=(225, 180, 160), size=(300, 400)) -> np.ndarray:
    """Skin-like texture with a darker spot: uint8 RGB."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(0, 1, size).astype(np.float32), (0, 0), 1.2)
    picture = np.array(tone, np.float32) * (1 + 0.08 * texture[..., None])
    picture[spot(size)] *= 0.6
    return np.clip(picture, 0, 255).astype(np.uint8)


def spot(size=(300, 400), centre=(0.5, 0.5), radius=0.2) -> np.ndarray:
    y, x = np.indices(size)
    distance = np.hypot(x - centre[0] * size[1], y - centre[1] * size[0])
    return distance < radius * min(size)


def spoilt(picture: np.ndarray) -> dict[str, np.ndarray]:
    values = picture.astype(np.float32)
    sigma = 0.03 * max(picture.shape)
    # Nothing so fine is left that half of the pixels a side would not show it.
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    half = cv2.GaussianBlur(half, (0, 0), sigma / 2)
    return {
        "too_blurred": cv2.resize(half, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC),
        "too_dark": np.rint(values * 0.2).astype(np.uint8),
        "too_bright": np.clip(values * 3, 0, 255).astype(np.uint8),
    }


@pytest.mark.parametrize("tone", [(225, 180, 160), (160, 110, 80), (98, 66, 50), (80, 52, 40)])
def test_skin_of_every_tone_passes(tone):
    quality = assess(skin(tone), spot())
    assert quality.ok
    assert quality.reasons == ()


@pytest.mark.parametrize("reason", ["too_blurred", "too_dark", "too_bright"])
def test_spoilt_pictures(reason):
    assert reason in assess(spoilt(skin())[reason], spot()).reasons


@pytest.mark.parametrize("tone", [(60, 140, 70), (60, 90, 190), (128, 128, 128)])
def test_not_skin(tone):
    assert assess(skin(tone)).reasons == ("not_skin",)


def test_what_the_mask_tells():
    picture = skin()
    assert assess(picture, np.zeros((300, 400), bool)).reasons == ("no_lesion",)
    assert assess(picture, spot(radius=0.02)).reasons == ("too_far",)
    half = np.zeros((300, 400), bool)
    half[:, :200] = True
    assert assess(picture, half).reasons == ("cut_off",)
    assert assess(picture, spot(radius=0.65)).reasons[0] == "cut_off"
    assert "too_near" in assess(picture, spot(radius=0.65)).reasons
    assert assess(picture, spot(centre=(0.5, 0.195))).ok  # touches the frame a little
    with pytest.raises(ValueError, match="does not fit"):
        assess(picture, np.zeros((30, 40), bool))


def test_what_the_map_tells():
    picture, mask = skin(), spot()
    sure = mask.astype(np.float32)
    assert assess(picture, mask, sure).ok
    assert assess(picture, mask, 0.7 * sure).reasons == ("no_lesion",)  # guessed, not seen
    sure[spot(centre=(0.85, 0.2), radius=0.15)] = 1
    assert assess(picture, mask, sure).reasons == ("several_lesions",)
    small = cv2.resize(sure, (64, 48), interpolation=cv2.INTER_AREA)
    assert assess(picture, mask, small).reasons == ("several_lesions",)


def test_hair_is_told_but_never_refuses():
    picture = skin()
    rng = np.random.default_rng(0)
    for _ in range(60):
        start, end = rng.integers(0, (400, 300), (2, 2)).tolist()
        cv2.line(picture, start, end, (50, 40, 35), 1, cv2.LINE_AA)
    quality = assess(picture, spot())
    assert quality.reasons == ("hair",)
    assert quality.usable
    assert not quality.ok


def test_what_refuses_goes_before_advice():
    dark = np.rint(skin() * 0.2).astype(np.uint8)
    quality = assess(dark, spot(radius=0.04))
    assert quality.reasons == ("too_dark", "too_far")
    assert quality.refused == 1
    assert not quality.usable
    assert quality.scores["too_dark"] > 1
    assert "not_skin" not in quality.scores  # colours say nothing in the dark


@given(
    st.integers(16, 90),
    st.integers(16, 90),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_no_picture_whatever_fails(height, width, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, rng.integers(1, 257), (height, width, 3)).astype(np.uint8)
    probability = rng.random((height, width)).astype(np.float32) ** rng.integers(1, 30)
    quality = assess(pixels, probability > 0.5, probability)
    assert all(np.isfinite(score) for score in quality.scores.values())
    assert set(quality.reasons) == {name for name, score in quality.scores.items() if score >= 1}
    assert quality.ok == (not quality.reasons)


def test_every_reason_has_advice_a_limit_and_a_place_in_the_schema():
    schema = json.loads(files("dermedge").joinpath("analysis.schema.json").read_text())
    assert set(TITLES) == set(LIMITS) == set(schema["$defs"]["reason"]["enum"])
    assert all(":" in text for text in TITLES.values())
    for limit in LIMITS.values():
        assert limit.refused is None or limit.score(limit.refused) >= 1


def test_resolution_does_not_matter():
    small = skin()
    large = cv2.resize(small, (1600, 1200), interpolation=cv2.INTER_CUBIC)
    first, second = assess(small, spot()), assess(large, spot((1200, 1600)))
    assert first.reasons == second.reasons
    for name, value in first.scores.items():
        assert second.scores[name] == pytest.approx(value, rel=0.2, abs=0.1)


@pytest.mark.parametrize("size", [(16, 16), (30, 40), (16, 500), (500, 16)])
def test_smallest_pictures_are_refused_as_blurred_ones_are(size):
    picture = skin(size=size)
    for mask in (spot(size), np.ones(size, bool)):
        quality = assess(picture, mask)
        assert "too_blurred" in quality.reasons[: quality.refused]


def test_rates_on_real_pictures(shared_data):
    paths = sorted((shared_data / "HAM10000").glob("HAM10000_images_*/*.jpg"))[::400]
    paths += sorted((shared_data / "PAD-UFES-20" / "images").rglob("*.jpg"))[::20]
    paths += sorted((shared_data / "phone_photos").glob("*.jpg"))
    refused, caught = 0, dict.fromkeys(TITLES, 0)
    for path in paths:
        picture = read_image(path).pixels
        refused += not assess(picture).usable
        for reason, changed in spoilt(picture).items():
            caught[reason] += reason in assess(changed).reasons
    assert refused <= 0.05 * len(paths)
    for reason in ("too_blurred", "too_dark", "too_bright"):
        assert caught[reason] >= 0.97 * len(paths)
