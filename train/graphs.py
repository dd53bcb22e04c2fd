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
    after: dict[nn.Module, str] = {}
    for conv, norm in _normed(model):
        after[conv] = names[norm]
        place, behind = names[conv], names[norm]
        if kept := weights.norm(behind):
            filled |= {f"{behind}.{leaf}": value for leaf, value in kept.items()}
            continue
        # It was folded into the convolution: with these it does nothing but to add the bias.
        filled[f"{behind}.running_mean"] = torch.zeros(norm.num_features)
        filled[f"{behind}.running_var"] = torch.ones(norm.num_features)
        gain = torch.full_like(norm.weight.double(), 1 + norm.eps).sqrt().float()
        filled[f"{behind}.weight"] = gain
        filled[f"{behind}.bias"] = weights.bias(place)
        if conv.bias is not None:
            filled[f"{place}.bias"] = torch.zeros_like(conv.bias)
    for module, name in names.items():
        if isinstance(module, Aggregate) and f"{name}.weight" not in weights.values:
            filled[f"{name}.weight"] = weights.slices(name, after.get(module, ""))
        elif isinstance(module, nn.Conv2d) and f"{name}.weight" not in weights.values:
            filled[f"{name}.weight"] = weights.factor(module.weight.shape)
    for module, name in names.items():
        if isinstance(module, nn.BatchNorm2d) and f"{name}.bias" not in filled:
            kept = weights.norm(name)
            filled |= {f"{name}.{leaf}": value for leaf, value in kept.items()}
    for name in own:
        if name in filled or name.endswith("num_batches_tracked"):
            continue
        place, _, leaf = name.rpartition(".")
        filled[name] = weights.bias(place) if leaf == "bias" else weights.tensor(name)
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

    def bias(self, place: str) -> Tensor:
        """That of the convolution or linear layer there, whatever it is called by now."""
        if f"{place}.bias" in self.values:
            return self.tensor(f"{place}.bias")
        weight = f"{_PREFIX}{place}.weight"
        node = next(
            (n for n in self.nodes if n.op_type in ("Conv", "Gemm") and weight in n.input), None
        )
        if node is not None and node.op_type == "Gemm" and len(node.input) < 3:
            # A bias of zeros is left out.
            return torch.zeros(len(self.values[f"{place}.weight"]))
        if node is None or len(node.input) < 3 or node.input[2] not in self.constants:
            raise ValueError(f"the graph has no {place}.bias")
        return torch.from_numpy(np.array(self.constants[node.input[2]]))

    def norm(self, place: str) -> dict[str, Tensor]:
        """What a batch norm that was not folded has, by its own names; {}: it was folded."""
        wanted = {f"{_PREFIX}{place}.running_mean", f"{_PREFIX}{place}.running_var"}
        found = [n for n in self.nodes if n.op_type == "BatchNormalization"]
        found = [n for n in found if wanted & set(n.input)]
        if len(found) != 1:
            return {}
        # By place: equal constants share one name.
        leaves = ("weight", "bias", "running_mean", "running_var")
        pairs = zip(leaves, found[0].input[1:], strict=True)
        return {leaf: torch.from_numpy(np.array(self.constants[name])) for leaf, name in pairs}

    def slices(self, place: str, norm: str) -> Tensor:
        """The weight of an `Aggregate`, (K, sum of C, 1, 1), from the convolutions it became.

        Each sum is enlarged for the next finer scale; the coarsest one has the bias, of a norm
        that was folded.
        """
        behind = {f"{_PREFIX}{norm}.running_mean", f"{_PREFIX}{norm}.running_var"}
        ends = [
            n for n in self.nodes if n.op_type == "BatchNormalization" and behind & set(n.input)
        ]
        if ends:
            end = ends[0].input[0]
        else:
            end = self._one("Conv", 2, f"{_PREFIX}{place}.bias").output[0]
            while grown := [n for n in self.nodes if n.op_type == "Resize" and end == n.input[0]]:
                end = next(n for n in self.nodes if grown[0].output[0] in n.input).output[0]
        parts = []
        while True:
            node = next(n for n in self.nodes if end in n.output)
            if node.op_type == "Conv":
                parts.append(node.input[1])
                break
            if node.op_type != "Add":
                raise ValueError(f"the graph has no {place}.weight")
            makers = {n.op_type: n for n in self.nodes if set(node.input) & set(n.output)}
            if makers.keys() != {"Conv", "Resize"}:
                raise ValueError(f"the graph has no {place}.weight")
            parts.append(makers["Conv"].input[1])
            end = makers["Resize"].input[0]
        return torch.cat([torch.from_numpy(np.array(self.constants[n])) for n in parts], dim=1)

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
