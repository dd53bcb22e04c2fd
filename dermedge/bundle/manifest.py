"""The manifest of a bundle: what it says of its networks, as frozen values, and their checks."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dermedge import UserError
from dermedge.bundle.manifest_check import load_json, manifest_check
from dermedge.image.preprocess import Preprocessing
from dermedge.taxonomy import CLASSES

FORMAT = 3  # 2: the same network in several precisions; 3: a release number
ROLES = ("segmenter", "classifier")
PRECISIONS = ("fp32", "fp16", "int8")
# Whose arithmetic an INT8 graph is made for. TensorRT and ARM take signed activations, x86
# computes unsigned ones two to four times faster.
TARGETS = ("x86", "arm", "tensorrt", "android")
WEIGHTS = ("full", "half")
CASES = "cases.npz"  # optional part: labelled training cases, see `dermedge.bundle.similar`
OUTLIERS = "outlier.npz"  # optional part: tells pictures without a lesion, see `dermedge.outlier`
GRAPH_SUFFIX = ".onnx"
MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
MAX_BYTES = 1 << 30  # of the file, and of all its parts inflated
PART_NAME = re.compile(r"(?=.{1,80}\Z)[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")


class BundleError(UserError, ValueError):
    """The bundle cannot be used; the message says why in one line."""


class BundleRefused(BundleError):
    """The file is there, but is damaged, hostile, or made by somebody who is not trusted."""

    exit_status = 1

    @staticmethod
    def of(path: Path, reason: Exception) -> BundleRefused:
        """Of the file `path`, for a reason that begins with "it" or "its"."""
        return BundleRefused(
            "bundle {path} is refused: {reason}", code="bundle.refused", path=path, reason=reason
        )


@dataclass(frozen=True)
class Variant:
    """The same network in another precision; `export.acceptance` let it in."""

    part: str  # name of the part that holds the ONNX graph
    precision: str  # "fp16" or "int8"
    targets: tuple[str, ...]  # those of `TARGETS` that it is made for


@dataclass(frozen=True)
class Model:
    """One network of the bundle. A network that plays both roles is listed in each, alike."""

    part: str  # name of the part that holds the ONNX graph
    architecture: str  # name in the registry of the train room
    preprocessing: Preprocessing
    precision: str = "fp32"
    parameters: int | None = None
    macs: int | None = None  # multiply-accumulates of one picture
    weights: str = "full"  # "half": stored in half precision, cast and computed in `precision`
    metadata: tuple[str, ...] = ()  # those of `dermedge.metadata.FIELDS` that it can take
    targets: tuple[str, ...] = TARGETS  # that `part` is made for; fewer in a sliced bundle
    variants: tuple[Variant, ...] = ()  # `part` in other precisions

    @property
    def first(self) -> Variant:
        """`part`, which runs where nothing else was chosen."""
        return Variant(self.part, self.precision, self.targets)

    def variant(self, precision: str, target: str) -> Variant | None:
        """`part` itself or the variant that has this precision and is made for this target."""
        every = (self.first, *self.variants)
        fitting = (v for v in every if v.precision == precision and target in v.targets)
        return next(fitting, None)


@dataclass(frozen=True)
class Thresholds:
    """Where numbers become decisions; all were chosen on the validation part."""

    mask: float = 0.5  # lesion probability of a pixel
    see_doctor: float = 0.5  # malignancy
    urgent: float = 0.8  # malignancy, at least `see_doctor`
    unfamiliar: float | None = None  # distance from the training pictures; None: not judged
    # Added to log(probability) before the most likely class is named, one a label: logit
    # adjustment (Menon et al., ICLR 2021). Malignancy and probabilities stay as they are.
    class_offsets: tuple[float, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself; see `Bundle.open` for what is checked."""

    name: str
    created: str  # ISO 8601, UTC
    labels: tuple[str, ...]  # of the classifier's outputs, in order; () without a classifier
    models: dict[str, Model]  # role: one of ROLES; a single role is for evaluation alone
    thresholds: Thresholds
    licence: str
    procedural: bool  # trained on generated pictures: not for real skin
    training_data: tuple[dict[str, Any], ...] = ()
    measured: dict[str, Any] = field(default_factory=dict)  # accuracy on the validation part
    parity: dict[str, Any] = field(default_factory=dict)  # of exported graph and trained network
    gate: tuple[dict[str, Any], ...] = ()  # precisions that were tried: figures, passed or why not
    software: dict[str, Any] = field(default_factory=dict)  # versions that made it
    # Name: {"sha256": ..., "bytes": ...}
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Counts up with each release under this name; a device that trusts the signing key takes no
    # earlier one again, see `dermedge.bundle.releases`. None: the maker does not count.
    release: int | None = None

    def to_json(self) -> str:
        """The text of `manifest.json`, with its own checksum."""
        content = {"format": FORMAT, **asdict(self)}
        if self.release is None:
            # Older versions of dermedge read it, too.
            del content["release"]
            content["format"] = 2
        content["checksum"] = _checksum(content)
        return json.dumps(content, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Raises BundleError where the manifest is newer, incomplete or contradicts itself."""
        try:
            content = load_json(text)
        except (ValueError, RecursionError) as error:
            reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
            raise BundleError(
                "its manifest is not JSON ({reason})", code="bundle.manifest", reason=reason[:80]
            ) from None
        if not isinstance(content, dict) or type(content.get("format")) is not int:
            raise BundleError("its manifest has no format number")
        if content["format"] > FORMAT:
            raise BundleError(
                "it has format {format}, newer than this dermedge reads ({known}): update dermedge",
                code="bundle.newer",
                format=str(content["format"])[:20],
                known=FORMAT,
            )
        if content.pop("checksum", None) != _checksum(content):
            raise BundleError("its manifest was changed after export")
        content.pop("format")
        try:
            _CHECK("", content)
            manifest = _manifest(content)
            _validate(manifest)
        except ValueError as error:
            raise BundleError(
                "its manifest is not valid ({reason})", code="bundle.manifest", reason=error
            ) from None
        return manifest


def _checksum(content: dict[str, Any]) -> str:
    plain = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


_CHECK = manifest_check(ROLES, PRECISIONS, TARGETS, WEIGHTS, CLASSES, PART_NAME, MAX_BYTES)


def _manifest(content: dict[str, Any]) -> Manifest:
    """From JSON that `_CHECK` let in."""
    values = dict(content)
    values["labels"] = tuple(values["labels"])
    values["training_data"] = tuple(values.get("training_data", ()))
    values["gate"] = tuple(values.get("gate", ()))
    limits = values["thresholds"]
    offsets = tuple(limits.get("class_offsets", ()))
    values["thresholds"] = Thresholds(**{**limits, "class_offsets": offsets})
    values["models"] = {
        role: Model(
            **{
                **model,
                "preprocessing": Preprocessing.from_dict(model["preprocessing"]),
                "metadata": tuple(model.get("metadata", ())),
                "targets": tuple(model.get("targets", TARGETS)),
                "variants": tuple(
                    Variant(**{**variant, "targets": tuple(variant["targets"])})
                    for variant in model.get("variants", ())
                ),
            }
        )
        for role, model in values["models"].items()
    }
    return Manifest(**values)


def check_name(name: str) -> None:
    """Raise ValueError where a bundle cannot be called so: it becomes part of file names."""
    if not re.fullmatch(r"\w[\w .-]{0,63}", name):
        raise ValueError(f"name {name!r} may hold letters, digits, blank, '.', '_', '-'")


def _validate(manifest: Manifest) -> None:
    """Raise ValueError where the manifest, whose entries are in order, contradicts itself."""
    check_name(manifest.name)
    if len(set(manifest.labels)) != len(manifest.labels):
        raise ValueError(f"labels must be distinct names of {', '.join(CLASSES)}")
    if not manifest.models:
        raise ValueError(f"models must be {' and '.join(ROLES)}, or one of them")
    if "classifier" in manifest.models and len(manifest.labels) < 2:
        raise ValueError("labels must be two at least, for a classifier")
    for role, model in manifest.models.items():
        if len(set(model.metadata)) != len(model.metadata):
            raise ValueError(f"models.{role}.metadata names a field twice")
        for part in (model.part, *(variant.part for variant in model.variants)):
            if part not in manifest.parts:
                raise ValueError(f"the {role}'s part {part!r} is not listed")
            # Every reader knows a graph, which is checked, by its name.
            if not part.endswith(GRAPH_SUFFIX):
                raise ValueError(f"the {role}'s part {part!r} must end in {GRAPH_SUFFIX}")
        _validate_targets(role, model)
        if role == "segmenter" and model.preprocessing.crop:
            raise ValueError("a segmenter sees the whole picture: its crop must be 0")
        if model.preprocessing.crop and "segmenter" not in manifest.models:
            raise ValueError("models has a classifier that crops, but no segmenter to say where")
    models = list(manifest.models.values())
    if len({model.part for model in models}) < len(models) and models[0] != models[1]:
        raise ValueError("a part that plays both roles must be described alike in both")
    _validate_thresholds(manifest.thresholds, len(manifest.labels))
    for name in manifest.parts:
        if name in (MANIFEST, SIGNATURE):
            raise ValueError(f"part name {name!r} is not allowed")
    if sum(entry["bytes"] for entry in manifest.parts.values()) > MAX_BYTES:
        raise ValueError(f"parts are larger than {MAX_BYTES >> 20} MiB")


def _validate_targets(role: str, model: Model) -> None:
    """Raise ValueError where it is not clear which graph of a role a device is to take."""
    if not model.targets:
        raise ValueError(f"targets of the {role} must be some of {', '.join(TARGETS)}")
    pairs = {(model.precision, target) for target in model.targets}
    for variant in model.variants:
        for target in variant.targets:
            if (variant.precision, target) in pairs:
                raise ValueError(f"the {role} has two {variant.precision} graphs for {target}")
            pairs.add((variant.precision, target))


def _validate_thresholds(limits: Thresholds, labels: int) -> None:
    if limits.urgent < limits.see_doctor:
        raise ValueError("threshold urgent lies below see_doctor")
    if limits.class_offsets and len(limits.class_offsets) != labels:
        raise ValueError(f"class_offsets must be {labels} numbers, one a label")
