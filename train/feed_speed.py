"""How much of a network's training speed is left when it is fed with augmented pictures.

The same network takes the same step on one batch that never changes (what it could do at most), on
the loader's batches and on batches augmented where it is. The three take turns in one process, and
each turn is compared with the constant batch's next to it.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from dermedge import UserError
from dermedge.data.records import DataSet
from train.data import Batches, Views, loader
from train.feed import DeviceBatches
from train.learner import Learner
from train.loop import make_accelerator
from train.recipe import Recipe
from train.sources import sampling_shares
from train.throughput import (
    CONDITIONS,
    ENDLESS,
    ROUNDS,
    chosen,
    compared,
    conditions,
    rate_of,
    timed_pictures,
)

FEEDS = ("constant", "loader", "device")

COLUMNS = {
    "feed": "constant: one batch; loader: augmented by its processes; device: where the network is",
    "rate": "pictures a second that are learnt, geometric mean of the rounds",
    "share": "of the constant batch's rate, geometric mean of the rounds",
    "share_low": "lower end of its 95 % interval (Student's t of the rounds' logarithms)",
    "share_high": "upper end",
    "augmenting": "pictures a second of the feed alone, without a network; '-': nothing is made",
    **CONDITIONS,
}


def measure_feeds(recipe: Recipe, data_set: DataSet, seconds: float, limit: int) -> list[dict]:
    """A row of `COLUMNS` for each of `FEEDS`.

    Parameters
    ----------
    recipe : without kept views and paired teachers; what its `augment_on` says makes no difference.
    seconds : of each turn; there are five times `ROUNDS` of them.
    limit : how many pictures are used at most.

    Raises
    ------
    UserError : another recipe, or a data set without what its network learns, or without readable
        pictures.
    """
    if recipe.views or recipe.paired:
        # Its steps are other ones: of features, or with answers that are computed before.
        raise UserError(
            "throughput measures steps on pictures: leave distillation.paired out, and set views=0"
        )
    # What the weights are makes no difference to the time.
    recipe = replace(recipe, pretrained="no", start="")
    records, labels = chosen(recipe, data_set, limit)
    with tempfile.TemporaryDirectory() as cache:
        pictures, prepared = timed_pictures(records, recipe, Path(cache))
        shares = sampling_shares(pictures.records, recipe.balanced_sampling)
        accelerator = make_accelerator(recipe)
        learner = Learner(recipe, labels, pictures, ENDLESS, accelerator, shares)
        priors = learner.batch_priors()
        batches = Batches(len(pictures), recipe.batch_size, recipe.seed, shares)
        views = Views(pictures, labels, recipe, priors)
        augmented = DeviceBatches(pictures, labels, recipe, accelerator.device, priors)

        def steps() -> Iterable[list[tuple[int | None, int]]]:
            return batches.share(learner.step, ENDLESS, 0, 1)

        constant = next(augmented(steps()))
        sources: dict[str, Callable[[], Iterable]] = {
            "constant": lambda: itertools.repeat(constant),
            "loader": lambda: loader(views, steps(), recipe.workers),
            "device": lambda: augmented(steps()),
        }

        def learn(batch: dict[str, torch.Tensor]) -> int:
            learner.update(batch)
            return len(batch["image"])

        learnt: dict[str, list[float]] = {feed: [] for feed in FEEDS}
        made: dict[str, list[float]] = {feed: [] for feed in FEEDS[1:]}
        warm_up = 2 * recipe.workers + 3
        for number in tqdm(range(ROUNDS), "measuring", unit="round"):
            # None is always the first.
            for feed in FEEDS[:: -1 if number % 2 else 1]:
                learnt[feed].append(rate_of(sources[feed], learn, seconds, warm_up))
            for feed, rates in made.items():
                rates.append(rate_of(sources[feed], lambda b: len(b["image"]), seconds, warm_up))
    common = conditions(recipe, data_set, len(pictures), seconds, prepared)
    rows = []
    for feed in FEEDS:
        found = compared(learnt[feed], learnt["constant"])
        alone = compared(made[feed], made[feed])["ours"] if feed in made else "-"
        row = {"feed": feed, "rate": found["ours"], "augmenting": alone}
        row |= {f"share{end}": found[f"ratio{end}"] for end in ("", "_low", "_high")}
        rows.append(row | common)
    return rows
