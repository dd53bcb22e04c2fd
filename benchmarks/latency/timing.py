"""How long a picture takes to become a decision."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from benchmarks.latency import power
from benchmarks.latency.hardware import OtherPrograms, frequency
from benchmarks.schema.bench_result import WARMUP
from benchmarks.schema.names import STAGES
from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.image.read import ImageError, Picture, read_image
from dermedge.runtime import ExecutionConfig

QUANTILES = 50
PERIODS = 60  # of the course over time
FRAME = "camera frame 1280x720"
PHOTO = "JPEG photograph 4032x3024"


def pictures(images: Sequence[Path]) -> dict[str, bytes | Picture]:
    """What is timed: name to a decoded camera frame or to the bytes of a file.

    Without `images`, a procedural 12-megapixel JPEG stands for a phone's photograph.
    Files are held in memory, so that no disk is measured.

    Raises UserError where a file is no picture.
    """
    frame = draw(3, "phone", size=(720, 1280)).image
    sources: dict[str, bytes | Picture] = {FRAME: Picture(frame, 720, 1280)}
    for path in images:
        try:
            read_image(path)
        except ImageError as error:
            raise UserError(f"--image: {error}") from None
        name, number = path.name, 1  # where somebody keeps pictures is nobody else's business
        while name in sources:
            number += 1
            name = f"{path.name} ({number})"
        sources[name] = path.read_bytes()
    if images:
        return sources
    photo = cv2.resize(draw(4, "phone", size=(1512, 2016)).image, (4032, 3024))
    encoded = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return sources | {PHOTO: encoded.tobytes()}


@dataclass
class Timed:
    """What `measure` timed: `samples` by (threads, picture), a dict of stage to ms each round.

    `at` is when each round ended, s from the first one's start; `state` the (MHz, degrees Celsius)
    then; `others` was sampled before the first round and after each. `interrupted`: a key ended it.
    """

    samples: dict[tuple[int, str], list[dict[str, float]]]
    at: list[float] = field(default_factory=list)
    state: list[tuple[float | None, float | None]] = field(default_factory=list)
    others: OtherPrograms = field(default_factory=OtherPrograms)
    interrupted: bool = False


def measure(
    bundle: Bundle,
    sources: Mapping[str, bytes | Picture],
    threads: Sequence[int],
    seconds: float | None,
    runs: int | None,
    progress: Callable[[int], None] = lambda done: None,
    executions: Mapping[str, ExecutionConfig] | None = None,
) -> Timed:
    """Time whole analyses.

    All thread counts and pictures take turns, so that heat, frequency and other programs weigh
    on all alike. A thread count holds for the runtime and for OpenCV.

    Parameters
    ----------
    seconds : for all measuring together; at least two rounds are made.
    runs : rounds; where given, `seconds` is ignored.
    progress : called with the number of rounds done.
    executions : role to how its network is run, as `Analyzer` takes them.

    Ctrl-C ends it; what was measured until then is returned, where that is two rounds or more.
    """
    analyzers = {count: Analyzer(bundle, threads=count, executions=executions) for count in threads}
    timed = Timed({(count, name): [] for count in threads for name in sources})
    before = cv2.getNumThreads()
    first = next(iter(sources))
    try:
        for count, analyzer in analyzers.items():
            cv2.setNumThreads(count)
            for _ in range(WARMUP):
                for source in sources.values():
                    analyzer.analyze(source)
        timed.others = OtherPrograms()
        start = time.perf_counter()
        stop = start + (seconds or 0)
        done = 0
        while done < runs if runs else done < 2 or time.perf_counter() < stop:
            round_ms = {}
            for step in range(len(threads)):
                count = threads[(step + done) % len(threads)]
                cv2.setNumThreads(count)
                # OpenCV starts its threads again after a change; that is not what users wait for.
                analyzers[count].analyze(sources[first])
                for name, source in sources.items():
                    round_ms[count, name] = analyzers[count].analyze(source).timing_ms
            for case, timing in round_ms.items():  # whole rounds only: all are measured as often
                timed.samples[case].append(timing)
            timed.at.append(time.perf_counter() - start)
            timed.state.append((frequency(), power.temperature()))
            timed.others.sample()
            done += 1
            progress(done)
    except KeyboardInterrupt:
        if len(timed.at) < 2:
            raise
        timed.interrupted = True
    finally:
        cv2.setNumThreads(before)
    return timed


def summarize(timed: Timed) -> list[dict]:
    """One dict a picture, thread count and stage: runs, and mean, p50, p90, p99, min, max in ms."""
    return [
        _summary(name, count, stage, [timing[stage] for timing in timings])
        for (count, name), timings in timed.samples.items()
        for stage in STAGES
    ]


def distributions(timed: Timed) -> list[dict]:
    """Of each picture and thread count: the quantiles of its time from fastest to slowest, ms."""
    shares = np.linspace(0, 1, QUANTILES + 1)
    return [
        {
            "picture": name,
            "threads": count,
            "quantiles_ms": np.quantile([t["total"] for t in timings], shares).round(4).tolist(),
        }
        for (count, name), timings in timed.samples.items()
    ]


def course(timed: Timed) -> list[dict]:
    """How time, clock frequency and temperature went: the rounds in at most `PERIODS` parts.

    'ratio' is the median time of the part over that of all rounds, mean over the cases: a device
    that throttles climbs above 1.
    """
    totals = np.array([[t["total"] for t in timings] for timings in timed.samples.values()])
    usual = np.median(totals, axis=1, keepdims=True)
    parts = np.array_split(np.arange(len(timed.at)), min(PERIODS, len(timed.at)))
    rows = []
    for part in parts:
        clocks, heat = zip(*(timed.state[k] for k in part), strict=True)
        rows.append(
            {
                "seconds": round(timed.at[part[-1]], 3),
                "ratio": round(float((np.median(totals[:, part], axis=1) / usual[:, 0]).mean()), 4),
                "frequency_mhz": _mean(clocks),
                "temperature_c": _mean(heat),
                "others_percent": timed.others.percent(int(part[0]), int(part[-1]) + 1),
            }
        )
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 1) if known else None


def _summary(picture: str, threads: int, stage: str, values: list[float]) -> dict:
    p50, p90, p99 = np.percentile(values, (50, 90, 99))
    row = {"mean_ms": np.mean(values), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}
    row |= {"min_ms": min(values), "max_ms": max(values)}
    head = {"picture": picture, "threads": threads, "stage": stage, "runs": len(values)}
    return head | {name: round(float(value), 4) for name, value in row.items()}
