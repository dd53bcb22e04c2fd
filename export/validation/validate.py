"""One pass of a trained network over the validation part.

What later stages need of it is kept: outputs for calibration, thresholds and figures, pictures for
the parity check and, where other precisions than FP32 are asked for, for their acceptance.

The tuning half chooses; every figure is of the accepting half. (The training kept the weights that
did best on the whole part: as far as that goes, both chose.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dermedge.data.masks import read_lesion_mask
from dermedge.data.records import Record
from dermedge.evaluation import metrics
from dermedge.image.header import ImageError
from dermedge.text import printable
from export import ExportError
from export.runs.load import TrainedNetwork
from export.validation.halves import PART, ValidationPart
from export.validation.outputs import ValidationSet
from export.validation.prepared import (
    Crop,
    Feeds,
    FeedSpec,
    Prediction,
    PreparedSample,
    predict,
    subset,
)
from export.validation.weights import prior_weights

MASK_THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
PARITY_PICTURES = 500
ACCEPTANCE_PICTURES = 1500  # of each half, that a precision is judged on


@dataclass(frozen=True, eq=False)
class MaskOutputs:
    """How well a segmenter outlines; one entry a picture with a mask."""

    jaccards: np.ndarray  # float (n, len(MASK_THRESHOLDS)), of each picture at each of them
    groups: np.ndarray  # int (n,): lesion or patient
    tuning: np.ndarray  # bool (n,): in the tuning half


@dataclass(frozen=True, eq=False)
class ClassOutputs:
    """What a classifier answers; one entry a picture with a label."""

    logits: np.ndarray  # float32 (n, K)
    without: np.ndarray | None  # float32 (n, K), nothing known of the person; None: takes nothing
    features: np.ndarray  # float32 (n, D)
    targets: np.ndarray  # int (n,): index of the label
    groups: np.ndarray  # int (n,): lesion or patient
    tuning: np.ndarray  # bool (n,): in the tuning half


@dataclass(frozen=True, eq=False)
class Validation:
    """What came of the pass."""

    network: TrainedNetwork
    spec: FeedSpec
    part: ValidationPart
    masks: MaskOutputs | None  # None: it gives no mask
    classes: ClassOutputs | None  # None: it gives no class
    parity_feeds: tuple[Feeds, ...]  # some pictures, to compare the graph with the network
    # The tuning and the accepting half for other precisions; None: FP32 alone is asked for.
    sets: tuple[ValidationSet, ValidationSet] | None

    def weights(self, half: np.ndarray) -> np.ndarray:
        """What each picture of a half weighs, so that the classes are as frequent as in the prior.

        float64; 1 where no prior was asked for. `half`, bool (n,), is of the classifier's pictures.
        """
        assert self.classes is not None
        prior = self.network.prior
        return prior_weights(self.classes.targets[half], None if prior is None else prior.shares)

    def origin(self, pictures: int) -> dict:
        """For the manifest: what so many pictures were measured on."""
        run = self.network.run
        return {
            "data_set": run.data_set,
            "part": PART,
            "half": "accepting",
            "halves": self.part.halves.report(),
            "split_sha256": run.split_sha256,
            "pictures": pictures,
        }


def validate(
    network: TrainedNetwork, crop: Crop | None = None, precisions: bool = False
) -> Validation:
    """Run a network over the validation part of what it was trained on.

    Parameters
    ----------
    crop : finds the lesion in a picture, for a network that is fed with crops.
    precisions : whether other precisions than FP32 will be judged on the same pictures.

    Raises
    ------
    ExportError
        Where a half has no picture for one of the network's roles, or all masks are empty.
    """
    run = network.run
    part = ValidationPart.of(network.data_set, network.split, network.recipe.modality)
    print(f"the {run.kind}'s validation part: {part.halves}", file=sys.stderr, flush=True)
    spec = FeedSpec(run.preprocessing, run.metadata, crop)
    for role in network.roles:
        if not any(serves(record, role, run.labels) for record in part.records):
            raise nothing(network, role, "validation part")
    records = [
        record
        for record in part.records
        if any(serves(record, role, run.labels) for role in network.roles)
    ]
    halves = ("tuning", "accepting") if precisions else ()
    members = [members_of(part, half, run.kind, run.labels) for half in halves]
    compared = {record.id for record in records[:: -(-len(records) // PARITY_PICTURES)]}
    kept = compared.union(record.id for half in members for record in half)
    examine = _Examiner(network.roles, run.labels, frozenset(kept))
    examined = predict(network.model, spec, records, examine, f"validating the {run.kind}")
    for one in examined:
        if one.problem:
            print(printable(one.problem), file=sys.stderr)
    usable = [one for one in examined if one.jaccards is not None or one.outputs]
    return Validation(
        network=network,
        spec=spec,
        part=part,
        masks=_masks(network, usable, part) if "segmenter" in network.roles else None,
        classes=_classes(network, usable, part) if "classifier" in network.roles else None,
        parity_feeds=tuple(
            one.sample.feeds for one in usable if one.sample and one.record.id in compared
        ),
        sets=_sets(network, part, members, usable) if precisions else None,
    )


def serves(record: Record, role: str, labels: Sequence[str]) -> bool:
    """Whether a picture can measure a network in a role; `labels` are the network's."""
    return record.mask is not None if role == "segmenter" else record.label in labels


