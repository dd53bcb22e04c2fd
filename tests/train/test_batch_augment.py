"""Whole batches augmented at once: the same views as one by one, from the same distribution."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from train.augment import augment
from train.batch_augment import Draws, Overlays, augment_batch, draw_epoch, inverse_maps
from train.recipe import Augmentation

STILL = Augmentation(flip=False, rotation=0, scale=0, shift=0, color=0, blur=0)
COUNT, SIZE = 24, 64
HERE = torch.device("cpu")


@pytest.fixture(scope="module")
def picture() -> tuple[np.ndarray, np.ndarray]:
    """Colourful clouds with black corners, and a mask; 64 px."""
    noise = np.random.default_rng(0).normal(128, 600, (SIZE, SIZE, 3))
    image = np.clip(cv2.GaussianBlur(noise, (0, 0), 2), 0, 255).astype(np.uint8)
    image[:8, :8] = 0
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.ellipse(mask, (28, 34), (14, 9), 30, 0, 360, 255, -1)
    return image, mask


def loaders(count: int) -> Draws:
    """The numbers that the loader draws for its pictures, in its order."""
    rows: list[list[np.ndarray]] = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        rows.append([rng.random(2) < 0.5, rng.uniform(-1, 1, 4), rng.uniform(-1, 1, 5)])
        rows[-1] += [np.array([rng.random()]), np.array([rng.uniform(0.4, 1.2)]), rng.random(3)]
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    empty = np.zeros((count, 0))
    return Draws(*columns, np.zeros((count, 4)), np.zeros((count, 6)), empty)


def at_once(picture, spec: Augmentation, draws: Draws, overlays: Overlays | None = None):
    images, masks = (torch.from_numpy(np.stack([part] * len(draws.moves))) for part in picture)
    overlays = overlays or Overlays.drawn(spec, SIZE, 0, HERE)
    return [part.numpy() for part in augment_batch(images, masks, spec, draws, overlays)]


def one_by_one(picture, spec: Augmentation, count: int):
    views = [augment(*picture, spec, np.random.default_rng(seed)) for seed in range(count)]
    return [np.stack(part) for part in zip(*views, strict=True)]


EQUAL = {
    "nothing": STILL,
    "flip": replace(STILL, flip=True),
    "rotation": replace(STILL, rotation=180.0),
    "scale": replace(STILL, scale=0.5),
    "shift": replace(STILL, shift=0.3),
    "color": replace(STILL, color=0.5),
    "blur": replace(STILL, blur=1.0),
    "constancy": replace(STILL, constancy=1.0),
    "all": Augmentation(scale=0.3, shift=0.1, color=0.3, blur=0.5, constancy=0.5),
}


@pytest.mark.parametrize("name", EQUAL)
def test_the_same_numbers_give_the_same_view(picture, name):
    images, masks = at_once(picture, EQUAL[name], loaders(COUNT))
    expected, expected_masks = one_by_one(picture, EQUAL[name], COUNT)
    difference = np.abs(images.astype(int) - expected)
    if name == "nothing":
        assert not difference.any()
        assert np.array_equal(images[0], picture[0])
    # OpenCV rounds positions and weights of its own; colour turns one level into two or three.
    assert difference.max() <= (4 if name == "all" else 1)
    assert difference.mean() < 0.1
    assert (masks != expected_masks).mean() < 1e-4
    assert set(np.unique(masks)) <= {0, 255}


def test_both_draw_from_one_distribution():
    from scipy.stats import ks_2samp

    count = 4000
    ours, theirs = draw_epoch(3, 1, count), loaders(count)
    for name in ("mirror", "moves", "tones", "blurred", "sigma", "chances"):
        pair = getattr(ours, name), getattr(theirs, name)
        assert pair[0].shape == pair[1].shape
        for column in range(pair[0].shape[1]):
            one, other = (np.asarray(part[:, column], float) for part in pair)
            assert ks_2samp(one, other).pvalue > 1e-3, (name, column)
    # Each number by itself: no two go together.
    columns = np.concatenate([np.asarray(v, float) for v in vars(ours).values()], axis=1)
    between = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(between).max() < 0.08


@pytest.mark.parametrize("name", ["hair", "erase"])
def test_what_is_laid_over_has_the_same_statistics(name):
    """Hair from drawn layers and noise from a field: share that is hit, its place and its look."""
    from scipy.stats import ks_2samp

    count = 400
    grey = np.full((SIZE, SIZE, 3), 140, np.uint8)
    spec = replace(STILL, **{name: 1.0})
    images, _ = at_once((grey, grey[..., 0]), spec, draw_epoch(1, 0, count))
    expected, _ = one_by_one((grey, grey[..., 0]), spec, count)
    place = np.arange(SIZE)
    for what in ("share", "row", "column", "look", "spread"):
        found = []
        for views in (images, expected):
            hit = (views != 140).any(axis=3)
            area = np.maximum(hit.sum(axis=(1, 2)), 1)
            values = views.astype(float).mean(axis=3)
            found.append(
                {
                    "share": hit.mean(axis=(1, 2)),
                    "row": (hit * place[:, None]).sum(axis=(1, 2)) / area,
                    "column": (hit * place).sum(axis=(1, 2)) / area,
                    "look": (values * hit).sum(axis=(1, 2)) / area,
                    "spread": values.std(axis=(1, 2)),
                }[what]
            )
        assert ks_2samp(*found).pvalue > 1e-3, what


@pytest.mark.parametrize(
    ("name", "column"), [("constancy", 0), ("hair", 1), ("erase", 2), ("blur", None)]
)
def test_a_probability_is_how_often_it_happens(picture, name, column):
    draws = draw_epoch(0, 0, 200)
    images, _ = at_once(picture, replace(STILL, **{name: 0.3}), draws)
    happened = (images != picture[0]).any(axis=(1, 2, 3))
    chances = draws.blurred[:, 0] if column is None else draws.chances[:, column]
    assert not (happened & (chances >= 0.3)).any()
    assert 0.2 < happened.mean() < 0.4


def test_only_what_moves_the_picture_moves_the_mask(picture):
    still = replace(STILL, color=0.4, blur=1.0, constancy=1.0, hair=1.0, erase=1.0)
    _, masks = at_once(picture, still, draw_epoch(0, 0, 8))
    assert (masks == picture[1]).all()
    moves = replace(STILL, flip=True, rotation=180.0, scale=0.3, shift=0.1)
    drawn = np.repeat(picture[1][..., None], 3, axis=2)
    images, masks = at_once((drawn, picture[1]), moves, draw_epoch(0, 0, 8))
    assert np.array_equal(images[..., 0] > 127, masks > 0)
    assert len({mask.tobytes() for mask in masks}) == 8


def test_a_view_is_the_same_in_every_batch(picture):
    spec = Augmentation(constancy=0.5, hair=0.5, erase=0.5, blur=0.5)
    overlays = Overlays.drawn(spec, SIZE, 0, HERE)
    draws = draw_epoch(7, 2, COUNT)
    whole = at_once(picture, spec, draws, overlays)
    for rows in ([5], [23, 2, 9], list(range(1, COUNT, 2))):
        part = at_once(picture, spec, draws.rows(np.array(rows)), overlays)
        assert np.array_equal(part[0], whole[0][rows])
        assert np.array_equal(part[1], whole[1][rows])
    # Seed, epoch and number make a view; how many others there are does not.
    again = draw_epoch(7, 2, COUNT + 5)
    assert all(np.array_equal(a, b[:COUNT]) for a, b in zip_values(draws, again))
    for other in (draw_epoch(8, 2, COUNT), draw_epoch(7, 3, COUNT)):
        assert not np.array_equal(other.moves, draws.moves)


def zip_values(one: Draws, other: Draws):
    return zip(vars(one).values(), vars(other).values(), strict=True)


def test_a_map_leads_from_the_view_to_the_picture():
    spec = replace(STILL, shift=0.25)
    draws = draw_epoch(0, 0, 5)
    maps = inverse_maps(spec, draws, SIZE)
    shift = 0.25 * SIZE * draws.moves[:, 2:4]
    assert maps[:, :, 2] == pytest.approx(-shift)
    assert maps[:, :, :2] == pytest.approx(np.broadcast_to(np.eye(2), (5, 2, 2)))
