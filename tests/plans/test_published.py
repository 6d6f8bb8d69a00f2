"""Published tables of b, update by update, and the clock of updates.

The papers' schedules are in tests/project/test_reproduce.py.
"""

import math
import pickle
import statistics
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import rounded, updates_of

import igo

Table = dict[int, int]  # It has sizes by samples.
Sizes = Iterator[int]  # It has b of each batch.


def megatron_sizes(table: Table) -> Sizes:
    """Before each batch b is looked up at the samples that were consumed."""
    consumed = 0
    while True:
        b = max(b for start, b in table.items() if start <= consumed)
        yield b
        consumed += b


def olmo_sizes(table: Table) -> Sizes:
    """OLMo-core counts batches of the size in use, and waits until they are whole larger ones."""
    b, batches = table[0], 0
    while True:
        next_b = max(size for start, size in table.items() if start <= batches * b)
        if batches % (next_b // b) == 0:
            b, batches = next_b, batches // (next_b // b)
        yield b
        batches += 1


def whole(sizes: Sizes, samples: int) -> Sizes:
    """The batches for which there are samples."""
    for b in sizes:
        if b > samples:
            return
        yield b
        samples -= b


def rounded_up(table: Table) -> Table:
    """The table with which igo has OLMo-core's batches: each place is a multiple of its size."""
    return {-(-start // b) * b: b for start, b in table.items()}


def ramp(start: int, increment: int, ramp_samples: int, b: int) -> Table:
    """``--rampup-batch-size START INCREMENT SAMPLES --global-batch-size B`` as a table."""
    steps = (b - start) // increment
    # b(consumed) = start + ⌊consumed/(ramp_samples/steps)⌋ · increment
    return {-(-i * ramp_samples // steps): start + i * increment for i in range(steps + 1)}


TABLES = {  # Each has the rule, sizes by samples, the samples in all, and those of the warm-up.
    "GPT-3, in Megatron-LM": (megatron_sizes, ramp(16, 16, 5_859_375, 1536), 7_000_000, 183_105),
    "OLMo-core": (olmo_sizes, {0: 64, 640: 128, 3328: 256, 11_776: 512}, 25_728, 0),
    "OLMo-core, which waits": (olmo_sizes, {0: 96, 2000: 192, 5001: 1152}, 40_000, 3000),
}


@pytest.mark.filterwarnings("ignore:batches of each size")
def test_a_table_changes_b_at_the_first_batch_at_or_after_its_place() -> None:
    """η follows the root of b, as OLMo-core's does; GPT-3's ramp begins within its warm-up."""
    for sizes, table, samples, warmup in TABLES.values():
        our_table = rounded_up(table) if sizes is olmo_sizes else table
        arguments: Any = {"samples": samples, "warmup_samples": warmup, "batch_multiple": 16}
        plan = igo.plan("constant", batch_size=our_table, **arguments)
        consumed = 0
        for number, b in enumerate(whole(sizes(table), samples), 1):
            consumed += b
            eta = math.sqrt(b / table[0]) * min(1, consumed / (warmup or 1))
            update = plan.at(number)
            assert update.batch_size == b
            assert update.learning_rate == rounded(eta)
        assert number == plan.updates
        shares = {
            (start - warmup) / (samples - warmup): b for start, b in our_table.items() if start
        }
        if not warmup:  # A share is one of the samples after the warm-up.
            assert plan == igo.plan("constant", batch_size={0: table[0], **shares}, **arguments)


def test_a_clock_of_updates_begins_after_the_warm_up_and_a_row_has_its_mean() -> None:
    """The curve is 1 in the 11 updates that begin before sample 105, over which η rises."""
    plan = igo.plan(
        rate="diminishing",
        clock="updates",
        warmup_samples=105,
        learning_rate=0.3,
        batch_size={0: 10, 0.25: 20, 0.5: 40},
        samples=4000,
    )
    warming = [0.3 * 10 * number / 105 for number in range(1, 11)]
    falling = [0.3 / math.sqrt(max(k, 0) + 1) for k in range(-1, plan.updates - 11)]
    updates = updates_of(plan)
    rates = [update.learning_rate for update in updates]
    assert rates == rounded([*warming, *falling])
    for row in plan.rows[1:]:
        mean = statistics.fmean(update.learning_rate for update in updates if update.row == row)
        assert row.eta_m == rounded(mean)
        assert row.phi_m == rounded(mean / 0.3 / math.sqrt(row.b_m / 10))


def test_a_plan_by_updates_is_plain_data() -> None:
    """It goes to other processes though its curve is a lambda, and a checkpoint knows its rates."""
    arguments: Any = {"samples": 2000, "batch_size": {0: 10, 0.5: 20}, "stages": 1}
    plan = igo.plan(rate=lambda t: 1 - t, clock="updates", **arguments)
    copy = pickle.loads(pickle.dumps(plan))
    assert copy == plan
    assert copy.at(120).learning_rate == 1 - 119 / 150
    assert copy.is_that_of(plan.identity)
    # These have the same mean in both rows, and other rates of the updates.
    other_plan = igo.plan(
        rate=lambda t: 1 - t + 0.001 * math.sin(60 * math.pi * t), clock="updates", **arguments
    )
    assert not other_plan.is_that_of(plan.identity)
    assert not plan.is_that_of(igo.plan(rate="linear", **arguments).identity)


def test_what_depends_on_t_has_a_hundred_stages_in_a_single_pass() -> None:
    cases: list[tuple[dict[str, Any], int]] = [
        ({"rate": "cosine"}, 100),
        ({"profile": "graduated", "p": 0.5}, 100),
        ({"profile": "constant", "batch_size": lambda t: 250 * (1 + t)}, 100),
        ({"profile": "constant"}, 1),
    ]
    for arguments, stages in cases:
        plan = igo.plan(**{"samples": 10**6, "batch_size": 250, **arguments})
        assert len(plan.rows) == stages, arguments


def test_a_rate_by_epochs_says_in_how_many_steps_it_falls() -> None:
    assert "η in 5 steps" in str(igo.plan(rate="cosine", n=100, epochs=5, batch_size=10))
