"""Do two ways of running a network give the same outputs? Each output is compared on its own.

A figure over all numbers of a network would be one over the pixels of its mask: there are tens of
thousands of them beside seven probabilities, and classes in another order would not be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MASK, PROBABILITIES = "mask", "probabilities"
_LEAST = 1e-2  # of a largest value that differences are shares of: an output may be all zeros


@dataclass(frozen=True)
class Limit:
    """How far an output may lie from what is expected, in its own unit."""

    largest: float  # of any single value
    mean: float  # of all values of all pictures


@dataclass(frozen=True)
class Limits:
    """For each output of a network."""

    mask: Limit  # probability; INT8 may move an edge by a pixel
    probabilities: Limit
    others: Limit  # as shares of the largest expected value: maps, embedding, distance

    def of(self, output: str) -> Limit:
        """That of the output of this name."""
        return {MASK: self.mask, PROBABILITIES: self.probabilities}.get(output, self.others)


_FP32 = Limits(Limit(1e-2, 1e-4), Limit(1e-3, 1e-4), Limit(1e-3, 1e-4))
_FP16 = Limits(Limit(0.5, 5e-3), Limit(0.03, 5e-3), Limit(0.1, 0.02))
# Of the graph itself, by precision: another runtime or processor. INT8 rounds differently on each.
SAME_GRAPH = {
    "fp32": _FP32,
    "fp16": _FP16,
    "int8": Limits(Limit(0.5, 0.02), Limit(0.1, 0.02), Limit(0.2, 0.05)),
}
# Of a graph in this precision from the FP32 network.
FROM_FP32 = {
    "fp32": _FP32,
    "fp16": _FP16,
    "int8": Limits(Limit(1.0, 0.03), Limit(0.25, 0.03), Limit(0.3, 0.1)),
}


@dataclass(frozen=True)
class Difference:
    """How far one output is from what was expected."""

    output: str
    largest: float  # NaN where the output holds no finite numbers
    mean: float
    limit: Limit

    @property
    def within(self) -> bool:
        """Whether it is allowed; NaN never is."""
        # Written so that NaN is not.
        return self.largest <= self.limit.largest and self.mean <= self.limit.mean

    @property
    def share(self) -> float:
        """Of what is allowed; 1 is just within."""
        return max(self.largest / self.limit.largest, self.mean / self.limit.mean)

    def __str__(self) -> str:
        if not self.largest < float("inf"):
            return f"{self.output} holds no finite numbers"
        return (
            f"{self.output} is off by {self.mean:.2g} on average and {self.largest:.2g} at most, "
            f"{self.limit.mean:g} and {self.limit.largest:g} are allowed"
        )


def differences(
    expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray], limits: Limits
) -> list[Difference]:
    """One a named output.

    Parameters
    ----------
    expected, actual : output's name to its values, float (pictures, ...).

    Raises
    ------
    ValueError
        In one line, where an output is missing, is one too many, or has another shape.
    """
    if set(expected) != set(actual):
        missing = ", ".join(sorted(set(expected) - set(actual))) or "none"
        extra = ", ".join(sorted(set(actual) - set(expected))) or "none"
        raise ValueError(f"other outputs: missing {missing}, unexpected {extra}")
    compared = []
    for output, values in expected.items():
        if actual[output].shape != values.shape:
            raise ValueError(f"{output} has shape {actual[output].shape}, not {values.shape}")
        limit = limits.of(output)
        apart = np.abs(actual[output].astype(np.float64) - values)
        if output not in (MASK, PROBABILITIES):
            apart /= max(float(np.abs(values).max(initial=0)), _LEAST)
        largest = float(apart.max(initial=0))  # NaN where any value is
        compared.append(Difference(output, largest, float(apart.mean()), limit))
    return compared


def mismatch(
    expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray], limits: Limits
) -> str:
    """Why `actual` is not to be trusted, in one line; "" where each output is within its limits."""
    try:
        outside = [d for d in differences(expected, actual, limits) if not d.within]
    except ValueError as error:
        return str(error)
    return "; ".join(map(str, outside))


def finite(outputs: Mapping[str, np.ndarray]) -> bool:
    """Whether every number of every output is finite."""
    return all(bool(np.isfinite(values).all()) for values in outputs.values())


def stacked(outputs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `Session.run` gave for each picture, by output, (pictures, ...)."""
    return {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]}
