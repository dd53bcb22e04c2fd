"""The bundle: the one file that leaves the desktop.

A bundle (`NAME.dermbundle`) is a ZIP archive: `manifest.json`, the parts that the manifest lists
(ONNX models, the frozen split, reference inputs, labelled cases) and, where it was signed,
`signature.json`. Nothing is ever unpacked to disk; a reader checks every byte before it uses one.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dermedge.bundle import signature
from dermedge.bundle.archive import Archive, ArchiveError, DamagedError
from dermedge.bundle.graph_check import GraphError, check_graph
from dermedge.bundle.manifest import (
    GRAPH_SUFFIX,
    MANIFEST,
    MAX_BYTES,
    PART_NAME,
    SIGNATURE,
    BundleError,
    BundleRefused,
    Manifest,
    Variant,
)
from dermedge.bundle.signature import KeyFileError, Signature, SignatureError
from dermedge.files import write_atomic

SUFFIX = ".dermbundle"
SHIPPED = Path(__file__).parents[1] / "models"  # bundles that come with dermedge
DEFAULT = "dermoscopy"  # one of them
MAX_MANIFEST = 4 << 20  # bytes
MAX_PARTS = 256


def shipped() -> dict[str, Path]:
    """The bundles that come with dermedge, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob(f"*{SUFFIX}"))}


def open_bundle(bundle: str | Path = DEFAULT, trusted_key: bytes | None = None) -> Bundle:
    """Open and check a bundle: a file, or one that comes with dermedge by its name.

    Parameters
    ----------
    bundle : path of a `.dermbundle` file, or a name such as "dermoscopy" or "smartphone".
    trusted_key : Ed25519 public keys, the content of a PEM file; a bundle that none of them signed
        is refused.

    Raises
    ------
    BundleError : as `Bundle.open`.
    TypeError : as `Bundle.open`.
    """
    return Bundle.open(shipped().get(str(bundle), Path(bundle)), trusted_key)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, every part of it checked.

    Attributes
    ----------
    path : its file.
    manifest : labels, networks, thresholds, licence and measured figures.
    sha256 : of the whole file, hexadecimal.
    signature : what its signature is worth here: `state` and `key`.
    """

    path: Path
    manifest: Manifest
    sha256: str
    signature: Signature
    _parts: dict[str, bytes] = field(repr=False)
    _trusted_key: bytes | None = field(default=None, repr=False)

    @property
    def signed_by(self) -> str | None:
        """Fingerprint of the trusted key that signed it. None: nobody who is trusted did."""
        return self.signature.key if self.signature.state == "trusted" else None

    @property
    def signed(self) -> bool:
        """Whether it carries a signature, whoever made it."""
        return self.signature.state != "none"

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
        model = self.manifest.models.get(role)
        match = None if model is None else model.variant(precision, target)
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

        `variants` maps roles to what `variant` gives; roles that are not named keep their first.
        """
        models = {}
        for role, model in self.manifest.models.items():
            variant = variants.get(role, model.first)
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
        trusted_key : Ed25519 public keys, the content of a PEM file with one or more. Given, the
            bundle must carry a signature of one of them. Not given, a signature is checked, but
            says nothing of who made it: `signature.state` is "unknown key".

        Raises
        ------
        BundleError
            In one line, where the file is truncated, tampered with, newer, incomplete, signed by
            another key, or names anything outside of itself; or where `trusted_key` is no key.
            BundleRefused is the kind of all that lies in the file.
        TypeError
            Where `trusted_key` is no bytes, such as the file's name.
        """
        path = Path(path)
        if trusted_key is not None and not isinstance(trusted_key, bytes):
            kind = type(trusted_key).__name__
            raise TypeError(f"trusted_key is the content of a PEM file, as bytes, got {kind}")
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
            # A name, and no path: a wheel holds the default bundle alone.
            if isinstance(error, FileNotFoundError) and path.name == str(path) and not path.suffix:
                raise BundleError(
                    "there is no bundle {path} here: name one of {names}, or a {suffix} file",
                    code="bundle.unreadable",
                    path=path,
                    names=", ".join(shipped()),
                    suffix=SUFFIX,
                ) from error
            raise BundleError(
                "cannot read bundle {path}: {reason}",
                code="bundle.unreadable",
                path=path,
                reason=error.strerror,
            ) from error
        except (BundleError, SignatureError) as error:
            raise BundleRefused.of(path, error) from None
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
        archive = Archive(content, PART_NAME, MAX_PARTS, MAX_BYTES)
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
