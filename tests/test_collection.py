"""Garbage is left alone while a lot is built, and no longer."""

import gc
import weakref

import pytest

from aupipe.collection import collection_paused


class Loop:
    def __init__(self) -> None:
        self.me = self


def test_collection_stops_within_and_goes_on_after() -> None:
    def build() -> None:
        with collection_paused():
            lost.append(weakref.ref(Loop()))
        assert not gc.isenabled()
        raise ValueError("inside")

    lost: list[weakref.ref[Loop]] = []
    with pytest.raises(ValueError, match="inside"), collection_paused():
        build()
    assert gc.isenabled()
    gc.collect()
    assert lost[0]() is None


def test_who_has_switched_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
