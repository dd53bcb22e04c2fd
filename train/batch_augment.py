"""What training does to a whole batch of prepared pictures at once, wherever its tensors lie.

The same views as `train.augment` makes one by one: the same strengths, order and distributions,
from other random numbers. Everything is element by element, so that a view is the same whatever
else is in its batch; it may differ by rounding from device to device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dermedge.data.synthetic.artefacts import hair
from train.recipe import Augmentation

HAIR_LAYERS = 512  # drawn once; each is seen in eight positions

_COLUMNS = {
    "mirror": 2,
    "moves": 4,
    "tones": 5,
    "blurred": 1,
    "sigma": 1,
    "chances": 3,
    "hair": 4,
    "erase": 6,
}


@dataclass(frozen=True)
class Draws:
    """The random numbers of N views, each used or not."""

    mirror: np.ndarray  # bool (N, 2): left-right, top-bottom
    moves: np.ndarray  # (N, 4), -1 to 1: angle, growth, shift along, shift across
    tones: np.ndarray  # (N, 5), -1 to 1: brightness, gamma, three channels
    blurred: np.ndarray  # (N, 1), 0 to 1: below the probability, it happens
    sigma: np.ndarray  # (N, 1), px at 224 px
    chances: np.ndarray  # (N, 3), 0 to 1, of colour constancy, hair and erasing
    hair: np.ndarray  # (N, 4), 0 to 1: which layer, and its position
    erase: np.ndarray  # (N, 6), 0 to 1: area, stretch, top, left, and where its noise lies
    more: np.ndarray  # (N, M), 0 to 1, for the caller

    def rows(self, indices: np.ndarray) -> Draws:
        return Draws(**{name: values[indices] for name, values in vars(self).items()})


def draw_epoch(seed: int, epoch: int, count: int, more: int = 0) -> Draws:
    """Those of all pictures of one epoch; row i depends on seed, epoch, `more` and i alone."""
    # The loader's seeds end with the picture's number, which is never this one.
    rng = np.random.default_rng((seed, epoch, 2**32 - 1))
    numbers = rng.random((count, sum(_COLUMNS.values()) + more))
    parts = np.split(numbers, np.cumsum(list(_COLUMNS.values())), axis=1)
    drawn: dict[str, np.ndarray] = dict(zip((*_COLUMNS, "more"), parts, strict=True))
    drawn["mirror"] = drawn["mirror"] < 0.5
    drawn["moves"], drawn["tones"] = (2 * drawn[name] - 1 for name in ("moves", "tones"))
    drawn["sigma"] = 0.4 + 0.8 * drawn["sigma"]
    return Draws(**drawn)


@dataclass(frozen=True)
class Overlays:
    """What is laid over pictures, drawn once and then looked up; on the device of the batches."""

    hair: Tensor  # uint8 (L, size, size) of alpha
    hair_colors: Tensor  # float32 (L, 3), 0 to 255
    hair_strengths: Tensor  # float32 (L,), 0 to 1
    noise: Tensor  # uint8 (2 * size, 2 * size, 3)

    @classmethod
    def drawn(cls, spec: Augmentation, size: int, seed: int, device: torch.device) -> Overlays:
        """Empty ones of what `spec` does not ask for."""
        rng = np.random.default_rng((seed, size))
        # As if the picture showed two centimetres of skin, as the loader has it.
        hairs = [hair(rng, (size, size), size / 20) for _ in range(HAIR_LAYERS if spec.hair else 0)]
        side = 2 * size if spec.erase else 0
        return cls(
            torch.from_numpy(
                np.stack([layer for layer, _, _ in hairs])
                if hairs
                else np.zeros((0, size, size), np.uint8)
            ).to(device),
            255 * torch.tensor([color for _, color, _ in hairs]).view(-1, 3).to(device),
            torch.tensor([float(strength) for _, _, strength in hairs]).to(device),
            torch.from_numpy(rng.integers(0, 256, (side, side, 3), np.uint8)).to(device),
        )


def augment_batch(
    images: Tensor, masks: Tensor | None, spec: Augmentation, draws: Draws, overlays: Overlays
) -> tuple[Tensor, Tensor | None]:
    """One random view of each prepared picture.

    Parameters
    ----------
    images : uint8 (N, size, size, 3) RGB, on any device.
    masks : uint8 (N, size, size), 0 or 255, moved along with the pictures; or None.
    draws : of these N pictures.

    Returns
    -------
    New tensors of the same shapes and dtypes.
    """
    planes = images.permute(0, 3, 1, 2)
    if masks is not None:
        planes = torch.cat([planes, masks[:, None]], dim=1)
    values = planes.to(torch.float32, memory_format=torch.contiguous_format)
    if spec.flip or spec.rotation or spec.scale or spec.shift:
        values = _moved(values, spec, draws)
    values, moved = values[:, :3], values[:, 3] if masks is not None else None
    for happens, change in (
        (draws.chances[:, 0] < spec.constancy, _balanced),
        (draws.chances[:, 1] < spec.hair, _hairy),
        (np.full(len(values), spec.color > 0), _toned),
        (draws.blurred[:, 0] < spec.blur, _blurred),
        (draws.chances[:, 2] < spec.erase, _erased),
    ):
        # Known on the host: nothing waits for the device.
        if happens.all() and len(happens):
            values = change(values, spec, draws, overlays)
        elif happens.any():
            rows = np.flatnonzero(happens)
            at = on_device(rows, values.device)
            values[at] = change(values[at], spec, draws.rows(rows), overlays)
    out = values.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return out, None if moved is None else (moved > 127).to(torch.uint8) * 255


def inverse_maps(spec: Augmentation, draws: Draws, size: int) -> np.ndarray:
    """Where each px of a view comes from: (N, 2, 3), from its (x, y, 1) to the picture's (x, y)."""
    count, middle = len(draws.moves), (size - 1) / 2
    angle = np.deg2rad(draws.moves[:, 0] * spec.rotation)
    growth = (1 - spec.scale) ** draws.moves[:, 1]
    along, across = growth * np.cos(angle), growth * np.sin(angle)
    forward = np.tile(np.eye(3), (count, 1, 1))
    # As cv2.getRotationMatrix2D: counter-clockwise about the middle, y downwards.
    forward[:, 0, 0], forward[:, 0, 1] = along, across
    forward[:, 1, 0], forward[:, 1, 1] = -across, along
    shift = spec.shift * size * draws.moves[:, 2:4]
    forward[:, :2, 2] = middle + shift - middle * forward[:, :2, :2].sum(axis=2)
    if spec.flip:
        turn = np.tile(np.eye(3), (count, 1, 1))
        for axis in (0, 1):
            turn[draws.mirror[:, axis], axis, axis] = -1
            turn[draws.mirror[:, axis], axis, 2] = size - 1
        forward = forward @ turn
    return np.linalg.inv(forward)[:, :2]


