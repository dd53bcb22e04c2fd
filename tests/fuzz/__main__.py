"""Coverage-guided fuzzing of what reads foreign bytes: `python -m tests.fuzz TARGET --minutes 30`.

A target is a module beside this one with `SEEDS`, small inputs to start from, and `one(data)`,
which feeds bytes to a reader and lets every error escape that the reader does not promise. Needs
the extra `fuzz` (atheris). What was learnt is kept in the corpus, so that the next run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
from pathlib import Path

import atheris

TARGETS = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
MEMORY_MB = 3000  # more than any reader may take
SECONDS = 120  # that one input may take, on a machine with other work


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--max-bytes", type=int, default=65536)
    options = parser.parse_args()
    corpus = options.corpus / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["dermedge", "edge_app"]):
        target = importlib.import_module(f"tests.fuzz.{options.target}")
    for seed in target.SEEDS:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    flags = [
        f"-max_total_time={round(options.minutes * 60)}",
        f"-max_len={options.max_bytes}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-timeout={SECONDS}",
        f"-artifact_prefix={corpus.parent}/{options.target}-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], target.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
