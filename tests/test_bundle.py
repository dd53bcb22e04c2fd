"""The bundle is read back as written, and anything wrong with it is refused in one line."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermedge.bundle import MANIFEST, SIGNATURE, Bundle, BundleError, Manifest, write_bundle


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
        from dermedge.bundle import _checksum

        content["checksum"] = _checksum(content)
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


def test_compressed_member_is_refused_unread(tiny_bundle, tmp_path):
    members = {**_members(tiny_bundle), "bomb.bin": bytes(50_000_000)}
    path = _pack(tmp_path / "bomb.dermbundle", members, zipfile.ZIP_DEFLATED)
    assert "compressed" in _refusal(path)


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
