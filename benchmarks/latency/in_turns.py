"""Analyzers that take turns on the first picture of a plan: what is faster, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import cv2
import numpy as np

from benchmarks.latency.hardware import OtherPrograms
from benchmarks.latency.plan import Plan
from benchmarks.schema.bench_result import WARMUP, in_turns_with
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.evaluation.paired_timing import paired_timing, ratio
from dermedge.runtime import ExecutionConfig


def name_of(other: Bundle) -> str:
    """What a bundle that is timed against is called: its precisions and slices share one name."""
    precisions = sorted({model.precision for model in other.manifest.models.values()})
    return f"{other.manifest.name} in {'+'.join(precisions)}"


def against(
    other: Bundle, executions: Mapping[str, ExecutionConfig] | None, plan: Plan, result: dict
) -> None:
    """Two bundles in turns on the first picture: how many times as fast the plan's own is.

    executions : how the other one's networks are run, as `Analyzer` takes them.
    """
    threads = plan.threads[0]
    sides = {
        "own": Analyzer(plan.bundle, threads=threads, executions=plan.executions),
        "other": Analyzer(other, threads=threads, executions=executions),
    }
    name = name_of(other)
    times, others = in_turns(sides, plan, in_turns_with(name), threads)
    figures = ratio(times["other"], times["own"])
    result["comparison"] = {
        "other": {"name": name, "sha256": other.sha256},
        "threads": threads,
        "turns": len(times["own"]),
        "p50_ms": figures["ms"],
        "other_p50_ms": round(float(np.median(times["other"])), 4),
        **{key: figures[key] for key in ("ratio", "low", "high")},
        "others_percent": others,
    }


def in_turns(
    analyzers: Mapping[str, Analyzer], plan: Plan, what: str, threads: int
) -> tuple[dict[str, np.ndarray], float | None]:
    """Milliseconds of the first picture by each analyzer, float (turns,), of at least 30 turns; and
    what other programs took of the cores meanwhile, in %. `threads` are OpenCV's."""
    source = next(iter(plan.sources.values()))

    def analyses(analyzer: Analyzer) -> Callable[[int], object]:
        return lambda _turn: analyzer.analyze(source)

    runs = {name: analyses(analyzer) for name, analyzer in analyzers.items()}
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        paired_timing(runs, 0, (WARMUP, WARMUP))
        progress = partial(plan.progress, what)
        fewest, others = max(30, plan.runs or 0), OtherPrograms()
        times = paired_timing(
            runs, 0 if plan.runs else plan.length, (fewest, 100_000), progress=progress
        )
        others.sample()
        return times, others.percent()
    finally:
        cv2.setNumThreads(before)
