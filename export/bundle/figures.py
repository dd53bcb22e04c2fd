"""The figures that a bundle states: each of the accepting half, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dermedge.bundle.manifest import Thresholds
from dermedge.evaluation import metrics
from dermedge.taxonomy import MALIGNANT
from export.calibration.calibrate import Calibration
from export.calibration.temperature import log_softmax
from export.validation import RESAMPLES
from export.validation.compare import Statistic, plain_interval
from export.validation.validate import MASK_THRESHOLDS, ClassOutputs, MaskOutputs, Validation


def measured(
    validation: Validation, calibration: Calibration | None, thresholds: Thresholds
) -> dict[str, dict]:
    """What a network reaches with these thresholds, by role; for the manifest."""
    figures = {}
    if validation.masks is not None:
        figures["segmenter"] = _of_masks(validation, validation.masks, thresholds)
    if validation.classes is not None and calibration is not None:
        figures["classifier"] = _of_classes(validation, validation.classes, calibration, thresholds)
    return figures


def _of_masks(validation: Validation, masks: MaskOutputs, thresholds: Thresholds) -> dict:
    accepting = ~masks.tuning
    reached = masks.jaccards[accepting, MASK_THRESHOLDS.index(thresholds.mask)]
    return {
        **validation.origin(len(reached)),
        **mask_figures(reached, masks.groups[accepting]),
    }


def _of_classes(
    validation: Validation, classes: ClassOutputs, calibration: Calibration, thresholds: Thresholds
) -> dict:
    """A network that takes metadata is measured with what is known of each person, and without."""
    labels, accepting = validation.network.run.labels, ~classes.tuning
    targets, groups = classes.targets[accepting], classes.groups[accepting]
    logits, weights = classes.logits[accepting], validation.weights(accepting)
    calibrated = log_softmax(logits / calibration.temperature)
    figures = {
        **validation.origin(len(targets)),
        "malignant": int(np.isin(np.array(labels)[targets], list(MALIGNANT)).sum()),
        "temperature": calibration.temperature,
        "ece_before": metrics.expected_calibration_error(
            np.exp(log_softmax(logits)), targets, weights=weights
        ),
        **class_figures(calibrated, targets, groups, labels, thresholds, weights),
        "balanced_accuracy_without_offsets": metrics.balanced_accuracy(
            calibrated.argmax(axis=1), targets, len(labels)
        ),
    }
    if classes.without is not None:
        alone = log_softmax(classes.without[accepting] / calibration.temperature)
        figures["without_metadata"] = class_figures(
            alone, targets, groups, labels, thresholds, weights
        )
    return figures


def mask_figures(jaccards: np.ndarray, groups: np.ndarray) -> dict:
    """How well lesions are outlined: the mean of `jaccards` (n,), with its interval."""
    return {"jaccard": _interval(lambda w: w @ jaccards / w.sum(), groups)}


def class_figures(
    log_probabilities: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    labels: Sequence[str],
    limits: Thresholds,
    weights: np.ndarray | None = None,
) -> dict:
    """How good a classifier is with these thresholds.

    Parameters
    ----------
    log_probabilities : float (N, K), calibrated; of the classes `labels`.
    targets, groups : int (N,), the class and the lesion or patient of each picture.
    weights : float (N,), that make the classes as frequent as in a prior; None: as they are.
    """
    each = np.ones(len(targets)) if weights is None else weights
    probabilities = np.exp(log_probabilities)
    malignant = np.array([label in MALIGNANT for label in labels])
    malignancy, truth = probabilities[:, malignant].sum(axis=1), malignant[targets]
    likely = (log_probabilities + np.array(limits.class_offsets or 0)).argmax(axis=1)

    def interval(statistic: Statistic) -> dict:
        return _interval(lambda drawn: statistic(drawn * each), groups)

    def share(hit: np.ndarray, among: np.ndarray) -> dict:
        found = metrics.bootstrap(
            lambda drawn: _share(hit, among, drawn * each), len(groups), groups, RESAMPLES
        )
        return plain_interval(metrics.share_interval(found, len(np.unique(groups[among]))))

    return {
        "auc_malignant": interval(lambda w: metrics.roc_auc(malignancy, truth, w)),
        "macro_auc": interval(lambda w: metrics.macro_auc(probabilities, targets, w)),
        "balanced_accuracy": interval(
            lambda w: metrics.balanced_accuracy(likely, targets, len(labels), w)
        ),
        "ece": metrics.expected_calibration_error(probabilities, targets, weights=each),
        **{
            name: {
                "sensitivity": share(malignancy >= limit, truth),
                "specificity": share(malignancy < limit, ~truth),
            }
            for name, limit in (("see_doctor", limits.see_doctor), ("urgent", limits.urgent))
        },
    }


def _share(hit: np.ndarray, among: np.ndarray, weights: np.ndarray) -> float:
    whole = weights[among].sum()
    return float(weights[among & hit].sum() / whole) if whole else float("nan")


def _interval(statistic: Statistic, groups: np.ndarray) -> dict:
    """95 % bootstrap interval over lesions and patients."""
    return plain_interval(metrics.bootstrap(statistic, len(groups), groups, RESAMPLES))
