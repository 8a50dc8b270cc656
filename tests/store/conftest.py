"""Waits that are made for network file systems are short in these tests, which use a local one."""

import pytest

from aupipe.store import fs, local
from aupipe.store.maintenance import verify


@pytest.fixture(autouse=True)
def short_waits(request, monkeypatch):
    if "two_mounts" not in request.fixturenames:
        monkeypatch.setattr(local, "RETRY_WAITS_S", (0.01, 0.05))
        monkeypatch.setattr(verify, "RETRY_WAITS_S", (0.01, 0.05))
        monkeypatch.setattr(fs, "APPEAR_WAITS_S", (0.0, 0.05))
