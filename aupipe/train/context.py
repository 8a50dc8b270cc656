"""The context of a head: what an output depends on besides its own frame."""

from __future__ import annotations

from dataclasses import dataclass

CLOCK_ERROR_S = 1e-6  # times of frames that are equal but for rounding


@dataclass(frozen=True)
class Context:
    """So many frames before and after a frame, and all within ``seconds`` of it."""

    before: int = 0
    after: int = 0
    seconds: float = 0.0
