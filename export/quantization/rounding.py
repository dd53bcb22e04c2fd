"""Weights rounded so that what one loses the others of its filter make up for.

Each filter is rounded weight by weight; what a rounding changes in the filter's answers is taken
over by the weights that are still to come, as well as the filter's inputs allow (Frantar et al.,
"GPTQ", arXiv:2210.17323, and "Optimal Brain Compression", arXiv:2208.11580). What is left of the
mean goes into the bias (Nagel et al., "Data-free quantization through weight equalization and bias
correction", ICCV 2019, with means that were measured instead of derived).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.quantization.nodes import flat_nodes, session_of

LEVELS = 127  # of a weight, to either side of 0
# Two products of an activation, 0 to 255, and a weight add up to less than 2 ** 15.
MOST_OF_A_PAIR = 128
DAMPING = 0.01  # of the inputs' mean variance: what was seen too seldom decides nothing
BLOCK = 512  # weights of a filter that make up for one another; even, so that it parts no pair


@dataclass(frozen=True, eq=False)
class InputMoments:
    """What the filters of one convolution see, over pictures and positions.

    G groups; K weights of a filter, the kernel's positions outside, its input channels inside.
    """

    mean: np.ndarray  # float64 (G, K)
    covariances: tuple[np.ndarray, ...]  # float64 (G, k, k) each, of `BLOCK` weights and the rest


@dataclass(frozen=True, eq=False)
class RoundedConvolution:
    """Weights of one convolution that are whole numbers of steps, and the bias that fits them."""

    weight: np.ndarray  # float32 (O, C, h, w)
    bias: np.ndarray | None  # float32 (O,); None: the convolution has none
    steps: np.ndarray  # float32 (O,)


def observe_moments(
    model: onnx.ModelProto, feeds: Sequence[dict[str, np.ndarray]]
) -> dict[str, InputMoments]:
    """The moments of what each convolution's filters see, by the name of its node."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = convolutions(model)
    names = sorted({node.input[0] for node in nodes})
    session = session_of(model, names)
    # About what the first picture's mean is: beside a great mean float32 loses a small variance.
    middles: dict[str, np.ndarray] = {}
    sums: dict[str, np.ndarray] = {}
    products: dict[str, list[np.ndarray]] = {}
    positions: Counter[str] = Counter()
    for inputs in feeds:
        known = {item.name: inputs[item.name] for item in session.get_inputs()}
        maps = dict(zip(names, session.run(names, known), strict=True))
        for node in nodes:
            seen = _columns(maps[node.input[0]][0], node, weights[node.input[1]].dims)
            middle = middles.setdefault(node.name, seen.mean(axis=2, keepdims=True))
            seen = seen - middle
            sums[node.name] = sums.get(node.name, 0) + seen.sum(axis=2, dtype=np.float64)
            made = [part @ part.transpose(0, 2, 1) for part in _blocks(seen)]
            before = products.get(node.name, [0] * len(made))
            products[node.name] = [one + other for one, other in zip(before, made, strict=True)]
            positions[node.name] += seen.shape[2]
    moments = {}
    for name, count in positions.items():
        mean = sums[name] / count
        covariances = tuple(
            product.astype(np.float64) / count - part[:, :, None] * part[:, None, :]
            for product, part in zip(products[name], _blocks(mean), strict=True)
        )
        moments[name] = InputMoments(mean + middles[name][:, :, 0], covariances)
    return moments


def _blocks(values: np.ndarray) -> list[np.ndarray]:
    """Parts of (G, K, ...) of `BLOCK` weights each, and the rest."""
    return [values[:, start : start + BLOCK] for start in range(0, values.shape[1], BLOCK)]


def _columns(values: np.ndarray, node: onnx.NodeProto, dims: Sequence[int]) -> np.ndarray:
    """What each position's filters see of a map (C, h, w): float32 (G, K, positions)."""
    options = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    (down, right), (y_step, x_step) = (
        options.get(name, (1, 1)) for name in ("strides", "dilations")
    )
    top, left, bottom, end = options.get("pads", (0, 0, 0, 0))
    _, channels, height, width = dims
    values = np.pad(values, ((0, 0), (top, bottom), (left, end)))
    rows = values.shape[1] - y_step * (height - 1)
    columns = values.shape[2] - x_step * (width - 1)
    shifted = [
        values[:, y : y + rows : down, x : x + columns : right].reshape(len(values), -1)
        for y in range(0, y_step * height, y_step)
        for x in range(0, x_step * width, x_step)
    ]
    groups = len(values) // channels
    seen = np.stack([one.reshape(groups, channels, -1) for one in shifted], axis=1)
    return seen.reshape(groups, len(shifted) * channels, -1)


