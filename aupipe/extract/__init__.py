"""Media to features. ``aupipe.extract(...)`` is `aupipe.commands.extract`."""

from aupipe.callable_module import make_callable

make_callable(__name__)