def _moved(values: Tensor, spec: Augmentation, draws: Draws) -> Tensor:
    size = values.shape[-1]
    middle = (size - 1) / 2
    maps = inverse_maps(spec, draws, size)
    # To the units of grid_sample: -1 and 1 at the centres of the outer px.
    maps = maps / middle
    maps[:, :, 2] -= 1
    factors = _on(values, maps).view(-1, 2, 3, 1, 1)
    place = torch.arange(size, dtype=torch.float32, device=values.device)
    column, row = place.view(1, 1, 1, size), place.view(1, 1, size, 1)
    grid = factors[:, :, 0] * column + factors[:, :, 1] * row + factors[:, :, 2]
    moved = F.grid_sample(values, grid.permute(0, 2, 3, 1), "bilinear", "zeros", True)
    return moved.round_()


def _balanced(values: Tensor, *_: object) -> Tensor:
    """Shades of gray, as `dermedge.image.preprocess.shades_of_gray`."""
    light = (values / 255).pow(6).mean(dim=(2, 3), keepdim=True).pow(1 / 6)
    target = light.square().mean(dim=1, keepdim=True).sqrt()
    gains = torch.where(light > 0, target / light, 1.0)
    return (values * gains).round_().clamp_(0, 255)


def _hairy(values: Tensor, _: Augmentation, draws: Draws, overlays: Overlays) -> Tensor:
    numbers = (draws.hair[:, 0] * len(overlays.hair)).astype(np.int64)
    which = on_device(numbers, values.device)
    layers = overlays.hair[which]
    turned = on_device(draws.hair[:, 1:] < 0.5, values.device).view(-1, 3, 1, 1)
    for number, other in enumerate((lambda x: x.flip(1), lambda x: x.flip(2), lambda x: x.mT)):
        layers = torch.where(turned[:, number], other(layers), layers)
    alpha = layers[:, None] * (overlays.hair_strengths[which] / 255).view(-1, 1, 1, 1)
    color = overlays.hair_colors[which].view(-1, 3, 1, 1)
    return (values + alpha * (color - values)).trunc_()


