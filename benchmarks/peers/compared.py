"""Sides that answer the same pictures: compared first, then timed in turns in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from dermedge.evaluation.paired_timing import paired_timing, ratio
from dermedge.runtime import SessionError
from dermedge.runtime.parity import MASK, PROBABILITIES, Limit

# Differences that still count as the same answer: of an FP32 network in another runtime, and of
# risk and area between pipelines, for PIL and OpenCV make a picture smaller differently.
SAME = {MASK: Limit(0.05, 1e-3), PROBABILITIES: Limit(1e-3, 1e-3)}
ALIKE = Limit(0.1, 0.1)
ROUNDS = (30, 100_000)

Answer = Callable[[Any], np.ndarray]  # a network's square or a pipeline's picture, to flat numbers


@dataclass(frozen=True)
class Side:
    """What is compared: `build` loads it; `limit` is one of its own, where it needs one."""

    package: str
    build: Callable[[], Answer]
    limit: Limit | None = None


def compared(
    what: str,
    sides: Mapping[str, Side],
    inputs: Sequence[Any],
    threads: int,
    seconds: float,
    progress: Callable[[str], None],
    limit: Limit,
) -> list[dict]:
    """A row a side; the first one is ours, and the others' answers must be within `limit`, each
    number as well as their mean.

    Raises SessionError where ours does not answer.
    """
    ready: dict[str, Answer] = {}
    rows: dict[str, dict] = {}
    expected = None
    for name, side in sides.items():
        progress(f"{what}: {name}")
        rows[name] = {"what": what, "side": name, "version": _version(side.package)}
        rows[name]["threads"] = threads
        try:
            answer = side.build()
            answers = np.stack([answer(one) for one in inputs])
        except ImportError as error:
            rows[name]["reason"] = f"not measured: {error.name or side.package} is not installed"
            continue
        except Exception as error:  # whatever a converter raises: the others are still measured
            first = " ".join(str(error).split())[:120]
            rows[name]["reason"] = f"not measured: {type(error).__name__}: {first}"
            continue
        expected = answers if expected is None else expected
        same_shape = answers.shape == expected.shape
        difference = np.abs(answers - expected) if same_shape else np.array(np.inf)
        mean, largest = float(difference.mean()), float(difference.max())
        rows[name]["difference"] = f"{mean:.2g}"
        allowed = side.limit or limit
        # Written so that NaN is refused.
        if not (mean <= allowed.mean and largest <= allowed.largest):
            rows[name]["reason"] = (
                f"not measured: its answers differ by {mean:.2g} on average, {largest:.2g} at most"
            )
            continue
        ready[name] = answer
    ours = next(iter(sides))
    if ours not in ready:
        raise SessionError(f"{what}: {rows[ours]['reason']}")
    progress(f"{what}: in turns")
    for name, figures in _timed(ready, ours, inputs, seconds).items():
        rows[name] |= figures
    return list(rows.values())


def _timed(
    ready: Mapping[str, Answer], ours: str, inputs: Sequence[Any], seconds: float
) -> dict[str, dict]:
    """All in turns: ms of each side, and its time over that of ours."""
    runs = {
        name: lambda turn, answer=answer: answer(inputs[turn % len(inputs)])
        for name, answer in ready.items()
    }
    paired_timing(runs, 0, (3, 3))
    times = paired_timing(runs, seconds, ROUNDS)
    figures = {}
    for name, own in times.items():
        # `ratio` says how much faster the second is: of a side, ours.
        speed = ratio(own, times[ours])
        figures[name] = {
            "turns": len(own),
            "ms": round(float(np.median(own)), 3),
            "p90_ms": round(float(np.percentile(own, 90)), 3),
            "times_of_ours": speed["ratio"],
            "times_of_ours_low": speed["low"],
            "times_of_ours_high": speed["high"],
        }
    return figures


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package
