"""The bundle: the one file that leaves the desktop.

A bundle (`NAME.dermbundle`) is a ZIP archive: `manifest.json`, the parts that the manifest lists
(ONNX models, the frozen split, reference inputs, labelled cases) and, where it was signed,
`signature.json`. Nothing is ever unpacked to disk; a reader checks every byte before it uses one.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from dermedge import UserError
from dermedge.files import write_atomic
from dermedge.metadata import FIELDS
from dermedge.preprocess import Preprocessing
from dermedge.taxonomy import CLASSES

SUFFIX = ".dermbundle"
SHIPPED = Path(__file__).parent / "models"  # bundles that come with dermedge
DEFAULT = "dermoscopy"  # one of them
FORMAT = 2  # 2: the same network in several precisions
ROLES = ("segmenter", "classifier")
PRECISIONS = ("fp32", "fp16", "int8")
# Whose arithmetic an INT8 graph is made for. TensorRT and ARM take signed activations, x86
# computes unsigned ones two to four times faster.
TARGETS = ("x86", "arm", "tensorrt", "android")
WEIGHTS = ("full", "half")
CASES = "cases.npz"  # optional part: labelled training cases, see `dermedge.cases`
MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
MAX_BYTES = 1 << 30  # of the file, and of all its parts inflated
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")


class BundleError(UserError, ValueError):
    """The bundle cannot be used; the message says why in one line."""


@dataclass(frozen=True)
class Variant:
    """The same network in another precision; it has passed the gate of `export.gate`."""

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
    training_data: tuple[dict, ...] = ()
    measured: dict = field(default_factory=dict)  # accuracy on the validation part
    parity: dict = field(default_factory=dict)  # exported graph against the trained network
    gate: tuple[dict, ...] = ()  # each precision that was tried: figures, passed or why not
    software: dict = field(default_factory=dict)  # versions that made it
    parts: dict[str, dict] = field(default_factory=dict)  # name: {"sha256": ..., "bytes": ...}

    def to_json(self) -> str:
        content = {"format": FORMAT, **asdict(self)}
        content["checksum"] = _checksum(content)
        return json.dumps(content, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Raises BundleError where the manifest is newer, incomplete or contradicts itself."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise BundleError("its manifest is not JSON") from None
        if not isinstance(content, dict) or not isinstance(content.get("format"), int):
            raise BundleError("its manifest has no format number")
        if content["format"] > FORMAT:
            raise BundleError(
                f"it has format {content['format']}, newer than this dermedge reads ({FORMAT}): "
                "update dermedge"
            )
        if content.pop("checksum", None) != _checksum(content):
            raise BundleError("its manifest was changed after export")
        content.pop("format")
        try:
            manifest = _manifest(content)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise BundleError(f"its manifest is not valid ({error})") from None
        return manifest


def _checksum(content: dict) -> str:
    plain = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _manifest(content: dict) -> Manifest:
    unknown = sorted(set(content) - {item.name for item in fields(Manifest)})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]}")
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
    manifest = Manifest(**values)
    _validate(manifest)
    return manifest


def _validate(manifest: Manifest) -> None:
    """Raise ValueError where the manifest contradicts itself."""
    for name in ("name", "created", "licence"):
        if not isinstance(getattr(manifest, name), str) or not getattr(manifest, name).strip():
            raise ValueError(f"{name} is missing")
    # The name becomes part of file names.
    if not re.fullmatch(r"\w[\w .-]{0,63}", manifest.name):
        raise ValueError(f"name {manifest.name!r} may hold letters, digits, blank, '.', '_', '-'")
    if not isinstance(manifest.procedural, bool):
        raise ValueError("procedural must be true or false")
    unknown = [label for label in manifest.labels if label not in CLASSES]
    if unknown or len(set(manifest.labels)) != len(manifest.labels):
        raise ValueError(f"labels must be distinct names of {', '.join(CLASSES)}")
    if not manifest.models or not set(manifest.models) <= set(ROLES):
        raise ValueError(f"models must be {' and '.join(ROLES)}, or one of them")
    if "classifier" in manifest.models and len(manifest.labels) < 2:
        raise ValueError("a classifier needs at least two labels")
    for role, model in manifest.models.items():
        if model.precision not in PRECISIONS:
            raise ValueError(f"precision of the {role} must be one of {', '.join(PRECISIONS)}")
        if model.weights not in WEIGHTS:
            raise ValueError(f"weights of the {role} must be one of {', '.join(WEIGHTS)}")
        if len(set(model.metadata)) != len(model.metadata) or set(model.metadata) - set(FIELDS):
            raise ValueError(f"metadata of the {role} must be some of {', '.join(FIELDS)}")
        for part in (model.part, *(variant.part for variant in model.variants)):
            if part not in manifest.parts:
                raise ValueError(f"the {role}'s part {part!r} is not listed")
        _validate_targets(role, model)
        if role == "segmenter" and model.preprocessing.crop:
            raise ValueError("a segmenter sees the whole picture: its crop must be 0")
    models = list(manifest.models.values())
    if len({model.part for model in models}) < len(models) and models[0] != models[1]:
        raise ValueError("a part that plays both roles must be described alike in both")
    _validate_thresholds(manifest.thresholds, len(manifest.labels))
    for name, entry in manifest.parts.items():
        if not _PART_NAME.fullmatch(name) or name in (MANIFEST, SIGNATURE):
            raise ValueError(f"part name {name!r} is not allowed")
        if not re.fullmatch(r"[0-9a-f]{64}", str(entry.get("sha256"))):
            raise ValueError(f"part {name!r} has no SHA-256")


def _validate_targets(role: str, model: Model) -> None:
    """Raise ValueError where it is not clear which graph of a role a device is to take."""
    if not model.targets or not set(model.targets) <= set(TARGETS):
        raise ValueError(f"targets of the {role} must be some of {', '.join(TARGETS)}")
    taken = {(model.precision, target) for target in model.targets}
    for variant in model.variants:
        if variant.precision not in PRECISIONS or not set(variant.targets) <= set(TARGETS):
            raise ValueError(f"a variant of the {role} has a strange precision or target")
        for target in variant.targets:
            if (variant.precision, target) in taken:
                raise ValueError(f"the {role} has two {variant.precision} graphs for {target}")
            taken.add((variant.precision, target))


def _validate_thresholds(limits: Thresholds, labels: int) -> None:
    for name in ("mask", "see_doctor", "urgent"):
        value = getattr(limits, name)
        if not _is_number(value) or not 0 < value <= 1:
            raise ValueError(f"threshold {name} must lie in (0, 1], got {value!r}")
    if limits.urgent < limits.see_doctor:
        raise ValueError("threshold urgent lies below see_doctor")
    if limits.unfamiliar is not None and not _is_number(limits.unfamiliar, above=0):
        raise ValueError(f"threshold unfamiliar must be above 0, got {limits.unfamiliar!r}")
    offsets = limits.class_offsets
    if offsets and (len(offsets) != labels or not all(map(_is_number, offsets))):
        raise ValueError(f"class_offsets must be {labels} numbers, one a label")


def _is_number(value: object, above: float = -math.inf) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > above
    )


def shipped() -> dict[str, Path]:
    """The bundles that come with dermedge, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob(f"*{SUFFIX}"))}


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, every part of it checked."""

    path: Path
    manifest: Manifest
    sha256: str  # of the whole file
    signed_by: str | None  # fingerprint of the key whose signature was checked
    _parts: dict[str, bytes] = field(repr=False)

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
        found = self.manifest.models[role].variant(precision, target)
        if found is not None:
            return found
        reasons = [
            f": the export refused it, {'; '.join(report['reasons'])}"
            for report in self.manifest.gate
            if role in report["roles"]
            and report["precision"] == precision
            and target in report["targets"]
            and not report["passed"]
        ]
        raise BundleError(
            f"bundle {self.path} has no {precision} {role} for {target}{(reasons or [''])[0]}"
        )

    def sliced(self, chosen: Mapping[str, Variant]) -> Bundle:
        """The same bundle with a single graph a role, its `path` and `sha256` as they are.

        `chosen` maps roles to what `variant` gives; roles that are not named keep their first.
        """
        models = {}
        for role, model in self.manifest.models.items():
            taken = chosen.get(role, Variant(model.part, model.precision, model.targets))
            models[role] = replace(model, **asdict(taken), variants=())
        dropped = self.graphs() - {model.part for model in models.values()}
        parts = {name: value for name, value in self._parts.items() if name not in dropped}
        listing = {name: self.manifest.parts[name] for name in parts}
        manifest = replace(self.manifest, models=models, parts=listing)
        return replace(self, manifest=manifest, _parts=parts)

    def graphs(self) -> set[str]:
        """The names of all parts that are graphs of the networks."""
        models = self.manifest.models.values()
        return {v.part for model in models for v in (model, *model.variants)}

    @classmethod
    def open(cls, path: str | Path, trusted_key: bytes | None = None) -> Bundle:
        """Read and check a bundle.

        Parameters
        ----------
        path : the `.dermbundle` file.
        trusted_key : Ed25519 public key (PEM). Given, the bundle must carry its signature.

        Raises
        ------
        BundleError
            In one line, where the file is truncated, tampered with, newer, incomplete, signed by
            another key, or names anything outside of itself.
        """
        path = Path(path)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise BundleError(f"it is larger than {MAX_BYTES >> 20} MiB")
            content = path.read_bytes()
            members = _members(content)
            if MANIFEST not in members:
                raise BundleError("it has no manifest")
            manifest = Manifest.from_json(members[MANIFEST])
            signed_by = _check_signature(members, trusted_key)
            parts = {
                name: value for name, value in members.items() if name not in (MANIFEST, SIGNATURE)
            }
            _check_parts(parts, manifest)
        except OSError as error:
            raise BundleError(f"cannot read bundle {path}: {error.strerror}") from None
        except BundleError as error:
            raise BundleError(f"bundle {path} is refused: {error}") from None
        digest = hashlib.sha256(content).hexdigest()
        return cls(path, manifest, digest, signed_by, parts)


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
        raise BundleError(f"a bundle's name ends in {SUFFIX}, got {path.name}")
    listing = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in parts.items()
    }
    manifest = replace(manifest, parts=listing)
    try:
        _validate(manifest)
    except ValueError as error:
        raise BundleError(f"cannot write {path.name}: {error}") from None
    text = manifest.to_json().encode()
    _check_parts(parts, manifest)
    members = {MANIFEST: text, **dict(sorted(parts.items()))}
    if signing_key is not None:
        members[SIGNATURE] = _sign(text, signing_key)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            # Fixed time and level: equal contents give an equal file.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=9)
    write_atomic(path, buffer.getvalue())
    return path


def _members(content: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            for entry in entries:
                if not _PART_NAME.fullmatch(entry.filename):
                    raise BundleError(f"it names {entry.filename!r}, outside of a bundle")
                if entry.compress_type not in _COMPRESSIONS or entry.flag_bits & 1:
                    raise BundleError(f"its part {entry.filename} is encrypted or packed strangely")
            if len(set(names)) != len(names):
                raise BundleError("it holds a part twice")
            if sum(entry.compress_size for entry in entries) > len(content):
                raise BundleError("its parts overlap")
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise BundleError(f"its parts are larger than {MAX_BYTES >> 20} MiB")
            return {entry.filename: _read(archive, entry) for entry in entries}
    except BundleError:
        raise
    # zipfile raises many kinds on broken archives, struct.error and NotImplementedError included.
    except Exception:
        raise BundleError(
            "it is truncated, damaged or no bundle; copy or export it again"
        ) from None


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    # With a count, unlike without one, no more is inflated than the entry said it holds.
    with archive.open(entry) as file:
        return file.read(entry.file_size)


def _check_parts(parts: dict[str, bytes], manifest: Manifest) -> None:
    missing = sorted(set(manifest.parts) - set(parts))
    if missing:
        raise BundleError(f"its part {missing[0]} is missing")
    extra = sorted(set(parts) - set(manifest.parts))
    if extra:
        raise BundleError(f"it holds {extra[0]}, which its manifest does not list")
    for name, content in parts.items():
        if hashlib.sha256(content).hexdigest() != manifest.parts[name]["sha256"]:
            raise BundleError(f"its part {name} does not match its SHA-256")
        if name.endswith(".onnx") and _has_external_data(content):
            raise BundleError(f"its part {name} wants to read weights from another file")


def _sign(text: bytes, signing_key: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(signing_key, password=None)
    except (ValueError, TypeError):
        raise BundleError("the signing key is no unencrypted PEM private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError("the signing key is not an Ed25519 key")
    public = key.public_key().public_bytes_raw().hex()
    return json.dumps({"public_key": public, "signature": key.sign(text).hex()}).encode()


def _check_signature(members: dict[str, bytes], trusted_key: bytes | None) -> str | None:
    """Fingerprint (first 16 hex digits of the key's SHA-256) of the signer, None if unsigned."""
    if SIGNATURE not in members:
        if trusted_key is not None:
            raise BundleError("it is not signed, but a trusted key was given")
        return None
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError:
        if trusted_key is not None:
            raise BundleError(
                "its signature cannot be checked here: pip install 'dermedge[sign]'"
            ) from None
        return None
    try:
        entry = json.loads(members[SIGNATURE])
        public = bytes.fromhex(entry["public_key"])
        signature = bytes.fromhex(entry["signature"])
        Ed25519PublicKey.from_public_bytes(public).verify(signature, members[MANIFEST])
    except (ValueError, KeyError, TypeError, RecursionError, InvalidSignature):
        raise BundleError("its signature does not fit its manifest") from None
    if trusted_key is not None:
        try:
            trusted = serialization.load_pem_public_key(trusted_key).public_bytes_raw()
        except (ValueError, AttributeError):
            raise BundleError("the trusted key is no Ed25519 public key in PEM") from None
        if trusted != public:
            raise BundleError("it is signed by another key than the trusted one")
    return hashlib.sha256(public).hexdigest()[:16]


# Field numbers of onnx.proto3: message kind -> {field: kind of the sub-message}.
_ONNX = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14


def _has_external_data(model: bytes) -> bool:
    """Whether an ONNX graph points to files beside it. The device has no `onnx` to ask."""
    try:
        return _external(memoryview(model), "model", depth=0)
    except (IndexError, ValueError):
        raise BundleError("its ONNX graph is damaged") from None


def _external(message: memoryview, kind: str, depth: int) -> bool:
    if depth > 64:
        raise ValueError("nested too deep")
    for number, value in protobuf_fields(message):
        if kind == "tensor":
            if number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value == 1):
                return True
            continue
        inner = _ONNX[kind].get(number)
        if inner and isinstance(value, memoryview) and _external(value, inner, depth + 1):
            return True
    return False


def protobuf_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The field numbers and values of a protobuf message. IndexError, ValueError: damaged."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("varint too long")

    while position < len(message):
        key = varint()
        wire = key & 7
        if wire == 0:
            yield key >> 3, varint()
            continue
        length = {1: lambda: 8, 2: varint, 5: lambda: 4}.get(wire)
        if length is None:
            raise ValueError("wire type")
        size = length()
        if position + size > len(message):
            raise ValueError("truncated")
        value = message[position : position + size]
        position += size
        if wire == 2:
            yield key >> 3, value
