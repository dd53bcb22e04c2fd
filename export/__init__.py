"""The export room: from trained runs to the one file that devices open."""

from dermedge import UserError


class ExportError(UserError):
    """A network that cannot be exported, or a graph that differs from it; one line."""


METHODS = ("minmax", "percentile", "entropy")  # of choosing INT8's ranges
