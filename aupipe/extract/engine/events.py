"""What an engine tells while it works: small records, in a module that both sides of a pipe import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aupipe.store import ItemRecord


@dataclass(frozen=True)
class FramesDecoded:
    """So many frames more; a frame that is decoded twice counts twice, as it costs."""

    count: int


@dataclass(frozen=True)
class ItemPublished:
    """An item is in the store, whatever becomes of its job."""

    record: ItemRecord


EngineEvent = FramesDecoded | ItemPublished
EventSink = Callable[[EngineEvent], None]  # called from any of an engine's threads
