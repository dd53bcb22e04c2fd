"""What the measurements on corrupted pictures share: the pass over the pictures, and the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Generic, TypeVar

import numpy as np

from benchmarks.accuracy import intervals
from benchmarks.accuracy.evaluate import read_picture
from benchmarks.accuracy.networks import Networks
from benchmarks.accuracy.pool import NetworkPool
from benchmarks.accuracy.selection import NothingToMeasure, Selection, split_sha256
from benchmarks.latency.hardware import hardware
from dermedge import DISCLAIMER, __version__
from dermedge.bundle.bundle import Bundle
from dermedge.data import DataSet, Record
from dermedge.evaluation.provenance import commit
from dermedge.image.read import ImageError, Picture

Answer = TypeVar("Answer")
# Of networks that serve this call alone, a picture, its true mask or None, and its record.
Work = Callable[[Networks, Picture, "np.ndarray | None", Record], Answer]


@dataclass(frozen=True)
class Pass(Generic[Answer]):
    """One pass over the selected pictures: `answers` of those that could be read, `records`.

    groups : int (records,), the lesion or patient of each; kind : what the groups are.
    """

    records: tuple[Record, ...]
    answers: tuple[Answer, ...]
    unreadable: tuple[dict[str, str], ...]
    groups: np.ndarray
    kind: str


def pass_over(
    bundle: Bundle, selection: Selection, threads: int, title: str, work: Work[Answer]
) -> Pass[Answer]:
    """`work` of each selected picture. NothingToMeasure where none can be read."""

    def one(networks: Networks, record: Record) -> tuple[Record, Answer | None, str | None]:
        try:
            picture, truth = read_picture(record)
        except ImageError as error:
            return record, None, str(error)
        return record, work(networks, picture, truth, record), None

    rows = NetworkPool(bundle, threads).map(one, selection.records, title)
    unreadable = tuple({"id": r.id, "error": error} for r, _, error in rows if error is not None)
    read = [(record, answer) for record, answer, _ in rows if answer is not None]
    if not read:
        raise NothingToMeasure(f"none of the pictures could be read ({unreadable[0]['error']})")
    numbers, kind = intervals.clusters(selection.records, selection.same)
    return Pass(
        tuple(record for record, _ in read),
        tuple(answer for _, answer in read),
        unreadable,
        np.array([numbers[record.id] for record, _ in read]),
        kind,
    )


def head(schema: str, bundle: Bundle) -> dict:
    """How such a result begins."""
    return {
        "schema": schema,
        "disclaimer": DISCLAIMER,
        "bundle": {
            "name": bundle.manifest.name,
            "sha256": bundle.sha256,
            "precisions": {role: m.precision for role, m in bundle.manifest.models.items()},
        },
    }


def about_data(data_set: DataSet, selection: Selection, done: Pass) -> dict:
    """What it was measured on."""
    return {
        "name": data_set.name,
        "part": selection.part,
        "subset": selection.subset,
        "split": selection.source,
        "split_sha256": split_sha256(data_set, selection),
        "limit": selection.limit,
        "pictures": len(done.records),
        "unreadable": list(done.unreadable),
    }


def tail(selection: Selection, command: str) -> dict:
    """Where the figures come from."""
    return {
        "warnings": list(selection.warnings),
        "dermedge": __version__,
        "hardware": hardware(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "commit": commit("+"),
    }
