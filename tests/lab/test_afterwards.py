"""What results/fewer_updates.md adds post hoc: its control, its jobs, and its tables."""

import math

import numpy as np
import pytest
from scipy import stats

from lab.study import afterwards
from lab.study.afterwards import AGAIN, CONTROL, SEEDS, SPLIT, STUDY
from lab.study.design import Record, key
from lab.study.fewer_updates import TUNED

BEST = 0.8  # of the control's tuning


def accuracy(arm: str, rate: float, seed: int) -> float:
    """Of a made run: the control is best at BEST, and cosine at 0.4."""
    random = np.random.default_rng([len(arm), round(10 * rate), seed])
    off = abs(math.log2(rate / (BEST if arm == CONTROL else 0.4)))
    return 60 - off + 0.01 * seed + float(random.normal(0, 0.1))


def records() -> dict[str, Record]:
    """All runs of the study, made job by job as it names them."""
    runs: dict[str, Record] = {}
    while missing := STUDY.missing(runs):
        for job in missing:
            found = accuracy(job["arm"], job["rate"], job["seed"])
            runs[key(job)] = {"job": job, "running": found, "fresh": found, "updates": 100,
                              "rates": [1.0] * 5, "deltas": [0.5] * 5, "cpu": "x",
                              "torch": "2"}  # fmt: skip
    return runs


def test_the_control_has_the_rate_of_the_split_at_a_constant_b() -> None:
    plan = afterwards.root_cosine(32, 2000)
    etas = [row.eta_m for row in plan.rows for _ in range(row.epochs)]
    assert etas == pytest.approx([math.sqrt((1 + math.cos(math.pi * epoch / 80)) / 2)
                                  for epoch in range(80)])  # fmt: skip
    assert {row.b_m for row in plan.rows} == {2000 / 63}


def test_the_table_compares_the_best_of_the_rates_and_the_control() -> None:
    runs = records()
    arms = STUDY.arms(runs)
    assert {arm: len(of_arm) for arm, of_arm in arms.items()} == {
        ("cosine", 0.4): 32, ("cosine", 0.8): 32, (CONTROL, 0.4): 32, (CONTROL, BEST): 32,
        ("cosine", 0.2): len(AGAIN), (SPLIT, 0.4): len(AGAIN),
    }  # fmt: skip
    assert sum(run["job"]["seed"] in TUNED for run in runs.values()) == 5 * len(TUNED)
    ends = {name: np.array([accuracy(name, rate, seed) for seed in SEEDS])
            for name, rate in (("cosine", 0.2), (SPLIT, 0.4), ("Method 3", 0.4))}  # fmt: skip
    lines = afterwards.summary(runs, {"running": ends, "fresh": ends}).splitlines()
    cells = {line.split(" | ")[0].lstrip("| "): line.split(" | ")[1:3] for line in lines}
    best_cosine = np.array([accuracy("cosine", 0.4, seed) for seed in SEEDS])
    for name, other, found in (
        ("Method 3", "cosine, η₁ = 0.4", ends["Method 3"] - best_cosine),
        (SPLIT, f"{CONTROL}, η₁ = {BEST}",
         ends[SPLIT] - [accuracy(CONTROL, BEST, seed) for seed in SEEDS]),
    ):  # fmt: skip
        low, high = stats.t.interval(0.95, 31, found.mean(), stats.sem(found))
        shown = f"{found.mean():+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
        assert cells[f"{name} − {other}"] == ["32", shown]
    assert cells["cosine again − cosine"] == [str(len(AGAIN)), "+0.00 [+0.00, +0.00]"]
    assert afterwards.summary({}, {"running": ends}) == ""
