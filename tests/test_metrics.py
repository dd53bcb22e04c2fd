"""Metrics against scikit-learn and the official scoring of the ISIC challenges."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermedge import UserError
from dermedge.evaluation import metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")
EXACT = 1e-9
PIXEL_METRICS = ("accuracy", "sensitivity", "specificity", "jaccard", "threshold_jaccard", "dice")


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def scored(seed: int, n: int, levels: int = 0):
    """Scores, labels and weights, with ties where `levels` is given and both classes present."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.3
    labels[:2] = [True, False]
    scores = rng.normal(labels * 0.8)
    if levels:
        scores = np.round(scores * levels) / levels
    return scores, labels, rng.integers(1, 5, n).astype(float)


def classified(seed: int, n: int, classes: int):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    logits = rng.normal(size=(n, classes)) + 1.2 * np.eye(classes)[labels]
    exponents = np.exp(logits)
    return exponents / exponents.sum(axis=1, keepdims=True), labels


def official_scores(predictions, truths) -> dict[str, float]:
    """The macro average that the ISIC challenge's own code gives for these bool masks."""
    segmentation = pytest.importorskip("isic_challenge_scoring.segmentation")
    pairs = [
        SimpleNamespace(
            truth_image=truth.astype(np.uint8) * 255,
            prediction_image=prediction.astype(np.uint8) * 255,
            image_id=str(number),
        )
        for number, (prediction, truth) in enumerate(zip(predictions, truths, strict=True))
    ]
    return segmentation.SegmentationScore(pairs).macro_average.to_dict()


def otsu(image: np.ndarray) -> np.ndarray:
    gray = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), 3)
    return cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1] > 0


