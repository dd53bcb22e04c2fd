"""A network of a finished bundle for the role that no run plays.

Class folders without masks, which most people have, train a classifier alone; the app needs a
segmenter too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import CASES, OUTLIERS, ROLES, Model, Thresholds
from dermedge.data.fingerprint import of_names
from dermedge.data.leak import FILE, ROLE_SHIFT, TrainingPictures
from dermedge.runtime import open_session
from dermedge.verify import verify
from export import ExportError
from export.bundle.reference import ReferenceNetwork
from export.runs.load import TrainedNetwork, leak_of_test
from export.validation.prepared import Crop, cropper
from train.run import training_pictures


@dataclass(frozen=True, eq=False)
class LentNetwork:
    """One network of a finished bundle, with all that the bundle says of it."""

    role: str
    lender: Bundle
    model: Model  # its parts named as an export names them
    graphs: dict[str, bytes]  # by part

    @property
    def training(self) -> TrainingPictures:
        """What it learnt from. Where its bundle does not list that, it is `unknown`."""
        nothing = of_names(())
        whole = TrainingPictures(nothing, np.zeros(0, np.uint8))
        if FILE in self.lender.manifest.parts:
            whole = TrainingPictures.from_bytes(self.lender.part(FILE), str(self.lender.path))
        mine = replace(whole, use=whole.use & (15 << ROLE_SHIFT[self.role]))
        if mine.roles():
            return mine
        name = f"the {self.role} of {self.lender.manifest.name}@{self.lender.sha256[:12]}"
        return TrainingPictures(nothing, mine.use[:0], unknown=(*whole.unknown, name))

    @property
    def training_data(self) -> dict:
        """Its entry in the manifest, which names the bundle that it comes from."""
        manifest = self.lender.manifest
        entries = [entry for entry in manifest.training_data if entry.get("role") == self.role]
        entry = entries[0] if entries else {"role": self.role, "licence": manifest.licence}
        origin = {"name": manifest.name, "sha256": self.lender.sha256, "licence": manifest.licence}
        return {**entry, "from_bundle": origin}

    @property
    def reports(self) -> tuple[dict, ...]:
        """What was said of its precisions."""
        return tuple(r for r in self.lender.manifest.gate if r["roles"] == [self.role])

    @property
    def similar(self) -> bytes | None:
        """The similar cases that go with a classifier."""
        if self.role != "classifier" or CASES not in self.lender.manifest.parts:
            return None
        return self.lender.part(CASES)

    @property
    def reference(self) -> ReferenceNetwork:
        return ReferenceNetwork(self.role, self.graphs[self.model.part], self.model.preprocessing)

    @property
    def outlines(self) -> tuple[bytes, float]:
        """A segmenter's FP32 graph and mask threshold: what decides where it finds lesions."""
        return self.graphs[self.model.part], self.lender.manifest.thresholds.mask

    @property
    def crop(self) -> Crop | None:
        """Where it finds the lesion; None: it is no segmenter."""
        if self.role != "segmenter":
            return None
        session = open_session(self.graphs[self.model.part])
        return cropper(session, self.model.preprocessing, self.lender.manifest.thresholds.mask)

    def with_thresholds(self, thresholds: Thresholds) -> Thresholds:
        """The thresholds of the other network, this one's own in their place."""
        own = self.lender.manifest.thresholds
        if self.role == "segmenter":
            return replace(thresholds, mask=own.mask)
        return replace(own, mask=thresholds.mask)


def lend(lender: Bundle, networks: Sequence[TrainedNetwork]) -> LentNetwork:
    """The network that is missing beside `networks`, from a finished bundle.

    Raises ExportError where none is missing, or the bundle's does not fit: it has none in FP32,
    one network plays both roles, its classifier was calibrated on crops that its own segmenter
    placed, or this machine does not compute what the bundle's maker did.
    """
    played = {role for network in networks for role in network.roles}
    missing = [role for role in ROLES if role not in played]
    if not missing:
        raise ExportError("the runs play both roles: leave --with away")
    (role,) = missing
    manifest, path = lender.manifest, lender.path
    model = manifest.models.get(role)
    if model is None:
        raise ExportError(f"{path} has no {role} to take: give --with a bundle that has one")
    if len(manifest.models) > 1 and len({m.part for m in manifest.models.values()}) == 1:
        raise ExportError(
            f"one network of {path} plays both roles, so its {role} cannot be taken alone: give "
            "--with a bundle of two networks"
        )
    if model.precision != "fp32":
        raise ExportError(
            f"{path} has its {role} in {model.precision} alone: give --with the whole bundle, not "
            "a slice of it"
        )
    if model.preprocessing.crop:
        raise ExportError(
            f"the {role} of {path} was calibrated on crops that its own segmenter places: give "
            "--with a bundle whose classifier is fed with whole pictures"
        )
    failed = [check for check in verify(lender) if check.verdict == "fail"]
    if failed:
        raise ExportError(f"{path} fails `dermedge verify`: {failed[0].name}: {failed[0].detail}")
    lent = _renamed(role, lender, model)
    if OUTLIERS in manifest.parts:
        print(
            f"what tells pictures without a lesion in {path} is left out: it was fitted to both of "
            "its networks; `python -m export.outliers.add` fits one to these",
            file=sys.stderr,
        )
    _warn_of_leaks(lent, networks)
    return lent


def _renamed(role: str, lender: Bundle, model: Model) -> LentNetwork:
    variants = tuple(
        replace(variant, part=f"{role}-{variant.precision}-{variant.targets[0]}.onnx")
        for variant in model.variants
    )
    graphs = {f"{role}.onnx": lender.part(model.part)}
    for old, new in zip(model.variants, variants, strict=True):
        graphs[new.part] = lender.part(old.part)
    renamed = replace(model, part=f"{role}.onnx", variants=variants)
    return LentNetwork(role, lender, renamed, graphs)


def _warn_of_leaks(lent: LentNetwork, networks: Sequence[TrainedNetwork]) -> None:
    """A line where the lent network learnt from pictures that the runs are tested on.

    `evaluate` says so again of every figure: the bundle lists what both networks learnt from.
    """
    known, where = lent.training, f"the {lent.role} of {lent.lender.path}"
    if not known.roles():
        print(f"warning: {where} does not list what it learnt from", file=sys.stderr)
        return
    for network in networks:
        if leak := leak_of_test(known, training_pictures(network.run)):
            print(
                f"warning: of {network.run.data_set}, {leak.line} were in the training of {where}: "
                f"figures of the {lent.role} on them are too good",
                file=sys.stderr,
            )
