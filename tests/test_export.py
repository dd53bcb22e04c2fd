"""Export: every registered network's graph, calibration, the bundle, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.report.repacked import LIST, hashes_of
from dermedge import DISCLAIMER, cli, files
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle, shipped, write_bundle
from dermedge.bundle.reference import STRIDE
from dermedge.bundle.similar import SimilarCases
from dermedge.data import Split, load, make_split
from dermedge.data import synthetic as procedural
from dermedge.data.fingerprint import of_pictures
from dermedge.data.leak import FILE, TRAIN, VAL, TrainingPictures, overlap
from dermedge.data.records import Record
from dermedge.evaluation.metrics import balanced_accuracy, expected_calibration_error
from dermedge.image.preprocess import Preprocessing, prepare
from dermedge.image.read import Picture, read_image
from dermedge.metadata import encode
from dermedge.runtime import open_session
from dermedge.taxonomy import MALIGNANT
from export import ExportError, familiarity
from export import assemble as room
from export import graph as graphs
from export import judge as judging
from export.calibrate import (
    class_offsets,
    fit_temperature,
    log_softmax,
    operating_points,
    unfamiliar_limit,
)
from export.familiarity import fit
from export.graph import TOLERANCE, Network, compare, to_onnx
from export.halves import halve
from export.look import cropper, sample
from export.repack import repack
from export.weights import fold_norms, round_to_half
from train.loop import load_run, train
from train.models import MODELS, build_model
from train.recipe import load_recipe
from train.run import load_model

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


def lively(name: str, squares: list[np.ndarray], metadata: tuple[str, ...] = ()):
    """A network with random weights whose answers depend on the picture.

    As built, batch norm passes so little on that any two pictures get one answer, and every
    graph would seem equal.
    """
    torch.manual_seed(0)
    model = build_model(name, LABELS, metadata=metadata)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # All of the pictures' statistics make a random U-Net blow rounding up a hundredfold.
            module.momentum = 1.0 if model.kind == "classifier" else 0.9
    with torch.no_grad():
        model.train()(torch.from_numpy(np.stack(squares)))
    return model.eval()


def features_of(model, squares: list[np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        return model.explain(torch.from_numpy(np.stack(squares)))["features"].numpy()


def calibrated(model, squares: list[np.ndarray], temperature: float = 1.0) -> Network:
    """The network of a bundle, whose familiar pictures are `squares`."""
    if model.kind == "segmenter":
        return Network(model)
    return Network(model, temperature, fit(features_of(model, squares)))


def feeds_of(network: Network, squares: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The pictures, each of another person where the network takes metadata."""
    known = [{"age": 5.0 + 10 * i, "sex": ("male", "female")[i % 2]} for i in range(len(squares))]
    feeds = [{**network.sample(SIZE), "image": square[None]} for square in squares]
    for feed, person in zip(feeds, known, strict=True):
        if "metadata" in feed:
            feed["metadata"] = encode(network.model.metadata, **person)[None]
    return feeds