def round_convolutions(
    model: onnx.ModelProto, moments: Mapping[str, InputMoments], in_pairs: bool
) -> dict[str, RoundedConvolution]:
    """The convolutions of a float graph with rounded weights, by the name of the node.

    in_pairs : whether the processor adds two products of neighbouring input channels in 16 bits,
        as x86 without VNNI does; then no two weights may overflow them. A convolution of one
        channel a group has no neighbours.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    rounded = {}
    for node in convolutions(model):
        weight = constants[node.input[1]].astype(np.float64)
        seen = moments[node.name]
        groups, size = seen.mean.shape
        filters = weight.transpose(0, 2, 3, 1).reshape(groups, -1, size)
        paired = in_pairs and weight.shape[1] > 1
        steps = _steps(filters, paired)
        parts = zip(_blocks(filters.transpose(0, 2, 1)), seen.covariances, strict=True)
        whole = [_round(part.transpose(0, 2, 1), one, steps, paired) for part, one in parts]
        made = np.concatenate(whole, axis=2) * steps[:, :, None]
        bias = None
        if len(node.input) > 2:
            lost = np.einsum("gok,gk->go", filters - made, seen.mean).ravel()
            bias = (constants[node.input[2]] + lost).astype(np.float32)
        outputs, channels, height, width = weight.shape
        back = made.reshape(outputs, height, width, channels).transpose(0, 3, 1, 2)
        rounded[node.name] = RoundedConvolution(
            back.astype(np.float32), bias, steps.ravel().astype(np.float32)
        )
    return rounded


def _steps(filters: np.ndarray, paired: bool) -> np.ndarray:
    """The least step (G, O) at which all weights (G, O, K) fit."""
    least = np.abs(filters).max(axis=2) / LEVELS
    if paired:
        even = np.pad(filters, ((0, 0), (0, 0), (0, filters.shape[2] % 2)))
        pairs = even.reshape(*filters.shape[:2], -1, 2)
        for side in (pairs, -pairs):
            together = np.maximum(side, 0).sum(axis=3).max(axis=2)
            least = np.maximum(least, together / MOST_OF_A_PAIR)
    return np.where(least > 0, least, 1.0)


def _round(
    filters: np.ndarray, covariance: np.ndarray, steps: np.ndarray, paired: bool
) -> np.ndarray:
    """Whole numbers of steps for weights (G, O, K) whose inputs have the covariance (G, K, K)."""
    size = filters.shape[2]
    spread = np.einsum("gkk->gk", covariance)
    # What matters most is rounded first, while all others can still make up for it.
    order = np.argsort(-spread.mean(axis=0), kind="stable")
    damping = DAMPING * spread.mean(axis=1)
    damping = np.where(damping > 0, damping, 1.0)[:, None, None]
    ordered = (covariance + damping * np.eye(size))[:, order][:, :, order]
    # The upper triangle whose transpose times itself is the inverse of `ordered`.
    backwards = np.linalg.cholesky(ordered[:, ::-1, ::-1])[:, ::-1, ::-1]
    shares = np.linalg.solve(backwards, np.broadcast_to(np.eye(size), backwards.shape))
    left = filters[:, :, order]
    made = np.zeros_like(filters)
    for place, number in enumerate(order):
        low, high = -LEVELS, LEVELS
        neighbour = number ^ 1
        if paired and neighbour < size:  # 0 as long as it is not rounded
            low = np.maximum(low, -MOST_OF_A_PAIR - np.minimum(made[:, :, neighbour], 0))
            high = np.minimum(high, MOST_OF_A_PAIR - np.maximum(made[:, :, neighbour], 0))
        whole = np.clip(np.round(left[:, :, place] / steps), low, high)
        made[:, :, number] = whole
        lost = (left[:, :, place] - whole * steps) / shares[:, place, place, None]
        left[:, :, place + 1 :] -= lost[:, :, None] * shares[:, None, place, place + 1 :]
    return made


def put_rounded(
    model: onnx.ModelProto, rounded: Mapping[str, RoundedConvolution], float_nodes: Sequence[str]
) -> dict[str, np.ndarray]:
    """Put rounded weights and biases into the float graph they are of, in place.

    Returns the steps by the weight's name. Nodes in `float_nodes` stay as they are.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    steps = {}
    for node in convolutions(model):
        if node.name in float_nodes:
            continue
        new = rounded[node.name]
        tensors[node.input[1]].CopyFrom(numpy_helper.from_array(new.weight, node.input[1]))
        if new.bias is not None:
            tensors[node.input[2]].CopyFrom(numpy_helper.from_array(new.bias, node.input[2]))
        steps[node.input[1]] = new.steps
    return steps


def convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Those that make maps and whose weight, and bias, are constants of their own."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    flat = set(flat_nodes(model, pooled=True))
    users = Counter(name for node in model.graph.node for name in node.input)
    return [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.name not in flat
        and all(name in constants and users[name] == 1 for name in node.input[1:])
        and len(constants[node.input[1]].dims) == 4
    ]
