"""Which hidden states of a stack of transformer blocks one asks for."""

from __future__ import annotations

from typing import Any, Protocol

from aupipe.errors import UsageError


class SpeechSettings(Protocol):
    """What the functions of speech models read of `aupipe.extract.encoders.audio.speech.Speech`."""

    @property
    def model(self) -> str: ...
    @property
    def tap(self) -> str: ...
    @property
    def layer(self) -> int: ...
    @property
    def chunk_s(self) -> float: ...
    @property
    def context_s(self) -> float: ...
    def normalizes(self) -> bool: ...


class Tap:
    """Collects the asked-for states while a network runs; `take` hands them over.

    Read from the blocks themselves: what ``hidden_states[-1]`` means (before or after the final norm) has changed
    between versions of transformers. Blocks after the last one needed are cut off.
    """

    def __init__(self, owner: Any, name: str, layer: int) -> None:
        self.name = name
        self.states: list[Any] = []
        layers = owner.layers
        if name == "layer":
            if layer > len(layers):
                raise UsageError(f"layer = {layer}: the model has {len(layers)} blocks")
            if layer == 0:
                layers[0].register_forward_pre_hook(self._keep_input)
            else:
                layers[layer - 1].register_forward_hook(self._keep_output)
            owner.layers = layers[: max(layer, 1)]
        elif name == "mean":
            for block in layers:
                block.register_forward_hook(self._add_output)
            self.count = len(layers)

    def _keep_input(self, module: Any, inputs: tuple[Any, ...]) -> None:
        self.states = [inputs[0]]

    def _keep_output(self, module: Any, inputs: Any, output: Any) -> None:
        self.states = [output[0] if isinstance(output, tuple) else output]

    def _add_output(self, module: Any, inputs: Any, output: Any) -> None:
        state = (output[0] if isinstance(output, tuple) else output).float()
        self.states = [self.states[0] + state] if self.states else [state]

    def take(self, last_hidden: Any) -> Any:
        """(B, n, D) float32 of the pass that just ended with ``last_hidden``."""
        found, self.states = self.states, []
        if self.name == "last_hidden":
            return last_hidden.float()
        return (found[0] / self.count if self.name == "mean" else found[0]).float()
