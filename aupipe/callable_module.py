"""Packages that are functions too: ``aupipe.extract`` is a package, and ``aupipe.extract(...)`` runs it."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that calls a function of another one, which is imported at the first call."""

    __called__ = ("", "")  # module and name of the function

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._called_function())

    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `aupipe.commands`, where the function and its documentation are."""
        return self._called_function()(*args, **options)

    def _called_function(self) -> Any:
        module, name = self.__called__
        return getattr(import_module(module), name)


def make_callable(module: str, called: str, name: str) -> None:
    """Make the module named ``module`` call the function ``name`` of the module ``called``."""
    kind = type(name, (CallableModule,), {"__called__": (called, name)})
    sys.modules[module].__class__ = kind
