"""What several tests know of the registered networks, and a short one for what any shows."""

from __future__ import annotations

import torch
from torchvision.models import mobilenet_v2

from train.models import Classifier, Entry, Head

# Classifiers with a hidden layer behind the pooling: no score of theirs belongs to a position.
HIDDEN_LAYER = ("mobilenet_v3_small", "mobilenet_v3_large", "mobilenet_v4_conv_small")


def _short(outputs: int, pretrained: bool, metadata: int) -> torch.nn.Module:
    trunk = mobilenet_v2(inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]]).features
    layers = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(1280, outputs))
    return Classifier(trunk, Head(layers, outputs, metadata))


# MobileNetV2 of three blocks; see the fixture `short_networks`.
SHORT = "short-mobilenet", Entry("classifier", _short, has_weights=False)
