"""Several results of `dermedge bench` beside each other, and whether one may be submitted."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from benchmarks.speed.latency import FEW
from dermedge import UserError

MEASURES = {"segmentation": ("jaccard",), "classification": ("malignant_auc", "macro_auc")}
COLUMNS = (
    *("file", "date", "cpu", "machine", "os", "power_mode", "usable_cores", "bundle", "sha256"),
    *("precisions", "roads", "onnxruntime", "picture", "threads", "runs", "p50_ms", "p90_ms"),
    *("p99_ms", "cold_start_s", "peak_bytes", "bundle_bytes", "joules_per_analysis"),
    *("jaccard", "malignant_auc", "macro_auc", "measured_on", "warnings"),
)
_SLACK = 1.02  # stages are timed one by one, and rounded


def load(path: str | Path) -> dict:
    """A result that fits `bench.schema.json`.

    Raises UserError where it does not, naming the first fault.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    try:
        result = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON; give a bench.json of `dermedge bench`") from None
    schema = json.loads(files("benchmarks.speed").joinpath("bench.schema.json").read_text())
    fault = best_match(Draft202012Validator(schema).iter_errors(result))
    if fault is not None:
        where = "/".join(map(str, fault.absolute_path)) or "the whole"
        raise UserError(f"{path} does not fit bench.schema.json at {where}: {fault.message[:120]}")
    return result


def problems(result: dict) -> list[str]:
    """What keeps a result that `load` gave from standing among those of other devices."""
    found = []
    if result["quick"]:
        found.append("it is a quick run: give --seconds, --runs or --mlperf")
    if result["interrupted"]:
        found.append(f"it was interrupted: {result['interrupted']} is missing")
    if result["settings"]["runs"] < FEW:
        found.append(f"{result['settings']['runs']} runs each, at least {FEW} are asked for")
    if result["bundle"]["procedural"]:
        found.append("its bundle was trained on generated pictures")
    grave = ("busy before", "not to be quoted")
    found += [w for w in result["warnings"] if any(word in w for word in grave)]
    whole: dict[tuple, float] = {}
    for row in result["latency"]:
        case = row["picture"], row["threads"]
        order = [row[f"{name}_ms"] for name in ("min", "p50", "p90", "p99", "max")]
        if order != sorted(order) or not order[0] <= row["mean_ms"] <= order[-1]:
            found.append(f"{row['stage']} of {case}: the percentiles are not in order")
        if row["runs"] != result["settings"]["runs"]:
            found.append(f"{row['stage']} of {case}: runs differ from the settings")
        share = row["mean_ms"] if row["stage"] != "total" else -row["mean_ms"] * _SLACK
        whole[case] = whole.get(case, 0) + share
    found += [
        f"{case}: its stages take longer than the whole" for case, v in whole.items() if v > 0
    ]
    for entry in result["distribution"]:
        if entry["quantiles_ms"] != sorted(entry["quantiles_ms"]):
            found.append(f"{entry['picture']}: the quantiles are not in order")
    return found


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
        "joules_per_analysis": (result["energy"] or {}).get("joules_per_analysis"),
        **accuracy(evaluation),
        "measured_on": evaluation
        and f"{evaluation['data']['name']} {evaluation['data']['part']}, "
        f"{evaluation['data']['evaluated']} pictures",
        "warnings": "; ".join(result["warnings"]) or None,
    }
    starts = {row["picture"]: row for row in result["cold_start"]}
    found = []
    for row in result["latency"]:
        if row["stage"] != "total":
            continue
        start = starts.get(row["picture"])
        seconds = sorted(start["seconds"])[len(start["seconds"]) // 2] if start else None
        own = {
            key: row[key] for key in ("picture", "threads", "runs", "p50_ms", "p90_ms", "p99_ms")
        }
        own |= {"cold_start_s": seconds, "peak_bytes": start and start["peak_bytes"]}
        found.append({column: (common | own).get(column) for column in COLUMNS})
    return found


def accuracy(evaluation: dict | None) -> dict[str, float | None]:
    """The networks' own figures of an evaluation, by name."""
    found: dict[str, float | None] = {name: None for names in MEASURES.values() for name in names}
    for method in evaluation["methods"] if evaluation else []:
        for name in () if method["baseline"] else MEASURES[method["task"]]:
            if name in method["metrics"]:
                found[name] = method["metrics"][name]["value"]
    return found


def to_csv(found: Sequence[dict]) -> str:
    """What `rows` gave, as a table."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return buffer.getvalue()


def table(found: Sequence[dict]) -> str:
    """What `rows` gave, as plain text."""
    lines = []
    for picture in dict.fromkeys(row["picture"] for row in found):
        lines += [
            "",
            picture,
            f"  {'p50':>8}{'p90':>8}{'p99':>8} ms  threads  Jaccard  AUC    device",
        ]
        chosen = (row for row in found if row["picture"] == picture)
        for row in sorted(chosen, key=lambda row: row["p90_ms"]):
            shown = [f"{row[k]:.3f}" if row[k] is not None else "–    " for k in COLUMNS[22:24]]
            lines.append(
                f"  {row['p50_ms']:>8.1f}{row['p90_ms']:>8.1f}{row['p99_ms']:>8.1f}     "
                f"{row['threads']:>7}  {shown[0]}    {shown[1]}  {row['cpu'] or row['machine']}, "
                f"{row['bundle']} ({row['file']})" + (" [!]" if row["warnings"] else "")
            )
    lines += [""] + [
        f"[!] {name}: {warning}"
        for name, warning in dict.fromkeys((r["file"], r["warnings"]) for r in found)
        if warning
    ]
    return "\n".join(lines).strip("\n")


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (ms, accuracy) no other beats in both: the Pareto front, from fast to slow."""
    best, chosen = float("-inf"), []
    for k in sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1])):
        if points[k][1] > best:
            best = points[k][1]
            chosen.append(k)
    return chosen
