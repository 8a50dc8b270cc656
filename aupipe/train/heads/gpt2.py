"""GPT-2 blocks of which only normalisations and positions are trained: AUD-TGN as its paper describes it.

Source: Yu et al. 2024, section 3.3, after Lu et al. 2021 (frozen pretrained Transformers). The released code
(igodrr/abaw6_AU) builds these blocks and never calls them; the head 'tcn_transformer' is what it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor, nn
from torch.nn import functional as F

from aupipe.errors import UsageError, WeightsMissingError
from aupipe.tables import Count, Layers, Range, Share, Width
from aupipe.train.heads.blocks import StreamTCNs

TRAINED = ("ln_1", "ln_2", "ln_f", "wpe")


@dataclass(frozen=True)
class GPT2Config:
    """``channels``: a row of TCN widths per feature, or one for all. ``weights``: a local folder of transformers.

    Without ``weights`` the frozen blocks have random weights, unlike in the paper. GPT-2 is causal: the output of a
    frame depends on earlier frames only. ``positions``: the longest window in frames.
    """

    channels: tuple[tuple[Width, ...], ...] = ((256, 256, 128, 128, 128),)
    kernel_size: Annotated[int, Range(1, 4096)] = 5
    causal: bool = True
    activation: str = "leaky_relu"
    tcn_dropout: Share = 0.2
    width: Width = 256
    weights: str = ""
    layers: Layers = 4
    heads: Width = 12
    embedding: Width = 768
    positions: Count = 1024
    dropout: Share = 0.1


class GPT2Head(nn.Module):
    """(B, T, D) -> (B, T, K)."""

    Config = GPT2Config
    streams = True

    def __init__(self, config: GPT2Config, dims: tuple[int, ...], targets: int) -> None:
        super().__init__()
        self.tcns = StreamTCNs(
            dims,
            config.channels,
            config.kernel_size,
            config.tcn_dropout,
            config.causal,
            config.activation,
            norm=True,
        )
        self.fuse = nn.Linear(self.tcns.width, config.width)
        self.gpt2 = _gpt2(config)
        for name, parameter in self.gpt2.named_parameters():
            parameter.requires_grad = any(part in name.split(".") for part in TRAINED)
        self.widen = nn.Linear(config.width, self.gpt2.config.n_embd)
        self.out = nn.Linear(self.gpt2.config.n_embd, targets)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Raises UsageError for a window beyond ``positions``."""
        if x.shape[1] > self.gpt2.config.n_positions:
            raise UsageError(
                f"head 'gpt2': a window of {x.shape[1]} frames, positions = {self.gpt2.config.n_positions}"
            )
        fused = F.leaky_relu(self.fuse(self.tcns(x, mask)), 0.1)  # (B, T, sum C) -> (B, T, width)
        # Padding follows the last frame and the attention is causal, so no frame reads it.
        hidden = self.gpt2(inputs_embeds=self.widen(fused), use_cache=False).last_hidden_state
        out: Tensor = self.out(hidden)
        return out


def _gpt2(config: GPT2Config) -> Any:
    """The first ``layers`` blocks, without the word embedding.

    Raises WeightsMissingError where the folder does not exist, UsageError where it has fewer layers.
    """
    from transformers import GPT2Config as Options
    from transformers import GPT2Model

    if config.weights:
        folder = Path(config.weights)
        if not folder.is_dir():
            raise WeightsMissingError(
                f"head 'gpt2': no folder {folder}: put config.json and model.safetensors of gpt2 there"
            )
        model: Any = GPT2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        if len(model.h) < config.layers:
            raise UsageError(f"head 'gpt2': layers = {config.layers}, but {folder} has {len(model.h)}")
        model.h = model.h[: config.layers]
        model.config.n_layer = config.layers
    else:
        options = Options(
            vocab_size=1,
            n_positions=config.positions,
            n_embd=config.embedding,
            n_layer=config.layers,
            n_head=config.heads,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            resid_pdrop=config.dropout,
            bos_token_id=None,  # there are no words
            eos_token_id=None,
        )
        model = GPT2Model(options)
    model.wte = nn.Identity()
    model.config.use_cache = False
    return model
