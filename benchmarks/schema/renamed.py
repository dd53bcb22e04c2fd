"""Results of earlier versions have other names for some keys; they are read for one version."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.schema.names import BENCH, EVALUATION
from dermedge import UserError

_BENCH = {"not_to_be_quoted": "not_comparable", "sittings": "sessions", "roads": "executions"}
_EXECUTION = {"road": "execution"}
_EVALUATION = {"roads": "executions", "unlike": "ood", "unfamiliar": "ood_flagged"}
_METADATA = {"taken": "accepted", "given": "used"}


def bench(result: dict) -> dict:
    """A result of `dermedge bench` that fits its schema, under the names of today."""
    result = _renamed(result, _BENCH) | {"schema": BENCH}
    result["settings"] = _renamed(result["settings"], {"roads": "executions"})
    if result["executions"] is not None:
        result["executions"] = [_renamed(entry, _EXECUTION) for entry in result["executions"]]
    if result["evaluation"] is not None:
        result["evaluation"] = evaluation(result["evaluation"])
    return result


def evaluation(result: dict) -> dict:
    """A result of `dermedge evaluate`, under the names of today."""
    result = _renamed(result, _EVALUATION) | {"schema": EVALUATION}
    if "metadata" in result:
        result["metadata"] = _renamed(result["metadata"], _METADATA)
    if "groups" in result:
        result["groups"] = [_group(dict(entry)) for entry in result["groups"]]
    if "data" in result:
        result["data"] = {"subset": "", **result["data"]}
    return {"gaps": [], **result}


def _group(entry: dict) -> dict:
    """A group of skin types, which were the only ones; how many are benign was not said."""
    if "skin_type" not in entry:
        return entry
    name = entry.pop("skin_type")
    return {"scale": "skin_type", "group": name, "benign": None, "too_few": [], **entry}


def _renamed(content: Mapping, names: Mapping[str, str]) -> dict:
    if both := [(old, new) for old, new in names.items() if old in content and new in content]:
        old, new = both[0]
        raise UserError(f"it has both {old} and {new}, which are one")
    return {names.get(key, key): value for key, value in content.items()}
