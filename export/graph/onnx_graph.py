"""From a trained network to the ONNX graph of a bundle, and the proof that both say the same."""

from __future__ import annotations

import copy
import sys
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
from export.calibration.calibrate import Calibration
from export.calibration.ood import OodScore
from export.graph.half import store_half
from export.validation.validate import Validation
from train.models import Normalized

# What TensorRT 10.3 (JetPack 6.2) and ONNX Runtime 1.19 still parse.
OPSET = 18
MAX_IR_VERSION = 10
TOLERANCE = 1e-5  # of probability, for FP32
# Of the other outputs: share of the largest value, or of 1 where none is so large.
RELATIVE_TOLERANCE = 1e-3
PROBABILITIES = ("mask", "probabilities")


class GraphModule(nn.Module):
    """What a bundle's graph computes: a picture to probabilities, and what they rest upon.

    `forward` takes uint8 (1, S, S, 3) RGB, and float32 (1, M) of `dermedge.metadata.encode` where
    the network takes metadata. It gives, in the order of `outputs` and all float32:

    - "mask" (1, S, S), the probability that a pixel is lesion: segmenter, multitask;
    - "probabilities" (1, K), softmax(logits / temperature) (Guo et al., "On calibration of modern
      neural networks", ICML 2017): classifier and multitask, as are the next ones;
    - "activation" (1, K, h, w), class scores at each position, where the architecture has them;
    - "embedding" (1, E) and "distance" (1, 1) of `export.calibration.ood`, where one is given.
    """

    def __init__(
        self,
        model: Normalized,
        temperature: float = 1.0,
        ood: OodScore | None = None,
    ):
        super().__init__()
        # A copy: training may still need its model as it is, on its device.
        self.model = copy.deepcopy(model).cpu().eval().to(memory_format=torch.contiguous_format)
        self.temperature = temperature
        # Under this name in the graph's tensors, so that a run gives the bytes that it always gave.
        self.familiarity = ood
        sample = self.sample(64)
        with torch.inference_mode():
            self.outputs = tuple(self._outputs(*map(torch.from_numpy, sample.values())))

    @property
    def ood(self) -> OodScore | None:
        return self.familiarity

    def sample(self, size: int) -> dict[str, np.ndarray]:
        """A black picture of `size` x `size` px of which nothing is known, by input name."""
        feeds = {"image": np.zeros((1, size, size, 3), np.uint8)}
        if self.model.metadata:
            feeds["metadata"] = np.zeros((1, width(self.model.metadata)), np.float32)
        return feeds

    def forward(self, image: Tensor, metadata: Tensor | None = None) -> tuple[Tensor, ...]:
        return tuple(self._outputs(image, metadata).values())

    def _outputs(self, image: Tensor, metadata: Tensor | None = None) -> dict[str, Tensor]:
        # Planes that are contiguous: over a permuted input the exporter takes all that follows
        # for channels-last and writes each global pooling as reshapes and a gather.
        planes = image.to(torch.float32).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        if self.model.kind == "segmenter":
            return {"mask": torch.sigmoid(self.model(planes)).squeeze(1)}
        explained = self.model.explain(planes, metadata)
        outputs = {}
        if "mask" in explained:
            outputs["mask"] = torch.sigmoid(explained["mask"]).squeeze(1)
        outputs["probabilities"] = torch.softmax(explained["classes"] / self.temperature, dim=1)
        if "activation" in explained:
            outputs["activation"] = explained["activation"]
        if self.ood is not None:
            outputs["embedding"], outputs["distance"] = self.ood(explained["features"])
        return outputs


def to_onnx(network: GraphModule, size: int, weights: str = "full") -> bytes:
    """Export for pictures of `size` x `size` px: one ONNX file, weights inside, batch of one.

    The graph takes `image`, uint8 (1, size, size, 3) RGB, and what else `GraphModule.sample` names;
    it says nothing of the machine that made it. `weights` "half" stores those that half precision
    holds exactly as such. ExportError where the result breaks a rule that devices rely on.
    """
    graph = translated(network, size)
    graph.ir_version = min(graph.ir_version, MAX_IR_VERSION)
    if weights == "half":
        store_half(graph)
    _anonymize(graph)
    _check(graph, list(network.sample(size)), list(network.outputs))
    return graph.SerializeToString(deterministic=True)


