"""η and b that follow the noise, through the samplers that users have."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset
from two_ranks import on_ranks

import igo


def noise(variance: float, interval: tuple[float, float] | None = None) -> igo.Noise:
    return igo.Noise(variance, interval, 4.0, batch_size=64, batches=8, sampling="disjoint")


def walk(plan: Any, variances: list[float], **given: Any) -> list[Any]:
    """The row of each stage as it is trained, C² at their starts given."""
    counter = igo.Counter(plan, feedback=igo.Feedback(**given))
    rows = []
    for variance in variances:
        assert counter.awaits_noise
        counter.measured(noise(variance))
        rows.append(counter.advance().stage)
        while not counter.awaits_noise and not counter.done:
            assert counter.advance().stage == rows[-1]
    assert counter.done
    return rows


def graduated(**given: Any) -> Any:
    known = {"n": 1437, "epochs": 12, "learning_rate": 0.1, "batch_size": 32, "p": 0.5, **given}
    return igo.plan("graduated", **known)


def delta(row: Any, variance: float) -> float:
    return float(row.eta_m * math.sqrt(variance / row.b_m))


@settings(deadline=None, max_examples=examples(60))
@given(
    changes=st.lists(st.floats(0.3, 3.0), min_size=11, max_size=11),
    split=st.sampled_from([0.0, 0.3, 1.0]),
    limit=st.sampled_from([1.2, 2.0, 10.0]),
    largest=st.sampled_from([None, 64, 100]),
    multiple=st.sampled_from([1, 8]),
)
def test_it_keeps_its_promises(
    changes: list[float], split: float, limit: float, largest: int | None, multiple: int
) -> None:
    plan = graduated(split=split, max_batch_size=largest, batch_multiple=multiple)
    variances = [50.0, *(50.0 * np.cumprod(changes)).tolist()]
    rows = walk(plan, variances, limit=limit)
    assert all(row.b_m <= (largest or plan.n) for row in rows)
    starts = [delta(row, c2) for row, c2 in zip(rows, variances, strict=True)]
    for (row, after), (start, next_start), stage in zip(
        itertools.pairwise(rows), itertools.pairwise(starts), plan.stages, strict=False
    ):
        assert after.b_m >= row.b_m
        ratio = after.eta_m / row.eta_m * math.sqrt(row.b_m / after.b_m)
        assert stage.gamma_m / limit * (1 - 1e-9) <= ratio <= stage.gamma_m * limit * (1 + 1e-9)
        bounded = ratio <= stage.gamma_m / limit * (1 + 1e-9)
        assert bounded or next_start <= start * (1 + 1e-12)


def test_it_is_on_target_where_the_noise_changes_slowly() -> None:
    plan, variances = graduated(split=0.5), [50.0 * 1.05**m for m in range(12)]
    first = delta(plan.stages[0], 50.0)
    for row, variance, stage in zip(walk(plan, variances), variances, plan.stages, strict=True):
        assert delta(row, variance) == pytest.approx(first * stage.phi_m, rel=1e-9)


@pytest.mark.parametrize(("split", "rise"), [(0.0, 2.0), (0.0, 0.7), (0.25, 1.5)])
def test_k_is_that_of_the_closed_form(split: float, rise: float) -> None:
    """κ √(1/λ) = ψ, λ = ψ^(-2(1 - s)): k = ⌈k_1 (φ √(C²_1/C²))^(2(1 - s))⌉."""
    plan = igo.plan("step", gamma=0.6, n=10_000, epochs=2, learning_rate=0.1, batch_size=16,
                    split=split)  # fmt: skip
    rows = walk(plan, [3.0, 3.0 * rise], limit=10)
    psi = 0.6 / math.sqrt(rise)
    assert rows[1].batches == math.ceil(625 * psi ** (2 * (1 - split)))
    assert rows[1].eta_m / math.sqrt(rows[1].b_m) == pytest.approx(0.1 / 4 * psi, rel=1e-12)


@pytest.mark.parametrize(
    "given",
    [
        {"split": 0.4},
        {"split": 0.4, "max_batch_size": 64, "batch_multiple": 8},
        {"split": 0.4, "epochs": 2, "stages": 7, "warmup": 500},
        {"split": 0.0, "switch": 0.5, "final_updates": 3},
    ],
)
def test_constant_noise_is_the_plan(given: dict[str, Any]) -> None:
    plan = graduated(**given)
    counter = igo.Counter(plan, feedback=igo.Feedback())
    assert counter.plan == plan
    while not counter.done:
        if counter.awaits_noise:
            counter.measured(noise(7.0))
        counter.advance()
    for row, stage in zip(counter.plan.stages, plan.stages, strict=True):
        assert (row.batches, row.updates) == (stage.batches, stage.updates)
        assert row.eta_m == pytest.approx(stage.eta_m, rel=1e-12)
        assert (row.kappa_m or 0) == pytest.approx(stage.kappa_m or 0, rel=1e-12)


def test_noise_that_vanishes_changes_a_stage_by_the_limit_at_most() -> None:
    """C² = 0, as where every sample is fitted: bounded steps, no division by zero."""
    for row, after in itertools.pairwise(walk(graduated(epochs=4, split=1), [9.0, 0.0, 0.0, 9.0])):
        assert 0 < after.eta_m <= 2 * row.eta_m


def test_chance_changes_nothing() -> None:
    """b stays while C² in use is within the interval, and goes to the new C² beyond it."""
    plan = igo.plan("constant", n=1000, epochs=4, learning_rate=0.1, batch_size=10, split=0)
    wide, narrow = (4.0, 25.0), (11.0, 25.0)
    for interval, second in ((wide, 10.0), (narrow, 20.0)):
        for hysteresis in (True, False):
            counter = igo.Counter(plan, feedback=igo.Feedback(hysteresis=hysteresis))
            sizes = []
            for estimate in (noise(10.0, (8.0, 13.0)), noise(20.0, interval)):
                counter.measured(estimate)
                sizes.append(counter.advance().stage.b_m)
                while not counter.awaits_noise:
                    counter.advance()
            assert sizes == [10.0, second if hysteresis else 20.0]


def test_without_an_estimate_a_stage_goes_on_as_planned() -> None:
    """As with a NoiseMeter, which has none at the start: the first estimate is that of δ_1."""
    plan = graduated(epochs=3, split=0)
    counter = igo.Counter(plan, feedback=igo.Feedback(limit=100))
    seen = []
    for estimate in (None, noise(5.0), noise(10.0)):
        counter.measured(estimate)
        seen.append(counter.advance().stage.batches)
        while not counter.awaits_noise and not counter.done:
            counter.advance()
    k_1 = plan.stages[0].batches
    assert seen == [k_1, math.ceil(k_1 * 2 / 3), math.ceil(k_1 / 3 / 2)]


@pytest.mark.parametrize("variance", [0.0, math.nan, math.inf])
def test_noise_that_cannot_be_followed_is_refused(variance: float) -> None:
    counter = igo.Counter(graduated(), feedback=igo.Feedback())
    with pytest.raises(igo.PlanError, match=r"noise=.*C² is (0|not finite)"):
        counter.measured(noise(variance))


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(igo.PlanError, match="limit=1 is not allowed: it must be above 1"):
        igo.Feedback(limit=1)
    for argument in ({"by_momentum": True}, {"noise_exponent": 1}):
        with pytest.raises(igo.PlanError, match="leave"):
            igo.Counter(graduated(**argument), feedback=igo.Feedback())
    plain, follows = igo.Counter(graduated()), igo.Counter(graduated(), feedback=igo.Feedback())
    for counter, other in ((plain, follows), (follows, plain)):
        with pytest.raises(igo.PlanError, match=r"checkpoint was made with(out)? it; do the same"):
            counter.load_state_dict(other.state_dict())
    with pytest.raises(RuntimeError, match="when awaits_noise is true"):
        plain.measured(noise(1.0))
    with pytest.raises(igo.PlanError, match="same arguments"):
        follows.load_state_dict(igo.Counter(graduated(p=0.4), feedback=igo.Feedback()).state_dict())


def test_a_stage_without_its_noise_is_refused() -> None:
    batches = igo.BatchSampler(graduated(), feedback=igo.Feedback())
    for use in (batches.advance, lambda: next(iter(batches)), lambda: next(batches.batches([]))):
        with pytest.raises(RuntimeError, match=r"stage 1 begins.*call measured\(noise\)"):
            use()
    batches.measured(noise(1.0))
    with pytest.raises(RuntimeError, match="when awaits_noise is true"):
        batches.measured(noise(1.0))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_noise_at_the_very_update(workers: int) -> None:
    """Also where stages begin inside epochs and workers fetch ahead."""
    plan = igo.plan("linear", n=300, epochs=2, stages=5, learning_rate=0.1, batch_size=5, split=0)
    batches = igo.BatchSampler(plan, feedback=igo.Feedback(limit=5))
    loader = DataLoader(torch.arange(300), batch_sampler=batches, num_workers=workers)
    seen, passes, variance = [], [], 1.0
    for epoch in batches.epochs():
        if batches.awaits_noise:
            batches.measured(noise(variance))
            variance *= 1.5
        count = 0
        for batch in loader:
            place = batches.plan.at(batches.updates + 1)
            assert len(batch) == batches.advance().batch_size == place.size
            seen += batch.tolist()
            count += 1
        assert len(loader) == count
        passes.append(epoch)
    assert passes == [1, 1, 1, 2, 2, 2]  # stages begin after 120, 240, 360 and 480 samples
    assert sorted(seen[:300]) == sorted(seen[300:]) == list(range(300))
    assert len({row.b_m for row in batches.plan.stages}) > 4


def test_a_stream_follows_it() -> None:
    plan = igo.plan("constant", samples=120, stages=3, learning_rate=0.1, batch_size=10, split=0)
    counter = igo.Counter(plan, feedback=igo.Feedback())
    counter.measured(noise(1.0))
    sizes = []
    for batch in counter.batches(range(120)):
        counter.advance()
        sizes.append(len(batch))
        if counter.awaits_noise:
            counter.measured(noise(2.0))
    assert sizes == [10] * 4 + [20] * 4


class Training:
    """A loop of a user's, with feedback, in a plan whose stages begin inside epochs."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        x = torch.randn(200, 3)
        self.data = TensorDataset(x, (x @ torch.tensor([1.0, -1.0, 2.0])).unsqueeze(1).sin())
        self.model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        plan = igo.plan("linear", n=200, epochs=2, stages=5, learning_rate=0.1, batch_size=5)
        feedback = igo.Feedback(hysteresis=False)
        self.batches = igo.BatchSampler(plan, 3, data=self.data, feedback=feedback)
        self.schedule = igo.Schedule(self.optimizer, self.batches)
        self.rates: list[float] = []

    def train(self, stop: tuple[int, str] | None = None) -> None:
        """To the end, or to a number of updates: before or after the noise is measured there."""
        loader = DataLoader(self.data, batch_sampler=self.batches)
        for _ in self.batches.epochs():
            if stop == (self.batches.updates, "before"):
                return
            if self.batches.awaits_noise:
                draws = DataLoader(self.data, 10, shuffle=True, drop_last=True)
                measured = igo.measure_noise(
                    self.model, mse_loss, draws, n=200, batches=20, seed=self.batches.updates
                )
                self.batches.measured(measured)
            if stop == (self.batches.updates, "after"):
                return
            for inputs, targets in loader:
                self.schedule.step()
                self.optimizer.zero_grad()
                mse_loss(self.model(inputs), targets).backward()
                self.optimizer.step()
                self.rates.append(self.optimizer.param_groups[0]["lr"])
                if stop == (self.batches.updates, "within"):
                    return

    @property
    def state(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "batches": self.batches}
        return {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}


