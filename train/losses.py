"""What training minimizes. Every part is a scalar tensor; the recipe weighs them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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
    if spec.dice:
        parts["dice"] = spec.dice * soft_dice_loss(probability, masks)
    if spec.l1:
        parts["l1"] = spec.l1 * F.l1_loss(probability, masks)
    if spec.endpoint:
        parts["endpoint"] = spec.endpoint * endpoint_loss(probability, masks)
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


def soft_dice_loss(probability: Tensor, masks: Tensor) -> Tensor:
    """1 - Dice coefficient, as `soft_jaccard_loss` (Milletari et al., 3DV 2016)."""
    shared = (probability * masks).sum(dim=(1, 2, 3))
    both = (probability + masks).sum(dim=(1, 2, 3))
    return 1 - ((2 * shared + 1) / (both + 1)).mean()


def endpoint_loss(probability: Tensor, masks: Tensor) -> Tensor:
    """How far the gradients of probability and mask lie apart, the end-point error of MobileGAN.

    Both (N, 1, S, S) in 0..1. Only the outline has gradients, so the sum over the pixels is divided
    by S, not by S * S: the term does not fade in larger pictures.
    """
    difference = probability - masks
    across = difference[..., :-1, 1:] - difference[..., :-1, :-1]
    down = difference[..., 1:, :-1] - difference[..., :-1, :-1]
    # The root's slope is infinite at 0, where most pixels are.
    error = torch.sqrt(across.square() + down.square() + 1e-6) - 1e-3
    return error.sum(dim=(1, 2, 3)).mean() / masks.shape[-1]


def discriminator_loss(critic: nn.Module, image: Tensor, masks: Tensor, made: Tensor) -> Tensor:
    """Least-squares loss of the patch discriminator: drawn masks to 1, made ones to 0."""
    # A drawn mask is 0 or 1, a made one never quite: smoothing it hides that giveaway.
    drawn = masks * 0.96 + 0.02
    # One pass for both halves: a second one would disturb the gradient exchange of processes.
    verdict = critic(torch.cat([image, image]), torch.cat([drawn, made]))
    real, fake = verdict.chunk(2)
    return (real.sub(1).square().mean() + fake.square().mean()) / 2


def classifier_loss(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    spec: ClassifierLoss,
    prior: Tensor | None = None,
    by_group: Callable[[Tensor], Tensor] | None = None,
    share: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of (N, K) logits and targets, weighted by class.

    `targets` are float (N, K), each row the shares of the classes in a picture (a sum of 1).
    `prior` (N, K) is how much each class weighs in each picture's source: what weighs 0 is not
    known there, and neither gains nor loses by the picture; `spec.balanced` takes the others' out.
    `by_group` turns the losses (N,) of the pictures into what each of them weighs; `share` (N,) is
    how much of its loss each then keeps.
    """
    smooth = spec.label_smoothing
    logits = logits.float()
    if prior is None:
        wanted = targets * (1 - smooth) + smooth / targets.shape[1]
        log_probability = torch.log_softmax(logits, dim=1)
    else:
        known = prior > 0
        wanted = targets * (1 - smooth) + smooth * known / known.sum(dim=1, keepdim=True)
        # Balanced softmax (Ren et al., NeurIPS 2020).
        logits = logits + spec.balanced * prior.clamp(min=1e-12).log()
        log_probability = torch.log_softmax(logits.masked_fill(~known, -torch.inf), dim=1)
        log_probability = log_probability.masked_fill(~known, 0.0)
    each = -(wanted * log_probability)
    if spec.focal:
        # Lin et al., ICCV 2017.
        # Not quite 0 where the network is sure: a power below 1 has no slope there.
        each = each * (1 - log_probability.exp()).clamp(min=2**-24) ** spec.focal
    # Divided by the batch, not by its weights: the mean over processes is then that of the batch.
    losses = each.sum(dim=1) * (targets @ weights)
    if by_group is not None:
        losses = losses * by_group(losses)
    return (losses if share is None else losses * share).mean()


def distillation_loss(
    logits: Tensor, distilled: Tensor, temperature: float, answered: Tensor | None = None
) -> Tensor:
    """What the learner's answer still lacks of the teachers', times T^2 (Hinton et al., 2015).

    `logits` (N, K) of a classifier or (N, 1, S, S) of a segmenter; `distilled` as `distill` gives
    it, of the same shape. `answered` (N,), 0 or 1, of a classifier: the pictures that count.
    """
    logits = logits.float() / temperature
    if logits.ndim == 4:
        floor = F.binary_cross_entropy(distilled, distilled)
        difference = F.binary_cross_entropy_with_logits(logits, distilled) - floor
    else:
        each = F.kl_div(torch.log_softmax(logits, dim=1), distilled, reduction="none").sum(dim=1)
        difference = (each if answered is None else each * answered).mean()
    return difference * temperature**2


def paired_loss(logits: Tensor, distilled: Tensor, temperature: float) -> Tensor:
    """`distillation_loss` of a classifier, whose teachers do not answer for every picture.

    `distilled` (N, K) is NaN at the classes that they do not know, all over where they have no
    answer. The learner's is taken over the known classes alone; a picture without any counts 0.
    """
    known = distilled.isfinite()
    # Of a row without any, all: no softmax of nothing, whose slope is no number.
    open_to = known | ~known.any(dim=1, keepdim=True)
    logits = (logits.float() / temperature).masked_fill(~open_to, -torch.inf)
    log_probability = torch.log_softmax(logits, dim=1).masked_fill(~known, 0.0)
    wanted = distilled.masked_fill(~known, 0.0)
    # Divided by the batch, as the cross-entropy is.
    return F.kl_div(log_probability, wanted, reduction="batchmean") * temperature**2


@torch.no_grad()
def distill(answers: list[Tensor], temperature: float) -> Tensor:
    """The mean of the teachers' softened probabilities, from their logits."""
    soften = torch.sigmoid if answers[0].ndim == 4 else partial(torch.softmax, dim=1)
    return torch.stack([soften(answer.float() / temperature) for answer in answers]).mean(dim=0)


def class_weights(counts: Tensor, balance: float) -> Tensor:
    """A weight for each class, (K,): count ** -balance, scaled so that samples average 1.

    `counts` are how often each is drawn, whole numbers or not. A class without a sample weighs
    nothing: none can be lost.
    """
    counts = counts.float()
    weights = torch.where(counts > 0, counts.clamp(min=1e-12) ** -balance, 0.0)
    return weights * counts.sum() / (weights * counts).sum().clamp(min=1e-12)
