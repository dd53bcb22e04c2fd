"""Weights of an ONNX graph stored in half precision; it computes the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

SMALLEST = 32  # values; below, a Cast node takes more room than half precision saves


def store_half(graph: onnx.ModelProto) -> None:
    """Store in half precision what it holds exactly, each with a Cast to float32 before its use.

    The graph computes the same numbers. Runtimes fold a Cast of a constant when they load it.
    """
    inside = graph.graph
    casts = {}
    for tensor in inside.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts[name] = helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT)
    nodes = list(inside.node)
    del inside.node[:]
    for node in nodes:
        inside.node.extend(casts.pop(name) for name in node.input if name in casts)
        inside.node.append(node)


def full_weights(graph: bytes) -> bytes:
    """The graph without what `store_half` brought: weights in float32, no Cast before their use."""
    model = onnx.load_model_from_string(graph)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        tensor = tensors.get(node.input[0]) if node.op_type == "Cast" else None
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT16:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, node.output[0]))
        model.graph.node.remove(node)
    return model.SerializeToString(deterministic=True)
