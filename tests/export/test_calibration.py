"""Temperature, thresholds, offsets and the out-of-distribution score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dermedge.bundle.similar import SimilarCases
from dermedge.data import Record
from dermedge.evaluation.metrics import balanced_accuracy, expected_calibration_error
from export.bundle.similar import similar_cases
from export.calibration import ood
from export.calibration.calibrate import TrainingSample
from export.calibration.ood import fit_ood
from export.calibration.temperature import fit_temperature, log_softmax
from export.runs.half_weights import round_to_half
from export.thresholds.choose import class_offsets, class_shares, ood_limit, operating_points


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_temperature_calms_an_over_confident_network():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5))
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = np.array([rng.choice(5, p=row) for row in odds])
    for factor in (0.5, 1.0, 4.0):
        assert fit_temperature(logits * factor, targets) == pytest.approx(factor, rel=0.06)
    before, after = (
        np.exp(log_softmax(logits * 4 / temperature))
        for temperature in (1.0, fit_temperature(logits * 4, targets))
    )
    rows = np.arange(len(targets))
    assert np.log(after[rows, targets]).mean() > np.log(before[rows, targets]).mean() + 0.5
    assert expected_calibration_error(after, targets) < 0.03
    assert expected_calibration_error(before, targets) > 0.2


def test_temperature_stays_finite_when_all_is_right():
    logits = np.eye(3)[[0, 1, 2, 0]]
    assert 0.05 <= fit_temperature(logits, np.array([0, 1, 2, 0])) < 0.06


def test_operating_points_keep_what_they_promise():
    rng = np.random.default_rng(1)
    malignant = rng.random(400) < 0.2
    malignancy = np.clip(rng.normal(0.3 + 0.3 * malignant, 0.15), 0, 1)
    see_doctor, urgent = operating_points(malignancy, malignant)
    assert (malignancy[malignant] >= see_doctor).mean() >= 0.95
    assert (malignancy[malignant] >= see_doctor + 0.03).mean() < 0.95
    assert (malignancy[~malignant] < urgent).mean() >= 0.95
    assert urgent >= see_doctor


def test_operating_points_are_exact_and_rounded_to_the_safe_side():
    """Of a hundred of each kind the sixth lowest malignant and the fifth highest benign one."""
    place = np.arange(100) / 1000
    malignancy, malignant = np.append(0.30005 + place, 0.50005 + place), np.arange(200) < 100
    assert operating_points(malignancy, malignant) == (0.305, 0.5951)
    weights = np.ones(200)
    weights[[0, -1]] = 6  # more than 5 % of their kind: neither may be lost
    assert operating_points(malignancy, malignant, weights) == (0.3, 1.0)


def test_urgent_never_begins_below_see_a_doctor():
    """Nearly all of what a good network calls benign lies far below every malignant lesion."""
    malignancy = np.append(np.linspace(0, 0.5, 100), np.full(10, 0.9))
    assert operating_points(malignancy, np.arange(110) >= 100) == (0.9, 0.9)


@pytest.mark.parametrize("worst", [0.0, 1.0])
def test_operating_points_stay_in_range(worst):
    see_doctor, urgent = operating_points(np.full(6, worst), np.array([True, False] * 3))
    assert 0 < see_doctor <= urgent <= 1


def test_offsets_find_the_rare_class():
    # Half of the rare class looks a little more like the common one, as training taught.
    rng = np.random.default_rng(2)
    targets = (rng.random(4000) < 0.05).astype(int)
    evidence = rng.normal(np.where(targets == 1, 1.0, -1.0), 1.0)
    logits = np.stack([np.zeros(4000), 2 * evidence + np.log(0.05 / 0.95)], axis=1)
    found = log_softmax(logits)
    offsets = class_offsets(found, targets, (1900, 100))
    assert len(offsets) == 2
    assert offsets[1] > offsets[0] > 0
    before, after = (
        balanced_accuracy((found + add).argmax(axis=1), targets, 2) for add in (0, offsets)
    )
    assert after > before + 0.1
    assert after > 0.8


def test_classes_that_were_kept_are_as_frequent_as_where_they_were_learnt():
    """The pictures that taught outlines alone may show other classes, and not all."""
    run = SimpleNamespace(labels=("bcc", "mel", "nv"), prior={"bcc": 0.1, "mel": 0.2, "nv": 0.7})
    outlined = [Record(str(number), Path("x"), label="mel") for number in range(3)]
    network = SimpleNamespace(run=run, prior=None, recipe=SimpleNamespace(outline_alone=True))
    assert class_shares(network, outlined) == [0.1, 0.2, 0.7]
    run.prior = {}  # its start states none
    assert class_shares(network, outlined) == [1.0] * 3
    network.recipe.outline_alone = False
    assert class_shares(network, outlined) == [0, 3, 0]


def test_no_offsets_where_they_would_not_help():
    logits = 4 * np.eye(3)[[0, 1, 2, 0]]
    assert class_offsets(log_softmax(logits), np.array([0, 1, 2, 0]), (50, 25, 25)) == ()
    assert class_offsets(log_softmax(logits), np.array([0, 1, 2, 0]), (10, 10, 10)) == ()


def test_one_familiar_picture_in_a_hundred_is_called_unfamiliar():
    distance = np.random.default_rng(3).gamma(2.0, size=(5000, 1))
    assert 0.985 < (distance <= ood_limit(distance)).mean() < 0.995
    assert ood_limit(np.zeros(4)) > 0


def test_embedding_and_distance_are_those_of_probabilistic_pca(monkeypatch):
    monkeypatch.setattr(ood, "AXES", 3)
    rng = np.random.default_rng(4)
    features = (rng.normal(size=(600, 8)) * [9, 6, 4, 1, 1, 1, 1, 1]) @ rng.normal(size=(8, 8)) + 5
    features = features.astype(np.float32)
    with torch.inference_mode():
        embedding, distance = (
            part.numpy() for part in fit_ood(features)(torch.from_numpy(features))
        )
    values, vectors = np.linalg.eigh(np.cov(features.T, bias=True).astype(np.float64))
    noise = values[:-3].mean()
    model = vectors @ np.diag([*[noise] * 5, *values[-3:]]) @ vectors.T
    centred = features - features.mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centred, np.linalg.inv(model), centred) / 8)
    assert distance[:, 0] == pytest.approx(expected, rel=1e-3)
    assert (distance**2).mean() == pytest.approx(1, rel=1e-3)
    # Less where a variance was raised to the least, as `distance` of an analysis says.
    flat = features[:, :3] @ rng.normal(size=(3, 8)).astype(np.float32)
    with torch.inference_mode():
        assert 0.3 < (fit_ood(flat)(torch.from_numpy(flat))[1] ** 2).mean() < 0.7
    axes = vectors[:, [-1, -2, -3]] / np.sqrt(values[[-1, -2, -3]])
    assert np.abs(embedding) == pytest.approx(np.abs(centred @ axes), rel=1e-3, abs=1e-3)
    assert embedding.std(axis=0) == pytest.approx(1, rel=1e-3)


def test_features_that_never_vary_give_finite_distances():
    for constant in (np.zeros((5, 4), np.float32), np.full((5, 4), 3.0, np.float32)):
        found = fit_ood(constant)
        round_to_half(found)
        for part in found(torch.from_numpy(constant)):
            assert torch.isfinite(part).all()


def test_fewer_similar_cases_than_asked_for_are_said(capsys):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [20, 20, 1, 1])
    sample = TrainingSample(
        labels=labels,
        groups=np.arange(len(labels)),
        features=rng.normal(size=(len(labels), 6)).astype(np.float32),
        right=labels < 3,
        thumbnails=rng.integers(0, 256, (len(labels), 64, 64, 3), np.uint8),
    )
    calibration = SimpleNamespace(sample=sample, ood=fit_ood(sample.features))
    names = ("mel", "nv", "df", "vasc")
    content = similar_cases(calibration, names, 20, pictures=True)
    counts = np.bincount(SimilarCases.from_bytes(content, 4).labels, minlength=4).tolist()
    assert 1 < counts[0] == counts[1] < 20
    assert capsys.readouterr().err == (
        f"similar cases: not 20 of each class: more than {counts[0]} of each would take over "
        "100 kB; no more lesions are named rightly of df 1, vasc 0\n"
    )
    none = replace(sample, right=labels < 0)
    assert similar_cases(SimpleNamespace(sample=none), names, 8, pictures=False) is None
    assert "names none of its training pictures rightly" in capsys.readouterr().err
