"""Does an evaluation keep all cores busy, in constant memory?

`python -m benchmarks.accuracy.evaluation_throughput` measures it.

What reading the pictures takes alone, and what analysing them takes alone, is measured on a sample,
in turns; an evaluation that wasted nothing would take the sum of both for each picture. The share
of that which it reaches is given of the pass over the pictures, and of all until the last figure:
intervals are computed after the last picture.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import psutil

from benchmarks.accuracy.evaluate import Options, evaluate
from benchmarks.accuracy.networks import Networks
from benchmarks.accuracy.pool import NetworkPool, in_threads
from benchmarks.accuracy.selection import select
from benchmarks.latency.hardware import hardware
from dermedge import UserError
from dermedge.bundle.bundle import Bundle
from dermedge.cli import call
from dermedge.cli.options import bundle_arguments, open_bundle
from dermedge.data import Record, load, parse_source
from dermedge.evaluation.provenance import usable_cores
from dermedge.files import check_writable, write_atomic
from dermedge.image.read import ImageError, Picture, read_image, read_mask

SAMPLE, ROUNDS = 120, 4
PERIOD = 0.5  # s between two samples of the memory


def measure(bundle: Bundle, source: str, part: str, limit: int | None, command: str) -> dict:
    """Pictures a second of reading, analysing and evaluating; share of the possible; memory."""
    data_set = load(*parse_source(source))
    selection = select(data_set, bundle, part, limit=limit)
    threads = usable_cores()
    sample = selection.records[:: max(1, len(selection.records) // SAMPLE)][:SAMPLE]
    reading, analysing = _rates(bundle, sample, threads)
    with _Memory() as memory:
        start = time.perf_counter()
        busy = psutil.Process().cpu_times()
        result, _ = evaluate(bundle, data_set, selection, Options(threads=threads, command=command))
        elapsed = time.perf_counter() - start
        after = psutil.Process().cpu_times()
    possible = 1 / (1 / reading + 1 / analysing)
    count = result["data"]["evaluated"]
    seconds = result["seconds"]["pictures"], sum(result["seconds"].values())
    reached = [count / one for one in seconds]
    half = len(memory.bytes) // 2
    return {
        "pictures": count,
        "data": f"{data_set.name}, part {part}",
        "bundle_sha256": bundle.sha256,
        "threads": threads,
        "read_per_second": round(reading, 2),
        "analyse_per_second": round(analysing, 2),
        "pass_per_second": round(reached[0], 2),
        "pass_share_of_possible": round(reached[0] / possible, 4),
        "evaluate_per_second": round(reached[1], 2),
        "share_of_possible": round(reached[1] / possible, 4),
        "figures_seconds": result["seconds"]["figures"],
        "cores_busy": round((sum(after[:2]) - sum(busy[:2])) / elapsed, 2),
        "memory_first_half_bytes": max(memory.bytes[:half], default=0),
        "memory_second_half_bytes": max(memory.bytes[half:], default=0),
        "hardware": hardware(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
    }


def _rates(bundle: Bundle, sample: Sequence[Record], threads: int) -> tuple[float, float]:
    """Pictures a second of reading alone and of analysing alone; UserError: none can be read."""

    def read(record: Record) -> Picture | None:
        try:
            if record.mask:
                read_mask(record.mask)
            return read_image(record.image)
        except ImageError:
            return None  # `evaluate` says which

    def read_all() -> None:
        for _ in in_threads(read, sample, threads, "read"):
            pass

    def analyse(networks: Networks, picture: Picture) -> None:
        networks.examine(picture, {})

    def analyse_all() -> None:
        pool.map(analyse, pictures, "analyse")

    # Loaded before, as by `evaluate`, and run once: neither is a part of a picture.
    pool = NetworkPool(bundle, threads)
    pictures = [picture for picture in map(read, sample) if picture is not None]
    if not pictures:
        raise UserError(f"none of {len(sample)} pictures can be read: there is nothing to time")
    analyse_all()
    works = ((read_all, len(sample)), (analyse_all, len(pictures)))
    rates = []
    for _ in range(ROUNDS):
        for work, count in works:
            start = time.perf_counter()
            work()
            rates.append(count / (time.perf_counter() - start))
    return float(np.median(rates[::2])), float(np.median(rates[1::2]))


class _Memory:
    """Resident memory of this process while it is entered, read every `PERIOD`."""

    def __enter__(self) -> _Memory:
        self.bytes: list[int] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._done.wait(PERIOD):
            self.bytes.append(process.memory_info().rss)

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.evaluation_throughput", description=__doc__
    )
    bundle_arguments(parser)
    parser.add_argument("--data", required=True, metavar="NAME=PATH", help="the data set")
    parser.add_argument("--split", default="all", help="part of the data set (default: all)")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="N pictures, selected by a hash of their ids"
    )
    parser.add_argument("--out", metavar="FILE.json", help="the figures, which are printed, too")
    args = parser.parse_args()
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit must be 1 or more, got {args.limit}")
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        check_writable(args.out)  # said before all the work
    name, path = parse_source(args.data)
    bundle = open_bundle(args)
    command = (
        "python -m benchmarks.accuracy.evaluation_throughput "
        f"--bundle {shlex.quote(bundle.path.name)} "
        f"--data {name}={shlex.quote(Path(path).resolve().name)} --split {args.split}"
        + (f" --limit {args.limit}" if args.limit else "")
    )
    result = measure(bundle, args.data, args.split, args.limit, command)
    text = json.dumps(result, indent=1) + "\n"
    if args.out:
        write_atomic(args.out, text)
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
