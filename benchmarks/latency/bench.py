"""A benchmark is a list of parts. After each the result is saved, so that an interrupted one is a
valid result that says what is missing, and can be resumed."""

from __future__ import annotations

import csv
import io
import json
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version

import cv2
import numpy as np

from benchmarks.latency import cold_start, hardware, power, scenarios, timing
from benchmarks.latency.hardware import OtherPrograms
from benchmarks.latency.plan import Plan
from benchmarks.schema import bench_result
from benchmarks.schema.bench_result import (
    AGAIN,
    COLD,
    ENERGY,
    LOADED,
    REPEATABLE,
    ROUNDS,
    WARMUP,
    disturbed,
    part_of,
    typed,
)
from benchmarks.schema.names import BENCH, STAGES
from dermedge import DISCLAIMER, UserError, __version__
from dermedge.analysis import Analysis
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.evaluation.provenance import commit, usable_cores
from dermedge.image.preprocess import prepare
from dermedge.image.read import Picture

COLD_STARTS = 3
ENERGY_SECONDS = 10.0
SAMPLES = 8  # squares that a network alone is run on

Part = Callable[[dict], None]  # puts what it measured into the result


def begin(
    plan: Plan,
    evaluation: dict | None = None,
    robustness: dict | None = None,
    peers: list[dict] | None = None,
) -> dict:
    """A result, as `bench.schema.json` describes it, in which everything is still missing.

    Parameters
    ----------
    evaluation, robustness, peers : what the commands of these names found before.
    """
    return {
        "schema": BENCH,
        "disclaimer": DISCLAIMER,
        "date": _now(),
        "command": plan.command,
        "quick": plan.quick,
        "missing": list(_parts(plan)),
        "not_comparable": [],
        "warnings": [],
        "bundle": _about(plan.bundle),
        "hardware": hardware.hardware(),
        "sessions": [],
        "versions": _versions(),
        "settings": _settings(plan),
        "latency": [],
        "distribution": [],
        "course": [],
        "others_percent": None,
        "repeatability": None,
        "scenarios": [] if plan.mlperf else None,
        "cold_start": [],
        "networks_bytes": None,
        "energy": None,
        "comparison": None,
        "executions": None,
        "evaluation": evaluation,
        "worst": [],
        "robustness": robustness,
        "peers": peers,
    }


def _about(bundle: Bundle) -> dict:
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "sha256": bundle.sha256,
        "bytes": bundle.path.stat().st_size,
        "licence": manifest.licence,
        "procedural": manifest.procedural,
        "models": [
            {
                "role": role,
                "architecture": model.architecture,
                "precision": model.precision,
                "parameters": model.parameters,
                "input_px": model.preprocessing.size,
                "bytes": len(bundle.model(role)),
                "sha256": manifest.parts[model.part]["sha256"],
            }
            for role, model in manifest.models.items()
        ],
    }


def _versions() -> dict[str, str]:
    import onnxruntime

    return {
        "dermedge": __version__,
        "commit": commit("+"),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        **_installed("openvino", "tensorrt", "mlcommons-loadgen"),
    }


def _settings(plan: Plan) -> dict:
    return {
        "threads": list(plan.threads),
        "warmup": WARMUP,
        "seconds": None if plan.runs else plan.length,
        "runs": plan.runs or 0,
        "rest_seconds": plan.rest,
        # Not their threads: those of each row hold, whatever was chosen.
        "executions": {
            role: f"{config.precision} {config.provider}"
            for role, config in (plan.executions or {}).items()
        },
        "pictures": {name: _digest(source) for name, source in plan.sources.items()},
        "clock": "time.perf_counter",
        "order": "thread counts and pictures take turns in every round",
    }


def fits(plan: Plan, result: dict) -> None:
    """Raise UserError, which says why, where `result` is not a part of what `plan` measures."""
    now = begin(plan)
    reasons = {
        "another command": ("command", typed),
        "another bundle, or another precision of it": ("bundle", None),
        "other versions": ("versions", None),
        "another machine": ("hardware", lambda m: [m["machine"], m["cpu"], m["usable_cores"]]),
        "another power mode or CPU governor": (
            "hardware",
            lambda machine: [machine["power_mode"], machine["governor"]],
        ),
        "other pictures": ("settings", lambda settings: settings["pictures"]),
        "other runtimes, by `dermedge tune`": ("settings", lambda settings: settings["executions"]),
    }
    for reason, (key, part) in reasons.items():
        part = part or (lambda whole: whole)
        if part(result[key]) != part(now[key]):
            raise UserError(
                f"--resume: it was measured with {reason}; start again without --resume"
            )


