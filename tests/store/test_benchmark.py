"""`benchmarks/store.py` reaches into planning: what it measures is what a run does, also after planning has changed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[2] / "benchmarks" / "store.py"


def test_planning_is_measured_with_and_without_a_look_at_each_video(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("benchmark_of_the_store", PATH)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.planning(tmp_path, recordings=20, rounds=1)
    assert len(found) >= 4
    assert all(value > 0 for value in found.values()), found
