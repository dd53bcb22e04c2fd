"""Batches that are augmented where the network is: what is in them, and runs fed with them."""

from __future__ import annotations

import csv
import signal

import cv2
import numpy as np
import pytest
import torch

from dermedge.data import load, make_split
from dermedge.image.read import write_png
from train import feed, loop
from train.data import Batches, Views, load_pictures
from train.feed import DeviceBatches, training_batches
from train.recipe import RecipeError, load_recipe
from train.sources import priors_of

TINY = [
    "preprocessing.size=32",
    "batch_size=4",
    "epochs=2",
    "workers=0",
    "augment_on=device",
    "augmentation.hair=0.5",
    "augmentation.erase=0.5",
    "augmentation.constancy=0.5",
]
HERE = torch.device("cpu")
LABELS = ("mel", "nv")


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    """Twelve discs; the last two have no mask."""
    root = tmp_path_factory.mktemp("lesions")
    rows = []
    for number in range(12):
        image = np.full((40, 56, 3), (225, 180, 160), np.uint8)
        mask = np.zeros((40, 56), np.uint8)
        cv2.circle(mask, (28, 20), 6 + number, 255, -1)
        image[mask > 0] = (60, 40, 40 + 10 * number)
        write_png(root / f"p{number}.png", image)
        write_png(root / f"m{number}.png", mask)
        row = {"id": f"p{number}", "image": f"p{number}.png", "diagnosis": LABELS[number % 2]}
        rows.append({**row, "mask": f"m{number}.png" if number < 10 else "", "age": 30 + number})
    with open(root / "data.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return load("csv", root)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def recipe_of(*overrides: str):
    tiny = ["pretrained=no", "metadata=age", *TINY]
    return load_recipe("multitask", [*tiny, *overrides])


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


STILL = [f"augmentation.{n}=0" for n in ("rotation", "scale", "shift", "color", "blur", "hair")]
STILL += ["augmentation.erase=0", "augmentation.constancy=0", "augmentation.flip=false"]


def test_without_augmentation_the_batch_is_the_loaders(lesions, tmp_path):
    groups = ("loss.group=age", "loss.group_balance=1")
    recipe = recipe_of(*STILL, *groups, "metadata_dropout=0")
    pictures = load_pictures(lesions.records, recipe, tmp_path)
    priors = priors_of(pictures.records, LABELS, None, [1.0, 1.0])
    step = [(0, 11), (0, 3), (0, 3), (0, 8)]
    (batch,) = DeviceBatches(pictures, LABELS, recipe, HERE, priors)([step])
    assert batch.pop("known").tolist() == [False, True, True, True]
    views = Views(pictures, LABELS, recipe, priors)
    expected = [views[key] for key in step]
    assert batch.keys() == expected[0].keys()
    for name, values in batch.items():
        stacked = np.stack([sample[name] for sample in expected])
        assert values.numpy().dtype == stacked.dtype
        assert np.array_equal(values.numpy(), stacked), name


def test_masks_that_there_are_not_stay_unknown(lesions, tmp_path):
    recipe = recipe_of()
    pictures = load_pictures(lesions.records, recipe, tmp_path)
    (batch,) = DeviceBatches(pictures, LABELS, recipe, HERE)([[(0, 10), (0, 2)]])
    assert (batch["mask"][0] == -1).all()
    assert set(batch["mask"][1].unique().tolist()) == {0.0, 1.0}


def test_a_sample_is_the_same_in_any_process_batch_and_memory(lesions, tmp_path, monkeypatch):
    recipe = recipe_of()
    pictures = load_pictures(lesions.records, recipe, tmp_path)
    steps = Batches(12, 4, 5, None)
    whole = list(DeviceBatches(pictures, LABELS, recipe, HERE)(steps.share(0, 6, 0, 1)))
    for rank in (0, 1):
        half = list(DeviceBatches(pictures, LABELS, recipe, HERE)(steps.share(0, 6, rank, 2)))
        for batch, part in zip(whole, half, strict=True):
            assert same({name: values[rank::2] for name, values in batch.items()}, part)
    later = list(DeviceBatches(pictures, LABELS, recipe, HERE)(steps.share(4, 6, 0, 1)))
    assert all(same(one, other) for one, other in zip(whole[4:], later, strict=True))
    assert not torch.equal(whole[0]["image"], whole[3]["image"])
    # As a GPU holds them: copied in chunks, or batch by batch from a thread.
    monkeypatch.setattr(feed, "_CHUNK", 5)
    copied = DeviceBatches(pictures, LABELS, recipe, HERE)
    arrays = (pictures.images, pictures.masks)
    copied.resident, copied.stored = True, [copied._copied(array) for array in arrays]
    found = list(copied(steps.share(0, 6, 0, 1)))
    assert all(same(one, other) for one, other in zip(whole, found, strict=True))


def test_metadata_is_hidden_as_often_as_the_recipe_says(lesions, tmp_path):
    recipe = recipe_of("metadata_dropout=0.3", "augmentation.hair=0", "augmentation.erase=0")
    pictures = load_pictures(lesions.records, recipe, tmp_path)
    batches = DeviceBatches(pictures, LABELS, recipe, HERE)
    steps = ([(epoch, index) for index in range(12)] for epoch in range(30))
    told = torch.cat([batch["metadata"] for batch in batches(steps)])
    shown = told.any(dim=1).float().mean().item()
    assert 0.6 < shown < 0.8


def test_the_recipe_chooses_and_the_loader_is_the_default(lesions, tmp_path):
    plain = load_recipe("classifier", ["workers=0", "preprocessing.size=32"])
    assert plain.augment_on == "loader"
    pictures = load_pictures(lesions.records, plain, tmp_path)
    (batch,) = training_batches(pictures, LABELS, plain, [[(0, 1), (0, 2)]], HERE)
    expected = Views(pictures, LABELS, plain)[0, 1]["image"]
    assert np.array_equal(batch["image"][0].numpy(), expected)
    with pytest.raises(RecipeError, match="augment_on must be one of loader, device"):
        load_recipe("classifier", ["augment_on=gpu"])


def test_a_stopped_run_goes_on_to_the_very_same_weights(lesions, tmp_path, monkeypatch):
    """Also by a terminal that is closed, which says so twice."""
    recipe, split = recipe_of(), make_split(lesions, fractions=(0.8, 0.2, 0.0))
    whole = loop.train(recipe, lesions, split, tmp_path / "whole").folder
    update = loop.Learner.update

    def interrupted(self, *batch):
        if self.step == 2:
            for number in [signal.SIGHUP] * 2 if hasattr(signal, "SIGHUP") else [signal.SIGINT]:
                signal.raise_signal(number)
        return update(self, *batch)

    monkeypatch.setattr(loop.Learner, "update", interrupted)
    with pytest.raises(loop.Interrupted):
        loop.train(recipe, lesions, split, tmp_path / "parts")
    monkeypatch.undo()
    parts = loop.train(recipe, lesions, split, tmp_path / "parts").folder
    one, other = (
        torch.load(run / "checkpoint.pt", weights_only=True)["model"] for run in (whole, parts)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
