"""What a run is given besides its plan: it changes time and memory, and no feature's identity."""

from __future__ import annotations

from dataclasses import dataclass

STALL_S = 600.0


@dataclass(frozen=True)
class ThreadCounts:
    """How many threads each stage has. ``decoders``: videos looked at side by side."""

    decoders: int = 1
    encoders: int = 1


@dataclass(frozen=True)
class ExecutionOptions:
    """What a user says of it."""

    workers: int = 0  # videos decoded side by side on each device; 0: by the cores
    batch_size: int = 0  # inputs an encoder gets at once; 0: found by the worker
    nvdec: bool = False  # videos are decoded by the GPUs' own circuits, where those give the same samples
    compiled: bool = False  # encoders go through torch.compile
    trace: bool = False  # what every stage did when is kept
    stall_s: float = STALL_S  # a video whose decoding or encoding stands still for so long is failed
