"""What a benchmark is to measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.schema.bench_result import MLPERF_SECONDS
from dermedge.bundle.bundle import Bundle
from dermedge.image.read import Picture
from dermedge.runtime import ExecutionConfig

QUICK_SECONDS = 10.0

Later = Callable[["Plan", dict], None]


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    `seconds` or `runs` are of each pass of rounds; both None: a quick run, of one pass. `rest`: s
    to wait first. `executions`: role to how its network is run, as `Analyzer` takes them.
    `later`: further parts, by name.
    """

    bundle: Bundle
    sources: Mapping[str, bytes | Picture]
    threads: Sequence[int]
    command: str
    seconds: float | None = None
    runs: int | None = None
    mlperf: bool = False
    rest: float = 0.0
    executions: Mapping[str, ExecutionConfig] | None = None
    later: Mapping[str, Later] = field(default_factory=dict)
    progress: Callable[[str, int], None] = lambda what, done: None

    @property
    def quick(self) -> bool:
        return self.seconds is None and self.runs is None and not self.mlperf

    @property
    def length(self) -> float:
        return self.seconds or (MLPERF_SECONDS if self.mlperf else QUICK_SECONDS)
