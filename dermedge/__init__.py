"""The core, which runs on the device: numpy, OpenCV and, opened lazily, a runtime."""

__version__ = "0.1.0"
DISCLAIMER = (
    "Risk estimate for research, not a diagnosis. "
    "Show any lesion that changes, itches or bleeds to a doctor."
)


class UserError(Exception):
    """A fault that the user can mend; the message says how, in one line."""
