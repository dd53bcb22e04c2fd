"""Whether an analysis fits `analysis.schema.json`. Functions alone; any thread may call them."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import dermedge
from dermedge.taxonomy import CLASSES


def analysis_version() -> int:
    """Of the analyses that this dermedge makes."""
    return _schema()["version"]


@cache
def _schema() -> dict:
    path = Path(dermedge.__file__).with_name("analysis.schema.json")
    return json.loads(path.read_text(encoding="utf-8"))


def analysis_fault(analysis: Any, size: tuple[int, int]) -> str:
    """What in an analysis does not fit `analysis.schema.json`, or its picture; empty if all does.

    Parts that the schema does not name are let through: a later version may have added them.
    """
    try:
        fault = _misfit(analysis, _schema()["$defs"]["analysis"], "")
    except RecursionError:
        return "nested too deeply"
    if fault:
        return fault
    if tuple(analysis["size"]) != tuple(size):
        return "size: of another picture"
    unknown = [name for name in (*analysis["probabilities"], analysis["likely"])
               if name not in CLASSES]  # fmt: skip
    if unknown:
        return "probabilities: an unknown class"
    lesion = analysis["lesion"]
    if lesion["found"] and not (lesion["box"] and lesion["polygons"] and lesion["area_px"] > 0):
        return "lesion: found, but without an outline"
    return ""


# Of JSON Schema (draft 2020-12) what `analysis.schema.json` uses; the package jsonschema is not
# on the device.
_TYPES = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: is_number(value),
    "integer": lambda value: type(value) is int and is_number(value),
    "null": lambda value: value is None,
}
_LEFT_ALONE = frozenset({"description", "additionalProperties", "prefixItems", "items"})


def _misfit(value: object, schema: dict, path: str) -> str:
    """Where and how a value does not fit; empty if it does."""
    if "$ref" in schema:
        schema = _schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    for word, wanted in schema.items():
        if word not in _LEFT_ALONE and not _RULES[word](value, wanted):
            return f"{path or 'analysis'}: {word} {json.dumps(wanted)[:60]}"
    if isinstance(value, dict):
        named, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, part in value.items():
            rule = named.get(name, others)
            where = f"{path}.{name}".lstrip(".")[:80]
            if isinstance(rule, dict) and (fault := _misfit(part, rule, where)):
                return fault
    elif isinstance(value, list):
        first, others = schema.get("prefixItems", []), schema.get("items")
        if others == {"type": "number"} and not first and all(map(is_number, value)):
            return ""  # outlines are long
        for at, part in enumerate(value):
            rule = first[at] if at < len(first) else others
            if rule is not None and (fault := _misfit(part, rule, f"{path}[{at}]")):
                return fault
    return ""


def _is_type(value: object, wanted: str | list[str]) -> bool:
    return any(_TYPES[name](value) for name in ([wanted] if isinstance(wanted, str) else wanted))


def _of(kind: type | tuple[type, ...], rule):
    """A rule that only binds values of that kind."""
    return lambda value, wanted: (
        not isinstance(value, kind) or isinstance(value, bool) or rule(value, wanted)
    )


_RULES = {
    "type": _is_type,
    "enum": lambda value, wanted: any(value == one and type(value) is type(one) for one in wanted),
    "required": _of(dict, lambda value, wanted: all(name in value for name in wanted)),
    "properties": lambda value, wanted: True,
    "propertyNames": _of(
        dict, lambda value, wanted: all(not _misfit(name, wanted, "") for name in value)
    ),
    "minProperties": _of(dict, lambda value, wanted: len(value) >= wanted),
    "minItems": _of(list, lambda value, wanted: len(value) >= wanted),
    "maxItems": _of(list, lambda value, wanted: len(value) <= wanted),
    "uniqueItems": _of(
        list, lambda value, wanted: not wanted or len({*map(repr, value)}) == len(value)
    ),
    "minimum": _of((int, float), lambda value, wanted: value >= wanted),
    "maximum": _of((int, float), lambda value, wanted: value <= wanted),
    "exclusiveMinimum": _of((int, float), lambda value, wanted: value > wanted),
    "pattern": _of(str, lambda value, wanted: bool(re.search(wanted, value))),
}


def is_number(value: object) -> bool:
    if type(value) is int:
        return -(2**63) < value < 2**63
    return isinstance(value, float) and math.isfinite(value)
