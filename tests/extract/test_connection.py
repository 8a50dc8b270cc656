"""What is said and refused on the way to a Dask scheduler, before anything is asked of it."""

from __future__ import annotations

import pytest

from aupipe.errors import AupipeError
from aupipe.extract.executors.cluster import connection
from aupipe.extract.executors.cluster.connection import SchedulerOptions, connected


@pytest.mark.parametrize(
    ("address", "warned"),
    [
        ("tcp://192.0.2.1:8786", True),
        ("tcp://[2001:db8::1]:8786", True),
        ("tls://192.0.2.1:8786", False),
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
    ],
)
def test_a_scheduler_without_tls_is_warned_of_unless_it_is_on_the_loopback(
    monkeypatch: pytest.MonkeyPatch, address: str, warned: bool
) -> None:
    async def reach(*arguments: object) -> None:
        raise OSError("nobody there")

    monkeypatch.setattr(connection, "_reach", reach)
    said: list[str] = []
    with pytest.raises(AupipeError), connected(SchedulerOptions(address), said.append):
        pass
    assert [("no TLS" in line, address in line) for line in said] == [(True, True)] * warned
