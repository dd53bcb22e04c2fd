"""Nodes, names and inner maps of a graph that is about to be quantized."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime


def flat_nodes(model: onnx.ModelProto, pooled: bool = False) -> list[str]:
    """Names of the nodes whose answer is no map (N, C, h, w); with `pooled`, of 1 x 1 ones, too."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        item.name: [side.dim_value for side in item.type.tensor_type.shape.dim]
        for item in [*inferred.value_info, *inferred.output]
    }
    flat = {
        name
        for name, shape in shapes.items()
        if len(shape) != 4 or (pooled and shape[2:] == [1, 1])
    }
    return [node.name for node in model.graph.node if set(node.output) & flat]


def shorten(model: onnx.ModelProto) -> None:
    """Number the inner tensors: their names would take a tenth of a small network's file."""
    graph = model.graph
    public = {item.name for item in [*graph.input, *graph.output]}
    numbers: dict[str, str] = {}

    def short(name: str) -> str:
        if not name or name in public:
            return name
        return numbers.setdefault(name, np.base_repr(len(numbers), 36).lower())

    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
    for node in graph.node:
        node.name = node.doc_string = ""
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    del graph.value_info[:]


def session_of(model: onnx.ModelProto, names: Sequence[str]) -> onnxruntime.InferenceSession:
    """A session that answers with these values of a float graph, and no others."""
    observed = copy.deepcopy(model)
    del observed.graph.output[:]
    observed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    return onnxruntime.InferenceSession(
        observed.SerializeToString(), providers=["CPUExecutionProvider"]
    )
