"""What other commands wrote, read back for the page; refused where it is of another bundle."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import jinja2

from benchmarks.report.corruption_plots import robustness_png
from benchmarks.report.page import render
from benchmarks.report.repacked import hashes_of
from benchmarks.schema import renamed
from benchmarks.schema.names import EVALUATION, OLD_EVALUATIONS
from dermedge import UserError
from dermedge.bundle.bundle import Bundle


def evaluation(path: str, bundle: Bundle) -> dict:
    """What `dermedge evaluate --json` printed. UserError where the page cannot show it, or it is of
    another precision than the bundle is now: accuracy and time would be of two networks."""
    try:
        result = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON; make it with `dermedge evaluate --json`") from None
    if isinstance(result, dict) and result.get("schema") in OLD_EVALUATIONS:
        result = renamed.evaluation(result)
    if not isinstance(result, dict) or result.get("schema") != EVALUATION:
        raise UserError(f"{path} is no evaluation of the kind '{EVALUATION}'; make it again")
    try:
        fits = result["bundle"]["sha256"] in hashes_of(bundle)
        if fits:
            models = result["bundle"]["models"].items()
            precisions = {role: model["precision"] for role, model in models}
            render("trial", bundle, evaluation=result)
    except (LookupError, TypeError, ValueError, AttributeError, jinja2.TemplateError) as error:
        raise UserError(
            f"{path} is an incomplete evaluation ({type(error).__name__}: {error}); make it again"
        ) from None
    if not fits:
        raise UserError(f"{path} was made with another bundle; evaluate {bundle.path} again")
    _check_precisions(path, precisions, bundle)
    return result


def _check_precisions(path: str, measured: dict[str, str], bundle: Bundle) -> None:
    """UserError where it was measured in other precisions than those of the bundle's networks."""
    here = {role: model.precision for role, model in bundle.manifest.models.items()}
    if measured != here:
        raise UserError(
            f"{path} was measured in {_in_words(measured)}, and {_in_words(here)} is to be timed: "
            "measure it in that precision"
        )


def _in_words(precisions: dict[str, str]) -> str:
    return ", ".join(f"{precision} ({role})" for role, precision in sorted(precisions.items()))


def robustness(path: str, bundle: Bundle) -> dict:
    """robustness.json of `dermedge robustness`. UserError where the page cannot show it."""
    try:
        curves = json.loads(Path(path).read_bytes())
        fits = curves["bundle"]["sha256"] in hashes_of(bundle)
        precisions = curves["bundle"].get("precisions")
        robustness_png(curves)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError):
        raise UserError(f"{path} is no robustness.json of `dermedge robustness`") from None
    if not fits:
        raise UserError(f"{path} was made with another bundle; make it again")
    if precisions is not None:  # results of version 0.2.0 do not say
        _check_precisions(path, precisions, bundle)
    return curves


_PEERS = {  # what the page shows of the table of `dermedge peers`, and of what kind it is
    **dict.fromkeys(("what", "side", "version", "reason"), str),
    "threads": int,
    **dict.fromkeys(("ms", "p90_ms"), float),
    **dict.fromkeys(("times_of_ours", "times_of_ours_low", "times_of_ours_high"), float),
    **dict.fromkeys(("outside_networks", "difference"), float),
}


def peers(path: str, bundle: Bundle) -> list[dict]:
    """The table of `dermedge peers`. UserError where the page cannot show it."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        rows = [
            {k: kind(row[k]) if row[k] else None for k, kind in _PEERS.items()} for row in table
        ]
        own = {sha256[:16] for sha256 in hashes_of(bundle)}
        fits = all(row["bundle_sha256"] in own for row in table)
    except (ValueError, KeyError, TypeError, csv.Error):
        raise UserError(f"{path} is no table of `dermedge peers`") from None
    if not rows or not fits:
        raise UserError(f"{path} was made with another bundle; make it again")
    return rows
