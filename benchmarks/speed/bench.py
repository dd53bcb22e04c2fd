"""A benchmark is a row of parts. After each the result is written down, so that one that was
interrupted is a valid result that says what is missing, and can go on where it was."""

from __future__ import annotations

import csv
import io
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version

import cv2
import numpy as np

from benchmarks import PROCEDURAL
from benchmarks.speed import latency, power, scenarios
from benchmarks.speed.latency import STAGES, WARMUP, Timed, Watch, usable_cores
from dermedge import DISCLAIMER, UserError, __version__
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.evaluation.paired_timing import paired_timing, ratio
from dermedge.image.preprocess import prepare
from dermedge.image.read import Picture
from dermedge.runtime import ExecutionConfig

SCHEMA = "dermedge bench 3"
QUICK_SECONDS, MLPERF_SECONDS = 10.0, 60.0
COLD_STARTS = 3
ENERGY_SECONDS = 10.0
BUSY_PERCENT = 20.0  # of the cores before it begins
OTHERS_PERCENT = 10.0  # of the cores while it measures
REPEATABLE = 0.05  # p90 of two passes may differ by so much and still be quoted
FEW = 100  # rounds; with fewer p99 is the slowest run, and two passes are too short to compare
SAMPLES = 8  # squares that a network alone is asked about
ROUNDS, AGAIN, COLD, LOADED, ENERGY, ROADS = (
    "rounds",
    "second pass of rounds",
    "cold start",
    "memory of the networks",
    "energy",
    "every precision and runtime",
)

