"""Bundles that were packed again without a change of what they compute.

What was measured with the file before holds for the file after, though its SHA-256 is another one.
`benchmarks/results/repacked.json` lists them: {"sha256", "was", "graphs"} each; `graphs` has the
SHA-256 of every graph, the same in both files. Figures keep the hash of the file that they were
taken with.
"""

from __future__ import annotations

import json
from pathlib import Path

from dermedge.bundle.bundle import Bundle

LIST = Path(__file__).parents[1] / "results" / "repacked.json"


def hashes_of(bundle: Bundle) -> tuple[str, ...]:
    """SHA-256 of the bundle's file, then of files with the very same graphs and thresholds."""
    found = [bundle.sha256]
    graphs = {name: bundle.manifest.parts[name]["sha256"] for name in bundle.graphs()}
    for entry in json.loads(LIST.read_text(encoding="utf-8")):
        if entry["sha256"] == bundle.sha256 and entry["graphs"] == graphs:
            found.append(entry["was"])
    return tuple(found)
