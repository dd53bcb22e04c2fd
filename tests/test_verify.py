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

from dermedge import cli
from dermedge.bundle.bundle import Bundle, shipped, write_bundle
from dermedge.bundle.manifest import TARGETS, Variant
from dermedge.bundle.reference import REFERENCE, Expected, Reference
from dermedge.data import synthetic as procedural
from dermedge.image.preprocess import prepare
from dermedge.runtime import host, open_session
from dermedge.verify import verify


def referenced(bundle: Bundle, out, change=lambda manifest, parts: (manifest, parts)):
    """The bundle with a reference, as the export makes it; then changed."""
    pictures = np.stack([procedural.draw(seed, size=(96, 128)).image for seed in (1, 2)])
    networks = {}
    for role, model in bundle.manifest.models.items():
        session = open_session(bundle.model(role), threads=1)
        squares = [prepare(picture, model.preprocessing)[0] for picture in pictures]
        answers = [session.run({"image": square[None]}) for square in squares]
        outputs = {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}
        networks[role] = Expected.of(np.stack(squares), outputs)
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    manifest, parts = change(
        bundle.manifest, {**parts, REFERENCE: Reference(pictures, networks).to_bytes()}
    )
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


@pytest.mark.parametrize("part", ["cases.npz", "outlier.npz"])
def test_what_an_analysis_would_refuse_beside_the_classifier_is_found(
    part, make_bundle, tmp_path, capsys
):
    def change(manifest, parts):
        return manifest, {**parts, part: b"no archive"}

    bundle = Bundle.open(make_bundle())
    path = referenced(bundle, tmp_path / "x.dermbundle", change)
    assert cli.main(["verify", "--bundle", str(path)]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 1
    assert failed[0].startswith(f"FAIL  {part}: ")


def test_pictures_that_are_prepared_differently_are_found(whole, monkeypatch):
    import dermedge.verify as module

    def brighter(picture, spec, box=None):
        square, placement = prepare(picture, spec, box)
        return np.minimum(square.astype(int) + 5, 255).astype(np.uint8), placement

    monkeypatch.setattr(module, "prepare", brighter)
    failed = [c for c in verify(Bundle.open(whole)) if c.verdict == "fail"]
    assert failed
    assert all("prepared differently" in check.detail for check in failed)


@pytest.mark.parametrize(("precision", "verdict"), [("fp32", "fail"), ("int8", "skip")])
def test_crops_that_another_precision_places_are_no_fault(
    tiny_bundle, tmp_path, precision, verdict
):
    def change(manifest, parts):
        models = dict(manifest.models)
        models["segmenter"] = replace(models["segmenter"], precision=precision)
        # The reference is of whole pictures, so that these crops lie elsewhere.
        spec = replace(models["classifier"].preprocessing, crop=1.5)
        models["classifier"] = replace(models["classifier"], preprocessing=spec)
        return replace(manifest, models=models), parts

    path = referenced(Bundle.open(tiny_bundle), tmp_path / "crops.dermbundle", change)
    (found,) = (c for c in verify(Bundle.open(path)) if c.name == "classifier.onnx computes")
    assert found.verdict == verdict
    assert ("places its crops" in found.detail) == (verdict == "skip")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_a_damaged_bundle_is_one_line(whole, tmp_path, capsys, damage):
    content = bytearray(whole.read_bytes())
    path = tmp_path / "damaged.dermbundle"
    content[len(content) // 3] ^= 255
    kept = {"flipped": content, "truncated": whole.read_bytes()[:-100], "empty": b""}[damage]
    path.write_bytes(kept)
    assert cli.main(["verify", "--bundle", str(path)]) == 1
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
    assert cli.main(["verify", "--bundle", str(signed), "--trusted-key", str(key)]) == 1
    assert "signed by another key" in capsys.readouterr().err
    key.write_bytes(theirs.public_key().public_bytes(serialization.Encoding.PEM, public))
    assert cli.main(["verify", "--bundle", str(signed), "--trusted-key", str(key)]) == 0
    assert "PASS  signature: signed by the trusted key" in capsys.readouterr().out
    assert cli.main(["verify", "--bundle", str(signed)]) == 0
    assert "SKIP  signature: signed by an unknown key" in capsys.readouterr().out


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


def _npz(**arrays) -> bytes:
    import io

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _changed_reference(content: bytes, **changes) -> bytes:
    import io

    arrays = {**np.load(io.BytesIO(content)), **changes}
    return _npz(**{name: value for name, value in arrays.items() if value is not None})


NAN = np.full((2, 7), np.nan, np.float32)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pictures": None}, "lacks the array 'pictures'"),
        ({"pictures": np.zeros((0, 96, 128, 3), np.uint8)}, "no pictures, or too many"),
        ({"pictures": np.zeros((2, 96, 128, 4), np.uint8)}, "no pictures, or too many"),
        ({"pictures": np.zeros((2, 0, 128, 3), np.uint8)}, "no pictures, or too many"),
        ({"pictures": np.zeros((2, 8, 8, 3), np.uint16)}, "another type than uint8"),
        ({"pictures": np.zeros((2, 1, 3000, 3), np.uint8)}, "'pictures' of a shape"),
        ({"pictures": np.zeros((2, 96, 128, 3), np.float32)}, "'pictures' of a type"),
        ({"pictures": np.zeros((1, 96, 128, 3), np.uint8)}, "something else than 1 pictures"),
        ({"classifier_image": np.zeros((2, 9, 9, 3), np.uint8)}, "pictures of another size"),
        ({"classifier_image": np.zeros((2, 4, 4), np.uint8)}, "'classifier_image' of a shape"),
        ({"classifier_image": None}, "does not say what the classifier is fed with"),
        ({"classifier_probabilities": NAN}, "'classifier_probabilities' that are not finite"),
        ({"classifier_probabilities": np.zeros((2, 6), np.float32)}, "no probabilities of this"),
        ({"classifier_probabilities": None}, "no probabilities of this shape"),
        ({"wizard_image": np.zeros((2, 4, 4, 3), np.uint8)}, "'wizard_image', which does not"),
        ({"pictures": np.array([object()])}, "'pictures' of a type"),
    ],
)
def test_a_hostile_reference_fails_in_one_line(tiny_bundle, tmp_path, capsys, changes, reason):
    def change(manifest, parts):
        return manifest, {**parts, REFERENCE: _changed_reference(parts[REFERENCE], **changes)}

    path = referenced(Bundle.open(tiny_bundle), tmp_path / "hostile.dermbundle", change)
    assert cli.main(["verify", "--bundle", str(path)]) == 1
    told = capsys.readouterr().out
    (line,) = (line for line in told.splitlines() if line.startswith("FAIL  classifier.onnx comp"))
    assert reason in line