def run(plan: Plan, result: dict, save: Callable[[dict], None]) -> dict:
    """Measure what `result`, of `begin` or of a run that was interrupted, is missing.

    Parameters
    ----------
    save : called after each part, with a result that is valid then.

    Returns
    -------
    The result. Ctrl-C ends it: 'missing' then names what was not measured.

    Raises
    ------
    KeyboardInterrupt : where it came before anything was measured.
    """
    if not result["missing"]:
        bench_result.assess(result)
        save(result)
        return result
    try:
        if plan.rest:
            plan.progress("resting", 0)
            time.sleep(plan.rest)
        result["sessions"].append({"date": _now(), "busy_percent": hardware.busy()})
        for name, work in _parts(plan).items():
            if name in result["missing"]:
                plan.progress(name, 0)
                work(result)
                result["missing"].remove(name)
                bench_result.assess(result)
                save(result)
    except KeyboardInterrupt:
        if not result["latency"]:
            raise
        bench_result.assess(result)
        save(result)
    return result


def _installed(*packages: str) -> dict[str, str]:
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _digest(source: bytes | Picture) -> str:
    content = source if isinstance(source, bytes) else source.pixels.tobytes()
    return sha256(content).hexdigest()[:16]


def redo(plan: Plan, result: dict) -> None:
    """Put what was disturbed back among what is missing."""
    names = set(disturbed(result))
    if ROUNDS in names:
        names.add(AGAIN)  # which is compared with them
    missing = names.union(result["missing"])
    result["missing"] = [name for name in _parts(plan) if name in missing]


# ------------------------------------------------------------------------------ the parts


def _parts(plan: Plan) -> dict[str, Part]:
    """Name to what measures it, in their order."""
    tuned = bool(plan.executions)
    parts: dict[str, Part] = {
        ROUNDS: partial(_rounds, plan),
        COLD: lambda r: r.update(
            cold_start=cold_start.cold_start(plan.bundle, plan.sources, COLD_STARTS, tuned)
        ),
        LOADED: lambda r: r.update(networks_bytes=cold_start.networks_bytes(plan.bundle, tuned)),
    }
    if not plan.quick:  # after the cold starts, which give the device something else to do
        parts[AGAIN] = partial(_second_pass, plan)
    parts[ENERGY] = partial(_energy, plan)
    if plan.mlperf:
        workloads = [*plan.sources, *(f"{role} alone" for role in plan.bundle.manifest.models)]
        for count in plan.threads:
            for what in workloads:
                row = {"scenario": "SingleStream", "threads": count, "what": what}
                parts[part_of(row)] = partial(_single_stream, plan, count, what)
        for what in workloads:
            parts[part_of({"scenario": "Offline", "what": what})] = partial(_offline, plan, what)
    return parts | {name: partial(work, plan) for name, work in plan.later.items()}


def _measure(plan: Plan, what: str) -> timing.Timed:
    return timing.measure(
        plan.bundle,
        plan.sources,
        plan.threads,
        plan.length,
        plan.runs,
        lambda done: plan.progress(what, done),
        plan.executions,
    )


def _rounds(plan: Plan, result: dict) -> None:
    timed = _measure(plan, ROUNDS)
    result["settings"]["runs"] = len(timed.at)
    result |= {
        "latency": timing.summarize(timed),
        "distribution": timing.distributions(timed),
        "course": timing.course(timed),
        "others_percent": timed.others.percent(),
    }
    if timed.interrupted:
        raise KeyboardInterrupt


