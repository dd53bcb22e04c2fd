"""Which runtimes may work here, and in which versions. Of them ONNX Runtime alone is loaded."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from importlib.util import find_spec

from dermedge.runtime import ENGINES, JAVA, OPENVINO, java, onnx, tensorrt

# Whatever brings a runtime's modules: which of these depends on the CUDA that it was made for.
_PACKAGES = {
    OPENVINO: ("openvino",),
    JAVA: ("pyjnius",),
    "tensorrt": ("tensorrt", "tensorrt-cu12-bindings", "tensorrt-cu13-bindings"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu13-bindings"),
}


def providers() -> list[str]:
    """The runtimes that may work here, of `dermedge.runtime.RUNTIMES`."""
    names = onnx.available()
    if find_spec("openvino"):
        names.append(OPENVINO)
    if java.library() is not None:
        names.append(JAVA)
    return names + [name for name in ENGINES if tensorrt.is_installed(name)]


def version(provider: str) -> str:
    """What tells one version of a runtime from another; "" where it does not say."""
    if provider not in _PACKAGES:
        return onnx.version() or ""
    found = []
    for package in _PACKAGES[provider]:
        try:
            found.append(f"{package} {package_version(package)}")
        except PackageNotFoundError:
            continue
    if provider == JAVA:
        found.append(java.library() or "")
    return ", ".join(found)
