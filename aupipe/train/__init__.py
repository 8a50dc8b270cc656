"""Features to scores. ``aupipe.train(...)`` is `aupipe.commands.train`."""

from aupipe.callable_module import make_callable

make_callable(__name__)
