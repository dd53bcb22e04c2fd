"""ONNX Runtime Web behind the `Session` interface, in Pyodide.

It loads and runs a graph without blocking, so whoever drives the stages awaits it: a session is
only found here by the SHA-256 of its graph, and `run` is refused.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from dermedge.runtime import SessionError, Tensor, odd_tensor

_DTYPES = {"uint8": np.uint8, "float32": np.float32}
# SHA-256 of a graph: what the page said of the session that it made of it.
_loaded: dict[str, str] = {}


def announce(model: bytes, description: str) -> None:
    """Make a graph known that ONNX Runtime Web has loaded.

    `description` is JSON: "runtime", and "inputs" and "outputs" as lists of name, type and shape.
    """
    _loaded[hashlib.sha256(model).hexdigest()] = description


class BrowserSession:
    """A graph that the page has loaded; `key` is its SHA-256."""

    def __init__(self, model: bytes):
        self.key = hashlib.sha256(model).hexdigest()
        if self.key not in _loaded:
            raise SessionError("the page has not loaded this graph", code="model.load")
        described = json.loads(_loaded[self.key])
        self.runtime = str(described["runtime"])
        self.inputs = tuple(_tensor(*item) for item in described["inputs"])
        self.outputs = tuple(_tensor(*item) for item in described["outputs"])

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise SessionError("a browser does not wait: drive the steps by await", code="session.run")


def _tensor(name: str, kind: str, shape: list[object]) -> Tensor:
    sides = [side for side in shape if isinstance(side, int)]
    if kind not in _DTYPES or len(sides) < len(shape):
        raise odd_tensor(name, kind, shape)
    return Tensor(name, tuple(sides), np.dtype(_DTYPES[kind]))
