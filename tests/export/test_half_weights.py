"""Weights in half precision."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from drawn_networks import calibrated, feeds_of, graph_of, lively, squares

from dermedge.runtime import open_session
from export import ExportError
from export.graph.half import full_weights
from export.graph.onnx_graph import TOLERANCE, check_parity
from export.runs.half_weights import fold_norms, round_to_half


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v3_small",
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),
        "mobilegan-edge",
        pytest.param("multitask_mobilenet_v2", marks=pytest.mark.slow),
    ],
)
def test_half_weights_are_exactly_those_of_the_rounded_network(name):
    model = lively(name)
    folded = fold_norms(model, torch.from_numpy(squares()[0][None]))
    image = torch.from_numpy(np.stack(squares()))
    with torch.inference_mode():
        before, after = (
            net(image) if net.kind != "multitask" else net(image)[0] for net in (model, folded)
        )
    assert after.numpy() == pytest.approx(before.numpy(), rel=1e-3, abs=1e-3)

    round_to_half(folded)
    network = calibrated(folded)
    if network.ood is not None:
        round_to_half(network.ood)
    full, half = graph_of(network), graph_of(network, "half")
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

    plain = onnx.load_from_string(full_weights(half)).graph
    assert {t.data_type for t in plain.initializer} & {onnx.TensorProto.FLOAT16} == set()
    given_back = open_session(full_weights(half), threads=1).run(feeds_of(network)[0])
    stored, rounded = open_session(half, threads=1), open_session(full, threads=1)
    feeds = feeds_of(network)
    expected = rounded.run(feeds[0])
    assert all(np.array_equal(given_back[name], expected[name]) for name in network.outputs)
    for feed in feeds:
        one, other = stored.run(feed), rounded.run(feed)
        for output in network.outputs:
            assert one[output] == pytest.approx(other[output], abs=1e-6)
    assert check_parity(network, half, feeds).max_abs_difference <= TOLERANCE


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


def test_rounding_leaves_the_trained_network_as_it_is():
    model = lively("mobilenet_v3_small")
    before = copy.deepcopy(model.state_dict())
    round_to_half(fold_norms(model, torch.from_numpy(squares()[0][None])))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
