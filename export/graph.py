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

from dermedge.metadata import width
from dermedge.runtime import open_session
from export import ExportError
from export.familiarity import Familiarity
from export.weights import store_half
from train.models import Normalized

# What TensorRT 10.3 (JetPack 6.2) and ONNX Runtime 1.19 still parse.
OPSET = 18
MAX_IR_VERSION = 10
TOLERANCE = 1e-5  # of probability, for FP32
# Of the other outputs: share of the largest value, or of 1 where none is so large.
RELATIVE_TOLERANCE = 1e-3
PROBABILITIES = ("mask", "probabilities")


class Network(nn.Module):
    """What a bundle's graph computes: a picture to probabilities, and what they rest upon.

    `forward` takes uint8 (1, S, S, 3) RGB, and float32 (1, M) of `dermedge.metadata.encode` where
    the network takes metadata. It gives, in the order of `outputs` and all float32:

    - "mask" (1, S, S), the probability that a pixel is lesion: segmenter, multitask;
    - "probabilities" (1, K), softmax(logits / temperature) (Guo et al., "On calibration of modern
      neural networks", ICML 2017): classifier and multitask, as are the next ones;
    - "activation" (1, K, h, w), class scores at each position, where the architecture has them;
    - "embedding" (1, E) and "distance" (1, 1) of `export.familiarity`, where one is given.
    """

    def __init__(
        self,
        model: Normalized,
        temperature: float = 1.0,
        familiarity: Familiarity | None = None,
    ):
        super().__init__()
        # A copy: training may still need its model as it is, on its device.
        self.model = copy.deepcopy(model).cpu().eval().to(memory_format=torch.contiguous_format)
        self.temperature = temperature
        self.familiarity = familiarity
        sample = self.sample(64)
        with torch.inference_mode():
            self.outputs = tuple(self._answers(*map(torch.from_numpy, sample.values())))

    def sample(self, size: int) -> dict[str, np.ndarray]:
        """A black picture of `size` x `size` px of which nothing is known, by input name."""
        feeds = {"image": np.zeros((1, size, size, 3), np.uint8)}
        if self.model.metadata:
            feeds["metadata"] = np.zeros((1, width(self.model.metadata)), np.float32)
        return feeds

    def forward(self, image: Tensor, metadata: Tensor | None = None) -> tuple[Tensor, ...]:
        return tuple(self._answers(image, metadata).values())

    def _answers(self, image: Tensor, metadata: Tensor | None = None) -> dict[str, Tensor]:
        # Planes that are contiguous: over a permuted input the exporter takes all that follows
        # for channels-last and writes each global pooling as reshapes and a gather.
        planes = image.to(torch.float32).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        if self.model.kind == "segmenter":
            return {"mask": torch.sigmoid(self.model(planes)).squeeze(1)}
        found = self.model.explain(planes, metadata)
        answers = {}
        if "mask" in found:
            answers["mask"] = torch.sigmoid(found["mask"]).squeeze(1)
        answers["probabilities"] = torch.softmax(found["classes"] / self.temperature, dim=1)
        if "activation" in found:
            answers["activation"] = found["activation"]
        if self.familiarity is not None:
            answers["embedding"], answers["distance"] = self.familiarity(found["features"])
        return answers


def to_onnx(network: Network, size: int, weights: str = "full") -> bytes:
    """Export for pictures of `size` x `size` px: one ONNX file, weights inside, batch of one.

    The graph takes `image`, uint8 (1, size, size, 3) RGB, and what else `Network.sample` names;
    it says nothing of the machine that made it. `weights` "half" stores those that half precision
    holds exactly as such. ExportError where the result breaks a rule that devices rely on.
    """
    sample = network.sample(size)
    with warnings.catch_warnings():
        # Of torch's own insides, nothing that a user could act upon.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            tuple(map(torch.from_numpy, sample.values())),
            dynamo=True,
            input_names=list(sample),
            output_names=list(network.outputs),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    graph = onnxslim.slim(program.model_proto)
    graph.ir_version = min(graph.ir_version, MAX_IR_VERSION)
    if weights == "half":
        store_half(graph)
    _anonymize(graph)
    _check(graph, list(sample), list(network.outputs))
    return graph.SerializeToString(deterministic=True)


