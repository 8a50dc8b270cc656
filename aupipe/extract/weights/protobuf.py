"""Protocol buffers as far as ONNX files need them: the fields of a message, without knowing what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

Buffer: TypeAlias = "bytes | memoryview"


def fields(message: Buffer) -> Iterator[tuple[int, int | Buffer]]:
    """(field number, value) in file order."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(message, at)
            yield number, value
            continue
        if kind == 2:
            length, at = varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > len(message):
            raise ValueError("cut short")
        yield number, message[at : at + length]
        at += length


def varint(message: Buffer, at: int) -> tuple[int, int]:
    """The number at a place, seven bits a byte, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
