"""The same work over many items as actors of Ray Data, for archives too large for one machine.

Ray comes with the extra `ray`, and is loaded when it is asked for.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from dermedge import UserError

EXTRA = "needs Ray and PyArrow: pip install 'dermedge[ray]'"
# Results that an actor hands over at a time: what an interrupted run has to compute again.
ROWS = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Refused:
    """What a machine of the cluster raised. As an exception it would be pages of Ray's here."""

    reason: str


def _tried(work: Callable[..., Any], *arguments: object) -> Any:
    try:
        return work(*arguments)
    except UserError as error:
        return _Refused(" ".join(str(error).split()))


class _Actor:
    """What was made once on a machine of the cluster, applied to item after item."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]):
        self._one = _tried(make)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"result": [pickle.dumps(self._result(item)) for item in batch["item"]]}

    def _result(self, item: bytes) -> Any:
        one = self._one
        return one if isinstance(one, _Refused) else _tried(one, pickle.loads(item))


def _home(packed: bytes) -> Any:
    """A result as it comes from an actor. Raises UserError where one was raised there."""
    result = pickle.loads(packed)
    if isinstance(result, _Refused):
        raise UserError(f"--engine ray: on a machine of the cluster: {result.reason}")
    return result


def on_ray(
    make: Callable[[], Callable[[Item], Result]],
    items: Sequence[Item],
    workers: int | None = None,
    cores: int = 1,
    address: str | None = None,
) -> Iterator[Result]:
    """The result for each item, in their order, as soon as it is there.

    Parameters
    ----------
    make : called once in each actor, gives the function that is called with each item. It, the
        items and the results are pickled.
    workers : actors. None: as many as the cluster has room for.
    cores : of each actor.
    address : of a running cluster. None: `RAY_ADDRESS`, else one on this machine, which ends with
        the iteration.

    Raises
    ------
    UserError
        Where Ray is not installed, the cluster cannot be reached, or has too few cores; where
        `make`, or what it gives, raises one.
    """
    try:
        ray: Any = import_module("ray")
        from ray.data import ActorPoolStrategy, DataContext
    except ImportError:
        raise UserError(f"--engine ray {EXTRA}") from None
    _connect(ray, address, cores * workers if workers else None)
    try:
        room = int(ray.cluster_resources().get("CPU", 0)) // cores
        if (workers or 1) > room:
            raise UserError(
                f"--engine ray: {workers or 1} workers of {cores} cores do not fit the cluster, "
                f"which has room for {room}: give fewer --workers or --threads"
            )
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        pickled = [pickle.dumps(item) for item in items]
        rows = ray.data.from_items(pickled, override_num_blocks=-(-len(pickled) // ROWS))
        results = rows.map_batches(
            _Actor,
            fn_constructor_args=(make,),
            batch_size=ROWS,
            compute=ActorPoolStrategy(size=min(workers or room, len(pickled))),
            num_cpus=cores,
        )
        for row in results.iter_rows():
            yield _home(row["result"])
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None, cores: int | None) -> None:
    own = address is None and "RAY_ADDRESS" not in os.environ
    options: dict[str, Any] = {"num_cpus": cores, "include_dashboard": False} if own else {}
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"--engine ray: {' '.join(str(error).split())}") from None
