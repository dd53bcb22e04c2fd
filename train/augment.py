"""What training does to a prepared picture, so that no two epochs show it alike."""

from __future__ import annotations

import math
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor

from dermedge.data.synthetic.artefacts import hair
from dermedge.image.preprocess import shades_of_gray
from train.recipe import Augmentation


def augment(
    image: np.ndarray, mask: np.ndarray | None, spec: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """One random view of a prepared picture.

    Parameters
    ----------
    image : uint8 (size, size, 3) RGB.
    mask : uint8 (size, size), 0 or 255, moved along with the picture; or None.
    """
    size = image.shape[0]
    # Every number is drawn, used or not: one strength never shifts the others' random numbers.
    mirror = rng.random(2) < 0.5
    angle, growth, along, across = rng.uniform(-1, 1, 4)
    tones = rng.uniform(-1, 1, 5)
    blurred, sigma = rng.random(), rng.uniform(0.4, 1.2)
    balanced, hairy, erased = rng.random(3)
    hair_seed, erase_seed = rng.integers(2**32, size=2)

    matrix = np.eye(3)
    matrix[:2] = cv2.getRotationMatrix2D(
        ((size - 1) / 2, (size - 1) / 2),
        float(angle * spec.rotation),
        float((1 - spec.scale) ** growth),
    )
    matrix[:2, 2] += spec.shift * size * np.array([along, across])
    if spec.flip:
        for axis in np.flatnonzero(mirror):
            turn = np.eye(3)
            turn[axis, axis], turn[axis, 2] = -1, size - 1
            matrix = matrix @ turn
    warp = partial(cv2.warpAffine, M=matrix[:2], dsize=(size, size), flags=cv2.INTER_LINEAR)
    image = warp(image)
    if balanced < spec.constancy:
        image = shades_of_gray(image)
    if hairy < spec.hair:
        image = _with_hair(image, np.random.default_rng(hair_seed))
    if spec.color > 0:
        image = cv2.LUT(image, _tones(spec.color, tones))
    if blurred < spec.blur:
        image = cv2.GaussianBlur(image, (0, 0), sigma * max(1.0, size / 224))
    if erased < spec.erase:
        _erase(image, np.random.default_rng(erase_seed))
    if mask is not None:
        mask = (warp(mask) > 127).astype(np.uint8) * 255
    return image, mask


def mix(batch: dict[str, Tensor], spec: Augmentation) -> None:
    """Mix each picture of a batch, with its classes and what else it has, with another, in place.

    By mixup or CutMix, as the strengths in `spec` say; by either, where both are above 0. Takes
    its random numbers from torch's generator.
    """
    images = batch["image"]
    order = torch.randperm(len(images), device=images.device)
    cut = spec.cutmix and (not spec.mixup or torch.rand(()).item() < 0.5)
    alpha = spec.cutmix if cut else spec.mixup
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    if cut:
        size = images.shape[1]
        side = round(size * math.sqrt(1 - share))
        top, left = torch.randint(0, size - side + 1, (2,)).tolist()
        mixed = images.clone()
        window = (slice(None), slice(top, top + side), slice(left, left + side))
        mixed[window] = images[order][window]
        share = 1 - (side / size) ** 2
    else:
        mixed = share * images.float() + (1 - share) * images[order].float()
    batch["image"] = mixed
    for name in batch.keys() & {"classes", "metadata", "prior", "group"}:
        batch[name] = share * batch[name] + (1 - share) * batch[name][order]


def _with_hair(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # As if the picture showed two centimetres of skin.
    layer, color, strength = hair(rng, image.shape[:2], image.shape[0] / 20)
    alpha = layer[..., None] * np.float32(strength / 255)
    return (image + alpha * (np.array(color, np.float32) * 255 - image)).astype(np.uint8)


def _erase(image: np.ndarray, rng: np.random.Generator) -> None:
    """Fill a rectangle of 2 to 25 % with noise (Zhong et al., AAAI 2020), in place."""
    size = image.shape[0]
    area, stretch = rng.uniform(0.02, 0.25), np.exp(rng.uniform(-1, 1))
    height, width = (int(size * min(1.0, np.sqrt(area * s))) for s in (stretch, 1 / stretch))
    top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
    noise = rng.integers(0, 256, (height, width, 3), np.uint8)
    image[top : top + height, left : left + width] = noise


def _tones(strength: float, numbers: np.ndarray) -> np.ndarray:
    """A look-up table: gamma for contrast, gains for light and its colour. Black stays black."""
    brightness, gamma, *channels = numbers * strength
    base = np.linspace(0, 1, 256) ** np.exp(gamma)
    gains = np.exp(brightness + 0.3 * np.array(channels))
    return np.clip(np.rint(255 * base[:, None, None] * gains), 0, 255).astype(np.uint8)
