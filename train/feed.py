"""What the network is fed with: batches of the loader, or those augmented where it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dermedge.metadata import encode
from train.batch_augment import Draws, Overlays, augment_batch, draw_epoch, on_device
from train.data import UNKNOWN, Pictures, Views, loader
from train.recipe import Recipe
from train.sources import Priors

Steps = Iterable[list[tuple[int | None, int]]]

_CHUNK = 256  # pictures copied to the device at once


def training_batches(
    pictures: Pictures,
    labels: Sequence[str],
    recipe: Recipe,
    steps: Steps,
    device: torch.device,
    priors: Priors | None = None,
    paired: Mapping[str, np.ndarray] | None = None,
) -> Iterable[dict[str, Tensor]]:
    """The batches of these steps, augmented where `recipe.augment_on` says."""
    if recipe.augment_on == "device":
        return DeviceBatches(pictures, labels, recipe, device, priors, paired)(steps)
    return loader(Views(pictures, labels, recipe, priors, paired), steps, recipe.workers)


class DeviceBatches:
    """Batches as `train.data.Views` would make them, augmented as a whole on `device`.

    All prepared pictures lie in the device's memory where `recipe.device_cache` allows it; else
    they stay memory-mapped on the host, and the next batch is copied while this one is learnt.
    A view is a function of seed, epoch and index, in whatever batch and process. "known", bool (N,)
    on the host, is added where there are masks.
    """

    def __init__(
        self,
        pictures: Pictures,
        labels: Sequence[str],
        recipe: Recipe,
        device: torch.device,
        priors: Priors | None = None,
        paired: Mapping[str, np.ndarray] | None = None,
    ):
        self.pictures, self.recipe, self.device = pictures, recipe, device
        records, size = pictures.records, recipe.preprocessing.size
        arrays = [a for a in (pictures.images, pictures.masks) if a is not None]
        needed = sum(len(records) * a[0].size for a in arrays) if len(records) else 0
        self.resident = device.type != "cpu" and needed <= recipe.device_cache * 1e9
        self.stored = [self._copied(a) for a in arrays] if self.resident else []
        # A mask that there is not is UNKNOWN all over.
        self.known = (
            None
            if pictures.masks is None
            else torch.from_numpy(pictures.masks[:, 0, 0][pictures.rows] != UNKNOWN)
        )
        views = Views(pictures, labels, recipe, priors, paired)
        facts = [views.facts(record) for record in records]
        self.fixed: dict[str, Tensor] = {
            name: torch.from_numpy(np.stack([one[name] for one in facts])).to(device)
            for name in (facts[0] if facts else ())
        }
        self.overlays = Overlays.drawn(recipe.augmentation, size, recipe.seed, device)
        self._draws = lru_cache(2)(self._draw)

    def __call__(self, steps: Steps) -> Iterator[dict[str, Tensor]]:
        if self.resident or self.device.type == "cpu":
            for step in steps:
                yield self._batch(step, self._taken(step))
            return
        with ThreadPoolExecutor(1) as pool:
            before = None
            for step in steps:
                copy = pool.submit(self._taken, step)
                if before is not None:
                    yield self._batch(before[0], before[1].result())
                before = step, copy
            if before is not None:
                yield self._batch(before[0], before[1].result())

    def _batch(self, step: list[tuple[int | None, int]], taken: list[Tensor]) -> dict[str, Tensor]:
        indices = np.array([index for _, index in step])
        draws = self._draws_of(step)
        images, *masks = (part.to(self.device, non_blocking=True) for part in taken)
        image, mask = augment_batch(
            images, masks[0] if masks else None, self.recipe.augmentation, draws, self.overlays
        )
        batch = {"image": image}
        at = on_device(indices, self.device)
        if mask is not None and self.known is not None:
            batch["known"] = self.known[indices]
            there = on_device(batch["known"].numpy(), self.device).view(-1, 1, 1, 1)
            batch["mask"] = torch.where(there, mask[:, None].float() / 255, -1.0)
        batch |= {name: rows[at] for name, rows in self.fixed.items()}
        if self.recipe.fields:
            batch["metadata"] = on_device(self._metadata(indices, draws.more), self.device)
        return batch

    def _taken(self, step: list[tuple[int | None, int]]) -> list[Tensor]:
        """The prepared pictures of a step, and their masks; pinned, where they have to travel."""
        indices = np.array([index for _, index in step])
        if self.resident:
            at = on_device(indices, self.device)
            return [part[at] for part in self.stored]
        arrays = [a for a in (self.pictures.images, self.pictures.masks) if a is not None]
        taken = [torch.from_numpy(np.asarray(a[self.pictures.rows[indices]])) for a in arrays]
        return [part.pin_memory() for part in taken] if self.device.type == "cuda" else taken

    def _metadata(self, indices: np.ndarray, chances: np.ndarray) -> np.ndarray:
        """Hidden at random, so that the network does well without, too."""
        fields, hidden = self.recipe.fields, chances < self.recipe.metadata_dropout
        rows = [
            encode(
                fields,
                **{
                    name: getattr(self.pictures.records[index], name)
                    for name, gone in zip(fields, row, strict=True)
                    if not gone
                },
            )
            for index, row in zip(indices, hidden, strict=True)
        ]
        return np.stack(rows)

    def _draws_of(self, step: list[tuple[int | None, int]]) -> Draws:
        epochs = {epoch for epoch, _ in step}
        assert len(epochs) == 1, "a step is of one epoch"
        (epoch,) = epochs
        assert epoch is not None, "only training pictures are augmented"
        return self._draws(epoch).rows(np.array([index for _, index in step]))

    def _draw(self, epoch: int) -> Draws:
        return draw_epoch(self.recipe.seed, epoch, len(self.pictures), len(self.recipe.fields))

    def _copied(self, array: np.ndarray) -> Tensor:
        """All pictures in the device's memory, chunk by chunk."""
        rows = self.pictures.rows
        whole = torch.empty((len(rows), *array.shape[1:]), dtype=torch.uint8, device=self.device)
        for at in range(0, len(rows), _CHUNK):
            chunk = np.asarray(array[rows[at : at + _CHUNK]])
            whole[at : at + len(chunk)] = torch.from_numpy(chunk).to(self.device)
        return whole
