"""iResNet as insightface trains it for ArcFace (Deng et al., 2019): pre-activation blocks on 112 px faces.

Keys, shapes and order are those of the published ``backbone.pth`` files (deepinsight/insightface,
recognition/arcface_torch). Not the iResNet of Duta et al. (2020), which is an ImageNet classifier with other keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)
MAP_PX = 7  # side of the last map: 112 halved by each of the four stages


class Block(nn.Module):
    """norm, 3x3, norm, PReLU, strided 3x3, norm, plus the shortcut; nothing is applied to the sum."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        # The shortcut sees the block's input before its first norm.
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + shortcut


class IResNet(nn.Module):
    """(B, 3, 112, 112) RGB in [-1, 1] -> (B, 512) embedding, not scaled to unit length."""

    def __init__(self, blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        channels = 64
        for stage, (width, count) in enumerate(zip(WIDTHS, blocks, strict=True), 1):
            units = [Block(channels if i == 0 else width, width, 2 if i == 0 else 1) for i in range(count)]
            self.add_module(f"layer{stage}", nn.Sequential(*units))
            channels = width
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * MAP_PX * MAP_PX, 512)
        self.features = nn.BatchNorm1d(512)
        nn.init.ones_(self.features.weight)
        self.features.weight.requires_grad_(False)  # the published training fixes it at 1

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, 3, 112, 112) -> (B, 512, 7, 7), after the last norm and before the flattening."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.bn2(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(self.fc(self.feature_map(x).flatten(1)))  # (B, 512, 7, 7) -> (B, 25088) -> (B, 512)


def iresnet50() -> IResNet:
    """insightface "r50": 43,590,848 parameters, 475 state-dict entries."""
    return IResNet((3, 4, 14, 3))


def iresnet100() -> IResNet:
    """insightface "r100": 65,156,160 parameters, 925 state-dict entries."""
    return IResNet((3, 13, 30, 3))
