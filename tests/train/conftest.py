"""One torch thread: two were 50 times slower than one on a shared machine (docs/training.md, "Speed")."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # test_synau tests the benchmark itself


# Tests may be slow on a busy machine.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
