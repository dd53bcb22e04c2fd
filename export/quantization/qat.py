"""Quantization-aware training: weights that bear INT8, by torchao's PT2E.

The network learns to answer as it did in float (distillation, no label is needed) while torchao
rounds its weights and activations at each step (Jacob et al., CVPR 2018). Only the weights are
kept: `export.quantization.int8` calibrates and quantizes them as it does all others.
"""

from __future__ import annotations

import copy
import math
import sys
import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchao.quantization.pt2e import allow_exported_model_train_eval
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)
from tqdm import tqdm

from train.models import Normalized

BATCH = 16
LEARNING_RATE = 1e-5
TEMPERATURE = 2.0

Logits = Tensor | Sequence[Tensor]  # of one output, or of mask and class


def train_quantized(
    model: Normalized, feeds: Sequence[dict[str, np.ndarray]], steps: int
) -> Normalized:
    """A copy of a trained network whose weights were trained on to be quantized.

    Parameters
    ----------
    model : in float, its batch norms folded or in evaluation mode.
    feeds : training pictures as the exported graph takes them.
    steps : of `BATCH` pictures, with Adam and half a cosine down from `LEARNING_RATE`.
    """
    teacher = copy.deepcopy(model).eval()
    example = _batch(feeds, range(min(BATCH, len(feeds))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dynamic = {0: torch.export.Dim("batch", min=2)}
        exported = torch.export.export(
            copy.deepcopy(model).eval(), example, dynamic_shapes=tuple(dynamic for _ in example)
        ).module()
        quantizer = X86InductorQuantizer().set_global(
            get_default_x86_inductor_quantization_config(is_qat=True)
        )
        student = prepare_qat_pt2e(exported, quantizer)
    allow_exported_model_train_eval(student)
    student.eval()  # dropout off; torchao's observers go on observing
    trained = [value for value in student.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE)
    rng = np.random.default_rng(0)
    for step in tqdm(range(steps), desc="quantization-aware training", file=sys.stderr):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2
        rows = rng.choice(len(feeds), min(BATCH, len(feeds)), replace=False)
        batch = _varied(_batch(feeds, rows), rng)
        with torch.no_grad():
            target = teacher(*batch)
        loss = _distillation_loss(student(*batch), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained_model = copy.deepcopy(model)
    weights = dict(student.named_parameters())
    with torch.no_grad():
        for name, value in trained_model.named_parameters():
            value.copy_(weights[name])
    return trained_model


def _batch(feeds: Sequence[dict[str, np.ndarray]], rows) -> tuple[Tensor, ...]:
    return tuple(
        torch.from_numpy(np.concatenate([feeds[row][name] for row in rows])) for name in feeds[0]
    )


def _varied(batch: tuple[Tensor, ...], rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Pictures mirrored, turned and blended with one another.

    Of its own training pictures a network is sure; how it doubts is learnt from those between.
    """
    images, *others = batch
    images = images.flip([axis for axis in (1, 2) if rng.random() < 0.5])
    if rng.random() < 0.5:
        images = images.transpose(1, 2)
    share = rng.uniform(0.5, 1)
    blended = share * images.float() + (1 - share) * images.flip(0).float()
    return (blended.round().to(torch.uint8), *others)


def _distillation_loss(logits: Logits, target: Logits) -> Tensor:
    """How far logits are from those of the float network: of classes, masks, or both."""
    if not isinstance(logits, Tensor):
        pairs = zip(logits, target, strict=True)
        return torch.stack([_distillation_loss(one, other) for one, other in pairs]).sum()
    assert isinstance(target, Tensor)
    if logits.ndim == 4:
        return F.binary_cross_entropy_with_logits(logits, torch.sigmoid(target))
    soft = F.softmax(target / TEMPERATURE, dim=1)
    return F.kl_div(F.log_softmax(logits / TEMPERATURE, dim=1), soft, reduction="batchmean")