Part = Callable[[dict], None]  # puts what it measured into the result
Later = Callable[["Plan", dict], None]


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    `seconds` or `runs` are of each pass of rounds; both None: a quick run, of one pass. `rest`: s
    to wait first. `roads` as `Analyzer` takes them. `later`: further parts, by name.
    """

    bundle: Bundle
    sources: Mapping[str, bytes | Picture]
    threads: Sequence[int]
    command: str
    seconds: float | None = None
    runs: int | None = None
    mlperf: bool = False
    rest: float = 0.0
    roads: Mapping[str, ExecutionConfig] | None = None
    later: Mapping[str, Later] = field(default_factory=dict)
    progress: Callable[[str, int], None] = lambda what, done: None

    @property
    def quick(self) -> bool:
        return self.seconds is None and self.runs is None and not self.mlperf

    @property
    def length(self) -> float:
        return self.seconds or (MLPERF_SECONDS if self.mlperf else QUICK_SECONDS)


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
    import onnxruntime

    manifest = plan.bundle.manifest
    return {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "date": _now(),
        "command": plan.command,
        "quick": plan.quick,
        "missing": list(_parts(plan)),
        "not_to_be_quoted": [],
        "warnings": [],
        "bundle": {
            "name": manifest.name,
            "sha256": plan.bundle.sha256,
            "bytes": plan.bundle.path.stat().st_size,
            "licence": manifest.licence,
            "procedural": manifest.procedural,
            "models": [
                {
                    "role": role,
                    "architecture": model.architecture,
                    "precision": model.precision,
                    "parameters": model.parameters,
                    "input_px": model.preprocessing.size,
                    "bytes": len(plan.bundle.model(role)),
                    "sha256": manifest.parts[model.part]["sha256"],
                }
                for role, model in manifest.models.items()
            ],
        },
        "hardware": latency.hardware(),
        "sittings": [],
        "versions": {
            "dermedge": __version__,
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
            **_installed("openvino", "tensorrt", "mlcommons-loadgen"),
        },
        "settings": {
            "threads": list(plan.threads),
            "warmup": WARMUP,
            "seconds": None if plan.runs else plan.length,
            "runs": plan.runs or 0,
            "rest_seconds": plan.rest,
            "roads": {role: str(road) for role, road in (plan.roads or {}).items()},
            "pictures": {name: _digest(source) for name, source in plan.sources.items()},
            "clock": "time.perf_counter",
            "order": "thread counts and pictures take turns in every round",
        },
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
        "roads": None,
        "evaluation": evaluation,
        "worst": [],
        "robustness": robustness,
        "peers": peers,
    }


def fits(plan: Plan, result: dict) -> None:
    """Raise UserError, which says why, where `result` is not a part of what `plan` measures."""
    now = begin(plan)
    reasons = {
        "another command": ("command", lambda text: [w for w in text.split() if w != "--resume"]),
        "another bundle, or another precision of it": ("bundle", None),
        "other versions": ("versions", None),
        "another machine": ("hardware", lambda told: [told["cpu"], told["usable_cores"]]),
        "other pictures": ("settings", lambda told: told["pictures"]),
        "other runtimes, by `dermedge tune`": ("settings", lambda told: told["roads"]),
    }
    for reason, (key, part) in reasons.items():
        part = part or (lambda told: told)
        if part(result[key]) != part(now[key]):
            raise UserError(f"--resume: it was measured with {reason}; begin anew without --resume")


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
        judge(result)
        save(result)
        return result
    try:
        if plan.rest:
            plan.progress("resting", 0)
            time.sleep(plan.rest)
        result["sittings"].append({"date": _now(), "busy_percent": latency.busy()})
        for name, work in _parts(plan).items():
            if name in result["missing"]:
                plan.progress(name, 0)
                work(result)
                result["missing"].remove(name)
                judge(result)
                save(result)
    except KeyboardInterrupt:
        if not result["latency"]:
            raise
        judge(result)
        save(result)
    return result


def _installed(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _digest(source: bytes | Picture) -> str:
    content = source if isinstance(source, bytes) else source.pixels.tobytes()
    return sha256(content).hexdigest()[:16]


def judge(result: dict) -> None:
    """Say what of the figures keeps them from being quoted."""
    doubts, warnings = [], []
    if result["quick"]:
        doubts.append("a quick run: give --seconds, --runs or --mlperf")
    if result["missing"]:
        doubts.append(f"interrupted: not measured is {'; '.join(result['missing'])}")
    before = [sitting["busy_percent"] or 0 for sitting in result["sittings"]]
    if busy := sum(percent > BUSY_PERCENT for percent in before):
        warnings.append(
            f"the machine was busy before {busy} of {len(before)} sittings (up to "
            f"{max(before):.0f} % of its cores)"
        )
    if loud := disturbed(result):
        doubts.append(
            f"other programs took up to {max(loud.values()):.0f} % of the cores meanwhile "
            f"({'; '.join(loud)}): --resume measures it again"
        )
    rounds = result["settings"]["runs"]
    if rounds < FEW:
        warnings.append(f"{rounds} rounds: p99 is close to the slowest run")
        if not result["quick"]:
            doubts.append(f"{rounds} rounds, at least {FEW} are needed")
    passes = result["repeatability"]
    if passes and (far := [c for c in passes["cases"] if c["apart"] > REPEATABLE]):
        case = max(far, key=lambda c: c["apart"])
        doubts.append(
            f"p90 does not repeat: {case['picture']}, threads {case['threads']}, "
            f"{case['p90_ms']:.1f} and {case['again_p90_ms']:.1f} ms in two passes, "
            f"{100 * case['apart']:.0f} % apart; {len(far)} of {len(passes['cases'])} are above "
            f"{100 * REPEATABLE:.0f} %"
        )
    governor = result["hardware"]["governor"]
    if governor not in (None, "performance"):
        warnings.append(f"the CPU governor is '{governor}': the clock frequency may vary")
    result |= {"not_to_be_quoted": doubts, "warnings": warnings}


def disturbed(result: dict) -> dict[str, float]:
    """The parts during which other programs took too much, and how much, in % of the cores."""
    told = {ROUNDS: result["others_percent"]}
    if passes := result["repeatability"]:
        told[AGAIN] = passes["others_percent"]
    told |= {_part_of(row): row["others_percent"] for row in result["scenarios"] or []}
    if comparison := result["comparison"]:
        told[f"in turns with {comparison['other']['name']}"] = comparison["others_percent"]
    if result["roads"]:
        told[ROADS] = result["roads"][0]["others_percent"]
    return {name: percent for name, percent in told.items() if (percent or 0) > OTHERS_PERCENT}


def _part_of(row: dict) -> str:
    """Name of the part that gave this row of the scenarios."""
    threads = f", threads {row['threads']}" if row["scenario"] == "SingleStream" else ""
    return f"{row['scenario']}{threads}, {row['what']}"


def redo(plan: Plan, result: dict) -> None:
    """What was disturbed is missing again."""
    names = set(disturbed(result))
    if ROUNDS in names:
        names.add(AGAIN)  # which is held against them
    missing = names.union(result["missing"])
    result["missing"] = [name for name in _parts(plan) if name in missing]


# ------------------------------------------------------------------------------ the parts


def _parts(plan: Plan) -> dict[str, Part]:
    """Name to what measures it, in their order."""
    parts: dict[str, Part] = {
        ROUNDS: partial(_rounds, plan),
        COLD: lambda r: r.update(
            cold_start=latency.cold_start(plan.bundle, plan.sources, COLD_STARTS)
        ),
        LOADED: lambda r: r.update(networks_bytes=latency.networks_bytes(plan.bundle)),
    }
    if not plan.quick:  # after the cold starts, which give the device something else to do
        parts[AGAIN] = partial(_second_pass, plan)
    parts[ENERGY] = partial(_energy, plan)
    if plan.mlperf:
        things = [*plan.sources, *(f"{role} alone" for role in plan.bundle.manifest.models)]
        for count in plan.threads:
            for what in things:
                row = {"scenario": "SingleStream", "threads": count, "what": what}
                parts[_part_of(row)] = partial(_single_stream, plan, count, what)
        for what in things:
            parts[_part_of({"scenario": "Offline", "what": what})] = partial(_offline, plan, what)
    return parts | {name: partial(work, plan) for name, work in plan.later.items()}


def _measure(plan: Plan, what: str) -> Timed:
    return latency.measure(
        plan.bundle,
        plan.sources,
        plan.threads,
        plan.length,
        plan.runs,
        lambda done: plan.progress(what, done),
        plan.roads,
    )


def _rounds(plan: Plan, result: dict) -> None:
    timed = _measure(plan, ROUNDS)
    result["settings"]["runs"] = len(timed.at)
    result |= {
        "latency": latency.summarize(timed),
        "distribution": latency.distributions(timed),
        "course": latency.course(timed),
        "others_percent": timed.others.percent(),
    }
    if timed.interrupted:
        raise KeyboardInterrupt


def _second_pass(plan: Plan, result: dict) -> None:
    """The rounds again, with networks that are loaded anew."""
    timed = _measure(plan, AGAIN)
    if timed.interrupted:
        raise KeyboardInterrupt
    first = {
        (row["picture"], row["threads"]): row["p90_ms"]
        for row in result["latency"]
        if row["stage"] == "total"
    }
    cases = []
    for row in latency.summarize(timed):
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


def _asked(plan: Plan, what: str, threads: int) -> tuple[scenarios.Run, int]:
    """What answers a query of a scenario, and the number of different ones."""
    if what in plan.sources:
        analyzer = Analyzer(plan.bundle, threads=threads, executions=plan.roads)
        return lambda _: analyzer.analyze(plan.sources[what]), 1
    role = what.removesuffix(" alone")
    network = Analyzer(plan.bundle, threads=threads, executions=plan.roads).networks()[role]
    spec = network.model.preprocessing
    squares = [prepare(draw(k, size=(360, 480)).image, spec)[0] for k in range(SAMPLES)]
    return lambda k: network.run(squares[k]), SAMPLES


def _single_stream(plan: Plan, threads: int, what: str, result: dict) -> None:
    run, samples = _asked(plan, what, threads)
    timings: list[dict[str, float]] = []

    def kept(sample: int) -> None:
        timings.append(run(sample).timing_ms)

    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        watch = Watch()
        found = scenarios.single_stream(kept if what in plan.sources else run, samples)
        watch.look()
    finally:
        cv2.setNumThreads(before)
    asked = timings[-found["queries"] :]  # loadgen is told first how long one takes
    stages = [
        {"stage": stage, **scenarios.percentiles([t[stage] for t in asked])}
        for stage in (STAGES[:-1] if asked else ())
    ]
    row = {"what": what, "scenario": "SingleStream", "threads": threads} | found
    row |= {"samples_per_second": None, "stages": stages, "others_percent": watch.percent()}
    _put(result, plan, row | {"generator": scenarios.generator()})


def _offline(plan: Plan, what: str, result: dict) -> None:
    cores = usable_cores()
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        # One analyzer a core: none is thread-safe.
        runs, samples = zip(*(_asked(plan, what, 1) for _ in range(cores)), strict=True)
        watch = Watch()
        found = scenarios.offline(runs, samples[0])
        watch.look()
    finally:
        cv2.setNumThreads(before)
    row = {"what": what, "scenario": "Offline", "threads": cores, "p90_ms": None}
    row |= {"early_stopping_p90_ms": None, "stages": [], "others_percent": watch.percent()}
    _put(result, plan, row | found | {"generator": scenarios.generator()})


def _put(result: dict, plan: Plan, row: dict) -> None:
    """In the place of that of the same part, else in the order of the parts."""
    order, rows = list(_parts(plan)), {_part_of(old): old for old in result["scenarios"]}
    rows[_part_of(row)] = row
    result["scenarios"] = sorted(rows.values(), key=lambda old: order.index(_part_of(old)))


def _energy(plan: Plan, result: dict) -> None:
    """Of one analysis of the first picture, with all threads; None where nothing tells it."""
    meter = power.find()
    if meter:
        analyzer = Analyzer(plan.bundle, threads=max(plan.threads), executions=plan.roads)
        source = next(iter(plan.sources.values()))
        result["energy"] = power.energy(meter, lambda: analyzer.analyze(source), ENERGY_SECONDS)


def against(other: Bundle, plan: Plan, result: dict) -> None:
    """Two bundles in turns on the first picture: how many times as fast the plan's own is."""
    threads = plan.threads[0]
    sides = {
        "own": Analyzer(plan.bundle, threads=threads, executions=plan.roads),
        "other": Analyzer(other, threads=threads),
    }
    taken, others = in_turns(sides, plan, turns_with(other))
    figures = ratio(taken["other"], taken["own"])
    result["comparison"] = {
        "other": {"name": other.manifest.name, "sha256": other.sha256},
        "threads": threads,
        "turns": len(taken["own"]),
        "p50_ms": figures["ms"],
        "other_p50_ms": round(float(np.median(taken["other"])), 4),
        **{key: figures[key] for key in ("ratio", "low", "high")},
        "others_percent": others,
    }