@pytest.mark.parametrize("name", MODELS)
def test_every_network_exports(name, squares):
    classifies = MODELS[name].kind != "segmenter"
    model = lively(name, squares, ("age", "sex") if classifies else ())
    network = calibrated(model, squares, temperature=1.5)
    content = to_onnx(network, SIZE)

    graph = onnx.load_from_string(content)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.ir_version <= 10
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]
    (cast,) = (node for node in graph.graph.node if "image" in node.input)
    assert cast.op_type == "Cast"
    assert onnx.helper.get_node_attr_value(cast, "to") == onnx.TensorProto.FLOAT
    users = [node.op_type for node in graph.graph.node if cast.output[0] in node.input]
    assert users == ["Transpose"]
    # Global pooling stays one node; see Network.forward.
    assert "Gather" not in {node.op_type for node in graph.graph.node}
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)
    for tensor in graph.graph.initializer:
        tensor.ClearField("raw_data")  # may hold any three bytes
    assert b".py" not in graph.SerializeToString()

    session = open_session(content, threads=1)
    taken = [("image", (1, SIZE, SIZE, 3), np.uint8)]
    given = []
    if MODELS[name].kind != "classifier":
        given.append(("mask", (1, SIZE, SIZE)))
    if classifies:
        taken.append(("metadata", (1, 7), np.float32))
        given.append(("probabilities", (1, len(LABELS))))
        if not name.startswith(("mobilenet_v3", "mobilenet_v4")):
            given.append(("activation", (1, len(LABELS), SIZE // 32, SIZE // 32)))
        given += [("embedding", (1, len(squares) - 1)), ("distance", (1, 1))]
    assert [(item.name, item.shape, item.dtype) for item in session.inputs] == taken
    assert [(item.name, item.shape) for item in session.outputs] == given
    assert {item.dtype for item in session.outputs} == {np.dtype(np.float32)}

    feeds = feeds_of(network, squares)
    for main in {"mask", "probabilities"} & {output for output, _ in given}:
        answers = np.stack([session.run(feed)[main] for feed in feeds])
        assert answers.std(axis=0).max() > 1e-3
        assert answers.min() >= 0
        assert answers.max() <= 1
        if main == "probabilities":
            assert answers.sum(axis=2) == pytest.approx(1, abs=1e-5)

    parity = compare(network, content, feeds)
    assert parity.count == len(squares)
    assert 0 <= parity.mean_abs_difference <= parity.max_abs_difference <= TOLERANCE
    assert parity.max_relative_difference <= graphs.RELATIVE_TOLERANCE


def test_real_pictures_get_the_same_probabilities(shared_data, squares):
    found = sorted((shared_data / "HAM10000").rglob("ISIC_*.jpg"))[::1000]
    if not found:
        pytest.skip("HAM10000 is not here")
    real = [prepare(read_image(path).pixels, Preprocessing(size=SIZE))[0] for path in found]
    network = calibrated(lively("mobilenet_v3_small", real), real)
    parity = compare(network, to_onnx(network, SIZE), feeds_of(network, real))
    assert parity.max_abs_difference <= TOLERANCE


def test_a_graph_of_other_weights_is_refused(squares):
    network = Network(lively("mobilenet_v3_small", squares))
    content = to_onnx(network, SIZE)
    with torch.no_grad():
        network.model.net.head.layers[-1].bias[0] += 0.01
    with pytest.raises(ExportError, match=r"differs from the trained network by 0\.00\d+ in prob"):
        compare(network, content, feeds_of(network, squares))
    with pytest.raises(ExportError, match="no picture"):
        compare(network, content, [])


def test_a_network_that_gives_nan_is_refused(squares):
    network = Network(lively("mobilenet_v3_small", squares))
    content = to_onnx(network, SIZE)
    with torch.no_grad():
        network.model.net.head.layers[-1].bias[0] = float("nan")
    with pytest.raises(ExportError, match="differs"):
        compare(network, content, feeds_of(network, squares[:1]))


def test_a_graph_with_another_notion_of_the_familiar_is_refused(squares):
    network = calibrated(lively("mobilenet_v3_small", squares), squares)
    content = to_onnx(network, SIZE)
    with torch.no_grad():
        network.familiarity.mean += 0.01
    with pytest.raises(ExportError, match="explanations differ"):
        compare(network, content, feeds_of(network, squares))


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
        graphs._check(graph, ["image"], ["probabilities"])


def test_temperature_calms_an_over_confident_network():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5))
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = np.array([rng.choice(5, p=row) for row in odds])
    for factor in (0.5, 1.0, 4.0):
        assert fit_temperature(logits * factor, targets) == pytest.approx(factor, rel=0.06)
    before, after = (
        np.exp(log_softmax(logits * 4 / temperature))
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


def test_offsets_find_the_rare_class():
    # Half of the rare class looks a little more like the common one, as training taught.
    rng = np.random.default_rng(2)
    targets = (rng.random(4000) < 0.05).astype(int)
    evidence = rng.normal(np.where(targets == 1, 1.0, -1.0), 1.0)
    logits = np.stack([np.zeros(4000), 2 * evidence + np.log(0.05 / 0.95)], axis=1)
    found = log_softmax(logits)
    offsets = class_offsets(found, targets, (1900, 100))
    assert len(offsets) == 2
    assert offsets[1] > offsets[0] > 0
    before, after = (
        balanced_accuracy((found + add).argmax(axis=1), targets, 2) for add in (0, offsets)
    )
    assert after > before + 0.1
    assert after > 0.8


def test_no_offsets_where_they_would_not_help():
    logits = 4 * np.eye(3)[[0, 1, 2, 0]]
    assert class_offsets(log_softmax(logits), np.array([0, 1, 2, 0]), (50, 25, 25)) == ()
    assert class_offsets(log_softmax(logits), np.array([0, 1, 2, 0]), (10, 10, 10)) == ()


def test_one_familiar_picture_in_a_hundred_is_called_unfamiliar():
    distance = np.random.default_rng(3).gamma(2.0, size=(5000, 1))
    assert 0.985 < (distance <= unfamiliar_limit(distance)).mean() < 0.995
    assert unfamiliar_limit(np.zeros(4)) > 0


# --- what the probabilities rest upon --------------------------------------------------------


def test_embedding_and_distance_are_those_of_probabilistic_pca(monkeypatch):
    monkeypatch.setattr(familiarity, "AXES", 3)
    rng = np.random.default_rng(4)
    features = (rng.normal(size=(600, 8)) * [9, 6, 4, 1, 1, 1, 1, 1]) @ rng.normal(size=(8, 8)) + 5
    features = features.astype(np.float32)
    with torch.inference_mode():
        embedding, distance = (part.numpy() for part in fit(features)(torch.from_numpy(features)))
    values, vectors = np.linalg.eigh(np.cov(features.T, bias=True).astype(np.float64))
    noise = values[:-3].mean()
    model = vectors @ np.diag([*[noise] * 5, *values[-3:]]) @ vectors.T
    centred = features - features.mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centred, np.linalg.inv(model), centred) / 8)
    assert distance[:, 0] == pytest.approx(expected, rel=1e-3)
    assert (distance**2).mean() == pytest.approx(1, rel=1e-3)
    axes = vectors[:, [-1, -2, -3]] / np.sqrt(values[[-1, -2, -3]])
    assert np.abs(embedding) == pytest.approx(np.abs(centred @ axes), rel=1e-3, abs=1e-3)
    assert embedding.std(axis=0) == pytest.approx(1, rel=1e-3)


