"""Networks for several threads: each serves one at a time."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import cv2
from tqdm import tqdm

from benchmarks.accuracy.networks import Networks
from dermedge.bundle.bundle import Bundle
from dermedge.cluster import on_ray
from dermedge.runtime import ExecutionConfig

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, as `dermedge.cluster.on_ray` takes it."""

    workers: int | None = None
    address: str | None = None


class NetworkPool:
    """As many `Networks` of a bundle as there are threads; the threads share the cores, so each
    runs on one.

    One thread calls `map`; `work` runs on threads of its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int,
        views: int = 1,
        executions: Mapping[str, ExecutionConfig] | None = None,
    ):
        """Load the networks; parameters and errors as `Networks` has them."""
        self._threads = threads
        self._idle: SimpleQueue[Networks] = SimpleQueue()
        for _ in range(threads):
            self._idle.put(Networks(bundle, threads=1, views=views, executions=executions))

    def map(
        self, work: Callable[[Networks, Item], Result], items: Sequence[Item], title: str
    ) -> list[Result]:
        """`work` of each item, in their order, with progress under `title` on standard error."""

        def one(item: Item) -> Result:
            networks = self._idle.get()
            try:
                return work(networks, item)
            finally:
                self._idle.put(networks)

        return list(in_threads(one, items, self._threads, title))


class ClusterPool:
    """`Networks` of a bundle on the machines of a Ray cluster, which all must be able to read the
    pictures under the same names.
    """

    def __init__(
        self,
        bundle: Bundle,
        cluster: Cluster,
        views: int,
        executions: Mapping[str, ExecutionConfig] | None,
    ):
        """Parameters and errors of the networks as `Networks` has them."""
        self._cluster = cluster
        self._load = partial(Networks, bundle, threads=1, views=views, executions=executions)

    def map(
        self, work: Callable[[Networks, Item], Result], items: Sequence[Item], title: str
    ) -> list[Result]:
        """As `NetworkPool.map`. Raises UserError as `dermedge.cluster.on_ray`."""
        load = self._load

        def make() -> Callable[[Item], Result]:
            cv2.setNumThreads(1)
            return partial(work, load())

        cluster = self._cluster
        results = on_ray(make, items, cluster.workers, address=cluster.address)
        return list(
            tqdm(results, title, len(items), unit=" pictures", disable=None, file=sys.stderr)
        )


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], threads: int, title: str
) -> Iterator[Result]:
    """`map` over threads, in order, with few results waiting: memory does not grow."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with (
            ThreadPoolExecutor(threads) as pool,
            tqdm(
                total=len(items), desc=title, unit=" pictures", disable=None, file=sys.stderr
            ) as bar,
        ):
            waiting: deque[Future[Result]] = deque()
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
                    bar.update()
            while waiting:
                yield waiting.popleft().result()
                bar.update()
    finally:
        cv2.setNumThreads(before)
