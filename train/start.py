"""The weights that a network starts from: those of a run, of a bundle, or of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from train.models import IMAGENET, Normalized

_COUNTER = "num_batches_tracked"  # says nothing of a network, and not every file has it
_NEW = ("net.head.", "net.decoder.")  # what may keep its own values


def start_from(model: Normalized, weights: Mapping[str, Any]) -> list[str]:
    """Take over all weights that fit; heads and decoders may keep their own.

    Parameters
    ----------
    weights : a state_dict, of a run's best.pt, or of a bare torchvision or timm network whose
        trunk the model has as it is, whatever a bare one calls its tensors.

    Returns
    -------
    The names of the model's tensors that kept their own values.

    Raises
    ------
    ValueError : a tensor outside of head and decoder is missing, or has another shape.
    """
    own = model.state_dict()
    first = ""
    for named in _namings(own, weights):
        fitting = {
            name: value
            for name, value in named.items()
            if name in own and own[name].shape == getattr(value, "shape", None)
        }
        kept = [
            name
            for name in own
            if name not in fitting and name not in ("mean", "std") and not name.endswith(_COUNTER)
        ]
        if all(name.startswith(_NEW) for name in kept):
            if named.keys() & {"net.mean", "net.std"} or _of_a_run(weights):
                # Before each backbone had its own, all networks learnt with these.
                fitting.setdefault("mean", torch.tensor(IMAGENET.mean).view(1, 3, 1, 1))
                fitting.setdefault("std", torch.tensor(IMAGENET.std).view(1, 3, 1, 1))
            model.load_state_dict({**own, **fitting})
            return kept
        first = first or next(name for name in kept if not name.startswith(_NEW))
    raise ValueError(f"these weights are of another network: they have nothing for {first}")


def _of_a_run(weights: Mapping[str, Any]) -> bool:
    """Whether the network was one of ours, with its normalization inside."""
    return any(name.startswith("net.") for name in weights)


def _namings(own: Mapping[str, Tensor], weights: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The weights under the names that the model may have for them."""
    for prefix in ("", "net.", "net.trunk."):
        # torchvision calls its trunks "features".
        yield {prefix + name.removeprefix("features."): value for name, value in weights.items()}
    # One network by another library: its tensors come in one order, under other names.
    trunk = [n for n in own if n.startswith("net.trunk.") and not n.endswith(_COUNTER)]
    theirs = [name for name in weights if not name.endswith(_COUNTER)]
    same = [_leaf(name) for name in trunk] == [_leaf(name) for name in theirs[: len(trunk)]]
    # Behind the trunk a bare network has its last layer alone.
    if trunk and same and len(theirs) - len(trunk) <= 2:
        yield {name: weights[other] for name, other in zip(trunk, theirs, strict=False)}


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def by_class(
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    ours: Sequence[str],
    theirs: Sequence[str],
) -> dict[str, Tensor]:
    """The weights with the rows of their last layers in the order of `ours`.

    A class that they do not have keeps the model's `own` row.
    """
    if tuple(ours) == tuple(theirs):
        return dict(weights)
    arranged = {}
    for name, value in weights.items():
        mine = own.get(name)
        last = name.startswith("net.head.") and value.shape[:1] == (len(theirs),)
        if not last or mine is None or mine.shape != (len(ours), *value.shape[1:]):
            # Of the same number of classes, but of others: not what it looks like.
            if not last:
                arranged[name] = value
            continue
        rows = mine.clone()
        for row, label in enumerate(ours):
            if label in theirs:
                rows[row] = value[theirs.index(label)]
        arranged[name] = rows
    return arranged


@torch.no_grad()
def settle_norms(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Give each batch norm the statistics of what it is fed with, and let it compute the same.

    Where norms were folded into convolutions, the network's own have nothing to do: training,
    which norms by each batch, would begin with another network. Afterwards mean and deviation are
    those of `batches`, uint8 (N, S, S, 3), gain and bias undo them, and the answer in evaluation
    mode is what it was, but for rounding.
    """
    found: dict[nn.Module, list[tuple[int, Tensor, Tensor]]] = {}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double()
        count, axes = x.numel() // x.shape[1], (0, 2, 3)
        found.setdefault(norm, []).append((count, x.sum(axes), x.square().sum(axes)))

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    training = model.training
    model.eval()
    for batch in batches:
        model(batch)
    for hook in hooks:
        hook.remove()
    model.train(training)
    for norm in norms:
        if norm not in found or norm.running_mean is None or norm.running_var is None:
            continue
        count, total, squares = (sum(column) for column in zip(*found[norm], strict=True))
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        bias = norm.bias.double() - norm.running_mean.double() * gain
        norm.weight.copy_(gain * torch.sqrt(variance + norm.eps))
        norm.bias.copy_(bias + mean * gain)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
