"""The bundle is read back as written, and anything wrong with it is refused in one line."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermedge.analyzer import Analyzer
from dermedge.bundle import bundle as room
from dermedge.bundle import manifest as manifest_module
from dermedge.bundle.bundle import Bundle, open_bundle, write_bundle
from dermedge.bundle.manifest import CASES, MANIFEST, SIGNATURE, BundleError, Manifest
from dermedge.bundle.similar import SimilarCases


def _members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _pack(path, members: dict[str, bytes], compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _refusal(path, **options) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _edited(tiny_bundle, tmp_path, change, fix_checksum=True):
    """The tiny bundle with its manifest changed, packed again."""
    members = _members(tiny_bundle)
    content = json.loads(members[MANIFEST])
    change(content)
    if fix_checksum:
        content["checksum"] = manifest_module._checksum(content)
    members[MANIFEST] = json.dumps(content).encode()
    return _pack(tmp_path / "edited.dermbundle", members)


def test_is_read_as_written(tiny_bundle, tmp_path):
    bundle = Bundle.open(tiny_bundle)
    again = write_bundle(
        tmp_path / "again.dermbundle",
        bundle.manifest,
        {name: bundle.part(name) for name in bundle.manifest.parts},
    )
    assert again.read_bytes() == tiny_bundle.read_bytes()
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest
    assert bundle.model("classifier") == bundle.part("classifier.onnx")


@settings(max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated(tiny_bundle, tmp_path_factory, share):
    content = tiny_bundle.read_bytes()
    path = tmp_path_factory.mktemp("cut") / "cut.dermbundle"
    path.write_bytes(content[: int(len(content) * share)])
    assert "refused" in _refusal(path)


@settings(max_examples=150)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_harmless(tiny_bundle, tmp_path_factory, where, bit):
    """Some bits of a ZIP mean nothing (its time stamps); no other may change what is read."""
    content = bytearray(tiny_bundle.read_bytes())
    content[int(len(content) * where)] ^= 1 << bit
    path = tmp_path_factory.mktemp("flip") / "flip.dermbundle"
    path.write_bytes(content)
    good = Bundle.open(tiny_bundle)
    try:
        bundle = Bundle.open(path)
    except BundleError:
        return
    assert bundle.manifest == good.manifest
    assert all(bundle.part(name) == good.part(name) for name in good.manifest.parts)


@settings(max_examples=50)
@given(content=st.binary(max_size=400))
def test_random_bytes(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("random") / "random.dermbundle"
    path.write_bytes(content)
    _refusal(path)


def test_manifest_that_nests_without_end(tiny_bundle, tmp_path):
    members = {**_members(tiny_bundle), MANIFEST: b"[" * 200_000}
    assert "not JSON" in _refusal(_pack(tmp_path / "deep.dermbundle", members))


def test_thresholds_edited_by_hand(tiny_bundle, tmp_path):
    def lower(content):
        content["thresholds"]["see_doctor"] = 0.01

    path = _edited(tiny_bundle, tmp_path, lower, fix_checksum=False)
    assert "changed after export" in _refusal(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.update(format=99), "newer"),
        (lambda c: c.pop("labels"), "labels"),
        (lambda c: c["labels"].__setitem__(0, "wart"), "labels"),
        (lambda c: c["labels"].__setitem__(0, c["labels"][1]), "labels"),
        (lambda c: c["models"].clear(), "models"),
        (lambda c: c["models"]["segmenter"].update(part="../x.onnx"), "not listed"),
        (lambda c: c["parts"].update({"../x.onnx": {"sha256": "0" * 64}}), "not allowed"),
        (lambda c: c["parts"].update({"/etc.onnx": {"sha256": "0" * 64}}), "not allowed"),
        (lambda c: c["parts"].update({"more.onnx": {"sha256": "0" * 64}}), "missing"),
        (lambda c: c["thresholds"].update(see_doctor=1.5), "see_doctor"),
        (lambda c: c["thresholds"].update(urgent=0.1), "urgent"),
        (lambda c: c["thresholds"].update(mask="high"), "mask"),
        (lambda c: c.update(extra=1), "extra"),
        (lambda c: c.update(licence=""), "licence"),
        (lambda c: c.update(name="../elsewhere/x"), "name"),
        (lambda c: c.update(models=[1]), "not valid"),
        (
            lambda c: c["models"]["classifier"]["preprocessing"].update(sharpen=True),
            "unknown preprocessing",
        ),
        (lambda c: c["models"]["classifier"]["preprocessing"].update(size=8), "size"),
    ],
)
def test_manifest_that_contradicts_itself(tiny_bundle, tmp_path, change, reason):
    assert reason in _refusal(_edited(tiny_bundle, tmp_path, change))


def test_member_outside_of_the_bundle(tiny_bundle, tmp_path):
    for name in ("../evil.onnx", "/etc/passwd", "a/b.onnx", "c:\\x.onnx", "plain"):
        members = {**_members(tiny_bundle), name: b"x"}
        assert "outside" in _refusal(_pack(tmp_path / "out.dermbundle", members))


def test_compressed_member_is_refused_unread(tiny_bundle, tmp_path, peak_memory):
    members = {**_members(tiny_bundle), "more.bin": bytes(50_000_000)}
    path = _pack(tmp_path / "bomb.dermbundle", members, zipfile.ZIP_DEFLATED)
    with peak_memory(5_000_000):
        assert "holds more.bin, which its manifest does not list" in _refusal(path)


def test_a_listed_part_that_would_inflate_without_measure_is_refused(tiny_bundle, tmp_path):
    bundle = Bundle.open(tiny_bundle)
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    path = tmp_path / "bomb.dermbundle"
    write_bundle(path, bundle.manifest, {**parts, "more.bin": bytes(120_000_000)})
    assert path.stat().st_size < 200_000
    assert "would inflate to 120" in _refusal(path)


def test_part_replaced_missing_or_added(tiny_bundle, tmp_path):
    members = _members(tiny_bundle)
    path = tmp_path / "parts.dermbundle"
    assert "SHA-256" in _refusal(_pack(path, {**members, "segmenter.onnx": b"other"}))
    assert "not list" in _refusal(_pack(path, {**members, "more.bin": b""}))
    del members["segmenter.onnx"]
    assert "missing" in _refusal(_pack(path, members))


def test_part_that_comes_twice(tiny_bundle, tmp_path):
    path = tmp_path / "twice.dermbundle"
    path.write_bytes(tiny_bundle.read_bytes())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("segmenter.onnx", b"other")
    assert "twice" in _refusal(path)


def test_weights_outside_of_the_bundle(tiny_bundle, tmp_path):
    """ONNX may point to a weights file anywhere on the disk."""
    import onnx

    bundle = Bundle.open(tiny_bundle)
    graph = onnx.load_model_from_string(bundle.model("segmenter"))
    tensor = graph.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret.bin")
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    parts["segmenter.onnx"] = graph.SerializeToString()
    with pytest.raises(BundleError, match="another file"):
        write_bundle(tmp_path / "outside.dermbundle", bundle.manifest, parts)
    assert not list(tmp_path.iterdir())


def test_labels_that_do_not_fit_the_classifier(tiny_bundle, tmp_path):
    from dermedge.analyzer import Analyzer

    path = _edited(tiny_bundle, tmp_path, lambda c: c["labels"].pop())
    with pytest.raises(BundleError, match="probabilities"):
        Analyzer(Bundle.open(path))


def test_size_that_does_not_fit_the_segmenter(tiny_bundle, tmp_path):
    from dermedge.analyzer import Analyzer

    def shrink(content):
        content["models"]["segmenter"]["preprocessing"]["size"] = 48

    with pytest.raises(BundleError, match="image"):
        Analyzer(Bundle.open(_edited(tiny_bundle, tmp_path, shrink)))


def _keys() -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(
        form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
    )
    return secret, public


def test_signature(tiny_bundle, tmp_path):
    secret, public = _keys()
    _, other = _keys()
    bundle = Bundle.open(tiny_bundle)
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    path = write_bundle(tmp_path / "signed.dermbundle", bundle.manifest, parts, secret)
    assert len(Bundle.open(path, trusted_key=public).signed_by) == 16
    assert "another key" in _refusal(path, trusted_key=other)
    assert "not signed" in _refusal(tiny_bundle, trusted_key=public)
    assert "Ed25519" in _refusal(path, trusted_key=b"no key")
    with pytest.raises(TypeError, match="the content of a PEM file, as bytes, got str"):
        Bundle.open(path, trusted_key="public.pem")
    members = _members(path)
    foreign = _members(write_bundle(tmp_path / "b.dermbundle", bundle.manifest, parts, _keys()[0]))
    mixed = json.loads(members[SIGNATURE])
    mixed["public_key"] = json.loads(foreign[SIGNATURE])["public_key"]
    members[SIGNATURE] = json.dumps(mixed).encode()
    assert "does not fit" in _refusal(_pack(tmp_path / "mixed.dermbundle", members))


def test_a_write_that_fails_keeps_the_old_file(tiny_bundle, tmp_path, monkeypatch):
    bundle = Bundle.open(tiny_bundle)
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    path = write_bundle(tmp_path / "x.dermbundle", bundle.manifest, parts)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bundle(path, bundle.manifest, {**parts, "more.bin": b"1"})
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["x.dermbundle"]


def test_zip_reader_survives_a_foreign_archive(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    path = tmp_path / "zip.dermbundle"
    path.write_bytes(buffer.getvalue())
    assert "no manifest" in _refusal(path)


def _listed(tiny_bundle, out, changes: dict[str, bytes], change=lambda content: None):
    """The tiny bundle with parts put in, under their right hashes, and its manifest changed."""
    import hashlib

    members = {**_members(tiny_bundle), **changes}
    content = json.loads(members[MANIFEST])
    for name, part in changes.items():
        content["parts"][name] = {"sha256": hashlib.sha256(part).hexdigest(), "bytes": len(part)}
    change(content)
    content["checksum"] = manifest_module._checksum(content)
    members[MANIFEST] = json.dumps(content).encode()
    return _pack(out, members)


@pytest.fixture
def peak_memory():
    """Asserts that no more than some bytes are allocated at once."""
    from contextlib import contextmanager

    @contextmanager
    def limited(most: int):
        tracemalloc.start()
        try:
            yield
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < most

    return limited


GATE = {
    "roles": ["segmenter"],
    "precision": "int8",
    "targets": ["x86"],
    "passed": False,
    "reasons": ["too slow"],
}


@pytest.mark.parametrize(
    ("change", "entry"),
    [
        (lambda c: c.update(gate=[{"precision": "int8"}]), "gate[0].roles is missing"),
        (lambda c: c.update(gate=[{**GATE, "roles": 7}]), "gate[0].roles must be a list"),
        (lambda c: c.update(gate=[{**GATE, "roles": ["wizard"]}]), "gate[0].roles[0] must be one"),
        (lambda c: c.update(gate=[{**GATE, "reasons": [7]}]), "gate[0].reasons[0] must be text"),
        (lambda c: c.update(gate=[{**GATE, "passed": "no"}]), "gate[0].passed must be true or"),
        (lambda c: c.update(gate=[{**GATE, "speed": {"ratio": "x"}}]), "gate[0].speed.ratio"),
        (lambda c: c.update(gate={}), "gate must be a list"),
        (lambda c: c.update(gate=[GATE] * 300), "gate must be a list of 0 to 256"),
        (lambda c: c.update(measured={"classifier": 3}), "measured.classifier must be an object"),
        (
            lambda c: c.update(measured={"classifier": {"see_doctor": {"sensitivity": 1}}}),
            "measured.classifier.see_doctor.",
        ),
        (lambda c: c.update(measured={"classifier": {"pictures": -1}}), "classifier.pictures"),
        (lambda c: c.update(parity={"segmenter": {"count": "9"}}), "parity.segmenter.count"),
        (lambda c: c.update(software={"torch": 2}), "software.torch must be text"),
        (lambda c: c.update(training_data={"role": 1}), "training_data must be a list"),
        (lambda c: c.update(training_data=[{"pictures": 3}]), "training_data[0].pictures"),
        (lambda c: c.update(training_data=[{"data_set": [1]}]), "training_data[0].data_set"),
        (lambda c: c.update(created="yesterday"), "created must be a time"),
        (lambda c: c.update(created=20260101), "created must be text"),
        (lambda c: c.update(licence="\x1b[2J free"), "licence must be text in one line"),
        (lambda c: c.update(licence="x" * 5000), "licence must be text of 1 to 4000"),
        (lambda c: c.update(procedural=1), "procedural must be true or false"),
        (lambda c: c.update(release=0), "release must be a whole number"),
        (lambda c: c.update(release=True), "release must be a whole number"),
        (lambda c: c["labels"].append(["nv"]), "labels[7] must be one of"),
        (lambda c: c["thresholds"].update(class_offsets=[1e9] * 7), "thresholds.class_offsets[0]"),
        (lambda c: c["thresholds"].update(mask=True), "thresholds.mask must be a finite number"),
        (lambda c: c["thresholds"].update(unfamiliar=0), "thresholds.unfamiliar must be a number"),
        (lambda c: c["thresholds"].update(sharp=1), "unknown key thresholds.sharp"),
        (lambda c: c["models"].update(wizard={}), "unknown key models.wizard"),
        (lambda c: c["models"]["classifier"].pop("architecture"), "classifier.architecture is mis"),
        (lambda c: c["models"]["classifier"].update(architecture=5), "classifier.architecture"),
        (lambda c: c["models"]["classifier"].update(parameters="2"), "classifier.parameters must"),
        (lambda c: c["models"]["classifier"].update(macs=-2), "classifier.macs must be a whole"),
        (lambda c: c["models"]["classifier"].update(macs=10**400), "classifier.macs must be a wh"),
        (lambda c: c["models"]["classifier"].update(metadata="age"), "classifier.metadata must"),
        (lambda c: c["models"]["classifier"].update(metadata=["age", "age"]), "a field twice"),
        (lambda c: c["models"]["classifier"].update(targets=[]), "targets of the classifier"),
        (lambda c: c["models"]["classifier"].update(variants=[{}]), "variants[0].part is missing"),
        (lambda c: c["models"]["classifier"].update(preprocessing=[]), "preprocessing must be an"),
        (
            lambda c: c["models"]["classifier"]["preprocessing"].update(size="9"),
            "models.classifier.preprocessing.size",
        ),
        (lambda c: c["parts"]["segmenter.onnx"].pop("bytes"), "parts.segmenter.onnx.bytes is mis"),
        (lambda c: c["parts"]["segmenter.onnx"].update(bytes=2**40), "parts.segmenter.onnx.bytes"),
        (lambda c: c["parts"]["segmenter.onnx"].update(sha256=5), "parts.segmenter.onnx.sha256"),
        (lambda c: c["parts"].update(x=3), "part name 'x' is not allowed"),
        (lambda c: c.update(parts=[]), "parts must be an object"),
        (lambda c: c.update(format="2"), "no format number"),
        (lambda c: c.update(format=True), "no format number"),
        (
            lambda c: (
                c["models"].pop("segmenter"),
                c["models"]["classifier"]["preprocessing"].update(crop=2),
            ),
            "no segmenter to say where",
        ),
    ],
)
def test_every_entry_that_is_read_is_checked_and_named(tiny_bundle, tmp_path, change, entry):
    refusal = _refusal(_edited(tiny_bundle, tmp_path, change))
    assert entry in refusal
    assert len(refusal) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"see_doctor": 0.4', b'"see_doctor": NaN'),
        (b'"see_doctor": 0.4', b'"see_doctor": 1e999'),
        (b'"see_doctor": 0.4', b'"see_doctor": 0.9, "see_doctor": 0.4'),
        (b'"name": "tiny"', b'"name": "tiny", "licence": "x"'),
        (b'"parameters": 2', b'"parameters": ' + b"9" * 5000),
        (b'"procedural": true', b'"procedural": ' + b"[" * 5000 + b"]" * 5000),
    ],
)
def test_a_manifest_that_is_loose_json_is_refused(tiny_bundle, tmp_path, old, new):
    members = _members(tiny_bundle)
    assert members[MANIFEST].count(old)
    members[MANIFEST] = members[MANIFEST].replace(old, new, 1)
    assert "manifest" in _refusal(_pack(tmp_path / "loose.dermbundle", members))


def test_what_is_nested_beyond_measure_is_refused(tiny_bundle, tmp_path):
    def nest(content):
        deep = []
        for _ in range(200):
            deep = [deep]
        content["training_data"] = [{"notes": deep}]

    assert "nested too deep" in _refusal(_edited(tiny_bundle, tmp_path, nest))


def test_a_manifest_of_an_earlier_dermedge_is_read(tiny_bundle, tmp_path):
    """Format 1 knew no variants, gate, targets, weights or metadata."""

    def age(content):
        content["format"] = 1
        for name in ("gate", "training_data", "measured", "parity", "software"):
            content.pop(name)
        for model in content["models"].values():
            for name in ("variants", "targets", "weights", "metadata", "macs"):
                model.pop(name)
        content["thresholds"].pop("class_offsets")

    old = Bundle.open(_edited(tiny_bundle, tmp_path, age))
    assert old.manifest.thresholds == Bundle.open(tiny_bundle).manifest.thresholds
    assert old.variant("classifier", "fp32", "x86").part == "classifier.onnx"


def test_a_refused_precision_is_told_with_the_reason_of_the_gate(tiny_bundle, tmp_path):
    path = _edited(tiny_bundle, tmp_path, lambda content: content.update(gate=[GATE]))
    with pytest.raises(BundleError, match="the export refused it, too slow"):
        Bundle.open(path).variant("segmenter", "int8", "x86")
    with pytest.raises(BundleError, match=r"has no fp32 segmentor for x86$"):
        Bundle.open(path).variant("segmentor", "fp32", "x86")


# Archives.


def _raw(path, change) -> str:
    content = bytearray(path.read_bytes())
    change(content)
    out = path.with_name("raw.dermbundle")
    out.write_bytes(content)
    return _refusal(out)


def _at_end(content: bytearray, offset: int, form: str, value: int) -> None:
    struct.pack_into(form, content, len(content) - 22 + offset, value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.extend(b"more"), "behind its end"),
        (lambda c: c.extend(c), "before or behind its parts"),  # two archives, two directories
        (lambda c: c.__setitem__(slice(0, 0), b"#!/bin/sh\n"), "before or behind its parts"),
        (lambda c: (_at_end(c, 20, "<H", 3), c.extend(b"hey")), "a comment"),
        (lambda c: _at_end(c, 4, "<H", 1), "several disks"),
        (lambda c: _at_end(c, 8, "<H", 1), "several disks"),
        (lambda c: (_at_end(c, 8, "<H", 0xFFFF), _at_end(c, 10, "<H", 0xFFFF)), "ZIP64"),
        (lambda c: (_at_end(c, 8, "<H", 999), _at_end(c, 10, "<H", 999)), "holds 999 parts"),
        (lambda c: (_at_end(c, 8, "<H", 2), _at_end(c, 10, "<H", 2)), "damaged"),
        (lambda c: _at_end(c, 16, "<L", 0), "before or behind its parts"),
    ],
)
def test_an_archive_that_is_not_plain_is_refused(tiny_bundle, tmp_path, change, reason):
    path = tmp_path / "x.dermbundle"
    path.write_bytes(tiny_bundle.read_bytes())
    assert reason in _raw(path, change)


def test_parts_that_share_bytes_are_refused(tiny_bundle, tmp_path):
    """A "better zip bomb": many entries of the directory inflate the same data."""
    content = bytearray(tiny_bundle.read_bytes())
    entries = [i for i in range(len(content)) if content[i : i + 4] == b"PK\1\2"]
    content[entries[1] + 42 : entries[1] + 46] = content[entries[0] + 42 : entries[0] + 46]
    path = tmp_path / "shared.dermbundle"
    path.write_bytes(content)
    assert "overlap" in _refusal(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda e: setattr(e, "external_attr", 0o120777 << 16), "as a link or folder"),
        (lambda e: setattr(e, "external_attr", 0o040755 << 16), "as a link or folder"),
        (lambda e: setattr(e, "comment", b"read me"), "a comment on its part"),
        (lambda e: setattr(e, "compress_type", zipfile.ZIP_LZMA), "packed strangely"),
        (lambda e: setattr(e, "compress_type", zipfile.ZIP_BZIP2), "packed strangely"),
    ],
)
def test_a_part_that_is_no_plain_file_is_refused(tiny_bundle, tmp_path, change, reason):
    path = tmp_path / "strange.dermbundle"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in _members(tiny_bundle).items():
            entry = zipfile.ZipInfo(name)
            if name == "segmenter.onnx":
                change(entry)
            archive.writestr(entry, content)
    assert reason in _refusal(path)


def test_an_encrypted_part_is_refused(tiny_bundle, tmp_path):
    content = bytearray(tiny_bundle.read_bytes())
    entry = content.index(b"PK\1\2")
    content[entry + 8] |= 1
    path = tmp_path / "locked.dermbundle"
    path.write_bytes(content)
    assert "encrypted" in _refusal(path)


def test_a_bundle_is_no_folder_and_no_name_that_is_not_here(tmp_path):
    (tmp_path / "x.dermbundle").mkdir()
    with pytest.raises(BundleError, match=r"cannot read bundle .*: Is a directory"):
        Bundle.open(tmp_path / "x.dermbundle")
    with pytest.raises(BundleError, match="no bundle smartfone here: name one of dermoscopy, "):
        open_bundle("smartfone")


@pytest.mark.skipif(os.name == "nt", reason="pipes and devices of POSIX")
def test_a_pipe_or_device_is_not_read_without_end(tmp_path):
    os.mkfifo(tmp_path / "x.dermbundle")
    assert "it is no file" in _refusal(tmp_path / "x.dermbundle")
    assert "it is no file" in _refusal("/dev/zero")


def test_a_file_larger_than_any_bundle_is_refused(tiny_bundle, monkeypatch, peak_memory):
    monkeypatch.setattr(room, "MAX_BYTES", 1000)
    with peak_memory(200_000):
        assert "it is larger than" in _refusal(tiny_bundle)


def test_a_manifest_larger_than_any_is_refused_unread(tiny_bundle, tmp_path, peak_memory):
    members = _members(tiny_bundle)
    members[MANIFEST] += b" " * 40_000_000
    path = _pack(tmp_path / "long.dermbundle", members, zipfile.ZIP_DEFLATED)
    with peak_memory(5_000_000):
        assert "its manifest.json is larger than" in _refusal(path)


# Graphs.


def _field(number: int, value: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(value)) + value


def _number(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


NODE = _field(1, _field(1, b"image") + _field(4, b"Relu"))


def _onnx(inside: bytes = b"", after: bytes = b"") -> bytes:
    return b"\x08\x08" + _field(7, NODE + inside) + _field(8, b"\x10\x11") + after


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (b"", "damaged ONNX graph, or none"),
        (b"no graph at all", "damaged ONNX graph, or none"),
        (_onnx()[:-1], "damaged ONNX graph, or none"),
        (_field(7, NODE) + _field(7, NODE), "damaged ONNX graph, or none"),
        (b"\x3a" + b"\xff" * 9 + b"\x01", "damaged"),  # a length of 2^64 - 1
        (b"\x3a" + b"\xff" * 40, "damaged"),  # a number without end
        (b"\xba\x80\x80\x80\x80\x01" + b"\0" * 8, "damaged"),  # a field number of 40 bits
        (b"\x3b" + b"\0" * 8, "damaged"),  # a group
        (b"\x38\x01", "damaged"),  # a graph that is a number
        (b"\0\0\0\0ORTM" + bytes(64), "no ONNX"),
        (_onnx(after=_field(20, _field(1, NODE))), "training, functions or devices"),
        (_onnx(after=_field(25, _field(1, b"f"))), "training, functions or devices"),
        (_onnx(_field(1, _field(4, b"Evil") + _field(7, b"com.evil"))), "'Evil' of 'com.evil'"),
        (_onnx(_field(1, _field(4, b"If") + _field(5, _field(6, NODE)))), "branches or loops"),
        (_onnx(_field(1, _field(4, b"X") + _field(5, _field(22, b"")))), "sparse weights"),
        (_onnx(_field(15, b"")), "sparse weights"),
        (_onnx(_field(5, _field(13, _field(1, b"location")))), "another file"),
        (_onnx(_field(5, b"\x70\x01")), "another file"),
        (_onnx(_field(5, b"\x70\x81\x80\x80\x80\x10")), "another file"),  # 1, and a 33rd bit
        (_onnx(_field(1, _field(4, b"C") + _field(5, _field(5, b"\x70\x01")))), "another file"),
        (_onnx(_field(5, b"\x08\x80\x80\x80\x80\x10" + b"\x10\x01")), "larger than the file"),
        (_onnx(_field(5, b"\x08" + b"\xff" * 9 + b"\x01" + b"\x10\x01")), "larger than the file"),
        (_onnx(_field(5, b"\x08\x01" * 400)), "damaged"),
        (_onnx(_field(1, _field(4, b"\xff\xfe"))), "damaged"),
        (_onnx(_field(1, _field(1, b"x" * 5000))), "damaged"),
    ],
)
def test_a_graph_that_is_no_plain_network_is_refused(tiny_bundle, tmp_path, graph, reason):
    path = _listed(tiny_bundle, tmp_path / "graph.dermbundle", {"segmenter.onnx": graph})
    refusal = _refusal(path)
    assert "its part segmenter.onnx " in refusal
    assert reason in refusal


def test_a_graph_under_another_name_is_checked_all_the_same(tiny_bundle, tmp_path):
    outside = _onnx(_field(5, b"\x70\x01"))

    def rename(content):
        content["models"]["segmenter"]["part"] = "segmenter.bin"

    path = tmp_path / "named.dermbundle"
    assert "must end in .onnx" in _refusal(
        _listed(tiny_bundle, path, {"segmenter.bin": outside}, rename)
    )


def test_a_graph_of_countless_fields_ends_early(monkeypatch):
    """Counted, not timed: the reader stops at a number of fields, whatever the file's size."""
    from dermedge.bundle import graph_check

    monkeypatch.setattr(graph_check, "MAX_FIELDS", 1000)
    seen = []
    real = graph_check._varint
    monkeypatch.setattr(graph_check, "_varint", lambda *given: seen.append(1) or real(*given))
    for content in (b"\x08\x01" * 10**6, _field(7, b"\x50\x01" * 10**6)):
        seen.clear()
        with pytest.raises(graph_check.GraphError, match="more than 1000 fields"):
            graph_check.check_graph(content)
        assert len(seen) < 2100


