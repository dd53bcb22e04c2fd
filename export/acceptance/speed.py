"""How fast a graph is beside FP32, where it can run on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dermedge.evaluation import paired_timing
from dermedge.runtime import open_session
from export.validation.compare import Refusal
from export.validation.prepared import Feeds
from train.recipe import Acceptance

ROUNDS = 60  # of FP32 and the candidate, one after the other
WARMUP = 5


@dataclass(frozen=True)
class Speed:
    """How much faster a graph is than FP32, interleaved, on one thread of this machine."""

    fp32_ms: float
    ms: float
    ratio: float  # above 1: faster
    low: float
    high: float
    where: str  # the runtime


def time_graphs(reference: bytes, candidate: bytes, feeds: Sequence[Feeds]) -> Speed:
    """Time two graphs in turns, on one thread; medians, and a bootstrap interval over rounds."""
    sessions = {
        name: open_session(graph, threads=1)
        for name, graph in (("fp32", reference), ("candidate", candidate))
    }
    executions = {
        name: lambda number, session=session: session.run(feeds[number % len(feeds)])
        for name, session in sessions.items()
    }
    times = paired_timing.paired_timing(executions, 0, (ROUNDS + WARMUP, ROUNDS + WARMUP))
    reference_ms, own = times["fp32"][WARMUP:], times["candidate"][WARMUP:]
    compared = paired_timing.ratio(reference_ms, own)
    return Speed(
        fp32_ms=round(float(np.median(reference_ms)), 4),
        **compared,
        where=f"{sessions['candidate'].runtime}, 1 thread",
    )


def speed_refusals(speed: Speed | None, margins: Acceptance) -> list[Refusal]:
    """Why a graph's speed refuses it. None: it is for another machine, and not timed here."""
    if speed is None or speed.low > margins.speedup:
        return []
    words = (
        f"{speed.ratio:.2f} times as fast as FP32 ({speed.low:.2f} to {speed.high:.2f}), more than "
        f"{margins.speedup:g} is asked"
    )
    return [Refusal(words, "slow", margins.speedup - speed.low)]