@st.composite
def mask_pairs(draw):
    """A few pairs; empty and full masks are as likely as any other."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pairs = []
    for _ in range(draw(st.integers(1, 5))):
        shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
        densities = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
        pairs.append(tuple(rng.random(shape) < draw(densities) for _ in range(2)))
    return pairs


@given(mask_pairs())
@settings(max_examples=60)
def test_masks_equal_the_official_isic_scoring(pairs):
    predictions, truths = zip(*pairs, strict=True)
    official = official_scores(predictions, truths)
    counted = metrics.confusion(predictions, truths)
    for name in PIXEL_METRICS:
        assert getattr(counted, name).mean() == pytest.approx(official[name], abs=EXACT), name


@given(mask_pairs())
@settings(max_examples=60)
def test_masks_equal_scikit_learn(pairs):
    predictions, truths = zip(*pairs, strict=True)
    counted = metrics.confusion(predictions, truths)
    pooled = counted.pooled()
    everything = [np.concatenate([mask.ravel() for mask in side]) for side in (truths, predictions)]
    cases = [(everything, pooled, 0)]
    cases += [((t.ravel(), p.ravel()), counted, i) for i, (p, t) in enumerate(pairs)]
    reference = {
        "jaccard": sklearn_metrics.jaccard_score,
        "dice": sklearn_metrics.f1_score,
        "sensitivity": sklearn_metrics.recall_score,
        "precision": sklearn_metrics.precision_score,
    }
    for (truth, prediction), ours, index in cases:
        for name, score in reference.items():
            expected = score(truth, prediction, zero_division=1.0)
            assert getattr(ours, name)[index] == pytest.approx(expected, abs=EXACT), name
        accuracy = sklearn_metrics.accuracy_score(truth, prediction)
        assert ours.accuracy[index] == pytest.approx(accuracy, abs=EXACT)


def test_real_masks_equal_both(shared_data):
    folder = shared_data / "HAM10000"
    files = sorted(folder.glob("HAM10000_images_part_*/*.jpg"))[::200]
    if not files:
        pytest.skip(f"no HAM10000 images under {folder}")
    predictions, truths = [], []
    for file in files:
        mask = folder / "HAM10000_segmentations_lesion_tschandl" / f"{file.stem}_segmentation.png"
        truths.append(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) > 128)
        predictions.append(otsu(cv2.imread(str(file))))
    counted = metrics.confusion(predictions, truths)
    official = official_scores(predictions, truths)
    for name in PIXEL_METRICS:
        assert getattr(counted, name).mean() == pytest.approx(official[name], abs=EXACT), name
    for index, (prediction, truth) in enumerate(zip(predictions, truths, strict=True)):
        expected = sklearn_metrics.jaccard_score(truth.ravel(), prediction.ravel())
        assert counted.jaccard[index] == pytest.approx(expected, abs=EXACT)


def test_empty_and_full_masks():
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    counted = metrics.confusion([empty, full, full, empty], [empty, empty, full, full])
    assert counted.jaccard.tolist() == [1, 0, 1, 0]
    assert counted.dice.tolist() == [1, 0, 1, 0]
    assert counted.sensitivity.tolist() == [1, 1, 1, 0]
    assert counted.specificity.tolist() == [1, 0, 1, 1]
    assert counted.precision.tolist() == [1, 0, 1, 1]
    assert counted.pooled().jaccard[0] == pytest.approx(20 / 60)


def test_threshold_jaccard_drops_what_is_below():
    truth = np.zeros(100, bool)
    truth[:100] = True
    predictions = [np.arange(100) < share for share in (64, 65, 66)]
    values = metrics.confusion(predictions, [truth] * 3).threshold_jaccard
    assert values.tolist() == [0, 0.65, 0.66]


def test_mask_faults_are_named():
    mask = np.zeros((4, 5), bool)
    with pytest.raises(ValueError, match="not bool"):
        metrics.confusion([mask.astype(np.uint8)], [mask])
    with pytest.raises(ValueError, match=r"predicted \(5, 4\)"):
        metrics.confusion([mask.T], [mask])
    with pytest.raises(ValueError, match="mask 1 has no partner"):
        metrics.confusion([mask], [mask, mask])


@given(st.integers(0, 2**32 - 1), st.integers(2, 200), st.sampled_from([0, 1, 3]))
@settings(max_examples=80)
def test_binary_scores_equal_scikit_learn(seed, n, levels):
    scores, labels, weights = scored(seed, n, levels)
    for w in (None, weights):
        auc = sklearn_metrics.roc_auc_score(labels, scores, sample_weight=w)
        precision = sklearn_metrics.average_precision_score(labels, scores, sample_weight=w)
        assert metrics.roc_auc(scores, labels, w) == pytest.approx(auc, abs=EXACT)
        assert metrics.average_precision(scores, labels, w) == pytest.approx(precision, abs=EXACT)
    false_alarms, found, cuts = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    for ours, expected in zip(
        metrics.roc_curve(scores, labels), (cuts, found, false_alarms), strict=True
    ):
        np.testing.assert_allclose(ours, expected, atol=EXACT)
    probability = 1 / (1 + np.exp(-scores))
    brier = sklearn_metrics.brier_score_loss(labels, probability)
    assert metrics.brier(probability, labels) == pytest.approx(brier, abs=EXACT)


@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(20, 200))
@settings(max_examples=60)
def test_classes_equal_scikit_learn(seed, classes, n):
    probabilities, labels = classified(seed, n, classes)
    predicted = probabilities.argmax(axis=1)
    numbers = np.arange(classes)
    matrix = sklearn_metrics.confusion_matrix(labels, predicted, labels=numbers)
    np.testing.assert_array_equal(metrics.confusion_matrix(predicted, labels, classes), matrix)
    assert metrics.balanced_accuracy(predicted, labels, classes) == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(labels, predicted), abs=EXACT
    )
    counted = metrics.per_class(predicted, labels, classes)
    precision, sensitivity, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, labels=numbers, zero_division=np.nan
    )
    np.testing.assert_allclose(counted.precision, precision, atol=EXACT)
    np.testing.assert_allclose(counted.sensitivity, sensitivity, atol=EXACT)
    np.testing.assert_allclose(counted.dice, f1, atol=EXACT)
    each = [sklearn_metrics.roc_auc_score(labels == k, probabilities[:, k]) for k in numbers]
    np.testing.assert_allclose(metrics.per_class_auc(probabilities, labels), each, atol=EXACT)
    assert metrics.macro_auc(probabilities, labels) == pytest.approx(np.mean(each), abs=EXACT)


@given(st.integers(0, 2**32 - 1), st.integers(30, 150))
@settings(max_examples=10)
def test_classes_equal_the_official_isic_scoring(seed, n):
    pandas = pytest.importorskip("pandas")
    official = pytest.importorskip("isic_challenge_scoring.classification")
    probabilities, labels = classified(seed, n, 7)
    names = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    weights = pandas.DataFrame({"score_weight": np.ones(n), "validation_weight": np.ones(n)})
    score = official.ClassificationScore(
        pandas.DataFrame(np.eye(7)[labels], columns=names),
        pandas.DataFrame(probabilities, columns=names),
        weights,
        official.ClassificationMetric.BALANCED_ACCURACY,
    )
    predicted = probabilities.argmax(axis=1)
    assert metrics.balanced_accuracy(predicted, labels, 7) == pytest.approx(
        score.overall, abs=EXACT
    )
    aucs = score.per_category["auc"].to_numpy()
    np.testing.assert_allclose(metrics.per_class_auc(probabilities, labels), aucs, atol=EXACT)
    for k, name in enumerate(names):
        ours = metrics.average_precision(probabilities[:, k], labels == k)
        assert ours == pytest.approx(score.per_category.at[name, "ap"], abs=EXACT)
        # The official per-class figures call a class where its probability is above one half.
        called = metrics.confusion([probabilities[:, k] > 0.5], [labels == k])
        for ours_name, theirs in (
            ("accuracy", "accuracy"),
            ("sensitivity", "sensitivity"),
            ("specificity", "specificity"),
            ("dice", "dice"),
            ("precision", "ppv"),
        ):
            expected = score.per_category.at[name, theirs]
            assert getattr(called, ours_name)[0] == pytest.approx(expected, abs=EXACT)


def test_weights_are_repeated_samples():
    scores, labels, weights = scored(5, 60, 2)
    times = weights.astype(int)
    probabilities, classes = classified(5, 60, 4)
    for metric, first, second in (
        (metrics.roc_auc, scores, labels),
        (metrics.average_precision, scores, labels),
        (metrics.brier, 1 / (1 + np.exp(-scores)), labels),
        (metrics.brier, probabilities, classes),
        (metrics.macro_auc, probabilities, classes),
    ):
        repeated = metric(np.repeat(first, times, axis=0), np.repeat(second, times))
        assert metric(first, second, weights) == pytest.approx(repeated, abs=EXACT)
    repeated = metrics.expected_calibration_error(
        np.repeat(probabilities, times, axis=0), np.repeat(classes, times)
    )
    ours = metrics.expected_calibration_error(probabilities, classes, weights=weights)
    assert ours == pytest.approx(repeated, abs=EXACT)


def test_one_class_only_is_nan_without_a_warning():
    scores, ones = np.array([0.1, 0.7, 0.7]), np.ones(3, bool)
    assert np.isnan(metrics.roc_auc(scores, ones))
    assert np.isnan(metrics.roc_auc(scores, ~ones))
    assert np.isnan(metrics.roc_auc([], []))
    assert np.isnan(metrics.average_precision(scores, ~ones))
    assert np.isnan(metrics.threshold_at_sensitivity(scores, ~ones, 0.9))
    assert np.isnan(metrics.sensitivity_at_specificity(scores, ones, 0.9))
    probabilities = np.eye(3)[[0, 0, 1]]
    assert np.isnan(metrics.per_class_auc(probabilities, [0, 0, 1])[2])
    assert metrics.macro_auc(probabilities, [0, 0, 1]) == 1.0
    assert metrics.balanced_accuracy([0, 0, 1], [0, 0, 1], 3) == 1.0
    assert np.isnan(metrics.per_class([0, 0, 1], [0, 0, 1], 3).sensitivity[2])


def test_score_faults_are_named():
    with pytest.raises(ValueError, match="nan"):
        metrics.roc_auc([0.1, np.nan], [0, 1])
    with pytest.raises(ValueError, match="2 of 0 or 1"):
        metrics.roc_auc([0.1, 0.2], [0, 2])
    with pytest.raises(ValueError, match="0 to 2"):
        metrics.balanced_accuracy([0, 3], [0, 1], 3)
    with pytest.raises(ValueError, match="target"):
        metrics.threshold_at_sensitivity([0.1], [1], 95)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_finite_numbers_are_refused_everywhere(bad):
    scores, labels = np.array([0.2, bad, 0.4, bad, 0.9]), np.array([0, 1, 0, 1, 1])
    stated = np.stack([scores, 1 - scores], axis=1)
    for metric, *arguments in (
        (metrics.Ranking, scores, labels),
        (metrics.roc_auc, scores, labels),
        (metrics.average_precision, scores, labels),
        (metrics.roc_curve, scores, labels),
        (metrics.threshold_at_sensitivity, scores, labels, 0.9),
        (metrics.sensitivity_at_specificity, scores, labels, 0.9),
        (metrics.brier, scores, labels),
        (metrics.brier, stated, labels),
        (metrics.macro_auc, stated, labels),
        (metrics.expected_calibration_error, stated, labels),
        (metrics.calibration_error, scores, labels),
    ):
        with pytest.raises(UserError, match="nan or infinite") as caught:
            metric(*arguments)
        assert caught.value.code == "scores_not_finite"
        assert caught.value.values["bad"] > 0


def test_calibration_error_by_hand():
    # Ten answers of confidence 0.8, of which six are right, and five of 0.55, all right.
    probabilities = np.array([[0.8, 0.2]] * 10 + [[0.45, 0.55]] * 5)
    labels = np.array([0] * 6 + [1] * 4 + [1] * 5)
    expected = 10 / 15 * 0.2 + 5 / 15 * 0.45
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(expected)
    assert metrics.brier(np.array([[0.8, 0.2]]), [1]) == pytest.approx(2 * 0.64)


@given(st.integers(0, 2**32 - 1), st.integers(2, 80), st.floats(0.01, 1), st.sampled_from([0, 2]))
@settings(max_examples=80)
def test_threshold_reaches_its_target_and_none_higher_does(seed, n, target, levels):
    scores, labels, _ = scored(seed, n, levels)
    cut = metrics.threshold_at_sensitivity(scores, labels, target)
    assert cut in scores
    assert np.mean(scores[labels] >= cut) >= target - 1e-12
    assert np.mean(scores[labels] > cut) < target
    best = max(
        np.mean(scores[labels] >= t)
        for t in [np.inf, *scores]
        if np.mean(scores[~labels] < t) >= target - 1e-12
    )
    assert metrics.sensitivity_at_specificity(scores, labels, target) == pytest.approx(best)


def test_rounding_costs_no_positive():
    labels = np.ones(20, bool)
    assert metrics.threshold_at_sensitivity(np.arange(20.0), labels, 0.95) == 1


def test_bootstrap_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = rng.normal(2.0, 1.0, 60)
        interval = metrics.bootstrap(
            lambda w, v=values: w @ v / w.sum(), 60, resamples=300, seed=trial
        )
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= 2.0 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_groups_widen_the_interval():
    rng = np.random.default_rng(1)
    lesion = np.repeat(np.arange(60), 5)
    values = np.repeat(rng.normal(size=60), 5) + 0.1 * rng.normal(size=300)

    def mean(weights):
        return weights @ values / weights.sum()

    single = metrics.bootstrap(mean, 300, seed=3)
    grouped = metrics.bootstrap(mean, 300, groups=[f"lesion {n:02d}" for n in lesion], seed=3)
    assert grouped.value == single.value
    ratio = (grouped.high - grouped.low) / (single.high - single.low)
    assert 1.8 < ratio < 2.7  # about the square root of 5
    assert metrics.bootstrap(mean, 300, groups=lesion, seed=3) == grouped


def test_paired_difference_is_narrower_than_its_parts():
    scores, labels, _ = scored(2, 400)
    better = scores + 0.3 * labels

    def first(weights):
        return metrics.roc_auc(better, labels, weights)

    def second(weights):
        return metrics.roc_auc(scores, labels, weights)

    difference = metrics.bootstrap_difference(first, second, 400, resamples=300)
    alone = metrics.bootstrap(second, 400, resamples=300)
    assert difference.value == pytest.approx(first(np.ones(400)) - second(np.ones(400)))
    assert 0 < difference.low < difference.high
    assert difference.high - difference.low < alone.high - alone.low


@pytest.mark.parametrize("factor", [100, -1])
def test_what_is_no_probability_is_refused(factor):
    """Percent gave a calibration error of 86 and a Brier score of 7,000."""
    shares, labels = np.array([[0.9, 0.1], [0.2, 0.8]]) * factor, np.array([0, 1])
    for measure, values in (
        (metrics.brier, shares[:, 0]),
        (metrics.brier, shares),
        (metrics.expected_calibration_error, shares),
        (metrics.calibration_error, shares[:, 0]),
    ):
        with pytest.raises(ValueError, match="probabilities must be 0 to 1, got"):
            measure(values, labels)


def test_weights_below_zero_and_groups_that_are_nan_are_refused():
    for weight in (-1, np.nan):
        with pytest.raises(ValueError, match="weights must be 0 or more"):
            metrics.roc_auc([0.1, 0.2, 0.3], [0, 1, 1], [1, 1, weight])
    # An empty cell of a table: all of them were drawn as one lesion.
    nothing = [1, np.nan, np.nan], ["P1", np.nan, np.nan], np.array(["P1", None, None], object)
    for groups in nothing:
        with pytest.raises(ValueError, match="a group is nan"):
            metrics.bootstrap(lambda w: w.sum(), 3, groups=groups)


def test_bootstrap_where_nothing_can_be_said():
    scores, ones = np.arange(5.0), np.ones(5, bool)
    lost = metrics.bootstrap(lambda w: metrics.roc_auc(scores, ones, w), 5, resamples=20)
    assert np.isnan([lost.value, lost.low, lost.high]).all()
    alone = metrics.bootstrap(lambda w: w.sum(), 5, groups=np.zeros(5))
    assert alone.value == 5
    assert np.isnan(alone.low)
    with pytest.raises(ValueError, match="3 groups for 5"):
        metrics.bootstrap(lambda w: w.sum(), 5, groups=[1, 2, 3])
