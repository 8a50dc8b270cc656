"""`gc_paused` switches the garbage collector off in its block only."""

import gc
import weakref

import pytest

from aupipe.gc_pause import gc_paused


class Loop:
    def __init__(self) -> None:
        self.me = self


def test_collection_stops_in_the_block_and_continues_after_it() -> None:
    def build() -> None:
        with gc_paused():
            lost.append(weakref.ref(Loop()))
        assert not gc.isenabled()
        raise ValueError("inside")

    lost: list[weakref.ref[Loop]] = []
    with pytest.raises(ValueError, match="inside"), gc_paused():
        build()
    assert gc.isenabled()
    gc.collect()
    assert lost[0]() is None


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
