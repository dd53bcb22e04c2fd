"""MobileGAN-style segmenter and its patch discriminator.

After Sarker et al., "MobileGAN: skin lesion segmentation using a lightweight generative adversarial
network", arXiv:1907.00856 (2.35 M parameters): factorized 1-D residual blocks, channel and
position attention, and aggregation of several scales.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Factorized(nn.Module):
    """Non-bottleneck-1D residual block (Romera et al., ERFNet, IEEE T-ITS 19(1), 2018).

    Each 3x3 convolution becomes 3x1 then 1x3: a third fewer weights, the same field of view. The
    second pair is dilated, so that a lesion as large as the picture is still seen whole.
    """

    def __init__(self, channels: int, dilation: int = 1, dropout: float = 0.0):
        super().__init__()
        self.body = nn.Sequential(
            _line(channels, vertical=True),
            nn.ReLU(inplace=True),
            _line(channels, vertical=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            _line(channels, vertical=True, dilation=dilation),
            nn.ReLU(inplace=True),
            _line(channels, vertical=False, dilation=dilation),
            nn.BatchNorm2d(channels),
            nn.Dropout2d(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Down(nn.Module):
    """Halve the resolution: a strided convolution beside a max pooling, concatenated."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.pooled = min(inputs, outputs // 2)
        self.convolution = nn.Conv2d(
            inputs, outputs - self.pooled, 3, stride=2, padding=1, bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, 2)[:, : self.pooled]
        return F.relu(self.norm(torch.cat([self.convolution(x), pooled], dim=1)))


