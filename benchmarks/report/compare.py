"""Several results of `dermedge bench` beside each other."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence

from benchmarks.schema import phone
from benchmarks.schema.bench_result import REPEATABLE
from benchmarks.schema.names import HEADLINES

PHONES = "Phones, reported by a person"
COLUMNS = (
    *("file", "date", "cpu", "machine", "os", "power_mode", "usable_cores", "bundle", "sha256"),
    *("precisions", "executions", "onnxruntime", "picture", "threads", "runs", "p50_ms", "p90_ms"),
    *("p99_ms", "single_stream_p90_ms", "offline_per_second", "cold_start_s", "peak_bytes"),
    *("networks_bytes", "bundle_bytes", "joules_per_analysis", "jaccard", "malignant_auc"),
    *("macro_auc", "measured_on", "command", "not_comparable", "warnings"),
)


def repeated(results: dict[str, dict]) -> list[dict]:
    """Pairs of results of the same bundle on the same kind of device: how well p90 repeats.

    Returns one dict a pair, picture and thread count: 'first', 'second', 'picture', 'threads',
    'p90_ms', 'again_p90_ms', 'apart' (larger over smaller, minus 1) and 'repeats'.
    """

    def same(result: dict) -> tuple:
        machine, settings = result["hardware"], result["settings"]
        return (
            *(machine[key] for key in ("cpu", "machine", "usable_cores", "power_mode")),
            *(result["bundle"]["sha256"], sorted(settings["executions"].items())),
            [m["precision"] for m in result["bundle"]["models"]],
            sorted(settings["pictures"].items()),  # a name may stand for two photographs
            sorted(result["versions"].items()),
        )

    pairs = []
    for (first, one), (second, other) in itertools.combinations(results.items(), 2):
        # A copy of a file, or one that was resumed, measured nothing again.
        if same(one) != same(other) or one["latency"] == other["latency"]:
            continue
        p90 = {(r["picture"], r["threads"]): r["p90_ms"] for r in _totals(other)}
        for row in _totals(one):
            case = {key: row[key] for key in ("picture", "threads", "p90_ms")}
            if other_p90 := p90.get((row["picture"], row["threads"])):
                pair = row["p90_ms"], other_p90
                apart = max(pair) / min(pair) - 1
                case |= {"first": first, "second": second, "again_p90_ms": other_p90}
                pairs.append(case | {"apart": apart, "repeats": apart <= REPEATABLE})
    return pairs


def incomparable(results: dict[str, dict]) -> list[str]:
    """Why figures of the results must not be compared, in words."""
    reasons = []
    bundles = [result["bundle"] for result in results.values()]
    for name in dict.fromkeys(bundle["name"] for bundle in bundles):
        if len({bundle["sha256"] for bundle in bundles if bundle["name"] == name}) > 1:
            reasons.append(f"{name} is not the same bundle in all results")
    pictures = [result["settings"]["pictures"] for result in results.values()]
    for name in dict.fromkeys(name for own in pictures for name in own):
        if len({own[name] for own in pictures if name in own}) > 1:
            reasons.append(f"{name} is not the same picture in all results")
    same = ("name", "part", "subset", "limit", "evaluated")
    evaluations = [one for result in results.values() if (one := result["evaluation"])]
    parts = {json.dumps([one["data"][key] for key in same]) for one in evaluations}
    # Results of 0.2.0 and before state no split where all pictures were measured.
    splits = {one["data"]["split_sha256"] for one in evaluations} - {None}
    if max(len(parts), len(splits)) > 1:
        reasons.append("the accuracy was not measured on the same pictures in all results")
    if len({_way(one) for one in evaluations}) > 1:
        reasons.append(
            "the accuracy was not measured in the same way in all results (--tta, --no-metadata)"
        )
    return reasons


def _way(evaluation: dict) -> tuple[int, bool]:
    """Mirrored views, and whether metadata was withheld from a classifier that takes it."""
    metadata = evaluation.get("metadata", {"accepted": [], "used": []})
    return evaluation.get("views", 1), metadata["accepted"] != metadata["used"]


def _totals(result: dict) -> list[dict]:
    return [row for row in result["latency"] if row["stage"] == "total"]


def rows(results: dict[str, dict]) -> list[dict]:
    """One dict of `COLUMNS` a result, picture and thread count; None where it is not known.

    Parameters
    ----------
    results : name (of the file) to what `bench_result.load` gave.
    """
    return [row for name, result in results.items() for row in _of_device(name, result)]


def _of_device(name: str, result: dict) -> list[dict]:
    machine, bundle = result["hardware"], result["bundle"]
    evaluation, executions = result["evaluation"], result["settings"]["executions"]
    common = {
        "file": name,
        "date": result["date"],
        **{key: machine[key] for key in ("cpu", "machine", "os", "power_mode", "usable_cores")},
        "bundle": bundle["name"],
        "sha256": bundle["sha256"][:16],
        "precisions": " ".join(f"{m['role']}:{m['precision']}" for m in bundle["models"]),
        "executions": " ".join(f"{role}:{run}" for role, run in executions.items()) or None,
        "onnxruntime": result["versions"].get("onnxruntime"),
        "bundle_bytes": bundle["bytes"],
        "networks_bytes": result["networks_bytes"],
        "joules_per_analysis": (result["energy"] or {}).get("joules_per_analysis"),
        **{name: figure and figure["value"] for name, figure in accuracy(evaluation).items()},
        "measured_on": evaluation
        and ", ".join(
            filter(
                None,
                (
                    f"{evaluation['data']['name']} {evaluation['data']['part']}",
                    evaluation["data"]["subset"],
                    f"{evaluation['data']['evaluated']} pictures",
                ),
            )
        ),
        "command": result["command"],
        "not_comparable": "; ".join(result["not_comparable"]) or None,
        "warnings": "; ".join(result["warnings"]) or None,
    }
    scenarios = {(r["scenario"], r["what"], r["threads"]): r for r in result["scenarios"] or []}
    cores = machine["usable_cores"]
    starts = {row["picture"]: row for row in result["cold_start"]}
    rows = []
    for row in _totals(result):
        start = starts.get(row["picture"])
        seconds = sorted(start["seconds"])[len(start["seconds"]) // 2] if start else None
        own = {
            key: row[key] for key in ("picture", "threads", "runs", "p50_ms", "p90_ms", "p99_ms")
        }
        single = scenarios.get(("SingleStream", row["picture"], row["threads"]), {})
        offline = scenarios.get(("Offline", row["picture"], cores), {})
        own |= {
            "single_stream_p90_ms": single.get("early_stopping_p90_ms"),
            "offline_per_second": offline.get("samples_per_second"),
            "cold_start_s": seconds,
            "peak_bytes": start and start["peak_bytes"],
        }
        rows.append({column: (common | own).get(column) for column in COLUMNS})
    return rows


def accuracy(evaluation: dict | None) -> dict[str, dict | None]:
    """The networks' own figures of an evaluation, with their intervals, by name.

    None: there is none, as no AUC of benign lesions alone.
    """
    figures: dict[str, dict | None] = {name: None for names in HEADLINES.values() for name in names}
    for method in evaluation["methods"] if evaluation else []:
        for name in () if method["baseline"] else HEADLINES[method["task"]]:
            figure = method["metrics"].get(name)
            if figure and figure["value"] is not None:
                figures[name] = figure
    return figures


def to_csv(rows: Sequence[dict]) -> str:
    """What `rows` gave, as a table."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def table(rows: Sequence[dict], repeats: Sequence[dict], reasons: Sequence[str]) -> str:
    """What `rows`, `repeated` and `incomparable` gave, as plain text."""
    lines = []
    for picture in dict.fromkeys(row["picture"] for row in rows):
        lines += [
            "",
            picture,
            f"  {'p50':>8}{'p90':>8}{'p99':>8} ms  threads  Jaccard  AUC    device",
        ]
        members = (row for row in rows if row["picture"] == picture)
        for row in sorted(members, key=lambda row: row["p90_ms"]):
            shown = [
                f"{row[k]:.3f}" if row[k] is not None else "–    "
                for k in ("jaccard", "malignant_auc")
            ]
            lines.append(
                f"  {row['p50_ms']:>8.1f}{row['p90_ms']:>8.1f}{row['p99_ms']:>8.1f}     "
                f"{row['threads']:>7}  {shown[0]}    {shown[1]}  {row['cpu'] or row['machine']}, "
                f"{row['bundle']} ({row['file']})" + (" [!]" if row["not_comparable"] else "")
            )
    lines += [""] + [
        f"[!] {name}: not comparable: {doubt}"
        for name, doubt in dict.fromkeys((r["file"], r["not_comparable"]) for r in rows)
        if doubt
    ]
    lines += [
        f"measured twice: {row['picture']}, threads {row['threads']}: p90 {row['p90_ms']:.1f} "
        f"({row['first']}) and {row['again_p90_ms']:.1f} ms ({row['second']}), "
        f"{100 * row['apart']:.1f} % apart"
        + ("" if row["repeats"] else f", above {100 * REPEATABLE:.0f} %: not comparable")
        for row in repeats
    ]
    lines += [f"warning: {words}" for words in reasons]
    return "\n".join(lines).strip("\n")


def phones_to_csv(phones: Mapping[str, Mapping[str, object]]) -> str:
    """Forms about phones, one line each; marked as reported by a person."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["file", "reported_by", "date", *phone.FIELDS])
    for name, answers in phones.items():
        fields = [answers[field] for field in ("date", *phone.FIELDS)]
        writer.writerow([name, "a person", *fields])
    return buffer.getvalue()


def phone_table(phones: Mapping[str, Mapping[str, object]]) -> str:
    """The same as plain text."""
    lines = ["", PHONES]
    for name, answers in phones.items():
        skipped = sum(value == phone.NOT_TRIED for value in answers.values())
        lines += ["", f"  {name}, {skipped} of {len(phone.FIELDS)} not tried"]
        lines += [
            f"    {field:<30}{value}"
            for field, value in answers.items()
            if value != phone.NOT_TRIED
        ]
    return "\n".join(lines)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (ms, accuracy) no other beats in both: the Pareto front, from fast to slow."""
    best, places = float("-inf"), []
    for k in sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1])):
        if points[k][1] > best:
            best = points[k][1]
            places.append(k)
    return places
