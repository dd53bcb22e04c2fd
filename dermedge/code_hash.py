"""What a computation consists of, as one hash: so that a cache never outlives a change of code."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path


@functools.cache
def code_hash(*modules: str) -> str:
    """Hex digest of what the named modules compute with.

    That is their source, the source of every module of dermedge, or of the top-level packages that
    they are in, that they import, however indirectly and wherever in the file, and the installed
    version of every other package that any of these imports. A change of a comment changes it, too:
    rather too often than too rarely. Imports under `if TYPE_CHECKING` do not count.
    """
    own = {"dermedge", *(name.partition(".")[0] for name in modules)}
    waiting = list(modules)
    seen: dict[str, str] = {}
    foreign: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        source = _source(name)
        seen[name] = hashlib.sha256(source).hexdigest()
        for imported in _imports(source):
            top = imported.partition(".")[0]
            if top not in own:
                foreign.add(top)
            elif _is_module(imported):
                waiting.append(imported)
    lines = [f"{name} {digest}" for name, digest in sorted(seen.items())]
    lines += [f"{name} {_version(name)}" for name in sorted(foreign - sys.stdlib_module_names)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _source(name: str) -> bytes:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no source of {name}", name=name)
    return Path(spec.origin).read_bytes()


def _imports(source: bytes) -> set[str]:
    """Names of all modules that the source may mean; `from a import b` may mean `a.b`."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse  # what is imported for its types alone computes nothing
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is a module, not a package: `name` is in it
        return False


@functools.cache
def _version(package: str) -> str:
    names = _distributions().get(package, ())
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(names)))


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())
