"""The bundle: the one file that leaves the desktop.

A bundle (`NAME.dermbundle`) is a ZIP archive: `manifest.json`, the parts that the manifest lists
(ONNX models, the frozen split, reference inputs, labelled cases) and, where it was signed,
`signature.json`. Nothing is ever unpacked to disk; a reader checks every byte before it uses one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dermedge import UserError
from dermedge.bundle import signature
from dermedge.bundle.archive import Archive, ArchiveError, DamagedError
from dermedge.bundle.graph_check import GraphError, check_graph
from dermedge.bundle.manifest_check import load_json, manifest_check
from dermedge.bundle.signature import KeyFileError, Signature, SignatureError
from dermedge.files import write_atomic
from dermedge.image.preprocess import Preprocessing
from dermedge.taxonomy import CLASSES

SUFFIX = ".dermbundle"
SHIPPED = Path(__file__).parents[1] / "models"  # bundles that come with dermedge
DEFAULT = "dermoscopy"  # one of them
FORMAT = 3  # 2: the same network in several precisions; 3: a release number
ROLES = ("segmenter", "classifier")
PRECISIONS = ("fp32", "fp16", "int8")
# Whose arithmetic an INT8 graph is made for. TensorRT and ARM take signed activations, x86
# computes unsigned ones two to four times faster.
TARGETS = ("x86", "arm", "tensorrt", "android")
WEIGHTS = ("full", "half")
GRAPH_SUFFIX = ".onnx"
CASES = "cases.npz"  # optional part: labelled training cases, see `dermedge.bundle.similar`
MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
MAX_BYTES = 1 << 30  # of the file, and of all its parts inflated
MAX_MANIFEST = 4 << 20  # bytes
MAX_PARTS = 256
_PART_NAME = re.compile(r"(?=.{1,80}\Z)[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")


class BundleError(UserError, ValueError):
    """The bundle cannot be used; the message says why in one line."""


class BundleRefused(BundleError):
    """The file is there, but is damaged, hostile, or made by somebody who is not trusted."""

    exit_status = 1


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

    def variant(self, precision: str, target: str) -> Variant | None:
        """`part` itself or the variant that has this precision and is made for this target."""
        every = (Variant(self.part, self.precision, self.targets), *self.variants)
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
    parity: dict[str, Any] = field(
        default_factory=dict
    )  # exported graph against the trained network
    gate: tuple[
        dict[str, Any], ...
    ] = ()  # each precision that was tried: figures, passed or why not
    software: dict[str, Any] = field(default_factory=dict)  # versions that made it
    parts: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # name: {"sha256": ..., "bytes": ...}
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


_CHECK = manifest_check(ROLES, PRECISIONS, TARGETS, WEIGHTS, CLASSES, _PART_NAME, MAX_BYTES)


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


def _validate(manifest: Manifest) -> None:
    """Raise ValueError where the manifest, whose entries are in order, contradicts itself."""
    # The name becomes part of file names.
    if not re.fullmatch(r"\w[\w .-]{0,63}", manifest.name):
        raise ValueError(f"name {manifest.name!r} may hold letters, digits, blank, '.', '_', '-'")
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


def shipped() -> dict[str, Path]:
    """The bundles that come with dermedge, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob(f"*{SUFFIX}"))}


