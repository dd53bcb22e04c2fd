"""Where numbers become decisions, chosen on the tuning half of the validation part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from dermedge.bundle.manifest import Thresholds
from dermedge.data.records import Record
from dermedge.evaluation import metrics
from dermedge.taxonomy import MALIGNANT
from export import ExportError
from export.calibration.calibrate import Calibration
from export.calibration.temperature import log_softmax
from export.runs.load import TrainedNetwork
from export.validation.validate import MASK_THRESHOLDS, ClassOutputs, Validation

SENSITIVITY = 0.95  # at "see a doctor"
SPECIFICITY = 0.95  # at "urgent"
IN_DISTRIBUTION = 0.99  # share of the validation pictures that are no stranger than the threshold
_LEAST_SHARE = 1e-6  # a prior that is 0, as runs note it
OFFSET_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def choose_thresholds(validation: Validation, calibration: Calibration | None) -> Thresholds:
    """The thresholds of one network, by the tuning half; `calibration` is of a classifier.

    Raises ExportError where a half shows only benign or only malignant lesions.
    """
    thresholds = Thresholds()
    if validation.masks is not None:
        masks = validation.masks
        thresholds = Thresholds(mask=mask_threshold(masks.jaccards[masks.tuning]))
    if validation.classes is None or calibration is None:
        return thresholds
    run, classes = validation.network.run, validation.classes
    malignant = np.array([label in MALIGNANT for label in run.labels])
    truth = malignant[classes.targets]
    _refuse_one_kind(run.data_set, classes, truth)
    tuning = classes.tuning
    calibrated = log_softmax(classes.logits[tuning] / calibration.temperature)
    see_doctor, urgent = operating_points(
        np.exp(calibrated)[:, malignant].sum(axis=1), truth[tuning], validation.weights(tuning)
    )
    with torch.inference_mode():
        _, distance = calibration.ood(torch.from_numpy(classes.features[tuning]))
    shares = class_shares(validation.network, calibration.training_records)
    return Thresholds(
        mask=thresholds.mask,
        see_doctor=see_doctor,
        urgent=urgent,
        unfamiliar=ood_limit(distance.numpy()),
        class_offsets=class_offsets(calibrated, classes.targets[tuning], shares),
    )


def class_shares(network: TrainedNetwork, training: Iterable[Record]) -> Sequence[float]:
    """How frequent each class was where the network learnt its classes, or is in a prior asked for.

    All above 0.
    """
    labels = network.run.labels
    if network.prior is not None:
        return [float(share) for share in network.prior.shares]
    if network.recipe.outline_alone:
        # Its classes are those of its start: the training part may not even show them all.
        return [max(network.run.prior.get(name, 1.0), _LEAST_SHARE) for name in labels]
    counts = Counter(record.label for record in training)
    return [counts[name] for name in labels]


def _refuse_one_kind(data_set: str, classes: ClassOutputs, truth: np.ndarray) -> None:
    for name, half, use in (
        ("tuning", truth[classes.tuning], "no threshold can be chosen"),
        ("accepting", truth[~classes.tuning], "no threshold can be judged"),
    ):
        if half.all() or not half.any():
            raise ExportError(
                f"the {name} half of the validation part of {data_set} has only "
                f"{'malignant' if half.any() else 'benign'} lesions: {use} on it; train with a "
                "split whose validation part has two lesions of either kind at least"
            )


def operating_points(
    malignancy: np.ndarray, malignant: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Thresholds of "see a doctor" and "urgent".

    The first is the highest that finds 95 % of the malignant lesions, the second the lowest that
    leaves 95 % of the benign ones alone, and never below the first. Both have four decimals,
    rounded to the safe side: other runtimes differ in the sixth.

    Parameters
    ----------
    malignancy : float (n,), 0 to 1.
    malignant : bool (n,), with both kinds.
    weights : float (n,), how much each picture counts; None: all alike.
    """
    found = metrics.threshold_at_sensitivity(malignancy, malignant, SENSITIVITY, weights)
    see_doctor = max(np.floor(found * 1e4) / 1e4, 1e-4)
    limits, _, alarms = metrics.roc_curve(malignancy, malignant, weights)
    lowest = limits[1 - alarms >= SPECIFICITY - 1e-12].min()
    urgent = min(np.ceil(lowest * 1e4) / 1e4, 1.0)
    return float(see_doctor), float(max(see_doctor, urgent))


def class_offsets(
    log_probabilities: np.ndarray, targets: np.ndarray, counts: Sequence[float] | np.ndarray
) -> tuple[float, ...]:
    """Log-odds that make the most likely class balanced (Menon et al., ICLR 2021).

    -strength * log(share in training); of the `OFFSET_STRENGTHS` the one with the best balanced
    accuracy, and of equally good ones the weakest.

    Parameters
    ----------
    log_probabilities : float (N, K), calibrated.
    targets : int (N,), 0 to K - 1.
    counts : training pictures of each class, or shares of a prior asked for, all above 0.

    Returns
    -------
    K numbers, to be added to the log-probabilities; () where none are best.
    """
    shares = np.array(counts) / np.sum(counts)

    def score(strength: float) -> float:
        predicted = (log_probabilities - strength * np.log(shares)).argmax(axis=1)
        return round(metrics.balanced_accuracy(predicted, targets, len(shares)), 6)

    best = max(OFFSET_STRENGTHS, key=score)
    return tuple((-best * np.log(shares)).round(4).tolist()) if best else ()


def ood_limit(distance: np.ndarray) -> float:
    """The distance, above 0, that 99 % of the pictures (n,) do not exceed; four decimals."""
    return float(max(np.ceil(np.quantile(distance, IN_DISTRIBUTION) * 1e4) / 1e4, 1e-4))


def mask_threshold(jaccards: np.ndarray) -> float:
    """The best of `MASK_THRESHOLDS`.

    jaccards : float (n, len(MASK_THRESHOLDS)), of each picture at each of them.
    """
    # Of thresholds that are as good as each other, the one nearest to 0.5.
    means = jaccards.mean(axis=0).round(4)
    best = min(np.flatnonzero(means == means.max()), key=lambda i: abs(MASK_THRESHOLDS[i] - 0.5))
    return MASK_THRESHOLDS[best]