def test_a_resumed_run_has_the_same_bits_wherever_it_stopped(tmp_path: Path) -> None:
    whole = Training()
    whole.train()
    starts = [0, *itertools.accumulate(row.updates for row in whole.batches.plan.stages)][:-1]
    planned = Training().batches.plan
    assert [row.batches for row in whole.batches.plan.stages] != [r.batches for r in planned.stages]
    stops = [(start, when) for start in starts for when in ("before", "after")]
    stops += [(start + 2, "within") for start in starts]
    for stop in stops:
        first, second = Training(), Training()
        first.train(stop)
        assert first.batches.updates == stop[0]
        torch.save(first.state, tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        for name in ("model", "optimizer", "batches"):
            getattr(second, name).load_state_dict(state[name])
        second.train()
        assert first.rates + second.rates == whole.rates
        assert second.batches.plan == whole.batches.plan
        for weight, other in zip(second.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(weight, other)


def _differing(rank: int, way: str) -> tuple[list[int], list[float]]:
    given: dict[str, Any] = {}
    if way == "numbers":
        given = {"rank": rank, "ranks": 2}
    elif way == "group":
        given = {"group": torch.distributed.new_group([0, 1])}
    batches = igo.BatchSampler(graduated(epochs=4), feedback=igo.Feedback(), **given)
    for _ in batches.epochs():
        batches.measured(noise(5.0 + rank + batches.updates))
        for _ in batches:
            batches.advance()
    rows = batches.plan.stages
    return [row.batches for row in rows], [row.eta_m for row in rows]


@pytest.mark.parametrize("way", ["world", "numbers", "group"])
def test_ranks_whose_estimates_differ_follow_the_first(way: str, tmp_path: Path) -> None:
    first, second = on_ranks(_differing, tmp_path, way)
    alone = _differing(0, "world")
    assert first == second == alone


def test_the_shares_of_two_ranks_are_the_batches_of_one(tmp_path: Path) -> None:
    def seen(**given: Any) -> list[list[int]]:
        batches = igo.BatchSampler(graduated(epochs=3), feedback=igo.Feedback(), **given)
        delivered: list[list[int]] = []
        for _ in batches.epochs():
            batches.measured(noise(5.0 + batches.updates))
            for batch in batches:
                batches.advance()
                delivered.append(batch)
        return delivered

    whole, shares = seen(), [seen(rank=rank, ranks=2) for rank in (0, 1)]
    for batch, share, other in zip(whole, *shares, strict=True):
        assert sorted(batch) == sorted(share + other)


def test_a_checkpoint_is_of_plain_numbers(tmp_path: Path) -> None:
    counter = igo.Counter(graduated(), feedback=igo.Feedback())
    counter.measured(noise(np.float64(3.0)))
    torch.save(counter.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == counter.state_dict()
