"""How often a 95% interval by video holds the true score: ``python benchmarks/interval_coverage.py [--repeats 1000]``.

A population of people is drawn: each has own rates of 12 AUs, and is detected with own hit and false alarm rates. The
true score is the macro F1 over 50,000 of them. Samples of few people are drawn again and again, and the percentile and
the BCa interval of each is compared with the true score.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from scipy import stats

from aupipe.tasks import as_task
from aupipe.train.intervals import GroupSums

AUS, FRAMES, DWELL = 12, 600, 20  # frames of a person, of which DWELL neighbours are alike
PEOPLE = (5, 9, 15, 30, 60)
DRAWS = 1000


def draw_people(rng: np.random.Generator, people: int) -> np.ndarray:
    """(people, 12, 2, 2) counts of frames [AU, present, predicted]."""
    level = np.linspace(-3.0, 0.5, AUS)  # log-odds: rates from .05 to .6
    present = rng.binomial(FRAMES // DWELL, sigmoid(level + rng.normal(0, 1.2, (people, AUS)))) * DWELL
    skill = rng.normal(0, 0.8, (people, 1))
    hit = sigmoid(0.8 + skill + rng.normal(0, 0.8, (people, AUS)))
    alarm = sigmoid(-2.2 + rng.normal(0, 0.8, (people, AUS)))
    hits = rng.binomial(present // DWELL, hit) * DWELL
    alarms = rng.binomial((FRAMES - present) // DWELL, alarm) * DWELL
    return np.stack([np.stack([FRAMES - present - alarms, alarms], -1), np.stack([present - hits, hits], -1)], -2)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    whole = draw_people(rng, 50_000).sum(axis=0)[None].astype(float)
    true = GroupSums(as_task("au"), ("all",), whole).scores(np.zeros(1, int))[-1]
    print(f"true macro F1 {true:.3f}; {options.repeats} samples each")
    print("people  percentile: covers, width   BCa: covers, width")
    for people in PEOPLE:
        held = {"percentile": 0, "BCa": 0}
        width = {"percentile": 0.0, "BCa": 0.0}
        for _ in range(options.repeats):
            sums = GroupSums(as_task("au"), tuple(map(str, range(people))), draw_people(rng, people).astype(float))
            index, seed = np.arange(people), int(rng.integers(2**32))

            def mean(index: np.ndarray, axis: int, sums: GroupSums = sums) -> np.ndarray:
                return sums.scores(index)[..., -1]

            for method in held:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = stats.bootstrap(
                        (index,), mean, n_resamples=DRAWS, method=method, vectorized=True, axis=-1, rng=seed
                    ).confidence_interval
                held[method] += found.low <= true <= found.high
                width[method] += (found.high - found.low) / options.repeats
        cells = [f"{held[method] / options.repeats:.1%}, {width[method]:.3f}" for method in held]
        print(f"{people:6d}  {cells[0]:>18s}  {cells[1]:>24s}", flush=True)


if __name__ == "__main__":
    main()
