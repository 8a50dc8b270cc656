"""One torch thread: more of them fight over shared cores (specs/training.md 4, the thread trap)."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # test_synau tests the benchmark itself


# A busy machine is no defect.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
