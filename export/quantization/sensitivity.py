"""Which maps bear no rounding: what the rounding of each alone does to a network's answers."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.quantization.int8 import Feeds, RangeCalibration, Scheme, layers
from export.quantization.nodes import session_of

_ANSWERS = ("probabilities", "mask")
_STEP = 4  # of the rows and columns of a mask that are compared


@dataclass(frozen=True)
class MapEffect:
    """What rounding one map, and nothing else, changes."""

    share: float  # of the sum over all maps
    layers: frozenset[int]  # numbers of those that make it or take it: in float, they keep it whole


def map_effects(
    calibration: RangeCalibration, method: str, scheme: Scheme, feeds: Feeds
) -> list[MapEffect]:
    """The effect of each map that the scheme rounds, the greatest first.

    It is the mean over pictures of the squared Hellinger distance between the answers with the map
    rounded and not, which weighs a change of a probability by how sure it was.
    """
    model = calibration.model(scheme)
    numbers = {
        name: number for number, names in enumerate(layers(calibration, scheme)) for name in names
    }
    makers, takers = {}, defaultdict(set)
    for node in model.graph.node:
        for name in node.input:
            takers[name].add(node.name)
        makers[node.output[0]] = node.name
    public = {item.name for item in model.graph.output}
    rounded = [
        name
        for name, maker in makers.items()
        if name not in public
        and maker in numbers
        # What an activation alone takes is rounded behind it.
        and {numbers.get(taker) for taker in takers[name]} != {numbers[maker]}
    ]
    whole = _answers(model, feeds)
    effects = {}
    for name in rounded:
        low, high = (
            float(np.ravel(value)[0]) for value in calibration.ranges[method][name].range_value
        )
        changed = _answers(_with_rounded(model, name, low, high, scheme.symmetric), feeds)
        effects[name] = _distance(whole, changed)
    total = sum(effects.values()) or 1.0
    return [
        MapEffect(
            effects[name] / total,
            frozenset(numbers[one] for one in (makers[name], *takers[name]) if one in numbers),
        )
        for name in sorted(effects, key=lambda name: -effects[name])
    ]


def layers_around(effects: Sequence[MapEffect], share: float) -> set[int]:
    """The layers around the maps that have this share of the whole effect or more."""
    return {layer for effect in effects if effect.share >= share for layer in effect.layers}


def _with_rounded(
    model: onnx.ModelProto, name: str, low: float, high: float, symmetric: bool
) -> onnx.ModelProto:
    """The graph with one map rounded to 8 bits over its range."""
    made = copy.deepcopy(model)
    nodes = made.graph.node
    for node in nodes:
        node.input[:] = [f"{name}_rounded" if one == name else one for one in node.input]
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        step, zero = max(-low, high) / 127, 128
    else:
        step = (high - low) / 255
        zero = round(-low / step) if step else 0
    values = {f"{name}_step": np.array(step or 1, "f4"), f"{name}_zero": np.array(zero, "u1")}
    made.graph.initializer.extend(numpy_helper.from_array(v, key) for key, v in values.items())
    constants = list(values)
    place = next(number for number, node in enumerate(nodes) if name in node.output) + 1
    to = helper.make_node("QuantizeLinear", [name, *constants], [f"{name}_bytes"])
    back = helper.make_node("DequantizeLinear", [f"{name}_bytes", *constants], [f"{name}_rounded"])
    nodes.insert(place, to)
    nodes.insert(place + 1, back)
    return made


def _answers(model: onnx.ModelProto, feeds: Feeds) -> list[list[np.ndarray]]:
    """Per picture the probabilities and masks, square roots of them and of what they lack of 1."""
    names = [item.name for item in model.graph.output if item.name in _ANSWERS]
    session = session_of(model, names)
    known = [item.name for item in session.get_inputs()]
    answers = []
    for inputs in feeds:
        values = session.run(names, {name: inputs[name] for name in known})
        roots = []
        for value in (np.clip(one, 0, 1) for one in values):
            if value.ndim == 3:  # a mask: each point is or is not of the lesion
                points = value[0, ::_STEP, ::_STEP]
                roots.append(np.sqrt(np.stack([points, 1 - points]) / points.size))
            else:
                roots.append(np.sqrt(value))
        answers.append(roots)
    return answers


def _distance(whole: list[list[np.ndarray]], changed: list[list[np.ndarray]]) -> float:
    return float(
        np.mean(
            [
                sum(np.square(one - other).sum() / 2 for one, other in zip(a, b, strict=True))
                for a, b in zip(whole, changed, strict=True)
            ]
        )
    )
