"""The contract, for every backend there is, plug-ins included."""

import pytest

from aupipe.store import STORES, create_store

from .contract import StoreContract


@pytest.fixture(scope="module", params=[*STORES.names(), "memory"])
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def make_store(backend, tmp_path_factory):
    return lambda: create_store(tmp_path_factory.mktemp("store") / "features", backend)


@pytest.fixture
def store(make_store):
    with make_store() as store:
        yield store


class TestEveryBackend(StoreContract):
    pass
