"""The same work on the processors of a Ray cluster, for archives too large for one machine.

Ray Data (`pip install 'dermedge[ray]'`) moves the pictures and starts the actors; each actor loads
what it needs once, as a thread of one process does. No pool across machines is written here.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from dermedge import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
BATCH = 8  # pictures an actor is handed at once


class _Actor:
    """Lives in one worker process; what `make` loads is loaded there, once."""

    def __init__(self, make: bytes):
        import cv2

        cv2.setNumThreads(1)  # the actors share the cores
        self._work = pickle.loads(make)()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = [pickle.dumps(self._work(pickle.loads(item))) for item in batch["item"]]
        return {"number": batch["number"], "result": results}


def ray_map(
    make: Callable[[], Callable[[Item], Result]], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """`map` in order over the actors of a Ray cluster: the one that `RAY_ADDRESS` names, or one
    of this machine alone.

    Parameters
    ----------
    make : called once in each worker; returns the function that is mapped. It is pickled, so it
        is a function of a module, or a `functools.partial` of one.
    items : what is mapped; pickled.
    workers : how many actors, of one processor each.

    Raises
    ------
    UserError
        Where Ray cannot be reached, or a worker was lost more often than Ray tries again.
    """
    # Ray reports its use to its maker unless that is switched off before it is loaded.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    import ray.data

    if not items:
        return
    try:
        ray.init(
            address=os.environ.get("RAY_ADDRESS"),
            ignore_reinit_error=True,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            num_cpus=None if "RAY_ADDRESS" in os.environ else max(workers, 1),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError("Ray cannot be reached: {reason}", code="ray", reason=error) from None
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"number": number, "item": pickle.dumps(item)} for number, item in enumerate(items)]
    data = ray.data.from_items(rows, override_num_blocks=max(1, -(-len(rows) // BATCH)))
    results = data.map_batches(
        _Actor,
        fn_constructor_args=(pickle.dumps(make),),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    try:
        for row in results.iter_rows():
            yield pickle.loads(row["result"])
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError("a worker of Ray failed: {reason}", code="ray", reason=reason) from None
