"""From the FP32 graph of a bundle back to the network that it was exported from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dermedge import UserError
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import TARGETS
from dermedge.data.synthetic import draw
from dermedge.image.preprocess import prepare
from dermedge.metadata import width
from dermedge.runtime import open_session
from train.mobilegan import Aggregate
from train.models import MODELS, Normalized, build_model

TOLERANCE = 1e-5  # of probability, between graph and network
_PREFIX = "model."  # of the network in what was exported


def bundled_network(bundle: Bundle, role: str) -> Normalized:
    """The network behind a role of a bundle, in evaluation mode, with the graph's own weights.

    What export folded into convolutions stays there: the batch norms behind them do nothing, see
    `train.start.settle_norms`. UserError where the bundle has no such FP32 network, or where the
    network does not answer as the graph.
    """
    name = bundle.manifest.name
    if role not in bundle.manifest.models:
        raise UserError(f"{name} has no {role} to start from")
    entry = bundle.manifest.models[role]
    variants = (entry.variant("fp32", target) for target in TARGETS)
    full = next((variant for variant in variants if variant), None)
    if full is None:
        raise UserError(f"{name} holds no FP32 {role}: take the bundle that it was made from")
    if entry.architecture not in MODELS:
        raise UserError(f"the {role} of {name} is a {entry.architecture}, which is not known here")
    labels = bundle.manifest.labels
    model = build_model(entry.architecture, labels, metadata=entry.metadata).eval()
    graph = bundle.part(full.part)
    try:
        fill(model, graph)
    except ValueError as error:
        raise UserError(f"the {role} of {name} cannot be read back: {error}") from error
    measured = bundle.manifest.measured.get("classifier", {})  # only class scores have one
    temperature = float(measured.get("temperature", 1.0)) if isinstance(measured, dict) else 1.0
    square = prepare(draw(1, size=(96, 128)).image, entry.preprocessing)[0]
    apart = difference(model, graph, square, temperature)
    if not apart <= TOLERANCE:
        raise UserError(
            f"the {role} of {name} cannot be read back: the network answers otherwise than the "
            f"graph, by {apart:.2g} of probability"
        )
    return model


@torch.no_grad()
def difference(model: Normalized, graph: bytes, square: np.ndarray, temperature: float) -> float:
    """How far graph and network are apart on uint8 (S, S, 3), in probability; NaN: not comparable.

    `temperature` is the graph's own.
    """
    feeds: dict[str, np.ndarray] = {"image": square[None]}
    if model.metadata:
        feeds["metadata"] = np.zeros((1, width(model.metadata)), np.float32)
    got = open_session(graph).run(feeds)
    answer = model(*map(torch.from_numpy, feeds.values()))
    parts = answer if isinstance(answer, tuple) else (answer,)
    largest = 0.0
    for logits in parts:
        if logits.ndim == 4:
            found, name = torch.sigmoid(logits).squeeze(1), "mask"
        else:
            found, name = torch.softmax(logits / temperature, dim=1), "probabilities"
        apart = np.abs(got[name] - found.numpy()).max()
        largest = max(largest, float(np.nan_to_num(apart, nan=np.inf)))
    return largest


@torch.no_grad()
def fill(model: Normalized, graph: bytes) -> None:
    """Give the network the weights in the graph that was exported from one like it.

    ValueError where a weight is missing, or has another shape.
    """
    import onnx  # as long to load as all else here

    inside = onnx.load_model_from_string(graph).graph
    weights = _Weights(inside)
    own = model.state_dict()
    names = {module: name for name, module in model.named_modules()}
    filled: dict[str, Tensor] = {}
    for conv, norm in _normed(model):
        place, behind = names[conv], names[norm]
        if f"{behind}.running_mean" in weights.values:
            continue
        # It was folded into the convolution: with these it does nothing but to add the bias.
        filled[f"{behind}.running_mean"] = torch.zeros(norm.num_features)
        filled[f"{behind}.running_var"] = torch.ones(norm.num_features)
        gain = torch.full_like(norm.weight.double(), 1 + norm.eps).sqrt().float()
        filled[f"{behind}.weight"] = gain
        filled[f"{behind}.bias"] = weights.tensor(f"{place}.bias")
        if conv.bias is not None:
            filled[f"{place}.bias"] = torch.zeros_like(conv.bias)
    for module, name in names.items():
        if isinstance(module, Aggregate) and f"{name}.weight" not in weights.values:
            filled[f"{name}.weight"] = weights.slices(f"{name}.bias", len(module.inputs))
        elif isinstance(module, nn.Conv2d) and f"{name}.weight" not in weights.values:
            filled[f"{name}.weight"] = weights.factor(module.weight.shape)
    for name in own:
        if name in filled or name.endswith("num_batches_tracked"):
            continue
        filled[name] = weights.tensor(name)
    for name, value in filled.items():
        if own[name].shape != value.shape:
            raise ValueError(f"{name} is {tuple(value.shape)}, not {tuple(own[name].shape)}")
    model.load_state_dict({**own, **filled})


class _Weights:
    """The constants of a graph, by the names that the network has for them."""

    def __init__(self, graph: Any):
        from onnx import numpy_helper

        constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        for node in graph.node:
            # Stored in half precision, cast before its use.
            if node.op_type == "Cast" and node.input[0] in constants:
                constants[node.output[0]] = constants[node.input[0]].astype(np.float32)
        self.nodes = list(graph.node)
        self.constants = constants
        self.values = {
            name.removeprefix(_PREFIX): value
            for name, value in constants.items()
            if name.startswith(_PREFIX)
        }

    def tensor(self, name: str) -> Tensor:
        if name not in self.values:
            raise ValueError(f"the graph has no {name}")
        return torch.from_numpy(np.array(self.values[name]))

    def slices(self, bias: str, count: int) -> Tensor:
        """The weight of an `Aggregate`, (K, sum of C, 1, 1), from the convolutions it became.

        The coarsest scale comes first and has the bias; each sum is enlarged for the next.
        """
        node = self._one("Conv", 2, _PREFIX + bias)
        found = [node.input[1]]
        while len(found) < count:
            enlarged = self._one("Resize", 0, node.output[0])
            node = next(
                n for n in self.nodes if n.op_type == "Add" and enlarged.output[0] in n.input
            )
            finer = next(name for name in node.input if name != enlarged.output[0])
            found.append(next(n for n in self.nodes if finer in n.output).input[1])
        parts = [torch.from_numpy(np.array(self.constants[name])) for name in reversed(found)]
        return torch.cat(parts, dim=1)

    def factor(self, shape: Sequence[int]) -> Tensor:
        """The weight of a convolution that is computed as a product of matrices."""
        flat = (shape[0], int(np.prod(shape[1:])))
        found = [
            self.constants[node.input[0]]
            for node in self.nodes
            if node.op_type == "MatMul"
            and node.input[0] in self.constants
            and self.constants[node.input[0]].shape == flat
        ]
        if len(found) != 1:
            raise ValueError(f"the graph has no weight of {flat}")
        return torch.from_numpy(np.array(found[0])).reshape(tuple(shape))

    def _one(self, kind: str, place: int, name: str) -> Any:
        found = [
            node
            for node in self.nodes
            if node.op_type == kind and len(node.input) > place and node.input[place] == name
        ]
        if len(found) != 1:
            raise ValueError(f"the graph has {len(found)} {kind} of {name}")
        return found[0]


@torch.no_grad()
def _normed(model: Normalized) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each batch norm that is fed by a convolution, with that convolution."""
    made: list[tuple[Tensor, nn.Conv2d]] = []  # the tensors too: a freed one's id is used again
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made.append((output, module))
        elif isinstance(module, nn.BatchNorm2d):
            pairs.extend((conv, module) for tensor, conv in made if tensor is inputs[0])

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, kinds)]
    model(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return pairs