def test_what_was_never_seen_is_far(squares):
    model = lively("mobilenet_v2", squares)
    network = calibrated(model, squares)
    noise = np.random.default_rng(5).integers(0, 256, squares[0].shape, np.uint8)
    session = open_session(to_onnx(network, SIZE), threads=1)
    known, strange = (
        [session.run({"image": square[None]})["distance"].item() for square in group]
        for group in (squares, [noise])
    )
    assert strange[0] > 2 * max(known)


def test_features_that_never_vary_give_finite_distances():
    for constant in (np.zeros((5, 4), np.float32), np.full((5, 4), 3.0, np.float32)):
        found = fit(constant)
        round_to_half(found)
        for part in found(torch.from_numpy(constant)):
            assert torch.isfinite(part).all()


def test_the_activation_adds_up_to_the_probabilities(squares):
    network = calibrated(lively("mobilenet_v2", squares), squares, temperature=1.5)
    session = open_session(to_onnx(network, SIZE), threads=1)
    bias = network.model.net.head.layers[-1].bias.detach().numpy()
    for square in squares[:3]:
        found = session.run({"image": square[None]})
        logits = found["activation"].mean(axis=(2, 3)) + bias
        expected = np.exp(log_softmax(logits / 1.5))
        assert found["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_metadata_counts_and_may_be_absent(squares):
    with_fields = lively("mobilenet_v3_small", squares, ("age", "site"))
    session = open_session(to_onnx(Network(with_fields), SIZE), threads=1)
    images = torch.from_numpy(squares[0][None])
    absent = session.run({"image": squares[0][None], "metadata": np.zeros((1, 11), np.float32)})
    with torch.inference_mode():
        alone = torch.softmax(with_fields.explain(images)["classes"], dim=1).numpy()
    assert absent["probabilities"] == pytest.approx(alone, abs=1e-5)
    known = encode(("age", "site"), age=70, site="back")[None]
    told = session.run({"image": squares[0][None], "metadata": known})
    assert np.abs(told["probabilities"] - alone).max() > 1e-4


# --- half precision ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilegan-edge", "multitask_mobilenet_v2"])
def test_half_weights_are_exactly_those_of_the_rounded_network(name, squares):
    model = lively(name, squares)
    folded = fold_norms(model, torch.from_numpy(squares[0][None]))
    image = torch.from_numpy(np.stack(squares))
    with torch.inference_mode():
        before, after = (
            net(image) if net.kind != "multitask" else net(image)[0] for net in (model, folded)
        )
    assert after.numpy() == pytest.approx(before.numpy(), rel=1e-3, abs=1e-3)

    round_to_half(folded)
    network = calibrated(folded, squares)
    if network.familiarity is not None:
        round_to_half(network.familiarity)
    full, half = to_onnx(network, SIZE), to_onnx(network, SIZE, "half")
    assert len(half) < 0.52 * len(full)
    graph = onnx.load_from_string(half).graph
    kinds = {tensor.data_type: 0 for tensor in graph.initializer}
    for tensor in graph.initializer:
        kinds[tensor.data_type] += int(np.prod(tensor.dims))
    assert kinds[onnx.TensorProto.FLOAT16] > 0.99 * sum(kinds.values())
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    # Nothing but a Cast reads them, so that the computation stays in single precision.
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == 10}
    assert {node.op_type for node in graph.node if halves & set(node.input)} == {"Cast"}

    stored, rounded = open_session(half, threads=1), open_session(full, threads=1)
    feeds = feeds_of(network, squares)
    for feed in feeds:
        one, other = stored.run(feed), rounded.run(feed)
        for output in network.outputs:
            assert one[output] == pytest.approx(other[output], abs=1e-6)
    assert compare(network, half, feeds).max_abs_difference <= TOLERANCE