def nothing(network: TrainedNetwork, role: str, part: str) -> ExportError:
    """That a part of the data set cannot measure a role, or a kind of network."""
    return ExportError(
        f"the {part} of {network.run.data_set} has no picture that a {role} can be measured on: "
        "train with a split that has one"
    )


@dataclass(frozen=True, eq=False)
class _Examined:
    """What is kept of one picture after the network has seen it."""

    record: Record
    jaccards: np.ndarray | None  # (len(MASK_THRESHOLDS),); None: no mask is asked for or usable
    lesion: bool  # whether its mask shows one
    outputs: dict[str, np.ndarray]  # of the classifier; {}: no label is asked for or known
    sample: PreparedSample | None  # where a later stage needs it
    problem: str = ""  # of its mask, in a line


@dataclass(frozen=True)
class _Examiner:
    """From a prediction to what is kept of it; called from several threads."""

    roles: tuple[str, ...]
    labels: tuple[str, ...]
    kept: frozenset[str]  # ids of the pictures that later stages need

    def __call__(self, prediction: Prediction) -> _Examined:
        sample = prediction.sample
        record = sample.record
        outputs: dict[str, np.ndarray] = {}
        if "classifier" in self.roles and serves(record, "classifier", self.labels):
            # Without the masks of a multitask network, which would fill the memory.
            outputs = {name: v for name, v in prediction.outputs.items() if name != "mask"}
        whole = _Examined(record, None, False, outputs, sample if record.id in self.kept else None)
        if "segmenter" not in self.roles or record.mask is None:
            return whole
        try:
            truth = drawn_mask(sample, record.mask)
        except ImageError as error:
            return replace(whole, problem=f"left out {record.id}: {error}")
        # At the size of the drawn mask, as the analysis will be judged.
        probability = sample.placement.restore(prediction.outputs["mask"], truth.shape)
        predicted = [probability >= threshold for threshold in MASK_THRESHOLDS]
        jaccards = metrics.confusion(predicted, [truth] * len(predicted)).jaccard
        return replace(whole, jaccards=jaccards, lesion=bool(truth.any()))


def drawn_mask(sample: PreparedSample, mask: Path) -> np.ndarray:
    """bool (h, w) of the whole picture. Raises ImageError where it cannot be used."""
    placement = sample.placement
    # Of the whole picture, whose plain frame the network does not see.
    height, width = placement.whole or (placement.height, placement.width)
    return read_lesion_mask(mask, height, width)


