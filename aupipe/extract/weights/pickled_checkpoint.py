"""From a pickled checkpoint, in whatever form it was published, to a state dict: for `aupipe weights import` alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aupipe.errors import named
from aupipe.extract.weights import RefusedWeightsError
from aupipe.extract.weights.pickled_objects import Inert
from aupipe.extract.weights.pickles import read_pickle
from aupipe.quantities import first_of

if TYPE_CHECKING:
    from torch import Tensor

# Where training scripts put the state dict, in order of preference: averaged weights win over raw ones.
WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "state_dict_backbone", "model")
MOST_WRAPPED = 8  # state dicts in state dicts
MOST_MODULES = 100_000
MOST_SHARED = 4  # tensors that view one storage, which are written out one by one


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle by name: of a state dict, a whole module, a dict of arrays, or GH-Feat's networks.

    Raises RefusedWeightsError for a file that holds anything else. Nothing of a pickle is executed.
    """
    try:
        return unwrap(read_pickle(path), str(path))
    except RefusedWeightsError:
        raise
    except Exception as error:  # the right containers with the wrong things in them
        raise RefusedWeightsError(f"{path} holds no state dict: {named(error)}") from error


def unwrap(content: Any, source: str = "the file") -> dict[str, Tensor]:
    """The state dict inside what a checkpoint holds; a prefix ``module.`` that all keys share is taken off."""
    import torch

    for _ in range(MOST_WRAPPED):
        if isinstance(content, tuple) and content and isinstance(content[0], Inert):
            return _style_network(content[0], source)
        if isinstance(content, Inert):
            content = dict(_module_tensors(content))
            if not content:
                raise RefusedWeightsError(f"{source} holds an object without tensors")
        if not isinstance(content, dict):
            raise RefusedWeightsError(f"{source} holds a {type(content).__name__}, not a state dict")
        inner = next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict | Inert)), None)
        if inner is None:
            break
        content = inner
    else:
        raise RefusedWeightsError(f"{source} holds itself, or state dicts in more than {MOST_WRAPPED - 1} others")
    content = {key: torch.tensor(value) if isinstance(value, np.ndarray) else value for key, value in content.items()}
    wrong = [
        str(key) for key, value in content.items() if not isinstance(key, str) or not isinstance(value, torch.Tensor)
    ]
    if wrong or not content:
        raise RefusedWeightsError(f"{source} holds no state dict: {first_of(wrong) or 'it is empty'}")
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in content.values()}
    if sum(value.nbytes for value in content.values()) > MOST_SHARED * sum(storages.values()):
        raise RefusedWeightsError(f"{source} holds tensors that together are many times their storage")
    return dict(content)


def _module_tensors(
    module: Any, prefix: str = "", depth: int = 0, visits: Iterator[int] | None = None
) -> Iterable[tuple[str, Tensor]]:
    """Names and tensors of a pickled module, as its ``state_dict`` would have them."""
    import torch

    visits = itertools.count() if visits is None else visits
    if next(visits) > MOST_MODULES:
        raise RefusedWeightsError(f"a module of more than {MOST_MODULES} others")
    state = module.state if isinstance(module, Inert) else None
    if not isinstance(state, dict) or depth > 64:
        return
    hidden = state.get("_non_persistent_buffers_set", ())
    for kind in ("_parameters", "_buffers"):
        for name, value in state.get(kind, {}).items():
            if isinstance(value, torch.Tensor) and not (kind == "_buffers" and name in hidden):
                yield prefix + name, value.detach()
    for name, child in state.get("_modules", {}).items():
        yield from _module_tensors(child, f"{prefix}{name}.", depth + 1, visits)


def _style_network(network: Any, source: str) -> dict[str, Tensor]:
    """The encoder of GH-Feat's tuple of StyleGAN networks; the Python source it carries is not looked at."""
    from aupipe.extract.nets.ghfeat import from_tf_variables

    state = network.state if isinstance(network.state, dict) else {}
    variables = state.get("variables")
    if not isinstance(variables, list):
        raise RefusedWeightsError(f"{source} holds {network!r} without variables")
    return from_tf_variables(dict(variables))
