"""Decoding ahead: a thread that keeps a bounded number of chunks ready."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator

from aupipe.extract.media.frame_buffer import FrameChunk
from aupipe.extract.media.images import ImageReader
from aupipe.extract.media.video import VideoReader
from aupipe.extract.memory import PREFETCH_BYTES, Budget
from aupipe.extract.meter import Meter

DEPTH = 2  # chunks: more only hides what the budget already evens out


def prefetch(
    source: VideoReader | ImageReader,
    budget: Budget | None = None,
    meter: Meter | None = None,
    on_frames: Callable[[int], None] = lambda n: None,
    video: str = "",
) -> Generator[FrameChunk, None, None]:
    """Chunks of a reader, decoded in a thread of their own ahead of whoever reads them.

    A chunk's bytes are taken from ``budget`` before it is queued and given back when the next one is asked for.
    ``on_frames`` hears how many frames were decoded since it last heard. ``video``: whose frames these are.
    """
    budget = budget or Budget(PREFETCH_BYTES)
    meter = meter or Meter()
    chunks: queue.Queue[FrameChunk | BaseException | None] = queue.Queue(maxsize=DEPTH)
    stopped = threading.Event()

    def put(item: FrameChunk | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                chunks.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def decode() -> None:
        reader: Iterator[FrameChunk] = iter(source)
        told = 0
        try:
            while True:
                with meter.video(video), meter.timed("decode", progress=lambda: source.decoded) as step:
                    chunk = next(reader, None)
                    step.frames = source.decoded - told
                on_frames(step.frames)
                told = source.decoded
                if chunk is not None:
                    budget.acquire(chunk.nbytes)
                if not put(chunk) and chunk is not None:
                    budget.release(chunk.nbytes)
                    return
                if chunk is None:
                    return
        except BaseException as error:  # whatever it is, it belongs to the reader of the queue
            put(error)

    thread = threading.Thread(target=decode, name="decode", daemon=True)
    thread.start()
    try:
        while (item := chunks.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            try:
                yield item
            finally:
                budget.release(item.nbytes)
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for bytes that lie in the queue
            _empty(chunks, budget)
            thread.join(timeout=0.05)
        _empty(chunks, budget)


def _empty(chunks: queue.Queue[FrameChunk | BaseException | None], budget: Budget) -> None:
    while True:
        try:
            item = chunks.get_nowait()
        except queue.Empty:
            return
        if item is not None and not isinstance(item, BaseException):
            budget.release(item.nbytes)
