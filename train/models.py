"""The registry of networks: a network that is registered here is trained, exported and tested."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.mobilegan import MobileGan

# ImageNet statistics, for RGB in 0..255; every network here is fed with them.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


class Normalized(nn.Module):
    """A network with its normalization inside, so that no caller can normalize wrongly.

    `forward` takes uint8 (or float, 0..255) RGB (N, S, S, 3) and returns logits: (N, 1, S, S) for
    a segmenter, (N, K) for a classifier.
    """

    def __init__(self, net: nn.Module, kind: str, pretrained: bool):
        super().__init__()
        self.net = net
        self.kind = kind
        self.pretrained = pretrained  # whether it started from ImageNet weights
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        # TensorRT parses a uint8 input only where the cast comes first.
        planes = image.to(torch.float32).permute(0, 3, 1, 2)
        return self.net((planes - self.mean) / self.std)


@dataclass(frozen=True)
class Entry:
    """How to build one network: `build(outputs, pretrained)` gives logits for NCHW float."""

    kind: str  # "segmenter" or "classifier"
    build: Callable[[int, bool], nn.Module]
    has_weights: bool = True  # whether ImageNet weights exist for it


def build_model(name: str, labels: Sequence[str] = (), pretrained: str = "no") -> Normalized:
    """Build a registered network.

    Parameters
    ----------
    name : a key of `MODELS`.
    labels : the classes of a classifier, at least two; ignored by segmenters.
    pretrained : "no"; "imagenet": ImageNet weights, or random ones (said on stderr, and in
        `.pretrained`) where they cannot be loaded; "required": an error instead.

    Raises
    ------
    ValueError : no such network, too few labels, or required weights that cannot be had.
    """
    if name not in MODELS:
        raise ValueError(f"no model '{name}'; there are: {', '.join(MODELS)}")
    entry = MODELS[name]
    if entry.kind == "classifier" and len(labels) < 2:
        raise ValueError(f"a classifier needs at least two labels, got {list(labels)}")
    outputs = len(labels) if entry.kind == "classifier" else 1
    if pretrained == "no":
        return Normalized(entry.build(outputs, False), entry.kind, False)
    if not entry.has_weights:
        raise ValueError(f"there are no ImageNet weights for {name}: set pretrained = 'no'")
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # a clinic's firewall swallows packets; torch.hub waits for ever
    try:
        return Normalized(entry.build(outputs, True), entry.kind, True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if pretrained == "required":
            raise ValueError(
                f"ImageNet weights for {name} cannot be loaded ({reason}): go online once, set "
                "TORCH_HOME to a folder that has them, or set pretrained = 'imagenet' or 'no'"
            ) from error
        print(
            f"ImageNet weights for {name} cannot be loaded ({reason}): "
            "training starts from random weights",
            file=sys.stderr,
        )
        return Normalized(entry.build(outputs, False), entry.kind, False)
    finally:
        socket.setdefaulttimeout(timeout)


@dataclass(frozen=True)
class Complexity:
    parameters: int
    macs: int  # multiply-accumulate operations for one picture


def complexity(model: Normalized, size: int) -> Complexity:
    """Count parameters, and the operations that one picture of `size` x `size` px costs."""
    from torch.utils.flop_counter import FlopCounterMode

    was_training = model.training
    model.eval()
    device = model.mean.device
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, size, size, 3, dtype=torch.uint8, device=device))
    model.train(was_training)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(parameters=parameters, macs=counter.get_total_flops() // 2)


def _mobilegan(outputs: int, pretrained: bool) -> nn.Module:
    return MobileGan()


def _unet(outputs: int, pretrained: bool) -> nn.Module:
    import segmentation_models_pytorch as smp
    from torchvision.models import MobileNet_V2_Weights

    net = smp.Unet("mobilenet_v2", encoder_weights=None, classes=outputs)
    if pretrained:
        # Its encoder has torchvision's layout, so one download serves classifier and U-Net.
        weights = MobileNet_V2_Weights.IMAGENET1K_V1
        net.encoder.load_state_dict(weights.get_state_dict(progress=False))
    return net


class _MaskOnly(nn.Module):
    """torchvision's segmenters return a dict; a network here returns its logits."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)["out"]


def _lraspp(outputs: int, pretrained: bool) -> nn.Module:
    from torchvision.models import MobileNet_V3_Large_Weights
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    weights = MobileNet_V3_Large_Weights.IMAGENET1K_V1 if pretrained else None
    net = lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=weights, num_classes=outputs, progress=False
    )
    return _MaskOnly(net)


def _classifier(name: str) -> Callable[[int, bool], nn.Module]:
    def build(outputs: int, pretrained: bool) -> nn.Module:
        from torchvision.models import get_model

        weights = "IMAGENET1K_V1" if pretrained else None
        net = get_model(name, weights=weights, progress=False)
        last = net.classifier[-1]
        net.classifier[-1] = nn.Linear(last.in_features, outputs)
        nn.init.normal_(net.classifier[-1].weight, std=0.01)
        nn.init.zeros_(net.classifier[-1].bias)
        return net

    return build


MODELS: dict[str, Entry] = {
    "mobilegan": Entry("segmenter", _mobilegan, has_weights=False),
    "unet": Entry("segmenter", _unet),
    "lraspp_mobilenet_v3_large": Entry("segmenter", _lraspp),
    "mobilenet_v2": Entry("classifier", _classifier("mobilenet_v2")),
    "mobilenet_v3_small": Entry("classifier", _classifier("mobilenet_v3_small")),
    "mobilenet_v3_large": Entry("classifier", _classifier("mobilenet_v3_large")),
}
