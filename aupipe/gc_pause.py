"""Switches Python's garbage collector off while many objects are built that all stay alive."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """No garbage collection in this block, and as it was before afterwards.

    The collector would traverse a million objects again and again and free none of them.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # Freeze and unfreeze move all objects to the oldest generation: the next young collection has few to traverse.
        gc.freeze()
        gc.unfreeze()
        gc.enable()
