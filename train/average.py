"""Weights that are means of others: over the steps of a run, and of a run and its start."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def move_average(average: nn.Module, newest: Mapping[str, Tensor], decay: float) -> None:
    """Move an exponential average of weights by one step; what is no float is taken over."""
    averaged = average.state_dict()
    floats = [name for name, value in averaged.items() if value.is_floating_point()]
    # All at once: a GPU spends longer on starting hundreds of small sums than on the sums.
    torch._foreach_lerp_(
        [averaged[name] for name in floats], [newest[name] for name in floats], 1 - decay
    )
    for name in averaged.keys() - floats:
        averaged[name].copy_(newest[name])


class StartWeights(nn.Module):
    """The weights of a run's start, of which its result keeps a share.

    A network that learnt from new pictures forgets some of what it knew of the old ones; the mean
    of its weights and of those before mostly knows both (WiSE-FT: Wortsman et al., CVPR 2022).
    What the start did not have, such as a new class, is the run's alone.
    """

    def __init__(
        self,
        model: nn.Module,
        before: Mapping[str, Tensor],
        share: float,
        own: Collection[str] = (),
    ):
        """Remember `model`, which has taken over the start's weights.

        Parameters
        ----------
        before : the model's own weights before it did.
        share : of the start's weights in the result, 0 to 1.
        own : names of the tensors that the start did not have.
        """
        super().__init__()
        self.share = share
        self.names = [name for name, v in model.state_dict().items() if v.is_floating_point()]
        for place, name in enumerate(self.names):
            value = model.state_dict()[name].detach()
            self.register_buffer(f"value_{place}", value.clone())
            taken = _taken_over(name, value, before[name])
            self.register_buffer(f"known_{place}", taken & (name not in own))

    def carry(self, labels: Sequence[str], moved: Mapping[str, float]) -> None:
        """Move the logits of the start's classes: its answers are to carry the run's prior."""
        for place, name in enumerate(self.names):
            value, known = getattr(self, f"value_{place}"), getattr(self, f"known_{place}")
            if name.startswith("net.head.") and value.shape == (len(labels),):
                for row, label in enumerate(labels):
                    if label in moved:
                        value[row] += moved[label]
                        known[row] = True

    @torch.no_grad()
    def blended(self, model: nn.Module) -> nn.Module:
        """A copy of `model` whose weights are the mean of its own and of the start's."""
        mixed = copy.deepcopy(model)
        weights = mixed.state_dict()
        for place, name in enumerate(self.names):
            value, known = getattr(self, f"value_{place}"), getattr(self, f"known_{place}")
            own = weights[name]
            own.copy_(torch.where(known, torch.lerp(own, value.to(own.dtype), self.share), own))
        return mixed


def _taken_over(name: str, value: Tensor, before: Tensor) -> Tensor:
    """Which of a tensor's numbers are the start's: in the head, the rows that are not as before."""
    if not name.startswith("net.head.") or value.ndim == 0:
        return torch.ones_like(value, dtype=torch.bool)
    changed = (value != before).flatten(1).any(dim=1) if value.ndim > 1 else value != before
    return changed.view(-1, *[1] * (value.ndim - 1)).expand_as(value).clone()
