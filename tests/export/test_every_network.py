"""Every registered network: its graph, and its graph in every precision."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from drawn_networks import LABELS, SIZE, answers_of, exported, probability, squares
from networks import HIDDEN_LAYER
from onnx import numpy_helper

from dermedge.runtime import open_session
from export.graph import onnx_graph
from export.graph.onnx_graph import TOLERANCE, check_parity
from export.quantization import int8
from export.quantization.equalize import equalize
from export.quantization.fp16 import compute_half
from export.quantization.int8 import SCHEMES, observe_ranges, quantize
from train.graphs import difference, fill
from train.models import MODELS, build_model

# One of each kind; all of them are `slow`, which `make test-all` runs.
QUICK = ("mobilegan-nano", "mobilenet_v3_small", "multitask_mobilenet_v2")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in MODELS]
)
def test_every_network_exports(name):
    classifies = MODELS[name].kind != "segmenter"
    network, content, feeds = exported(name)

    graph = onnx.load_from_string(content)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.ir_version <= 10
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]
    (cast,) = (node for node in graph.graph.node if "image" in node.input)
    assert cast.op_type == "Cast"
    assert onnx.helper.get_node_attr_value(cast, "to") == onnx.TensorProto.FLOAT
    users = [node.op_type for node in graph.graph.node if cast.output[0] in node.input]
    assert users == ["Transpose"]
    # Global pooling stays one node; see GraphModule.forward.
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
        if name not in HIDDEN_LAYER:
            given.append(("activation", (1, len(LABELS), SIZE // 32, SIZE // 32)))
        given += [("embedding", (1, len(squares()) - 1)), ("distance", (1, 1))]
    assert [(item.name, item.shape, item.dtype) for item in session.inputs] == taken
    assert [(item.name, item.shape) for item in session.outputs] == given
    assert {item.dtype for item in session.outputs} == {np.dtype(np.float32)}

    for main in {"mask", "probabilities"} & {output for output, _ in given}:
        answers = np.stack([session.run(feed)[main] for feed in feeds])
        assert answers.std(axis=0).max() > 1e-3
        assert answers.min() >= 0
        assert answers.max() <= 1
        if main == "probabilities":
            assert answers.sum(axis=2) == pytest.approx(1, abs=1e-5)

    parity = check_parity(network, content, feeds)
    assert parity.count == len(squares())
    assert 0 <= parity.mean_abs_difference <= parity.max_abs_difference <= TOLERANCE
    assert parity.max_relative_difference <= onnx_graph.RELATIVE_TOLERANCE


@pytest.mark.parametrize("name", ["mobilegan-nano", "mobilegan-edge", "mobilenet_v2"])
def test_a_run_can_start_from_a_graph_of_full_weights(name):
    network, content, feeds = exported(name)
    torch.manual_seed(1)
    again = build_model(name, LABELS, metadata=network.model.metadata).eval()
    fill(again, content)
    square = feeds[0]["image"][0]
    assert difference(again, content, square, network.temperature) <= TOLERANCE


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in MODELS]
)
def test_every_network_in_every_precision(name, monkeypatch):
    monkeypatch.setattr(int8, "LEAST_PICTURES", 8)
    _, graph, feeds = exported(name)
    expected = probability(answers_of(graph, feeds))
    half = compute_half(graph)
    assert len(half) < 0.72 * len(graph)
    assert np.abs(probability(answers_of(half, feeds)) - expected).max() <= 0.02
    even = equalize(graph, feeds)
    # No more than what rounding leaves; random weights make that loud, too.
    assert np.abs(probability(answers_of(even, feeds)) - expected).max() < 1e-3
    seen = observe_ranges(even, feeds, ["minmax"])
    for title, scheme in SCHEMES.items():
        made = quantize(seen, "minmax", scheme)
        found = answers_of(made, feeds)
        difference = np.abs(probability(found) - expected).mean()
        # Random weights make rounding loud; a wrong graph is louder.
        assert difference < 0.25, (title, difference)
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
