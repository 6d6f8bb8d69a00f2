"""``igo.smoothed_loss``: a quadratic's closed form, and what it leaves alone."""

import math
from typing import Any

import pytest
import torch
from conftest import unchanged
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import ChainDataset, DataLoader, TensorDataset

import igo

RATE = 0.3


def loader_of(x: Tensor, y: Tensor, b: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(x, y), batch_size=b, shuffle=True, drop_last=True)


def test_a_quadratic_loss_rises_by_half_the_trace_of_hessian_and_covariance() -> None:
    """E f(x + s) − f(x) = tr(H E[ssᵀ])/2, for the ball with E[uuᵀ] = I/(P + 2)."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(48, 3, generator=random, dtype=torch.float64)
    y = torch.randn(48, 1, generator=random, dtype=torch.float64)
    model = nn.Linear(3, 1).double()
    loader = loader_of(x, y, 6)
    smoothed = igo.smoothed_loss(
        model,
        mse_loss,
        loader,
        [(x[:40], y[:40]), (x[40:], y[40:])],
        n=48,
        learning_rate=RATE,
        draws=1000,
    )
    inputs = torch.cat([x, torch.ones(48, 1)], 1)
    hessian = 2 * inputs.T @ inputs / 48
    gradients = 2 * (model(x) - y).detach() * inputs
    # Batches of b of n without replacement.
    covariance = gradients.T.cov(correction=0) * (48 - 6) / 47 / 6
    rise = RATE**2 * float((hessian @ covariance).trace()) / 2
    rise_of_ball = smoothed.delta**2 * float(hessian.trace()) / (4 + 2) / 2
    assert smoothed.loss == pytest.approx(mse_loss(model(x), y).item())
    assert abs(smoothed.own - rise) < 3 * smoothed.own_error < rise / 5
    # With one sign of each draw the part that is linear in it would triple this error.
    assert abs(smoothed.ball - rise_of_ball) < 3 * smoothed.ball_error < rise_of_ball / 20
    noise = igo.measure_noise(model, mse_loss, loader, n=48, seed=0)
    assert smoothed.delta == pytest.approx(RATE * math.sqrt(noise.variance / 6))


def test_skewed_noise_is_taken_with_its_own_sign() -> None:
    """E f(x − ηω) − f(x), as the mean over all batches; that of f(x + ηω) is another number."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(12, 2, generator=random, dtype=torch.float64).exp()
    y = torch.arange(12) % 3
    model = nn.Linear(2, 3, bias=False).double()
    nn.init.zeros_(model.weight)
    smoothed = igo.smoothed_loss(
        model, cross_entropy, loader_of(x, y, 1), [(x, y)], n=12, learning_rate=1.0, draws=1200
    )
    # At w = 0 a sample's gradient is (p − onehot) xᵀ with p = ⅓.
    gradients = (1 / 3 - nn.functional.one_hot(y)).unsqueeze(2) * x.unsqueeze(1)
    noise = gradients - gradients.mean(0)

    def rise(sign: int) -> float:
        moved = [cross_entropy(x @ (sign * one).T, y) for one in noise]
        return float(torch.stack(moved).mean()) - math.log(3)

    assert abs(rise(-1) - rise(1)) > 10 * smoothed.own_error
    assert abs(smoothed.own - rise(-1)) < 3 * smoothed.own_error


def test_it_leaves_the_model_as_it_was_and_a_seed_repeats_it() -> None:
    """Parameters, statistics of BatchNorm, gradients and random numbers, to the bit."""
    x = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    y = x[:, 0].gt(0).long()
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    numbers: Any = {"n": 32, "learning_rate": RATE, "draws": 3, "seed": 5}
    with unchanged(model):
        smoothed, repeated = (
            igo.smoothed_loss(model, cross_entropy, loader_of(x, y, 8), [(x, y)], **numbers)
            for _ in range(2)
        )
    assert smoothed == repeated
    assert all(bool((parameter.grad == 1).all()) for parameter in model.parameters())


def test_a_wrong_argument_is_named() -> None:
    x, y = torch.zeros(8, 2, dtype=torch.float64), torch.zeros(8, dtype=torch.long)
    sound: Any = {"loader": loader_of(x, y, 4), "evaluation": [(x, y)], "n": 8}
    sound |= {"learning_rate": 0.1}
    cases: list[tuple[str, Any, str]] = [
        ("learning_rate", 0.0, r"=0\.0: it must be above 0"),
        ("draws", 1, "=1: it must be 2 or more"),
        ("n", 0, "=0: it must be 1 or more"),
        ("evaluation", iter([1]), ": it is passed over again and again"),
        ("loader", DataLoader(ChainDataset([])), ": it is passed over .* with a length"),
    ]
    for name, value, words in cases:
        with pytest.raises(ValueError, match=name + words):
            igo.smoothed_loss(nn.Linear(2, 3).double(), cross_entropy, **sound | {name: value})