def test_a_norm_that_cannot_be_folded_is_refused():
    class Split2(torch.nn.Module):
        """What the convolution gives is normalized, and used as it is too."""

        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 1)
            self.norm = torch.nn.BatchNorm2d(4)
            torch.nn.init.constant_(self.norm.running_mean, 0.5)

        def forward(self, image):
            x = self.conv(image.permute(0, 3, 1, 2).to(self.conv.weight.dtype))
            return x + self.norm(x)

    with pytest.raises(ExportError, match="--weights full"):
        fold_norms(Split2(), torch.ones(1, 8, 8, 3, dtype=torch.uint8))


def test_weights_that_half_precision_cannot_hold_are_refused():
    layer = torch.nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight[0, 0] = 1e5
    with pytest.raises(ExportError, match="weight is too large for half precision"):
        round_to_half(layer)


def test_rounding_leaves_the_trained_network_as_it_is(squares):
    model = lively("mobilenet_v3_small", squares)
    before = copy.deepcopy(model.state_dict())
    round_to_half(fold_norms(model, torch.from_numpy(squares[0][None])))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- which pictures are looked at --------------------------------------------------------------


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([*LABELS, None]), min_size=1, max_size=120),
    st.integers(3, 60),
    st.randoms(use_true_random=False),
)
def test_the_sample_is_bounded_and_has_every_class(labels, most, random):
    records = [Record(str(i), None, label=label) for i, label in enumerate(labels)]
    chosen = sample(records, most)
    assert len(chosen) == len({record.id for record in chosen}) <= most + len(LABELS) + 1
    assert {record.label for record in chosen} == set(labels)
    if len(records) <= most:
        assert len(chosen) == len(records)
    random.shuffle(records)
    assert sample(records, most) == chosen


