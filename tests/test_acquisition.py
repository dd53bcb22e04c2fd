"""Whom a person is asked about first."""

import numpy as np
import pytest

from dermedge import acquisition


def test_doubt_is_least_for_a_sure_answer_and_most_for_an_even_one():
    rows = np.array([[1.0, 0.0, 0.0], [1 / 3] * 3, [0.5, 0.5, 0.0]])
    assert acquisition.entropy(rows) == pytest.approx([0, 1, np.log(2) / np.log(3)], abs=1e-9)
    assert acquisition.margin(rows) == pytest.approx([0, 1, 1])


def test_near_copies_and_what_is_known_are_not_asked_about_again():
    features = np.array([[0.0], [0.01], [5.0], [5.01], [9.0]])
    assert sorted(acquisition.k_center(features, features[:1], 2).tolist()) in ([2, 4], [3, 4])
    alike = np.zeros((4, 2))
    assert sorted(acquisition.k_center(alike, np.zeros((0, 2)), 9).tolist()) == [0, 1, 2, 3]
    sure, unsure = [0.98, 0.02], [0.52, 0.48]
    probabilities = np.array([unsure, unsure, unsure, sure, sure])
    chosen = acquisition.ask_first(probabilities[:4], features[:4], np.zeros((0, 1)), 1)
    assert chosen[0] in (0, 1, 2)
    both = acquisition.ask_first(probabilities, features, features[:1], 2)
    assert 1 not in both  # a copy of what is known
    assert len(acquisition.ask_first(probabilities[:0], features[:0], features, 3)) == 0
