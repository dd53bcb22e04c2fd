"""Augmentation: one random view of a picture, and pictures of a batch mixed with each other."""

from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch

from dermedge.image.preprocess import shades_of_gray
from train.augment import augment, mix
from train.recipe import Augmentation

STILL = Augmentation(flip=False, rotation=0, scale=0, shift=0, color=0, blur=0)
# Each strength by itself, full.
ALONE = {
    "flip": True,
    "rotation": 180.0,
    "scale": 0.5,
    "shift": 0.3,
    "color": 0.5,
    "blur": 1.0,
    "constancy": 1.0,
    "hair": 1.0,
    "erase": 1.0,
}
MOVES = ("flip", "rotation", "scale", "shift")


@pytest.fixture
def picture() -> tuple[np.ndarray, np.ndarray]:
    """A picture of a brown lesion on reddish skin, and its mask; 64 px."""
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), np.uint8)
    cv2.ellipse(mask, (28, 34), (14, 9), 30, 0, 360, 255, -1)
    image = rng.normal((210, 160, 140), 6, (64, 64, 3))
    image[mask > 0] -= 80
    return np.clip(image, 0, 255).astype(np.uint8), mask


def view(picture, seed: int = 0, **strengths) -> tuple[np.ndarray, np.ndarray]:
    spec = replace(STILL, **strengths)
    return augment(*picture, spec, np.random.default_rng(seed))


def test_every_strength_of_a_picture_is_tested_alone():
    assert {item.name for item in fields(Augmentation)} == {*ALONE, "mixup", "cutmix"}


@pytest.mark.parametrize("name", ALONE)
def test_a_view_is_a_function_of_its_seed_alone(picture, name):
    strength, before = {name: ALONE[name]}, [part.copy() for part in picture]
    first, again = view(picture, **strength), view(picture, **strength)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    # The cached picture stays as it was.
    assert all(np.array_equal(one, other) for one, other in zip(before, picture, strict=True))
    if name != "constancy":  # which has no degrees
        assert len({view(picture, seed, **strength)[0].tobytes() for seed in range(12)}) > 1


@pytest.mark.parametrize("name", ALONE)
def test_only_what_moves_the_picture_moves_the_mask(picture, name):
    image, mask = view(picture, 3, **{name: ALONE[name]})
    assert not np.array_equal(image, picture[0])
    assert np.array_equal(mask, picture[1]) == (name not in MOVES)
    moves = {move: ALONE[move] for move in MOVES}
    _, moved = view(picture, 3, **moves)
    assert np.array_equal(view(picture, 3, **{**moves, name: ALONE[name]})[1], moved)


def test_new_strengths_leave_the_random_numbers_of_the_others_alone(picture):
    """Colour constancy first, hair before the light, noise last: each is found again in the sum."""
    moves = {name: ALONE[name] for name in MOVES}
    plain, _ = view(picture, 5, **moves)
    constant, _ = view(picture, 5, constancy=1.0, **moves)
    assert np.array_equal(constant, shades_of_gray(plain))
    erased, _ = view(picture, 5, erase=1.0, **moves)
    changed = (erased != plain).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert box.mean() > 0.99  # a rectangle of noise, and nothing outside of it
    assert 0.01 < changed.mean() < 0.3
    both, _ = view(picture, 5, erase=1.0, constancy=1.0, **moves)
    assert np.array_equal(both[changed], erased[changed])
    assert np.array_equal(both[~changed], constant[~changed])


def test_hair_is_thin_and_crosses_the_picture():
    image = np.full((224, 224, 3), (225, 180, 160), np.uint8)
    covered = []
    for seed in range(12):
        hairy, _ = view((image, None), seed, hair=1.0)
        changed = (hairy != image).any(axis=2)
        covered.append(changed.mean())
        # Thinner than a lesion: an opening leaves almost nothing of it.
        opened = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9)))
        assert opened.mean() < 0.3 * max(changed.mean(), 0.01)
    assert 0.005 < np.mean(covered) < 0.4