# --- runs to bundle ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of each kind, trained for two steps on drawn pictures."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    procedural.write_data_set(folder / "data", 60, size=(96, 128))
    data_set = load("procedural", folder / "data")
    split = make_split(data_set, fractions=(0.5, 0.5, 0.0))
    small = ["preprocessing.size=32", "batch_size=4", "max_steps=2", "workers=0"]
    chosen = {
        "segmenter": ["model=mobilegan-nano"],
        "classifier": ["model=mobilenet_v3_small"],
        "multitask": ["metadata=age,sex,site"],
        "cropped": ["model=mobilenet_v2", "preprocessing.crop=1.5"],
    }
    for name, special in chosen.items():
        recipe = load_recipe(
            "classifier" if name == "cropped" else name, [*small, *special, "pretrained=no"]
        )
        train(recipe, data_set, split, folder / name)
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
        assert entry["recipe"] == entry["role"]
        stored = (runs / entry["role"] / "recipe.toml").read_bytes()
        assert entry["recipe_sha256"] == hashlib.sha256(stored).hexdigest()
        assert entry["commit"] == run.commit
    model = manifest.models["classifier"]
    assert (model.parameters, model.macs, model.weights) == (run.parameters, run.macs, "full")
    for role in ("segmenter", "classifier"):
        assert manifest.parity[role]["max_abs_difference"] <= TOLERANCE
        assert manifest.parity[role]["count"] > 0
        assert manifest.measured[role]["part"] == "val"
    halves = halve(
        load("procedural", runs / "data"), Split.load(runs / "classifier" / "split.json")
    )
    for measured in manifest.measured.values():
        assert measured["half"] == "accepting"
        assert measured["pictures"] == len(halves.accepting)
        assert measured["halves"] == halves.report()
    assert 0 < manifest.measured["segmenter"]["jaccard"]["value"] <= 1
    # Whoever gets the bundle learns nothing of the machine that made it.
    assert str(runs).encode() not in bundle.path.read_bytes()


@pytest.mark.parametrize("name", ["segmenter", "classifier"])
def test_the_tuning_half_chooses_and_the_accepting_half_measures(runs, name, monkeypatch):
    run, sizes = load_run(runs / name), {}
    for function in (
        *("mask_threshold", "fit_temperature", "operating_points", "class_offsets"),
        *("unfamiliar_limit", "mask_figures", "class_figures"),
    ):
        real = getattr(judging, function)

        def noted(first, *others, function=function, real=real):
            sizes[function] = len(first)
            return real(first, *others)

        monkeypatch.setattr(judging, function, noted)
    data_set, split = load(run.data_set, runs / "data"), Split.load(runs / name / "split.json")
    judge = judging.Judge(run, split, data_set, load_model(run))
    if name == "segmenter":
        judge.masks()
    else:
        judge.classes(fit(judge.training().features))
    asked, chosen = len(judge.halves.accepting), len(judge.halves.tuning)
    assert sizes
    assert {n for f, n in sizes.items() if f.endswith("figures")} == {asked}
    assert {n for f, n in sizes.items() if not f.endswith("figures")} == {chosen}
    tuning, accepting = judge.exams()
    assert (len(tuning.feeds), len(accepting.feeds)) == (chosen, asked)


