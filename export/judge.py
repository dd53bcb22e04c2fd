"""One network on the training and validation parts of its data set."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from dermedge import metrics
from dermedge.bundle import Thresholds
from dermedge.cases import THUMBNAIL, Cases
from dermedge.datasets.masks import read_lesion_mask
from dermedge.datasets.records import DataSet, Record
from dermedge.datasets.split import Split, group_records
from dermedge.image import ImageError
from dermedge.taxonomy import MALIGNANT
from export import ExportError
from export.calibrate import (
    MASK_THRESHOLDS,
    class_figures,
    class_offsets,
    fit_temperature,
    log_softmax,
    mask_figures,
    mask_threshold,
    operating_points,
    unfamiliar_limit,
)
from export.familiarity import Familiarity
from export.gate import Exam
from export.look import Crop, Sight, feed, look, sample
from train.models import Normalized
from train.run import Run

PART = "val"  # thresholds and calibration are chosen here; the test part stays unseen
PARITY_PICTURES = 500
TRAINING_PICTURES = 2000  # that say what is familiar
CASES_BYTES = 100 * 1024
EXAM_PICTURES = 3000  # of the validation part that a precision is judged on


class Judge:
    """Looks at pictures with a network, chooses thresholds, and measures.

    Its methods raise ExportError where a part has nothing that they can work on.
    """

    def __init__(
        self, run: Run, split: Split, data_set: DataSet, model: Normalized, crop: Crop | None = None
    ):
        """`crop` finds the lesion in a picture, for a network that is fed with crops."""
        self.run = run
        self.split = split
        self.data_set = data_set
        # The faster layout on most processors; the graph is made from a copy in the usual one.
        self.model = model.to(memory_format=torch.channels_last)
        self.crop = crop
        # Some validation pictures as the graph takes them, to compare it with the network.
        self.feeds: list[dict[str, np.ndarray]] = []

    def masks(self) -> tuple[Thresholds, dict]:
        """The mask threshold, and what a segmenter reaches with it on the validation part."""

        drawn: list[bool] = []  # of each mask, whether it shows a lesion

        def jaccards(sight: Sight) -> np.ndarray:
            # At the size of the drawn mask, as the analysis will be judged.
            truth = _drawn_mask(sight)
            drawn.append(bool(truth.any()))
            probability = sight.placement.restore(sight.answers["mask"], truth.shape)
            predicted = [probability >= threshold for threshold in MASK_THRESHOLDS]
            return metrics.confusion(predicted, [truth] * len(predicted)).jaccard

        records = self._records(PART, "segmenter", lambda record: record.mask is not None)
        found, groups = self._look(PART, "segmenter", records, jaccards)
        if not any(drawn):
            raise ExportError(
                f"all {len(drawn)} masks of the validation part of {self.run.data_set} are empty: "
                "no outline can be measured on them"
            )
        threshold, best = mask_threshold(np.array(found))
        return Thresholds(mask=threshold), {
            **self._origin(len(found)),
            **mask_figures(best, groups),
        }

    def training(self) -> Training:
        """What the classifier has learnt from, unaugmented; a sample of the training part."""
        records = sample(self._labelled("train"), TRAINING_PICTURES)

        def seen(sight: Sight) -> tuple[Record, np.ndarray, int, np.ndarray]:
            side = (THUMBNAIL, THUMBNAIL)
            small = cv2.resize(sight.square, side, interpolation=cv2.INTER_AREA)
            named = int(sight.answers["classes"].argmax())
            return sight.record, sight.answers["features"], named, small

        found, groups = self._look("train", "classifier", records, seen)
        if len(found) < 2:
            raise ExportError(
                f"only one training picture of {self.run.data_set} can be read: what is "
                "familiar cannot be learnt from it"
            )
        read, features, named, thumbnails = zip(*found, strict=True)
        labels = np.array([self.run.labels.index(record.label) for record in read])
        return Training(
            labels=labels,
            groups=groups,
            features=np.stack(features),
            right=labels == named,
            thumbnails=np.stack(thumbnails),
        )

    def classes(self, familiarity: Familiarity) -> tuple[Thresholds, dict]:
        """Thresholds of a classifier, and what it reaches with them on the validation part.

        The network is fed with what the data set knows of each person, where it takes that; what
        it reaches without is measured too.
        """
        labels, records = self.run.labels, self._labelled(PART)

        def seen(sight: Sight) -> tuple[str, dict[str, np.ndarray]]:
            # Without the masks of a multitask network, which would fill the memory.
            answers = {name: v for name, v in sight.answers.items() if name != "mask"}
            return sight.record.label, answers

        found, groups = self._look(PART, "classifier", records, seen)
        targets = np.array([labels.index(label) for label, _ in found])
        malignant = np.array([label in MALIGNANT for label in labels])
        truth = malignant[targets]
        if truth.all() or not truth.any():
            raise ExportError(
                f"the validation part of {self.run.data_set} has only "
                f"{'malignant' if truth.any() else 'benign'} lesions: no threshold can be chosen "
                "on it"
            )

        def stacked(name: str) -> np.ndarray:
            return np.stack([answers[name] for _, answers in found])

        logits = stacked("classes")
        temperature = fit_temperature(logits, targets)
        calibrated = log_softmax(logits / temperature)
        see_doctor, urgent = operating_points(np.exp(calibrated)[:, malignant].sum(axis=1), truth)
        with torch.inference_mode():
            _, distance = familiarity(torch.from_numpy(stacked("features")))
        counts = Counter(record.label for record in self._labelled("train"))
        limits = Thresholds(
            see_doctor=see_doctor,
            urgent=urgent,
            unfamiliar=unfamiliar_limit(distance.numpy()),
            class_offsets=class_offsets(calibrated, targets, [counts[name] for name in labels]),
        )
        without = stacked("without") if self.run.metadata else None

        def figures(limits: Thresholds) -> dict:
            found = class_figures(calibrated, targets, groups, labels, limits)
            if without is not None:
                alone = log_softmax(without / temperature)
                found["without_metadata"] = class_figures(alone, targets, groups, labels, limits)
            return found

        self._figures = figures
        return limits, {
            **self._origin(len(targets)),
            "malignant": int(truth.sum()),
            "temperature": temperature,
            "ece_before": metrics.expected_calibration_error(np.exp(log_softmax(logits)), targets),
            **figures(limits),
            "balanced_accuracy_without_offsets": metrics.balanced_accuracy(
                calibrated.argmax(axis=1), targets, len(labels)
            ),
        }

    def exam(self) -> Exam:
        """The validation pictures for the gate that each precision has to pass."""
        run = self.run

        def counts(record: Record) -> bool:
            masked = record.mask is not None and run.kind != "classifier"
            return masked or (record.label in run.labels)

        records = sample(self._records(PART, run.kind, counts), EXAM_PICTURES)
        note = f"reading the {run.kind}'s validation pictures"
        sights = feed(records, run.preprocessing, run.metadata, self.crop, note)
        if run.kind != "classifier":
            sights = [sight for sight in sights if _has_good_mask(sight)]
        labels = {name: number for number, name in enumerate(run.labels)}
        return Exam(
            feeds=[sight.feeds for sight in sights],
            groups=self._groups([sight.record for sight in sights]),
            labels=run.labels,
            targets=np.array([labels.get(sight.record.label, -1) for sight in sights]),
            masks=[sight.record.mask for sight in sights],
            placements=[sight.placement for sight in sights],
        )

    def calibration(self, count: int) -> list[dict[str, np.ndarray]]:
        """About `count` training pictures as the graph takes them, of all classes."""
        run = self.run
        records = list(self.split.select(self.data_set.records, "train"))
        note = f"reading the {run.kind}'s training pictures"
        # A few more than asked for: some classes may round down, some files may be broken.
        chosen = sample(records, count + 16)
        return [s.feeds for s in feed(chosen, run.preprocessing, run.metadata, self.crop, note)]

    def classes_again(self, limits: Thresholds) -> dict:
        """`classes`' figures that depend on thresholds, with other ones. After `classes` alone."""
        return self._figures(limits)

    def _labelled(self, part: str) -> list[Record]:
        return self._records(part, "classifier", lambda record: record.label in self.run.labels)

    def _records(self, part: str, role: str, fits: Callable[[Record], bool]) -> list[Record]:
        records = list(filter(fits, self.split.select(self.data_set.records, part)))
        if not records:
            raise self._nothing(part, role)
        return records

    def _nothing(self, part: str, role: str) -> ExportError:
        name = "training" if part == "train" else "validation"
        return ExportError(
            f"the {name} part of {self.run.data_set} has no picture that a {role} can be "
            "measured on: train with a split that has one"
        )

    def _look(
        self, part: str, role: str, records: Sequence[Record], judge: Callable[[Sight], object]
    ) -> tuple[list, np.ndarray]:
        """What `judge` makes of each picture, and the lesion or patient it shows, int (n,)."""
        every = -(-len(records) // PARITY_PICTURES)
        compared = {record.id for record in records[::every]} if part == PART else ()

        def judged(sight: Sight) -> tuple[str, object, dict | None]:
            name = sight.record.id
            return name, judge(sight), sight.feeds if name in compared else None

        note = f"{'validating' if part == PART else 'studying'} the {role}"
        spec = self.run.preprocessing
        found = look(self.model, spec, records, judged, self.crop, note)
        if not found:
            raise self._nothing(part, role)
        self.feeds += [feeds for _, _, feeds in found if feeds is not None]
        by_id = {record.id: record for record in records}
        groups = self._groups([by_id[name] for name, _, _ in found])
        return [value for _, value, _ in found], groups

    def _groups(self, records: Sequence[Record]) -> np.ndarray:
        """Which lesion or patient each record shows, int (n,)."""
        group_of = {
            record.id: number
            for number, group in enumerate(group_records(records, self.data_set.same))
            for record in group
        }
        return np.array([group_of[record.id] for record in records])

    def _origin(self, pictures: int) -> dict:
        return {
            "data_set": self.run.data_set,
            "part": PART,
            "split_sha256": self.run.split_sha256,
            "pictures": pictures,
        }


def _drawn_mask(sight: Sight) -> np.ndarray:
    return read_lesion_mask(sight.record.mask, sight.placement.height, sight.placement.width)


def _has_good_mask(sight: Sight) -> bool:
    """False, with a line, where the mask cannot be used."""
    try:
        if sight.record.mask:
            _drawn_mask(sight)
    except ImageError as error:
        print(f"left out {sight.record.id}: {error}", file=sys.stderr)
        return False
    return True


@dataclass(frozen=True, eq=False)
class Training:
    """Training pictures as a classifier sees them; one entry a picture."""

    labels: np.ndarray  # int (n,)
    groups: np.ndarray  # int (n,): lesion or patient
    features: np.ndarray  # float32 (n, D)
    right: np.ndarray  # bool (n,): named by its label
    thumbnails: np.ndarray  # uint8 (n, THUMBNAIL, THUMBNAIL, 3)

    def cases(self, familiarity: Familiarity, most: int, pictures: bool) -> bytes | None:
        """The part `cases.npz`: cases to show beside a picture that resembles them; None: no case.

        They were named rightly and show different lesions, `most` of a class: fewer where there
        are no more, or where they would take more room than `CASES_BYTES`. Without `pictures`
        their embeddings and labels travel alone.
        """
        if not self.right.any():
            return None
        with torch.inference_mode():
            embeddings = familiarity(torch.from_numpy(self.features))[0].numpy()
        chosen = []
        for label in np.unique(self.labels[self.right]):
            rows = np.flatnonzero((self.labels == label) & self.right)
            _, first = np.unique(self.groups[rows], return_index=True)
            chosen.append(rows[np.sort(first)])
        while True:
            rows = np.concatenate([found[:most] for found in chosen])
            content = Cases.make(
                embeddings[rows],
                self.labels[rows],
                # Names of this bundle alone: the data set's may be a hospital's file names.
                [f"case-{number}" for number in range(1, 1 + len(rows))],
                self.thumbnails[rows] if pictures else (),
            ).to_bytes()
            if len(content) <= CASES_BYTES:
                return content
            most -= 1
