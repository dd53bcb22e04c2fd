"""FP16 and INT8: the graphs, and the gate that lets them into a bundle or says no."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from test_export import LABELS, SIZE, calibrated, feeds_of, lively

from dermedge import cli
from dermedge.bundle.bundle import Bundle, BundleError, Thresholds, Variant
from dermedge.data import load, make_split
from dermedge.data import synthetic as procedural
from dermedge.image.preprocess import Preprocessing, prepare
from dermedge.runtime import ExecutionConfig, host, open_session
from export import ExportError, int8, precisions
from export.equalize import equalize
from export.gate import Answers, Exam, Speed, judge, sit, speed_refusals
from export.graph import to_onnx
from export.int8 import SCHEMES, calibrate, count_from, quantize
from export.weights import compute_half
from train.loop import train
from train.models import MODELS
from train.recipe import Gate, load_recipe

NO_LIMITS = Gate(retained=0.0, sensitivity=0.0, triage=0.0, speedup=0.0)


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    monkeypatch.setattr(int8, "LEAST_PICTURES", 8)


@pytest.fixture(scope="module")
def squares() -> list[np.ndarray]:
    drawn = [procedural.draw(seed, size=(96, 128)).image for seed in range(8)]
    return [prepare(image, Preprocessing(size=SIZE))[0] for image in drawn]


def exported(name: str, squares) -> tuple[bytes, list[dict[str, np.ndarray]]]:
    network = calibrated(lively(name, squares), squares)
    return to_onnx(network, SIZE), feeds_of(network, squares)


def answers_of(graph: bytes, feeds) -> dict[str, np.ndarray]:
    session = open_session(graph, threads=1)
    found = [session.run(inputs) for inputs in feeds]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def probability(answers: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate(
        [
            answers[n].reshape(len(answers[n]), -1)
            for n in ("mask", "probabilities")
            if n in answers
        ],
        axis=1,
    )


@pytest.mark.parametrize("name", MODELS)
def test_every_network_in_every_precision(name, squares):
    graph, feeds = exported(name, squares)
    expected = probability(answers_of(graph, feeds))
    half = compute_half(graph)
    assert len(half) < 0.72 * len(graph)
    assert np.abs(probability(answers_of(half, feeds)) - expected).max() <= 0.02
    even = equalize(graph, feeds)
    # No more than what rounding leaves; random weights make that loud, too.
    assert np.abs(probability(answers_of(even, feeds)) - expected).max() < 1e-3
    seen = calibrate(even, feeds, ["minmax"])
    for title, scheme in SCHEMES.items():
        made = quantize(seen, "minmax", scheme)
        found = answers_of(made, feeds)
        apart = np.abs(probability(found) - expected).mean()
        # Random weights make rounding loud; a wrong graph is louder.
        assert apart < 0.25, (title, apart)
        model = onnx.load_model_from_string(made)
        _check_types(model, title)
        assert [node.op_type for node in model.graph.node if "image" in node.input] == ["Cast"]


def _check_types(model: onnx.ModelProto, title: str) -> None:
    """The types and zero points that the scheme's runtime asks for."""
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    steps = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(steps) > 5
    zeros = [constants[node.input[2]] for node in steps]
    assert {zero.dtype for zero in zeros} == {np.dtype("u1" if title == "unsigned" else "i1")}
    if title == "symmetric":
        assert not any(zero.any() for zero in zeros)
    # TensorRT takes no bias in INT32.
    assert not any(value.dtype == np.int32 for value in constants.values())


def test_fp16_computes_in_half_and_speaks_float(squares):
    graph, _ = exported("mobilenet_v2", squares)
    model = onnx.load_model_from_string(compute_half(graph))
    kinds = {item.name: item.type.tensor_type.elem_type for item in model.graph.output}
    assert set(kinds.values()) == {onnx.TensorProto.FLOAT}
    constants = {t.name: t.data_type for t in model.graph.initializer}
    weights = {constants[n.input[1]] for n in model.graph.node if n.op_type == "Conv"}
    assert weights == {onnx.TensorProto.FLOAT16}


