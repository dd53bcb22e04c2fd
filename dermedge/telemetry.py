"""Switches off what dependencies report to their makers, before any of them is imported.

`dermedge/__init__.py` calls `disable` first of all, and child processes inherit the variables.
`docs/privacy.md` lists every dependency with what it does; `tests/test_privacy.py` is the proof.
"""

from __future__ import annotations

import os
import sys

# Read once, when the library is loaded. Set whatever stood there: dermedge promises that nothing
# is reported, and an inherited "0" would break that promise in silence.
VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime from 1.29 on
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, which timm and accelerate bring
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray, at each start of a cluster
    "DO_NOT_TRACK": "1",  # the convention of donottrack.sh, for what comes later
}
# Modules that do nothing but report. Importing one fails as if it were not installed, which its
# callers provide for, whatever consent a file in the user's home holds.
MODULES = ("openvino_telemetry",)


def _loaded_before() -> frozenset[str]:
    loaded = set()
    silent = os.environ.get("ORT_DISABLE_TELEMETRY", "").lower() in ("1", "true", "yes", "on")
    if sys.modules.get("onnxruntime") is not None and not silent:
        loaded.add("onnxruntime")
    if sys.modules.get("openvino_telemetry") is not None:
        loaded.add("openvino")
    return frozenset(loaded)


# Runtimes that were loaded, with their reporting, before dermedge could prevent that.
_EARLY = _loaded_before()


def disable() -> None:
    """Set the switches."""
    os.environ.update(VARIABLES)
    for module in MODULES:
        if module not in sys.modules:
            # None makes the import system raise ModuleNotFoundError.
            sys.modules[module] = None  # type: ignore[assignment]


def reporting(runtime: str) -> bool:
    """Whether "onnxruntime" or "openvino" was imported before dermedge, reporting switched on."""
    return runtime in _EARLY
