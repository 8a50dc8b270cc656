"""Packages that are functions too: ``aupipe.extract`` is a package, and ``aupipe.extract(...)`` runs it."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that calls the function of its own name in `aupipe.commands`, which is imported at the first call."""

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._called_function())

    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `aupipe.commands`, where the function and its documentation are."""
        return self._called_function()(*args, **options)

    def _called_function(self) -> Any:
        return getattr(import_module("aupipe.commands"), self.__name__.rpartition(".")[2])


def make_callable(module: str) -> None:
    """Make the module of this name a `CallableModule`."""
    sys.modules[module].__class__ = CallableModule
