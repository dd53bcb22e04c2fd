"""Several results of `dermedge bench` beside each other, and whether one may be submitted."""

from __future__ import annotations

import copy
import csv
import io
import itertools
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from benchmarks.speed import bench, scenarios
from benchmarks.speed.latency import STAGES
from dermedge import UserError

MEASURES = {"segmentation": ("jaccard",), "classification": ("malignant_auc", "macro_auc")}
COLUMNS = (
    *("file", "date", "cpu", "machine", "os", "power_mode", "usable_cores", "bundle", "sha256"),
    *("precisions", "roads", "onnxruntime", "picture", "threads", "runs", "p50_ms", "p90_ms"),
    *("p99_ms", "single_stream_p90_ms", "offline_per_second", "cold_start_s", "peak_bytes"),
    *("networks_bytes", "bundle_bytes", "joules_per_analysis", "jaccard", "malignant_auc"),
    *("macro_auc", "measured_on", "command", "not_to_be_quoted", "warnings"),
)
_PRIVATE = ("csv", "folders")  # readers of anybody's own pictures, whose ids are in the result
_SLACK = 1.02  # stages are timed one by one, and rounded


def load(path: str | Path) -> dict:
    """A result that fits `bench.schema.json`.

    Raises UserError where it does not, naming the first fault.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    try:
        text = Path(path).read_bytes()
        result = json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON; give a bench.json of `dermedge bench`") from None
    schema = json.loads(files("benchmarks.speed").joinpath("bench.schema.json").read_text())
    fault = best_match(Draft202012Validator(schema).iter_errors(result))
    if fault is not None:
        where = "/".join(map(str, fault.absolute_path)) or "the whole"
        raise UserError(f"{path} does not fit bench.schema.json at {where}: {fault.message[:120]}")
    return result


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**63:
        raise ValueError(text)
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def problems(result: dict) -> list[str]:
    """What keeps a result that `load` gave from standing among those of other devices."""
    told = copy.deepcopy(result)
    bench.judge(told)  # what a result says of itself may have been edited
    found = [f"not to be quoted: {doubt}" for doubt in told["not_to_be_quoted"]]
    if result["bundle"]["procedural"]:
        found.append("its bundle was trained on generated pictures")
    if result["evaluation"] and result["evaluation"]["data"]["name"] in _PRIVATE:
        found.append("it names pictures that are not published: give a public data set, or none")
    settings = result["settings"]
    cases = {(name, count) for name in settings["pictures"] for count in settings["threads"]}
    stages = {(*case, stage) for case in cases for stage in STAGES}
    if sorted(stages) != sorted(
        (r["picture"], r["threads"], r["stage"]) for r in result["latency"]
    ):
        found.append("there is not one row of each picture, thread count and stage")
    totals, parts = {}, dict.fromkeys(cases, 0.0)
    for row in result["latency"]:
        case = row["picture"], row["threads"]
        order = [row[f"{name}_ms"] for name in ("min", "p50", "p90", "p99", "max")]
        if order != sorted(order) or not order[0] <= row["mean_ms"] <= order[-1]:
            found.append(f"{row['stage']} of {case}: the percentiles are not in order")
        if row["runs"] != settings["runs"]:
            found.append(f"{row['stage']} of {case}: runs differ from the settings")
        if row["stage"] == "total":
            totals[case] = row
        else:
            parts[case] = parts.get(case, 0.0) + row["mean_ms"]
    for case, row in totals.items():
        if not row["min_ms"] > 0:
            found.append(f"{case}: no time at all")
        if parts.get(case, 0.0) > row["mean_ms"] * _SLACK:
            found.append(f"{case}: its stages take longer than the whole")
    for entry in result["distribution"]:
        quantiles, row = entry["quantiles_ms"], totals.get((entry["picture"], entry["threads"]))
        if quantiles != sorted(quantiles):
            found.append(f"{entry['picture']}: the quantiles are not in order")
        elif row and (quantiles[0], quantiles[-1]) != (row["min_ms"], row["max_ms"]):
            found.append(f"{entry['picture']}: the quantiles are not those of the times")
    passes = result["repeatability"]
    for case in passes["cases"] if passes else []:
        pair = sorted((case["p90_ms"], case["again_p90_ms"]))
        row = totals.get((case["picture"], case["threads"]))
        if not row or row["p90_ms"] != case["p90_ms"]:
            found.append(f"{case['picture']}: the first pass is not that of the times")
        elif abs(pair[1] - pair[0] * (1 + case["apart"])) > 1e-3 * pair[1]:
            found.append(f"{case['picture']}: what both passes are apart is miscounted")
    if passes and {(case["picture"], case["threads"]) for case in passes["cases"]} != cases:
        found.append("there is not a second pass of each picture and thread count")
    return found + _scenario_problems(result)


def _scenario_problems(result: dict) -> list[str]:
    found, asked = [], {}
    for row in result["scenarios"] or []:
        name = f"{row['scenario']} of {row['what']}, threads {row['threads']}"
        asked.setdefault((row["scenario"], row["what"]), []).append(row)
        kept = row["queries"] >= scenarios.QUERIES and row["seconds"] >= scenarios.SECONDS
        if not (kept and row["valid"]):
            found.append(f"{name}: {row['queries']} queries in {row['seconds']:.0f} s are too few")
        if row["scenario"] == "Offline":
            if not (row["samples_per_second"] or 0) > 0:
                found.append(f"{name}: no rate")
        elif not 0 < (row["p90_ms"] or 0) <= (row["early_stopping_p90_ms"] or 0):
            found.append(f"{name}: p90 is above what early stopping states, or missing")
    for scenario in ("SingleStream", "Offline"):
        for name in result["settings"]["pictures"]:
            if (scenario, name) not in asked:
                found.append(f"{scenario} of {name} is missing: give --mlperf")
    return found


def again(results: dict[str, dict]) -> list[dict]:
    """Pairs of results of the same bundle on the same kind of device: how well p90 repeats.

    Returns one dict a pair, picture and thread count: 'first', 'second', 'picture', 'threads',
    'p90_ms', 'again_p90_ms', 'apart' (larger over smaller, minus 1) and 'repeats'.
    """

    def same(result: dict) -> tuple:
        machine, settings = result["hardware"], result["settings"]
        return (
            *(machine[key] for key in ("cpu", "machine", "usable_cores", "power_mode")),
            *(result["bundle"]["sha256"], sorted(settings["roads"].items())),
            *([m["precision"] for m in result["bundle"]["models"]], sorted(settings["pictures"])),
            sorted(result["versions"].items()),
        )

    found = []
    for (first, one), (second, other) in itertools.combinations(results.items(), 2):
        if same(one) != same(other):
            continue
        p90 = {(r["picture"], r["threads"]): r["p90_ms"] for r in _totals(other)}
        for row in _totals(one):
            case = {key: row[key] for key in ("picture", "threads", "p90_ms")}
            if repeated := p90.get((row["picture"], row["threads"])):
                pair = row["p90_ms"], repeated
                apart = max(pair) / min(pair) - 1
                case |= {"first": first, "second": second, "again_p90_ms": repeated}
                found.append(case | {"apart": apart, "repeats": apart <= bench.REPEATABLE})
    return found


def unlike(results: dict[str, dict]) -> list[str]:
    """Why figures of the results must not be compared, in words."""
    found = []
    told = [result["settings"]["pictures"] for result in results.values()]
    for name in dict.fromkeys(name for pictures in told for name in pictures):
        if len({pictures[name] for pictures in told if name in pictures}) > 1:
            found.append(f"{name} is not the same picture in all results")
    measured = {
        json.dumps([data[key] for key in ("name", "part", "split_sha256", "limit", "evaluated")])
        for result in results.values()
        if result["evaluation"] and (data := result["evaluation"]["data"])
    }
    if len(measured) > 1:
        found.append("the accuracy was not measured on the same pictures in all results")
    return found


def _totals(result: dict) -> list[dict]:
    return [row for row in result["latency"] if row["stage"] == "total"]


def rows(results: dict[str, dict]) -> list[dict]:
    """One dict of `COLUMNS` a result, picture and thread count; None where it is not told.

    Parameters
    ----------
    results : name (of the file) to what `load` gave.
    """
    return [row for name, result in results.items() for row in _of_device(name, result)]


def _of_device(name: str, result: dict) -> list[dict]:
    machine, bundle = result["hardware"], result["bundle"]
    evaluation = result["evaluation"]
    common = {
        "file": name,
        "date": result["date"],
        **{key: machine[key] for key in ("cpu", "machine", "os", "power_mode", "usable_cores")},
        "bundle": bundle["name"],
        "sha256": bundle["sha256"][:16],
        "precisions": " ".join(f"{m['role']}:{m['precision']}" for m in bundle["models"]),
        "roads": " ".join(f"{k}:{v}" for k, v in result["settings"]["roads"].items()) or None,
        "onnxruntime": result["versions"].get("onnxruntime"),
        "bundle_bytes": bundle["bytes"],
        "networks_bytes": result["networks_bytes"],
        "joules_per_analysis": (result["energy"] or {}).get("joules_per_analysis"),
        **{name: figure and figure["value"] for name, figure in accuracy(evaluation).items()},
        "measured_on": evaluation
        and f"{evaluation['data']['name']} {evaluation['data']['part']}, "
        f"{evaluation['data']['evaluated']} pictures",
        "command": result["command"],
        "not_to_be_quoted": "; ".join(result["not_to_be_quoted"]) or None,
        "warnings": "; ".join(result["warnings"]) or None,
    }
    asked = {(r["scenario"], r["what"], r["threads"]): r for r in result["scenarios"] or []}
    cores = machine["usable_cores"]
    starts = {row["picture"]: row for row in result["cold_start"]}
    found = []
    for row in _totals(result):
        start = starts.get(row["picture"])
        seconds = sorted(start["seconds"])[len(start["seconds"]) // 2] if start else None
        own = {
            key: row[key] for key in ("picture", "threads", "runs", "p50_ms", "p90_ms", "p99_ms")
        }
        single = asked.get(("SingleStream", row["picture"], row["threads"]), {})
        offline = asked.get(("Offline", row["picture"], cores), {})
        own |= {
            "single_stream_p90_ms": single.get("early_stopping_p90_ms"),
            "offline_per_second": offline.get("samples_per_second"),
            "cold_start_s": seconds,
            "peak_bytes": start and start["peak_bytes"],
        }
        found.append({column: (common | own).get(column) for column in COLUMNS})
    return found


def accuracy(evaluation: dict | None) -> dict[str, dict | None]:
    """The networks' own figures of an evaluation, with their intervals, by name."""
    found: dict[str, dict | None] = {name: None for names in MEASURES.values() for name in names}
    for method in evaluation["methods"] if evaluation else []:
        for name in () if method["baseline"] else MEASURES[method["task"]]:
            if name in method["metrics"]:
                found[name] = method["metrics"][name]
    return found


