"""The registry of networks: a network that is registered here is trained, exported and tested."""

from __future__ import annotations

import pickle
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dermedge.metadata import width
from train.mobilegan import (
    Decoder,
    MobileGan,
    MobileNetEncoder,
    PlainEncoder,
    Widen,
    mobilenet_scales,
)


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation, for RGB in 0..255, that a backbone's ImageNet weights were trained with.

    Other ones cost accuracy: EfficientNet-Lite2 loses an eighth of its top-1 by ImageNet's.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Statistics((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
# TensorFlow's EfficientNet-Lite: quantized to signed bytes from the first.
LITE = Statistics((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))


class Normalized(nn.Module):
    """A network with its normalization inside, so that no caller can normalize wrongly.

    `forward` takes uint8 (or float, 0..255) RGB (N, S, S, 3), and the numbers of
    `dermedge.metadata.encode` (N, M) where the network was built for metadata; absent: zeros. It
    gives logits: (N, 1, S, S) of a segmenter, (N, K) of a classifier, both of a multitask network.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        kind: str,
        pretrained: bool,
        metadata: Sequence[str] = (),
        statistics: Statistics = IMAGENET,
    ):
        super().__init__()
        self.net = net
        self.kind = kind
        self.pretrained = pretrained  # whether it started from ImageNet weights
        self.metadata = tuple(metadata)
        # Buffers: weights keep the statistics that they were trained with, whatever is the
        # registry's by then.
        self.register_buffer("mean", torch.tensor(statistics.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(statistics.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor, metadata: Tensor | None = None, blocks: int = 0):
        """With `blocks`, `image` is what `early` gave for as many."""
        if blocks:
            late: Callable[..., Tensor] = self.net.late  # type: ignore[assignment]
            return late(image, blocks, metadata)
        planes = self.planes(image)
        return self.net(planes, metadata) if self.metadata else self.net(planes)

    def early(self, image: Tensor, blocks: int) -> Tensor:
        """What the first blocks of a classifier's trunk make of pictures, (N, C, h, w)."""
        return self.early_layers(blocks)(self.planes(image))

    def early_layers(self, blocks: int) -> nn.Sequential:
        """ValueError where the trunk is no sequence of more blocks than that."""
        trunk = _sequence(self.net.trunk)  # type: ignore[arg-type]
        if blocks >= len(trunk):
            raise ValueError(f"its trunk has {len(trunk)} blocks, and one at least has to learn")
        return trunk[:blocks]

    def explain(self, image: Tensor, metadata: Tensor | None = None) -> dict[str, Tensor]:
        """What a classifier or multitask network computes, with what it rests upon.

        Returns
        -------
        "classes" (N, K) logits; "features" (N, D), pooled over the picture; where the last layer
        is the only one behind the pooling, "activation" (N, K, h, w): its score at each position
        (class activation map, Zhou et al., CVPR 2016); of multitask networks "mask" (N, 1, S, S).
        """
        explain: Callable[..., dict[str, Tensor]] = self.net.explain  # type: ignore[assignment]
        return explain(self.planes(image), metadata)

    def planes(self, image: Tensor) -> Tensor:
        """Pictures, (N, S, S, 3), as the net takes them: normalized (N, 3, S, S)."""
        # TensorRT parses a uint8 input only where the cast comes first.
        planes = image.to(torch.float32).permute(0, 3, 1, 2)
        return (planes - self.mean) / self.std


def _sequence(trunk: nn.Module) -> nn.Sequential:
    """A trunk as the sequence of its stem, blocks and last layer, of which it shares all."""
    if isinstance(trunk, nn.Sequential):
        return trunk
    # timm's EfficientNet, whose stages hold a block or several each.
    parts: dict[str, Any] = dict(trunk.named_children())
    return nn.Sequential(
        nn.Sequential(parts["conv_stem"], parts["bn1"]),
        *(block for stage in parts["blocks"] for block in stage),
        nn.Sequential(parts["conv_head"], parts["bn2"]),
    )


class Head(nn.Module):
    """Pooled features to logits, and what metadata adds to them.

    Late fusion: metadata adds log-odds, without a bias, so that absent values add exactly nothing.
    """

    def __init__(self, layers: nn.Sequential, outputs: int, metadata: int = 0, hidden: int = 32):
        super().__init__()
        self.layers = layers
        self.metadata = None
        if metadata:
            self.metadata = nn.Sequential(
                nn.Linear(metadata, hidden, bias=False),
                nn.ReLU(),
                nn.Linear(hidden, outputs, bias=False),
            )

    def forward(self, features: Tensor, metadata: Tensor | None = None) -> Tensor:
        logits = self.layers(features)
        if self.metadata is not None and metadata is not None:
            logits = logits + self.metadata(metadata)
        return logits

    def activation(self, positions: Tensor) -> Tensor | None:
        """(N, D, h, w) to class scores (N, K, h, w); None where the head is not linear."""
        inner = [layer for layer in self.layers if not isinstance(layer, nn.Dropout)]
        if len(inner) != 1:
            return None
        weight: Tensor = inner[0].weight  # type: ignore[assignment]
        return F.conv2d(positions, weight[:, :, None, None])