# Arrays.


def _npy(descr: str, shape: str, data: bytes, version=b"\1\0", extra: str = "") -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, {extra}}}".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


def _arrays(**changes: bytes | None) -> bytes:
    """A part `cases.npz` of two cases, with arrays replaced, added or left out (None)."""
    arrays = {
        "embeddings": _npy("<f2", "(2, 3)", bytes(12)),
        "labels": _npy("<i2", "(2,)", bytes(4)),
        "ids": _npy("<U1", "(2,)", "ab".encode("utf-32-le")),
        "thumbnails": _npy("|S1", "(0,)", b""),
        **changes,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            if content is not None:
                archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


NAN = np.array([0, 0, 0, 0, 0, np.nan], "<f2").tobytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated"),
        (b"PK nothing", "truncated"),
        (_arrays(embeddings=None), "lacks the array 'embeddings'"),
        (_arrays(more=_npy("<f2", "(1,)", bytes(2))), "holds 5 parts"),
        (_arrays(thumbnails=None, more=_npy("<f2", "(1,)", bytes(2))), "which does not belong"),
        (_arrays(embeddings=_npy("|O", "(2, 3)", b"cos\nsystem\n")), "'embeddings' of a type"),
        (_arrays(embeddings=_npy("<i4", "(2, 3)", bytes(24))), "'embeddings' of a type"),
        (_arrays(embeddings=_npy(">f2", "(2, 3)", bytes(12))), "'embeddings' of a type"),
        (_arrays(embeddings=_npy("<f9", "(2, 3)", bytes(54))), "'embeddings' of a type"),
        (_arrays(embeddings=_npy("<f2", "(2, 3)", NAN)), "'embeddings' that are not finite"),
        (_arrays(embeddings=_npy("<f2", "(6,)", bytes(12))), "'embeddings' of a shape"),
        (_arrays(embeddings=_npy("<f2", "(-2, -3)", bytes(12))), "'embeddings' of a shape"),
        (_arrays(embeddings=_npy("<f2", "(2, 3.0)", bytes(12))), "'embeddings' of a shape"),
        (_arrays(embeddings=_npy("<f2", "(4000, 4000)", bytes(12))), "not that of its shape"),
        (_arrays(embeddings=_npy("<f2", "(10**18, 3)", bytes(12))), "'embeddings' that is damaged"),
        (_arrays(embeddings=_npy("<f2", "(2, 0)", b"")), "embeddings of no numbers"),
        (_arrays(embeddings=_npy("<f2", "(2, 3)", bytes(12), b"\3\0")), "that is damaged"),
        (_arrays(embeddings=_npy("<f2", "(2, 3)", bytes(12), extra="'x': 1")), "that is damaged"),
        (_arrays(embeddings=_npy("<f2", "(" * 300, bytes(12))), "that is damaged"),
        (_arrays(embeddings=b"\x93NUMPY\1\0\xff\xff"), "that is damaged"),
        (_arrays(labels=_npy("<i2", "(2,)", b"\7\0\0\0")), "a label beyond the 7"),
        (_arrays(labels=_npy("<i2", "(2,)", b"\xff\xff\0\0")), "a label beyond the 7"),
        (_arrays(labels=_npy("<i2", "(1,)", bytes(2))), "different lengths"),
        (_arrays(ids=_npy("<U1", "(2,)", "aa".encode("utf-32-le"))), "one case twice"),
        (_arrays(ids=_npy("<U1", "(2,)", "a\n".encode("utf-32-le"))), "what cannot be shown"),
        (_arrays(ids=_npy("<U1", "(2,)", b"a\0\0\0\xff\xff\xff\x7f")), "what is no text"),
        (_arrays(thumbnails=_npy("|S3", "(2,)", b"notJPG")), "cannot be read"),
    ],
)
def test_hostile_cases_are_refused_when_the_bundle_is_loaded(
    make_bundle, peak_memory, content, reason
):
    bundle = Bundle.open(make_bundle(cases=content))
    with peak_memory(20_000_000), pytest.raises(BundleError) as caught:
        Analyzer(bundle)
    assert "its labelled cases are refused" in str(caught.value)
    assert reason in str(caught.value)
    assert str(bundle.path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cases_that_inflate_without_measure_are_refused_unread(make_bundle, peak_memory):
    """A part of some kilobytes that says honestly how large it would be."""
    bomb = _arrays(embeddings=_npy("<f2", "(4000, 4000)", bytes(32_000_000)))
    assert len(bomb) < 100_000
    bundle = Bundle.open(make_bundle(cases=bomb))
    with peak_memory(5_000_000), pytest.raises(BundleError, match="would inflate to 32"):
        SimilarCases.from_bytes(bundle.part(CASES), 7)


def test_cases_of_another_width_than_the_classifier_gives(make_bundle):
    wide = SimilarCases.make(np.ones((2, 5)), (0, 1), ("a", "b")).to_bytes()
    with pytest.raises(BundleError, match="have the length 5, those of its classifier 3"):
        Analyzer(Bundle.open(make_bundle(cases=wide)))


def test_cases_of_a_classifier_without_embeddings(tiny_bundle, tmp_path):
    cases = SimilarCases.make(np.ones((2, 5)), (0, 1), ("a", "b")).to_bytes()
    path = _listed(tiny_bundle, tmp_path / "none.dermbundle", {CASES: cases})
    with pytest.raises(BundleError, match="its classifier 0"):
        Analyzer(Bundle.open(path))


def test_a_hostile_bundle_is_refused_within_little_memory(tiny_bundle, tmp_path):
    """In a process that may take no more; the ways of the tests above, all at once."""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    bombs = []
    members = _members(tiny_bundle)
    for number, (name, content) in enumerate(
        [
            ("more.bin", bytes(100_000_000)),
            (MANIFEST, b'{"format": 2, "x": [' + b"[]," * 20_000_000 + b"[]]}"),
            ("segmenter.onnx", _onnx() + b"\x08\x01" * 5_000_000),
        ]
    ):
        bombs.append(tmp_path / f"{number}.dermbundle")
        _pack(bombs[-1], {**members, name: content}, zipfile.ZIP_DEFLATED)
    code = textwrap.dedent(
        """
        import resource, sys
        from dermedge.bundle.bundle import Bundle
        from dermedge.bundle.manifest import BundleError
        import dermedge.analyzer
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 40_000_000,) * 2)
        for path in sys.argv[1:]:
            try:
                Bundle.open(path)
            except BundleError as error:
                print(error)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, bombs)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is refused") == 3


# Trust.


def _signed(tiny_bundle, out, secret: bytes, **changes):
    bundle = Bundle.open(tiny_bundle)
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    return write_bundle(out, replace(bundle.manifest, **changes), parts, secret)


def test_a_signature_of_an_unknown_key_says_nothing_of_who_made_it(tiny_bundle, tmp_path):
    secret, public = _keys()
    path = _signed(tiny_bundle, tmp_path / "own.dermbundle", secret)
    unknown, trusted = Bundle.open(path), Bundle.open(path, trusted_key=public)
    assert unknown.signed_by is None
    assert unknown.signature.state == "unknown key"
    assert "unknown key " + trusted.signed_by in str(unknown.signature)
    assert trusted.signature.state == "trusted"
    assert Bundle.open(tiny_bundle).signature.state == "none"
    assert Analyzer(unknown).versions["signed_by"] is None
    assert "unknown key" in Analyzer(unknown).versions["signature"]
    assert Analyzer(trusted).versions["signed_by"] == trusted.signed_by


def test_a_signature_that_cannot_be_checked_is_not_called_missing(
    tiny_bundle, tmp_path, monkeypatch
):
    secret, public = _keys()
    path = _signed(tiny_bundle, tmp_path / "own.dermbundle", secret)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    unchecked = Bundle.open(path)
    assert unchecked.signed_by is None
    assert "cannot be checked here" in str(unchecked.signature)
    with pytest.raises(BundleError, match=r"pip install 'dermedge\[sign\]'"):
        Bundle.open(path, trusted_key=public)
    with pytest.raises(BundleError, match=r"pip install 'dermedge\[sign\]'"):
        _signed(tiny_bundle, tmp_path / "again.dermbundle", secret)


def test_one_file_may_name_several_trusted_keys(tiny_bundle, tmp_path):
    (first, one), (second, two), (_, three) = _keys(), _keys(), _keys()
    for secret in (first, second):
        path = _signed(tiny_bundle, tmp_path / "own.dermbundle", secret)
        assert Bundle.open(path, trusted_key=one + b"# the other site\n" + two).signed_by
        assert "another key" in _refusal(path, trusted_key=three)
    assert "Ed25519" in _refusal(path, trusted_key=two + b"-----BEGIN X-----\n-----END X-----\n")


def _pem(kind: str) -> bytes:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519

    keys = {
        "x25519": x25519.X25519PrivateKey.generate,
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }
    key = keys[kind.split()[0]]()
    if kind.endswith("private"):
        lock = form.BestAvailableEncryption(b"x") if "locked" in kind else form.NoEncryption()
        return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock)
    return key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)


def _unsupported() -> bytes:
    """A key of an algorithm that nobody has: OID 1.2.3.4."""
    import base64

    der = bytes.fromhex("300e300506032a0304 0305 00deadbeef".replace(" ", ""))
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der) + b"\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"\xff\xfe\0",
        b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        lambda: _pem("x25519 public"),
        lambda: _pem("ec public"),
        lambda: _pem("ed25519 private"),
        _unsupported,
    ],
)
def test_a_key_that_is_none_is_told_in_one_line(tiny_bundle, tmp_path, key):
    key = key() if callable(key) else key
    path = _signed(tiny_bundle, tmp_path / "own.dermbundle", _keys()[0])
    with pytest.raises(BundleError, match="no Ed25519 public key in PEM") as caught:
        Bundle.open(path, trusted_key=key)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        lambda: _pem("ed25519 locked private"),
        lambda: _pem("ed25519 public"),
        lambda: _pem("ec private"),
        lambda: _pem("x25519 private"),
        _unsupported,
    ],
)
def test_a_signing_key_that_is_none_is_told_in_one_line(tiny_bundle, tmp_path, key):
    key = key() if callable(key) else key
    with pytest.raises(BundleError, match="signing key is"):
        _signed(tiny_bundle, tmp_path / "own.dermbundle", key)
    assert list(tmp_path.iterdir()) == []


KEY = b"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # of RFC 8032, 7.1


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 4000,
        b'{"public_key": 7, "signature": "00"}',
        b'{"public_key": "zz", "signature": "00"}',
        b'{"public_key": "", "signature": ""}',
        b'{"public_key": "' + KEY + b'", "signature": "' + b"00" * 64 + b'"}',
        b" " * 5000 + b"{}",
    ],
)
def test_a_damaged_signature_is_refused(tiny_bundle, tmp_path, entry):
    members = {**_members(tiny_bundle), SIGNATURE: entry}
    assert "signature" in _refusal(_pack(tmp_path / "signed.dermbundle", members))


def test_a_bundle_is_opened_again_with_the_same_keys(tiny_bundle, tmp_path):
    secret, public = _keys()
    path = _signed(tiny_bundle, tmp_path / "own.dermbundle", secret)
    bundle = Bundle.open(path, trusted_key=public)
    assert bundle.reopen() == bundle
    _signed(tiny_bundle, path, _keys()[0])
    with pytest.raises(BundleError, match="another key"):
        bundle.reopen()
