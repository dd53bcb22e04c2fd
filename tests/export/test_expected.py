"""What another half of the validation part can be expected to say of a candidate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dermedge.bundle.manifest import Thresholds
from export.validation.compare import compare
from export.validation.expected import expected_agreement, expected_changes
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


def test_it_agrees_with_what_is_counted_where_nothing_moves(population):
    pictures, logits, distance = population
    same = half(logits, distance)
    figures, _ = compare(pictures, same, same, LIMITS, Acceptance())
    counted = figures["triage_agreement"]["low"]
    assert expected_agreement(pictures, same, same, LIMITS) == pytest.approx(counted, abs=1e-6)


def test_a_network_without_classes_or_without_numbers(population):
    pictures, logits, distance = population
    known = half(logits, distance)
    none = Outputs(None, None, np.ones(COUNT), None)
    assert expected_agreement(pictures, none, none, LIMITS) == 1
    broken = replace(known, distance=np.full(COUNT, np.nan))
    assert expected_agreement(pictures, known, broken, LIMITS) == 0
