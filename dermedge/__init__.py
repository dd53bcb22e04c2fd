"""The core, which runs on the device: numpy, OpenCV and, opened lazily, Pillow and a runtime."""

import os

# ONNX Runtime 1.29 and later report models and runs to its maker unless told not to beforehand.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
DISCLAIMER = (
    "Risk estimate for research, not a diagnosis. "
    "Show any lesion that changes, itches or bleeds to a doctor."
)


class UserError(Exception):
    """A fault that the user can mend; the message says how, in one line.

    `message` is English with `{name}`s, `values` fill them in, and `code` names the kind of fault
    for programs: whoever shows the line in another language translates `message`, not `str()`.
    """

    def __init__(self, message: str, *, code: str = "", **values: object):
        super().__init__(message.format(**values) if values else message)
        self.message, self.code, self.values = message, code, values