def translated(network: GraphModule, size: int) -> onnx.ModelProto:
    """The network as PyTorch's exporter gives it, folded: the first step of `to_onnx`."""
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
    if program is None:
        raise ExportError("PyTorch gave no ONNX graph of the network")
    return onnxslim.slim(program.model_proto)


def _anonymize(graph: onnx.ModelProto) -> None:
    """Drop what the exporter notes of itself: paths, stack traces, source lines."""
    inner = graph.graph
    parts = [graph, inner, *inner.node, *inner.initializer, *inner.input, *inner.output]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    del inner.value_info[:]


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
    """How far an exported graph and its network differ."""

    max_abs_difference: float  # in probability
    mean_abs_difference: float  # in probability
    count: int  # pictures
    max_relative_difference: float = 0.0  # of the outputs that are no probabilities


def check_parity(
    network: GraphModule, graph: bytes, feeds: Iterable[dict[str, np.ndarray]]
) -> Parity:
    """Run the network (PyTorch) and its exported graph (ONNX Runtime) on the same inputs.

    `feeds` are as `GraphModule.sample` gives them. Raises ExportError where a probability differs
    by more than `TOLERANCE`, another output by more than `RELATIVE_TOLERANCE` of its largest
    value, or none was compared.
    """
    session = open_session(graph)
    exact = copy.deepcopy(network).double()
    largest, total, values, relative, count = 0.0, 0.0, 0, 0.0, 0
    for inputs in feeds:
        answered = session.run(inputs)
        difference = _difference(answered, network, inputs)
        if not difference.allowed:
            # Both round. In double precision, which is slow, only the graph's own error is left.
            difference = _difference(answered, exact, inputs)
        largest = max(largest, float(difference.absolute.max()))
        total += float(difference.absolute.sum())
        values += difference.absolute.size
        relative = max(relative, difference.relative)
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
    answered: dict[str, np.ndarray], network: GraphModule, feeds: dict[str, np.ndarray]
) -> _Difference:
    kind = next(network.parameters()).dtype
    inputs = [torch.from_numpy(value) for value in feeds.values()]
    inputs[1:] = [value.to(kind) for value in inputs[1:]]
    with torch.inference_mode():
        expected = {k: v.numpy() for k, v in zip(network.outputs, network(*inputs), strict=True)}
    # A network that gives NaN must not pass for equal.
    difference = {
        name: np.nan_to_num(np.abs(answered[name] - value), nan=np.inf)
        for name, value in expected.items()
    }
    absolute = np.concatenate(
        [difference[name].ravel() for name in PROBABILITIES if name in difference]
    )
    relative = max(
        (
            float(difference[name].max() / max(1.0, np.abs(value).max()))
            for name, value in expected.items()
            if name not in PROBABILITIES
        ),
        default=0.0,
    )
    return _Difference(absolute, float(np.nan_to_num(relative, nan=np.inf)))


@dataclass(frozen=True, eq=False)
class ExportedGraph:
    """One network as ONNX."""

    module: GraphModule
    size: int  # px, of its input's side
    graph: bytes
    parity: Parity


def export_graph(validation: Validation, calibration: Calibration | None) -> ExportedGraph:
    """The FP32 graph of a network, compared with it on validation pictures."""
    network = validation.network
    run = network.run
    print(f"exporting the {run.kind} ({run.model}, {run.size} px)", file=sys.stderr, flush=True)
    if calibration is None:
        module = GraphModule(network.model)
    else:
        module = GraphModule(network.model, calibration.temperature, calibration.ood)
    graph = to_onnx(module, run.size, network.weights)
    return ExportedGraph(
        module, run.size, graph, check_parity(module, graph, validation.parity_feeds)
    )
