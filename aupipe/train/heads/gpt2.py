"""GPT-2 blocks of which only normalisations and positions are trained: AUD-TGN as its paper describes it.

Source: Yu et al. 2024, section 3.3, after Lu et al. 2021 (frozen pretrained Transformers). The released code
(igodrr/abaw6_AU) builds these blocks and never calls them; the head 'tcn_transformer' is what it runs.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor, nn
from torch.nn import functional as F

from aupipe.errors import UsageError, WeightsMissingError
from aupipe.local_models import model_folder
from aupipe.tables import Count, Layers, Range, Share, Width
from aupipe.train.heads.blocks import StreamTCNs

log = logging.getLogger(__name__)

RANDOM = ("", "random")  # values of ``weights``
TRAINED = ("ln_1", "ln_2", "ln_f", "wpe")


@dataclass(frozen=True)
class GPT2Config:
    """``channels``: TCN widths by the name of the feature, or one row for all.

    ``weights``: a model folder of transformers (absolute, or in AUPIPE_WEIGHTS), or a name in the hub's cache; 'random'
    (or ''): the frozen blocks have random weights, unlike in the paper. ``embedding``, ``heads`` and ``positions`` (the
    longest window in frames) are those of the pretrained model. GPT-2 is causal: the output of a frame depends on
    earlier frames only.
    """

    channels: dict[str, tuple[Width, ...]] | tuple[tuple[Width, ...], ...] = ((256, 256, 128, 128, 128),)
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

    def __init__(
        self,
        config: GPT2Config,
        dims: tuple[int, ...],
        targets: int,
        names: tuple[str, ...],
        read_weights: bool,
    ) -> None:
        super().__init__()
        self.tcns = StreamTCNs(
            dims,
            names,
            config.channels,
            config.kernel_size,
            config.tcn_dropout,
            config.causal,
            config.activation,
            norm=True,
        )
        self.fuse = nn.Linear(self.tcns.width, config.width)
        self.gpt2 = _gpt2(config, read_weights)
        for name, parameter in self.gpt2.named_parameters():
            parameter.requires_grad = any(part in name.split(".") for part in TRAINED)
        self.widen = nn.Linear(config.width, self.gpt2.config.n_embd)
        self.out = nn.Linear(self.gpt2.config.n_embd, targets)

    @staticmethod
    def require(config: GPT2Config) -> None:
        """Raise WeightsMissingError where the pretrained model is not on this machine."""
        if config.weights not in RANDOM:
            _pretrained_folder(config)

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


def _pretrained_folder(config: GPT2Config) -> Path:
    folder = model_folder(config.weights)
    if not (folder / "model.safetensors").is_file():
        raise WeightsMissingError(f"head 'gpt2': no model.safetensors in {folder}: put that of gpt2 there")
    return folder


def _gpt2(config: GPT2Config, read_weights: bool) -> Any:
    """The first ``layers`` blocks, without the word embedding; random ones where the weights are not read.

    Raises WeightsMissingError where the folder does not exist, UsageError where the model has another size.
    """
    from transformers import GPT2Config as Options
    from transformers import GPT2Model
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # only the command line draws bars
    dropout: dict[str, Any] = {f"{part}_pdrop": config.dropout for part in ("embd", "attn", "resid")}
    if read_weights and config.weights not in RANDOM:
        folder = _pretrained_folder(config)
        model: Any = GPT2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True, **dropout)
        found = {"embedding": model.config.n_embd, "heads": model.config.n_head, "positions": model.config.n_positions}
        if other := {key: value for key, value in found.items() if getattr(config, key) != value}:
            settings = " ".join(f"--set head.{key}={value}" for key, value in other.items())
            raise UsageError(f"head 'gpt2': the model in {folder} has another size than the recipe: {settings}")
        if len(model.h) < config.layers:
            raise UsageError(f"head 'gpt2': layers = {config.layers}, but {folder} has {len(model.h)}")
        model.h = model.h[: config.layers]
        model.config.n_layer = config.layers
    else:
        if read_weights:
            log.warning("head 'gpt2': its frozen blocks have random weights, not those of GPT-2 (head.weights)")
        options = Options(
            vocab_size=1,
            n_positions=config.positions,
            n_embd=config.embedding,
            n_layer=config.layers,
            n_head=config.heads,
            **dropout,
            bos_token_id=None,  # there are no words
            eos_token_id=None,
        )
        model = GPT2Model(options)
    model.wte = nn.Identity()
    model.config.use_cache = False
    return model
