"""The ONNX graph of a network: what it must be, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from drawn_networks import SIZE, calibrated, exported, feeds_of, graph_of, lively, squares
from networks import SHORT

from dermedge.image.preprocess import Preprocessing, prepare
from dermedge.image.read import read_image
from dermedge.metadata import encode
from dermedge.runtime import open_session
from export import ExportError
from export.calibration.temperature import log_softmax
from export.graph import onnx_graph
from export.graph.onnx_graph import TOLERANCE, GraphModule, check_parity, to_onnx


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def alone(network: GraphModule, square: np.ndarray) -> dict[str, np.ndarray]:
    """A picture of which nothing else is known."""
    return {**network.sample(SIZE), "image": square[None]}


def test_real_pictures_get_the_same_probabilities(shared_data):
    found = sorted((shared_data / "HAM10000").rglob("ISIC_*.jpg"))[::1000]
    if not found:
        pytest.skip("HAM10000 is not here")
    real = [prepare(read_image(path).pixels, Preprocessing(size=SIZE))[0] for path in found]
    network, graph, _ = exported("mobilenet_v3_small")
    parity = check_parity(network, graph, [alone(network, square) for square in real])
    assert parity.max_abs_difference <= TOLERANCE


def test_a_graph_of_other_weights_is_refused():
    network = calibrated(lively(SHORT[0]))
    content = graph_of(network)
    with torch.no_grad():
        network.model.net.head.layers[-1].bias[0] += 0.01
    with pytest.raises(ExportError, match=r"differs from the trained network by 0\.00\d+ in prob"):
        check_parity(network, content, feeds_of(network))
    with pytest.raises(ExportError, match="no picture"):
        check_parity(network, content, [])


def test_a_network_that_gives_nan_is_refused():
    network = calibrated(lively(SHORT[0]))
    content = graph_of(network)
    with torch.no_grad():
        network.model.net.head.layers[-1].bias[0] = float("nan")
    with pytest.raises(ExportError, match="differs"):
        check_parity(network, content, feeds_of(network, squares()[:1]))


def test_a_graph_with_another_notion_of_the_familiar_is_refused():
    network = calibrated(lively(SHORT[0]))
    content = graph_of(network)
    with torch.no_grad():
        network.ood.mean += 0.01
    with pytest.raises(ExportError, match="explanations differ"):
        check_parity(network, content, feeds_of(network))


@pytest.mark.usefixtures("forgotten_graphs")
def test_export_leaves_the_trained_network_as_it_is():
    model = lively(SHORT[0]).train().to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = to_onnx(GraphModule(model), SIZE)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert to_onnx(GraphModule(model), SIZE) == first


def test_a_graph_that_transposes_bytes_is_refused():
    network = calibrated(lively(SHORT[0]))
    graph = onnx.load_from_string(graph_of(network))
    cast, transpose = graph.graph.node[:2]
    cast.op_type, transpose.op_type = "Transpose", "Cast"
    cast.attribute[0].CopyFrom(onnx.helper.make_attribute("perm", [0, 3, 1, 2]))
    transpose.attribute[0].CopyFrom(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT))
    with pytest.raises(ExportError, match="cast its uint8 input first"):
        onnx_graph._check(graph, ["image"], list(network.outputs))


def test_what_was_never_seen_is_far():
    network, graph, _ = exported(SHORT[0])
    noise = np.random.default_rng(5).integers(0, 256, squares()[0].shape, np.uint8)
    session = open_session(graph, threads=1)
    known, strange = (
        [session.run(alone(network, square))["distance"].item() for square in group]
        for group in (squares(), [noise])
    )
    assert strange[0] > 2 * max(known)


def test_the_activation_adds_up_to_the_probabilities():
    network, graph, _ = exported(SHORT[0])
    session = open_session(graph, threads=1)
    bias = network.model.net.head.layers[-1].bias.detach().numpy()
    for square in squares()[:3]:
        found = session.run(alone(network, square))
        logits = found["activation"].mean(axis=(2, 3)) + bias
        expected = np.exp(log_softmax(logits / network.temperature))
        assert found["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_metadata_counts_and_may_be_absent():
    network, graph, _ = exported(SHORT[0])
    session = open_session(graph, threads=1)
    feeds = alone(network, squares()[0])
    absent = session.run(feeds)
    with torch.inference_mode():
        logits = network.model.explain(torch.from_numpy(feeds["image"]))["classes"]
        expected = torch.softmax(logits / network.temperature, dim=1).numpy()
    assert absent["probabilities"] == pytest.approx(expected, abs=1e-5)
    known = encode(network.model.metadata, age=70, sex="female")[None]
    informed = session.run({**feeds, "metadata": known})
    assert np.abs(informed["probabilities"] - expected).max() > 1e-4
