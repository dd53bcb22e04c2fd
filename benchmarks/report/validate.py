"""Whether a result of `dermedge bench` may stand among those of other devices."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from benchmarks.schema import bench_result
from benchmarks.schema.bench_result import MLPERF_QUERIES, MLPERF_SECONDS
from benchmarks.schema.names import STAGES

_PRIVATE = ("csv", "folders")  # readers of anybody's own pictures, whose ids are in the result
_SLACK = 1.02  # stages are timed one by one, and rounded

Case = tuple[str, int]  # picture and thread count


def problems(result: dict) -> list[str]:
    """What keeps a result that `bench_result.load` gave from standing among other devices'."""
    settings = result["settings"]
    cases = {(name, count) for name in settings["pictures"] for count in settings["threads"]}
    totals: dict[Case, dict] = {
        (row["picture"], row["threads"]): row
        for row in result["latency"]
        if row["stage"] == STAGES[-1]
    }
    return [
        *_doubts(result),
        *_of_rows(result, cases),
        *_of_totals(result, totals),
        *_of_distributions(result, totals),
        *_of_passes(result, cases, totals),
        *_of_scenarios(result),
    ]


def _doubts(result: dict) -> Iterator[str]:
    assessed = copy.deepcopy(result)
    bench_result.assess(assessed)  # what a result says of itself may have been edited
    yield from (f"not comparable: {doubt}" for doubt in assessed["not_comparable"])
    if result["bundle"]["procedural"]:
        yield "its bundle was trained on generated pictures"
    if result["evaluation"] and result["evaluation"]["data"]["name"] in _PRIVATE:
        yield "it names pictures that are not published: give a public data set, or none"


def _of_rows(result: dict, cases: set[Case]) -> Iterator[str]:
    expected = sorted((*case, stage) for case in cases for stage in STAGES)
    if expected != sorted((r["picture"], r["threads"], r["stage"]) for r in result["latency"]):
        yield "there is not one row of each picture, thread count and stage"
    for row in result["latency"]:
        case = row["picture"], row["threads"]
        order = [row[f"{name}_ms"] for name in ("min", "p50", "p90", "p99", "max")]
        if order != sorted(order) or not order[0] <= row["mean_ms"] <= order[-1]:
            yield f"{row['stage']} of {case}: the percentiles are not in order"
        if row["runs"] != result["settings"]["runs"]:
            yield f"{row['stage']} of {case}: runs differ from the settings"


def _of_totals(result: dict, totals: dict[Case, dict]) -> Iterator[str]:
    parts = dict.fromkeys(totals, 0.0)
    for row in result["latency"]:
        case = row["picture"], row["threads"]
        if row["stage"] != STAGES[-1] and case in parts:
            parts[case] += row["mean_ms"]
    for case, row in totals.items():
        if not row["min_ms"] > 0:
            yield f"{case}: no time at all"
        if parts[case] > row["mean_ms"] * _SLACK:
            yield f"{case}: its stages take longer than the whole"


def _of_distributions(result: dict, totals: dict[Case, dict]) -> Iterator[str]:
    for entry in result["distribution"]:
        quantiles, row = entry["quantiles_ms"], totals.get((entry["picture"], entry["threads"]))
        if quantiles != sorted(quantiles):
            yield f"{entry['picture']}: the quantiles are not in order"
        elif row and (quantiles[0], quantiles[-1]) != (row["min_ms"], row["max_ms"]):
            yield f"{entry['picture']}: the quantiles are not those of the times"


def _of_passes(result: dict, cases: set[Case], totals: dict[Case, dict]) -> Iterator[str]:
    passes = result["repeatability"]
    if not passes:
        return
    for case in passes["cases"]:
        pair = sorted((case["p90_ms"], case["again_p90_ms"]))
        row = totals.get((case["picture"], case["threads"]))
        if not row or row["p90_ms"] != case["p90_ms"]:
            yield f"{case['picture']}: the first pass is not that of the times"
        elif abs(pair[1] - pair[0] * (1 + case["apart"])) > 1e-3 * pair[1]:
            yield f"{case['picture']}: what both passes are apart is miscounted"
    if {(case["picture"], case["threads"]) for case in passes["cases"]} != cases:
        yield "there is not a second pass of each picture and thread count"


def _of_scenarios(result: dict) -> Iterator[str]:
    measured: set[tuple[str, str]] = set()
    for row in result["scenarios"] or []:
        name = f"{row['scenario']} of {row['what']}, threads {row['threads']}"
        measured.add((row["scenario"], row["what"]))
        enough = row["queries"] >= MLPERF_QUERIES and row["seconds"] >= MLPERF_SECONDS
        if not (enough and row["valid"]):
            yield f"{name}: {row['queries']} queries in {row['seconds']:.0f} s are too few"
        if row["scenario"] == "Offline":
            if not (row["samples_per_second"] or 0) > 0:
                yield f"{name}: no rate"
        elif not 0 < (row["p90_ms"] or 0) <= (row["early_stopping_p90_ms"] or 0):
            yield f"{name}: p90 is above what early stopping states, or missing"
    for scenario in ("SingleStream", "Offline"):
        for name in result["settings"]["pictures"]:
            if (scenario, name) not in measured:
                yield f"{scenario} of {name} is missing: give --mlperf"