def turns_with(other: Bundle) -> str:
    """Name of the part that `against` measures."""
    return f"in turns with {other.manifest.name}"


def in_turns(
    analyzers: Mapping[str, Analyzer], plan: Plan, what: str
) -> tuple[dict[str, np.ndarray], float | None]:
    """Milliseconds of the first picture by each analyzer, float (turns,), of at least 30 turns; and
    what other programs took of the cores meanwhile, in %."""
    source = next(iter(plan.sources.values()))
    ways = {name: lambda _, a=a: a.analyze(source) for name, a in analyzers.items()}
    before = cv2.getNumThreads()
    cv2.setNumThreads(plan.threads[0])
    try:
        paired_timing(ways, 0, (WARMUP, WARMUP))
        told = partial(plan.progress, what)
        fewest, watch = max(30, plan.runs or 0), Watch()
        taken = paired_timing(
            ways, 0 if plan.runs else plan.length, (fewest, 100_000), progress=told
        )
        watch.look()
        return taken, watch.percent()
    finally:
        cv2.setNumThreads(before)


# ------------------------------------------------------------------------------ for people


def to_csv(result: dict) -> str:
    """The latency table of a result, one line a picture, thread count and stage."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(result["latency"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["latency"])
    return buffer.getvalue()


def to_json(result: dict) -> str:
    return json.dumps(result, indent=1, allow_nan=False) + "\n"


def table(result: dict) -> str:
    """The result as plain text."""
    lines = [f"{result['bundle']['name']} on {result['hardware']['cpu']}"]
    if result["bundle"]["procedural"]:
        lines.append(PROCEDURAL)
    rounds = f"{result['settings']['runs']} rounds after {WARMUP} uncounted analyses of each"
    lines.append(("quick run, " if result["quick"] else "") + rounds)
    for name in dict.fromkeys(row["picture"] for row in result["latency"]):
        lines += ["", name, f"  {'threads':>7}  {'stage':<12}{'p50':>9}{'p90':>9}{'p99':>9}  ms"]
        for row in result["latency"]:
            if row["picture"] == name:
                lines.append(
                    f"  {row['threads']:>7}  {row['stage']:<12}{row['p50_ms']:>9.2f}"
                    f"{row['p90_ms']:>9.2f}{row['p99_ms']:>9.2f}"
                )
    lines.append("")
    for row in result["scenarios"] or []:
        speed = (
            f"{row['samples_per_second']:.1f} a second"
            if row["scenario"] == "Offline"
            else f"p90 {row['p90_ms']:.2f} ms (early stopping {row['early_stopping_p90_ms']})"
        )
        lines.append(
            f"{row['scenario']} ({row['generator']}), {row['what']}, threads {row['threads']}: "
            f"{speed}; {row['queries']} queries, {row['seconds']:.0f} s"
            + ("" if row["valid"] else ", NOT VALID by MLPerf's rules")
        )
    if passes := result["repeatability"]:
        apart = max(case["apart"] for case in passes["cases"])
        lines.append(f"p90 of two passes at most {100 * apart:.1f} % apart")
    slowest, last = max(part["ratio"] for part in result["course"]), result["course"][-1]["ratio"]
    lines.append(f"over time: slowest {slowest:.2f}, at the end {last:.2f} of the median")
    if found := result["comparison"]:
        lines.append(
            f"{found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f}) times as fast as "
            f"{found['other']['name']} ({found['p50_ms']:.1f} against {found['other_p50_ms']:.1f} "
            f"ms, {found['turns']} turns, threads {found['threads']})"
        )
    if spent := result["energy"]:
        joules = spent["joules_per_analysis"]
        lines.append(f"energy {1000 * joules:.1f} mJ per analysis ({spent['source']})")
    elif ENERGY not in result["missing"]:
        lines.append("energy: not measured (this device does not tell)")
    for row in result["cold_start"]:
        lines.append(
            f"cold start to the first result {np.median(row['seconds']):.2f} s, peak memory "
            f"{row['peak_bytes'] / 1e6:.0f} MB: {row['picture']}"
        )
    size = result["bundle"]
    models = ", ".join(f"{model['role']} {model['bytes'] / 1e6:.2f} MB" for model in size["models"])
    lines.append(f"bundle {size['bytes'] / 1e6:.2f} MB ({models})")
    if result["networks_bytes"] is not None:
        lines.append(f"the networks in memory: {result['networks_bytes'] / 1e6:.0f} MB")
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    doubts = result["not_to_be_quoted"]
    lines += [f"NOT TO BE QUOTED: {doubt}" for doubt in doubts]
    return "\n".join(lines)
