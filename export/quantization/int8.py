"""Post-training INT8: explicit Q/DQ graphs from a float graph and pictures to calibrate on.

Weights are symmetric and per output channel (Krishnamoorthi, arXiv:1806.08342), activations one
scale a tensor: unsigned for x86, whose kernels want that, signed for ARM, and symmetric, too, for
TensorRT.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from export import METHODS, ExportError
from export.graph.half import store_half
from export.options import CALIBRATION_PICTURES
from export.quantization.nodes import flat_nodes, shorten
from export.quantization.rounding import (
    InputMoments,
    RoundedConvolution,
    convolutions,
    observe_moments,
    put_rounded,
    round_convolutions,
)

LEAST_PICTURES = CALIBRATION_PICTURES
AVERAGED = 100  # of them, for what the rounding of weights takes into account
PERCENTILE = 99.99
# All else stays in float, as does what follows a global pooling: it is small.
OPERATORS = ("Conv", "Add", "Mul", "Concat", "Resize", "Relu", "Clip", "AveragePool", "MaxPool")
_ACTIVATIONS = ("Relu", "Clip")
_CHUNK = 8  # pictures whose inner tensors are held in memory at once

Feeds = Sequence[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Scheme:
    """The arithmetic of one kind of processor."""

    targets: tuple[str, ...]  # of `dermedge.bundle.manifest.TARGETS`
    activations: QuantType
    symmetric: bool  # whether 0 must stand for 0
    middle: int  # of 0..255; what the picture's bytes are counted from
    first: int = 0  # layers, from the picture on, that INT8 makes no faster there
    in_pairs: bool = False  # whether two products of bytes are added in 16 bits

    @property
    def zero(self) -> np.ndarray:
        """What `middle` becomes."""
        if self.activations == QuantType.QUInt8:
            return np.array(self.middle, np.uint8)
        return np.array(self.middle - 128, np.int8)


# 116 is the mean of ImageNet's three channel means: convolutions pad with it.
SCHEMES = {
    # Without VNNI, x86 adds two products in 16 bits, and cuts off what does not fit. Weights that
    # always fit are the same on all its processors, and so is what was accepted on one.
    "unsigned": Scheme(("x86",), QuantType.QUInt8, False, 116, first=3, in_pairs=True),
    "signed": Scheme(("arm", "android"), QuantType.QInt8, False, 116),
    "symmetric": Scheme(("tensorrt",), QuantType.QInt8, True, 128),
}


class TooFewPictures(ExportError):
    """Ranges cannot be observed on so few."""


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Feeds):
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


@dataclass(frozen=True, eq=False)
class RangeCalibration:
    """A float graph, and the ranges of what passes through it; serves every scheme."""

    graph: bytes
    ranges: dict[str, TensorsData]  # of all activations, by method
    moments: dict[int, dict[str, InputMoments]]  # of convolutions' inputs, by `Scheme.middle`
    # Outside of `init`, so that `replace` with other moments begins with none.
    _rounded: dict[tuple[str, ...], dict[str, RoundedConvolution]] = field(
        init=False, default_factory=dict
    )

    def model(self, scheme: Scheme) -> onnx.ModelProto:
        """The float graph, counting as the scheme does."""
        return count_from(onnx.load_model_from_string(self.graph), scheme.middle)

    def rounded(self, scheme: Scheme) -> dict[str, RoundedConvolution]:
        """Its convolutions with weights as the scheme rounds them; worked out once for each."""
        if scheme.targets not in self._rounded:
            self._rounded[scheme.targets] = round_convolutions(
                self.model(scheme), self.moments[scheme.middle], scheme.in_pairs
            )
        return self._rounded[scheme.targets]


def refuse_few(pictures: int, whose: str = "") -> None:
    """Raise TooFewPictures, its line begun by `whose`, unless ranges can be observed on so many."""
    if pictures < LEAST_PICTURES:
        raise TooFewPictures(
            f"{whose}{pictures} training pictures are too few to calibrate INT8 on: "
            f"{LEAST_PICTURES} are needed, or leave int8 out of --precisions"
        )


def observe_ranges(
    graph: bytes, feeds: Feeds, methods: Sequence[str] = METHODS
) -> RangeCalibration:
    """The ranges of what passes through a float graph.

    Parameters
    ----------
    graph : weights in full.
    feeds : training pictures as the graph takes them, at least `LEAST_PICTURES`.
    methods : of `METHODS`, to choose ranges by.

    Raises TooFewPictures.
    """
    refuse_few(len(feeds))
    plain = onnx.load_model_from_string(graph)
    moments = {
        middle: observe_moments(count_from(plain, middle), feeds[:AVERAGED])
        for middle in {scheme.middle for scheme in SCHEMES.values()}
    }
    model = count_from(plain, SCHEMES["unsigned"].middle)
    return RangeCalibration(graph, {name: _ranges(model, feeds, name) for name in methods}, moments)


def _ranges(model: onnx.ModelProto, feeds: Feeds, method: str) -> TensorsData:
    kind = CalibrationMethod[{"minmax": "MinMax"}.get(method, method.capitalize())]
    extra = {"percentile": PERCENTILE} if method == "percentile" else {}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder, "float.onnx")
        onnx.save(model, path)
        calibrator = create_calibrator(
            path,
            list(OPERATORS),
            augmented_model_path=str(Path(folder, "augmented.onnx")),
            calibrate_method=kind,
            extra_options={"symmetric": False, **extra},
        )
        # In small portions: it holds every tensor of every picture that it is given at once.
        for start in range(0, len(feeds), _CHUNK):
            calibrator.collect_data(_Reader(feeds[start : start + _CHUNK]))
        return calibrator.compute_data()


def quantize(
    calibration: RangeCalibration, method: str, scheme: Scheme, float_nodes: Sequence[str] = ()
) -> bytes:
    """The Q/DQ graph, by the ranges of one method; `float_nodes` by name stay in float."""
    made = _quantized(calibration, method, scheme, float_nodes)
    store_half(made)
    shorten(made)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString(deterministic=True)


def _quantized(
    calibration: RangeCalibration, method: str, scheme: Scheme, float_nodes: Sequence[str] = ()
) -> onnx.ModelProto:
    model = calibration.model(scheme)
    steps = put_rounded(model, calibration.rounded(scheme), float_nodes)
    if scheme.in_pairs:
        # A weight that the rounding has not seen might overflow.
        seen = {node.name for node in convolutions(model)}
        others = [n.name for n in model.graph.node if n.op_type == "Conv" and n.name not in seen]
        float_nodes = [*float_nodes, *others]
    overrides = {name: [_exactly(step) for step in values] for name, values in steps.items()}
    extra: dict[str, object] = {
        "ActivationSymmetric": scheme.symmetric,
        "WeightSymmetric": True,
        # TensorRT takes biases in float alone; ONNX Runtime quantizes them when it loads.
        "QuantizeBias": False,
    }
    counted = [node.output[0] for node in model.graph.node if node.name == _COUNTED]
    if counted:
        # The picture's own bytes: nothing is lost in the first step.
        overrides[counted[0]] = [{"scale": np.array(1, np.float32), "zero_point": scheme.zero}]
    extra["TensorQuantOverrides"] = overrides
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=scheme.activations,
        tensors_range=calibration.ranges[method],
        nodes_to_quantize=[],
        nodes_to_exclude=sorted({*float_nodes, *flat_nodes(model, pooled=True)}),
        op_types_to_quantize=list(OPERATORS),
        extra_options=extra,
    )
    with _quiet():
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    made = quantizer.model.model
    del made.metadata_props[:]
    made.producer_name, made.producer_version = "dermedge", ""
    return made


def _exactly(step: np.float32) -> dict[str, object]:
    """The quantizer's words for one filter whose weights are whole numbers of a step."""
    return {
        "quant_type": QuantType.QInt8,
        "axis": 0,
        "scale": np.array(step, np.float32),
        "zero_point": np.array(0, np.int8),
    }


