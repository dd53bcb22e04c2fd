"""A bundle's networks as the app runs them."""

from __future__ import annotations

import sys
from dataclasses import replace

from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.cli import one_line
from dermedge.evaluation.provenance import usable_cores
from dermedge.runtime import SessionError
from dermedge.tune import load_tuned


def load_analyzer(bundle: Bundle) -> Analyzer:
    """As `dermedge tune` chose, where it did, but on all cores but one; raises as `Analyzer`.

    Where what it chose cannot be started any more, the bundle's own graphs run, and a line on the
    terminal says so: a kiosk is not to stand still for a driver.
    """
    # One core stays free for the screen: the live picture must not wait for the networks. Tuning
    # measures all cores, too, for `dermedge analyze`, which has no screen and shares the choice.
    # So the app takes what was chosen, with one thread fewer where that is every core.
    most = max(1, usable_cores() - 1)
    executions = {
        role: replace(execution, threads=min(execution.threads or most, most))
        for role, execution in load_tuned(bundle).items()
    }
    if executions:
        try:
            return Analyzer(bundle, executions=executions)
        except SessionError as error:
            line = f"what `dermedge tune` chose is ignored, {one_line(error)}; run it again"
            if sys.stderr is not None:
                print(f"dermedge: {line}", file=sys.stderr, flush=True)
    return Analyzer(bundle, threads=most)
