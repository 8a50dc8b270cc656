"""From a weight file to a state dict, and from that into a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aupipe.extract.weights import RefusedWeightsError, refused_pickle
from aupipe.quantities import first_of

if TYPE_CHECKING:
    from torch import Tensor, nn


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises RefusedWeightsError for any other file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        raise refused_pickle(path)
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RefusedWeightsError(f"{path} is not a safetensors file: {error}") from error


def load_into(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a state dict into a network, every key and every shape of it.

    Raises RefusedWeightsError, naming the keys that are missing, unexpected, or of another shape.
    """
    own = network.state_dict()
    # Norms written before PyTorch 0.4.1 have no step counter; it takes no part in inference.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    found = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    reasons = [f"{kind}: {first_of(keys)}" for kind, keys in found if keys]
    if reasons:
        raise RefusedWeightsError(f"{source} does not fit {type(network).__name__}; {'; '.join(reasons)}")
    network.load_state_dict(dict(state), strict=False)
