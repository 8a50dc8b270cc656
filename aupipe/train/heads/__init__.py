"""Temporal heads: features of a window in, one row of outputs per frame out.

A head is one file with a frozen ``Config`` dataclass and an ``nn.Module``:

    class MyHead(nn.Module):
        Config = MyConfig                                            # what a recipe's [head] table may hold
        def __init__(self, config: MyConfig, inputs: int, targets: int) -> None: ...
        def forward(self, x: Tensor, mask: Tensor) -> Tensor: ...    # (B, T, D), bool (B, T) -> (B, T, K)

If it has a linear map ``out`` at its end, training starts that map's bias at the training split's rates, so that no
epoch is spent on learning how rare an AU is.

``mask`` is False at padding. The output at a frame must not change with the amount of padding behind it
(`tests/train/test_heads.py` checks it for every registered name). The output is logits for AU and EXPR, plain values
for VA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aupipe.registry import Registry
from aupipe.tables import build

if TYPE_CHECKING:
    from torch import nn

HEADS = Registry(
    "head",
    {
        "linear": "aupipe.train.heads.linear:LinearHead",
        "tcn": "aupipe.train.heads.tcn:TCNHead",
    },
)


def head_config(kind: str, params: Mapping[str, Any]) -> Any:
    """The checked config of a registered head. Raises UsageError for an unknown head, key or type."""
    return build(HEADS.get(kind).Config, params, f"head {kind!r}")


def build_head(kind: str, params: Mapping[str, Any], inputs: int, targets: int) -> nn.Module:
    """A freshly initialised head for ``inputs`` columns (D) and ``targets`` outputs (K)."""
    head: nn.Module = HEADS.get(kind)(head_config(kind, params), inputs, targets)
    return head
