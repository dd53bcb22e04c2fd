"""MLPerf Inference's SingleStream and Offline scenarios (Reddi et al., ISCA 2020; its rules 5.1).

Where `mlcommons-loadgen` is installed it asks the questions and takes the times; elsewhere the
same rules are kept here: queries in random order, a least number and a least time of them, and
early stopping, which states a percentile so high that it holds with 99 % confidence.
"""

from __future__ import annotations

import random
import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.stats import binom

from benchmarks.schema.bench_result import MLPERF_QUERIES as QUERIES
from benchmarks.schema.bench_result import MLPERF_SECONDS as SECONDS
from dermedge import UserError

PERCENTILE, CONFIDENCE = 0.9, 0.99
FEWEST = 64  # queries that early stopping needs for the 90th percentile

Run = Callable[[int], object]  # answers the query about one of the samples


def generator() -> str:
    """Who asks: 'mlcommons-loadgen VERSION', or 'dermedge'."""
    try:
        import mlperf_loadgen  # noqa: F401
    except ImportError:
        return "dermedge"
    return f"mlcommons-loadgen {version('mlcommons-loadgen')}"


def single_stream(
    run: Run, samples: int, seconds: float = SECONDS, queries: int = QUERIES, own: bool = False
) -> dict:
    """One query after the other.

    Parameters
    ----------
    run : called with the number of a sample, 0 to `samples` - 1.
    seconds, queries : at least so long and so many. Below the rules' the result is not valid.
    own : do not use loadgen, also where it is installed.

    Returns
    -------
    'queries', 'seconds' (of the whole), 'p90_ms', 'early_stopping_p90_ms' (None: too few queries)
    and 'valid' by the rules.
    """
    if generator() != "dermedge" and not own:
        rate = 2 * _answer([run], [k % samples for k in range(16)])  # loadgen needs to know
        found = _loadgen("SingleStream", [run], samples, seconds, queries, rate)
        stopped = found.get("Early stopping 90.0th percentile estimate")
        figures = {
            "p90_ms": found["90.0th percentile latency (ns)"] / 1e6,
            "early_stopping_p90_ms": None if stopped is None else stopped / 1e6,
        }
    else:
        times: list[float] = []
        order, start = random.Random(0), time.perf_counter()
        while len(times) < queries or time.perf_counter() - start < seconds:
            before = time.perf_counter()
            run(order.randrange(samples))
            times.append((time.perf_counter() - before) * 1000)
        found = {"queries": len(times), "seconds": time.perf_counter() - start}
        figures = {
            "p90_ms": float(np.percentile(times, 100 * PERCENTILE)),
            "early_stopping_p90_ms": early_stopping(times),
        }
    kept = found["queries"] >= QUERIES and found["seconds"] >= SECONDS
    figures |= {"queries": found["queries"], "seconds": found["seconds"]}
    return _rounded(figures) | {"valid": kept and figures["early_stopping_p90_ms"] is not None}


def offline(
    runs: Sequence[Run], samples: int, seconds: float = SECONDS, queries: int = QUERIES, own=False
) -> dict:
    """All samples in one query, answered by as many threads as there are `runs`.

    Returns 'queries' (samples in the query), 'seconds', 'samples_per_second' and 'valid'.
    """
    rate = _answer(runs, [k % samples for k in range(16 * len(runs))])  # how many will be needed
    rate = max(
        rate, _answer(runs, [k % samples for k in range(max(16, int(rate * min(2, seconds))))])
    )
    if generator() != "dermedge" and not own:
        found = _loadgen("Offline", runs, samples, seconds, queries, rate * 1.15)
        speed = found["Samples per second"]
    else:
        count = max(queries, int(rate * 1.15 * seconds))
        order = random.Random(0)
        speed = _answer(runs, [order.randrange(samples) for _ in range(count)])
        found = {"queries": count, "seconds": count / speed}
    kept = found["queries"] >= QUERIES and found["seconds"] >= SECONDS
    figures = {"queries": found["queries"], "seconds": found["seconds"]}
    return _rounded(figures | {"samples_per_second": speed}) | {"valid": kept}