class ChannelAttention(nn.Module):
    """Weigh the channels by what the whole picture shows (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        hidden = max(8, channels // reduction)
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x.mean(dim=(2, 3), keepdim=True))


class PositionAttention(nn.Module):
    """Let each position gather from all others (Fu et al., DANet, CVPR 2019).

    Keys and values are pooled by two in each direction: a quarter of the cost.
    """

    def __init__(self, channels: int, hidden: int = 32):
        super().__init__()
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = hidden**-0.5
        # Starts as the identity: attention is learnt once there is something to attend to.
        self.strength = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        coarse = F.avg_pool2d(x, 2)
        query = self.query(x).flatten(2).transpose(1, 2)
        key = self.key(coarse).flatten(2)
        value = self.value(coarse).flatten(2).transpose(1, 2)
        weights = torch.softmax(torch.matmul(query, key) * self.scale, dim=-1)
        gathered = torch.matmul(weights, value).transpose(1, 2).reshape(x.shape)
        return x + self.strength * gathered


class Up(nn.Module):
    """Double the resolution, add the encoder's features of that scale, and refine."""

    def __init__(self, inputs: int, skip: int, outputs: int):
        super().__init__()
        self.reduce = _pointwise(inputs, outputs)
        self.skip = _pointwise(skip, outputs)
        self.refine = Factorized(outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.refine(_double(self.reduce(x)) + self.skip(skip))


class PlainEncoder(nn.Module):
    """Factorized residual blocks from scratch; normalized float (N, 3, S, S) to four scales.

    `channels` are those at a half, a quarter, an eighth and a sixteenth of S; `dilations` those of
    the blocks at a sixteenth.
    """

    def __init__(self, channels: tuple[int, int, int, int], dilations: tuple[int, ...]):
        super().__init__()
        c2, c4, c8, c16 = self.channels = channels
        self.down2 = Down(3, c2)
        self.down4 = nn.Sequential(Down(c2, c4), Factorized(c4), ChannelAttention(c4))
        self.down8 = nn.Sequential(
            Down(c4, c8), Factorized(c8), Factorized(c8, dilation=2), ChannelAttention(c8)
        )
        self.down16 = nn.Sequential(
            Down(c8, c16), *(Factorized(c16, dilation, dropout=0.1) for dilation in dilations)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        at2 = self.down2(x)
        at4 = self.down4(at2)
        at8 = self.down8(at4)
        return at2, at4, at8, self.down16(at8)


class Widen(nn.Module):
    """See the coarsest of MobileNetV2's four scales from further away, by dilated blocks."""

    channels = (16, 24, 32, 48)  # of the four scales that come out

    def __init__(self):
        super().__init__()
        width = self.channels[-1]
        self.body = nn.Sequential(
            _pointwise(96, width), Factorized(width, 2, dropout=0.1), Factorized(width, 4)
        )

    def forward(self, scales: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (*scales[:3], self.body(scales[3]))


class MobileNetEncoder(nn.Module):
    """The first fourteen blocks of torchvision's MobileNetV2, then two dilated ones.

    Takes the `features` of that network, so that ImageNet weights serve.
    """

    channels = Widen.channels

    def __init__(self, features: nn.Sequential):
        super().__init__()
        self.features = features
        self.widen = Widen()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.widen(mobilenet_scales(self.features, x))


def mobilenet_scales(features: nn.Sequential, x: Tensor) -> tuple[Tensor, ...]:
    """MobileNetV2's maps at a half, a quarter, an eighth and a sixteenth of S."""
    scales = []
    for begin, end in ((0, 2), (2, 4), (4, 7), (7, 14)):
        x = features[begin:end](x)
        scales.append(x)
    return tuple(scales)


class Aggregate(nn.Conv2d):
    """A pointwise convolution of maps of several scales, as if enlarged and concatenated.

    `forward` takes them from the finest to the coarsest, each of half the resolution of the one
    before, and gives the finest's. What enlarges a map does not mix its channels and what mixes
    its channels does not enlarge it: in this order nothing is computed, copied or enlarged that
    the sum does not need.
    """

    def __init__(self, inputs: tuple[int, ...], outputs: int):
        super().__init__(sum(inputs), outputs, 1, bias=False)
        self.inputs = inputs

    def forward(self, scales: tuple[Tensor, ...]) -> Tensor:  # type: ignore[override]
        ends = itertools.accumulate(self.inputs)
        # Slices: the exporter folds no split of a constant.
        weights = [self.weight[:, e - n : e] for n, e in zip(self.inputs, ends, strict=True)]
        # A bias, of a norm that was folded, once: where nothing more is added.
        total = F.conv2d(scales[-1], weights[-1], self.bias)
        for scale, weight in zip(scales[-2::-1], weights[-2::-1], strict=True):
            total = F.conv2d(scale, weight) + _double(total)
        return total


class Decoder(nn.Module):
    """Attention at the coarsest scale, then up to the finest, all scales aggregated.

    `forward` takes the four scales of an encoder with these `inputs` channels and gives logits
    (N, 1, S, S). `widths` are the decoder's own channels at a half, a quarter and an eighth of S.
    """

    def __init__(self, inputs: tuple[int, int, int, int], widths: tuple[int, int, int]):
        super().__init__()
        c2, c4, c8, c16 = inputs
        w2, w4, w8 = widths
        self.attend = nn.Sequential(ChannelAttention(c16), PositionAttention(c16))
        self.up8 = Up(c16, c8, w8)
        self.up4 = Up(w8, c4, w4)
        # Aggregation: every decoder scale speaks at the finest one.
        self.gather16 = _pointwise(c16, w4)
        self.gather8 = _pointwise(w8, w4)
        aggregate = nn.Sequential(Aggregate((w4, w4, w4), w4), nn.BatchNorm2d(w4))
        self.fuse = nn.Sequential(aggregate, ChannelAttention(w4))
        self.up2 = Up(w4, c2, w2)
        self.head = nn.Conv2d(w2, 1, 1)

    def forward(self, scales: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        at2, at4, at8, at16 = scales
        at16 = self.attend(at16)
        up8 = self.up8(at16, at8)
        up4 = self.up4(up8, at4)
        every = (up4, self.gather8(up8), self.gather16(at16))
        up2 = self.up2(self.fuse(every), at2)
        return _double(self._mixed(up2))

    def _mixed(self, x: Tensor) -> Tensor:
        """The head, as a product of matrices.

        ONNX Runtime would pad a convolution's single channel to sixteen and enlarge them all.
        """
        n, c, h, w = x.shape
        bias = self.head.bias
        assert bias is not None
        mixed = torch.matmul(self.head.weight.view(1, c), x.reshape(n, c, h * w))
        return (mixed + bias).reshape(n, 1, h, w)


class MobileGan(nn.Module):
    """The generator: normalized float (N, 3, S, S), S a multiple of 32, to logits (N, 1, S, S)."""

    def __init__(self, encoder: PlainEncoder | MobileNetEncoder, widths: tuple[int, int, int]):
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder.channels, widths)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class PatchDiscriminator(nn.Module):
    """Judge patches of (picture, mask) as drawn by a person or made (Isola et al., CVPR 2017).

    `forward` takes uint8 (N, S, S, 3) RGB and float (N, 1, S, S) in 0..1, and gives logits
    (N, 1, S / 16, S / 16); above 0: drawn by a person.
    """

    def __init__(self, channels: int = 24):
        super().__init__()
        widths = (4, channels, 2 * channels, 4 * channels, 4 * channels)
        layers: list[nn.Module] = []
        for index in range(4):
            layers.append(nn.Conv2d(widths[index], widths[index + 1], 4, stride=2, padding=1))
            if index:
                # Not batch norm: its statistics would tell drawn from made by the batch they are in
                layers.append(nn.GroupNorm(8, widths[index + 1]))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.net = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        picture = image.to(mask.dtype).permute(0, 3, 1, 2) / 127.5 - 1
        return self.net(torch.cat([picture, mask], dim=1))


def _line(channels: int, vertical: bool, dilation: int = 1) -> nn.Conv2d:
    shape, padding = ((3, 1), (dilation, 0)) if vertical else ((1, 3), (0, dilation))
    return nn.Conv2d(channels, channels, shape, padding=padding, dilation=dilation)


def _pointwise(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
