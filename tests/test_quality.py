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
    speck = np.zeros((300, 400), bool)
    speck[2, 2] = True  # which the reduced copy does not hold
    assert assess(picture, speck).reasons == ("too_far",)
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


def block(height: int, width: int, left: int = 20) -> np.ndarray:
    mask = np.zeros((200, 250), bool)
    mask[20 : 20 + height, left : left + width] = True
    return mask


def glare(count: int, at: np.ndarray) -> np.ndarray:
    """Skin, so many px of `at` burnt out."""
    picture = skin(size=(200, 250))
    picture.reshape(-1, 3)[np.flatnonzero(at)[:count]] = 250
    return picture


def cold(count: int) -> np.ndarray:
    picture = light(200)
    picture.reshape(-1, 3)[:count] = 128
    return picture


def light(value: int) -> np.ndarray:
    return np.full((200, 250, 3), (value, 0.8 * value, 0.7 * value), np.uint8)


def sure(share: float) -> tuple[np.ndarray, np.ndarray]:
    return block(60, 60), np.full((200, 250), share, np.float32)


def beside(distance: int) -> dict[str, np.ndarray]:
    """A lesion, and so many px to its left something that hides the skin."""
    return {"mask": block(10, 42), "hidden": block(10, 5, 20 - distance - 4)}


SKIN, WHOLE = skin(size=(200, 250)), np.ones((200, 250), bool)


@pytest.mark.parametrize(
    ("reason", "refuses", "worse", "better"),
    [
        ("too_dark", False, (light(82),), (light(83),)),
        ("too_dark", True, (light(72),), (light(73),)),
        ("too_bright", False, (glare(750, WHOLE),), (glare(749, WHOLE),)),
        ("too_bright", True, (glare(3000, WHOLE),), (glare(2999, WHOLE),)),
        # Of 20 px each way with 5 px around.
        ("too_bright", True, *((glare(n, block(20, 20)), block(20, 20)) for n in (54, 53))),
        ("not_skin", True, (cold(40000),), (cold(39999),)),
        ("no_lesion", False, (SKIN, *sure(0.909)), (SKIN, *sure(0.911))),
        ("no_lesion", True, (SKIN, *sure(0.859)), (SKIN, *sure(0.861))),
        ("cut_off", False, (SKIN, block(10, 46, 0)), (SKIN, block(10, 47, 0))),
        ("cut_off", True, (SKIN, block(10, 16, 0)), (SKIN, block(10, 17, 0))),
        ("cut_off", False, {"pixels": SKIN, **beside(2)}, {"pixels": SKIN, **beside(3)}),
        ("too_near", False, (SKIN, block(150, 200)), (SKIN, block(149, 200))),
        ("too_far", False, (SKIN, block(9, 30)), (SKIN, block(9, 31))),
        ("too_far", True, (SKIN, block(9, 10)), (SKIN, block(9, 11))),
        ("several_lesions", False, *((SKIN, block(20, 50) | block(n, 20, 90)) for n in (15, 14))),
    ],
)
def test_where_a_reason_begins(reason, refuses, worse, better):
    for view, expected in ((worse, True), (better, False)):
        quality = assess(**view) if isinstance(view, dict) else assess(*view)
        named = quality.reasons[: quality.refused] if refuses else quality.reasons
        assert (reason in named) is expected


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
