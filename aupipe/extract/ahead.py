"""Decoding ahead: a thread that keeps a bounded number of chunks ready."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable

from aupipe.types import Frames


def ahead(source: Iterable[Frames], depth: int = 2) -> Generator[Frames, None, None]:
    """Chunks of a reader, decoded in a thread of their own up to ``depth`` chunks ahead of whoever reads them."""
    chunks: queue.Queue[Frames | BaseException | None] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: Frames | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                chunks.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def decode() -> None:
        try:
            for chunk in source:
                if not put(chunk):
                    return
            put(None)
        except BaseException as error:  # whatever it is, it belongs to the reader of the queue
            put(error)

    thread = threading.Thread(target=decode, name="decode", daemon=True)
    thread.start()
    try:
        while (item := chunks.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
