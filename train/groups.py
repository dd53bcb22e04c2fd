"""Losses that look at groups of people: reweighting, and group distributionally robust training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dermedge import UserError
from dermedge.data.groups import SCALES
from dermedge.data.records import Record
from train.recipe import ClassifierLoss
from train.sources import is_unlabelled

LEAST = 1e-12  # of a group's weight

Total = Callable[[Tensor], Tensor]  # the sum of a tensor over all processes


def group_row(record: Record, field: str) -> np.ndarray:
    """float32 (G,): 1 at the record's group of that scale; zeros where it is not stated."""
    scale = SCALES[field]
    found = scale.group_of(record)
    return np.array([name == found for name in scale.groups], np.float32)


class GroupWeights:
    """What each picture of a batch weighs, by its group.

    Two ways, which may be joined:

    - `loss.group_balance`: a picture weighs its group's count ** -balance, scaled so that those who
      state a group average 1. It counts how often they are drawn.
    - `loss.group_dro`: the weight of a group moves towards the groups with the largest loss, by
      q * exp(step * loss), as in Algorithm 1 of Sagawa et al. ("Distributionally robust neural
      networks for group shifts", ICLR 2020). Groups that a batch lacks keep theirs, and what those
      in the batch weigh is scaled so that they average 1 there.

    A picture whose group is not stated weighs 1, and moves nothing: its absence may tell the label.
    Pictures without a diagnosis, which teachers alone speak of, are in no group.
    The state is the weights q, the same in every process.
    """

    def __init__(
        self,
        loss: ClassifierLoss,
        records: Sequence[Record],
        drawn: Sequence[float] | None = None,
    ):
        """`drawn` is how often each record is drawn in an epoch; None: each once."""
        self._loss = loss
        often = np.ones(len(records)) if drawn is None else np.array(drawn, float)
        often = often * [not is_unlabelled(record) for record in records]
        rows = np.array([group_row(record, loss.group) for record in records])
        counts = torch.from_numpy(often @ rows)
        if int((counts > 0).sum()) < 2:
            raise UserError(
                f"loss.group = '{loss.group}' needs two groups to compare; the training pictures "
                f"state {int((counts > 0).sum())}"
            )
        there = counts > 0
        balance = torch.where(there, counts.clamp(min=LEAST) ** -loss.group_balance, 0.0)
        self.static = balance * counts.sum() / (balance * counts).sum()
        self.q = there.double() / there.sum()
        self._counts = counts

    def __call__(self, each: Tensor, shares: Tensor, total: Total) -> Tensor:
        """float32 (N,): the weights of this process's pictures; moves q.

        Parameters
        ----------
        each : float (N,), the loss of each picture; no gradient flows through it.
        shares : float (N, G), how much of each group is in a picture (several where it is mixed).
        total : sums a tensor over all processes; they all call this together.
        """
        each, shares = each.detach().double().cpu(), shares.double().cpu()
        rest = 1 - shares.sum(dim=1)
        weights = shares @ self.static
        if self._loss.group_dro:
            sums = total(torch.stack([shares.sum(dim=0), (shares * each[:, None]).sum(dim=0)]))
            mass, losses = sums
            there = mass > 0
            mean = torch.where(there, losses / mass.clamp(min=1e-12), 0.0)
            moved = self.q * torch.exp(self._loss.group_dro * mean)
            # No less: a weight of 0 never comes back, and a batch of that group alone has no mean.
            self.q = torch.where(self._counts > 0, (moved / moved.sum()).clamp(min=LEAST), 0.0)
            if there.any():
                own = torch.where(there, self.q / mass.clamp(min=1e-12), 0.0)
                own = own * mass.sum() / self.q[there].sum()
                weights = (shares * self.static) @ own
        return (weights + rest).float()

    def of_records(self, records: Sequence[Record]) -> np.ndarray:
        """float64 (n,): what each record weighs over the whole training, as far as is known by now.

        With `group_dro` by the weights of this step: those that training ends with are what counts.
        """
        weights = self.static.clone()
        if self._loss.group_dro:
            weights = weights * self.q * self._counts.sum() / self._counts.clamp(min=LEAST)
        rows = np.array([group_row(record, self._loss.group) for record in records])
        return np.asarray(rows @ weights.numpy() + 1 - rows.sum(axis=1))

    def state_dict(self) -> dict[str, Tensor]:
        return {"q": self.q}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.q = state["q"].double().cpu()
