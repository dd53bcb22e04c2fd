"""From a trained network to the ONNX graph of a bundle, and the proof that both say the same."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import onnxslim
import torch
from torch import Tensor, nn

from dermedge import UserError
from dermedge.session import open_session
from train.models import Normalized

# What TensorRT 10.3 (JetPack 6.2) and ONNX Runtime 1.19 still parse.
OPSET = 18
MAX_IR_VERSION = 10
TOLERANCE = 1e-5  # of probability, for FP32
OUTPUTS = {"segmenter": "mask", "classifier": "probabilities"}


class ExportError(UserError):
    """A network that cannot be exported, or a graph that differs from it; one line."""


class Network(nn.Module):
    """What a bundle's graph computes: a picture to probabilities.

    `forward` takes uint8 (1, S, S, 3) RGB. A segmenter gives float32 (1, S, S), the probability
    that a pixel is lesion; a classifier float32 (1, K), softmax(logits / temperature) (Guo et al.,
    "On calibration of modern neural networks", ICML 2017).
    """

    def __init__(self, model: Normalized, temperature: float = 1.0):
        super().__init__()
        # A copy: training may still need its model as it is, on its device.
        self.model = copy.deepcopy(model).cpu().eval().to(memory_format=torch.contiguous_format)
        self.temperature = temperature
        self.output = OUTPUTS[model.kind]

    def forward(self, image: Tensor) -> Tensor:
        # Planes that are contiguous: over a permuted input the exporter takes all that follows
        # for channels-last and writes each global pooling as reshapes and a gather.
        planes = image.to(torch.float32).permute(0, 3, 1, 2).contiguous()
        logits = self.model(planes.permute(0, 2, 3, 1))
        if self.output == "mask":
            return torch.sigmoid(logits).squeeze(1)
        return torch.softmax(logits / self.temperature, dim=1)


def to_onnx(network: Network, size: int) -> bytes:
    """Export for pictures of `size` x `size` px: one ONNX file, weights inside, batch of one.

    The graph takes `image`, uint8 (1, size, size, 3) RGB; it says nothing of the machine that
    made it. ExportError where the result breaks one of the rules that devices rely on.
    """
    image = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # Of torch's own insides, nothing that a user could act upon.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (image,),
            dynamo=True,
            input_names=["image"],
            output_names=[network.output],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    graph = onnxslim.slim(program.model_proto)
    graph.ir_version = min(graph.ir_version, MAX_IR_VERSION)
    _anonymize(graph)
    _check(graph, network.output)
    return graph.SerializeToString(deterministic=True)


def _anonymize(graph: onnx.ModelProto) -> None:
    """Drop what the exporter notes of itself: paths, stack traces, source lines."""
    inside = graph.graph
    parts = [graph, inside, *inside.node, *inside.initializer, *inside.input, *inside.output]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    del inside.value_info[:]


def _check(graph: onnx.ModelProto, output: str) -> None:
    """Raise ExportError unless the graph keeps the rules of a bundle."""
    try:
        onnx.checker.check_model(graph, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {_one_line(error)}") from None
    nodes = graph.graph.node
    foreign = sorted({node.domain for node in nodes if node.domain not in ("", "ai.onnx")})
    if foreign or graph.functions:
        raise ExportError(f"the exported graph needs operators of its own: {foreign}")
    if any(tensor.external_data for tensor in graph.graph.initializer):
        raise ExportError("the exported graph keeps weights outside of itself")
    first = [node.op_type for node in nodes if "image" in node.input]
    if first != ["Cast"]:
        raise ExportError(
            f"the exported graph must cast its uint8 input first (TensorRT parses nothing else), "
            f"but it has {' and '.join(first) or 'nothing'} there"
        )
    names = [[item.name for item in side] for side in (graph.graph.input, graph.graph.output)]
    if names != [["image"], [output]]:
        raise ExportError(f"the exported graph must map image to {output}, not {names}")
    for item in [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]:
        sides = item.type.tensor_type.shape.dim
        if not all(side.HasField("dim_value") for side in sides):
            raise ExportError(f"tensor {item.name} of the exported graph has no static shape")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@dataclass(frozen=True)
class Parity:
    """How far an exported graph and its network are apart, in probability."""

    max_abs_difference: float
    mean_abs_difference: float
    count: int  # pictures


def compare(network: Network, graph: bytes, pictures: Iterable[np.ndarray]) -> Parity:
    """Run the network (PyTorch) and its exported graph (ONNX Runtime) on the same pictures.

    `pictures` are uint8 (S, S, 3) RGB, as `dermedge.preprocess.prepare` gives them. Raises
    ExportError where a probability differs by more than `TOLERANCE`, or none was compared.
    """
    session = open_session(graph)
    exact = copy.deepcopy(network).double()
    largest, total, values, count = 0.0, 0.0, 0, 0
    for picture in pictures:
        got = session.run({"image": picture[None]})[network.output]
        difference = _difference(got, network, picture)
        if difference.max() > TOLERANCE:
            # Both round. In double precision, which is slow, only the graph's own error is left.
            difference = _difference(got, exact, picture)
        largest = max(largest, float(difference.max()))
        total += float(difference.sum())
        values += difference.size
        count += 1
    if not count:
        raise ExportError("there is no picture to compare the exported graph on")
    if largest > TOLERANCE:
        raise ExportError(
            f"the exported graph differs from the trained network by {largest:.2g} in probability, "
            f"at most {TOLERANCE:g} is allowed: the export is refused"
        )
    return Parity(largest, total / values, count)


def _difference(got: np.ndarray, network: Network, picture: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        expected = network(torch.from_numpy(picture[None])).numpy()
    # A network that gives NaN must not pass for equal.
    return np.nan_to_num(np.abs(got - expected), nan=np.inf)