def _masks(
    network: TrainedNetwork, examined: Sequence[_Examined], part: ValidationPart
) -> MaskOutputs:
    drawn = [one for one in examined if one.jaccards is not None]
    if not drawn:
        raise nothing(network, "segmenter", "validation part")
    if not any(one.lesion for one in drawn):
        raise ExportError(
            f"all {len(drawn)} masks of the validation part of {network.run.data_set} are empty: "
            "no outline can be measured on them"
        )
    records = [one.record for one in drawn]
    return MaskOutputs(
        jaccards=np.array([one.jaccards for one in drawn]),
        groups=part.halves.groups_of(records),
        tuning=_in_tuning(network, "segmenter", records, part),
    )


def _classes(
    network: TrainedNetwork, examined: Sequence[_Examined], part: ValidationPart
) -> ClassOutputs:
    named = [one for one in examined if one.outputs]
    if not named:
        raise nothing(network, "classifier", "validation part")
    records = [one.record for one in named]
    labels = {label: number for number, label in enumerate(network.run.labels)}

    def stacked(name: str) -> np.ndarray:
        return np.stack([one.outputs[name] for one in named])

    return ClassOutputs(
        logits=stacked("classes"),
        without=stacked("without") if network.run.metadata else None,
        features=stacked("features"),
        targets=np.array([labels[str(record.label)] for record in records]),
        groups=part.halves.groups_of(records),
        tuning=_in_tuning(network, "classifier", records, part),
    )


def _in_tuning(
    network: TrainedNetwork, role: str, records: Sequence[Record], part: ValidationPart
) -> np.ndarray:
    """bool (n,): which are of the tuning half; either half has one at least."""
    tuning = part.halves.is_tuning(records)
    for name, half in (("tuning", tuning), ("accepting", ~tuning)):
        if not half.any():
            raise nothing(network, role, f"{name} half of the validation part")
    return tuning


def _sets(
    network: TrainedNetwork,
    part: ValidationPart,
    members: Sequence[Sequence[Record]],
    examined: Sequence[_Examined],
) -> tuple[ValidationSet, ValidationSet]:
    """The pictures of either half that other precisions are judged on."""
    usable = {one.record.id: one.sample for one in examined if one.sample and not one.problem}
    prior = None if network.prior is None else network.prior.shares
    tuning, accepting = (
        validation_set(part, network.run.labels, [usable.get(record.id) for record in half], prior)
        for half in members
    )
    for half, name in ((tuning, "tuning"), (accepting, "accepting")):
        if not half.feeds:
            raise nothing(network, network.run.kind, f"{name} half of the validation part")
    return tuning, accepting


def members_of(part: ValidationPart, half: str, kind: str, labels: Sequence[str]) -> list[Record]:
    """Up to about `ACCEPTANCE_PICTURES` of the "tuning" or the "accepting" half.

    labels : of a classifier; () of a segmenter.
    """
    ids = getattr(part.halves, half)

    def counts(record: Record) -> bool:
        masked = record.mask is not None and kind != "classifier"
        return record.id in ids and (masked or record.label in labels)

    return subset(list(filter(counts, part.records)), ACCEPTANCE_PICTURES)


def usable_samples(samples: Sequence[PreparedSample], kind: str) -> list[PreparedSample]:
    """Those whose masks, where a network of this kind gives one, can be used; a line for others."""
    if kind == "classifier":
        return list(samples)
    usable = []
    for sample in samples:
        try:
            if sample.record.mask:
                drawn_mask(sample, sample.record.mask)
        except ImageError as error:
            print(printable(f"left out {sample.record.id}: {error}"), file=sys.stderr)
        else:
            usable.append(sample)
    return usable


def validation_set(
    part: ValidationPart,
    labels: Sequence[str],
    samples: Sequence[PreparedSample | None],
    prior: np.ndarray | None = None,
) -> ValidationSet:
    """These pictures as a graph takes them; None is left out. `prior` is one asked for, (K,)."""
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(labels)}
    there = [sample for sample in samples if sample]
    records = [sample.record for sample in there]
    return ValidationSet(
        feeds=[sample.feeds for sample in there],
        groups=part.halves.groups_of(records),
        labels=tuple(labels),
        targets=np.array([numbers.get(record.label, -1) for record in records], int),
        masks=[record.mask for record in records],
        placements=[sample.placement for sample in there],
        prior=prior,
    )
