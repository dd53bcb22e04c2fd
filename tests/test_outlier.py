"""The head that tells pictures without a lesion: its part, its verdict, its fit."""

import numpy as np
import pytest

from dermedge.bundle.manifest import BundleError
from dermedge.lesion.quality import Quality
from dermedge.outlier import OutlierHead, evidence, length
from export.outliers.draw import DRAWN, beside
from export.outliers.fit import fit_head, limit_of


def _groups() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    good = random.normal(0, 1, (300, 12))
    near = random.normal(0, 1, (80, 12)) + np.eye(12)[0] * 6
    return good, near, np.array(["near"] * 80)


def _head() -> OutlierHead:
    head = fit_head(*_groups())
    return OutlierHead.from_bytes(head_with(head, 1.2).to_bytes(), 12)


def head_with(head: OutlierHead, limit: float) -> OutlierHead:
    from dataclasses import replace

    return replace(head, limit=np.array([limit], np.float32))


def test_outliers_of_a_kind_that_was_fitted_and_of_one_that_is_far_are_refused():
    good, near, _ = _groups()
    head = _head()
    far = np.random.default_rng(1).normal(0, 1, (50, 12)) - np.eye(12)[5] * 6
    assert (head.score(good) > 1.2).mean() < 0.04
    assert (head.score(near) > 1.2).mean() > 0.9
    assert (head.score(far) > 1.2).mean() > 0.9  # on no side that was fitted to


def test_a_refused_picture_is_told_that_no_lesion_was_found():
    _, near, _ = _groups()
    fine = Quality(True, (), {"too_dark": -0.2, "no_lesion": 0.1})
    refused = _head().judge(near[0], fine)
    assert refused.reasons == ("no_lesion",)
    assert not refused.usable
    assert not refused.ok
    assert list(refused.scores) == ["too_dark", "no_lesion"]
    assert refused.scores["no_lesion"] > 1
    dark = Quality(False, ("too_dark", "hair", "no_lesion"), {"too_dark": 2.0}, refused=1)
    both = _head().judge(near[0], dark)
    assert both.reasons == ("too_dark", "no_lesion", "hair")
    assert both.refused == 2
    assert _head().judge(np.zeros(12), fine) is fine


def test_a_part_of_another_classifier_is_refused():
    content = _head().to_bytes()
    with pytest.raises(BundleError, match="does not fit the classifier"):
        OutlierHead.from_bytes(content, 13)
    with pytest.raises(BundleError, match=r"outlier\.npz"):
        OutlierHead.from_bytes(content[:200], 12)


def test_the_limit_loses_two_in_a_hundred_and_rises_where_outliers_are_far():
    scores = np.linspace(0, 1, 100)
    none, kinds = np.zeros(100, bool), np.array(["a"] * 50)
    near = limit_of(scores, none, np.full(50, 0.5), kinds)
    assert (scores > near).sum() == 2
    by_distance = np.arange(100) < 2
    assert (scores > limit_of(scores, by_distance, np.full(50, 0.5), kinds)).sum() == 0
    assert limit_of(scores, none, np.full(50, 7.0), kinds) == 7.0


def test_evidence_has_the_length_that_a_bundle_is_checked_by():
    outputs = {
        "probabilities": np.array([0.7, 0.3], np.float32),
        "activation": np.ones((2, 3, 3), np.float32),
        "embedding": np.zeros(5, np.float32),
        "distance": np.ones(1, np.float32),
    }
    view, chart = np.full((60, 80, 3), 180, np.uint8), np.full((32, 32), 0.2, np.float32)
    seen = evidence(outputs, view, chart, Quality(True, (), {}))
    assert seen is not None
    assert seen.shape == (length(2, 5),)
    assert np.isfinite(seen).all()
    del outputs["activation"]
    assert evidence(outputs, view, chart, Quality(True, (), {})) is None


@pytest.mark.parametrize("kind", DRAWN)
def test_drawn_outliers_are_pictures_and_always_the_same(kind):
    first, second = (DRAWN[kind](np.random.default_rng(3)) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert (first == second).all()


def test_a_cutting_beside_the_lesion_shows_none_of_it():
    picture = np.zeros((120, 160, 3), np.uint8)
    lesion = np.zeros((120, 160), bool)
    lesion[30:80, 40:90] = True
    picture[lesion] = 255
    cut = beside(picture, lesion, np.random.default_rng(0))
    assert cut is not None
    assert cut.max() == 0
    assert beside(picture, np.ones((120, 160), bool), np.random.default_rng(0)) is None
