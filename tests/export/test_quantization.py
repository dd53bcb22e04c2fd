"""FP16 and INT8: the graphs, which candidate is chosen, and bundles that carry them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from drawn_networks import LABELS, answers_of, exported, lively, probability, squares
from networks import SHORT
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from dermedge import cli
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.bundle.manifest import BundleError, Thresholds, Variant
from dermedge.runtime import ExecutionConfig, host
from export import ExportError
from export.acceptance import accept as acceptance
from export.acceptance.accept import decide
from export.acceptance.speed import Speed, speed_refusals
from export.bundle.slices import slice_for
from export.quantization import candidates, int8
from export.quantization.candidates import Candidates, CandidateSearch
from export.quantization.equalize import equalize
from export.quantization.fp16 import compute_half
from export.quantization.int8 import SCHEMES, count_from, observe_ranges, quantize
from export.quantization.sensitivity import layers_around, map_effects
from export.validation.compare import compare
from export.validation.outputs import Outputs, ValidationSet, run_graph
from train.recipe import Acceptance


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    monkeypatch.setattr(int8, "LEAST_PICTURES", 8)


def test_fp16_computes_in_half_and_speaks_float():
    _, graph, _ = exported(SHORT[0])
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


def test_the_picture_enters_int8_without_a_loss():
    _, graph, feeds = exported(SHORT[0])
    made = quantize(observe_ranges(graph, feeds, ["minmax"]), "minmax", SCHEMES["unsigned"])
    model = onnx.load_model_from_string(made)
    first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert constants[first.input[1]] == 1.0
    assert constants[first.input[2]] == 116


def test_biases_make_up_for_the_mean_that_rounding_shifts():
    graph, feeds = small_graph(), small_feeds()
    expected = answers_of(graph, feeds)["map"].mean(axis=(0, 2, 3))
    seen = observe_ranges(graph, feeds, ["minmax"])

    def shift(calibration: int8.RangeCalibration) -> float:
        made = quantize(calibration, "minmax", SCHEMES["unsigned"])
        found = answers_of(made, feeds)["map"].mean(axis=(0, 2, 3))
        return float(np.abs(found - expected).max())

    unseen = {
        middle: {n: replace(one, mean=0 * one.mean) for n, one in moments.items()}
        for middle, moments in seen.moments.items()
    }
    assert shift(seen) < shift(replace(seen, moments=unseen)) / 3


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
        made = quantize(observe_ranges(graph, feeds, ["minmax"]), "minmax", SCHEMES["signed"])
        return float(np.abs(answers_of(made, feeds)["map"] - expected).mean())

    assert lost(even) < lost(graph) / 2


def test_first_layers_in_float_lose_less():
    _, graph, feeds = exported("mobilenet_v2")
    scheme = SCHEMES["unsigned"]
    seen = observe_ranges(graph, feeds, ["minmax"])
    expected = probability(answers_of(seen.model(scheme).SerializeToString(), feeds))
    every = int8.layers(seen, scheme)
    assert len({name for layer in every for name in layer}) == sum(map(len, every)) > 60

    def difference(count: int) -> float:
        float_nodes = [name for layer in every[:count] for name in layer]
        made = quantize(seen, "minmax", scheme, float_nodes)
        return float(np.abs(probability(answers_of(made, feeds)) - expected).mean())

    assert difference(len(every)) < 1e-6
    assert difference(20) < difference(0)


def test_the_map_that_bears_no_rounding_is_found():
    model = onnx.load_model_from_string(uneven_graph())
    model.graph.node.extend(
        [
            onnx.helper.make_node("GlobalAveragePool", ["map"], ["mean"], name="pool"),
            onnx.helper.make_node("Flatten", ["mean"], ["logits"], name="flatten"),
            onnx.helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax"),
        ]
    )
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("probabilities", 1, [1, 4]))
    graph = model.SerializeToString()
    rng = np.random.default_rng(3)
    feeds = [{"image": rng.integers(0, 256, (1, 16, 16, 3), np.uint8)} for _ in range(8)]
    scheme = SCHEMES["signed"]
    seen = observe_ranges(graph, feeds, ["minmax"])
    every = int8.layers(seen, scheme)
    nodes = {node.name: node for node in seen.model(scheme).graph.node}
    # One map in the middle gets steps a thousand times as coarse as it needs.
    number = len(every) // 2
    coarsened = nodes[every[number][-1]].output[0]
    values = dict(seen.ranges["minmax"].data)
    low, high = (1000 * np.ravel(value) for value in values[coarsened].range_value)
    values[coarsened] = TensorData(lowest=low.astype(np.float32), highest=high.astype(np.float32))
    ranges = {"minmax": TensorsData(CalibrationMethod.MinMax, values)}
    coarse = replace(seen, ranges=ranges)

    effects = map_effects(coarse, "minmax", scheme, feeds)
    shares = [effect.share for effect in effects]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert number in effects[0].layers
    assert number + 1 in effects[0].layers
    assert layers_around(effects, effects[0].share) == effects[0].layers
    assert layers_around(effects, 1.1) == set()

    # With these layers in float its steps no longer matter.
    float_nodes = [name for one in effects[0].layers for name in every[one]]
    made = [quantize(one, "minmax", scheme, float_nodes) for one in (seen, coarse)]
    assert made[0] == made[1]
    assert quantize(seen, "minmax", scheme) != quantize(coarse, "minmax", scheme)


def test_too_few_pictures_to_calibrate_on(monkeypatch):
    monkeypatch.setattr(int8, "LEAST_PICTURES", 500)
    with pytest.raises(ExportError, match="12 training pictures are too few"):
        observe_ranges(small_graph(), small_feeds())


# --- the comparison --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known() -> tuple[ValidationSet, Outputs, Thresholds]:
    """300 lesions, of which FP32 knows most."""
    rng = np.random.default_rng(0)
    targets = rng.integers(len(LABELS), size=300)
    scores = rng.normal(size=(300, len(LABELS)))
    scores[np.arange(300), targets] += 4
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    validation_set = ValidationSet(
        feeds=[{}] * 300, groups=np.arange(300), labels=LABELS, targets=targets
    )
    return (
        validation_set,
        Outputs(probabilities, np.ones(300), None, None),
        Thresholds(see_doctor=0.2, urgent=0.8, unfamiliar=2.0),
    )


def against(*judged) -> str:
    """All that `compare` has against a candidate."""
    return "; ".join(refusal.words for refusal in compare(*judged, Acceptance())[1])


def test_the_same_answers_pass(known):
    validation_set, outputs, thresholds = known
    figures, refusals = compare(validation_set, outputs, outputs, thresholds, Acceptance())
    assert not refusals
    assert figures["auc_malignant"]["kept"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert figures["triage_changes"] == 0


def test_every_limit_can_refuse(known):
    validation_set, outputs, thresholds = known
    rng = np.random.default_rng(1)
    mixed = outputs.probabilities.copy()
    mixed[::3] = rng.permutation(mixed[::3])
    worse = replace(outputs, probabilities=mixed)
    told = against(validation_set, outputs, worse, thresholds)
    for name in ("auc_malignant", "macro_auc", "balanced_accuracy", "triage agrees"):
        assert name in told
    missing = replace(outputs, probabilities=np.full_like(outputs.probabilities, 1 / len(LABELS)))
    strict = replace(thresholds, see_doctor=0.99, urgent=0.99)
    assert "sensitivity 0.0000" in against(validation_set, outputs, missing, strict)


def test_answers_that_are_no_numbers_are_refused(known):
    validation_set, outputs, thresholds = known
    nothing = replace(outputs, probabilities=np.full_like(outputs.probabilities, np.nan))
    assert against(validation_set, outputs, nothing, thresholds) == "it gives no finite numbers"


def test_what_is_farther_than_before_counts_as_another_triage(known):
    validation_set, outputs, thresholds = known
    far = replace(outputs, distance=np.full(300, 3.0))
    figures, refusals = compare(validation_set, outputs, far, thresholds, Acceptance())
    assert figures["triage_changes"] == 300
    assert "triage agrees" in refusals[0].words


def test_slower_or_doubtful_speed_is_refused():
    assert speed_refusals(None, Acceptance()) == []
    assert speed_refusals(Speed(2.0, 1.0, 2.0, 1.8, 2.2, "here"), Acceptance()) == []
    (refusal,) = speed_refusals(Speed(2.0, 1.9, 1.05, 0.97, 1.2, "here"), Acceptance())
    assert refusal.kind == "slow"
    assert "1.05 times as fast as FP32 (0.97 to 1.20)" in refusal.words


def test_a_bad_calibration_is_refused_and_the_accepting_half_asked_once(monkeypatch):
    _, graph, feeds = exported(SHORT[0])
    targets = np.array([i % len(LABELS) for i in range(len(feeds))])
    tuning, accepting = (
        ValidationSet(feeds, np.arange(len(feeds)), LABELS, targets, [None] * 8, [None] * 8)
        for _ in range(2)
    )
    asked = []

    def noted(validation_set, *others):
        asked.append(validation_set)
        return run_graph(validation_set, *others)

    monkeypatch.setattr(acceptance, "run_graph", noted)
    monkeypatch.setattr(candidates, "FLOAT_LAYERS", (0, 3))
    thresholds = Thresholds(see_doctor=0.3, urgent=0.6)
    margins = Acceptance(retained=0.0)
    reference = run_graph(tuning, graph, 0.5, "FP32")
    every = frozenset(("x86", "arm", "tensorrt", "android"))
    search = CandidateSearch(("classifier",), graph, tuning, reference, thresholds, margins, every)
    black = [{**inputs, "image": np.zeros_like(inputs["image"])} for inputs in feeds]
    tried = (*search.fp16(), *search.int8(black, ["minmax"]))
    decisions = decide(Candidates(graph, tried, margins), accepting, thresholds, {})
    assert asked == [accepting] * 5  # FP32 and four candidates
    assert not any(decision.passed for decision in decisions)
    half, *quantized = (decision.report(len(graph)) for decision in decisions)
    # Half precision answers alike, but eight pictures show nothing of it.
    assert {"too few pictures" in reason for reason in half["reasons"]} == {True}
    assert half["speed"] is None
    assert half["judged"]["accepting"]["pictures"] == 8
    for report in quantized:
        assert report["passed"] is False
        assert any("triage agrees" in reason for reason in report["reasons"])
        assert any("kept in float" in step for step in report["path"])


@pytest.mark.parametrize(("scheme", "first"), [("unsigned", 1), ("signed", 0)])
def test_a_network_of_one_layer_has_a_candidate(scheme, first):
    feeds = small_feeds()
    seen = observe_ranges(small_graph(), feeds, ["minmax"])
    tries = list(candidates._float_layers(SCHEMES[scheme], seen, "minmax", feeds))
    assert [list(numbers) for _, numbers in tries] == [list(range(first))]


@pytest.mark.parametrize(
    ("missing", "layers"),
    [([0.1, 0.1, 0.0, 9.0], "the first 6 of"), ([0.1, 0.02, 0.04, 0.05], "the first 3 of")],
)
def test_more_layers_stay_in_float_until_another_half_should_agree(monkeypatch, missing, layers):
    _, graph, feeds = exported("mobilegan-nano")
    tuning = ValidationSet(feeds, np.arange(8), masks=[None] * 8, placements=[None] * 8)
    expected = iter(missing)
    monkeypatch.setattr(candidates, "FLOAT_LAYERS", (0, 3, 6, 10))
    monkeypatch.setattr(candidates, "compare", lambda *_: ({}, []))  # nothing against any
    monkeypatch.setattr(candidates, "expected_missing", lambda *_: next(expected))
    reference = run_graph(tuning, graph, 0.5, "FP32")
    search = CandidateSearch(
        ("segmenter",),
        graph,
        tuning,
        reference,
        Thresholds(),
        Acceptance(),
        frozenset(("arm",)),
    )
    (chosen,) = search.int8(feeds, ["minmax"])
    assert layers in chosen.path[1]
    assert next(expected, None) == (9.0 if "6" in layers else None)


def test_a_validation_set_is_run_through_the_runtime():
    _, graph, feeds = exported("mobilenet_v2")
    validation_set = ValidationSet(
        feeds, np.arange(8), LABELS, np.zeros(8, int), [None] * 8, [None] * 8
    )
    found = run_graph(validation_set, graph, 0.5, "here")
    np.testing.assert_array_equal(
        found.probabilities, answers_of(graph, feeds)["probabilities"].astype(np.float64)
    )
    assert found.jaccard is None


@pytest.mark.slow
def test_training_for_quantization_leaves_the_network_as_it_was():
    from export.quantization.qat import train_quantized

    model = lively("mobilenet_v2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    feeds = [{"image": square[None]} for square in squares()]
    learnt = train_quantized(model, feeds, steps=2)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    moved = [
        not torch.equal(one, other)
        for one, other in zip(model.parameters(), learnt.parameters(), strict=True)
    ]
    assert np.mean(moved) > 0.9


# --- runs to bundles ---------------------------------------------------------------------------


OPEN = [f"--accept-{name}=0" for name in ("retained", "sensitivity", "triage", "speedup")]


@pytest.fixture(scope="module")
def full(export_runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("full") / "full.dermbundle"
    folders = [str(export_runs / "segmenter"), str(export_runs / "classifier")]
    words = ["--precisions", "fp32", "fp16", "int8", "--calibration", "minmax", *OPEN]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "LEAST_PICTURES", 8)
        patch.setattr(acceptance, "FP16_TOLERANCE", 1.0)
        assert cli.main(["export", *folders, *words, "--retrain", "0", "--out", str(out)]) == 0
    return Bundle.open(out)


def test_what_passes_is_in_the_bundle_and_runs(full, export_runs):
    from dermedge.analyzer import Analyzer

    for role in ("segmenter", "classifier"):
        model = full.manifest.models[role]
        assert {(v.precision, v.targets) for v in model.variants} == {
            ("fp16", ("arm", "tensorrt", "android")),
            ("int8", ("x86",)),
            ("int8", ("arm", "android")),
            ("int8", ("tensorrt",)),
        }
    executions = dict.fromkeys(("segmenter", "classifier"), ExecutionConfig(precision="int8"))
    picture = next((export_runs / "data").rglob("*.jpg"), None) or next(
        (export_runs / "data").rglob("*.png")
    )
    found = Analyzer(full, threads=1, executions=executions).analyze(picture)
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


def test_what_fails_stays_out_and_is_named(export_runs, tmp_path, capsys):
    out = tmp_path / "strict.dermbundle"
    words = ["--precisions", "fp32", "int8", "--calibration", "minmax", "--for", host()]
    words += [*OPEN[:3], "--accept-speedup=100", "--beside-fp32", "--out", str(out)]
    assert cli.main(["export", str(export_runs / "segmenter"), *words]) == 0
    printed = capsys.readouterr().err
    assert "REFUSED" in printed
    assert "more than 100 is asked" in printed
    strict = Bundle.open(out)
    with pytest.raises(BundleError, match=r"the export refused it, .* times as fast as FP32"):
        strict.variant("segmenter", "int8", host())


@pytest.mark.parametrize("target", ["x86", "arm", "tensorrt", "android"])
def test_a_slice_has_one_graph_a_network(full, target):
    parts = {name: full.part(name) for name in full.manifest.parts}
    manifest, kept = slice_for(full.manifest, parts, target)
    graphs = [name for name in kept if name.endswith(".onnx")]
    assert len(graphs) == 2
    assert all(target in model.targets for model in manifest.models.values())
    assert {model.precision for model in manifest.models.values()} == {"int8"}


def test_one_target_beside_fp32_makes_nothing_for_others(export_runs, tmp_path):
    out = tmp_path / "kiosk.dermbundle"
    words = ["--precisions", "fp32", "fp16", "int8", "--calibration", "minmax", *OPEN]
    words += ["--for", "x86", "--beside-fp32", "--retrain", "0", "--out", str(out)]
    assert cli.main(["export", str(export_runs / "segmenter"), *words]) == 0
    manifest = Bundle.open(out).manifest
    model = manifest.models["segmenter"]
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
        (["--retrain", "300", "--precisions", "fp32", "fp16"], "--retrain is of INT8: add int8"),
        (["--calibration", "minmax"], "--calibration is of INT8: add int8"),
        (["--accept-triage", "0.9"], "--accept-triage asks something of other precisions"),
        (["--accept-retained", "1.5"], "--accept-retained must lie in 0 to 1"),
    ],
)
def test_wishes_that_make_no_sense(export_runs, tmp_path, capsys, options, reason):
    folders = [str(export_runs / "segmenter"), str(export_runs / "classifier")]
    out = tmp_path / "none.dermbundle"
    assert cli.main(["export", *folders, "--out", str(out), *options]) == 2
    assert reason in capsys.readouterr().err
    assert not out.exists()


def test_a_variant_that_is_not_clear_is_refused(full, tmp_path):
    model = full.manifest.models["classifier"]
    twice = replace(model, variants=(*model.variants, Variant(model.part, "int8", ("x86",))))
    models = {**full.manifest.models, "classifier": twice}
    parts = {name: full.part(name) for name in full.manifest.parts}
    with pytest.raises(BundleError, match="two int8 graphs for x86"):
        write_bundle(tmp_path / "x.dermbundle", replace(full.manifest, models=models), parts)
