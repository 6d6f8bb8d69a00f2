"""The sampler by itself; what loaders and trainers make of it is in tests/adapters."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import igo
from igo.method.plan import Plan
from igo.method.sampler import BatchSampler


def plan(n: int = 50, epochs: int = 4, batch_size: int = 8) -> Plan:
    return igo.plan(
        "linear" if epochs > 1 else "constant", n=n, epochs=epochs, batch_size=batch_size,
        split=0, max_batch_size=n,
    )  # fmt: skip


@given(n=st.integers(1, 80), epochs=st.integers(1, 5), b=st.integers(1, 80), seed=st.integers(0, 9))
def test_every_epoch_is_all_samples_once_in_equal_batches(
    n: int, epochs: int, b: int, seed: int
) -> None:
    the_plan = plan(n, epochs, min(b, n))
    batches = BatchSampler(the_plan, range(n), seed=seed)
    for epoch in batches.epochs():
        stage = the_plan.rows_of_epoch(epoch)[0]
        seen: list[int] = []
        assert len(batches) == stage.batches
        for batch in batches:
            update = batches.advance()
            assert (update.epoch, update.row) == (epoch, stage)
            assert update.batch_size == update.samples == len(batch)
            assert abs(len(batch) - n / stage.batches) < 1
            seen += batch
        assert sorted(seen) == list(range(n))
        assert update.ends_epoch
    assert batches.updates == the_plan.updates
    assert len(batches) == the_plan.rows[-1].batches  # of the last epoch
    assert sorted(index for batch in batches for index in batch) == list(range(n))  # and again


def test_a_state_without_a_seed_leaves_the_samplers() -> None:
    batches, counter = BatchSampler(plan(), range(50), seed=4), igo.Counter(plan())
    with pytest.raises(igo.PlanError, match=r"^the state has model, batches; give what"):
        batches.load_state_dict({"model": {}, "batches": counter.state_dict()})
    _, *others = batches
    counter.advance()
    batches.load_state_dict(counter.state_dict())
    assert list(batches) == others


def test_another_plan_is_named_by_the_arguments_that_differ() -> None:
    def state(profile: Any, **other: Any) -> dict[str, Any]:
        given = {"n": 50, "epochs": 4, "learning_rate": 0.1, "batch_size": 5, "p": 0.5, **other}
        buffer = io.BytesIO()
        sampler = BatchSampler(igo.plan(profile, **given), range(50))
        torch.save(sampler.state_dict(), buffer)
        buffer.seek(0)
        return dict(torch.load(buffer, weights_only=True))

    ours = BatchSampler(
        igo.plan("graduated", n=50, epochs=4, learning_rate=np.float64(0.1), batch_size=5, p=0.5),
        range(50),
    )
    ours.load_state_dict(state("graduated"))
    for theirs, words in (
        (state("graduated", batch_size=10), "a plan with batch_size=10 (here 5); give igo.plan"),
        (state("graduated", learning_rate=0.2, p=1, epochs=6),
         "with epochs=6 (here 4), learning_rate=0.2 (here 0.1), p=1.0 (here 0.5);"),
        (state("polynomial", split=0),
         "with profile='polynomial' (here 'graduated'), split=0.0 (here 0.5);"),
        (state(lambda t, *, p: 1 - t * p), "<lambda>' (here 'graduated');"),
        ({"updates": 0, "plan": "", "rates": [0] * 6}, "is of another plan; give igo.plan"),
    ):  # fmt: skip
        with pytest.raises(igo.PlanError) as raised:
            ours.load_state_dict(theirs)
        assert words in str(raised.value)
