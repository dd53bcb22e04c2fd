"""What it costs to bring a picture into a runtime and its answer back.

`python -m benchmarks.latency.crossing --providers cpu java --out FILE.json` runs a graph that
returns its input, in turns: all that takes time is the way there and back. Java needs its library
in CLASSPATH (docs/android.md).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from benchmarks.latency.hardware import hardware
from dermedge import DISCLAIMER, UserError
from dermedge.cli import call
from dermedge.files import check_writable, write_atomic
from dermedge.runtime import RUNTIMES, open_session

SIDES = (192, 224, 960)  # px; the networks' own, and a large one


def identity(side: int) -> bytes:
    """An ONNX graph that returns its image, uint8 (1, side, side, 3)."""
    from onnx import TensorProto, helper

    image, same = (
        helper.make_tensor_value_info(name, TensorProto.UINT8, [1, side, side, 3])
        for name in ("image", "same")
    )
    node = helper.make_node("Identity", ["image"], ["same"])
    graph = helper.make_graph([node], "identity", [image], [same])
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


def measure(providers: Sequence[str], rounds: int) -> list[dict[str, object]]:
    """A row for each size and provider: bytes, and ms of a run, least and median of the rounds."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for side in SIDES:
        graph = identity(side)
        sessions = {name: open_session(graph, 1, name) for name in providers}
        image = rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        times: dict[str, list[float]] = {name: [] for name in providers}
        for _ in range(rounds):
            for name, session in sessions.items():
                start = time.perf_counter()
                answer = session.run({"image": image})["same"]
                times[name].append((time.perf_counter() - start) * 1e3)
                if not np.array_equal(answer, image):
                    raise UserError(f"{name} does not return what it was given")
        rows += [
            {
                "bytes": image.nbytes,
                "runtime": sessions[name].runtime,
                "least_ms": round(min(values), 4),
                "median_ms": round(float(np.median(values)), 4),
            }
            for name, values in times.items()
        ]
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Write the figures; UserError where the arguments cannot be followed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency.crossing", description=__doc__, epilog=DISCLAIMER
    )
    parser.add_argument(
        "--providers",
        nargs="+",
        metavar="NAME",
        choices=RUNTIMES,
        default=["cpu", "java"],
        help=f"{', '.join(RUNTIMES)} (default: cpu java)",
    )
    parser.add_argument(
        "--rounds", type=int, default=200, metavar="N", help="of each (default: 200)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.json", help="the figures")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        raise UserError(f"--rounds must be 1 or more, got {args.rounds}")
    check_writable(args.out)  # said before all the work
    figures = {
        "rows": measure(args.providers, args.rounds),
        "rounds": args.rounds,
        "hardware": hardware(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    write_atomic(args.out, json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures["rows"], indent=1))


if __name__ == "__main__":
    raise SystemExit(call(main))
