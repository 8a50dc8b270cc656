"""Temporal heads: features of a window in, one row of outputs per frame out.

A head is one file with a frozen ``Config`` dataclass and an ``nn.Module``:

    class MyHead(nn.Module):
        Config = MyConfig                                            # what a recipe's [head] table may hold
        def __init__(self, config: MyConfig, inputs: int, targets: int) -> None: ...
        def forward(self, x: Tensor, mask: Tensor) -> Tensor: ...    # (B, T, D), bool (B, T) -> (B, T, K)

A head that treats features apart says ``streams = True`` and is given ``dims: tuple[int, ...]``, the columns of each,
in place of ``inputs``; behind them ``x`` has one presence column per feature (`blocks.split_streams`). A head that
wants to see training data before training has a method ``start_from(batches, task)``; ``batches()`` goes through them.

If it has a linear map ``out`` at its end, training starts that map's bias at the training split's rates, so that no
epoch is spent on learning how rare an AU is.

``mask`` is False at padding. The output at a frame must not change with the amount of padding behind it
(`tests/train/test_heads.py` checks it for every registered name). The output is logits for AU and EXPR, plain values
for VA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aupipe.errors import UsageError
from aupipe.registry import Registry
from aupipe.tables import build

if TYPE_CHECKING:
    from torch import nn

HEADS = Registry(
    "head",
    {
        "linear": "aupipe.train.heads.linear:LinearHead",
        "mlp": "aupipe.train.heads.mlp:MLPHead",
        "tcn": "aupipe.train.heads.tcn:TCNHead",
        "transformer": "aupipe.train.heads.transformer:TransformerHead",
        "tcn_transformer": "aupipe.train.heads.tcn_transformer:TCNTransformerHead",
        "tmf": "aupipe.train.heads.tmf:TMFHead",
        "gpt2": "aupipe.train.heads.gpt2:GPT2Head",
        "vivit": "aupipe.train.heads.vivit:ViViTHead",
        "gru": "aupipe.train.heads.gru:GRUHead",
        "cross_attention": "aupipe.train.heads.cross_attention:CrossAttentionHead",
        "chain": "aupipe.train.heads.crf:CRFHead",
    },
)


def head_config(kind: str, params: Mapping[str, Any]) -> Any:
    """The checked config of a registered head. Raises UsageError for an unknown head, key or type."""
    return build(HEADS.get(kind).Config, params, f"head {kind!r}")


def build_head(
    kind: str, params: Mapping[str, Any], inputs: int, targets: int, dims: tuple[int, ...] | None = None
) -> nn.Module:
    """A freshly initialised head for ``inputs`` columns (D) and ``targets`` outputs (K).

    ``dims``: the columns of each feature, D being their sum and one presence column each. None: a single feature.
    Raises UsageError for numbers that do not go together.
    """
    cls, config = HEADS.get(kind), head_config(kind, params)
    dims = dims or (inputs - 1,)
    if sum(dims) + len(dims) != inputs:
        raise ValueError(f"{inputs = } columns for features of {dims} columns and a presence column each")
    try:
        head: nn.Module = cls(config, dims if getattr(cls, "streams", False) else inputs, targets)
    except (ValueError, AssertionError, ArithmeticError) as error:  # torch's word on numbers that do not go together
        raise UsageError(f"head {kind!r}: {error}") from error
    return head