@pytest.mark.parametrize("name", ["constancy", "hair", "erase", "blur"])
def test_a_probability_is_how_often_it_happens(picture, name):
    happened = [
        not np.array_equal(view(picture, seed, **{name: 0.3})[0], picture[0]) for seed in range(300)
    ]
    assert 0.2 < np.mean(happened) < 0.4
    # Where it happens with a small probability, it happens with a greater one.
    often = [
        not np.array_equal(view(picture, seed, **{name: 0.6})[0], picture[0]) for seed in range(100)
    ]
    assert all(much or not little for little, much in zip(happened, often, strict=False))


def test_augmentation_moves_picture_and_mask_together():
    mask = np.zeros((64, 64), np.uint8)
    cv2.ellipse(mask, (28, 34), (14, 9), 30, 0, 360, 255, -1)
    image = np.repeat(mask[..., None], 3, axis=2)
    turned = set()
    for seed in range(20):
        spec = replace(Augmentation(), color=0.0, blur=0.0)
        new_image, new_mask = augment(image, mask, spec, np.random.default_rng(seed))
        assert np.array_equal(new_image[..., 0] > 127, new_mask > 0)
        assert set(np.unique(new_mask)) <= {0, 255}
        assert 0.6 < (new_mask > 0).sum() / (mask > 0).sum() < 1.5
        turned.add(new_mask.tobytes())
    assert len(turned) == 20
    same_image, same_mask = augment(image, mask, STILL, np.random.default_rng(0))
    assert np.array_equal(same_image, image)
    assert np.array_equal(same_mask, mask)


def test_colour_changes_leave_the_black_border_and_the_mask_alone():
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24] = (200, 140, 120)
    mask = np.full((32, 32), 255, np.uint8)
    new_image, new_mask = augment(image, mask, replace(STILL, color=0.4), np.random.default_rng(3))
    assert not new_image[:8].any()
    assert not np.array_equal(new_image, image)
    assert np.array_equal(new_mask, mask)


def batch_of(count: int = 6, size: int = 16) -> dict[str, torch.Tensor]:
    """Pictures of one grey each: what a pixel holds tells whose it is."""
    grey = torch.arange(1, count + 1, dtype=torch.uint8) * 30
    image = grey.view(-1, 1, 1, 1).expand(count, size, size, 3).clone()
    return {"image": image, "classes": torch.eye(count), "metadata": torch.eye(count) * 2}


@pytest.mark.parametrize("strengths", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 1, "cutmix": 1}])
def test_mixing_keeps_pixels_within_both_pictures_and_shares_of_classes(strengths):
    spec = replace(STILL, **strengths)
    kinds = set()
    for seed in range(20):
        torch.manual_seed(seed)
        before, batch = batch_of(), batch_of()
        mix(batch, spec)
        assert batch["image"].shape == before["image"].shape
        assert torch.allclose(batch["classes"].sum(dim=1), torch.ones(6))
        assert (batch["classes"] >= 0).all()
        assert torch.equal(batch["metadata"], batch["classes"] * 2)
        cut = not batch["image"].is_floating_point()
        kinds.add(cut)
        for own, (image, shares) in enumerate(zip(batch["image"], batch["classes"], strict=True)):
            found = shares.nonzero().flatten().tolist()
            assert len(found) <= 2
            values = [30.0 * (number + 1) for number in found]
            if cut:
                # The share of each class is the share of its pixels.
                for number, value in zip(found, values, strict=True):
                    assert (image == value).float().mean() == pytest.approx(shares[number].item())
            else:
                assert min(values) - 1e-3 <= image.min() <= image.max() <= max(values) + 1e-3
                expected = sum(shares[n] * 30 * (n + 1) for n in found)
                assert image.mean().item() == pytest.approx(expected.item(), rel=1e-5)
            assert len(found) == 1 or own in found
    # Either, where both are asked for.
    assert kinds == {{"mixup": False, "cutmix": True}[name] for name in strengths}


def test_mixing_is_a_function_of_the_seed():
    first, again = batch_of(), batch_of()
    for batch in (first, again):
        torch.manual_seed(11)
        mix(batch, replace(STILL, mixup=0.4, cutmix=1.0))
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["classes"], again["classes"])
