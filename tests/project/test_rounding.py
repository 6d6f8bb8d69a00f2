"""The bound holds for sums in other orders, and is no wider than it needs to be."""

from __future__ import annotations

import numpy as np
import pytest
import rounding
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


def one_by_one(x: np.ndarray) -> float:
    return float(np.cumsum(x, dtype=np.float32)[-1])


def in_lanes(x: np.ndarray, lanes: int) -> float:
    """As vector instructions do: so many sums side by side, then their sum."""
    padded = np.pad(x, (0, -len(x) % lanes)).reshape(-1, lanes)
    return one_by_one(np.cumsum(padded, axis=0, dtype=np.float32)[-1])


@settings(deadline=None)
@given(n=st.integers(2, 20_000), seed=st.integers(0, 2**32 - 1), cancels=st.booleans())
def test_sums_in_other_orders_are_within_it(n: int, seed: int, cancels: bool) -> None:
    draw = np.random.default_rng(seed)
    x = (draw.normal(size=n) if cancels else draw.uniform(size=n)).astype(np.float32)
    sums = [one_by_one(x), one_by_one(x[::-1]), one_by_one(np.sort(x)), float(x.sum())]
    sums += [in_lanes(x, lanes) for lanes in (4, 8, 16)]
    slack = rounding.bound(n) * float(np.abs(x).sum(dtype=np.float64))
    assert max(sums) - min(sums) <= slack


def test_it_is_within_a_hundred_times_of_what_happens() -> None:
    """For numbers of one sign, whose partial sums are large: the case that the theorem is about."""
    worst = 0.0
    for seed in range(50):
        x = np.random.default_rng(seed).uniform(size=4096).astype(np.float32)
        exact = float(x.sum(dtype=np.float64))
        worst = max(worst, abs(one_by_one(x) - exact) / exact)
    assert rounding.bound(4096) / 100 < worst < rounding.bound(4096)


def test_the_terms_of_a_network_are_counted() -> None:
    images = torch.zeros(6, 1, 8, 8)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )
    places = 6 * 6 * 6
    assert rounding.terms(network.eval(), images, backward=False) == 6 + 9 + 1 + 144
    assert rounding.terms(network.train(), images, backward=False) == 6 + 9 + 2 * places + 144
    backward = (4 * 9 + places) + 2 * places + (10 + 6)
    assert rounding.terms(network, images) == 6 + 9 + 2 * places + 144 + backward
    assert int(network[1].num_batches_tracked) == 0  # type: ignore[arg-type]


def test_a_term_that_is_missing_is_noticed() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    rounding.assert_close(x.sum(), x.flip(0).sum(), 1000, magnitude=float(x.abs().sum()))
    with pytest.raises(AssertionError):
        rounding.assert_close(x[1:].sum(), x.sum(), 1000, magnitude=float(x.abs().sum()))
