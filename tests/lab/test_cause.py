"""The study of results/cause.md: what an update's noise is, by enumeration of its batches."""

import itertools
from collections.abc import Iterable, Sequence

import pytest
import torch
from conftest import TINY, rounded
from torch import Tensor
from trained import prepared

from igo.train.on_device import Batch
from lab.study import cause
from lab.study.cause import Arm, Steps, weights

RATE = 0.1


def test_weights_have_the_variance_that_is_asked_for() -> None:
    for k, v in ((1, None), (6, None), (6, 0.3875), (7, 0.3875), (6, 1.0)):
        w = weights(k, v)
        assert float(w.sum()) == pytest.approx(1, abs=1e-12)
        assert float(w.square().sum()) == rounded(1 / k if v is None else v)


def steps_of(arm: Arm) -> tuple[Steps, list[Batch]]:
    run = prepared(*TINY, "schedule=method1", "engine.precision=fp32")
    run.network.train()
    rows = torch.randperm(run.data.n).split(cause.BATCH)[:3]
    return Steps(run, arm, RATE), list(run.data.train_batches(rows, 0))


def change(steps: Steps, batches: Iterable[Batch], other_batches: Sequence[Batch] = ()) -> Tensor:
    """The parameters' change by one update with these batches; then it is taken back."""
    old_parameters = [p.detach().clone() for p in steps.parameters]
    steps.batches, steps.others = iter(batches), iter(other_batches)
    steps.step(0, 0)
    changes = [
        (p.detach() - old).reshape(-1)
        for p, old in zip(steps.parameters, old_parameters, strict=True)
    ]
    for p, old in zip(steps.parameters, old_parameters, strict=True):
        p.data.copy_(old)
    return torch.cat(changes).double()


def test_an_update_has_the_mean_of_one_batch_and_the_planned_part_of_its_variance() -> None:
    """Every pair of three batches, each as often: E[step] and E‖step − E[step]‖² are exact."""
    steps, batches = steps_of(Arm(batches=(2.0,) * 5, variance=0.8))
    single, _ = steps_of(Arm())
    single.run.network.load_state_dict(steps.run.network.state_dict())
    singles = torch.stack([change(single, [batch]) for batch in batches])
    pairs = torch.stack([change(steps, pair) for pair in itertools.product(batches, repeat=2)])

    def spread(changes: Tensor) -> float:
        return float((changes - changes.mean(0)).square().sum(1).mean())

    torch.testing.assert_close(pairs.mean(0), singles.mean(0), rtol=1e-3, atol=1e-6)
    assert spread(pairs) == pytest.approx(0.8 * spread(singles), rel=1e-3)


def test_smoothing_takes_gradients_beside_the_point_and_leaves_it_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without noise it is the quiet step; with it the shifts are 0 on average, and no more."""
    monkeypatch.setattr(cause, "SMOOTHING", 3)
    quiet, batches = steps_of(Arm(batches=(3.0,) * 5))
    smoothed, _ = steps_of(Arm(batches=(3.0,) * 5, smoothing=(0.0,) * 5))
    smoothed.run.network.load_state_dict(quiet.run.network.state_dict())
    torch.testing.assert_close(change(smoothed, batches, batches), change(quiet, batches))
    smoothed.others = iter(batches)
    shifts = smoothed._own_noise(0.25)
    flat = torch.stack([torch.cat([part.reshape(-1) for part in shift]) for shift in shifts])
    assert float(flat.mean(0).abs().max()) < 1e-6
    single = Steps(quiet.run, Arm(), RATE)
    singles = torch.stack([change(single, [batch]) for batch in batches])
    variance = float(singles.var(0).sum())  # variance of η g, unbiased, over 3 batches
    assert float(flat.square().sum(1).mean()) == pytest.approx(0.25 * variance, rel=1e-3)
