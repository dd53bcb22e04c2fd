"""Channels of one range: what INT8 needs where a map has one scale for all of its channels.

After Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV
2019, with ranges that were measured instead of derived. There pairs of layers share out a scale;
here all maps that are added to one another do, so that residual networks are equalized whole.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from export.quantization.nodes import session_of

MOST = 64.0  # that a channel is scaled by; what is always zero would ask for infinity
# A scale above zero passes through them, whatever the other inputs are.
_PASSING = ("Relu", "Clip", "Resize", "AveragePool", "MaxPool")


def equalize(graph: bytes, feeds: Sequence[dict[str, np.ndarray]]) -> bytes:
    """The same float network, its inner channels scaled towards the range of their map.

    A channel goes half of the way, in logarithm: what is seen once in a while may exceed what was
    seen in `feeds`, and a Clip would cut it off. The convolutions before a map take the scale over
    and those behind it take it back.

    Parameters
    ----------
    graph : ONNX, weights in full.
    feeds : training pictures as the graph takes them.
    """
    model = onnx.load_model_from_string(graph)
    maps = _Maps(model)
    tied = maps.tied()
    peaks = _peaks(model, [name for names in tied for name in maps.rounded(names)], feeds)
    for names in tied:
        seen = [peaks[name] for name in maps.rounded(names)]
        peak, top = np.max(seen, axis=0), maps.top(names)
        whole = peak.max() if top is None else top
        if not whole > 0:
            continue
        scale = np.sqrt(whole / np.maximum(peak, whole / MOST**2))
        if top is not None:
            scale = np.maximum(scale, 1.0)  # else what the Clip cuts off would be let through
        maps.scale(names, scale)
    return model.SerializeToString(deterministic=True)


class _Maps:
    """The maps of a graph, and which of them have to be scaled alike."""

    def __init__(self, model: onnx.ModelProto):
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.counts = Counter(name for node in self.nodes for name in node.input)
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.users[name].append(node)
        self.outputs = {item.name for item in model.graph.output}
        self.shapes = {
            item.name: [side.dim_value for side in item.type.tensor_type.shape.dim]
            for item in onnx.shape_inference.infer_shapes(model).graph.value_info
        }

    def tied(self) -> list[list[str]]:
        """Maps that only convolutions make and only convolutions take, those of one scale tied."""
        group = {
            node.output[0]: [node.output[0]]
            for node in self.nodes
            if len(self.shapes.get(node.output[0], ())) == 4
        }
        for node in self.nodes:
            for name in self._passed(node):
                one, other = group.get(node.output[0]), group.get(name)
                if one is not None and other is not None and one is not other:
                    one += other
                    group.update(dict.fromkeys(other, one))
        whole = {id(names): names for names in group.values()}.values()
        return [names for names in whole if all(self._fits(name, names) for name in names)]

    def _passed(self, node: onnx.NodeProto) -> Iterable[str]:
        """The inputs whose scale is the output's."""
        if node.op_type in _PASSING:
            return node.input[:1]
        alike = {tuple(self.shapes.get(name, ())) for name in [*node.input, *node.output]}
        return node.input if node.op_type == "Add" and len(alike) == 1 else ()

    def _fits(self, name: str, names: list[str]) -> bool:
        made, own = self.maker[name], set(names)
        if name in self.outputs:
            return False
        if made.op_type == "Conv":
            if not self._constant(made.input[1:]):
                return False
        elif not self._passed(made) or not own.issuperset(self._passed(made)):
            return False
        if made.op_type == "Clip" and not self._cuts_at_zero(made):
            return False
        return all(
            user.input[0] == name and self._constant(user.input[1:2])
            if user.op_type == "Conv"
            else name in self._passed(user) and user.output[0] in own
            for user in self.users[name]
        )

    def _constant(self, names: Sequence[str]) -> bool:
        return all(name in self.constants and self.counts[name] == 1 for name in names)

    def _cuts_at_zero(self, clip: onnx.NodeProto) -> bool:
        limits = clip.input[1:3]
        return (
            len(limits) == 2
            and all(name in self.constants for name in limits)
            and float(numpy_helper.to_array(self.constants[limits[0]])) == 0
        )

    def top(self, names: list[str]) -> float | None:
        """Where a Clip among them cuts off."""
        found = [
            float(numpy_helper.to_array(self.constants[self.maker[name].input[2]]))
            for name in names
            if self.maker[name].op_type == "Clip"
        ]
        return min(found, default=None)

    def rounded(self, names: list[str]) -> list[str]:
        """Those that INT8 rounds: an activation is part of the convolution before it."""
        return [
            name
            for name in names
            if self.maker[name].op_type != "Conv"
            or [user.op_type for user in self.users[name]] not in (["Relu"], ["Clip"])
        ]

    def scale(self, names: list[str], scale: np.ndarray) -> None:
        """Multiply the channels of the maps by `scale` (C,), in place."""
        for name in names:
            made = self.maker[name]
            if made.op_type == "Conv":
                for constant in made.input[1:]:
                    values = numpy_helper.to_array(self.constants[constant])
                    self._put(constant, values * scale.reshape(-1, *[1] * (values.ndim - 1)))
            for user in self.users[name]:
                if user.op_type == "Conv":
                    weight = numpy_helper.to_array(self.constants[user.input[1]])
                    groups = len(scale) // weight.shape[1]  # each filter sees the channels of one
                    seen = np.repeat(scale.reshape(groups, -1), len(weight) // groups, axis=0)
                    self._put(user.input[1], weight / seen[:, :, None, None])

    def _put(self, name: str, values: np.ndarray) -> None:
        made = numpy_helper.from_array(values.astype(np.float32), name)
        self.constants[name].CopyFrom(made)


def _peaks(
    model: onnx.ModelProto, names: list[str], feeds: Sequence[dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The greatest distance from zero of each channel of these maps, (C,)."""
    session = session_of(model, names)
    peaks: dict[str, np.ndarray] = {}
    for inputs in feeds if names else ():
        known = {item.name: inputs[item.name] for item in session.get_inputs()}
        for name, value in zip(names, session.run(names, known), strict=True):
            found = np.abs(value).max(axis=(0, 2, 3))
            peaks[name] = np.maximum(peaks[name], found) if name in peaks else found
    return peaks
