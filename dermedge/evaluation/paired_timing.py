"""Which of several ways is faster: they take turns, so that a machine that slows down slows all."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

RESAMPLES = 1000
Name = TypeVar("Name", bound=Hashable)


def paired_timing(
    ways: Mapping[Name, Callable[[int], object]],
    seconds: float,
    rounds: tuple[int, int],
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] = lambda number: None,
    quiet: Callable[[], bool] = lambda: True,
) -> dict[Name, np.ndarray]:
    """Milliseconds of each round of each way, float (rounds,).

    Parameters
    ----------
    ways : called with the number of the round, from 0; each round begins with another of them.
    seconds : for all together.
    rounds : fewest and most rounds, whatever `seconds` says.
    progress : called with the number of the round that begins, from 1.
    quiet : asked after each way: where not, something disturbed it, and its whole round is dropped.
        Rounds that were dropped count to the most, but not to the fewest.
    """
    order = list(ways)
    times: dict[Name, list[float]] = {way: [] for way in ways}
    start, kept = clock(), 0
    for number in range(rounds[1]):
        if kept >= rounds[0] and clock() - start > seconds:
            break
        progress(number + 1)
        spent: dict[Name, float] = {}
        for step in range(len(order)):
            way = order[(step + number) % len(order)]
            before = clock()
            ways[way](number)
            spent[way] = (clock() - before) * 1000
            if not quiet():
                break
        else:
            kept += 1
            for way in order:
                times[way].append(spent[way])
    return {way: np.array(values) for way, values in times.items()}


def ratio(first: np.ndarray, own: np.ndarray) -> dict[str, float]:
    """How many times as fast as `first` the second is, of what `paired_timing` gave for both.

    Returns 'ms' (median of `own`), 'ratio' of the medians, and 'low' and 'high', its 95 % interval
    by bootstrap over rounds, which are drawn for both alike.
    """
    rows = np.random.default_rng(0).integers(len(own), size=(RESAMPLES, len(own)))
    ratios = np.median(first[rows], axis=1) / np.median(own[rows], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    values = {"ms": np.median(own), "ratio": np.median(first) / np.median(own)}
    return {k: round(float(v), 4) for k, v in {**values, "low": low, "high": high}.items()}
