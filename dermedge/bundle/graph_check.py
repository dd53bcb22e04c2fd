"""What an ONNX file says of itself, read without `onnx`, which a device does not have.

A bundle's graph is a plain network: with all weights inside, of ONNX's own operators, without
branches, loops and functions. Anything else is refused before a runtime sees it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

MAX_FIELDS = 1_000_000  # of the whole file; large networks have some ten thousand
MAX_NAME = 1024  # bytes
MAX_AXES = 16
DOMAINS = ("", "ai.onnx")
# Fields of onnx.proto3. A model may have these, of which training, functions and devices are none.
_MODEL = {1: "ir_version", 2: "", 3: "", 4: "", 5: "", 6: "", 7: "graph", 8: "opset", 14: ""}
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_INPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_INTS, _TENSOR_RAW = 1, 2, 8, 5, 9
_TENSOR_EXTERNAL_DATA, _TENSOR_LOCATION = 13, 14
_INT8 = 3  # of TensorProto.DataType


class GraphError(ValueError):
    """The graph is not one of a bundle; the message says why, as what follows "it"."""


@dataclass(frozen=True)
class Graph:
    """A checked graph."""

    ir_version: int
    opset: int  # of ONNX's own operators
    operators: Counter[str]
    symmetric: bool  # all that is quantized has zero points of INT8 that are 0


def check_graph(content: bytes) -> Graph:
    """Check an ONNX file, in time and memory that its size bounds.

    Raises GraphError in one line where it is damaged, reaches for another file, or computes what
    no network of a bundle computes.
    """
    # ONNX Runtime takes its own format, too, which is not read here.
    if content[4:8] == b"ORTM":
        raise GraphError("is no ONNX")
    try:
        return _Reader().model(memoryview(content))
    except (IndexError, UnicodeDecodeError, _Damaged):
        raise GraphError("is a damaged ONNX graph, or none") from None


class _Damaged(ValueError):
    pass


class _Reader:
    def __init__(self) -> None:
        self.left = MAX_FIELDS
        self.operators: Counter[str] = Counter()
        self.zero_points: set[str] = set()
        # Name: type, and its values.
        self.constants: dict[str, tuple[int, list[int | memoryview]]] = {}

    def fields(self, message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """The field numbers and values of a protobuf message."""
        position, end = 0, len(message)
        while position < end:
            self.left -= 1
            if self.left < 0:
                raise GraphError(f"is an ONNX graph of more than {MAX_FIELDS} fields")
            key, position = _varint(message, position)
            # Other readers drop the upper bits, and would see another field.
            if key >> 32 or key < 8:
                raise _Damaged
            wire = key & 7
            if wire == 0:
                number, position = _varint(message, position)
                yield key >> 3, number
                continue
            if wire == 2:
                size, position = _varint(message, position)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise _Damaged
            if size > end - position:
                raise _Damaged
            value = message[position : position + size]
            position += size
            yield key >> 3, value

    def model(self, message: memoryview) -> Graph:
        ir_version = opset = graphs = 0
        for number, value in self.fields(message):
            if number not in _MODEL:
                raise GraphError("is an ONNX model with training, functions or devices of its own")
            if _MODEL[number] == "ir_version":
                ir_version = _whole(value)
            elif _MODEL[number] == "opset":
                domain, version = self.opset(_message(value))
                if domain in DOMAINS:
                    opset = version
            elif _MODEL[number] == "graph":
                graphs += 1
                self.graph(_message(value))
        if graphs != 1 or not self.operators:
            raise _Damaged
        symmetric = all(_is_zero(*self.constants.get(name, (0, []))) for name in self.zero_points)
        return Graph(ir_version, opset, self.operators, symmetric)

    def opset(self, message: memoryview) -> tuple[str, int]:
        domain, version = "", 0
        for number, value in self.fields(message):
            if number == 1:
                domain = _name(value)
            elif number == 2:
                version = _whole(value)
        return domain, version

    def graph(self, message: memoryview) -> None:
        for number, value in self.fields(message):
            if number == _GRAPH_NODE:
                self.node(_message(value))
            elif number == _GRAPH_INITIALIZER:
                name, kind, values = self.tensor(_message(value))
                self.constants[name] = kind, values
            elif number == _GRAPH_SPARSE:
                raise GraphError("holds sparse weights, which no network of a bundle has")

    def node(self, message: memoryview) -> None:
        inputs, operator, domain = [], "", ""
        for number, value in self.fields(message):
            if number == _NODE_INPUT:
                inputs.append(_name(value))
            elif number == _NODE_OPERATOR:
                operator = _name(value)
            elif number == _NODE_DOMAIN:
                domain = _name(value)
            elif number == _NODE_ATTRIBUTE:
                self.attribute(_message(value))
        if domain not in DOMAINS:
            raise GraphError(f"needs an operator {operator!r} of {domain!r}, not of ONNX")
        self.operators[operator] += 1
        if operator in ("QuantizeLinear", "DequantizeLinear") and len(inputs) > 2:
            self.zero_points.add(inputs[2])

    def attribute(self, message: memoryview) -> None:
        for number, value in self.fields(message):
            if number in _ATTRIBUTE_TENSORS:
                self.tensor(_message(value))
            elif number in _ATTRIBUTE_GRAPHS:
                raise GraphError("branches or loops, which no network of a bundle does")
            elif number in _ATTRIBUTE_SPARSE:
                raise GraphError("holds sparse weights, which no network of a bundle has")

    def tensor(self, message: memoryview) -> tuple[str, int, list[int | memoryview]]:
        """Its name, its type, and the fields that hold its numbers."""
        name, kind = "", 0
        values: list[int | memoryview] = []
        sides: list[int] = []
        for number, value in self.fields(message):
            if number == _TENSOR_EXTERNAL_DATA or (
                # An enumeration is 32 bits wide, whatever is written.
                number == _TENSOR_LOCATION and _whole(value) & 0xFFFFFFFF
            ):
                raise GraphError("wants to read weights from another file")
            if number == _TENSOR_DIMS:
                sides += [value] if isinstance(value, int) else _numbers(value)
                if len(sides) > MAX_AXES:
                    raise _Damaged
            elif number == _TENSOR_TYPE:
                kind = _whole(value)
            elif number == _TENSOR_NAME:
                name = _name(value)
            elif number in (_TENSOR_INTS, _TENSOR_RAW):
                values.append(value)
        # ONNX's narrowest numbers take four bits.
        if any(side >> 40 for side in sides) or math.prod(sides) > 2 * len(message):
            raise GraphError("names weights that are larger than the file")
        return name, kind, values


def _is_zero(kind: int, values: list[int | memoryview]) -> bool:
    """Whether a tensor is INT8 and 0 all over."""
    whole = (value for value in values if isinstance(value, int))
    packed = (value for value in values if not isinstance(value, int))
    return kind == _INT8 and not any(whole) and not any(bytes(v).strip(b"\0") for v in packed)


def _numbers(packed: memoryview) -> list[int]:
    numbers: list[int] = []
    position = 0
    while position < len(packed) and len(numbers) <= MAX_AXES:
        number, position = _varint(packed, position)
        numbers.append(number)
    return numbers


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where the next field starts. IndexError: cut short."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                raise _Damaged
            return value, position
        shift += 7
        if shift > 63:
            raise _Damaged


def _whole(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise _Damaged
    return value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Damaged
    return value


def _name(value: int | memoryview) -> str:
    value = _message(value)
    if len(value) > MAX_NAME:
        raise _Damaged
    return bytes(value).decode()
