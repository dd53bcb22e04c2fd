"""What a classifier learnt from, and how sure it may be of its answers."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dermedge.bundle.similar import THUMBNAIL
from dermedge.data.records import Record
from export import ExportError
from export.calibration.ood import OodScore, fit_ood
from export.calibration.temperature import fit_temperature
from export.runs.half_weights import round_to_half
from export.validation.prepared import Prediction, predict, subset
from export.validation.validate import Validation, nothing, serves

TRAINING_PICTURES = 2000  # that the out-of-distribution score is fitted to


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """Training pictures as a classifier sees them, unaugmented; one entry a picture."""

    labels: np.ndarray  # int (n,)
    groups: np.ndarray  # int (n,): lesion or patient
    features: np.ndarray  # float32 (n, D)
    right: np.ndarray  # bool (n,): named by its label
    thumbnails: np.ndarray  # uint8 (n, THUMBNAIL, THUMBNAIL, 3)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the graph of a classifier holds beside its weights."""

    temperature: float
    ood: OodScore
    sample: TrainingSample
    training_records: tuple[Record, ...]  # all labelled ones of the training part


def calibrate(validation: Validation) -> Calibration | None:
    """Fit the out-of-distribution score to the training part, the temperature to the tuning half.

    None for a segmenter. Raises ExportError where the training part has nothing to fit to.
    """
    if validation.classes is None:
        return None
    network, classes = validation.network, validation.classes
    training = tuple(
        record
        for record in network.records("train")
        if serves(record, "classifier", network.run.labels)
    )
    if not training:
        raise nothing(network, "classifier", "training part")
    sample = _sample(validation, training)
    ood = fit_ood(sample.features)
    if network.weights == "half":
        round_to_half(ood)
    tuning = classes.tuning
    temperature = fit_temperature(
        classes.logits[tuning], classes.targets[tuning], validation.weights(tuning)
    )
    return Calibration(temperature, ood, sample, training)


def _sample(validation: Validation, training: tuple[Record, ...]) -> TrainingSample:
    network = validation.network
    records = subset(training, TRAINING_PICTURES)
    seen = predict(network.model, validation.spec, records, _seen, "studying the classifier")
    if not seen:
        raise nothing(network, "classifier", "training part")
    if len(seen) < 2:
        raise ExportError(
            f"only one training picture of {network.run.data_set} can be read: the "
            "out-of-distribution score cannot be fitted to it"
        )
    read, features, named, thumbnails = zip(*seen, strict=True)
    labels = np.array([network.run.labels.index(record.label) for record in read])
    return TrainingSample(
        labels=labels,
        groups=validation.part.halves.groups_of(read),
        features=np.stack(features),
        right=labels == named,
        thumbnails=np.stack(thumbnails),
    )


def _seen(prediction: Prediction) -> tuple[Record, np.ndarray, int, np.ndarray]:
    side = (THUMBNAIL, THUMBNAIL)
    small = cv2.resize(prediction.sample.square, side, interpolation=cv2.INTER_AREA)
    named = int(prediction.outputs["classes"].argmax())
    return prediction.sample.record, prediction.outputs["features"], named, small