def test_partly_labelled_pictures_can_be_calibrated_and_judged_on(runs):
    run = load_run(runs / "segmenter")
    data_set, split = load(run.data_set, runs / "data"), Split.load(runs / "segmenter/split.json")
    records = tuple(
        replace(record, label=None, diagnosis=None) if number % 3 else record
        for number, record in enumerate(data_set.records)
    )
    judge = judging.Judge(run, split, replace(data_set, records=records), load_model(run))
    assert len(judge.calibration(500)) == len(split.parts["train"])
    tuning, accepting = judge.exams()
    assert len(tuning.feeds) + len(accepting.feeds) == len(split.parts["val"])
    assert {-1} < {*tuning.targets, *accepting.targets} or not run.labels


def test_a_half_without_malignant_lesions_chooses_no_threshold(runs):
    run, data_set = load_run(runs / "classifier"), load("procedural", runs / "data")
    split = Split.load(runs / "classifier" / "split.json")
    malignant = {r.id for r in data_set.records if r.label in MALIGNANT}
    val = [name for name in split.parts["val"] if name not in malignant]
    one = next(name for name in split.parts["val"] if name in malignant)
    part = replace(split, parts={**split.parts, "val": tuple(sorted([*val, one]))})
    judge = judging.Judge(run, part, data_set, load_model(run))
    with pytest.raises(ExportError, match=r"the accepting half .* has only benign lesions"):
        judge.classes(fit(judge.training().features))


def test_the_bundle_names_no_picture_but_knows_them(bundle, runs):
    split = Split.load(runs / "segmenter" / "split.json")
    assert not {name for name in bundle.manifest.parts if name.startswith("split")}
    everything = b"".join(bundle.part(name) for name in bundle.manifest.parts)
    everything += bundle.manifest.to_json().encode()
    assert not [name for ids in split.parts.values() for name in ids if name.encode() in everything]
    for entry in bundle.manifest.training_data:
        assert entry["split_parts"] == {part: len(ids) for part, ids in split.parts.items()}
    listed = TrainingPictures.from_bytes(bundle.part(FILE))
    records = load("procedural", runs / "data").records
    for part, bits in (("train", TRAIN), ("val", VAL), ("test", TRAIN | VAL)):
        prints, _ = of_pictures(split.select(records, part))
        for role in ("segmenter", "classifier"):
            known = overlap(prints, listed.of(role, bits))
            assert known.astype(bool).all() if part != "test" else not known.any()


def check_reference(bundle):
    """Prepare and compute the reference anew, as a device does; return it."""
    reference = np.load(io.BytesIO(bundle.part("reference.npz")))
    grid = slice(None, None, STRIDE)
    for role in ("segmenter", "classifier"):
        model = bundle.manifest.models[role]
        kind, spec = model.part.removesuffix(".onnx"), model.preprocessing
        session = open_session(bundle.model(role), threads=1)
        for index, picture in enumerate(reference["pictures"]):
            square, _ = prepare(picture, spec)
            assert np.array_equal(square[grid, grid], reference[f"{kind}_image"][index])
            absent = {item.name: np.zeros(item.shape, item.dtype) for item in session.inputs}
            found = session.run({**absent, "image": square[None]})
            for name, value in found.items():
                value = value[0, grid, grid] if name == "mask" else value[0]
                assert value == pytest.approx(reference[f"{kind}_{name}"][index], abs=1e-5)
    return reference


def test_a_device_can_check_itself(bundle):
    reference = check_reference(bundle)
    analyzer = Analyzer(bundle, threads=1)
    for picture, expected in zip(
        reference["pictures"], reference["classifier_probabilities"], strict=True
    ):
        found = analyzer.analyze(Picture(picture, *picture.shape[:2])).probabilities
        assert list(found.values()) == pytest.approx(expected, abs=1e-5)


