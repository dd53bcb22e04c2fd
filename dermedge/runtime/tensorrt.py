"""NVIDIA TensorRT and TensorRT-RTX: engines built from ONNX, and the `Session` that runs one.

Held to the calls that TensorRT 10.3 (JetPack 6), 11 and TensorRT-RTX share. Networks are strongly
typed: the graph alone says what is computed in which precision.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from dermedge.runtime import SessionError, Tensor, odd_tensor
from dermedge.text import brief

if TYPE_CHECKING:
    import tensorrt as trt

RTX = "tensorrt-rtx"
# The modules that may hold a provider's Python bindings, best first.
_MODULES = {"tensorrt": ("tensorrt",), RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
# TensorRT-RTX builds for all of these at once, without a GPU; the rest is compiled where it runs.
_RTX_CAPABILITY = (8, 0)
_WORKSPACE = 1 << 30  # bytes of scratch memory that the builder may plan with


@dataclass(frozen=True)
class Gpu:
    """The first CUDA device."""

    name: str
    capability: tuple[int, int]  # compute capability, major and minor
    multiprocessors: int  # every Jetson Orin is called "Orin", whatever its size and power mode

    def __str__(self) -> str:
        major, minor = self.capability
        return (
            f"{self.name} (compute capability {major}.{minor}, "
            f"{self.multiprocessors} multiprocessors)"
        )


@dataclass(frozen=True)
class Layer:
    """A layer of a built engine, after all fusions."""

    name: str
    kind: str  # TensorRT's word, e.g. "CaskConvolution", "correlation", "kgen"
    operands: tuple[str, ...]  # data types, in TensorRT's words, of its first input and weights

    @property
    def convolution(self) -> bool:
        """Whether it is one, by TensorRT's word for it."""
        return re.search("conv|correlation", self.kind, re.IGNORECASE) is not None

    @property
    def int8(self) -> bool:
        """Whether it computes on INT8: all its known operands are."""
        matches = [re.search(r"\bint8\b", words, re.IGNORECASE) for words in self.operands]
        return bool(matches) and None not in matches


@dataclass(frozen=True)
class Built:
    """What the builder made of a graph."""

    engine: bytes
    layers: tuple[Layer, ...]  # () where TensorRT does not say
    seconds: float


def is_installed(provider: str) -> bool:
    """Whether there are bindings of "tensorrt" or "tensorrt-rtx"; loads none."""
    return any(map(find_spec, _MODULES[provider]))


def bindings(provider: str) -> Any:
    """The Python module of "tensorrt" or "tensorrt-rtx". SessionError where it is not installed."""
    for name in _MODULES[provider]:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:
            raise SessionError(
                "{provider} cannot be loaded: {reason}",
                code="provider.load",
                provider=provider,
                reason=brief(error, 300),
            ) from None
        # A package of type stubs alone can be imported too, and is empty.
        if hasattr(module, "Builder"):
            return module
    raise SessionError(
        "{provider} is not installed: pip install 'dermedge[{provider}]'",
        code="provider.missing",
        provider=provider,
    )


def version(provider: str) -> str:
    """Of the installed bindings. SessionError where there are none."""
    return str(bindings(provider).__version__)


def device(provider: str) -> str:
    """What an engine that is built here will run on; part of its key.

    An engine of TensorRT is for one model of GPU in one power mode, as far as that switches
    multiprocessors off, one of TensorRT-RTX for a whole family.
    SessionError where TensorRT has no GPU to build for.
    """
    if provider == RTX:
        return "compute capability {}.{} and later".format(*_RTX_CAPABILITY)
    return str(gpu(provider))


def gpu(provider: str) -> Gpu:
    """The GPU of this machine that runs the provider's engines.

    SessionError where there is none, it is too old, or cuda-bindings is missing.
    """
    cudart = _cudart(provider)
    try:
        properties = checked(cudart, cudart.cudaGetDeviceProperties(0))
    except SessionError as error:
        raise SessionError(
            "{provider} finds no GPU here: {reason}",
            code="gpu.missing",
            provider=provider,
            reason=error,
        ) from None
    name = properties.name.decode(errors="replace").rstrip("\0")
    capability = properties.major, properties.minor
    found = Gpu(name, capability, properties.multiProcessorCount)
    if provider == RTX and found.capability < _RTX_CAPABILITY:
        raise SessionError(
            "{provider} engines need {device}, this is {found}",
            code="gpu.old",
            provider=provider,
            device=device(provider),
            found=str(found),
        )
    return found