def small_graph(seed: int = 0) -> bytes:
    """Normalization and one convolution without padding; the answer is its map."""
    from onnx import helper

    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    weight[0, 0, 0, 0] = 60  # what is small beside it is rounded away
    constants = {
        "mean": np.array([123.7, 116.3, 103.5], np.float32).reshape(1, 3, 1, 1),
        "std": np.array([58.4, 57.1, 57.4], np.float32).reshape(1, 3, 1, 1),
        "weight": weight,
        "bias": rng.normal(size=4).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=1, name="cast"),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2], name="turn"),
        helper.make_node("Sub", ["planes", "mean"], ["centred"], name="sub"),
        helper.make_node("Div", ["centred", "std"], ["normal"], name="div"),
        helper.make_node("Conv", ["normal", "weight", "bias"], ["map"], name="conv"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1, 16, 16, 3])],
        [helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, [1, 4, 14, 14])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def small_feeds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"image": rng.integers(120, 256, (1, 16, 16, 3), np.uint8)} for _ in range(12)]


@pytest.mark.parametrize("middle", [116, 128])
def test_normalization_moves_into_the_first_convolution(middle):
    after = count_from(onnx.load_model_from_string(small_graph()), middle)
    assert [n.op_type for n in after.graph.node] == ["Cast", "Transpose", "Sub", "Conv"]
    feeds = small_feeds()
    np.testing.assert_allclose(
        answers_of(after.SerializeToString(), feeds)["map"],
        answers_of(small_graph(), feeds)["map"],
        rtol=1e-4,
        atol=1e-3,
    )


def test_the_picture_enters_int8_without_a_loss(squares):
    graph, feeds = exported("mobilenet_v2", squares)
    made = quantize(calibrate(graph, feeds, ["minmax"]), "minmax", SCHEMES["unsigned"])
    model = onnx.load_model_from_string(made)
    first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert constants[first.input[1]] == 1.0
    assert constants[first.input[2]] == 116


def test_corrected_biases_keep_the_mean(monkeypatch):
    graph, feeds = small_graph(), small_feeds()
    expected = answers_of(graph, feeds)["map"].mean(axis=(0, 2, 3))
    seen = calibrate(graph, feeds, ["minmax"])

    def shift() -> float:
        made = quantize(seen, "minmax", SCHEMES["unsigned"])
        found = answers_of(made, feeds)["map"].mean(axis=(0, 2, 3))
        return float(np.abs(found - expected).max())

    corrected = shift()
    monkeypatch.setattr(int8, "_correct_biases", lambda *_: None)
    assert corrected < shift() / 3


