"""Trained networks that another one learns from, and the prior that their answers carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dermedge import UserError
from train.models import Normalized
from train.origins import origin, settings
from train.recipe import Recipe
from train.sources import Priors

_NEVER = 1e-6  # a prior below it is 0, as runs note it


class Teacher(nn.Module):
    """A classifier in evaluation mode: its logits in another order, each moved by as much."""

    model: Normalized

    def __init__(self, model: Normalized, order: Sequence[int], by: np.ndarray):
        super().__init__()
        self.model = model
        self.register_buffer("order", torch.tensor(order))
        self.register_buffer("by", torch.from_numpy(by).float())
        self.order: Tensor
        self.by: Tensor

    def forward(self, image: Tensor, metadata: Tensor | None = None, blocks: int = 0) -> Tensor:
        found: Tensor = self.model(image, metadata, blocks)
        return found[:, self.order] + self.by

    def early(self, image: Tensor, blocks: int) -> Tensor:
        """As of the classifier itself."""
        return self.model.early(image, blocks)


def open_teacher(
    path: str,
    recipe: Recipe,
    labels: Sequence[str],
    priors: Priors | None,
    warn: Callable[[str], None],
) -> nn.Module:
    """A trained network to learn `labels` from; `priors` are a classifier's, None of others.

    UserError where its answers mean something else.
    """
    source = origin(path)
    model, theirs = source.network(recipe.kind)
    shared = [label for label in labels if label in theirs]
    if model.kind != recipe.kind:
        raise UserError(f"the teacher {path} is a {model.kind}, not a {recipe.kind}")
    if model.metadata != recipe.fields:
        raise UserError(
            f'the teacher {path} takes metadata="{",".join(model.metadata)}", and this network '
            f'"{",".join(recipe.fields)}": set metadata as the teacher has it, or leave it out'
        )
    if unknown := [label for label in theirs if label not in labels]:
        raise UserError(
            f"the teacher {path} knows classes that are not learnt here ({', '.join(unknown)}): "
            "add pictures of them, or take a teacher without them"
        )
    own = source.preprocessing(recipe.kind)
    if own != recipe.preprocessing:
        raise UserError(
            f"the teacher {path} was trained with another preprocessing: set "
            f"{settings(own, recipe.preprocessing)}"
        )
    model.requires_grad_(False)
    if priors is None:
        return model
    moved = moved_by(path, recipe, labels, priors, warn)
    by = np.array([moved[label] for label in shared])
    return Teacher(model, [theirs.index(label) for label in shared], by)


def moved_by(
    path: str,
    recipe: Recipe,
    labels: Sequence[str],
    priors: Priors,
    warn: Callable[[str], None],
) -> dict[str, float]:
    """By class, what to add to a trained classifier's logits so that they carry the prior here.

    One that states none is taken to be trained as this recipe would without `balanced`. Of a bare
    file of weights nothing is known: {}.
    """
    source = origin(path)
    if source.run is None and source.bundle is None:
        return {}
    theirs = source.labels(recipe.kind)
    shared = [label for label in labels if label in theirs]
    here = [labels.index(label) for label in shared]
    own = priors.carried(recipe.balanced)[here]
    stated = source.prior
    if not stated and shared and len(priors.by_source) > 1:
        warn(
            f"{path} states no prior of its classes: it is taken to carry that of the pictures "
            "here, which moves its answers where it learnt from others"
        )
    held = np.array([stated[k] for k in shared]) if stated else priors.carried(0.0)[here]
    by = np.log(np.maximum(own, 1e-12) / np.maximum(held, 1e-12))
    # Of a class that was never drawn, there or here, no prior is known: its score would be moved
    # above all others, or below.
    by[np.minimum(own, held) < _NEVER] = 0.0
    return dict(zip(shared, by.tolist(), strict=True))


def learnt(recipe: Recipe, labels: Sequence[str]) -> list[int] | None:
    """Where the classes that the teachers know lie; None: they know all, or there are none."""
    if recipe.kind != "classifier" or not recipe.teachers:
        return None
    answers = [origin(path).labels(recipe.kind) for path in recipe.teachers]
    shared = known_by_all(answers, labels)
    return None if shared == tuple(labels) else [labels.index(label) for label in shared]


def known_by_all(answers: Sequence[Sequence[str]], labels: Sequence[str]) -> tuple[str, ...]:
    """The classes of `labels` that teachers with these classes know. UserError: not all the same"""
    known = {tuple(label for label in labels if label in theirs) for theirs in answers}
    if len(known) > 1:
        raise UserError("the teachers know different classes: each picture needs one answer")
    (shared,) = known
    return shared