def build(model: bytes, provider: str) -> Built:
    """Build the engine of an ONNX graph; may take minutes with TensorRT.

    Raises
    ------
    SessionError
        In one line, what the parser or the builder refused.
    """
    trt: Any = bindings(provider)
    journal = _journal(provider)
    builder = trt.Builder(journal)
    # From TensorRT 11 on there is nothing but strong typing, and the flag is on its way out.
    strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = trt.OnnxParser(network, journal)
    if not parser.parse(model):
        raise SessionError(
            "{provider} does not parse the graph: {reason}",
            code="graph.parse",
            provider=provider,
            reason=_parse_error(parser),
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # FP32 is to be FP32: TF32 keeps 10 of the 23 bits of a float.
    config.clear_flag(trt.BuilderFlag.TF32)
    monitor = _monitor(provider)
    config.progress_monitor = monitor
    started = time.perf_counter()
    # Not in the main thread: there Ctrl-C would be raised inside of the journal, which TensorRT
    # calls and whose exceptions it swallows.
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(builder.build_serialized_network, network, config)
        try:
            plan: Any = building.result()  # a buffer, which its type does not say
        except BaseException:
            monitor.stopped = True
            raise
    if plan is None:
        raise SessionError(
            "{provider} does not build the graph: {reason}",
            code="graph.build",
            provider=provider,
            reason=journal.last_error(),
        )
    seconds = time.perf_counter() - started
    engine = bytes(plan)
    layers = journal.layers or ([] if provider == RTX else _inspected(engine, provider))
    return Built(engine, tuple(layers), seconds)


class TensorRTSession:
    """An engine on the first GPU, behind the `Session` interface.

    Buffers are taken once: pinned ones of the host, and those of the device. After a first run the
    copies and kernels are captured as one CUDA graph where TensorRT can be captured.
    """

    def __init__(self, engine: bytes, provider: str):
        """Deserialize an engine, which must come from a trusted place: it holds code.

        Raises SessionError where CUDA or TensorRT refuses; nothing stays allocated then.
        """
        self._closed = True
        self._lock = threading.Lock()
        trt: Any = bindings(provider)
        self._cudart = _cudart(provider)
        found = gpu(provider)
        journal = _journal(provider)
        loaded = trt.Runtime(journal).deserialize_cuda_engine(engine)
        context = loaded.create_execution_context() if loaded else None
        if context is None:
            raise SessionError(
                "{provider} does not load the engine: {reason}",
                code="engine.load",
                provider=provider,
                reason=journal.last_error(),
            )
        self._context = context
        self.inputs, self.outputs = _tensors(loaded, provider)
        with ExitStack() as held:
            self._stream = self._taken(held, "cudaStreamCreate", "cudaStreamDestroy")
            self._buffers = {item.name: self._buffer(held, item) for item in self._io()}
            self._launch()  # allocates and compiles what a capture may not
            self._wait()
            self._graph = self._captured(held)
            self._held = held.pop_all()
        self._closed = False
        captured = " with CUDA graph" if self._graph is not None else ""
        self.runtime = f"{provider} {version(provider)} {found}{captured}"

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._lock:
            if self._closed:
                raise SessionError("the session is closed")
            for item in self.inputs:
                given = feeds[item.name]
                if given.shape != item.shape or given.dtype != item.dtype:
                    raise SessionError(
                        "{name} must be {kind} of shape {shape}, got {given} of shape {other}",
                        code="input",
                        name=item.name,
                        kind=str(item.dtype),
                        shape=str(item.shape),
                        given=str(given.dtype),
                        other=str(given.shape),
                    )
                self._buffers[item.name][0][:] = given
            if self._graph is None:
                self._launch()
            else:
                self._call("cudaGraphLaunch", self._graph, self._stream)
            self._wait()
            return {item.name: self._buffers[item.name][0].copy() for item in self.outputs}

    def close(self) -> None:
        """Give all memory back, once a run in another thread has ended; none can follow."""
        with self._lock:
            if not self._closed:
                self._closed = True
                del self._context
                self._held.close()

    def __del__(self) -> None:
        self.close()

    def _io(self) -> tuple[Tensor, ...]:
        return (*self.inputs, *self.outputs)

    def _call(self, name: str, *args: Any) -> Any:
        return checked(self._cudart, getattr(self._cudart, name)(*args))

    def _taken(self, held: ExitStack, take: str, free: str, *args: Any) -> Any:
        """What the CUDA call `take` gives; `free` will be called with it once `held` closes."""
        resource = self._call(take, *args)
        held.callback(getattr(self._cudart, free), resource)
        return resource

    def _buffer(self, held: ExitStack, item: Tensor) -> tuple[np.ndarray, int]:
        """Pinned memory of the host, and the address of as much on the device."""
        size = int(np.prod(item.shape)) * item.dtype.itemsize
        pinned = int(self._taken(held, "cudaHostAlloc", "cudaFreeHost", size, 0))
        address = int(self._taken(held, "cudaMalloc", "cudaFree", size))
        if not self._context.set_tensor_address(item.name, address):
            raise SessionError(
                "TensorRT does not take the buffer of {name}", code="buffer", name=item.name
            )
        memory = (ctypes.c_uint8 * size).from_address(pinned)
        host = np.ctypeslib.as_array(memory).view(item.dtype).reshape(item.shape)
        host[:] = 0
        return host, address

    def _launch(self) -> None:
        """Queue one inference, from pinned memory to pinned memory."""
        kinds = self._cudart.cudaMemcpyKind
        for item in self.inputs:
            host, address = self._buffers[item.name]
            to_device = kinds.cudaMemcpyHostToDevice
            source = host.ctypes.data
            self._call("cudaMemcpyAsync", address, source, host.nbytes, to_device, self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise SessionError("TensorRT could not start the inference")
        for item in self.outputs:
            host, address = self._buffers[item.name]
            to_host = kinds.cudaMemcpyDeviceToHost
            goal = host.ctypes.data
            self._call("cudaMemcpyAsync", goal, address, host.nbytes, to_host, self._stream)

    def _wait(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    def _captured(self, held: ExitStack) -> Any | None:
        """`_launch` as one CUDA graph; None where TensorRT uses what cannot be captured."""
        # TensorRT-RTX can say; TensorRT has to be tried.
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(int(self._stream)):
            return None
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        try:
            self._call("cudaStreamBeginCapture", self._stream, mode)
            try:
                self._launch()
            finally:  # also ends a capture that failed: the stream cannot be used before
                graph = self._call("cudaStreamEndCapture", self._stream)
            held.callback(self._cudart.cudaGraphDestroy, graph)
            return self._taken(held, "cudaGraphInstantiate", "cudaGraphExecDestroy", graph, 0)
        except SessionError:
            self._cudart.cudaGetLastError()  # forgets the error, which later calls would report
            return None


def checked(cudart: Any, answer: tuple[Any, ...]) -> Any:
    """The value that a call of cuda-bindings gave; its error becomes a SessionError."""
    error, *values = answer
    if error != cudart.cudaError_t.cudaSuccess:
        text = cudart.cudaGetErrorString(error)[1]
        raise SessionError(
            "CUDA: {reason} ({name})",
            code="cuda",
            reason=text.decode(errors="replace"),
            name=error.name,
        )
    return values[0] if values else None


def layer_of_line(line: str) -> Layer | None:
    """A layer as TensorRT-RTX prints it at the end of a build; None where it is another line.

    Its engines cannot be deserialized without a GPU, so that this is all that is to be had there.
    """
    match = re.search(r"Name: (.+?), LayerType: (\w+)", line)
    if not match:
        return None
    before, _, _ = line.partition(", Outputs: ")
    inputs, _, constants = before.partition(", Constants: ")
    kinds = [re.findall(r"Datatype: (\w+)", part)[:1] for part in (inputs, constants)]
    return Layer(match[1], match[2], tuple(kinds[0] + kinds[1]))


def layer_of_json(entry: dict[str, Any]) -> Layer:
    """A layer as the engine inspector reports it: TensorRT 10's keys or those of 11."""
    tensors = entry.get("Inputs", [])[:1] + entry.get("Constants", [])[:1]
    operands = [item.get("Datatype") or item.get("Format/Datatype", "") for item in tensors]
    if "Type" in entry.get("Weights", {}):
        operands.append(entry["Weights"]["Type"])
    return Layer(entry["Name"], entry["LayerType"], tuple(operands))


def _inspected(engine: bytes, provider: str) -> list[Layer]:
    trt: Any = bindings(provider)
    loaded = trt.Runtime(_journal(provider)).deserialize_cuda_engine(engine)
    if loaded is None:
        return []
    inspector = loaded.create_engine_inspector()
    information = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return [layer_of_json(entry) for entry in information["Layers"] if isinstance(entry, dict)]


def _journal(provider: str) -> Any:
    """Keeps of what TensorRT logs the errors and the layers of the engine."""
    trt: Any = bindings(provider)

    class Journal(trt.ILogger):  # type: ignore[misc]  # its base has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.layers: list[Layer] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(msg)
            elif "LayerType: " in msg:
                layers = map(layer_of_line, msg.splitlines())
                self.layers.extend(layer for layer in layers if layer is not None)

        def last_error(self) -> str:
            return brief(self.errors[-1], 300) if self.errors else "no reason was given"

    return Journal()


def _monitor(provider: str) -> Any:
    """Lets another thread stop a build: it ends at the builder's next step."""
    trt: Any = bindings(provider)

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # its base has no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped = False

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: Any) -> None:
            pass

        def step_complete(self, phase_name: str, step: Any) -> bool:
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()


def _parse_error(parser: trt.OnnxParser) -> str:
    if not parser.num_errors:
        return "no reason was given"
    error = parser.get_error(0)
    return brief(f"{error.desc()}, at {error.node_operator()} {error.node_name()}", 300)


def _tensors(
    engine: trt.ICudaEngine, provider: str
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    trt: Any = bindings(provider)
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
        shape = engine.get_tensor_shape(name)[:]
        kind = engine.get_tensor_dtype(name)
        if kind not in (trt.DataType.UINT8, trt.DataType.FLOAT) or min(shape, default=1) < 1:
            raise odd_tensor(name, kind, shape)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        side = inputs if is_input else outputs
        side.append(Tensor(name, shape, np.dtype(trt.nptype(kind))))
    return tuple(inputs), tuple(outputs)


def _cudart(provider: str) -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise SessionError(
            "{provider} needs cuda-bindings to run: pip install 'dermedge[{provider}]'",
            code="provider.missing",
            provider=provider,
        ) from None
    return runtime