def open_bundle(bundle: str | Path = DEFAULT, trusted_key: bytes | None = None) -> Bundle:
    """Open and check a bundle: a file, or one that comes with dermedge by its name.

    Parameters
    ----------
    bundle : path of a `.dermbundle` file, or a name such as "dermoscopy" or "smartphone".
    trusted_key : Ed25519 public keys (PEM); a bundle that none of them signed is refused.

    Raises
    ------
    BundleError : as `Bundle.open`.
    """
    return Bundle.open(shipped().get(str(bundle), Path(bundle)), trusted_key)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, every part of it checked."""

    path: Path
    manifest: Manifest
    sha256: str  # of the whole file
    signature: Signature
    _parts: dict[str, bytes] = field(repr=False)
    _trusted_key: bytes | None = field(default=None, repr=False)

    @property
    def signed_by(self) -> str | None:
        """Fingerprint of the trusted key that signed it. None: nobody who is trusted did."""
        return self.signature.key if self.signature.state == "trusted" else None

    def reopen(self) -> Bundle:
        """Read and check its file again, with the keys that it was opened with.

        Raises BundleError as `open`.
        """
        return Bundle.open(self.path, self._trusted_key)

    def part(self, name: str) -> bytes:
        """The bytes of one part. KeyError where the bundle has no such part."""
        return self._parts[name]

    def model(self, role: str) -> bytes:
        """The ONNX graph of a role ('segmenter' or 'classifier')."""
        return self._parts[self.manifest.models[role].part]

    def variant(self, role: str, precision: str, target: str) -> Variant:
        """The graph of a role in one of `PRECISIONS` for one of `TARGETS`.

        Raises BundleError where there is none; the message says what the export's gate said.
        """
        match = self.manifest.models[role].variant(precision, target)
        if match is not None:
            return match
        reasons = [
            f": the export refused it, {'; '.join(report['reasons'])}"
            for report in self.manifest.gate
            if role in report["roles"]
            and report["precision"] == precision
            and target in report["targets"]
            and not report["passed"]
        ]
        raise BundleError(
            "bundle {path} has no {precision} {role} for {target}{refusal}",
            code="bundle.precision",
            path=self.path,
            precision=precision,
            role=role,
            target=target,
            refusal=(reasons or [""])[0],
        )

    def sliced(self, variants: Mapping[str, Variant]) -> Bundle:
        """The same bundle with a single graph a role, its `path` and `sha256` as they are.

        `chosen` maps roles to what `variant` gives; roles that are not named keep their first.
        """
        models = {}
        for role, model in self.manifest.models.items():
            variant = variants.get(role, Variant(model.part, model.precision, model.targets))
            models[role] = replace(model, **asdict(variant), variants=())
        dropped = self.graphs() - {model.part for model in models.values()}
        parts = {name: value for name, value in self._parts.items() if name not in dropped}
        listing = {name: self.manifest.parts[name] for name in parts}
        manifest = replace(self.manifest, models=models, parts=listing)
        return replace(self, manifest=manifest, _parts=parts)

    def graphs(self) -> set[str]:
        """The names of all parts that are graphs of the networks."""
        models = self.manifest.models.values()
        return {part for m in models for part in (m.part, *(v.part for v in m.variants))}

    @classmethod
    def open(cls, path: str | Path, trusted_key: bytes | None = None) -> Bundle:
        """Read and check a bundle.

        Parameters
        ----------
        path : the `.dermbundle` file.
        trusted_key : Ed25519 public keys (PEM, one or more). Given, the bundle must carry a
            signature of one of them. Not given, a signature is checked, but says nothing of who
            made it: `signature.state` is "unknown key".

        Raises
        ------
        BundleError
            In one line, where the file is truncated, tampered with, newer, incomplete, signed by
            another key, or names anything outside of itself; or where `trusted_key` is no key.
            BundleRefused is the kind of all that lies in the file.
        """
        path = Path(path)
        try:
            trusted = None if trusted_key is None else signature.public_keys(trusted_key)
        except KeyFileError as error:
            raise BundleError(
                "cannot open bundle {path}: {reason}", code="bundle.key", path=path, reason=error
            ) from None
        try:
            content = _content(path)
            archive = _archive(content)
            text = _read(archive, MANIFEST, MAX_MANIFEST)
            manifest = Manifest.from_json(text)
            signed = None
            if SIGNATURE in archive:
                signed = _read(archive, SIGNATURE, signature.MAX_BYTES)
            proof = signature.check(signed, text, trusted)
            parts = _parts(archive, manifest)
        except OSError as error:
            raise BundleError(
                "cannot read bundle {path}: {reason}",
                code="bundle.unreadable",
                path=path,
                reason=error.strerror,
            ) from error
        except (BundleError, SignatureError) as error:
            raise BundleRefused(
                "bundle {path} is refused: {reason}",
                code="bundle.refused",
                path=path,
                reason=error,
            ) from None
        digest = hashlib.sha256(content).hexdigest()
        return cls(path, manifest, digest, proof, parts, trusted_key)


def write_bundle(
    path: str | Path,
    manifest: Manifest,
    parts: dict[str, bytes],
    signing_key: bytes | None = None,
) -> Path:
    """Write a bundle; equal contents give an equal file.

    Parameters
    ----------
    path : file to write, ending in `.dermbundle`; replaced only once all is written.
    manifest : its `parts` are filled in from `parts`.
    parts : name to content; the models' parts must be among them.
    signing_key : Ed25519 private key (PEM), where the bundle is to be signed.

    Raises
    ------
    BundleError
        Where the bundle would be refused by `Bundle.open`.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise BundleError(
            "a bundle's name ends in {suffix}, got {name}",
            code="bundle.name",
            suffix=SUFFIX,
            name=path.name,
        )
    listing = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in parts.items()
    }
    text = replace(manifest, parts=listing).to_json().encode()
    try:
        Manifest.from_json(text)
        for name, part in parts.items():
            _check_part(name, part, listing[name])
        members = {MANIFEST: text, **dict(sorted(parts.items()))}
        if signing_key is not None:
            members[SIGNATURE] = signature.sign(text, signing_key)
    except (BundleError, SignatureError) as error:
        raise BundleError(
            "cannot write {name}: {reason}", code="bundle.write", name=path.name, reason=error
        ) from None
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            # Fixed time and level: equal contents give an equal file.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=9)
    write_atomic(path, buffer.getvalue())
    return path


