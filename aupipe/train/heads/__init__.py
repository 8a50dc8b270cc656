"""Temporal heads: modules that map the features of a window to one row of outputs per frame.

A head is one file with a frozen ``Config`` dataclass and an ``nn.Module``:

    class MyHead(nn.Module):
        Config = MyConfig                                            # the keys of a recipe's [head] table
        def __init__(self, config: MyConfig, inputs: int, targets: int) -> None: ...
        def forward(self, x: Tensor, mask: Tensor) -> Tensor: ...    # (B, T, D), bool (B, T) -> (B, T, K)

A head that processes each feature separately sets ``streams = True`` and receives ``dims: tuple[int, ...]``, the
columns of each feature, in place of ``inputs``; after them ``x`` has one presence column per feature
(`blocks.split_streams`). A head that has an attribute ``task_kind`` finds the kind of the task there
(`aupipe.tasks.Kind`). A head that is initialised from training data has a method ``start_from(batches, task)``; each
call of ``batches()`` iterates over them.

If a head has an ``out.bias``, it is initialised to the best constant output, so that no epoch is spent on learning how
rare an AU is.

``mask`` is False at padding. The output at a frame must not change with the amount of padding after it
(`tests/train/test_heads.py` checks it for every registered name). The outputs are logits for AU and EXPR, values for
VA.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from aupipe.errors import UsageError
from aupipe.registry import Registry
from aupipe.tables import build
from aupipe.tasks import Kind

if TYPE_CHECKING:
    from torch import Tensor, nn

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


def named_tensors(head: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once (a published TCN registers its layers under two names)."""
    return dict(chain(head.named_parameters(), head.named_buffers()))


def head_config(kind: str, params: Mapping[str, Any]) -> Any:
    """The checked config of a registered head. Raises UsageError for an unknown head, key or type."""
    return build(HEADS.get(kind).Config, params, f"head {kind!r}")


def build_head(
    kind: str,
    params: Mapping[str, Any],
    inputs: int,
    targets: int,
    dims: tuple[int, ...] | None = None,
    task_kind: Kind = "multi_label",
) -> nn.Module:
    """A new head for ``inputs`` columns (D) and ``targets`` outputs (K).

    ``dims``: the columns of each feature; D is their sum plus one presence column each. None: a single feature. Raises
    UsageError for parameters that do not fit together.
    """
    cls, config = HEADS.get(kind), head_config(kind, params)
    dims = dims or (inputs - 1,)
    if sum(dims) + len(dims) != inputs:
        raise ValueError(f"{inputs = } columns for features of {dims} columns and a presence column each")
    try:
        head: nn.Module = cls(config, dims if getattr(cls, "streams", False) else inputs, targets)
    except (ValueError, AssertionError, ArithmeticError) as error:  # from torch
        raise UsageError(f"head {kind!r}: {error}") from error
    if hasattr(head, "task_kind"):
        setattr(head, "task_kind", task_kind)  # noqa: B010 (nn.Module declares its attributes as tensors)
    return head
