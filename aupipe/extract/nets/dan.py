"""DAN, distract your attention (Wen et al., 2023): ResNet-18 and four attention heads for facial expression.

Keys and shapes are those of the published checkpoints (yaoing/DAN, networks/dan.py). The paper speaks of attention
fusion; the released code takes a log-softmax over the heads and sums it, which is what is done here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 512  # channels of ResNet-18's last map


def _conv(channels: int, width: int, kernel: tuple[int, int]) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(nn.Conv2d(channels, width, kernel, padding=padding), nn.BatchNorm2d(width))


class SpatialAttention(nn.Module):
    """The map times one map of weights: three kernels' responses summed, rectified, summed over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1x1 = _conv(WIDTH, 256, (1, 1))
        self.conv_3x3 = _conv(256, WIDTH, (3, 3))
        self.conv_1x3 = _conv(256, WIDTH, (1, 3))
        self.conv_3x1 = _conv(256, WIDTH, (3, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1x1(x)
        y = torch.relu(self.conv_3x3(y) + self.conv_1x3(y) + self.conv_3x1(y))
        return x * y.sum(dim=1, keepdim=True)  # no sigmoid: the weights are not bounded


class ChannelAttention(nn.Module):
    """(B, 512, H, W) -> (B, 512): the pooled map times a gate of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Linear(WIDTH, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, WIDTH), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3))
        return pooled * self.attention(pooled)


class CrossAttentionHead(nn.Module):
    """Spatial, then channel attention."""

    def __init__(self) -> None:
        super().__init__()
        self.sa = SpatialAttention()
        self.ca = ChannelAttention()

    def forward(self, x: Tensor) -> Tensor:
        return self.ca(self.sa(x))


class DAN(nn.Module):
    """(B, 3, 224, 224) RGB, ImageNet mean and std -> logits (B, C), map (B, 512, 7, 7), heads (B, 4, 512).

    The heads come after their log-softmax over the head axis, as the reference returns them.
    """

    def __init__(self, num_class: int, num_head: int = 4) -> None:
        super().__init__()
        from torchvision.models import resnet18  # type: ignore[import-untyped]

        trunk = resnet18(weights=None)
        self.features = nn.Sequential(*list(trunk.children())[:-2])  # without pooling and classifier
        self.num_head = num_head
        for head in range(num_head):
            self.add_module(f"cat_head{head}", CrossAttentionHead())
        self.fc = nn.Linear(WIDTH, num_class)
        self.bn = nn.BatchNorm1d(num_class)

    def heads(self, feature_map: Tensor) -> Tensor:
        """(B, 512, 7, 7) -> (B, heads, 512), before the softmax over heads."""
        found = [self.get_submodule(f"cat_head{head}")(feature_map) for head in range(self.num_head)]
        return torch.stack(found, dim=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        feature_map = self.features(x)
        heads = self.heads(feature_map)
        if self.num_head > 1:
            heads = torch.log_softmax(heads, dim=1)
        return self.bn(self.fc(heads.sum(dim=1))), feature_map, heads