def _content(path: Path) -> bytes:
    # A pipe or device would be read without end.
    if not path.is_file() and path.exists() and not path.is_dir():
        raise BundleError("it is no file", code="bundle.no_file")
    with open(path, "rb") as file:
        # As much as is asked for is allocated, too.
        content = file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES) + 1)
    if len(content) > MAX_BYTES:
        raise BundleError("it is larger than {most} MiB", code="bundle.large", most=MAX_BYTES >> 20)
    return content


def _archive(content: bytes) -> Archive:
    try:
        archive = Archive(content, _PART_NAME, MAX_PARTS, MAX_BYTES)
    except DamagedError:
        raise BundleError(
            "it is truncated, damaged or no bundle; copy or export it again", code="bundle.damaged"
        ) from None
    except ArchiveError as error:
        raise BundleError("it {reason}", code="bundle.archive", reason=error) from None
    if MANIFEST not in archive:
        raise BundleError("it has no manifest")
    return archive


def _read(archive: Archive, name: str, most: int) -> bytes:
    if archive[name].file_size > most:
        raise BundleError(
            "its {part} is larger than {most} bytes", code="bundle.large", part=name, most=most
        )
    try:
        return archive.read(name)
    except ArchiveError as error:
        raise BundleError(
            "its part {part} {reason}", code="bundle.part", part=name, reason=error
        ) from None


def _parts(archive: Archive, manifest: Manifest) -> dict[str, bytes]:
    """The content of all parts that the manifest lists; nothing else is inflated."""
    names = set(archive) - {MANIFEST, SIGNATURE}
    missing = sorted(set(manifest.parts) - names)
    if missing:
        raise BundleError("its part {part} is missing", code="bundle.part", part=missing[0])
    extra = sorted(names - set(manifest.parts))
    if extra:
        raise BundleError(
            "it holds {part}, which its manifest does not list", code="bundle.part", part=extra[0]
        )
    parts = {}
    for name in sorted(names):
        parts[name] = _read(archive, name, manifest.parts[name]["bytes"])
        _check_part(name, parts[name], manifest.parts[name])
    return parts


def _check_part(name: str, content: bytes, entry: dict[str, Any]) -> None:
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise BundleError(
            "its part {part} does not match its SHA-256", code="bundle.part", part=name
        )
    if name.endswith(GRAPH_SUFFIX):
        try:
            check_graph(content)
        except GraphError as error:
            raise BundleError(
                "its part {part} {reason}", code="bundle.graph", part=name, reason=error
            ) from None
