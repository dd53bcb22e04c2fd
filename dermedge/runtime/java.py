"""ONNX Runtime's Java library behind the `Session` interface, by pyjnius.

Android has no onnxruntime package for Python, but this library. Its classes and native code are the
same on a desktop, where a JVM runs them: Android's session is what the tests there see.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np

from dermedge.runtime import SessionError, Tensor, host, odd_tensor
from dermedge.text import brief

_CLASS = "ai/onnxruntime/OrtEnvironment.class"
# What computes FP32 as FP32 and keeps waiting threads from spinning; as the Python session does.
_ENTRIES = {
    "session.intra_op.allow_spinning": "0",
    "mlas.enable_gemm_fastmath_arm64_bfloat16": "0",
}
_KINDS: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "FLOAT": np.dtype(np.float32)}


def library() -> str | None:
    """The library's file name, None where it or pyjnius is missing; starts no JVM.

    An Android app carries the library itself: "" there. On a desktop, the environment variable
    CLASSPATH names its jar.
    """
    if find_spec("jnius") is None:
        return None
    if host() == "android":
        return ""
    paths = os.environ.get("CLASSPATH", "").split(os.pathsep)
    return next((os.path.basename(path) for path in paths if _holds_runtime(path)), None)


def _holds_runtime(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as jar:
            return _CLASS in jar.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def version() -> str:
    """The version of the library. Raises SessionError as `JavaSession` does."""
    return str(_java().environment.getVersion())


class JavaSession:
    """A graph in ONNX Runtime's Java library, on the processor.

    Several threads may run it, one after the other. On Android the first session of the process
    must be made in the main thread: others do not see the app's classes.
    """

    def __init__(self, model: bytes, threads: int):
        """Load an ONNX graph.

        Raises
        ------
        SessionError
            Where pyjnius, a JVM or the library is missing, or the library refuses the graph.
        """
        java = self._java = _java()
        try:
            options = java.SessionOptions()
            try:
                if threads:
                    options.setIntraOpNumThreads(threads)
                options.setInterOpNumThreads(1)
                for key, value in _ENTRIES.items():
                    options.addConfigEntry(key, value)
                self._session = java.environment.createSession(model, options)
            finally:
                options.close()
            self.inputs = _tensors(java, self._session.getInputInfo())
            self.outputs = _tensors(java, self._session.getOutputInfo())
        except java.JavaException as error:
            raise SessionError(
                "ONNX Runtime's Java library does not load the model: {reason}",
                code="model.load",
                reason=_line(error),
            ) from None
        self.runtime = f"onnxruntime {version()} (Java) CPUExecutionProvider"

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        java = self._java
        tensors, made = java.HashMap(), []
        try:
            for item in self.inputs:
                tensor = self._tensor(item, feeds[item.name])
                made.append(tensor)
                tensors.put(item.name, tensor)
            result = self._session.run(tensors)
            try:
                return {
                    item.name: _array(java, result.get(index), item)
                    for index, item in enumerate(self.outputs)
                }
            finally:
                result.close()
        except java.JavaException as error:
            raise SessionError(
                "ONNX Runtime's Java library failed: {reason}",
                code="session-failed",
                reason=_line(error),
            ) from None
        finally:
            for tensor in made:
                tensor.close()

    def _tensor(self, item: Tensor, values: np.ndarray) -> Any:
        if values.shape != item.shape or values.dtype != item.dtype:
            # The library itself takes any bytes of the right number.
            raise SessionError(
                "ONNX Runtime's Java library failed: {name} must be {kind} of shape {shape}, "
                "got {given} of shape {other}",
                code="session-failed",
                name=item.name,
                kind=str(item.dtype),
                shape=str(item.shape),
                given=str(values.dtype),
                other=str(values.shape),
            )
        java = self._java
        # `bytes` crosses as one block; a bytearray, or bytes(array), goes number by number.
        buffer = java.ByteBuffer.wrap(values.tobytes())
        if item.dtype == np.float32:
            floats = buffer.order(java.ByteOrder.nativeOrder()).asFloatBuffer()
            return java.OnnxTensor.createTensor(java.environment, floats, list(item.shape))
        kind = java.OnnxJavaType.UINT8
        return java.OnnxTensor.createTensor(java.environment, buffer, list(item.shape), kind)


_NAMES = (
    "OrtEnvironment",
    "OrtSession",
    "OrtSession$SessionOptions",
    "OrtSession$Result",
    "OnnxTensor",
    "OnnxJavaType",
    "NodeInfo",
    "TensorInfo",
)


@cache
def _java() -> SimpleNamespace:
    """The classes, all of them loaded in the thread that asks first."""
    if host() == "android":
        return _classes()
    # The jar's native code is unpacked there, and the library leaves it behind.
    with tempfile.TemporaryDirectory(prefix="dermedge-", ignore_cleanup_errors=True) as folder:
        return _classes(
            # Else the JVM's handlers of signals would stand in place of Python's.
            "-Xrs",
            "-XX:-UsePerfData",  # a file that others may read
            f"-Djava.io.tmpdir={folder}",
        )


def _classes(*options: str) -> SimpleNamespace:
    """`options`: of the JVM, where it does not run yet."""
    try:
        if options:
            import jnius_config

            if not jnius_config.vm_running:
                jnius_config.add_options(*options)
        from jnius import JavaException, autoclass, cast
    except ModuleNotFoundError:
        raise SessionError(
            "pyjnius is not installed: pip install 'dermedge[java]'", code="java.missing"
        ) from None
    # What pyjnius raises where it finds no JVM shares no base class.
    except Exception as error:
        raise SessionError(
            "no Java machine can be started: install OpenJDK ({reason})",
            code="java.machine",
            reason=_line(error),
        ) from None
    try:
        onnx = {name.rpartition("$")[2]: autoclass(f"ai.onnxruntime.{name}") for name in _NAMES}
        environment = onnx["OrtEnvironment"].getEnvironment()
        environment.setTelemetry(False)
    except JavaException as error:
        raise SessionError(
            "ONNX Runtime's Java library cannot be loaded: name the jar of "
            "com.microsoft.onnxruntime:onnxruntime in CLASSPATH ({reason})",
            code="java.library",
            reason=_line(error),
        ) from None
    return SimpleNamespace(
        **onnx,
        HashMap=autoclass("java.util.HashMap"),
        ByteBuffer=autoclass("java.nio.ByteBuffer"),
        ByteOrder=autoclass("java.nio.ByteOrder"),
        JavaException=JavaException,
        cast=cast,
        environment=environment,
    )


def _tensors(java: SimpleNamespace, information: Any) -> tuple[Tensor, ...]:
    tensors, entries = [], information.entrySet().iterator()
    while entries.hasNext():
        entry = entries.next()
        info = java.cast("ai.onnxruntime.TensorInfo", entry.getValue().getInfo())
        kind, shape = info.type.toString(), tuple(info.getShape())
        if kind not in _KINDS or min(shape, default=1) < 1:
            raise odd_tensor(entry.getKey(), kind, shape)
        tensors.append(Tensor(entry.getKey(), shape, _KINDS[kind]))
    return tuple(tensors)


def _array(java: SimpleNamespace, value: Any, item: Tensor) -> np.ndarray:
    block = java.cast("ai.onnxruntime.OnnxTensor", value).getByteBuffer().array().tostring()
    return np.frombuffer(block, item.dtype).reshape(item.shape)


def _line(error: object) -> str:
    return brief(getattr(error, "innermessage", None) or error)