def early_stopping(times: Sequence[float]) -> float | None:
    """The latency that the 90th percentile does not exceed, with 99 % confidence.

    It is the smallest order statistic that enough queries lie below: were the true percentile
    above it, so many would lie below in less than 1 % of runs. None: fewer than 64 queries.
    """
    if len(times) < FEWEST:
        return None
    below = int(binom.ppf(CONFIDENCE, len(times), PERCENTILE)) + 1
    return float(np.sort(times)[min(below, len(times) - 1)])


def percentiles(times: Sequence[float]) -> dict[str, float | None]:
    """Of milliseconds: 'p50_ms', 'p90_ms' and 'early_stopping_p90_ms'."""
    p50, p90 = np.percentile(times, (50, 100 * PERCENTILE))
    figures = {"p50_ms": p50, "p90_ms": p90, "early_stopping_p90_ms": early_stopping(times)}
    return _rounded(figures)


def _answer(
    runs: Sequence[Run], samples: Sequence[int], faults: list[BaseException] | None = None
) -> float:
    """Samples a second, all threads together. They stop at the first of `faults`, also a foreign
    one that is put into the list; one of their own is raised."""
    todo, lock = iter(samples), threading.Lock()
    faults = [] if faults is None else faults

    def work(run: Run) -> None:
        while not faults:
            with lock:
                sample = next(todo, None)
            if sample is None:
                return
            try:
                run(sample)
            except Exception as error:
                faults.append(error)

    start = time.perf_counter()
    _together([partial(work, run) for run in runs], faults)
    if faults:
        raise faults[0]
    return len(samples) / (time.perf_counter() - start)


def _together(works: Sequence[Callable[[], object]], faults: list[BaseException]) -> None:
    """Call each on a thread of its own and wait for all; a key that interrupts the waiting goes
    into `faults`, by which the threads notice it."""
    with ThreadPoolExecutor(len(works)) as pool:
        running = [pool.submit(work) for work in works]
        try:
            wait(running)
        except KeyboardInterrupt as key:
            faults.append(key)
    for work in running:
        work.result()


def _loadgen(
    scenario: str, runs: Sequence[Run], samples: int, seconds: float, queries: int, rate: float
) -> dict[str, float]:
    """The figures of loadgen's summary by name, and how many queries there were in how long."""
    import mlperf_loadgen as lg

    counts = {"queries": 0, "seconds": 0.0}
    first = None
    faults: list[BaseException] = []

    def answer(asked) -> None:
        nonlocal first
        first = first or time.perf_counter()
        counts["queries"] += len(asked)
        done = [lg.QuerySampleResponse(sample.id, 0, 0) for sample in asked]
        try:
            if faults:
                pass  # answered at once: loadgen soon has no more queries
            elif len(asked) == 1:
                runs[0](asked[0].index)
            else:
                _answer(runs, [sample.index for sample in asked], faults)
        except BaseException as error:  # nothing may be thrown through loadgen
            faults.append(error)
        lg.QuerySamplesComplete(done)
        counts["seconds"] = time.perf_counter() - first

    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_query_count = queries
    settings.min_duration_ms = int(seconds * 1000)
    settings.single_stream_expected_latency_ns = int(1e9 / rate)
    settings.offline_expected_qps = max(rate, queries / max(seconds, 1e-3))
    with tempfile.TemporaryDirectory() as folder:
        output = lg.LogOutputSettings()
        output.outdir, output.copy_summary_to_stdout = folder, False
        logs = lg.LogSettings()
        logs.log_output, logs.enable_trace = output, False
        system = lg.ConstructSUT(answer, lambda: None)
        library = lg.ConstructQSL(samples, samples, lambda _: None, lambda _: None)
        try:
            # Not on the main thread: a key that is pressed there would throw through loadgen.
            ask = partial(lg.StartTestWithLogSettings, system, library, settings, logs, "")
            _together([ask], faults)
        finally:
            lg.DestroyQSL(library)
            lg.DestroySUT(system)
        summary = Path(folder, "mlperf_log_summary.txt").read_text()
    if faults:
        raise faults[0]
    lines = re.findall(r"^[ *]*(.+?)\s*: ([0-9.]+)$", summary, re.MULTILINE)
    if not lines:
        raise UserError("mlcommons-loadgen wrote no summary; uninstall it to measure without it")
    return {name: float(value) for name, value in lines} | counts


def _rounded(figures: dict) -> dict:
    return {k: v if v is None or k == "queries" else round(float(v), 4) for k, v in figures.items()}
