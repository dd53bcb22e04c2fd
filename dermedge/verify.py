"""Is this bundle whole, and does this device compute what the desktop computed?"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from dermedge import parity
from dermedge.bundle import ROLES, Bundle, Model, Variant, protobuf_fields
from dermedge.lesion import clean
from dermedge.preprocess import prepare
from dermedge.runtime import SessionError, host, open_session

REFERENCE = "reference.npz"
STRIDE = 8  # px; the reference holds every eighth row and column of pictures and masks
LEVELS = 1  # of 255, that a prepared picture may be off: processors round a mean differently

MAX_OPSET, MAX_IR_VERSION = 18, 10  # what TensorRT 10.3 parses
# Parsed by TensorRT 10.3 and 11 alike.
_TENSORRT = """
    Add AveragePool BatchNormalization Cast Clip Concat Constant Conv ConvTranspose
    DequantizeLinear Div Exp Expand Flatten Gather Gemm GlobalAveragePool HardSigmoid HardSwish
    Identity LeakyRelu MatMul Max MaxPool Min Mul Pad Pow QuantizeLinear ReduceMax ReduceMean
    ReduceSum Relu Reshape Resize Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Tanh
    Transpose Unsqueeze
"""
# Left to the processor by NNAPI or XNNPACK; it works, slower.
_NOT_ON_ANDROID = {"ReduceSum", "Expand", "HardSwish", "Pow", "Exp"}
_INT8 = 3  # of TensorProto.DataType


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: str  # "pass", "fail" or "skip"
    detail: str


def verify(bundle: Bundle, target: str | None = None) -> Iterator[Check]:
    """Check a bundle that `Bundle.open` let in: its hashes, schema and signature are in order.

    Parameters
    ----------
    bundle : an opened bundle.
    target : one of `dermedge.bundle.TARGETS`; default: this machine.
    """
    manifest = bundle.manifest
    yield Check("hashes and schema", "pass", f"{len(manifest.parts)} parts, {bundle.sha256[:12]}")
    signed = f"signed by {bundle.signed_by}" if bundle.signed_by else "not signed"
    yield Check("signature", "pass" if bundle.signed_by else "skip", signed)
    target = target or host()
    seen: set[str] = set()
    for role in ROLES:
        if role not in manifest.models:
            yield Check(role, "skip", "the bundle has none: it is for evaluation alone")
            continue
        model = manifest.models[role]
        if model.part in seen:
            continue
        seen.add(model.part)
        graphs = [Variant(model.part, model.precision, model.targets), *model.variants]
        fitting = [variant for variant in graphs if target in variant.targets]
        if not fitting:
            made = ", ".join(sorted({name for v in graphs for name in v.targets}))
            yield Check(role, "fail", f"no graph for {target}; it was sliced for {made}")
        for variant in fitting:
            yield _operators(bundle, variant, target)
        for variant in graphs:
            yield from _parity(bundle, role, model, variant)


def _operators(bundle: Bundle, variant: Variant, target: str) -> Check:
    name = f"{variant.part} on {target}"
    graph = _Graph(bundle.part(variant.part))
    if graph.opset > MAX_OPSET or graph.ir_version > MAX_IR_VERSION:
        return Check(
            name,
            "fail",
            f"opset {graph.opset} and IR version {graph.ir_version}, but at most {MAX_OPSET} and "
            f"{MAX_IR_VERSION} are understood everywhere",
        )
    counted = f"{sum(graph.operators.values())} operators, opset {graph.opset}"
    if graph.domains - {"", "ai.onnx"}:
        return Check(name, "fail", f"operators of {', '.join(sorted(graph.domains))}")
    if target == "tensorrt":
        foreign = sorted(set(graph.operators) - set(_TENSORRT.split()))
        if foreign:
            return Check(name, "fail", f"TensorRT does not parse {', '.join(foreign)}")
        if not graph.symmetric:
            return Check(name, "fail", "TensorRT takes signed, symmetric Q/DQ alone")
    if target == "android":
        slow = sorted(set(graph.operators) & _NOT_ON_ANDROID)
        if slow:
            counted += f"; {', '.join(slow)} left to the processor"
    return Check(name, "pass", counted)


def _parity(bundle: Bundle, role: str, model: Model, variant: Variant) -> Iterator[Check]:
    name = f"{variant.part} computes"
    if REFERENCE not in bundle.manifest.parts:
        yield Check(name, "skip", "the bundle carries no reference")
        return
    stored = np.load(io.BytesIO(bundle.part(REFERENCE)), allow_pickle=False)
    kind = model.part.split(".")[0].split("-")[0]
    if f"{kind}_image" not in stored:
        yield Check(name, "skip", "the reference says nothing of it")
        return
    try:
        graph = bundle.part(variant.part)
        session = open_session(graph, threads=1, precision=variant.precision)
    except SessionError as error:
        yield Check(name, "fail" if host() in variant.targets else "skip", str(error))
        return
    squares = _squares(bundle, stored["pictures"], model)
    coarse = slice(None, None, STRIDE)
    off = np.abs(squares[:, coarse, coarse].astype(int) - stored[f"{kind}_image"].astype(int)).max()
    if off > LEVELS:
        yield Check(name, "fail", f"pictures are prepared differently here, by {off} of 255")
        return
    absent = {item.name: np.zeros(item.shape, item.dtype) for item in session.inputs[1:]}
    answers = [session.run({"image": square[None], **absent}) for square in squares]
    outputs = parity.stacked(answers)
    expected = {
        output: stored[f"{kind}_{output}"]
        for output in (key.removeprefix(f"{kind}_") for key in stored if key.startswith(f"{kind}_"))
        if output != "image"
    }
    actual = {output: values for output, values in outputs.items() if output in expected}
    if parity.MASK in actual:
        actual[parity.MASK] = actual[parity.MASK][:, coarse, coarse]
    try:
        compared = parity.differences(expected, actual, parity.FROM_FP32[variant.precision])
    except ValueError as error:
        yield Check(name, "fail", f"not as the desktop's FP32: {error}")
        return
    # Of those that pass the one that is nearest to its limit says enough.
    wrong = [item for item in compared if not item.within]
    shown = wrong or sorted(compared, key=lambda item: item.share)[-1:]
    verdict = "pass" if compared and not wrong else "fail"
    yield Check(name, verdict, f"from the desktop's FP32, {'; '.join(map(str, shown))}")


def _squares(bundle: Bundle, pictures: np.ndarray, model: Model) -> np.ndarray:
    """The pictures as the network is fed with them, uint8 (N, S, S, 3)."""
    spec = model.preprocessing
    if not spec.crop:
        return np.stack([prepare(picture, spec)[0] for picture in pictures])
    # Where the segmenter, in the precision that the bundle has first, finds the lesion.
    segmenter = bundle.manifest.models["segmenter"]
    session, found = open_session(bundle.model("segmenter"), threads=1), []
    for picture in pictures:
        square, placement = prepare(picture, segmenter.preprocessing)
        mask = placement.restore(session.run({"image": square[None]})["mask"][0])
        _, contours = clean(mask >= bundle.manifest.thresholds.mask)
        box = cv2.boundingRect(np.concatenate(contours)) if contours else None
        found.append(prepare(picture, spec, box)[0])
    return np.stack(found)


class _Graph:
    """What an ONNX file says of itself. The device has no `onnx` to ask."""

    def __init__(self, content: bytes):
        self.opset = self.ir_version = 0
        self.operators: Counter[str] = Counter()
        self.domains: set[str] = set()
        zero_points: set[str] = set()
        constants: dict[str, bool] = {}  # whether it is INT8, and 0 all over
        for number, value in protobuf_fields(memoryview(content)):
            if number == 1:
                self.ir_version = value
            elif number == 8:
                told = dict(protobuf_fields(value))
                if not bytes(told.get(1, b"")):
                    self.opset = told.get(2, 0)
            elif number == 7:
                for kind, item in protobuf_fields(value):
                    if kind == 1:
                        self._node(item, zero_points)
                    elif kind == 5:
                        name, zero = _constant(item)
                        constants[name] = zero
        self.symmetric = all(constants.get(name, False) for name in zero_points)

    def _node(self, item: memoryview, zero_points: set[str]) -> None:
        inputs, operator, domain = [], "", ""
        for number, value in protobuf_fields(item):
            if number == 1:
                inputs.append(bytes(value).decode())
            elif number == 4:
                operator = bytes(value).decode()
            elif number == 7:
                domain = bytes(value).decode()
        self.operators[operator] += 1
        self.domains.add(domain)
        if operator in ("QuantizeLinear", "DequantizeLinear") and len(inputs) > 2:
            zero_points.add(inputs[2])


def _constant(item: memoryview) -> tuple[str, bool]:
    name, kind, zero = "", 0, True
    for number, value in protobuf_fields(item):
        if number == 2:
            kind = value
        elif number == 8:
            name = bytes(value).decode()
        elif number in (5, 9):  # int32_data (packed) and raw_data
            zero = zero and not any(bytes(value) if isinstance(value, memoryview) else (value,))
    return name, kind == _INT8 and zero
