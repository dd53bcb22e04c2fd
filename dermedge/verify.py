"""Is this bundle whole, and does this device compute what the desktop computed?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from dermedge.analyzer import similar_cases
from dermedge.bundle.archive import ArchiveError
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.graph_check import check_graph
from dermedge.bundle.manifest import CASES, OUTLIERS, ROLES, BundleError, Model, Variant
from dermedge.bundle.reference import REFERENCE, Expected, Reference, network_of, strided
from dermedge.image.preprocess import prepare
from dermedge.lesion.features import clean
from dermedge.network import Network
from dermedge.outlier import OutlierHead
from dermedge.runtime import SessionError, host, parity

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
    target : one of `dermedge.bundle.manifest.TARGETS`; default: this machine.
    """
    manifest = bundle.manifest
    yield Check("hashes and schema", "pass", f"{len(manifest.parts)} parts, {bundle.sha256[:12]}")
    yield Check("signature", "pass" if bundle.signed_by else "skip", str(bundle.signature))
    if manifest.release is not None:
        trusted = "pass" if bundle.signed_by else "skip"
        yield Check("release", trusted, f"{manifest.release}, as its maker counts")
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
        graphs = [model.first, *model.variants]
        fitting = [variant for variant in graphs if target in variant.targets]
        if not fitting:
            made = ", ".join(sorted({name for v in graphs for name in v.targets}))
            yield Check(
                role,
                "fail",
                f"no graph for {target}; it was sliced for {made}: name yours by --target",
            )
        for variant in fitting:
            yield _operators(bundle, variant, target)
        for variant in graphs:
            yield _parity(bundle, model, variant)
    if "classifier" in manifest.models:
        yield from _beside_classifier(bundle)


def _beside_classifier(bundle: Bundle) -> Iterator[Check]:
    """The parts that an analysis reads with what the classifier gives."""
    readers: dict[str, Callable[[Network], object]] = {
        CASES: lambda network: similar_cases(bundle, network.embedding),
        OUTLIERS: lambda network: OutlierHead.of(bundle, network),
    }
    parts = [part for part in readers if part in bundle.manifest.parts]
    if not parts:
        return
    try:
        roles = _roles(bundle, bundle.manifest.models["classifier"].part)
        network = Network(bundle.sliced({}), roles, threads=1)
    except (BundleError, SessionError) as error:
        yield Check(" and ".join(parts), "skip", str(error))
        return
    for part in parts:
        try:
            readers[part](network)
        except BundleError as error:
            yield Check(part, "fail", str(error))
        else:
            yield Check(part, "pass", "fits the classifier")


def _operators(bundle: Bundle, variant: Variant, target: str) -> Check:
    name = f"{variant.part} on {target}"
    graph = check_graph(bundle.part(variant.part))
    if graph.opset > MAX_OPSET or graph.ir_version > MAX_IR_VERSION:
        return Check(
            name,
            "fail",
            f"opset {graph.opset} and IR version {graph.ir_version}, but at most {MAX_OPSET} and "
            f"{MAX_IR_VERSION} are understood everywhere",
        )
    counted = f"{sum(graph.operators.values())} operators, opset {graph.opset}"
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


def _parity(bundle: Bundle, model: Model, variant: Variant) -> Check:
    name = f"{variant.part} computes"
    if REFERENCE not in bundle.manifest.parts:
        return Check(name, "skip", "the bundle carries no reference")
    try:
        reference = Reference.from_bytes(bundle.part(REFERENCE))
    except ArchiveError as error:
        return Check(name, "fail", f"{REFERENCE} is refused: it {error}")
    expected = reference.networks.get(network_of(model.part))
    if expected is None:
        return Check(name, "skip", "the reference says nothing of it")
    roles = _roles(bundle, model.part)
    try:
        network = Network(bundle.sliced(dict.fromkeys(roles, variant)), roles, threads=1)
    except SessionError as error:
        return Check(name, "fail" if host() in variant.targets else "skip", str(error))
    except BundleError as error:
        return Check(name, "fail", str(error))
    try:
        return _compare(name, bundle, network, reference.pictures, expected, variant.precision)
    except (BundleError, SessionError) as error:
        return Check(name, "fail", str(error))


def _roles(bundle: Bundle, part: str) -> tuple[str, ...]:
    """Those that the graph `part` plays."""
    models = bundle.manifest.models
    return tuple(role for role in ROLES if role in models and models[role].part == part)


def _compare(
    name: str,
    bundle: Bundle,
    network: Network,
    pictures: np.ndarray,
    expected: Expected,
    precision: str,
) -> Check:
    """What a network gives, beside what the desktop's FP32 gave."""
    squares = _squares(bundle, pictures, network.model)
    prepared = strided("image", squares)
    if prepared.shape != expected.image.shape:
        return Check(name, "fail", "the reference is of pictures of another size")
    off = np.abs(prepared.astype(int) - expected.image.astype(int)).max()
    if off > LEVELS:
        if network.model.preprocessing.crop and (other := _crops_otherwise(bundle)):
            return Check(name, "skip", other)
        return Check(name, "fail", f"pictures are prepared differently here, by {off} of 255")
    outputs = [network.run(square) for square in squares]
    actual = {
        output: strided(output, np.stack([answer[output] for answer in outputs]))
        for output in outputs[0]
        if output in (*expected.outputs, parity.MASK, parity.PROBABILITIES)
    }
    for output, values in actual.items():
        if output not in expected.outputs or expected.outputs[output].shape != values.shape:
            return Check(name, "fail", f"the reference has no {output} of this shape")
    try:
        compared = parity.differences(expected.outputs, actual, parity.FROM_FP32[precision])
    except ValueError as error:
        return Check(name, "fail", f"not as the desktop's FP32: {error}")
    # Of those that pass the one that is nearest to its limit says enough.
    wrong = [item for item in compared if not item.within]
    shown = wrong or sorted(compared, key=lambda item: item.share)[-1:]
    verdict = "fail" if wrong or not compared else "pass"
    return Check(name, verdict, f"from the desktop's FP32, {'; '.join(map(str, shown))}")


def _crops_otherwise(bundle: Bundle) -> str:
    """Why crops need not be where the reference has them, which FP32 placed; "": they must be."""
    precision = bundle.manifest.models["segmenter"].precision
    if precision == "fp32":
        return ""
    return (
        f"not comparable: the segmenter places its crops, and in {precision} not where FP32 placed "
        "those of the reference"
    )


def _squares(bundle: Bundle, pictures: np.ndarray, model: Model) -> np.ndarray:
    """The pictures as the network is fed with them, uint8 (N, S, S, 3)."""
    spec = model.preprocessing
    if not spec.crop:
        return np.stack([prepare(picture, spec)[0] for picture in pictures])
    # Where the segmenter, in the precision that the bundle has first, finds the lesion.
    segmenter, squares = Network(bundle, ("segmenter",), threads=1), []
    for picture in pictures:
        square, placement = prepare(picture, segmenter.model.preprocessing)
        mask = placement.restore(segmenter.run(square)["mask"])
        _, contours = clean(mask >= bundle.manifest.thresholds.mask)
        box = None
        if contours:
            x, y, width, height = cv2.boundingRect(np.concatenate(contours))
            box = x, y, width, height
        squares.append(prepare(picture, spec, box)[0])
    return np.stack(squares)
