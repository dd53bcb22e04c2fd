"""What runs on a device: numpy, OpenCV, Pillow and, opened lazily, an inference runtime.

The public API, which follows semantic versioning, is what `__all__` names: open a bundle, analyse a
picture, read the analysis. Everything else is private and may change with any version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dermedge import telemetry

telemetry.disable()  # before anything else is imported

__version__ = "0.3.0"
DISCLAIMER = (
    "Risk estimate for research, not a diagnosis. "
    "Show any lesion that changes, itches or bleeds to a doctor."
)


class UserError(Exception):
    """A fault that the user can mend; the message says how, in one line.

    `message` is English with `{name}`s, `values` fill them in, and `code` names the kind of fault
    for programs: whoever shows the line in another language translates `message`, not `str()`.
    """

    exit_status = 2  # of a command that it ends; see `dermedge.cli`

    def __init__(self, message: str, *, code: str = "", **values: object):
        super().__init__(message.format(**values) if values else message)
        self.message, self.code, self.values = message, code, values

    def __reduce__(self) -> tuple[Any, ...]:
        # Copied, or from another process: whatever `__init__` takes, it is not called again.
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(kind: type[UserError], args: tuple[Any, ...], state: dict[str, Any]) -> UserError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


if TYPE_CHECKING:
    from dermedge.analysis import Analysis
    from dermedge.analyzer import Analyzer
    from dermedge.bundle.bundle import Bundle, open_bundle

__all__ = ["Analysis", "Analyzer", "Bundle", "UserError", "open_bundle"]
_HOMES = {
    "Analysis": "dermedge.analysis",
    "Analyzer": "dermedge.analyzer",
    "Bundle": "dermedge.bundle.bundle",
    "open_bundle": "dermedge.bundle.bundle",
}


def __getattr__(name: str) -> Any:
    # Loaded when first asked for: `import dermedge` alone must stay quick.
    if name not in _HOMES:
        raise AttributeError(f"module 'dermedge' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    # What `help` and a shell's completion list, which know nothing of `__getattr__`.
    return sorted({*globals(), *__all__})
