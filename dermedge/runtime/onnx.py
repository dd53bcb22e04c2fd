"""ONNX Runtime behind the `Session` interface, with the execution providers that it brings."""

from __future__ import annotations

import numpy as np

from dermedge.runtime import PROVIDERS, SessionError, Tensor

# What a provider is told beside its defaults.
_OPTIONS = {
    "ort-tensorrt": {"trt_fp16_enable": "1"},
    "coreml": {"ModelFormat": "MLProgram"},
}


def available() -> list[str]:
    """The short names of the execution providers that this ONNX Runtime was built with."""
    import onnxruntime

    found = onnxruntime.get_available_providers()
    return [name for name, full in PROVIDERS.items() if full in found]


class OnnxRuntimeSession:
    """A graph in ONNX Runtime."""

    def __init__(self, model: bytes, threads: int, provider: str):
        import onnxruntime

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
        told = dict(_OPTIONS.get(provider, {}))
        if provider == "xnnpack" and threads:
            told["intra_op_num_threads"] = str(threads)  # it has a pool of its own
        providers = [(full, told)] if provider == "cpu" else [(full, told), PROVIDERS["cpu"]]
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=providers)
        # ONNX Runtime's exceptions share no base class of their own.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise SessionError(
                "ONNX Runtime does not load the model: {reason}", code="model.load", reason=reason
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
        return dict(zip(names, self._session.run(names, feeds), strict=True))


def _tensor(item) -> Tensor:
    kinds = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
    if item.type not in kinds or not all(isinstance(side, int) for side in item.shape):
        raise SessionError(
            "tensor {name} has type {kind} and shape {shape}; a bundle's graphs have static "
            "shapes of uint8 or float32",
            code="tensor",
            name=item.name,
            kind=item.type,
            shape=str(item.shape),
        )
    return Tensor(item.name, tuple(item.shape), np.dtype(kinds[item.type]))
