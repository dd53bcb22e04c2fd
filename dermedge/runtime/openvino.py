"""OpenVINO behind the `Session` interface: often the fastest on Intel's and AMD's processors."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from dermedge import telemetry
from dermedge.runtime import SessionError, Tensor
from dermedge.text import brief


class OpenVinoSession:
    """A graph in OpenVINO, on the processor."""

    def __init__(self, model: bytes, threads: int):
        try:
            import openvino
        except ModuleNotFoundError:
            raise SessionError(
                "OpenVINO is not installed: pip install 'dermedge[openvino]'"
            ) from None
        except ImportError as error:  # a library of it is missing, or made for another system
            raise SessionError(
                "{provider} cannot be loaded: {reason}",
                code="provider.load",
                provider="OpenVINO",
                reason=brief(error),
            ) from None
        if telemetry.reporting("openvino"):
            raise SessionError(
                "openvino was imported before dermedge and may have reported to its maker: "
                "import dermedge first",
                code="telemetry",
            )
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            # By itself it would compute in half precision where the processor can.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            core = _core()
            self._model = core.compile_model(core.read_model(model, b""), "CPU", settings)
        except RuntimeError as error:
            raise SessionError(
                "OpenVINO does not load the model: {reason}", code="model.load", reason=brief(error)
            ) from None
        self._request = self._model.create_infer_request()
        self.inputs = tuple(map(_tensor, self._model.inputs))
        self.outputs = tuple(map(_tensor, self._model.outputs))
        self.runtime = f"openvino {openvino.__version__.split('-')[0]} CPU"

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            outputs = self._request.infer(feeds, share_inputs=True)
        except RuntimeError as error:
            raise SessionError(
                "OpenVINO failed: {reason}", code="session-failed", reason=brief(error)
            ) from None
        # Copies: the next call writes over its own memory.
        return {item.name: outputs[index].copy() for index, item in enumerate(self.outputs)}


@cache
def _core() -> Any:
    """The only one of the process, never let go.

    On processors with AMX it puts its own stack for signals in place of the thread's. Dropped by
    another thread, as the garbage collector may, it would free that stack and leave it in place:
    the next signal with a handler, such as Ctrl-C or a child's end, would kill without a word.
    """
    import openvino

    return openvino.Core()


def _tensor(port: Any) -> Tensor:
    return Tensor(port.any_name, tuple(port.shape), np.dtype(port.element_type.to_dtype()))
