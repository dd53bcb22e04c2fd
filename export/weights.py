"""Half precision: weights rounded and stored so, batch norm folded away; whole graphs in FP16."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn

from export import ExportError

SMALLEST = 32  # values; below, a Cast node takes more room than half precision saves


def fold_norms(model: nn.Module, image: Tensor) -> nn.Module:
    """A copy in which each batch norm that follows a convolution is part of that convolution.

    Of the norm only what it does beside norming is left. Which one follows which is observed on
    `image`, uint8 (1, S, S, 3). ExportError where the result would be another network.
    """
    exact = copy.deepcopy(model).eval().double()
    expected = _answers(exact, image)
    made: list[tuple[Tensor, nn.Conv2d]] = []  # the tensors too: a freed one's id is used again
    pairs: list[tuple[nn.BatchNorm2d, nn.Conv2d]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made.append((output, module))
        else:
            pairs.extend((module, conv) for tensor, conv in made if tensor is inputs[0])

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(note) for m in exact.modules() if isinstance(m, kinds)]
    _answers(exact, image)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for norm, conv in pairs:
            _fold(norm, conv)
    plain = {norm for norm, _ in pairs if type(norm) is nn.BatchNorm2d}  # timm's have activations
    for parent in list(exact.modules()):
        for name, child in parent.named_children():
            if child in plain:
                setattr(parent, name, nn.Identity())
    # A convolution that also fed something else than its norm would show here.
    for one, other in zip(_answers(exact, image), expected, strict=True):
        if not torch.allclose(one, other, rtol=1e-6, atol=1e-9):
            raise ExportError(
                "its batch norm cannot be folded into the convolutions: export with --weights full"
            )
    return exact.float()


def _answers(model: nn.Module, image: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        found = model(image)
    return [found] if isinstance(found, Tensor) else list(found)


def _fold(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> None:
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = 0 if conv.bias is None else conv.bias
    conv.bias = nn.Parameter((bias - norm.running_mean) * gain + norm.bias)
    conv.weight.mul_(gain.view(-1, 1, 1, 1))
    norm.reset_running_stats()
    norm.reset_parameters()
    norm.eps = 0.0


def round_to_half(model: nn.Module) -> None:
    """Give every weight the nearest value that half precision has. ExportError on overflow."""
    for name, values in model.named_parameters():
        rounded = values.data.half().float()
        if not torch.isfinite(rounded).all():
            raise ExportError(f"{name} is too large for half precision: export with --weights full")
        values.data = rounded


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
    kept = {item.name for item in [*graph.input, *graph.output]}
    numbers: dict[str, str] = {}

    def short(name: str) -> str:
        if not name or name in kept:
            return name
        return numbers.setdefault(name, np.base_repr(len(numbers), 36).lower())

    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
    for node in graph.node:
        node.name = node.doc_string = ""
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    del graph.value_info[:]