def to_csv(found: Sequence[dict]) -> str:
    """What `rows` gave, as a table."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return buffer.getvalue()


def table(found: Sequence[dict], repeated: Sequence[dict], apart: Sequence[str]) -> str:
    """What `rows`, `again` and `unlike` gave, as plain text."""
    lines = []
    for picture in dict.fromkeys(row["picture"] for row in found):
        lines += [
            "",
            picture,
            f"  {'p50':>8}{'p90':>8}{'p99':>8} ms  threads  Jaccard  AUC    device",
        ]
        chosen = (row for row in found if row["picture"] == picture)
        for row in sorted(chosen, key=lambda row: row["p90_ms"]):
            shown = [
                f"{row[k]:.3f}" if row[k] is not None else "–    "
                for k in ("jaccard", "malignant_auc")
            ]
            lines.append(
                f"  {row['p50_ms']:>8.1f}{row['p90_ms']:>8.1f}{row['p99_ms']:>8.1f}     "
                f"{row['threads']:>7}  {shown[0]}    {shown[1]}  {row['cpu'] or row['machine']}, "
                f"{row['bundle']} ({row['file']})" + (" [!]" if row["not_to_be_quoted"] else "")
            )
    lines += [""] + [
        f"[!] {name}: not to be quoted: {doubt}"
        for name, doubt in dict.fromkeys((r["file"], r["not_to_be_quoted"]) for r in found)
        if doubt
    ]
    lines += [
        f"measured twice: {row['picture']}, threads {row['threads']}: p90 {row['p90_ms']:.1f} "
        f"({row['first']}) and {row['again_p90_ms']:.1f} ms ({row['second']}), "
        f"{100 * row['apart']:.1f} % apart"
        + ("" if row["repeats"] else f", above {100 * bench.REPEATABLE:.0f} %: not to be quoted")
        for row in repeated
    ]
    lines += [f"warning: {words}" for words in apart]
    return "\n".join(lines).strip("\n")


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (ms, accuracy) no other beats in both: the Pareto front, from fast to slow."""
    best, chosen = float("-inf"), []
    for k in sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1])):
        if points[k][1] > best:
            best = points[k][1]
            chosen.append(k)
    return chosen
