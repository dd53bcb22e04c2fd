"""The export room: from trained runs to the one file that devices open.

`export.pipeline` is the list of stages. Each is a folder, and knows only those before it:

    runs          run folders, their networks, splits and data sets
    validation    one pass of a network over the validation part
    calibration   what it learnt from: out-of-distribution score, temperature
    thresholds    where numbers become decisions, chosen on the tuning half
    graph         the network as ONNX, compared with PyTorch
    quantization  candidates in FP16 and INT8, chosen on the tuning half
    acceptance    the accepting half decides which of them enter
    bundle        manifest and parts
"""

from dermedge import UserError


class ExportError(UserError):
    """A network that cannot be exported, or a graph that differs from it; one line."""


METHODS = ("minmax", "percentile", "entropy")  # of choosing INT8's ranges
