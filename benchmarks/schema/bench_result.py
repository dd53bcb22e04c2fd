"""The result of `dermedge bench`: read and checked, and what of it keeps it from being compared."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from pathlib import Path

from benchmarks.schema import renamed
from dermedge import UserError

BUSY_PERCENT = 20.0  # of the cores before it begins
OTHERS_PERCENT = 10.0  # of the cores while it measures
REPEATABLE = 0.05  # p90 of two passes may differ by so much and still be compared
FEW = 100  # rounds; with fewer p99 is the slowest run, and two passes are too short to compare
WARMUP = 3  # analyses a picture and thread count that are run first and not counted
# MLPerf's rules for SingleStream: fewest queries, shortest time in s.
MLPERF_QUERIES, MLPERF_SECONDS = 1024, 60.0
# Parts of a benchmark.
ROUNDS, AGAIN, COLD, LOADED, ENERGY, EXECUTIONS = (
    "rounds",
    "second pass of rounds",
    "cold start",
    "memory of the networks",
    "energy",
    "every precision and runtime",
)


def load(path: str | Path) -> dict:
    """A result that fits `bench.schema.json`; one of version 0.1.0 under the names of today.

    Raises UserError where it does not, naming the first fault.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    try:
        text = Path(path).read_bytes()
        result = json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON; give a bench.json of `dermedge bench`") from None
    schema = json.loads(files("benchmarks.schema").joinpath("bench.schema.json").read_text())
    fault = best_match(Draft202012Validator(schema).iter_errors(result))
    if fault is not None:
        where = "/".join(map(str, fault.absolute_path)) or "the whole"
        raise UserError(f"{path} does not fit bench.schema.json at {where}: {fault.message[:120]}")
    try:
        return renamed.bench(result)
    except UserError as error:
        raise UserError(f"{path} does not fit bench.schema.json: {error}") from None


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


def typed(command: str) -> list[str]:
    """The words of a command, but that it resumes a run."""
    return [word for word in command.split() if word != "--resume"]


def assess(result: dict) -> None:
    """Write into the result what keeps its times from being compared, and its warnings."""
    doubts, warnings = [], []
    if result["quick"]:
        doubts.append("a quick run: give --seconds, --runs or --mlperf")
    if result["missing"]:
        doubts.append(f"interrupted: not measured is {'; '.join(result['missing'])}")
    before = [session["busy_percent"] or 0 for session in result["sessions"]]
    if busy := sum(percent > BUSY_PERCENT for percent in before):
        warnings.append(
            f"the machine was busy before {busy} of {len(before)} sessions (up to "
            f"{max(before):.0f} % of its cores)"
        )
    if loud := disturbed(result):
        doubts.append(
            f"other programs took up to {max(loud.values()):.0f} % of the cores meanwhile "
            f"({'; '.join(loud)}): --resume measures it again"
        )
    if result["latency"] and result["others_percent"] is None:
        warnings.append("what other programs took of the cores meanwhile is not known here")
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
    result |= {"not_comparable": doubts, "warnings": warnings}


def disturbed(result: dict) -> dict[str, float]:
    """The parts during which other programs took too much, and how much, in % of the cores."""
    percents = {ROUNDS: result["others_percent"]}
    if passes := result["repeatability"]:
        percents[AGAIN] = passes["others_percent"]
    percents |= {part_of(row): row["others_percent"] for row in result["scenarios"] or []}
    if comparison := result["comparison"]:
        percents[in_turns_with(comparison["other"]["name"])] = comparison["others_percent"]
    if result["executions"]:
        percents[EXECUTIONS] = result["executions"][0]["others_percent"]
    return {name: percent for name, percent in percents.items() if (percent or 0) > OTHERS_PERCENT}


def part_of(row: dict) -> str:
    """Name of the part that gave this row of the scenarios."""
    threads = f", threads {row['threads']}" if row["scenario"] == "SingleStream" else ""
    return f"{row['scenario']}{threads}, {row['what']}"


def in_turns_with(name: str) -> str:
    """Name of the part that times another bundle of this name."""
    return f"in turns with {name}"
