"""Tables of named classes that are imported on demand and extended by entry points of other packages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from aupipe.errors import UsageError


def nearest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the known name nearest to ``name``, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""


class Registry:
    """A table of ``name -> "module:attribute"``, and the entry points of installed packages in ``aupipe.<noun>s``.

    A built-in name takes precedence over a plug-in of the same name, so that installing a package never changes the
    meaning of a configuration.
    """

    def __init__(self, noun: str, table: Mapping[str, str]) -> None:
        self.noun = noun
        self.table = dict(table)

    @cached_property
    def plugins(self) -> dict[str, EntryPoint]:
        """Name -> entry point of the group ``aupipe.<noun>s``, not yet imported."""
        return {point.name: point for point in entry_points(group=f"aupipe.{self.noun}s")}

    def names(self) -> list[str]:
        """Every known name, sorted."""
        return sorted({*self.table, *self.plugins})

    def __contains__(self, name: object) -> bool:
        return name in self.table or name in self.plugins

    def get(self, name: str) -> Any:
        """The class or function registered under ``name``.

        Raises UsageError for an unknown name, with the nearest known one.
        """
        if name in self.table:
            module, _, attribute = self.table[name].partition(":")
            return getattr(import_module(module), attribute)
        if name in self.plugins:
            return self.plugins[name].load()
        available = ", ".join(self.names())
        raise UsageError(f"unknown {self.noun} {name!r}.{nearest(name, self.names())} Available: {available}")

    def origin(self, name: str) -> str:
        """The package a name comes from: ``aupipe`` or the one that adds it."""
        if name in self.table:
            return "aupipe"
        distribution = self.plugins[name].dist
        return distribution.name if distribution else "unknown package"