class Classifier(nn.Module):
    """Normalized float (N, 3, S, S) to logits (N, K): a trunk, global pooling, a head."""

    def __init__(self, trunk: nn.Module, head: Head):
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, x: Tensor, metadata: Tensor | None = None) -> Tensor:
        return self.head(self.trunk(x).mean(dim=(2, 3)), metadata)

    def late(self, x: Tensor, blocks: int, metadata: Tensor | None = None) -> Tensor:
        """The same behind the first `blocks` of the trunk."""
        return self.head(_sequence(self.trunk)[blocks:](x).mean(dim=(2, 3)), metadata)

    def explain(self, x: Tensor, metadata: Tensor | None = None) -> dict[str, Tensor]:
        return _explained(self.trunk(x), self.head, metadata)


class Multitask(nn.Module):
    """One MobileNetV2 for mask and class: (N, 1, S, S) and (N, K) from one pass.

    Its trunk and head are named as a classifier's, so that it can start from a trained one.
    """

    def __init__(self, features: nn.Sequential, head: Head):
        super().__init__()
        self.trunk = features
        self.decoder = nn.Sequential(Widen(), Decoder(Widen.channels, (16, 32, 48)))
        self.head = head

    def forward(self, x: Tensor, metadata: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mask, positions = self._maps(x)
        return mask, self.head(positions.mean(dim=(2, 3)), metadata)

    def explain(self, x: Tensor, metadata: Tensor | None = None) -> dict[str, Tensor]:
        mask, positions = self._maps(x)
        return {"mask": mask, **_explained(positions, self.head, metadata)}

    def _maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scales = mobilenet_scales(self.trunk, x)
        return self.decoder(scales), self.trunk[14:](scales[-1])


def _explained(positions: Tensor, head: Head, metadata: Tensor | None) -> dict[str, Tensor]:
    features = positions.mean(dim=(2, 3))
    found = {"classes": head(features, metadata), "features": features}
    activation = head.activation(positions)
    if activation is not None:
        found["activation"] = activation
    return found


@dataclass(frozen=True)
class Entry:
    """How to build one network: `build(outputs, pretrained, metadata)` gives a net for NCHW float.

    `metadata` is the number of values that a classifier takes beside the picture.
    """

    kind: str  # one of KINDS
    build: Callable[[int, bool, int], nn.Module]
    has_weights: bool = True  # whether ImageNet weights exist for it
    statistics: Statistics = IMAGENET  # of those weights; new networks are fed with them


def build_model(
    name: str,
    labels: Sequence[str] = (),
    pretrained: str = "no",
    metadata: Sequence[str] = (),
) -> Normalized:
    """Build a registered network.

    Parameters
    ----------
    name : a key of `MODELS`.
    labels : the classes of a classifier, at least two; ignored by segmenters.
    pretrained : "no"; "imagenet": ImageNet weights, or random ones (said on stderr, and in
        `.pretrained`) where they cannot be loaded; "required": an error instead.
    metadata : fields of `dermedge.metadata.FIELDS` that a classifier takes beside the picture.

    Raises
    ------
    ValueError : no such network, too few labels, metadata for a segmenter, or required weights
        that cannot be had.
    """
    if name not in MODELS:
        raise ValueError(f"no model '{name}'; there are: {', '.join(MODELS)}")
    entry = MODELS[name]
    classifies = entry.kind != "segmenter"
    if classifies and len(labels) < 2:
        raise ValueError(f"a classifier needs at least two labels, got {list(labels)}")
    if metadata and not classifies:
        raise ValueError(f"{name} is a segmenter: it takes no metadata")

    def built(weights: bool) -> Normalized:
        net = entry.build(len(labels) if classifies else 1, weights, width(metadata))
        return Normalized(net, entry.kind, weights, metadata, entry.statistics)

    if pretrained == "no":
        return built(False)
    if not entry.has_weights:
        raise ValueError(f"there are no ImageNet weights for {name}: set pretrained = 'no'")
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # a clinic's firewall swallows packets; torch.hub waits for ever
    try:
        return built(True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
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
        return built(False)
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


def _mobilegan(outputs: int, pretrained: bool, _: int) -> nn.Module:
    return MobileGan(PlainEncoder((16, 32, 64, 128), (1, 2, 4, 8, 2, 4)), (16, 32, 64))


def _mobilegan_edge(outputs: int, pretrained: bool, _: int) -> nn.Module:
    return MobileGan(MobileNetEncoder(_mobilenet_v2(pretrained)[:14]), (16, 32, 48))


def _mobilegan_nano(outputs: int, pretrained: bool, _: int) -> nn.Module:
    return MobileGan(PlainEncoder((6, 12, 20, 22), (1, 2, 4)), (6, 12, 20))


def _mobilenet_v2(pretrained: bool) -> nn.Sequential:
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(weights="IMAGENET1K_V1" if pretrained else None, progress=False).features


def _unet(outputs: int, pretrained: bool, _: int) -> nn.Module:
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


def _lraspp(outputs: int, pretrained: bool, _: int) -> nn.Module:
    from torchvision.models import MobileNet_V3_Large_Weights
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    weights = MobileNet_V3_Large_Weights.IMAGENET1K_V1 if pretrained else None
    net = lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=weights, num_classes=outputs, progress=False
    )
    return _MaskOnly(net)


def _torchvision(name: str) -> Callable[[int, bool, int], nn.Module]:
    def build(outputs: int, pretrained: bool, metadata: int) -> nn.Module:
        from torchvision.models import get_model

        net = get_model(name, weights="IMAGENET1K_V1" if pretrained else None, progress=False)
        net.classifier[-1] = _last_layer(net.classifier[-1].in_features, outputs)
        return Classifier(net.features, Head(net.classifier, outputs, metadata))

    return build


def _timm(name: str, pretrained: bool, **options) -> Any:
    """A network of timm, whose parts each architecture names as it likes."""
    import timm

    net: Any = timm.create_model(name, **options)
    if pretrained:
        # By torch.hub, as torchvision does: where there is no network, timm's own way goes on
        # asking for most of a minute, and it keeps what it loads elsewhere.
        cfg = net.pretrained_cfg
        page = f"https://huggingface.co/{cfg['hf_hub_id']}/resolve/main/pytorch_model.bin"
        weights = torch.hub.load_state_dict_from_url(
            cfg.get("url") or page,
            map_location="cpu",
            progress=False,
            file_name=f"{name}.pth",
            weights_only=True,
        )
        own = net.state_dict()
        net.load_state_dict({key: value for key, value in weights.items() if key in own})
    return net


def _efficientnet_lite(number: int) -> Callable[[int, bool, int], nn.Module]:
    def build(outputs: int, pretrained: bool, metadata: int) -> nn.Module:
        # Without pooling and classes, timm's network ends with its last feature map.
        name = f"tf_efficientnet_lite{number}"
        trunk = _timm(name, pretrained, num_classes=0, global_pool="")
        layers = nn.Sequential(nn.Dropout(0.2), _last_layer(trunk.num_features, outputs))
        return Classifier(trunk, Head(layers, outputs, metadata))

    return build


def _mobilenet_v4_small(outputs: int, pretrained: bool, metadata: int) -> nn.Module:
    net = _timm("mobilenetv4_conv_small", pretrained)
    # Its widest layer lies behind the pooling, as in MobileNetV3: it is a part of the head.
    layers = nn.Sequential(
        nn.Unflatten(1, (net.num_features, 1, 1)),
        net.conv_head,
        net.norm_head,
        net.act2,
        nn.Flatten(),
        nn.Dropout(0.2),
        _last_layer(net.head_hidden_size, outputs),
    )
    trunk = nn.Sequential(net.conv_stem, net.bn1, *net.blocks)
    return Classifier(trunk, Head(layers, outputs, metadata))


def _multitask(outputs: int, pretrained: bool, metadata: int) -> nn.Module:
    layers = nn.Sequential(nn.Dropout(0.2), _last_layer(1280, outputs))
    return Multitask(_mobilenet_v2(pretrained), Head(layers, outputs, metadata))


def _last_layer(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


KINDS = ("segmenter", "classifier", "multitask")

MODELS: dict[str, Entry] = {
    "mobilegan": Entry("segmenter", _mobilegan, has_weights=False),
    "mobilegan-edge": Entry("segmenter", _mobilegan_edge),
    "mobilegan-nano": Entry("segmenter", _mobilegan_nano, has_weights=False),
    "unet": Entry("segmenter", _unet),
    "lraspp_mobilenet_v3_large": Entry("segmenter", _lraspp),
    "mobilenet_v2": Entry("classifier", _torchvision("mobilenet_v2")),
    "mobilenet_v3_small": Entry("classifier", _torchvision("mobilenet_v3_small")),
    "mobilenet_v3_large": Entry("classifier", _torchvision("mobilenet_v3_large")),
    **{
        f"efficientnet_lite{number}": Entry(
            "classifier", _efficientnet_lite(number), statistics=LITE
        )
        for number in range(3)
    },
    "mobilenet_v4_conv_small": Entry("classifier", _mobilenet_v4_small),
    "multitask_mobilenet_v2": Entry("multitask", _multitask),
}
