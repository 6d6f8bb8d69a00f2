"""What results/fewer_updates.md adds post hoc: its control, its jobs, and its tables."""

import math

import numpy as np
import pytest
from scipy import stats

from lab.study import afterwards
from lab.study.afterwards import AGAIN, CONTROL, HALF_AS_LONG, SEEDS, SPLIT, STUDY
from lab.study.design import Record, key
from lab.study.fewer_updates import TUNED

BEST = 0.8  # the rate that is best in the control's tuning


def accuracy(arm: str, rate: float, seed: int) -> float:
    """The end of a made run: the control is best at BEST, and cosine at 0.4."""
    random = np.random.default_rng([len(arm), round(10 * rate), seed])
    octaves = abs(math.log2(rate / (BEST if arm == CONTROL else 0.4)))
    return 60 - octaves + 0.01 * seed + float(random.normal(0, 0.1))


def accuracies(arm: str, rate: float) -> np.ndarray:
    return np.array([accuracy(arm, rate, seed) for seed in SEEDS])


def records() -> dict[str, Record]:
    """All runs of the study, made job by job as it names them."""
    costs = {"updates": 100, "rates": [1.0] * 5, "deltas": [0.5] * 5, "cpu": "x", "torch": "2"}
    runs: dict[str, Record] = {}
    while jobs := STUDY.missing(runs):
        for job in jobs:
            end = accuracy(job["arm"], job["rate"], job["seed"])
            runs[key(job)] = {"job": job, "running": end, "fresh": end, **costs}
    return runs


def test_the_control_has_the_rate_of_the_split_at_a_constant_b() -> None:
    plan = afterwards.root_cosine(32, 2000)
    etas = [row.eta_m for row in plan.rows for _ in range(row.epochs)]
    curve = [math.sqrt((1 + math.cos(math.pi * epoch / 80)) / 2) for epoch in range(80)]
    assert etas == pytest.approx(curve)
    assert {row.b_m for row in plan.rows} == {2000 / 63}


def test_the_table_compares_the_best_of_the_rates_and_the_control() -> None:
    runs = records()
    seeds_of_arms = {arm: len(of_arm) for arm, of_arm in STUDY.arms(runs).items()}
    whole_arms = ("cosine", 0.4), ("cosine", 0.8), (CONTROL, 0.4), (CONTROL, BEST)
    repeated_arms = ("cosine", 0.2), (SPLIT, 0.4)
    repeats = len(AGAIN)
    assert seeds_of_arms == dict.fromkeys(whole_arms, 32) | dict.fromkeys(repeated_arms, repeats)
    assert sum(run["job"]["seed"] in TUNED for run in runs.values()) == 5 * len(TUNED)
    rates = {"cosine": 0.2, SPLIT: 0.4, "Method 3": 0.4}
    rates |= dict.fromkeys(("cosine, split 0", "cosine, b = 32", HALF_AS_LONG), 0.4)
    ends = {arm: accuracies(arm, rate) for arm, rate in rates.items()}
    of_study = {arm: [{"running": x, "fresh": x} for x in of_arm] for arm, of_arm in ends.items()}
    lines = afterwards.summary(runs, of_study).splitlines()
    cells = {line.split(" | ")[0].lstrip("| "): line.split(" | ")[1:3] for line in lines}
    for arm, rival, rate in (
        ("Method 3", "cosine", 0.4),
        ("cosine, split 0", "cosine", 0.4),
        (SPLIT, CONTROL, BEST),
    ):
        gaps = ends[arm] - accuracies(rival, rate)
        low, high = stats.t.interval(0.95, 31, gaps.mean(), stats.sem(gaps))
        interval = f"{gaps.mean():+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
        assert cells[f"{arm} − {rival}, η₁ = {rate}"] == ["32", interval]
    assert cells["cosine again − cosine"] == [str(repeats), "+0.00 [+0.00, +0.00]"]
    assert afterwards.summary({}, of_study) == ""
