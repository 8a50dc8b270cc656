"""Which measurements are faults."""

from __future__ import annotations

import pytest

from aupipe.report.checks.facts import Facts
from aupipe.report.checks.judge import LEAST_CORPUS, judge


@pytest.mark.parametrize("measured", [3, LEAST_CORPUS])
def test_one_is_unlike_the_others_only_where_enough_have_the_measurement(measured: int) -> None:
    corpus = [Facts(f"r{number}", {"fps": 25.0}) for number in range(20)]
    for facts in corpus[:measured]:
        facts.values["score"] = 0.9
    corpus[0].values["score"] = 0.5
    flagged = [(finding.recording, finding.fault) for finding in judge(corpus)]
    assert flagged == [("r0", "face hard to see")] * (measured >= LEAST_CORPUS)
