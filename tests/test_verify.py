"""`dermedge verify` on a device: what is wrong with a bundle is found, and said in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dermedge import cli, procedural
from dermedge.bundle import TARGETS, Bundle, Variant, shipped, write_bundle
from dermedge.preprocess import prepare
from dermedge.runtime import host, open_session
from dermedge.verify import STRIDE, verify


def referenced(bundle: Bundle, out, change=lambda manifest, parts: (manifest, parts)):
    """The bundle with a reference, as the export makes it; then changed."""
    import io

    pictures = np.stack([procedural.draw(seed, size=(96, 128)).image for seed in (1, 2)])
    arrays = {"pictures": pictures}
    for role, model in bundle.manifest.models.items():
        session = open_session(bundle.model(role), threads=1)
        squares = [prepare(picture, model.preprocessing)[0] for picture in pictures]
        arrays[f"{role}_image"] = np.stack(squares)[:, ::STRIDE, ::STRIDE]
        for name in (item.name for item in session.outputs):
            found = np.concatenate([session.run({"image": s[None]})[name] for s in squares])
            arrays[f"{role}_{name}"] = found[:, ::STRIDE, ::STRIDE] if name == "mask" else found
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    manifest, parts = change(bundle.manifest, {**parts, "reference.npz": buffer.getvalue()})
    return write_bundle(out, manifest, parts)


@pytest.fixture
def whole(tiny_bundle, tmp_path):
    return referenced(Bundle.open(tiny_bundle), tmp_path / "whole.dermbundle")


def test_a_whole_bundle_passes(whole, capsys):
    assert cli.main(["verify", "--bundle", str(whole)]) == 0
    told = capsys.readouterr().out
    assert "PASS  hashes and schema" in told
    assert "SKIP  signature: not signed" in told
    assert "PASS  segmenter.onnx computes: from the desktop's FP32, mask is off by 0 on av" in told
    assert "FAIL" not in told


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("target", TARGETS)
def test_what_comes_with_dermedge_passes_for_every_target(name, target):
    bundle = Bundle.open(shipped()[name])
    if not all(target in model.targets for model in bundle.manifest.models.values()):
        pytest.skip(f"{name} was made for {bundle.manifest.models['segmenter'].targets}")
    failed = [check for check in verify(bundle, target) if check.verdict == "fail"]
    assert not failed


def test_other_weights_under_their_own_hash_are_found(tiny_bundle, tmp_path, capsys):
    def change(manifest, parts):
        graph = onnx.load_model_from_string(parts["classifier.onnx"])
        tensor = next(t for t in graph.graph.initializer if t.name == "weights")
        tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), "weights"))
        return manifest, {**parts, "classifier.onnx": graph.SerializeToString()}

    path = referenced(Bundle.open(tiny_bundle), tmp_path / "other.dermbundle", change)
    assert cli.main(["verify", "--bundle", str(path)]) == 1
    told = capsys.readouterr().out
    assert "FAIL  classifier.onnx computes" in told
    assert "FAIL  segmenter.onnx computes" not in told


def test_pictures_that_are_prepared_differently_are_found(whole, monkeypatch):
    import dermedge.verify as module

    def brighter(picture, spec, box=None):
        square, placement = prepare(picture, spec, box)
        return np.minimum(square.astype(int) + 5, 255).astype(np.uint8), placement

    monkeypatch.setattr(module, "prepare", brighter)
    failed = [c for c in verify(Bundle.open(whole)) if c.verdict == "fail"]
    assert failed
    assert all("prepared differently" in check.detail for check in failed)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_a_damaged_bundle_is_one_line(whole, tmp_path, capsys, damage):
    content = bytearray(whole.read_bytes())
    path = tmp_path / "damaged.dermbundle"
    content[len(content) // 3] ^= 255
    kept = {"flipped": content, "truncated": whole.read_bytes()[:-100], "empty": b""}[damage]
    path.write_bytes(kept)
    assert cli.main(["verify", "--bundle", str(path)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "is refused" in told


def test_a_bundle_that_another_key_signed_is_one_line(whole, tmp_path, capsys):
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    mine, theirs = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    opened = Bundle.open(whole)
    parts = {name: opened.part(name) for name in opened.manifest.parts}
    signed = tmp_path / "signed.dermbundle"
    write_bundle(signed, opened.manifest, parts, signing_key=theirs.private_bytes(*form))
    key = tmp_path / "mine.pem"
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    key.write_bytes(mine.public_key().public_bytes(serialization.Encoding.PEM, public))
    assert cli.main(["verify", "--bundle", str(signed), "--trusted-key", str(key)]) == 2
    assert "signed by another key" in capsys.readouterr().err
    key.write_bytes(theirs.public_key().public_bytes(serialization.Encoding.PEM, public))
    assert cli.main(["verify", "--bundle", str(signed), "--trusted-key", str(key)]) == 0
    assert "PASS  signature: signed by" in capsys.readouterr().out


def test_a_slice_for_another_machine_is_named(tiny_bundle, tmp_path, capsys):
    other = next(name for name in TARGETS if name != host())

    def change(manifest, parts):
        models = {k: replace(m, targets=(other,)) for k, m in manifest.models.items()}
        return replace(manifest, models=models), parts

    path = referenced(Bundle.open(tiny_bundle), tmp_path / "slice.dermbundle", change)
    assert cli.main(["verify", "--bundle", str(path)]) == 1
    assert f"no graph for {host()}; it was sliced for {other}" in capsys.readouterr().out
    assert cli.main(["verify", "--bundle", str(path), "--target", other]) == 0


def _quantized(zero_point: int, kind: int) -> bytes:
    """A segmenter's graph that rounds its picture to INT8 or UINT8 on the way."""
    from onnx import helper

    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=1),
        helper.make_node("QuantizeLinear", ["float", "scale", "zero"], ["small"]),
        helper.make_node("DequantizeLinear", ["small", "scale", "zero"], ["large"]),
        helper.make_node("ReduceMax", ["large", "axis"], ["gray"], keepdims=0),
        helper.make_node("Sigmoid", ["gray"], ["mask"]),
    ]
    constants = [
        helper.make_tensor("scale", 1, [], [2.0]),
        helper.make_tensor("zero", kind, [], [zero_point]),
        helper.make_tensor("axis", 7, [1], [3]),
    ]
    graph = helper.make_graph(
        nodes,
        "rounds",
        [helper.make_tensor_value_info("image", 2, [1, 64, 64, 3])],
        [helper.make_tensor_value_info("mask", 1, [1, 64, 64])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("zero_point", "kind", "fits"), [(0, 3, True), (5, 3, False), (0, 2, False)]
)
def test_tensorrt_takes_signed_symmetric_steps_alone(tiny_bundle, tmp_path, zero_point, kind, fits):
    def change(manifest, parts):
        variant = Variant("segmenter-int8-tensorrt.onnx", "int8", ("tensorrt",))
        model = replace(manifest.models["segmenter"], variants=(variant,))
        models = {**manifest.models, "segmenter": model}
        return replace(manifest, models=models), {
            **parts,
            variant.part: _quantized(zero_point, kind),
        }

    path = referenced(Bundle.open(tiny_bundle), tmp_path / "rounds.dermbundle", change)
    checks = {check.name: check for check in verify(Bundle.open(path), "tensorrt")}
    found = checks["segmenter-int8-tensorrt.onnx on tensorrt"]
    assert found.verdict == ("pass" if fits else "fail")
    assert fits or "signed, symmetric" in found.detail


def test_it_needs_neither_torch_nor_onnx(whole):
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'torchvision', 'onnxscript'): sys.modules[name] = None\n"
        "from dermedge.cli import main\n"
        f"sys.exit(main(['verify', '--json', '--bundle', {str(whole)!r}]))\n"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["ok"] is True