def test_one_multitask_run_plays_both_roles(runs, tmp_path, capsys):
    out = tmp_path / "both.dermbundle"
    options = ["--weights", "half", "--cases", "2", "--case-pictures", "--out", str(out)]
    assert cli.main(["export", str(runs / "multitask"), *options]) == 0
    printed = capsys.readouterr().err
    assert "with the picture alone: AUC malignant" in printed
    opened = Bundle.open(out)
    manifest = opened.manifest
    assert manifest.models["segmenter"] == manifest.models["classifier"]
    assert manifest.models["classifier"].part == "multitask.onnx"
    assert manifest.models["classifier"].weights == "half"
    assert manifest.models["classifier"].metadata == ("age", "sex", "site")
    assert manifest.thresholds.unfamiliar > 0
    assert set(manifest.measured) == {"segmenter", "classifier"}
    measured = manifest.measured["classifier"]
    told, alone = (
        entry["auc_malignant"]["value"] for entry in (measured, measured["without_metadata"])
    )
    assert told != alone
    (entry,) = manifest.training_data
    assert entry["role"] == "multitask"
    check_reference(opened)
    cases = SimilarCases.from_bytes(opened.part("cases.npz"), len(manifest.labels))
    assert 0 < len(cases.ids) <= 2 * len(manifest.labels)
    assert max(np.bincount(cases.labels)) <= 2
    # The data set's ids stay at home: they may be a hospital's file names.
    assert list(cases.ids) == [f"case-{number}" for number in range(1, 1 + len(cases.ids))]
    assert np.abs(cases.picture(cases.ids[0]).astype(int) - 128).max() > 0


def test_crops_are_where_the_segmenter_sees_a_lesion(tiny_bundle):
    opened = Bundle.open(tiny_bundle)
    session = open_session(opened.model("segmenter"), threads=1)
    crop = cropper(session, opened.manifest.models["segmenter"].preprocessing, 0.5)
    picture = np.full((96, 128, 3), 220, np.uint8)
    assert crop(picture) is None
    picture[20:60, 70:100] = 20
    assert crop(picture) == pytest.approx((70, 20, 30, 40), abs=3)


