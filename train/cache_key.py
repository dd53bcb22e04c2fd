"""What the names of the caches beside a run are made of, besides the code that fills them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from dermedge.data.records import Record

if TYPE_CHECKING:
    from hashlib import _Hash


def add_weights(digest: _Hash, model: nn.Module) -> None:
    """All tensors of a network."""
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())


def add_files(digest: _Hash, records: Iterable[Record], masks: bool = False) -> None:
    """Which files the pictures are in, and in what state these are; with `masks` theirs, too."""
    for record in records:
        for path in (record.image, record.mask if masks else None):
            if path is not None:
                status = path.stat()
                digest.update(f"{path}\n{status.st_size}\n{status.st_mtime_ns}\n".encode())