def _anonymize(graph: onnx.ModelProto) -> None:
    """Drop what the exporter notes of itself: paths, stack traces, source lines."""
    inside = graph.graph
    parts = [graph, inside, *inside.node, *inside.initializer, *inside.input, *inside.output]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    del inside.value_info[:]


def _check(graph: onnx.ModelProto, inputs: list[str], outputs: list[str]) -> None:
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
    if names != [inputs, outputs]:
        raise ExportError(f"the exported graph must map {inputs} to {outputs}, not {names}")
    for item in [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]:
        sides = item.type.tensor_type.shape.dim
        if not all(side.HasField("dim_value") for side in sides):
            raise ExportError(f"tensor {item.name} of the exported graph has no static shape")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@dataclass(frozen=True)
class Parity:
    """How far an exported graph and its network are apart."""

    max_abs_difference: float  # in probability
    mean_abs_difference: float  # in probability
    count: int  # pictures
    max_relative_difference: float = 0.0  # of the outputs that are no probabilities


def compare(network: Network, graph: bytes, feeds: Iterable[dict[str, np.ndarray]]) -> Parity:
    """Run the network (PyTorch) and its exported graph (ONNX Runtime) on the same inputs.

    `feeds` are as `Network.sample` gives them. Raises ExportError where a probability differs by
    more than `TOLERANCE`, another output by more than `RELATIVE_TOLERANCE` of its largest value,
    or none was compared.
    """
    session = open_session(graph)
    exact = copy.deepcopy(network).double()
    largest, total, values, relative, count = 0.0, 0.0, 0, 0.0, 0
    for inputs in feeds:
        got = session.run(inputs)
        found = _difference(got, network, inputs)
        if not found.allowed:
            # Both round. In double precision, which is slow, only the graph's own error is left.
            found = _difference(got, exact, inputs)
        largest = max(largest, float(found.absolute.max()))
        total += float(found.absolute.sum())
        values += found.absolute.size
        relative = max(relative, found.relative)
        count += 1
    if not count:
        raise ExportError("there is no picture to compare the exported graph on")
    if largest > TOLERANCE:
        raise ExportError(
            f"the exported graph differs from the trained network by {largest:.2g} in probability, "
            f"at most {TOLERANCE:g} is allowed: the export is refused"
        )
    if relative > RELATIVE_TOLERANCE:
        raise ExportError(
            f"the exported graph's explanations differ from those of the trained network by "
            f"{relative:.2g} of the largest, at most {RELATIVE_TOLERANCE:g} is allowed: the export "
            "is refused"
        )
    return Parity(largest, total / values, count, relative)


@dataclass(frozen=True)
class _Difference:
    absolute: np.ndarray  # of every probability, (n,)
    relative: float  # the greatest of the other outputs

    @property
    def allowed(self) -> bool:
        return self.absolute.max() <= TOLERANCE and self.relative <= RELATIVE_TOLERANCE


def _difference(
    got: dict[str, np.ndarray], network: Network, feeds: dict[str, np.ndarray]
) -> _Difference:
    kind = next(network.parameters()).dtype
    inputs = [torch.from_numpy(value) for value in feeds.values()]
    inputs[1:] = [value.to(kind) for value in inputs[1:]]
    with torch.inference_mode():
        expected = {k: v.numpy() for k, v in zip(network.outputs, network(*inputs), strict=True)}
    # A network that gives NaN must not pass for equal.
    apart = {
        name: np.nan_to_num(np.abs(got[name] - value), nan=np.inf)
        for name, value in expected.items()
    }
    absolute = np.concatenate([apart[name].ravel() for name in PROBABILITIES if name in apart])
    relative = max(
        (
            float(apart[name].max() / max(1.0, np.abs(value).max()))
            for name, value in expected.items()
            if name not in PROBABILITIES
        ),
        default=0.0,
    )
    return _Difference(absolute, float(np.nan_to_num(relative, nan=np.inf)))
