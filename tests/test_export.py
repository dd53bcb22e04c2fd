"""Export: every registered network's graph, calibration, the bundle, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from dermedge import DISCLAIMER, cli, files, procedural
from dermedge.analyzer import Analyzer
from dermedge.bundle import Bundle
from dermedge.datasets import Split, load, make_split
from dermedge.image import Picture, read_image
from dermedge.metrics import expected_calibration_error
from dermedge.preprocess import Preprocessing, prepare
from dermedge.session import open_session
from export import assemble as room
from export import graph as graphs
from export.assemble import fit_temperature, operating_points
from export.graph import TOLERANCE, ExportError, Network, compare, to_onnx
from train.loop import load_run, train
from train.models import MODELS, build_model
from train.recipe import load_recipe

SIZE = 64
LABELS = ("bcc", "mel", "nv")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def squares() -> list[np.ndarray]:
    spec = Preprocessing(size=SIZE)
    drawn = [procedural.draw(seed, size=(96, 128)).image for seed in range(8)]
    return [prepare(image, spec)[0] for image in drawn]


def lively(name: str, squares: list[np.ndarray]):
    """A network with random weights whose answers depend on the picture.

    As built, batch norm passes so little on that any two pictures get one answer, and every
    graph would seem equal.
    """
    torch.manual_seed(0)
    model = build_model(name, LABELS)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # All of the pictures' statistics make a random U-Net blow rounding up a hundredfold.
            module.momentum = 0.9 if model.kind == "segmenter" else 1.0
    with torch.no_grad():
        model.train()(torch.from_numpy(np.stack(squares)))
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_every_network_exports(name, squares):
    model = lively(name, squares)
    network = Network(model, temperature=1.5)
    content = to_onnx(network, SIZE)

    graph = onnx.load_from_string(content)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.ir_version <= 10
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]
    cast, transpose = graph.graph.node[:2]
    assert (cast.op_type, list(cast.input)) == ("Cast", ["image"])
    assert onnx.helper.get_node_attr_value(cast, "to") == onnx.TensorProto.FLOAT
    assert (transpose.op_type, list(transpose.input)) == ("Transpose", list(cast.output))
    # Global pooling stays one node; see Network.forward.
    assert "Gather" not in {node.op_type for node in graph.graph.node}
    assert b".py" not in content
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)

    session = open_session(content, threads=1)
    (image,), (output,) = session.inputs, session.outputs
    assert (image.name, image.shape, image.dtype) == ("image", (1, SIZE, SIZE, 3), np.uint8)
    expected = {
        "segmenter": ("mask", (1, SIZE, SIZE), np.float32),
        "classifier": ("probabilities", (1, len(LABELS)), np.float32),
    }
    assert (output.name, output.shape, output.dtype) == expected[model.kind]
    answers = np.stack([session.run({"image": square[None]})[output.name] for square in squares])
    assert answers.std(axis=0).max() > 1e-3
    assert answers.min() >= 0
    assert answers.max() <= 1
    if model.kind == "classifier":
        assert answers.sum(axis=2) == pytest.approx(1, abs=1e-5)

    parity = compare(network, content, squares)
    assert parity.count == len(squares)
    assert 0 <= parity.mean_abs_difference <= parity.max_abs_difference <= TOLERANCE


def test_real_pictures_get_the_same_probabilities(shared_data, squares):
    found = sorted((shared_data / "HAM10000").rglob("ISIC_*.jpg"))[::1000]
    if not found:
        pytest.skip("HAM10000 is not here")
    real = [prepare(read_image(path).pixels, Preprocessing(size=SIZE))[0] for path in found]
    network = Network(lively("mobilenet_v3_small", real))
    assert compare(network, to_onnx(network, SIZE), real).max_abs_difference <= TOLERANCE


def test_a_graph_of_other_weights_is_refused(squares):
    network = Network(lively("mobilenet_v3_small", squares))
    content = to_onnx(network, SIZE)
    with torch.no_grad():
        network.model.net.classifier[-1].bias[0] += 0.01
    with pytest.raises(ExportError, match=r"differs from the trained network by 0\.00\d+ in prob"):
        compare(network, content, squares)
    with pytest.raises(ExportError, match="no picture"):
        compare(network, content, [])


def test_a_network_that_gives_nan_is_refused(squares):
    network = Network(lively("mobilenet_v3_small", squares))
    content = to_onnx(network, SIZE)
    with torch.no_grad():
        network.model.net.classifier[-1].bias[0] = float("nan")
    with pytest.raises(ExportError, match="differs"):
        compare(network, content, squares[:1])


def test_export_leaves_the_trained_network_as_it_is(squares):
    model = lively("mobilenet_v3_small", squares).train().to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = to_onnx(Network(model), SIZE)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert to_onnx(Network(model), SIZE) == first


def test_a_graph_that_transposes_bytes_is_refused(squares):
    network = Network(lively("mobilenet_v3_small", squares[:2]))
    graph = onnx.load_from_string(to_onnx(network, SIZE))
    cast, transpose = graph.graph.node[:2]
    cast.op_type, transpose.op_type = "Transpose", "Cast"
    cast.attribute[0].CopyFrom(onnx.helper.make_attribute("perm", [0, 3, 1, 2]))
    transpose.attribute[0].CopyFrom(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT))
    with pytest.raises(ExportError, match="cast its uint8 input first"):
        graphs._check(graph, "probabilities")


def test_temperature_calms_an_over_confident_network():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5))
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = np.array([rng.choice(5, p=row) for row in odds])
    for factor in (0.5, 1.0, 4.0):
        assert fit_temperature(logits * factor, targets) == pytest.approx(factor, rel=0.06)
    before, after = (
        np.exp(room._log_softmax(logits * 4 / temperature))
        for temperature in (1.0, fit_temperature(logits * 4, targets))
    )
    rows = np.arange(len(targets))
    assert np.log(after[rows, targets]).mean() > np.log(before[rows, targets]).mean() + 0.5
    assert expected_calibration_error(after, targets) < 0.03
    assert expected_calibration_error(before, targets) > 0.2


def test_temperature_stays_finite_when_all_is_right():
    logits = np.eye(3)[[0, 1, 2, 0]]
    assert 0.05 <= fit_temperature(logits, np.array([0, 1, 2, 0])) < 0.06


def test_operating_points_keep_what_they_promise():
    rng = np.random.default_rng(1)
    malignant = rng.random(400) < 0.2
    malignancy = np.clip(rng.normal(0.3 + 0.3 * malignant, 0.15), 0, 1)
    see_doctor, urgent = operating_points(malignancy, malignant)
    assert (malignancy[malignant] >= see_doctor).mean() >= 0.95
    assert (malignancy[malignant] >= see_doctor + 0.03).mean() < 0.95
    assert (malignancy[~malignant] < urgent).mean() >= 0.95
    assert urgent >= see_doctor


@pytest.mark.parametrize("worst", [0.0, 1.0])
def test_operating_points_stay_in_range(worst):
    see_doctor, urgent = operating_points(np.full(6, worst), np.array([True, False] * 3))
    assert 0 < see_doctor <= urgent <= 1


# --- runs to bundle ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A segmenter and a classifier, trained for two steps on drawn pictures."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    procedural.write_data_set(folder / "data", 60, size=(96, 128))
    data_set = load("procedural", folder / "data")
    split = make_split(data_set, fractions=(0.5, 0.5, 0.0))
    small = ["preprocessing.size=32", "batch_size=4", "max_steps=2", "workers=0"]
    models = {"segmenter": "mobilegan", "classifier": "mobilenet_v3_small"}
    for kind, model in models.items():
        recipe = load_recipe(kind, [*small, f"model={model}", "pretrained=no"])
        train(recipe, data_set, split, folder / kind)
    return folder


@pytest.fixture(scope="module")
def bundle(runs):
    out = runs / "small.dermbundle"
    code = cli.main(
        ["export", str(runs / "classifier"), str(runs / "segmenter"), "--out", str(out)]
    )
    assert code == 0
    return Bundle.open(out)


def test_the_bundle_says_what_it_is_made_of(bundle, runs):
    manifest = bundle.manifest
    run = load_run(runs / "classifier")
    assert manifest.name == "small"
    assert manifest.procedural
    assert manifest.labels == run.labels
    assert manifest.licence == procedural.LICENCE
    assert {entry["role"] for entry in manifest.training_data} == {"segmenter", "classifier"}
    for entry in manifest.training_data:
        assert entry["split_sha256"] == run.split_sha256
        assert entry["finished"]
    for role in ("segmenter", "classifier"):
        assert manifest.parity[role]["max_abs_difference"] <= TOLERANCE
        assert manifest.parity[role]["count"] > 0
        assert manifest.measured[role]["part"] == "val"
    scores = manifest.measured["classifier"]
    assert scores["see_doctor"]["sensitivity"]["value"] >= 0.95
    assert scores["urgent"]["specificity"]["value"] >= 0.95
    assert 0 < manifest.measured["segmenter"]["jaccard"]["value"] <= 1
    # Whoever gets the bundle learns nothing of the machine that made it.
    assert str(runs).encode() not in bundle.path.read_bytes()


def test_the_bundle_carries_its_split(bundle, runs, tmp_path):
    (tmp_path / "split.json").write_bytes(bundle.part("split.json"))
    stored = Split.load(tmp_path / "split.json")
    assert stored == Split.load(runs / "segmenter" / "split.json")


def test_a_device_can_check_itself(bundle):
    reference = np.load(io.BytesIO(bundle.part("reference.npz")))
    analyzer = Analyzer(bundle, threads=1)
    specs = {role: model.preprocessing for role, model in bundle.manifest.models.items()}
    for index, picture in enumerate(reference["pictures"]):
        for role, spec in specs.items():
            assert np.array_equal(prepare(picture, spec)[0], reference[f"{role}_image"][index])
        expected = reference["classifier_probabilities"][index]
        found = analyzer.analyze(Picture(picture, *picture.shape[:2])).probabilities
        assert list(found.values()) == pytest.approx(expected, abs=1e-5)
        session = open_session(bundle.model("segmenter"), threads=1)
        mask = session.run({"image": reference["segmenter_image"][index][None]})["mask"][0]
        assert mask == pytest.approx(reference["segmenter_mask"][index], abs=1e-5)


def test_a_signed_bundle_and_its_summary(bundle, runs, capsys, tmp_path):
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "key.pem").write_bytes(private)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    folders = [str(runs / "classifier"), str(runs / "segmenter")]
    out = tmp_path / "signed.dermbundle"
    options = ["--out", str(out), "--name", "clinic", "--sign", str(tmp_path / "key.pem")]
    assert cli.main(["export", *folders, *options]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    for words in ("Jaccard", "AUC malignant", "thresholds", "generated pictures", DISCLAIMER):
        assert words in printed.err
    signed = Bundle.open(out, trusted_key=public)
    assert signed.signed_by
    assert signed.manifest.name == "clinic"
    # The same runs give the same graphs and reference, byte for byte.
    for part in bundle.manifest.parts:
        assert signed.part(part) == bundle.part(part)


def test_a_graph_that_differs_leaves_what_was_there(runs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "kept.dermbundle"
    out.write_bytes(b"the bundle of last month")
    monkeypatch.setattr(graphs, "TOLERANCE", -1.0)
    command = ["export", str(runs / "classifier"), str(runs / "segmenter"), "--out", str(out)]
    assert cli.main(command) == 2
    assert "the export is refused" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["kept.dermbundle"]
    assert out.read_bytes() == b"the bundle of last month"


def test_a_full_disk_leaves_what_was_there(bundle, runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "kept.dermbundle"
    out.write_bytes(b"the bundle of last month")
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    monkeypatch.setattr(room, "assemble", lambda *_: (bundle.manifest, parts))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    assert "No space left" in refused(capsys, runs / "classifier", runs / "segmenter", "--out", out)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.dermbundle"]
    assert out.read_bytes() == b"the bundle of last month"


def refused(capsys, *arguments) -> str:
    """What `dermedge export` says, in one line, when it refuses."""
    assert cli.main(["export", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_runs_that_make_no_bundle_are_refused(runs, tmp_path, capsys):
    out = ("--out", tmp_path / "x.dermbundle")
    segmenter, classifier = runs / "segmenter", runs / "classifier"
    assert "needs a classifier too" in refused(capsys, segmenter, *out)
    assert "both a segmenter" in refused(capsys, segmenter, segmenter, classifier, *out)
    assert "no run folder" in refused(capsys, tmp_path, *out)
    assert ".dermbundle" in refused(capsys, segmenter, classifier, "--out", tmp_path / "x.zip")
    missing = tmp_path / "none" / "x.dermbundle"
    assert "no folder" in refused(capsys, segmenter, classifier, "--out", missing)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_run_is_refused(runs, tmp_path, capsys):
    segmenter = shutil.copytree(runs / "segmenter", tmp_path / "segmenter")
    command = (segmenter, runs / "classifier", "--out", tmp_path / "x.dermbundle")
    (segmenter / "best.pt").write_bytes(b"no weights")
    assert f"{segmenter / 'best.pt'} cannot be read" in refused(capsys, *command)
    stored = segmenter / "run.json"
    stored.write_text(stored.read_text().replace("mobilegan", "newer_net"))
    assert "there is no segmenter 'newer_net'" in refused(capsys, *command)
    assert not (tmp_path / "x.dermbundle").exists()


def test_a_run_that_was_stopped_is_exported_and_named(runs, tmp_path, capsys):
    stopped = shutil.copytree(runs / "classifier", tmp_path / "stopped")
    replace(load_run(stopped), steps=1, finished=False).save()
    out = tmp_path / "x.dermbundle"
    assert cli.main(["export", str(stopped), str(runs / "segmenter"), "--out", str(out)]) == 0
    printed = capsys.readouterr().err
    assert "the training of the classifier stopped at step 1 of 2" in printed
    assert "the segmenter stopped" not in printed
    found = {entry["role"]: entry for entry in Bundle.open(out).manifest.training_data}
    assert not found["classifier"]["finished"]
    assert found["classifier"]["planned_steps"] == 2


def resplit(run_folder, target, split):
    """A copy of a run as if it had been trained on `split`."""
    shutil.copytree(run_folder, target)
    content = json.loads((target / "run.json").read_text())
    content |= {"data_set": split.data_set, "split_sha256": split.sha256}
    (target / "run.json").write_text(json.dumps(content))
    split.save(target / "split.json")
    return target


def test_different_splits_of_one_data_set_are_refused(runs, tmp_path, capsys):
    other = make_split(load("procedural", runs / "data"), seed=7)
    moved = resplit(runs / "segmenter", tmp_path / "moved", other)
    line = refused(capsys, moved, runs / "classifier", "--out", tmp_path / "x.dermbundle")
    assert "split procedural differently" in line
    assert not (tmp_path / "x.dermbundle").exists()


def test_isic_pictures_that_one_learnt_and_the_other_is_tested_on_are_refused(
    runs, tmp_path, capsys
):
    learnt = Split("isic2017", 0, {"train": ("ISIC_0000007",), "val": (), "test": ()})
    tested = Split("ham10000", 0, {"train": (), "val": (), "test": ("ISIC_0000007",)})
    folders = [
        resplit(runs / "segmenter", tmp_path / "one", learnt),
        resplit(runs / "classifier", tmp_path / "two", tested),
    ]
    line = refused(capsys, *folders, "--out", tmp_path / "x.dermbundle")
    assert "ISIC_0000007" in line


def test_a_changed_split_is_refused(runs, tmp_path, capsys):
    copied = shutil.copytree(runs / "segmenter", tmp_path / "copied")
    make_split(load("procedural", runs / "data"), seed=7).save(copied / "split.json")
    line = refused(capsys, copied, runs / "classifier", "--out", tmp_path / "x.dermbundle")
    assert "not the split that this run was trained on" in line
