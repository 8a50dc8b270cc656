"""Mounts that only some processes of a test see: in a mount namespace of their own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import cache

import pytest

WAYS = (("unshare", "-rm"), ("unshare", "-m"))  # as any user; as root where users may make no namespace
Mounting = Callable[[str], tuple[str, ...]]


@cache
def way_to_mount() -> tuple[tuple[str, ...], str]:
    """The words before a command that may mount then, else () and what this machine says against it."""
    if shutil.which("unshare") is None:
        return (), "there is no program `unshare` (apt-get install util-linux)"
    against = []
    for way in WAYS:
        command = [*way, "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
        tried = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if tried.returncode == 0:
            return way, ""
        against.append(f"`{' '.join(way)}`: {' '.join(tried.stderr.split())}")
    return (), "; ".join(against)


@pytest.fixture
def mounting() -> Mounting:
    """The words of a command that runs a shell script which may mount; skips where this machine refuses mounts."""
    way, against = way_to_mount()
    if not way:
        pytest.skip(
            "a full disk, and a folder that one process does not see, are real only as a mount, which must not be seen "
            f"by the rest of this machine. It refuses that ({against}): allow user namespaces, or run as root. What "
            "aupipe says of such errors is tested everywhere, with simulated ones"
        )
    return lambda script: (*way, "sh", "-c", script)
