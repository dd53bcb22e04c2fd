"""Inference sessions: one interface, whatever runtime stands behind it.

Shapes are static and a call maps names to arrays, which is what ONNX Runtime, its Java binding on
Android and a TensorRT execution context have in common.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from dermedge import UserError

# Short name: ONNX Runtime's execution provider.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
    "ort-openvino": "OpenVINOExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
}
# Engines of NVIDIA's own, built by `dermedge engine build`: TensorRT, and TensorRT-RTX.
ENGINES = ("tensorrt", "tensorrt-rtx")


OPENVINO = "openvino"  # its own package; reads the same graphs
JAVA = "java"  # ONNX Runtime's Java library, on the processor: Android's way to it
RUNTIMES = (*PROVIDERS, OPENVINO, JAVA, *ENGINES)
MOST_THREADS = 1024  # a runtime makes as many as it is asked for, until the memory is full


class SessionError(UserError, RuntimeError):
    """The runtime does not take the model; the message says why in one line."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


def odd_tensor(name: str, kind: object, shape: object) -> SessionError:
    """The error about an input or output that no graph of a bundle has, for raising."""
    return SessionError(
        "tensor {name} has type {kind} and shape {shape}; a bundle's graph has uint8 or "
        "float32 ones of a fixed shape",
        code="tensor",
        name=name,
        kind=str(kind),
        shape=str(shape),
    )


class Session(Protocol):
    """A model, ready to run. `run` takes and gives C-contiguous arrays of the stated shapes."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    runtime: str  # e.g. "onnxruntime 1.32.0 CPUExecutionProvider"

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Output's name to its values, for input's name to its values. Raises SessionError."""
        ...


@dataclass(frozen=True)
class ExecutionConfig:
    """How a network is run: what `dermedge tune` chooses among."""

    precision: str = "fp32"  # one of `PRECISIONS`
    provider: str = "cpu"  # one of RUNTIMES
    threads: int = 0  # of one operator on the processor; 0 leaves the choice to the runtime

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{self.precision} {self.provider} {threads if self.threads else 'own threads'}"


def _packaged() -> bool:
    """Whether ONNX Runtime is installed as a package of Python."""
    return find_spec("onnxruntime") is not None


def host() -> str:
    """Which of `dermedge.bundle.manifest.TARGETS` this machine's processor is."""
    if hasattr(sys, "getandroidapilevel"):
        return "android"
    # Of 32 bits it is "armv7l" and the like.
    return "arm" if platform.machine().lower().startswith(("aarch64", "arm")) else "x86"


def target(provider: str) -> str:
    """Which of `dermedge.bundle.manifest.TARGETS` a graph must be made for, to run there."""
    if provider in (*ENGINES, "ort-tensorrt", "cuda"):
        return "tensorrt"
    return "android" if provider in ("nnapi", "coreml", "qnn") else host()


def open_session(
    model: bytes,
    threads: int = 0,
    provider: str = "cpu",
    bundle_sha256: str = "",
    precision: str = "fp32",
    targets: Sequence[str] | None = None,
) -> Session:
    """Load an ONNX graph.

    Parameters
    ----------
    model : the ONNX file's bytes, weights inside.
    threads : for one operator; 0 leaves the choice to the runtime.
    provider : one of `RUNTIMES`. Where Android has no onnxruntime package, "cpu" is `JAVA`.
    bundle_sha256 : of the bundle that the graph comes from; only engines need it.
    precision : of the graph, one of `PRECISIONS`. No provider computes in a lower
        one: floats stay FP32, and what would round them is refused.
    targets : of `dermedge.bundle.manifest.TARGETS`, that the graph was made for; None: all.
        INT8 of another machine is computed as it is there: x86 without VNNI adds products in 16
        bits, where those of full weights saturate, so ONNX Runtime takes slower sums that do not.

    Raises
    ------
    SessionError
        Where the runtime or the provider cannot run it, there is no engine of it yet, or the
        runtime was loaded before dermedge could keep it from reporting to its maker.
    """
    if provider in ENGINES:
        from dermedge.runtime.engine_cache import load_engine

        return load_engine(model, provider, bundle_sha256)
    if provider == OPENVINO:
        from dermedge.runtime.openvino import OpenVinoSession

        return OpenVinoSession(model, threads)
    if provider == JAVA or (provider == "cpu" and not _packaged() and host() == "android"):
        from dermedge.runtime.java import JavaSession

        return JavaSession(model, threads)
    if provider not in PROVIDERS:
        raise SessionError(
            "there is no execution provider {provider}; there are: {known}",
            code="provider-unknown",
            provider=provider,
            known=", ".join(RUNTIMES),
        )
    if sys.platform == "emscripten":
        from dermedge.runtime.browser import BrowserSession

        return BrowserSession(model)
    from dermedge.runtime.onnx import OnnxRuntimeSession

    foreign = targets is not None and target(provider) not in targets
    return OnnxRuntimeSession(model, threads, provider, precision, foreign)
