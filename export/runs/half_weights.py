"""Weights as half precision holds them: rounded, batch norm folded into the convolutions."""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from export import ExportError

Network = TypeVar("Network", bound=nn.Module)


def fold_norms(model: Network, image: Tensor) -> Network:
    """A copy in which each batch norm that follows a convolution is part of that convolution.

    Of the norm only what it does beside norming is left. Which one follows which is observed on
    `image`, uint8 (1, S, S, 3). ExportError where the result would be another network.
    """
    exact = copy.deepcopy(model).eval().double()
    expected = _answers(exact, image)
    made: list[tuple[Tensor, nn.Conv2d]] = []  # the tensors too: a freed one's id is used again
    pairs: list[tuple[nn.BatchNorm2d, nn.Conv2d]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made.append((output, module))
        else:
            norm = cast(nn.BatchNorm2d, module)
            pairs.extend((norm, conv) for tensor, conv in made if tensor is inputs[0])

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(note) for m in exact.modules() if isinstance(m, kinds)]
    _answers(exact, image)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for norm, conv in pairs:
            _fold(norm, conv)
    plain = {norm for norm, _ in pairs if type(norm) is nn.BatchNorm2d}  # timm's have activations
    for parent in list(exact.modules()):
        for name, child in parent.named_children():
            if child in plain:
                setattr(parent, name, nn.Identity())
    # A convolution that also fed something else than its norm would show here.
    for one, other in zip(_answers(exact, image), expected, strict=True):
        if not torch.allclose(one, other, rtol=1e-6, atol=1e-9):
            raise ExportError(
                "its batch norm cannot be folded into the convolutions: export with --weights full"
            )
    return exact.float()


def _answers(model: nn.Module, image: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        found = model(image)
    return [found] if isinstance(found, Tensor) else list(found)


def _fold(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> None:
    if norm.running_mean is None or norm.running_var is None:
        raise ExportError("a batch norm without statistics cannot be folded: --weights full")
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = 0 if conv.bias is None else conv.bias
    conv.bias = nn.Parameter((bias - norm.running_mean) * gain + norm.bias)
    conv.weight.mul_(gain.view(-1, 1, 1, 1))
    norm.reset_running_stats()
    norm.reset_parameters()
    norm.eps = 0.0


def round_to_half(model: nn.Module) -> None:
    """Give every weight the nearest value that half precision has. ExportError on overflow."""
    for name, values in model.named_parameters():
        rounded = values.data.half().float()
        if not torch.isfinite(rounded).all():
            raise ExportError(f"{name} is too large for half precision: export with --weights full")
        values.data = rounded
