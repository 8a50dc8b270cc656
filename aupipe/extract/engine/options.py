"""What a run is given besides its plan: it changes time and memory, and no feature's identity."""

from __future__ import annotations

from dataclasses import dataclass

STALL_S = 600.0


@dataclass(frozen=True)
class ThreadCounts:
    """The threads of one engine. ``decoders``: videos decoded at the same time; ``encoders``: batches encoded at the
    same time, and sounds."""

    decoders: int = 1
    encoders: int = 1


@dataclass(frozen=True)
class ExecutionOptions:
    """What the user sets."""

    workers: int = 0  # videos decoded at the same time on each device; 0: by the cores
    batch_size: int = 0  # inputs an encoder gets at once; 0: found by the engine
    nvdec: bool = False  # videos are decoded by the GPUs' decoders, where those give the same samples
    compiled: bool = False  # encoders go through torch.compile
    trace: bool = False  # every step of every stage is kept
    stall_s: float = STALL_S  # a video whose decoding or encoding does not advance for so long is failed
