"""A whole graph in FP16."""

from __future__ import annotations

import onnx
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.quantization.nodes import flat_nodes, shorten


def compute_half(graph: bytes) -> bytes:
    """A graph that computes its maps in FP16; inputs, outputs and what is pooled stay in float32.

    Strongly typed: every cast stands in the graph, so that a runtime has nothing to choose.
    """
    model = onnx.load_model_from_string(graph)
    made = convert_float_to_float16(
        model, keep_io_types=True, op_block_list=[], node_block_list=flat_nodes(model)
    )
    ONNXModel(made).topological_sort()
    shorten(made)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString(deterministic=True)