def uneven_graph() -> bytes:
    """Two residual convolutions whose channels differ a hundredfold, and one behind them."""
    from onnx import helper

    rng = np.random.default_rng(0)
    gains = np.geomspace(0.02, 2, 8)[:, None, None, None]
    constants = {
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "wide": gains * rng.normal(size=(8, 3, 3, 3)) / 300,
        "wide_bias": gains.ravel() * rng.normal(size=8),
        "deep": rng.normal(size=(8, 1, 3, 3)),
        "deep_bias": gains.ravel() / 4,
        "flat": gains * rng.normal(size=(8, 8, 1, 1)) / gains.reshape(1, 8, 1, 1) / 8,
        "flat_bias": gains.ravel() * rng.normal(size=8),
        "last": rng.normal(size=(4, 8, 1, 1)) / gains.reshape(1, 8, 1, 1),
        "last_bias": rng.normal(size=4),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=1, name="cast"),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2], name="turn"),
        helper.make_node("Conv", ["planes", "wide", "wide_bias"], ["a"], name="conv_a"),
        helper.make_node("Clip", ["a", "zero", "six"], ["b"], name="clip"),
        helper.make_node(
            "Conv", ["b", "deep", "deep_bias"], ["c"], name="conv_c", group=8, pads=[1, 1, 1, 1]
        ),
        helper.make_node("Conv", ["c", "flat", "flat_bias"], ["d"], name="conv_d"),
        helper.make_node("Add", ["c", "d"], ["e"], name="add"),
        helper.make_node("Conv", ["e", "last", "last_bias"], ["map"], name="conv_e"),
    ]
    graph = helper.make_graph(
        nodes,
        "uneven",
        [helper.make_tensor_value_info("image", 2, [1, 16, 16, 3])],
        [helper.make_tensor_value_info("map", 1, [1, 4, 14, 14])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return made.SerializeToString()


def test_channels_of_one_range_lose_less():
    rng = np.random.default_rng(3)
    feeds = [{"image": rng.integers(0, 256, (1, 16, 16, 3), np.uint8)} for _ in range(12)]
    graph = uneven_graph()
    even = equalize(graph, feeds)
    expected = answers_of(graph, feeds)["map"]
    assert np.abs(answers_of(even, feeds)["map"] - expected).max() < 1e-4 * np.abs(expected).max()

    def lost(graph: bytes) -> float:
        made = quantize(calibrate(graph, feeds, ["minmax"]), "minmax", SCHEMES["signed"])
        return float(np.abs(answers_of(made, feeds)["map"] - expected).mean())

    assert lost(even) < lost(graph) / 2


def test_first_layers_in_float_lose_less(squares):
    graph, feeds = exported("mobilenet_v2", squares)
    scheme = SCHEMES["unsigned"]
    seen = calibrate(graph, feeds, ["minmax"])
    expected = probability(answers_of(seen.model(scheme).SerializeToString(), feeds))
    every = int8.layers(seen, scheme)
    assert len({name for layer in every for name in layer}) == sum(map(len, every)) > 60

    def apart(count: int) -> float:
        kept = [name for layer in every[:count] for name in layer]
        made = quantize(seen, "minmax", scheme, kept)
        return float(np.abs(probability(answers_of(made, feeds)) - expected).mean())

    assert apart(len(every)) < 1e-6
    assert apart(20) < apart(0)


def test_too_few_pictures_to_calibrate_on(squares, monkeypatch):
    monkeypatch.setattr(int8, "LEAST_PICTURES", 500)
    graph, feeds = exported("mobilegan-nano", squares)
    with pytest.raises(ExportError, match="8 training pictures are too few"):
        calibrate(graph, feeds)


# --- the gate ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exam() -> tuple[Exam, Answers, Thresholds]:
    """300 lesions, of which FP32 knows most."""
    rng = np.random.default_rng(0)
    targets = rng.integers(len(LABELS), size=300)
    scores = rng.normal(size=(300, len(LABELS)))
    scores[np.arange(300), targets] += 4
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    sat = Exam(feeds=[{}] * 300, groups=np.arange(300), labels=LABELS, targets=targets)
    return (
        sat,
        Answers(probabilities, np.ones(300), None, None),
        Thresholds(see_doctor=0.2, urgent=0.8, unfamiliar=2.0),
    )


def against(*judged) -> str:
    """All that `judge` has against a candidate."""
    return "; ".join(refusal.words for refusal in judge(*judged, Gate())[1])


def test_the_same_answers_pass(exam):
    sat, answers, thresholds = exam
    figures, refusals = judge(sat, answers, answers, thresholds, Gate())
    assert not refusals
    assert figures["auc_malignant"]["kept"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert figures["triage_changes"] == 0


def test_every_limit_can_refuse(exam):
    sat, answers, thresholds = exam
    rng = np.random.default_rng(1)
    mixed = answers.probabilities.copy()
    mixed[::3] = rng.permutation(mixed[::3])
    worse = replace(answers, probabilities=mixed)
    told = against(sat, answers, worse, thresholds)
    for name in ("auc_malignant", "macro_auc", "balanced_accuracy", "triage agrees"):
        assert name in told
    missing = replace(answers, probabilities=np.full_like(answers.probabilities, 1 / len(LABELS)))
    strict = replace(thresholds, see_doctor=0.99, urgent=0.99)
    assert "sensitivity 0.0000" in against(sat, answers, missing, strict)


def test_answers_that_are_no_numbers_are_refused(exam):
    sat, answers, thresholds = exam
    nothing = replace(answers, probabilities=np.full_like(answers.probabilities, np.nan))
    assert against(sat, answers, nothing, thresholds) == "it gives no finite numbers"


def test_what_is_farther_than_before_counts_as_another_triage(exam):
    sat, answers, thresholds = exam
    far = replace(answers, distance=np.full(300, 3.0))
    figures, refusals = judge(sat, answers, far, thresholds, Gate())
    assert figures["triage_changes"] == 300
    assert "triage agrees" in refusals[0].words


def test_slower_or_doubtful_speed_is_refused():
    assert speed_refusals(None, Gate()) == []
    assert speed_refusals(Speed(2.0, 1.0, 2.0, 1.8, 2.2, "here"), Gate()) == []
    (refusal,) = speed_refusals(Speed(2.0, 1.9, 1.05, 0.97, 1.2, "here"), Gate())
    assert refusal.kind == "slow"
    assert "1.05 times as fast as FP32 (0.97 to 1.20)" in refusal.words


def test_a_bad_calibration_is_refused_and_the_accepting_half_asked_once(squares, monkeypatch):
    graph, feeds = exported("mobilenet_v2", squares)
    targets = np.array([i % len(LABELS) for i in range(len(feeds))])
    tuning, accepting = (
        Exam(feeds, np.arange(len(feeds)), LABELS, targets, [None] * 8, [None] * 8)
        for _ in range(2)
    )
    asked = []

    def noted(exam, *others):
        asked.append(exam)
        return sit(exam, *others)

    monkeypatch.setattr(precisions, "sit", noted)
    thresholds = Thresholds(see_doctor=0.3, urgent=0.6)
    maker = precisions.Precisions(
        ("classifier",), graph, (tuning, accepting), thresholds, Gate(retained=0.0)
    )
    black = [{**inputs, "image": np.zeros_like(inputs["image"])} for inputs in feeds]
    attempts = [*maker.fp16(), *maker.int8(black, ["minmax"])]
    assert accepting not in asked
    assert maker.accept(attempts) == thresholds
    assert asked.count(accepting) == 1 + len(attempts) == 5
    assert not any(attempt.passed for attempt in attempts)
    half, *quantized = (attempt.report(len(graph)) for attempt in attempts)
    # Half precision answers alike, but eight pictures show nothing of it.
    assert {"too few pictures" in reason for reason in half["reasons"]} == {True}
    assert half["speed"] is None
    assert half["judged"]["accepting"]["pictures"] == 8
    for report in quantized:
        assert report["passed"] is False
        assert any("triage agrees" in reason for reason in report["reasons"])
        assert any("kept in float" in step for step in report["path"])


def test_the_exam_is_sat_through_the_runtime(squares):
    graph, feeds = exported("mobilenet_v2", squares)
    sat = Exam(feeds, np.arange(8), LABELS, np.zeros(8, int), [None] * 8, [None] * 8)
    found = sit(sat, graph, 0.5, "here")
    np.testing.assert_array_equal(
        found.probabilities, answers_of(graph, feeds)["probabilities"].astype(np.float64)
    )
    assert found.jaccard is None


def test_training_for_quantization_leaves_the_network_as_it_was(squares):
    from export.qat import train_quantized

    model = lively("mobilenet_v2", squares)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    feeds = [{"image": square[None]} for square in squares]
    learnt = train_quantized(model, feeds, steps=2)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    moved = [
        not torch.equal(one, other)
        for one, other in zip(model.parameters(), learnt.parameters(), strict=True)
    ]
    assert np.mean(moved) > 0.9


# --- runs to bundles ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    procedural.write_data_set(folder / "data", 60, size=(96, 128))
    data_set = load("procedural", folder / "data")
    split = make_split(data_set, fractions=(0.5, 0.5, 0.0))
    small = ["preprocessing.size=32", "batch_size=4", "max_steps=2", "workers=0", "pretrained=no"]
    for name, model in (("segmenter", "mobilegan-nano"), ("classifier", "mobilenet_v2")):
        train(load_recipe(name, [*small, f"model={model}"]), data_set, split, folder / name)
    return folder


def export(runs, out, *options: str) -> int:
    folders = [str(runs / "segmenter"), str(runs / "classifier")]
    return cli.main(
        ["export", *folders, "--out", str(out), "--retrain", "0", "--calibration", "minmax"]
        + ["--precisions", "fp32", "fp16", "int8", *options]
    )


OPEN = [f"--gate-{name}=0" for name in ("retained", "sensitivity", "triage", "speedup")]


@pytest.fixture(scope="module")
def full(runs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "LEAST_PICTURES", 8)
        patch.setattr(precisions, "FP16_TOLERANCE", 1.0)
        assert export(runs, runs / "full.dermbundle", *OPEN) == 0
    return Bundle.open(runs / "full.dermbundle")


def test_what_passes_is_in_the_bundle_and_runs(full, runs):
    from dermedge.analyzer import Analyzer

    for role in ("segmenter", "classifier"):
        model = full.manifest.models[role]
        assert {(v.precision, v.targets) for v in model.variants} == {
            ("fp16", ("arm", "tensorrt", "android")),
            ("int8", ("x86",)),
            ("int8", ("arm", "android")),
            ("int8", ("tensorrt",)),
        }
    roads = dict.fromkeys(("segmenter", "classifier"), ExecutionConfig(precision="int8"))
    picture = next((runs / "data").rglob("*.jpg"), None) or next((runs / "data").rglob("*.png"))
    found = Analyzer(full, threads=1, executions=roads).analyze(picture)
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert "int8" in found.versions["models"]["classifier"]


def test_the_report_names_the_calibration_and_the_way(full):
    report = next(
        r
        for r in full.manifest.gate
        if r["precision"] == "int8" and r["targets"] == [host()] and r["roles"] == ["classifier"]
    )
    assert report["passed"]
    assert report["calibration"] == {"pictures": 31, "part": "train", "method": "minmax"}
    assert "calibrated by minmax" in report["path"][0]
    if host() == "x86":
        assert "the first 3 of" in report["path"][1]
    assert report["speed"]["low"] <= report["speed"]["ratio"] <= report["speed"]["high"]
    # Another machine's speed was not measured here.
    others = [r for r in full.manifest.gate if host() not in r["targets"]]
    assert others
    assert all(r["speed"] is None for r in others)


def test_what_fails_stays_out_and_is_named(runs, tmp_path, capsys):
    out = tmp_path / "strict.dermbundle"
    assert export(runs, out, *OPEN[:3], "--gate-speedup=100") == 0
    told = capsys.readouterr().err
    assert "REFUSED" in told
    assert "more than 100 is asked" in told
    strict = Bundle.open(out)
    with pytest.raises(BundleError, match=r"the export refused it, .* times as fast as FP32"):
        strict.variant("classifier", "int8", host())


@pytest.mark.parametrize("target", ["x86", "arm", "tensorrt", "android"])
def test_a_slice_has_one_graph_a_network(full, runs, tmp_path, target, monkeypatch):
    from export.assemble import slice_for

    parts = {name: full.part(name) for name in full.manifest.parts}
    manifest, kept = slice_for(full.manifest, parts, target)
    graphs = [name for name in kept if name.endswith(".onnx")]
    assert len(graphs) == 2
    assert all(target in model.targets for model in manifest.models.values())
    assert {model.precision for model in manifest.models.values()} == {"int8"}


def test_one_target_beside_fp32_makes_nothing_for_others(runs, tmp_path):
    out = tmp_path / "kiosk.dermbundle"
    assert export(runs, out, *OPEN, "--for", "x86", "--beside-fp32") == 0
    manifest = Bundle.open(out).manifest
    for model in manifest.models.values():
        assert model.precision == "fp32"
        assert [(v.precision, v.targets) for v in model.variants] == [("int8", ("x86",))]
    assert {tuple(report["targets"]) for report in manifest.gate} == {("x86",)}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--beside-fp32"], "--beside-fp32 needs --for"),
        (["--precisions", "int8"], "--precisions takes fp32"),
        (["--precisions", "fp32", "fp8"], "--precisions takes fp32"),
        (["--retrain", "-1"], "--retrain must be 0 or more"),
        (["--gate-retained", "1.5"], "--gate-retained must lie in 0 to 1"),
    ],
)
def test_wishes_that_make_no_sense(runs, tmp_path, capsys, options, reason):
    folders = [str(runs / "segmenter"), str(runs / "classifier")]
    out = tmp_path / "none.dermbundle"
    assert cli.main(["export", *folders, "--out", str(out), *options]) == 2
    assert reason in capsys.readouterr().err
    assert not out.exists()


def test_a_variant_that_is_not_clear_is_refused(full, tmp_path):
    from dermedge.bundle.bundle import write_bundle

    model = full.manifest.models["classifier"]
    twice = replace(model, variants=(*model.variants, Variant(model.part, "int8", ("x86",))))
    models = {**full.manifest.models, "classifier": twice}
    parts = {name: full.part(name) for name in full.manifest.parts}
    with pytest.raises(BundleError, match="two int8 graphs for x86"):
        write_bundle(tmp_path / "x.dermbundle", replace(full.manifest, models=models), parts)
