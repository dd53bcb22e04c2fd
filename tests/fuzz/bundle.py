"""Hostile bundles: archives, manifests, graphs, arrays and signatures.

The first byte says what the rest is: a whole file, or one member of a small bundle that is packed
around it with every hash and checksum right, so that what lies behind them is reached.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from dermedge.bundle.archive import ArchiveError
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.bundle.graph_check import check_graph
from dermedge.bundle.manifest import (
    CASES,
    MANIFEST,
    SIGNATURE,
    BundleError,
    Manifest,
    Model,
    Thresholds,
)
from dermedge.bundle.reference import REFERENCE, Expected, Reference
from dermedge.bundle.similar import SimilarCases
from dermedge.image.preprocess import Preprocessing

LABELS = ("mel", "nv")
GRAPH = "classifier.onnx"
FILE, IN_MANIFEST, IN_GRAPH, IN_CASES, IN_REFERENCE, IN_SIGNATURE = range(6)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def _graph() -> bytes:
    """An ONNX file with a node, an attribute and weights; nothing that runs."""
    attribute = _field(5, _field(1, b"axis") + b"\x18\x01")
    node = _field(1, b"image") + _field(2, b"probabilities") + _field(4, b"Relu") + attribute
    weights = b"\x08\x02\x10\x03" + _field(8, b"zero") + _field(9, b"\0\0")
    return b"\x08\x08" + _field(7, _field(1, node) + _field(5, weights)) + _field(8, b"\x10\x11")


def _cases() -> bytes:
    return SimilarCases.make(
        np.ones((2, 3)), (0, 1), ("a", "b"), np.zeros((2, 64, 64, 3), np.uint8)
    ).to_bytes()


def _reference() -> bytes:
    pictures = np.zeros((1, 16, 16, 3), np.uint8)
    outputs = {"probabilities": np.full((1, 2), 0.5, np.float32)}
    return Reference(pictures, {"classifier": Expected.of(pictures, outputs)}).to_bytes()


PARTS = {GRAPH: _graph(), CASES: _cases(), REFERENCE: _reference()}
KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # of RFC 8032, 7.1
SIGNED = json.dumps({"public_key": KEY, "signature": "00" * 64}).encode()


def _manifest() -> Manifest:
    return Manifest(
        name="small",
        created="2026-01-01T00:00:00Z",
        labels=LABELS,
        models={"classifier": Model(GRAPH, "none", Preprocessing(size=16), parameters=1)},
        thresholds=Thresholds(class_offsets=(0.0, 1.0)),
        licence="Apache-2.0",
        procedural=True,
        training_data=({"role": "classifier", "pictures": {"train": 2}},),
        measured={"classifier": {"pictures": 2, "ece": 0.1}},
        gate=(
            {
                "roles": ["classifier"],
                "precision": "int8",
                "targets": ["x86"],
                "passed": False,
                "reasons": ["slow"],
            },
        ),
        release=1,
    )


def _file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_bundle(Path(folder) / "a.dermbundle", _manifest(), PARTS).read_bytes()


def _plain() -> dict:
    """The manifest of `_file`, as JSON."""
    with zipfile.ZipFile(io.BytesIO(_file())) as archive:
        return json.loads(archive.read(MANIFEST))


PLAIN = _plain()
SEEDS = [
    bytes([FILE]) + _file(),
    bytes([IN_MANIFEST]) + json.dumps({**PLAIN, "parts": {GRAPH: PLAIN["parts"][GRAPH]}}).encode(),
    bytes([IN_GRAPH]) + PARTS[GRAPH],
    bytes([IN_CASES]) + PARTS[CASES],
    bytes([IN_REFERENCE]) + PARTS[REFERENCE],
    bytes([IN_SIGNATURE]) + SIGNED,
]


def _packed(kind: int, member: bytes) -> bytes:
    # No more than the kind needs: what every input reaches tells the fuzzer nothing.
    parts, content, members = {GRAPH: PARTS[GRAPH]}, dict(PLAIN), {}
    content["parts"] = {GRAPH: PLAIN["parts"][GRAPH]}
    if kind == IN_MANIFEST:
        try:
            found = json.loads(member)
        except (ValueError, RecursionError):
            found = None
        # What is no object goes in as it is: there is no place for a checksum.
        members[MANIFEST] = member
        if isinstance(found, dict):
            members[MANIFEST] = _checked(found)
    else:
        name = {IN_GRAPH: GRAPH, IN_CASES: CASES, IN_REFERENCE: REFERENCE}.get(kind)
        if name:
            parts[name] = member
        content["parts"] = {
            part: {"sha256": hashlib.sha256(value).hexdigest(), "bytes": len(value)}
            for part, value in parts.items()
        }
        members[MANIFEST] = _checked(content)
    if kind == IN_SIGNATURE:
        members[SIGNATURE] = member
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for part, value in {**members, **parts}.items():
            archive.writestr(part, value)
    return buffer.getvalue()


def _checked(content: dict) -> bytes:
    """A manifest with its checksum put right, as `dermedge.bundle.bundle` computes it."""
    plain = {key: value for key, value in content.items() if key != "checksum"}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    return json.dumps({**plain, "checksum": digest}).encode()


def opened(data: bytes) -> Bundle | None:
    """The bundle that the bytes make; None where it is refused."""
    if not data:
        return None
    kind = data[0] % 6
    content = data[1:] if kind == FILE else _packed(kind, data[1:])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dermbundle"
        path.write_bytes(content)
        try:
            return Bundle.open(path)
        except BundleError as error:
            _check_line(error)
            return None


def one(data: bytes) -> None:
    """Open a bundle and read all of it; every error but those that are promised escapes."""
    bundle = opened(data)
    if bundle is None:
        return
    manifest = bundle.manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    for role, model in manifest.models.items():
        check_graph(bundle.model(role))
        for precision in ("fp32", "int8"):
            for target in ("x86", "tensorrt"):
                try:
                    bundle.sliced({role: bundle.variant(role, precision, target)})
                except BundleError:
                    assert model.variant(precision, target) is None
    for part, read in ((CASES, _read_cases), (REFERENCE, Reference.from_bytes)):
        if part in manifest.parts:
            try:
                read(bundle.part(part))
            except (ArchiveError, BundleError) as error:
                _check_line(error)


def _check_line(error: Exception) -> None:
    assert len(str(error).splitlines()) == 1, error


def _read_cases(content: bytes) -> None:
    cases = SimilarCases.from_bytes(content, len(LABELS))
    similar = cases.nearest(np.ones(cases.embeddings.shape[1]), LABELS, 2)
    for case in similar:
        cases.picture(case.id)
