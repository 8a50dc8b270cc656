"""Networks whose last blocks are trained: made by name without their classifier, cut at a block, filled from a file."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aupipe.errors import UsageError, WeightsMissingError
from aupipe.local_models import imported_name, weights_folder
from aupipe.registry import nearest

RANDOM, RANDOM_SEED = "random", 0  # the seed of encoders with random weights, so that a tail is that of its encoder
CLASSIFIERS = ("fc", "classifier", "head", "heads")  # of torchvision and timm
DERIVED = ("num_batches_tracked", "relative_position_index", "attn_mask")  # buffers that a file may have or lack
# What a file of a pretrained MAE has besides the pooled ViT that is fine-tuned, and what it lacks: that norm begins
# anew, as in the fine-tuning code (facebookresearch/mae).
OF_PRETRAINING, POOLED_NORM = ("decoder", "mask_token", "norm."), "fc_norm."


def build_network(called: str, pool: bool, weights: str) -> Any:
    """The network ``called`` torchvision/NAME, timm/NAME or module:function, without its classifier.

    ``pool``: its output is pooled, or a map; a function of one's own decides this itself. ``weights``: a file, or
    'random'. Raises UsageError for an unknown network and for the weights of another one, WeightsMissingError.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        network = _made(called, pool)
    if weights != RANDOM:
        _fill(network, weights, called)
    return network


def _made(called: str, pool: bool) -> Any:
    library, _, name = called.partition("/")
    if library == "torchvision":
        from torchvision import models  # type: ignore[import-untyped]

        if name not in models.list_models():
            raise UsageError(f"torchvision has no model {name!r}.{nearest(name, models.list_models())}")
        network: Any = models.get_model(name, weights=None)
        for classifier in CLASSIFIERS:
            if hasattr(network, classifier):
                setattr(network, classifier, nn.Identity())
        if not pool and hasattr(network, "avgpool"):
            network.avgpool = nn.Identity()
        return network
    if library == "timm":
        import timm

        if not timm.is_model(name):
            raise UsageError(f"timm has no model {name!r}.{nearest(name, timm.list_models())}")
        return timm.create_model(name, num_classes=0, global_pool="avg" if pool else "")
    module, colon, function = called.partition(":")
    if not colon:
        raise UsageError(f"network = {called!r}: expected torchvision/NAME, timm/NAME, or module:function of your own")
    try:
        network = getattr(import_module(module), function)()
    except (ImportError, AttributeError, TypeError) as error:
        raise UsageError(f"network = {called!r}: {error}") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"network = {called!r}: gives {type(network).__name__}, not an nn.Module")
    return network


def find_weights(weights: str) -> Path:
    """The safetensors file of a name, that of an imported ``.pth`` included. Raises WeightsMissingError."""
    path = Path(weights).expanduser()
    folder = weights_folder()
    found = folder / path if folder and not path.is_absolute() else path
    made = [found.with_suffix(".safetensors"), found.parent / imported_name(found)]
    made += [folder / imported_name(found)] if folder and not path.is_absolute() else []
    here = next((one for one in made if one.is_absolute() and one.is_file()), None)
    if here is None:
        where = folder or "AUPIPE_WEIGHTS, which names no folder"
        name = made[-1].name
        raise WeightsMissingError(f"weights {weights!r}: no {name} in {where}: `aupipe weights import` makes it")
    return here


def _fill(network: nn.Module, weights: str, called: str) -> None:
    """Read a file into a network without a classifier. Raises UsageError for the weights of another network."""
    from safetensors.torch import load_file

    found = find_weights(weights)
    state, own = load_file(found), network.state_dict()
    fine_tuned = any(key.startswith(POOLED_NORM) for key in state)
    if not fine_tuned and any(key.startswith(POOLED_NORM) for key in own):
        state = {key: value for key, value in state.items() if not key.startswith(OF_PRETRAINING)}
        state |= {key: value for key, value in own.items() if key.startswith(POOLED_NORM)}
    if called.startswith("timm/"):  # names of the published file -> those of timm
        adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        state = adapt(state, network) if adapt is not None else state
    wrong = [f"has no {key}" for key in own if key not in state and not key.endswith(DERIVED)]
    wrong += [
        f"has {key}, which the network has not"
        for key in state
        if key not in own and key.partition(".")[0] not in CLASSIFIERS and not key.endswith(DERIVED)
    ]
    wrong += [
        f"{key} is {list(state[key].shape)}, not {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if wrong:
        raise UsageError(f"{found}: {'; '.join(wrong[:3])}: these are weights of another network")
    network.load_state_dict(state, strict=False)


def blocks_before(network: nn.Module, path: list[str]) -> list[tuple[nn.Module, str]]:
    """The blocks that come before the one at ``path``, each by its parent and its name in it."""
    found: list[tuple[nn.Module, str]] = []
    module = network
    for name in path:
        children = [child for child, _ in module.named_children()]
        if name not in children:
            where = f"first = {'.'.join(path)!r}"
            raise UsageError(f"{where}: no block {name!r}.{nearest(name, children)} There are: {', '.join(children)}")
        found += [(module, child) for child in children[: children.index(name)]]
        module = getattr(module, name)
    return found


def parameters_beside(network: nn.Module, path: list[str]) -> dict[str, nn.Parameter]:
    """The parameters on the way to the block at ``path`` that are of no block: class token, position embedding."""
    parents = [".".join(path[:depth]) for depth in range(len(path))]
    return {
        name: parameter
        for parent in parents
        for name, parameter in network.get_submodule(parent).named_parameters(parent, recurse=False)
    }
