"""Values made in a thread ahead of their use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

PREFETCH = 2  # values made while one is in use
THREAD_NAME = "aupipe-loader"


@dataclass(frozen=True)
class _Failure:
    error: BaseException


def prefetched(make: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """``make(item)`` for each item, in order, computed by a thread at most `PREFETCH` values ahead of the consumer.

    An exception of ``make`` is raised to the consumer. The thread ends when the iterator is closed. A queue and not a
    thread pool: passing batches on by futures cost a linear head a twentieth of its time.
    """
    made: SimpleQueue[T | _Failure | None] = SimpleQueue()
    free = Semaphore(PREFETCH)
    closed = Event()

    def work() -> None:
        try:
            for item in items:
                free.acquire()
                if closed.is_set():
                    return
                made.put(make(item))
            made.put(None)
        except BaseException as error:
            made.put(_Failure(error))

    thread = Thread(target=work, name=THREAD_NAME, daemon=True)
    try:
        thread.start()
        while (value := made.get()) is not None:
            if isinstance(value, _Failure):
                raise value.error
            free.release()
            yield value
            del value  # else it stays in memory while the next one is awaited
    finally:
        closed.set()
        free.release()
        if thread.is_alive():  # False where a signal interrupted its start; it then ends by itself
            thread.join()
