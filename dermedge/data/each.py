"""Work on each picture of a data set, by a few threads, with a bar where somebody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from dermedge.data.records import Record

Found = TypeVar("Found")

_THREADS = 2
_AT_ONCE = 256  # pictures: what is found is used and dropped before more is


def of_each(
    work: Callable[[Record], Found],
    records: Sequence[Record],
    title: str | None = None,
    bar: bool = True,
) -> Iterator[Found]:
    """What `work` gives of each record, in their order. Ctrl-C does not wait for all of them."""
    hidden = None if bar else True  # None: no bar where nobody watches
    executor = ThreadPoolExecutor(_THREADS)
    try:
        with tqdm(
            total=len(records), desc=title, unit="picture", disable=hidden, leave=False
        ) as shown:
            for start in range(0, len(records), _AT_ONCE):
                for found in executor.map(work, records[start : start + _AT_ONCE]):
                    shown.update()
                    yield found
    finally:
        executor.shutdown(cancel_futures=True)