def _toned(values: Tensor, spec: Augmentation, draws: Draws, _: Overlays) -> Tensor:
    """Gamma for contrast, gains for light and its colour. Black stays black."""
    numbers = draws.tones * spec.color
    gamma = np.exp(numbers[:, 1:2])
    gains = np.exp(numbers[:, :1] + 0.3 * numbers[:, 2:]) * 255 ** (1 - gamma)
    values = values.pow(_on(values, gamma).view(-1, 1, 1, 1))
    return values.mul_(_on(values, gains).view(-1, 3, 1, 1)).round_().clamp_(0, 255)


def _blurred(values: Tensor, _: Augmentation, draws: Draws, __: Overlays) -> Tensor:
    """As cv2.GaussianBlur with ksize (0, 0), which cuts the bell off at three sigma for uint8."""
    size = values.shape[-1]
    sigma = draws.sigma * max(1.0, size / 224)
    radius = (np.rint(sigma * 6 + 1).astype(int) | 1) // 2
    reach = int(radius.max())
    steps = np.arange(-reach, reach + 1)
    taps = np.exp(-(steps**2) / (2 * sigma**2)) * (np.abs(steps) <= radius)
    weights = _on(values, taps / taps.sum(axis=1, keepdims=True))
    for axis in (2, 3):
        edges = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        wide = F.pad(values, edges, "reflect")
        values = torch.zeros_like(values)
        for at in range(2 * reach + 1):
            values += wide.narrow(axis, at, size) * weights[:, at].view(-1, 1, 1, 1)
    return values.round_()


def _erased(values: Tensor, _: Augmentation, draws: Draws, overlays: Overlays) -> Tensor:
    """A rectangle of 2 to 25 % filled with noise (Zhong et al., AAAI 2020)."""
    size = values.shape[-1]
    area = 0.02 + 0.23 * draws.erase[:, 0]
    stretch = np.exp(2 * draws.erase[:, 1] - 1)
    sides = np.stack([area * stretch, area / stretch], axis=1)
    sides = (size * np.minimum(1.0, np.sqrt(sides))).astype(np.int64)  # (N, 2): height, width
    first = (draws.erase[:, 2:4] * (size - sides + 1)).astype(np.int64)
    origin = (draws.erase[:, 4:6] * (size + 1)).astype(np.int64)
    place = torch.arange(size, device=values.device)
    begin, end, shift = (
        on_device(numbers, values.device).unsqueeze(2) for numbers in (first, first + sides, origin)
    )
    inside = (place >= begin) & (place < end)  # (N, 2, size)
    rows, columns = (shift + place).unbind(1)
    noise = overlays.noise[rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    hit = inside[:, 0, :, None] & inside[:, 1, None, :]
    return torch.where(hit[:, None], noise.to(values.dtype), values)


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy there, or the array itself where that is the host; nothing waits for a GPU."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        # From other memory PyTorch would first wait for all that the GPU has to do.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _on(values: Tensor, numbers: np.ndarray) -> Tensor:
    return on_device(numbers.astype(np.float32), values.device)
