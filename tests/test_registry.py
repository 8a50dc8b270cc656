from __future__ import annotations

from types import SimpleNamespace

import pytest

from aupipe.errors import UsageError
from aupipe.extract.encoders import ENCODERS
from aupipe.extract.faces import DETECTORS
from aupipe.registry import Registry
from aupipe.store import STORES
from aupipe.train.heads import HEADS


@pytest.mark.parametrize("registry", [ENCODERS, DETECTORS, HEADS, STORES], ids=lambda registry: registry.noun)
def test_every_registered_name_can_be_had(registry: Registry) -> None:
    for name in registry.names():
        assert registry.get(name) is not None


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list() -> None:
    with pytest.raises(UsageError, match=r"unknown encoder 'hogg'\. Did you mean 'hog'\? Available: arcface, .*hog"):
        ENCODERS.get("hogg")


def test_a_plugin_never_replaces_a_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        dist = None

        def load(self) -> str:
            return "plugin"

    registry = Registry("thing", {"a": "aupipe.errors:UsageError"})
    monkeypatch.setitem(registry.__dict__, "plugins", {"a": Point(), "b": Point()})
    assert registry.get("a") is UsageError
    assert registry.get("b") == "plugin"
    assert registry.names() == ["a", "b"]


def test_a_plugin_that_cannot_be_imported_is_one_line_that_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        dist = SimpleNamespace(name="their-package")

        def load(self) -> None:
            raise ImportError("No module named\n'their_library'")

    registry = Registry("thing", {})
    monkeypatch.setitem(registry.__dict__, "plugins", {"b": Point()})
    with pytest.raises(
        UsageError, match=r"^thing 'b' of the package their-package has an error: ImportError: No"
    ) as said:
        registry.get("b")
    assert "\n" not in str(said.value)