def _second_pass(plan: Plan, result: dict) -> None:
    """The rounds again, with networks that are loaded again."""
    timed = _measure(plan, AGAIN)
    if timed.interrupted:
        raise KeyboardInterrupt
    first = {
        (row["picture"], row["threads"]): row["p90_ms"]
        for row in result["latency"]
        if row["stage"] == "total"
    }
    cases = []
    for row in timing.summarize(timed):
        if row["stage"] == "total":
            case = row["picture"], row["threads"]
            pair = first[case], row["p90_ms"]
            cases.append(
                {
                    "picture": case[0],
                    "threads": case[1],
                    "p90_ms": pair[0],
                    "again_p90_ms": pair[1],
                    "apart": round(max(pair) / min(pair) - 1, 4),
                }
            )
    result["repeatability"] = {
        "limit": REPEATABLE,
        "runs": len(timed.at),
        "others_percent": timed.others.percent(),
        "cases": cases,
    }


def _workload(plan: Plan, what: str, threads: int) -> tuple[scenarios.Run, int]:
    """What runs one sample of a scenario, and the number of different samples."""
    if what in plan.sources:
        analyzer = Analyzer(plan.bundle, threads=threads, executions=plan.executions)
        return lambda _: analyzer.analyze(plan.sources[what]), 1
    role = what.removesuffix(" alone")
    network = Analyzer(plan.bundle, threads=threads, executions=plan.executions).networks()[role]
    spec = network.model.preprocessing
    squares = [prepare(draw(k, size=(360, 480)).image, spec)[0] for k in range(SAMPLES)]
    return lambda k: network.run(squares[k]), SAMPLES


def _single_stream(plan: Plan, threads: int, what: str, result: dict) -> None:
    run, samples = _workload(plan, what, threads)
    whole = what in plan.sources  # else a network alone
    timings: list[dict[str, float]] = []

    def recorded(sample: int) -> None:
        analysis = run(sample)
        assert isinstance(analysis, Analysis)
        timings.append(analysis.timing_ms)

    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        others = OtherPrograms()
        figures = scenarios.single_stream(recorded if whole else run, samples)
        others.sample()
    finally:
        cv2.setNumThreads(before)
    counted = timings[-figures["queries"] :]  # before them, one run was timed for loadgen
    stages = [
        {"stage": stage, **scenarios.percentiles([t[stage] for t in counted])}
        for stage in (STAGES[:-1] if counted else ())
    ]
    row = {"what": what, "scenario": "SingleStream", "threads": threads} | figures
    row |= {"samples_per_second": None, "stages": stages, "others_percent": others.percent()}
    _put(result, plan, row | {"generator": scenarios.generator()})


def _offline(plan: Plan, what: str, result: dict) -> None:
    cores = usable_cores()
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        # One analyzer a core: none is thread-safe.
        runs, samples = zip(*(_workload(plan, what, 1) for _ in range(cores)), strict=True)
        others = OtherPrograms()
        figures = scenarios.offline(runs, samples[0])
        others.sample()
    finally:
        cv2.setNumThreads(before)
    row = {"what": what, "scenario": "Offline", "threads": cores, "p90_ms": None}
    row |= {"early_stopping_p90_ms": None, "stages": [], "others_percent": others.percent()}
    _put(result, plan, row | figures | {"generator": scenarios.generator()})


def _put(result: dict, plan: Plan, row: dict) -> None:
    """Replace the row of the same part, else insert it in the order of the parts."""
    order, rows = list(_parts(plan)), {part_of(old): old for old in result["scenarios"]}
    rows[part_of(row)] = row
    result["scenarios"] = sorted(rows.values(), key=lambda old: order.index(part_of(old)))


def _energy(plan: Plan, result: dict) -> None:
    """Of one analysis of the first picture, with all threads; None where nothing tells it."""
    meter = power.find()
    if meter:
        analyzer = Analyzer(plan.bundle, threads=max(plan.threads), executions=plan.executions)
        source = next(iter(plan.sources.values()))
        result["energy"] = power.energy(meter, lambda: analyzer.analyze(source), ENERGY_SECONDS)


def to_csv(result: dict) -> str:
    """The latency table of a result, one line a picture, thread count and stage."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(result["latency"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["latency"])
    return buffer.getvalue()


def to_json(result: dict) -> str:
    return json.dumps(result, indent=1, allow_nan=False) + "\n"
