"""ONNX Runtime behind the `Session` interface, with the execution providers that it brings."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dermedge import telemetry
from dermedge.files import sync_folder
from dermedge.runtime import PROVIDERS, SessionError, Tensor, odd_tensor
from dermedge.text import brief

# What makes each provider compute FP32 as FP32, whatever its defaults are. By ONNX Runtime's pages
# on execution providers, its key-value headers, and coremltools' page "Typed Execution".
FP32_OPTIONS: dict[str, dict[str, str]] = {
    "cpu": {},  # see also _FP32_SESSION
    "cuda": {"use_tf32": "0"},  # on by default from Ampere on: 10 of the 23 bits of a float
    "ort-openvino": {"device_type": "CPU", "precision": "FP32"},  # bfloat16 where there is AMX
    "xnnpack": {},  # kernels follow the tensors' types
    "nnapi": {},  # relaxes to FP16 by the flag NNAPI_FLAG_USE_FP16 alone, which nobody sets
    # An ML program keeps to its tensors' types; the older format does not.
    "coreml": {"ModelFormat": "MLProgram", "AllowLowPrecisionAccumulationOnGPU": "0"},
    "qnn": {"enable_htp_fp16_precision": "0"},  # on by default: FP16 for every float
}
# TF32 cannot be turned off in TensorRT behind ONNX Runtime (microsoft/onnxruntime issue 26029);
# it keeps as many bits as FP16 does. So it runs what the export has accepted as FP16.
# Its Python binding takes "True" and refuses "1" (issue 14091).
HALF_ONLY: dict[str, dict[str, str]] = {"ort-tensorrt": {"trt_fp16_enable": "True"}}
_FP32_SESSION = {"mlas.enable_gemm_fastmath_arm64_bfloat16": "0"}
_REPORTS_FROM = (1, 29)  # ONNX Runtime with a reporter that needs no help of the system


def provider_options(provider: str, precision: str, threads: int = 0) -> dict[str, str]:
    """What ONNX Runtime's provider is given for a graph of this precision.

    Parameters
    ----------
    provider : one of `PROVIDERS`.
    precision : one of `PRECISIONS`. Floats of a graph are computed as they are
        typed: those of an INT8 graph, and what an FP16 graph keeps in float, in FP32.
    threads : of the processor; 0 leaves the choice to the runtime.

    Raises
    ------
    SessionError
        Where the provider would compute in another precision.
    """
    if provider in HALF_ONLY:
        if precision != "fp16":
            raise SessionError(
                "{provider} rounds floats to half precision, which is not {precision}: "
                "choose the precision fp16 where the bundle has it, or the provider tensorrt",
                code="provider-precision",
                provider=provider,
                precision=precision,
            )
        return dict(HALF_ONLY[provider])
    options = dict(FP32_OPTIONS[provider])
    if provider == "xnnpack" and threads:
        options["intra_op_num_threads"] = str(threads)  # it has a pool of its own
    return options


def available() -> list[str]:
    """The short names of the execution providers that this ONNX Runtime was built with.

    There are none where it is not installed as a package of Python.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return []
    providers = onnxruntime.get_available_providers()
    return [name for name, full in PROVIDERS.items() if full in providers]


def version() -> str | None:
    """Of ONNX Runtime as a package of Python; None where it is not installed as one."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    return str(onnxruntime.__version__)


class OnnxRuntimeSession:
    """A graph in ONNX Runtime."""

    def __init__(
        self, model: bytes, threads: int, provider: str, precision: str, foreign: bool = False
    ):
        settings = provider_options(provider, precision, threads)
        import onnxruntime

        _refuse_reports(onnxruntime)
        full = PROVIDERS[provider]
        if provider not in available():
            raise SessionError(
                "execution provider {name} is not in this ONNX Runtime; there are: {names}",
                code="provider.missing",
                name=full,
                names=", ".join(available()),
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait steal the cores from decoding and the camera.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for key, value in _FP32_SESSION.items():
            options.add_session_config_entry(key, value)
        if foreign:
            options.add_session_config_entry("session.x64quantprecision", "1")
        others = [PROVIDERS["cpu"]] if provider != "cpu" else []
        try:
            # By itself it would say on standard output that a provider failed, and go on on the
            # processor without a word to the caller.
            with _engines(model, provider, onnxruntime.__version__) as kept:
                self._session = onnxruntime.InferenceSession(
                    model,
                    options,
                    providers=[(full, {**settings, **kept}), *others],
                    enable_fallback=False,
                )
            self._session.disable_fallback()  # earlier versions ignore the argument
        # ONNX Runtime's exceptions share no base class of their own.
        except Exception as error:
            raise SessionError(
                "ONNX Runtime does not load the model: {reason}",
                code="model.load",
                reason=brief(error),
            ) from None
        # A provider whose libraries are missing is left out without an error.
        if full not in self._session.get_providers():
            raise SessionError(
                "{name} cannot be started here: are its libraries installed?",
                code="provider.start",
                name=full,
            )
        self.inputs = tuple(_tensor(item) for item in self._session.get_inputs())
        self.outputs = tuple(_tensor(item) for item in self._session.get_outputs())
        self.runtime = f"onnxruntime {onnxruntime.__version__} {full}"

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [item.name for item in self.outputs]
        try:
            outputs = self._session.run(names, feeds)
        except MemoryError:
            raise
        except Exception as error:  # a device that was lost, or whose memory is full
            raise SessionError(
                "ONNX Runtime failed: {reason}", code="session-failed", reason=brief(error)
            ) from None
        return dict(zip(names, outputs, strict=True))


@contextmanager
def _engines(model: bytes, provider: str, version: str) -> Iterator[dict[str, str]]:
    """Options that keep what TensorRT builds of a graph in minutes; {} where nothing can be kept.

    ONNX Runtime names an engine after the graph's structure alone (issue 6455): of two bundles the
    second would be computed with the weights of the first. So each graph has a folder. It gets its
    name once the session is open; one whose engine cannot be loaded is removed, to be built again.
    """
    if provider != "ort-tensorrt":
        yield {}
        return
    from dermedge.runtime.engine_cache import folder

    name = f"{hashlib.sha256(model).hexdigest()}-{provider}-{version}"
    try:
        root = folder().resolve()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = root / name
        used = kept if kept.is_dir() else Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    except (OSError, SessionError):  # a disk that is full or read-only, a user without a home
        yield {}
        return
    try:
        yield {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(used)}
    except BaseException:
        shutil.rmtree(used, ignore_errors=True)
        raise
    if used != kept:
        with suppress(OSError):
            for path in used.iterdir():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            used.rename(kept)
            sync_folder(root)
        shutil.rmtree(used, ignore_errors=True)  # where another process was first


def _refuse_reports(onnxruntime: ModuleType) -> None:
    """Raise SessionError where this ONNX Runtime was loaded with its reporting switched on."""
    # Windows' own tracing does not read the variable; it goes nowhere unless somebody records it.
    onnxruntime.disable_telemetry_events()
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if telemetry.reporting("onnxruntime") and version >= _REPORTS_FROM:
        raise SessionError(
            "onnxruntime was imported before dermedge and may report to its maker: "
            "import dermedge first, or set ORT_DISABLE_TELEMETRY=1",
            code="telemetry",
        )


def _tensor(item: Any) -> Tensor:
    kinds = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
    if item.type not in kinds or not all(isinstance(side, int) for side in item.shape):
        raise odd_tensor(item.name, item.type, item.shape)
    return Tensor(item.name, tuple(item.shape), np.dtype(kinds[item.type]))
