"""What training minimizes. Every part is a scalar tensor; the recipe weighs them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.recipe import ClassifierLoss, SegmenterLoss


def segmenter_losses(
    logits: Tensor, masks: Tensor, image: Tensor, critic: nn.Module | None, spec: SegmenterLoss
) -> dict[str, Tensor]:
    """The weighted parts of a segmenter's loss.

    Parameters
    ----------
    logits, masks : float (N, 1, S, S); masks in 0..1.
    image : uint8 (N, S, S, 3), what the critic sees beside the mask.
    critic : the patch discriminator with its weights frozen; None without adversarial training.
    """
    logits = logits.float()
    probability = torch.sigmoid(logits)
    parts = {}
    if spec.bce:
        parts["bce"] = spec.bce * F.binary_cross_entropy_with_logits(logits, masks)
    if spec.jaccard:
        parts["jaccard"] = spec.jaccard * soft_jaccard_loss(probability, masks)
    if spec.l1:
        parts["l1"] = spec.l1 * F.l1_loss(probability, masks)
    if critic is not None:
        # Least squares (Mao et al., ICCV 2017): a sure discriminator still gives a gradient.
        parts["adversarial"] = spec.adversarial * critic(image, probability).sub(1).square().mean()
    return parts


def soft_jaccard_loss(probability: Tensor, masks: Tensor) -> Tensor:
    """1 - Jaccard index of each picture with probabilities in place of sets, averaged.

    Both (N, 1, S, S) in 0..1. An empty mask that is predicted empty counts as perfect.
    """
    shared = (probability * masks).sum(dim=(1, 2, 3))
    union = (probability + masks).sum(dim=(1, 2, 3)) - shared
    return 1 - ((shared + 1) / (union + 1)).mean()


def discriminator_loss(critic: nn.Module, image: Tensor, masks: Tensor, made: Tensor) -> Tensor:
    """Least-squares loss of the patch discriminator: drawn masks to 1, made ones to 0."""
    # A drawn mask is 0 or 1, a made one never quite: smoothing it hides that giveaway.
    drawn = masks * 0.96 + 0.02
    # One pass for both halves: a second one would disturb the gradient exchange of processes.
    verdict = critic(torch.cat([image, image]), torch.cat([drawn, made]))
    real, fake = verdict.chunk(2)
    return (real.sub(1).square().mean() + fake.square().mean()) / 2


def classifier_loss(
    logits: Tensor, targets: Tensor, weights: Tensor, spec: ClassifierLoss
) -> Tensor:
    """Cross-entropy of (N, K) logits and (N,) class numbers, weighted by class."""
    each = F.cross_entropy(
        logits.float(), targets, reduction="none", label_smoothing=spec.label_smoothing
    )
    # Divided by the batch, not by its weights: the mean over processes is then that of the batch.
    return (each * weights[targets]).mean()


def class_weights(counts: Tensor, balance: float) -> Tensor:
    """A weight for each class, (K,): count ** -balance, scaled so that samples average 1."""
    weights = counts.float() ** -balance
    return weights * counts.sum() / (weights * counts).sum()
