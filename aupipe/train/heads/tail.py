"""The last blocks of a network, trained on what the frozen blocks before them gave.

A network is cut at a named block: every block before it, in the order in which the network registers them, is replaced
by an identity, so that the rest takes in the feature map of the cut. On crops nothing is cut, and the blocks before it
run frozen, as do parameters outside of blocks (class token, position embedding of a ViT). With the first of all blocks
everything is trained. The classifier is removed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from aupipe.errors import UsageError
from aupipe.tables import Count, NotNegative, Range, Share
from aupipe.train.heads.tail_network import RANDOM, blocks_before, build_network, parameters_beside

log = logging.getLogger(__name__)

OF_CROPS = ("flip", "resize_px", "crop_px", "colour")
NORMAL = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclass(frozen=True)
class TailConfig:
    """``network``: ``torchvision/NAME``, ``timm/NAME``, or ``module:function``, which gives one of one's own.

    ``weights``: a safetensors file of it (absolute, or in AUPIPE_WEIGHTS; for NAME.pth what `aupipe weights import`
    made of it), or 'random', the numbers that encoders take.

    ``first``: the first block that is trained, by its name in the network (``trunk_output.block2``). ``shape``: of the
    cached map, channels first, that goes into it; (): the feature is crops, and the whole network runs. ``pool``: its
    output is pooled, or a map, channels first. ``rate``: times the learning rate of the recipe.

    On crops: ``resize_px``: they are scaled to this side; 0: as they are. In training, for all frames of a window
    alike: ``flip``: half of the windows are mirrored. ``crop_px``: a random square of this size is used, the middle one
    in prediction; 0: everything. ``colour``: brightness, contrast and saturation change by at most this share.

    ``at_once``: frames per pass, of which the activations are in memory;
    with ``checkpointing`` those of one pass alone: the others are computed again, so batch norms see each frame twice.
    """

    network: str
    first: str
    weights: str = RANDOM
    shape: tuple[Count, ...] = ()
    pool: bool = True
    rate: NotNegative = 1.0
    normal: Literal["imagenet", "half"] = "imagenet"
    flip: bool = False
    resize_px: Annotated[int, Range(0, 8192)] = 0
    crop_px: Annotated[int, Range(0, 8192)] = 0
    colour: Share = 0.0
    at_once: Count = 512
    checkpointing: bool = False


class Tail(nn.Module):
    """Rows (N, d) of frames, as they are stored -> (N, columns) float32."""

    def __init__(self, config: TailConfig, columns: int, read_weights: bool) -> None:
        super().__init__()
        self.config = config
        self.network = build_network(config.network, config.pool, config.weights if read_weights else RANDOM)
        if read_weights and config.weights == RANDOM:
            log.warning("trained_tail: %s begins with random weights: tail.weights names a file", config.network)
        path = config.first.split(".")
        self._frozen = blocks_before(self.network, path)
        beside = parameters_beside(self.network, path) if self._frozen else {}
        if config.shape and read_weights and beside:
            found = ", ".join(beside)
            raise UsageError(f"{config.network} adds {found} before {config.first}, so no map is cut there: give crops")
        for parameter in beside.values():
            parameter.requires_grad_(False)
        for parent, name in self._frozen:
            getattr(parent, name).requires_grad_(False)
            if config.shape:
                setattr(parent, name, nn.Identity())
        side = round((columns / 3) ** 0.5)
        self.shape = config.shape or (side, side, 3)
        if columns != torch.Size(self.shape).numel():
            raise UsageError(f"a feature of {columns} columns is no map of {self.shape}: set shape, or give crops")
        if config.shape and read_weights and (idle := [key for key in OF_CROPS if getattr(config, key)]):
            log.warning("trained_tail: its feature is a map, so these change nothing: %s", ", ".join(idle))
        if not config.shape and config.crop_px > (config.resize_px or side):
            raise UsageError(f"crop_px = {config.crop_px}: the crops of the feature have {config.resize_px or side} px")
        self.mean: Tensor
        self.std: Tensor
        mean, std = NORMAL[config.normal]
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.eval()
        try:
            with torch.no_grad():
                self.columns = self._map(self._pixels(torch.zeros(1, columns))).shape[1]
        except (RuntimeError, AssertionError) as error:
            what = f"a map of {list(self.shape)} at {config.first}, channels first" if config.shape else "crops"
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(f"{config.network} does not take {what} ({columns} columns): {reason}") from error
        self.train()

    def train(self, mode: bool = True) -> Tail:
        """Frozen blocks stay in eval mode: their batch norms keep the statistics they came with."""
        super().train(mode)
        for parent, name in self._frozen:
            getattr(parent, name).eval()
        return self

    def forward(self, rows: Tensor, windows: Tensor) -> Tensor:
        """``windows`` (N,): the number of the window that a frame is of."""
        found = []
        change = None
        if self.training and len(rows) and not self.config.shape:
            change = _Augmentation(self.config, int(windows.max()) + 1, rows.device)
        for part, own in zip(rows.split(self.config.at_once), windows.split(self.config.at_once), strict=True):
            x = self._pixels(part) if change is None else change(self._pixels(part), own)
            if self.config.checkpointing and self.training:
                found.append(checkpoint(self._map, x, use_reentrant=False))
            else:
                found.append(self._map(x))
        return torch.cat(found) if found else torch.zeros(0, self.columns, device=rows.device)

    def _pixels(self, rows: Tensor) -> Tensor:
        """Rows as maps, or as pixels in [0, 1], channels first; float32."""
        x = rows.unflatten(1, self.shape).float()  # of bytes, or of float16
        if self.config.shape:
            return x
        x = x.permute(0, 3, 1, 2) / 255  # (N, S, S, 3) -> (N, 3, S, S)
        if self.config.resize_px:
            x = F.interpolate(x, size=(self.config.resize_px,) * 2, mode="bilinear", antialias=True).clamp(0, 1)
        return _middle(x, self.config.crop_px) if self.config.crop_px and not self.training else x

    def _map(self, x: Tensor) -> Tensor:
        x = x if self.config.shape else (x - self.mean) / self.std
        out: Tensor = self.network(x).flatten(1)
        return out.float()


class _Augmentation:
    """Random changes of the crops of a batch, drawn once for each of its windows."""

    def __init__(self, config: TailConfig, windows: int, device: torch.device) -> None:
        self.size = config.crop_px
        self.flip = torch.rand(windows, device=device) < (0.5 if config.flip else 0.0)
        self.corner = torch.rand(windows, 2, device=device)
        low, span = 1 - config.colour, 2 * config.colour
        self.brightness, self.contrast, self.saturation = (low + span * torch.rand(3, windows, device=device)).unbind(0)

    def __call__(self, x: Tensor, windows: Tensor) -> Tensor:
        """Crops (N, 3, S, S) in [0, 1]."""
        x = torch.where(self.flip[windows, None, None, None], x.flip(3), x)
        if self.size:
            farthest = x.shape[-1] - self.size  # corner of a cut within the crop
            corners = (self.corner[windows] * (farthest + 1)).long().clamp(max=farthest)
            offsets = torch.arange(self.size, device=x.device)
            down, right = corners[:, :1] + offsets, corners[:, 1:] + offsets  # (N, size)
            x = x.gather(2, down[:, None, :, None].expand(-1, 3, -1, x.shape[-1]))
            x = x.gather(3, right[:, None, None, :].expand(-1, 3, self.size, -1))
        by = [value[windows, None, None, None] for value in (self.brightness, self.contrast, self.saturation)]
        x = x * by[0]
        grey = (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)  # ITU-R BT.601
        x = torch.lerp(grey.mean(dim=(2, 3), keepdim=True), x, by[1])
        return torch.lerp(grey, x, by[2]).clamp(0, 1)


def _middle(x: Tensor, size: int) -> Tensor:
    start = (x.shape[-1] - size) // 2
    return x[..., start : start + size, start : start + size]