def test_a_classifier_of_crops_is_calibrated_on_crops(runs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "cropped.dermbundle"
    assert "add the run of a segmenter" in refused(capsys, runs / "cropped", "--out", out)
    box, fed = (40, 30, 30, 24), []
    monkeypatch.setattr(room, "cropper", lambda *_: lambda pixels: box)
    monkeypatch.setattr(room, "compare", lambda *given: fed.append(given[2]) or compare(*given))
    folders = [str(runs / name) for name in ("cropped", "segmenter")]
    assert cli.main(["export", *folders, "--out", str(out)]) == 0
    opened = Bundle.open(out)
    spec = opened.manifest.models["classifier"].preprocessing
    assert spec.crop == 1.5
    split = Split.load(runs / "cropped" / "split.json")
    records = split.select(load("procedural", runs / "data").records, "val")
    expected = {prepare(read_image(r.image).pixels, spec, box)[0].tobytes() for r in records}
    whole, cropped = ({feed["image"].tobytes() for feed in feeds} for feeds in fed)
    assert cropped <= expected
    assert not whole & expected
    reference = np.load(io.BytesIO(opened.part("reference.npz")))
    grid = slice(None, None, STRIDE)
    for picture, image in zip(reference["pictures"], reference["classifier_image"], strict=True):
        assert np.array_equal(prepare(picture, spec, box)[0][grid, grid], image)


@pytest.mark.parametrize("role", ["segmenter", "classifier"])
def test_one_network_alone_makes_a_bundle_for_evaluation(role, runs, tmp_path, capsys):
    out = tmp_path / "one.dermbundle"
    assert cli.main(["export", str(runs / role), "--out", str(out)]) == 0
    other = {"segmenter": "classifier", "classifier": "segmenter"}[role]
    assert f"for evaluation only: the app needs a {other} too" in capsys.readouterr().err
    opened = Bundle.open(out)
    assert list(opened.manifest.models) == list(opened.manifest.measured) == [role]
    assert (opened.manifest.labels == ()) == (role == "segmenter")
    assert TrainingPictures.from_bytes(opened.part(FILE)).roles() == (role,)


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
    options += ["--release", "4"]
    assert cli.main(["export", *folders, *options]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    for words in ("Jaccard", "AUC malignant", "thresholds", "generated pictures", DISCLAIMER):
        assert words in printed.err
    signed = Bundle.open(out, trusted_key=public)
    assert signed.signed_by
    assert signed.manifest.name == "clinic"
    assert signed.manifest.release == 4
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
    words = (runs / "classifier", runs / "segmenter", "--out", out)
    assert "No space left" in refused(capsys, *words, status=1)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.dermbundle"]
    assert out.read_bytes() == b"the bundle of last month"


def refused(capsys, *arguments, status: int = 2) -> str:
    """What `dermedge export` says, in one line, when it refuses."""
    assert cli.main(["export", *map(str, arguments)]) == status
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_runs_that_make_no_bundle_are_refused(runs, tmp_path, capsys):
    out = ("--out", tmp_path / "x.dermbundle")
    segmenter, classifier = runs / "segmenter", runs / "classifier"
    assert "both a segmenter" in refused(capsys, segmenter, segmenter, classifier, *out)
    assert "both a classifier" in refused(capsys, classifier, runs / "multitask", *out)
    assert "--cases must be 0 to 8" in refused(capsys, segmenter, classifier, "--cases", "9", *out)
    assert "--release must be 1" in refused(capsys, segmenter, classifier, "--release", "0", *out)
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
    stored.write_text(stored.read_text().replace("mobilegan-nano", "newer_net"))
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
    assert cli.main(["export", *map(str, folders), "--out", str(tmp_path / "x.dermbundle")]) == 2
    lines = capsys.readouterr().err.splitlines()
    # Their pictures are gone, so only numbers can be compared; that is said, too.
    assert all("compared by ISIC number alone" in line for line in lines[:-1])
    assert "1 of 1 test pictures (1 by ISIC number; first: ISIC_0000007)" in lines[-1]


def test_bundles_of_the_first_version_lose_their_ids_and_nothing_else(bundle, runs, tmp_path):
    data_set = load("procedural", runs / "data")
    split = (runs / "segmenter" / "split.json").read_bytes()
    parts = {name: bundle.part(name) for name in bundle.manifest.parts if name != FILE}
    old = write_bundle(tmp_path / "old.dermbundle", bundle.manifest, {**parts, "split.json": split})
    manifest, new = repack(Bundle.open(old), {data_set.name: data_set})
    assert new.keys() == {*parts, FILE}
    assert all(new[name] == content for name, content in parts.items())
    assert new[FILE] == bundle.part(FILE)
    assert replace(manifest, parts={}) == replace(bundle.manifest, parts={})


def test_shipped_bundles_name_no_picture_and_their_figures_are_still_theirs():
    listed = json.loads(LIST.read_text())
    for path in shipped().values():
        opened = Bundle.open(path)
        assert not {name for name in opened.manifest.parts if name.startswith("split")}
        (entry,) = (entry for entry in listed if entry["bundle"] == path.name)
        assert hashes_of(opened) == (opened.sha256, entry["was"])
        if "cases.npz" in opened.manifest.parts:
            cases = SimilarCases.from_bytes(opened.part("cases.npz"), len(opened.manifest.labels))
            assert all(name.startswith("case-") for name in cases.ids)
        training = TrainingPictures.from_bytes(opened.part(FILE))
        for data in opened.manifest.training_data:
            roles = training.roles() if data["role"] == "multitask" else (data["role"],)
            for role in roles:
                for part, bits in (("train", TRAIN), ("val", VAL)):
                    assert len(training.of(role, bits)) == data["split_parts"][part]


def test_a_changed_split_is_refused(runs, tmp_path, capsys):
    copied = shutil.copytree(runs / "segmenter", tmp_path / "copied")
    make_split(load("procedural", runs / "data"), seed=7).save(copied / "split.json")
    line = refused(capsys, copied, runs / "classifier", "--out", tmp_path / "x.dermbundle")
    assert "not the split that this run was trained on" in line