@pytest.mark.parametrize("content", [b"", b"PK\5\6" + bytes(18), b"no archive", b"PK\3\4"])
def test_a_reference_that_is_none_fails_in_one_line(tiny_bundle, tmp_path, capsys, content):
    def change(manifest, parts):
        return manifest, {**parts, REFERENCE: content}

    path = referenced(Bundle.open(tiny_bundle), tmp_path / "none.dermbundle", change)
    assert cli.main(["verify", "--bundle", str(path)]) == 1
    assert "FAIL  classifier.onnx computes: reference.npz is refused" in capsys.readouterr().out


def test_a_reference_that_inflates_without_measure_is_not_inflated(tiny_bundle, tmp_path, capsys):
    import tracemalloc

    def change(manifest, parts):
        bomb = _changed_reference(
            parts[REFERENCE], pictures=np.zeros((16, 2000, 2000, 3), np.uint8)
        )
        assert len(bomb) < 1_000_000
        return manifest, {**parts, REFERENCE: bomb}

    bundle = Bundle.open(referenced(Bundle.open(tiny_bundle), tmp_path / "b.dermbundle", change))
    tracemalloc.start()
    checks = list(verify(bundle))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
    assert any("would inflate to 192" in check.detail for check in checks)


def test_a_graph_that_takes_something_else_fails_in_one_line(tiny_bundle, tmp_path, capsys):
    """Its own shapes contradict the manifest's."""

    def change(manifest, parts):
        return manifest, {**parts, "classifier.onnx": parts["segmenter.onnx"]}

    path = referenced(Bundle.open(tiny_bundle), tmp_path / "swapped.dermbundle", change)
    assert cli.main(["verify", "--bundle", str(path)]) == 1
    told = capsys.readouterr().out
    assert "FAIL  classifier.onnx computes: the classifier of" in told
    assert "does not take uint8 'image'" in told


def test_a_graph_that_breaks_while_it_runs_fails_in_one_line(tiny_bundle, tmp_path, capsys):
    from onnx import helper

    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=1),
        helper.make_node("ReduceMax", ["float", "axis"], ["gray"], keepdims=0),
        helper.make_node("Gather", ["gray", "far"], ["row"], axis=1),
        helper.make_node("Add", ["gray", "row"], ["mask"]),
    ]
    constants = [
        helper.make_tensor("axis", 7, [1], [3]),
        helper.make_tensor("far", 7, [1], [5000]),
    ]
    graph = helper.make_graph(
        nodes,
        "breaks",
        [helper.make_tensor_value_info("image", 2, [1, 64, 64, 3])],
        [helper.make_tensor_value_info("mask", 1, [1, 64, 64])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    def change(manifest, parts):
        return manifest, {**parts, "segmenter.onnx": model.SerializeToString()}

    path = referenced(Bundle.open(tiny_bundle), tmp_path / "breaks.dermbundle", change)
    assert cli.main(["verify", "--bundle", str(path)]) == 1
    told = capsys.readouterr().out
    assert "FAIL  segmenter.onnx computes: " in told
    assert "Traceback" not in told
