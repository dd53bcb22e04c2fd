"""Inference sessions: one interface, whatever runtime stands behind it.

Shapes are static and a call maps names to arrays, which is what ONNX Runtime, its Java binding on
Android and a TensorRT execution context have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dermedge import UserError


class SessionError(UserError, RuntimeError):
    """The runtime does not take the model; the message says why in one line."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


class Session(Protocol):
    """A model, ready to run. `run` takes and gives C-contiguous arrays of the stated shapes."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    runtime: str  # e.g. "onnxruntime 1.32.0 CPUExecutionProvider"

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]: ...


class OnnxRuntimeSession:
    """ONNX Runtime behind the `Session` interface."""

    def __init__(self, model: bytes, threads: int, provider: str):
        import onnxruntime

        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise SessionError(
                f"execution provider {provider} is not in this ONNX Runtime; "
                f"there are: {', '.join(available)}"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait steal the cores from decoding and the camera.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=[provider])
        # ONNX Runtime's exceptions share no base class of their own.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise SessionError(f"ONNX Runtime does not load the model: {reason}") from None
        self.inputs = tuple(_tensor(item) for item in self._session.get_inputs())
        self.outputs = tuple(_tensor(item) for item in self._session.get_outputs())
        self.runtime = f"onnxruntime {onnxruntime.__version__} {provider}"

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [item.name for item in self.outputs]
        return dict(zip(names, self._session.run(names, feeds), strict=True))


def _tensor(item) -> Tensor:
    kinds = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
    if item.type not in kinds or not all(isinstance(side, int) for side in item.shape):
        raise SessionError(
            f"tensor {item.name} has type {item.type} and shape {item.shape}; "
            "a bundle's graphs have static shapes of uint8 or float32"
        )
    return Tensor(item.name, tuple(item.shape), np.dtype(kinds[item.type]))


def open_session(model: bytes, threads: int = 0, provider: str = "CPUExecutionProvider") -> Session:
    """Load an ONNX graph.

    Parameters
    ----------
    model : the ONNX file's bytes, weights inside.
    threads : for one operator; 0 leaves the choice to the runtime.
    provider : ONNX Runtime execution provider.

    Raises
    ------
    SessionError
        Where the runtime or the provider cannot run it.
    """
    return OnnxRuntimeSession(model, threads, provider)
