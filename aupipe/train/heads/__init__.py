"""Temporal heads: modules that map the features of a window to one row of outputs per frame.

A head is one file with a frozen ``Config`` dataclass and an ``nn.Module``:

    class MyHead(nn.Module):
        Config = MyConfig                                            # the keys of a recipe's [head] table
        def __init__(self, config: MyConfig, inputs: int, targets: int) -> None: ...
        def forward(self, x: Tensor, mask: Tensor) -> Tensor: ...    # (B, T, D), bool (B, T) -> (B, T, K)

A head that processes each feature separately sets ``streams = True`` and receives ``dims: tuple[int, ...]``, the
columns of each feature, in place of ``inputs``; after them ``x`` has one presence column per feature
(`blocks.split_streams`). What else a constructor has a parameter for it is given: ``names: tuple[str, ...]`` of the
features, ``task_kind`` (`aupipe.tasks.Kind`), ``read_weights``: False where the weights are set afterwards, so that no
file of pretrained ones need be read. Such a head has a static method ``require(config)``, which raises where that file
is missing. A head that is initialised from training data has a method ``start_from(batches, task)``; each call of
``batches()`` iterates over them.

``context``: the frames that an output depends on (`aupipe.train.context.Context`), where that is not the whole window.
Windows can then be read with a margin. ``reads``: the names of what else of a `DeviceBatch` is an argument of
``forward``: ``scored`` (no other outputs are needed), ``times`` or ``raw``. ``branches``: how many branches have a loss
of their own; ``forward(..., branches=True)`` then gives (1 + branches, B, T, K), and the losses are averaged.
``rates``: prefix of parameters -> factor on their learning rate. A static method ``unscaled(config)`` names features
that the head reads as they are stored: they are no columns of ``x`` but a tensor each in ``raw``, in the order of the
features. ``own_frame``: features of which an output depends on those of its own frame alone.

If a head has an ``out.bias``, it is initialised to the best constant output (unless ``bias_at_rates = false``), so that
no epoch is spent on learning how rare an AU is.

``mask`` is False at padding. The output at a frame must not change with the amount of padding after it
(`tests/train/test_heads.py` checks it for every registered name). The outputs are logits for AU and EXPR, values for
VA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from itertools import chain
from typing import TYPE_CHECKING, Any

from aupipe.errors import UsageError
from aupipe.registry import Registry
from aupipe.tables import build
from aupipe.tasks import Kind
from aupipe.train.context import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from aupipe.train.loader import DeviceBatch

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
        "three_branches": "aupipe.train.heads.three_branches:ThreeBranchesHead",
        "trained_tail": "aupipe.train.heads.trained_tail:TrainedTailHead",
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
    names: Sequence[str] = (),
    read_weights: bool = True,
) -> nn.Module:
    """A new head for ``inputs`` columns (D) and ``targets`` outputs (K).

    ``dims``: the columns of each feature; D is their sum plus one presence column each. None: a single feature.
    ``names`` of the features; (): their numbers from 0. ``read_weights`` False: the weights will be set, so that no
    pretrained ones are read. Raises UsageError for parameters that do not fit together.
    """
    cls, config = HEADS.get(kind), head_config(kind, params)
    dims = dims or (inputs - 1,)
    known = {"task_kind": task_kind, "names": tuple(names or map(str, range(len(dims)))), "read_weights": read_weights}
    options = {name: value for name, value in known.items() if name in signature(cls.__init__).parameters}
    if sum(dims) + len(dims) != inputs:
        raise ValueError(f"{inputs = } columns for features of {dims} columns and a presence column each")
    try:
        head: nn.Module = cls(config, dims if getattr(cls, "streams", False) else inputs, targets, **options)
    except (ValueError, AssertionError, ArithmeticError) as error:  # from torch
        raise UsageError(f"head {kind!r}: {error}") from error
    if hasattr(head, "task_kind"):
        setattr(head, "task_kind", task_kind)  # noqa: B010 (nn.Module declares its attributes as tensors)
    return head


def require_weights(kind: str, params: Mapping[str, Any]) -> None:
    """Raise WeightsMissingError where a new head of this kind would not find its pretrained weights."""
    require = getattr(HEADS.get(kind), "require", None)
    if require is not None:
        require(head_config(kind, params))


def unscaled_features(kind: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the features that a head reads as they are stored, not standardised."""
    unscaled = getattr(HEADS.get(kind), "unscaled", None)
    return () if unscaled is None else tuple(unscaled(head_config(kind, params)))


def context_of(head: nn.Module, margin: bool) -> Context:
    """The context that windows are read with. Raises UsageError for a ``margin`` of a head that declares none."""
    if not margin:
        return Context()
    context = getattr(head, "context", None)
    if not isinstance(context, Context):
        raise UsageError(
            "margin = true: each output of this head depends on the whole window, so no margin is large enough: leave "
            "margin out, or give the head a context"
        )
    return context


def reads_times(head: nn.Module) -> bool:
    """Whether the head needs the times of the frames."""
    return "times" in getattr(head, "reads", ())


def run_head(head: Any, batch: DeviceBatch, **options: Any) -> Tensor:
    """The output of a head, or of a compiled one, for a batch."""
    out: Tensor = head(
        batch.x, batch.mask, **{name: getattr(batch, name) for name in getattr(head, "reads", ())}, **options
    )
    return out
