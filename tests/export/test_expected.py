"""What another half of the validation part can be expected to say of a candidate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dermedge.bundle.manifest import Thresholds
from export.validation.expected import expected_changes, expected_missing
from export.validation.outputs import Outputs, ValidationSet
from train.recipe import Acceptance

COUNT = 1000
LABELS = ("mel", "nv")
LIMITS = Thresholds(mask=0.5, see_doctor=0.2, urgent=0.6, unfamiliar=8.0)


def half(logits: np.ndarray, distance: np.ndarray) -> Outputs:
    malignancy = 1 / (1 + np.exp(-logits))
    return Outputs(np.stack([malignancy, 1 - malignancy], axis=1), distance, None, None)


@pytest.fixture(scope="module")
def population() -> tuple[ValidationSet, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = rng.integers(2, size=COUNT)
    pictures = ValidationSet([{}] * COUNT, np.arange(COUNT), labels=LABELS, targets=targets)
    return pictures, rng.normal(-1, 2, COUNT), np.exp(rng.normal(1, 0.5, COUNT))


@pytest.mark.parametrize(("noise", "shift"), [(0.05, 0.0), (0.3, 0.0), (0.1, 0.2)])
def test_it_expects_as_many_changes_as_there_are_on_average(population, noise, shift):
    pictures, logits, distance = population
    rng = np.random.default_rng(1)
    reference = half(logits, distance)

    def another() -> Outputs:
        moved = logits + shift + rng.normal(0, noise, COUNT)
        return half(moved, distance * np.exp(rng.normal(0, noise / 3, COUNT)))

    changed = []
    for _ in range(200):
        drawn = another()
        advice = [np.digitize(o.malignancy(pictures), [0.2, 0.6]) for o in (reference, drawn)]
        far = [o.distance > LIMITS.unfamiliar for o in (reference, drawn)]
        same = (advice[0] == advice[1]) & ~far[0] & ~far[1] | far[0] & far[1]
        changed.append(int((~same).sum()))
    expected = [expected_changes(pictures, reference, another(), LIMITS) for _ in range(20)]
    assert np.mean(expected) == pytest.approx(np.mean(changed), rel=0.2)
    # That is what it is for: it varies less than what is counted.
    assert np.std(expected) < 0.7 * np.std(changed)


def test_what_does_not_move_misses_nothing(population):
    pictures, logits, distance = population
    same = half(logits, distance)
    assert expected_missing(pictures, same, same, LIMITS, Acceptance()) == 0


def test_moves_that_reach_only_a_rare_class_miss_the_balanced_accuracy(population):
    pictures, logits, distance = population
    # Twenty pictures of one class, half of them near the border to the other one.
    rare = replace(pictures, targets=np.where(np.arange(COUNT) < 20, 0, 1))
    logits = np.concatenate([np.linspace(-2, 2, 20), np.full(COUNT - 20, -4.0)])
    moves = np.random.default_rng(0).normal(0, 0.4, COUNT)
    before, after = half(logits, distance), half(logits + moves, distance)
    quiet = half(logits + moves / 100, distance)
    only = Acceptance(triage=0.0)
    assert expected_missing(rare, before, after, LIMITS, only) > 0.02
    assert expected_missing(rare, before, quiet, LIMITS, only) < 0.02
    off = Acceptance(triage=0.0, retained=0.0)
    assert expected_missing(rare, before, after, LIMITS, off) == 0


def test_a_network_without_classes_or_without_numbers(population):
    pictures, logits, distance = population
    known = half(logits, distance)
    none = Outputs(None, None, np.ones(COUNT), None)
    assert expected_missing(pictures, none, none, LIMITS, Acceptance()) == 0
    broken = replace(known, distance=np.full(COUNT, np.nan))
    assert expected_missing(pictures, known, broken, LIMITS, Acceptance()) == np.inf
