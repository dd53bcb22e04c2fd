"""How weights are rounded: what they lose together, and what 16 bits can hold."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dermedge.runtime import open_session
from export.quantization import int8
from export.quantization.int8 import SCHEMES, observe_ranges, quantize
from export.quantization.rounding import (
    LEVELS,
    InputMoments,
    observe_moments,
    round_convolutions,
)


def network(weight: np.ndarray, group: int = 1, side: int = 8) -> onnx.ModelProto:
    """One convolution of a picture's planes, or of as many as it takes, in values 0 to 255."""
    channels = weight.shape[1] * group
    pads = [weight.shape[2] // 2, weight.shape[3] // 2] * 2
    nodes = [
        helper.make_node("Cast", ["image"], ["map"], to=TensorProto.FLOAT, name="cast"),
        helper.make_node("Relu", ["map"], ["seen"], name="relu"),
        helper.make_node(
            "Conv", ["seen", "weight", "bias"], ["answer"], name="conv", group=group, pads=pads
        ),
    ]
    constants = {"weight": weight, "bias": np.zeros(len(weight))}
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, channels, side, side])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, len(weight), side, side])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def alike(seed: int, channels: int, side: int = 8, count: int = 12) -> list[dict]:
    """Maps whose channels and neighbouring points go up and down together, as a network's do."""
    rng = np.random.default_rng(seed)
    common = rng.uniform(0, 200, (count, 1, 1, side // 4, side // 4))
    common = common.repeat(4, axis=3).repeat(4, axis=4)
    own = rng.uniform(0, 55, (count, 1, channels, side, side))
    return [{"image": (common + own)[n].astype(np.uint8)} for n in range(count)]


def answers(weight: np.ndarray, group: int, feeds: list[dict]) -> np.ndarray:
    session = open_session(network(weight, group).SerializeToString())
    return np.concatenate([session.run(one)["answer"] for one in feeds])


@pytest.mark.parametrize(("shape", "group"), [((8, 64, 1, 1), 1), ((16, 1, 3, 3), 16)])
def test_weights_make_up_for_what_their_neighbours_lose(shape, group):
    weight = np.random.default_rng(1).normal(size=shape)
    feeds = alike(2, shape[1] * group)
    model = network(weight, group)
    rounded = round_convolutions(model, observe_moments(model, feeds), in_pairs=False)["conv"]
    steps = rounded.steps[:, None, None, None]
    np.testing.assert_allclose(rounded.weight / steps, np.round(rounded.weight / steps), atol=1e-4)
    assert np.abs(rounded.weight - weight).max() < 4 * steps.max()
    # On other pictures than it was rounded by, and beyond what a bias makes up for.
    others = alike(3, shape[1] * group)
    expected = answers(weight, group, others)

    def lost(values: np.ndarray) -> float:
        errors = answers(values, group, others) - expected
        return float((errors - errors.mean(axis=(0, 2, 3), keepdims=True)).std())

    assert lost(rounded.weight) < 0.7 * lost(np.round(weight / steps) * steps)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(1, 9),
    st.sampled_from([(1, 1), (3, 3), (1, 3)]),
    st.floats(0, 6),
)
def test_no_pair_of_neighbours_overflows(seed, outputs, channels, kernel, loudness):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(outputs, channels, *kernel)) * np.exp(
        loudness * rng.normal(size=(outputs, channels, *kernel))
    )
    weight[rng.random(weight.shape) < 0.2] = 0
    size = channels * kernel[0] * kernel[1]
    mixed = rng.normal(size=(size, size))
    moments = {"conv": InputMoments(np.zeros((1, size)), (mixed[None] @ mixed.T,))}
    rounded = round_convolutions(network(weight), moments, in_pairs=True)["conv"]
    whole = np.round(rounded.weight / rounded.steps[:, None, None, None])
    ordered = whole.transpose(0, 2, 3, 1).reshape(outputs, -1)
    ordered = np.pad(ordered, ((0, 0), (0, size % 2 if channels > 1 else 0)))
    assert np.abs(ordered).max() <= LEVELS
    if channels > 1:
        pairs = ordered.reshape(outputs, -1, 2)
        assert 255 * np.maximum(pairs, 0).sum(axis=2).max() < 2**15
        assert 255 * np.minimum(pairs, 0).sum(axis=2).min() >= -(2**15)


def test_int8_for_x86_is_the_same_with_and_without_sums_in_16_bits(monkeypatch):
    monkeypatch.setattr(int8, "LEAST_PICTURES", 8)
    rng = np.random.default_rng(0)
    # Almost all weights are as great as they can be, and the map is bright.
    weight = rng.choice([-1.0, 0.9, 1.0], size=(8, 64, 1, 1))
    feeds = [{"image": rng.integers(200, 256, (1, 64, 8, 8)).astype(np.uint8)} for _ in range(8)]
    graph = network(weight).SerializeToString()
    seen = observe_ranges(graph, feeds, ["minmax"])

    def apart(scheme: str) -> float:
        made = quantize(seen, "minmax", SCHEMES[scheme])
        sessions = [open_session(made, targets=targets) for targets in (None, ("arm",))]
        fast, exact = (session.run(feeds[0])["answer"] for session in sessions)
        return float(np.abs(fast - exact).max())

    assert apart("unsigned") == 0
