"""Schedules against constants: success rates by another simulation, and the choice of the rival."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lab.theory.row import rate_gap
from lab.theory.studies import noise

COMMITTED = Path(__file__).parents[3] / "results" / "theory" / "noise_and_batch.csv"


@pytest.mark.parametrize("b", [1, 8])
def test_the_success_of_a_constant_batch_is_that_of_another_simulation(b):
    """Differences of Rastrigin's value stand for its slope, with other draws."""
    rng, step = np.random.default_rng(99), 1e-5
    x = rng.uniform(-5.12, 5.12, 2000)
    for _ in range(noise.STEPS):
        up, down = ((x + s) ** 2 - 10 * np.cos(2 * np.pi * (x + s)) for s in (step, -step))
        slope = (up - down) / (2 * step)
        x -= noise.ETA * (slope + noise.NOISE * (2 * rng.random(2000) - 1) / b**0.5)
    table = pl.read_csv(COMMITTED).filter(schedule=f"constant, b = {b}")
    count = int((np.abs(x) < 0.5).sum())
    for column in ("in_global_basin", "in_global_basin_again"):
        share = (count + int(table[column][0])) / 4000
        error = np.sqrt(2 * share * (1 - share) / 2000)
        assert abs(count - int(table[column][0])) / 2000 < 4 * error


def test_the_rival_is_the_constant_that_other_chains_chose_and_no_other():
    table = pl.read_csv(COMMITTED)
    is_16 = pl.col("schedule") == "constant, b = 16"
    again = pl.when(is_16).then(2000).otherwise(pl.col("in_global_basin_again"))
    changed = table.with_columns(in_global_basin_again=again)
    checks = noise.falling_noise_is_better.look({"noise_and_batch": changed}).parts
    wins = {
        name: int(count) for name, count in table.select("schedule", "in_global_basin").iter_rows()
    }
    expected = rate_gap("", (wins["3 increasing batch"], 2000), (wins["constant, b = 16"], 2000))
    assert checks[1].value == expected.value
    assert checks[1].interval == expected.interval