def layers(calibration: RangeCalibration, scheme: Scheme) -> list[list[str]]:
    """Names of what is quantized, from the picture on; each layer a node and its activation."""
    return [[node.name for node in layer] for layer in _layers(calibration.model(scheme))]


def _layers(model: onnx.ModelProto) -> list[list[onnx.NodeProto]]:
    """Each node that can be quantized, together with the Relu or Clip that alone follows it."""
    users = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            users[name].append(node)
    flat, layers = set(flat_nodes(model, pooled=True)), []
    for node in model.graph.node:
        if node.op_type not in OPERATORS or node.op_type in _ACTIVATIONS or node.name in flat:
            continue
        next_ones = users[node.output[0]]
        follows = len(next_ones) == 1 and next_ones[0].op_type in _ACTIVATIONS
        layers.append([node, *next_ones] if follows else [node])
    return layers


_COUNTED = "count_from_middle"


def count_from(model: onnx.ModelProto, middle: int) -> onnx.ModelProto:
    """Normalization without a loss in INT8: only a whole number is taken from the picture's bytes.

    The first convolution takes over the rest: (x - mean) / std, then W, is the same as x - middle,
    then W / std and another bias, but for the pixels outside of the picture, which become gray
    `middle` instead of the mean colour. A graph that begins otherwise is given back as it is.
    """
    made = copy.deepcopy(model)
    graph = made.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    users = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    subtract = next((node for node in graph.node if node.op_type == "Sub"), None)
    if subtract is None or subtract.input[1] not in values:
        return made
    divide = users[subtract.output[0]]
    if [node.op_type for node in divide] != ["Div"] or divide[0].input[1] not in values:
        return made
    (divide,) = divide
    convolutions = users[divide.output[0]]
    if not convolutions or any(
        node.op_type != "Conv" or node.input[1] not in values or len(users[node.input[1]]) > 1
        for node in convolutions
    ):
        return made
    mean, std = (
        numpy_helper.to_array(values[node.input[1]]).astype(np.float64).reshape(1, -1, 1, 1)
        for node in (subtract, divide)
    )
    for node in convolutions:
        weight = numpy_helper.to_array(values[node.input[1]]).astype(np.float64) / std
        bias = (weight * (middle - mean)).sum(axis=(1, 2, 3))
        if len(node.input) > 2:
            bias += numpy_helper.to_array(values[node.input[2]])
            del node.input[2:]
        node.input[0] = subtract.output[0]
        node.input.append(f"{node.input[1]}_bias")
        values[node.input[1]].CopyFrom(
            numpy_helper.from_array(weight.astype(np.float32), node.input[1])
        )
        graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), node.input[2]))
    graph.initializer.append(numpy_helper.from_array(np.array(middle, np.float32), "middle"))
    subtract.input[1], subtract.name = "middle", _COUNTED
    graph.node.remove(divide)
    _drop_unused(graph)
    return made


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


@contextlib.contextmanager
def _quiet():
    """Without the advice that the quantizer prints and logs."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
