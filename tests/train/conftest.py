"""One torch thread: more of them fight over shared cores (specs/training.md 4, the thread trap)."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
