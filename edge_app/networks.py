"""A bundle's networks as the app runs them."""

from __future__ import annotations

from dataclasses import replace

from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.evaluation.provenance import usable_cores
from dermedge.tune import load_tuned


def load_analyzer(bundle: Bundle) -> Analyzer:
    """As `dermedge tune` chose, where it did, but on all cores but one; raises as `Analyzer`."""
    # One core stays free for the screen: the live picture must not wait for the networks. Tuning
    # measures all cores, too, for `dermedge analyze`, which has no screen and shares the choice.
    # So the app takes what was chosen, with one thread fewer where that is every core.
    most = max(1, usable_cores() - 1)
    chosen = load_tuned(bundle)
    executions = {
        role: replace(execution, threads=min(execution.threads or most, most))
        for role, execution in chosen.items()
    }
    return Analyzer(bundle, threads=0 if chosen else most, executions=executions)
